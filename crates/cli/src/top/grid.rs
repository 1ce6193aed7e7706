//! A table as it is shown: what `top` draws and what `--once` prints are made of the same ones.

use super::Rates;
use crate::live::{Flow, PortRates, Role, ThreadRates};

/// Headings and rows of text.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Grid {
    pub(super) columns: Vec<Column>,
    pub(super) rows: Vec<Row>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Column {
    pub(super) name: &'static str,
    /// Numbers end in one column, text begins in one.
    pub(super) right: bool,
    /// Columns of a higher rank leave first where the screen is narrow, those of one rank together; 0 never does.
    rank: u8,
    /// Text of so many letters may be cut before a column of [`NUMBERS`] leaves for it.
    least: usize,
}

/// Columns of this rank and below are worth more than the whole of a long name.
const NUMBERS: u8 = 3;

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Row {
    pub(super) cells: Vec<String>,
    /// Worth a look: frames are dropped here.
    pub(super) alarm: bool,
}

/// By what rows are sorted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Order {
    /// What is busiest first.
    #[default]
    Rate,
    /// What drops most first.
    Drops,
    Name,
}

impl Order {
    pub(super) fn next(self) -> Self {
        match self {
            Self::Rate => Self::Drops,
            Self::Drops => Self::Name,
            Self::Name => Self::Rate,
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Rate => "rate",
            Self::Drops => "drops",
            Self::Name => "name",
        }
    }
}

const fn text(name: &'static str, rank: u8) -> Column {
    Column {
        name,
        right: false,
        rank,
        least: usize::MAX,
    }
}

const fn long(name: &'static str, rank: u8, least: usize) -> Column {
    Column {
        least,
        ..text(name, rank)
    }
}

const fn number(name: &'static str, rank: u8) -> Column {
    Column {
        name,
        right: true,
        rank,
        least: usize::MAX,
    }
}

/// What ports carried and dropped.
pub(super) fn ports(rates: &Rates, order: Order) -> Grid {
    let mut rows = Vec::new();
    for port in sorted(rates, order) {
        let (rx, tx) = (flow(port.rx), flow(port.tx));
        rows.push(Row {
            cells: vec![
                port.name.clone(),
                port.kind.clone(),
                if port.connected { "up" } else { "down" }.into(),
                rx.0,
                rx.1,
                tx.0,
                tx.1,
                rate(port.dropped()),
                reasons(port),
            ],
            alarm: !port.drops.is_empty(),
        });
    }
    Grid {
        columns: vec![
            long("PORT", 0, 20),
            text("KIND", 5),
            text("LINK", 4),
            number("RX-F/S", 2),
            number("RX-BIT/S", 0),
            number("TX-F/S", 2),
            number("TX-BIT/S", 0),
            number("DROPS/S", 0),
            long("WHY", 1, 12),
        ],
        rows,
    }
}

/// What queue pairs carried, and who serves them.
pub(super) fn queues(rates: &Rates, order: Order) -> Grid {
    let mut rows = Vec::new();
    for port in sorted(rates, order) {
        for (index, queue) in port.queues.iter().enumerate() {
            let (rx, tx) = (flow(queue.rx), flow(queue.tx));
            let worker = queue.worker.map(|worker| format!("worker-{worker}"));
            rows.push(Row {
                cells: vec![
                    port.name.clone(),
                    index.to_string(),
                    worker.unwrap_or_else(|| "-".into()),
                    rx.0,
                    rx.1,
                    tx.0,
                    tx.1,
                    rate(queue.kicks),
                    rate(queue.calls),
                ],
                alarm: false,
            });
        }
    }
    Grid {
        columns: vec![
            long("PORT", 0, 20),
            number("Q", 0),
            text("SERVED-BY", 4),
            number("RX-F/S", 2),
            number("RX-BIT/S", 0),
            number("TX-F/S", 2),
            number("TX-BIT/S", 0),
            number("KICKS/S", 3),
            number("CALLS/S", 3),
        ],
        rows,
    }
}

/// Which threads carry that, and where they run.
pub(super) fn threads(rates: &Rates, order: Order) -> Grid {
    let mut threads: Vec<&ThreadRates> = rates.threads.iter().collect();
    let busy = |thread: &ThreadRates| thread.percent.unwrap_or_default();
    match order {
        Order::Name => threads.sort_by_key(|thread| (thread.owner.clone(), thread.role)),
        _ => threads.sort_by(|a, b| busy(b).total_cmp(&busy(a)).then(a.role.cmp(&b.role))),
    }
    // Helpers that do nothing are many and tell nothing.
    threads.retain(|thread| thread.role != Role::Other || busy(thread) >= 0.05);
    let rows = threads.into_iter().map(|thread| Row {
        cells: vec![
            thread.owner.clone(),
            thread.role.name().into(),
            thread.name.clone(),
            thread.id.to_string(),
            thread.cpu.map_or_else(|| "-".into(), |cpu| cpu.to_string()),
            thread
                .percent
                .map_or_else(|| "-".into(), |percent| format!("{percent:.1}")),
        ],
        alarm: false,
    });
    Grid {
        rows: rows.collect(),
        columns: vec![
            long("OWNER", 0, 16),
            text("ROLE", 3),
            long("THREAD", 0, 10),
            number("TID", 2),
            number("CPU", 0),
            number("%CPU", 0),
        ],
    }
}

fn sorted(rates: &Rates, order: Order) -> Vec<&PortRates> {
    let mut ports: Vec<&PortRates> = rates.ports.iter().collect();
    ports.sort_by(|a, b| a.name.cmp(&b.name));
    match order {
        Order::Name => (),
        Order::Rate => ports.sort_by(|a, b| b.bits().total_cmp(&a.bits())),
        Order::Drops => {
            let dropped = |port: &PortRates| port.dropped().unwrap_or_default();
            ports.sort_by(|a, b| dropped(b).total_cmp(&dropped(a)));
        }
    }
    ports
}

/// Why frames were dropped, most first.
fn reasons(port: &PortRates) -> String {
    let mut reasons: Vec<_> = port.drops.iter().collect();
    reasons.sort_by(|a, b| b.1.total_cmp(a.1));
    let names: Vec<&str> = reasons.iter().map(|(reason, _)| reason.as_str()).collect();
    names.join(" ")
}

fn flow(flow: Option<Flow>) -> (String, String) {
    (
        rate(flow.map(|flow| flow.frames)),
        rate(flow.map(|flow| flow.bits)),
    )
}

fn rate(value: Option<f64>) -> String {
    value.map_or_else(|| "-".into(), crate::print::rate)
}

impl Grid {
    /// The same with as many columns as fit in `width`, and how wide each is.
    pub(super) fn fit(mut self, width: usize) -> (Self, Vec<usize>) {
        loop {
            let mut widths = self.widths();
            let wanted: usize = widths.iter().sum::<usize>() + GAP * (widths.len() - 1);
            let Some(mut excess) = wanted.checked_sub(width).filter(|excess| *excess > 0) else {
                return (self, widths);
            };
            let rank = self.columns.iter().map(|column| column.rank).max();
            let rank = rank.unwrap_or_default();
            if rank <= NUMBERS {
                // The reasons give before the names do.
                for (column, width) in self.columns.iter().zip(&mut widths).rev() {
                    let cut = width.saturating_sub(column.least).min(excess);
                    *width -= cut;
                    excess -= cut;
                }
            }
            if excess == 0 {
                return (self, widths);
            }
            if rank == 0 {
                // What is left are the names to cut.
                widths[0] = widths[0].saturating_sub(excess).max(4);
                return (self, widths);
            }
            self.leave(rank);
        }
    }

    /// Columns of a rank leave.
    fn leave(&mut self, rank: u8) {
        for index in (0..self.columns.len()).rev() {
            if self.columns[index].rank == rank {
                self.columns.remove(index);
                for row in &mut self.rows {
                    row.cells.remove(index);
                }
            }
        }
    }

    fn widths(&self) -> Vec<usize> {
        let widths = self.columns.iter().enumerate().map(|(index, column)| {
            let cells = self.rows.iter().map(|row| row.cells[index].chars().count());
            // Numbers that grow shall not move everything at once.
            let least = if column.right { 6 } else { 4 };
            cells
                .chain([column.name.len(), least])
                .max()
                .unwrap_or(least)
        });
        widths.collect()
    }

    /// As lines of text: headings and rows.
    pub(super) fn lines(&self, widths: &[usize]) -> Vec<String> {
        let names = self.columns.iter().map(|column| column.name.to_owned());
        let heading: Vec<String> = names.collect();
        let rows = self.rows.iter().map(|row| &row.cells);
        let line = |cells: &Vec<String>| {
            let mut line = String::new();
            for (index, ((cell, column), width)) in
                cells.iter().zip(&self.columns).zip(widths).enumerate()
            {
                let cell = cut(&crate::print::clean(cell), *width, index == 0);
                match column.right {
                    true => line += &format!("{cell:>width$}  "),
                    false => line += &format!("{cell:<width$}  "),
                }
            }
            line.trim_end().to_owned()
        };
        [&heading].into_iter().chain(rows).map(line).collect()
    }
}

/// Between columns.
const GAP: usize = 2;

/// At most `width` characters; `~` stands for what is missing. Names differ at their ends as often as at their beginnings.
fn cut(text: &str, width: usize, is_name: bool) -> String {
    let count = text.chars().count();
    if count <= width {
        return text.to_owned();
    }
    let kept = width.saturating_sub(1);
    let last = if is_name { kept / 2 } else { 0 };
    let begin: String = text.chars().take(kept - last).collect();
    let end: String = text.chars().skip(count - last).collect();
    format!("{begin}~{end}")
}

#[cfg(test)]
mod tests;
