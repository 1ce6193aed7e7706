//! How `top` looks: a headline, the tables, what keys do.

use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    style::{Color, Modifier, Style},
    text::{Line, Span},
    widgets::{Clear, Paragraph},
};

use super::state::{Pane, State};

/// From so many lines on all tables are shown, else the one that is looked at.
const ALL_PANES: u16 = 20;

/// What does not change while `top` runs.
pub(super) struct Surroundings {
    /// Who is asked.
    pub(super) title: String,
    /// Seconds between samples.
    pub(super) interval: f64,
    /// Whether colours are wanted.
    pub(super) colours: bool,
}

pub(super) fn draw(frame: &mut Frame<'_>, state: &mut State, around: &Surroundings) {
    let status = status(state, frame.area());
    let lines = u16::try_from(status.len()).unwrap_or(1);
    let [top, tabs, body, bottom] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(1),
        Constraint::Min(1),
        Constraint::Length(lines),
    ])
    .areas(frame.area());
    frame.render_widget(headline(state, around), top);
    frame.render_widget(tab_line(state), tabs);
    if frame.area().height >= ALL_PANES {
        let heights = share(state, body.height);
        let areas: [Rect; 3] = Layout::vertical(heights.map(Constraint::Length)).areas(body);
        for (pane, area) in Pane::ALL.into_iter().zip(areas) {
            table(frame, state, pane, area, around);
        }
    } else {
        table(frame, state, state.pane, body, around);
    }
    let style = match state.rates.trouble {
        Some(_) => alarm(around),
        None => Style::new(),
    };
    let status: Vec<Line<'_>> = status
        .into_iter()
        .map(|it| Line::styled(it, style))
        .collect();
    frame.render_widget(Paragraph::new(status), bottom);
    if state.help {
        help(frame, bottom);
    }
}

/// How many lines each table gets: what it needs, if all fit; the one that is looked at gives last.
fn share(state: &State, height: u16) -> [u16; 3] {
    let needed = Pane::ALL.map(|pane| {
        // Heading, rows, a line between.
        u16::try_from(state.grid(pane).rows.len() + 2).unwrap_or(u16::MAX)
    });
    let mut heights = [4u16; 3];
    let mut left = height.saturating_sub(12);
    let mut order = Pane::ALL;
    order.sort_by_key(|pane| *pane != state.pane);
    for pane in order {
        let index = pane as usize;
        let more = needed[index].saturating_sub(heights[index]).min(left);
        heights[index] += more;
        left -= more;
    }
    heights
}

fn headline(state: &State, around: &Surroundings) -> Paragraph<'static> {
    let rate = |value: Option<f64>| value.map_or_else(|| "-".into(), crate::print::rate);
    let rates = &state.rates;
    let bold = Style::new().add_modifier(Modifier::BOLD);
    let dropped = match rates.dropped {
        Some(dropped) if dropped > 0.0 => alarm(around),
        _ => Style::new(),
    };
    Paragraph::new(Line::from(vec![
        Span::styled("ringway top", bold),
        Span::raw(format!("  {} delivered/s  ", rate(rates.delivered))),
        Span::styled(format!("{} dropped/s", rate(rates.dropped)), dropped),
        Span::raw(format!("  every {} s  {}", around.interval, around.title)),
    ]))
}

fn tab_line(state: &State) -> Paragraph<'static> {
    let mut spans = Vec::new();
    for (number, pane) in (1..).zip(Pane::ALL) {
        let style = match pane == state.pane {
            true => Style::new().add_modifier(Modifier::REVERSED),
            false => Style::new(),
        };
        spans.push(Span::styled(format!(" {number} {} ", pane.name()), style));
    }
    spans.push(Span::raw(format!("  by {}", state.order.name())));
    if state.paused {
        let bold = Style::new().add_modifier(Modifier::BOLD);
        spans.push(Span::styled("  PAUSED", bold));
    }
    Paragraph::new(Line::from(spans))
}

fn table(frame: &mut Frame<'_>, state: &mut State, pane: Pane, area: Rect, around: &Surroundings) {
    let (grid, widths) = state.grid(pane).fit(area.width.into());
    let mut lines = grid.lines(&widths).into_iter();
    let heading = Style::new().add_modifier(match pane == state.pane {
        true => Modifier::BOLD | Modifier::UNDERLINED,
        false => Modifier::UNDERLINED,
    });
    let heading = lines.next().map(|line| Line::styled(line, heading));
    // Below another table a line stays free.
    let height = match pane {
        Pane::Threads => area.height,
        _ => area.height.saturating_sub(1),
    };
    let (count, room) = (grid.rows.len(), usize::from(height.saturating_sub(1)));
    // Where not all rows fit, the last line says so.
    let fits = count <= room;
    let window = state.window(pane, count, room.saturating_sub(usize::from(!fits)));
    let rows = lines
        .zip(&grid.rows)
        .skip(window.start)
        .take(window.len())
        .map(|(line, row)| match row.alarm {
            true => Line::styled(line, alarm(around)),
            false => Line::raw(line),
        });
    let mut shown: Vec<Line<'_>> = heading.into_iter().chain(rows).collect();
    if grid.rows.is_empty() {
        shown.push(Line::raw(nothing(state, pane)));
    }
    if !fits && room > 0 {
        let hidden = match (window.start, count - window.end) {
            (0, below) => format!("... {below} more"),
            (above, 0) => format!("... {above} above"),
            (above, below) => format!("... {above} above, {below} more"),
        };
        shown.push(Line::raw(hidden));
    }
    frame.render_widget(Paragraph::new(shown), area);
}

fn nothing(state: &State, pane: Pane) -> &'static str {
    match pane {
        _ if !state.begun() => "(looking)",
        Pane::Ports => "(no ports)",
        Pane::Queues => "(no queues: no guest is there)",
        Pane::Threads => "(no switch and no QEMU runs here)",
    }
}

/// What keys do, or all of what is wrong, where half of the screen is enough for it.
fn status(state: &State, screen: Rect) -> Vec<String> {
    match &state.rates.trouble {
        Some(trouble) => {
            let lines = crate::print::wrap(trouble, screen.width.into());
            let most = usize::from(screen.height / 2).max(1);
            lines.into_iter().take(most).collect()
        }
        None => vec!["q leave  ? help  s sort  Tab 1-3 tables  p pause  Up/Down".into()],
    }
}

fn alarm(around: &Surroundings) -> Style {
    match around.colours {
        true => Style::new().fg(Color::Red),
        false => Style::new().add_modifier(Modifier::BOLD),
    }
}

const HELP: &str = "\
q Esc Ctrl-C  leave
1 2 3 Tab     ports, queues, threads
Up Down       move in the table, as do
              Page, Home and End
s             sort by rate, drops, name
p             pause

RX is from the guest, TX to it.
BIT/S is of frames alone, as in the
guest. WHY: `ringway stats` counts
them, docs/ARCHITECTURE.md has all
reasons. CPU is where a thread ran
last, %CPU its part of one CPU.";

fn help(frame: &mut Frame<'_>, bottom: Rect) {
    frame.render_widget(Clear, frame.area());
    frame.render_widget(Paragraph::new(HELP), frame.area());
    frame.render_widget(Clear, bottom);
    frame.render_widget(Paragraph::new("any key: back"), bottom);
}

#[cfg(test)]
mod tests;
