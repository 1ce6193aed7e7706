//! Tables of a report: for a terminal of 80 columns, and in Markdown for documents.

use std::fmt::Write as _;

use super::{Estimate, Figure, Load, Report, Row};

/// What the columns mean; below a terminal's tables.
const LEGEND: &str = "\
±: the true median is within it 19 of 20 times. to tap: against virtio on a
plain tap in the same round. s/Gbit, s/Mframe: seconds of the host's processors
per Gbit and per million frames, behind the stroke without the guests' virtual
processors. A frame may be a segment of up to 64 KiB. switches, wake-ups: per
1,000 frames.
";

impl Report {
    /// For people at a terminal.
    pub fn text(&self) -> String {
        let mut text = String::new();
        for line in self.machine_lines() {
            let _ = writeln!(text, "{line}");
        }
        for load in Load::ALL {
            let rows = self.table(load, |of, digits| {
                let share = |factor: f64| 100.0 * (factor - 1.0);
                match of.factor.map(share) {
                    Some(share) => format!("{:.digits$} ±{share:.0} %", of.median),
                    None => format!("{:.digits$}", of.median),
                }
            });
            if rows.len() > 1 {
                let _ = writeln!(text, "\n{}", load.title());
                text.push_str(&aligned(&rows));
            }
        }
        if !self.rows.is_empty() {
            let _ = write!(text, "\n{LEGEND}");
        }
        if !self.missing.is_empty() {
            text.push_str("\nNot measured:\n");
        }
        for missing in &self.missing {
            let _ = writeln!(text, "  {:11} {}", missing.path.name(), missing.reason);
        }
        text
    }

    /// For documents.
    pub fn markdown(&self) -> String {
        let mut text = String::new();
        for line in self.machine_lines() {
            let _ = writeln!(text, "- {line}");
        }
        for load in Load::ALL {
            let rows = self.table(load, |of, digits| {
                let (median, low, high) = (of.median, of.low(), of.high());
                match of.factor {
                    Some(_) => format!("{median:.digits$} [{low:.digits$}..{high:.digits$}]"),
                    None => format!("{median:.digits$}"),
                }
            });
            let Some((heading, rows)) = rows.split_first().filter(|(_, rows)| !rows.is_empty())
            else {
                continue;
            };
            let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
            let _ = write!(text, "\n**{}**\n\n{}", load.title(), line(heading));
            text.push_str(&format!("|---{}|\n", "|--:".repeat(heading.len() - 1)));
            text.extend(rows.iter().map(|row| line(row)));
        }
        if !self.missing.is_empty() {
            text.push_str("\nNot measured there:\n\n");
        }
        for missing in &self.missing {
            let _ = writeln!(text, "- {}: {}", missing.path.title(), missing.reason);
        }
        text
    }

    /// What was measured, where.
    fn machine_lines(&self) -> Vec<String> {
        let machine = &self.machine;
        let what = if machine.is_virtual {
            ", itself a virtual machine"
        } else {
            ""
        };
        let mut lines = vec![
            format!(
                "{}, {} CPUs, {} GiB{what}; Linux {}",
                machine.model, machine.processors, machine.memory, machine.kernel
            ),
            format!("QEMU {}, guests run by {}", machine.qemu, machine.accel),
            format!(
                "guests: Linux {}, as many processors as queue pairs; Ringway {}",
                machine.guest_kernel, machine.ringway
            ),
            match self.rounds {
                1 => format!("one round, {} s for each load", self.seconds),
                rounds => format!("{rounds} rounds, {} s for each load", self.seconds),
            },
        ];
        let mut places: Vec<&String> = self.places.values().collect();
        places.dedup();
        for place in places {
            lines.push(place.clone());
        }
        lines
    }

    /// A heading and a line for each path.
    fn table(&self, load: Load, show: impl Fn(Estimate, usize) -> String) -> Vec<Vec<String>> {
        let columns = columns(load);
        let mut heading = vec!["path".to_owned()];
        heading.extend(columns.iter().map(|column| column.0.to_owned()));
        let mut lines = vec![heading];
        for row in self.rows.iter().filter(|row| row.load == load) {
            let mut line = vec![name(row)];
            for (_, column) in &columns {
                line.push(match column {
                    Column::Main(figure) => row.cell(*figure, &show),
                    Column::Ratio => row.to_tap.map_or("-".into(), |ratio| show(ratio, 2)),
                    Column::Median(figure) => row.median(*figure),
                    Column::Both(all, path) => {
                        format!("{} / {}", row.median(*all), row.median(*path))
                    }
                });
            }
            lines.push(line);
        }
        lines
    }
}

enum Column {
    /// With its spread.
    Main(Figure),
    /// The main figure against the plain tap's.
    Ratio,
    Median(Figure),
    Both(Figure, Figure),
}

fn columns(load: Load) -> Vec<(&'static str, Column)> {
    let per_gigabit = Column::Both(Figure::SecondsPerGigabit, Figure::PathSecondsPerGigabit);
    let per_megaframe = Column::Both(Figure::SecondsPerMegaframe, Figure::PathSecondsPerMegaframe);
    let mut columns = match load {
        Load::Exchange => vec![
            ("p50 µs", Column::Main(Figure::Median)),
            ("to tap", Column::Ratio),
            ("p99 µs", Column::Median(Figure::Slow)),
        ],
        Load::Udp64 => vec![
            ("kframes/s", Column::Main(Figure::Kiloframes)),
            ("to tap", Column::Ratio),
            ("received", Column::Median(Figure::Received)),
        ],
        Load::Udp1472 => vec![
            ("Gbit/s", Column::Main(Figure::Gigabits)),
            ("to tap", Column::Ratio),
            ("received", Column::Median(Figure::Received)),
        ],
        _ => vec![
            ("Gbit/s", Column::Main(Figure::Gigabits)),
            ("to tap", Column::Ratio),
            ("s/Gbit", per_gigabit),
        ],
    };
    columns.extend([
        ("s/Mframe", per_megaframe),
        ("switches", Column::Median(Figure::Switches)),
        ("wake-ups", Column::Median(Figure::Wakeups)),
    ]);
    columns
}

/// A path with its queue pairs.
pub(super) fn name(row: &Row) -> String {
    match row.queues {
        1 => row.path.name().to_owned(),
        queues => format!("{} x{queues}", row.path.name()),
    }
}

impl Row {
    fn cell(&self, figure: Figure, show: impl Fn(Estimate, usize) -> String) -> String {
        let found = self.figures.get(&figure);
        found.map_or("-".into(), |&of| show(of, digits(of.median)))
    }

    fn median(&self, figure: Figure) -> String {
        self.cell(figure, |of, digits| format!("{:.digits$}", of.median))
    }
}

/// As many decimals as tell something.
fn digits(value: f64) -> usize {
    match value {
        value if value >= 100.0 => 0,
        value if value >= 10.0 => 1,
        _ => 2,
    }
}

/// The first column begins, the others end in line.
fn aligned(rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (column, cell) in row.iter().enumerate() {
            let space = " ".repeat(width(column) - cell.chars().count());
            line += &match column {
                0 => format!("{cell}{space}"),
                _ => format!("  {space}{cell}"),
            };
        }
        let _ = writeln!(text, "{}", line.trim_end());
    }
    text
}

#[cfg(test)]
mod tests {
    use crate::paths::report::example;

    #[test]
    fn a_terminal_of_80_columns_holds_every_line_but_those_of_the_machine() {
        let report = example();
        let text = report.text();
        let tables = text
            .split_once("\nTCP")
            .unwrap()
            .1
            .split_once("\nNot measured")
            .unwrap()
            .0;
        for line in tables.lines() {
            assert!(line.chars().count() <= 80, "{line}");
        }
        assert!(
            text.contains("vhost-user x2  2.00 ±9 %  2.00 ±0 %"),
            "{text}"
        );
        assert!(
            text.contains("\n  vfio        there is no IOMMU\n"),
            "{text}"
        );
    }

    #[test]
    fn documents_have_the_spread_in_full() {
        let text = example().markdown();
        assert!(
            text.contains("| vhost-user x2 | 2.00 [1.83..2.19] | 2.00 [2.00..2.00] |"),
            "{text}"
        );
        assert!(
            text.contains("**TCP, 1 stream, A to B**\n\n| path | Gbit/s | to tap |"),
            "{text}"
        );
        assert!(text.contains("|---|--:|--:|--:|--:|--:|--:|\n"), "{text}");
        assert!(
            text.contains("- passthrough (VFIO): there is no IOMMU\n"),
            "{text}"
        );
    }
}
