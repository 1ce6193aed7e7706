//! What `top` knows: the last samples, what is looked at, and how. Keys and samples change it; nothing here draws or waits.

use std::ops::Range;

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::{
    Rates,
    grid::{self, Grid, Order},
};
use crate::live::Sample;

/// A table of the screen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Pane {
    #[default]
    Ports,
    Queues,
    Threads,
}

impl Pane {
    pub(super) const ALL: [Self; 3] = [Self::Ports, Self::Queues, Self::Threads];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Ports => "Ports",
            Self::Queues => "Queues",
            Self::Threads => "Threads",
        }
    }

    fn index(self) -> usize {
        Self::ALL
            .iter()
            .position(|pane| *pane == self)
            .unwrap_or_default()
    }
}

/// What is known and what is looked at.
#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) last: Option<Sample>,
    pub(super) rates: Rates,
    pub(super) pane: Pane,
    pub(super) order: Order,
    /// The first row that is shown, by pane; drawing takes care that it is not too far down.
    pub(super) first: [usize; 3],
    /// How many rows were shown last, by pane.
    pub(super) page: [usize; 3],
    pub(super) paused: bool,
    pub(super) help: bool,
}

/// What a key leads to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    Stay,
    Leave,
}

impl State {
    /// What was sampled; nothing moves while the screen is paused.
    pub(super) fn take(&mut self, sample: Sample) {
        if self.paused {
            return;
        }
        self.rates = Rates::between(self.last.as_ref(), &sample);
        self.last = Some(sample);
    }

    /// Whether anything was sampled yet.
    pub(super) fn begun(&self) -> bool {
        self.last.is_some()
    }

    pub(super) fn grid(&self, pane: Pane) -> Grid {
        match pane {
            Pane::Ports => grid::ports(&self.rates, self.order),
            Pane::Queues => grid::queues(&self.rates, self.order),
            Pane::Threads => grid::threads(&self.rates, self.order),
        }
    }

    /// Which of so many rows are shown where there is room for `room`: the last of them stands on the last line at most.
    pub(super) fn window(&mut self, pane: Pane, rows: usize, room: usize) -> Range<usize> {
        let first = &mut self.first[pane.index()];
        *first = (*first).min(rows.saturating_sub(room));
        self.page[pane.index()] = room;
        *first..first.saturating_add(room).min(rows)
    }

    pub(super) fn press(&mut self, key: KeyEvent) -> Next {
        if key.kind == KeyEventKind::Release {
            return Next::Stay;
        }
        let control = key.modifiers.contains(KeyModifiers::CONTROL);
        if control && matches!(key.code, KeyCode::Char('c')) {
            return Next::Leave;
        }
        if self.help {
            self.help = false;
            return Next::Stay;
        }
        let pane = self.pane.index();
        let (first, page) = (self.first[pane], self.page[pane].max(1));
        match key.code {
            KeyCode::Char('q') | KeyCode::Esc => return Next::Leave,
            KeyCode::Char('?' | 'h') => self.help = true,
            KeyCode::Char('s') => self.order = self.order.next(),
            KeyCode::Char('p' | ' ') => self.paused = !self.paused,
            KeyCode::Char(digit @ '1'..='3') => {
                self.pane = Pane::ALL[usize::from(digit as u8 - b'1')];
            }
            KeyCode::Tab | KeyCode::Right => self.pane = Pane::ALL[(pane + 1) % 3],
            KeyCode::BackTab | KeyCode::Left => self.pane = Pane::ALL[(pane + 2) % 3],
            KeyCode::Up => self.first[pane] = first.saturating_sub(1),
            KeyCode::Down => self.first[pane] = first.saturating_add(1),
            KeyCode::PageUp => self.first[pane] = first.saturating_sub(page),
            KeyCode::PageDown => self.first[pane] = first.saturating_add(page),
            KeyCode::Home => self.first[pane] = 0,
            KeyCode::End => self.first[pane] = usize::MAX,
            _ => (),
        }
        Next::Stay
    }
}

#[cfg(test)]
mod tests;
