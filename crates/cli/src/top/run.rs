//! The terminal: taken, drawn to, and given back however this ends.

use std::{
    io,
    sync::mpsc::{self, Sender},
    thread,
    time::Duration,
};

use ratatui::{
    DefaultTerminal,
    crossterm::event::{self, Event},
};
use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM},
    iterator::Signals,
};

use super::{State, Surroundings, screen, state::Next};
use crate::{
    Failure,
    live::{Sample, Source},
};

/// What the screen waits for.
enum Happened {
    Sampled(Box<Sample>),
    /// A key, or another size.
    Typed(Event),
    /// A signal came, or the terminal is gone.
    End,
}

/// Until somebody leaves. A panic gives the terminal back as well (ratatui's hook).
pub(super) fn run(
    source: Source,
    interval: Duration,
    around: &Surroundings,
) -> Result<(), Failure> {
    let (tell, told) = mpsc::channel();
    // Before the terminal is changed: a signal that comes in between changes it back.
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP])?;
    let mut terminal = ratatui::try_init().inspect_err(|_| ratatui::restore())?;
    let end = tell.clone();
    thread::spawn(move || {
        signals.forever().next();
        let _ = end.send(Happened::End);
    });
    let samples = tell.clone();
    thread::spawn(move || sample(source, interval, samples));
    thread::spawn(move || type_in(tell));
    let done = show(&mut terminal, &told, around);
    ratatui::restore();
    Ok(done?)
}

fn show(
    terminal: &mut DefaultTerminal,
    told: &mpsc::Receiver<Happened>,
    around: &Surroundings,
) -> io::Result<()> {
    let mut state = State::default();
    loop {
        terminal.draw(|frame| screen::draw(frame, &mut state, around))?;
        match told.recv() {
            Ok(Happened::Sampled(sample)) => state.take(*sample),
            Ok(Happened::Typed(Event::Key(key))) => match state.press(key) {
                Next::Stay => (),
                Next::Leave => return Ok(()),
            },
            // Drawing looks at the size by itself.
            Ok(Happened::Typed(_)) => (),
            Ok(Happened::End) | Err(_) => return Ok(()),
        }
    }
}

/// Says that a thread has ended, a panic among the reasons: nothing would move any more.
struct Farewell(Sender<Happened>);

impl Drop for Farewell {
    fn drop(&mut self) {
        let _ = self.0.send(Happened::End);
    }
}

/// The second look comes soon, so that there are rates to see.
fn sample(mut source: Source, interval: Duration, tell: Sender<Happened>) {
    let tell = Farewell(tell);
    let mut wait = interval.min(Duration::from_millis(300));
    loop {
        let sample = Box::new(source.sample());
        if tell.0.send(Happened::Sampled(sample)).is_err() {
            return;
        }
        thread::sleep(wait);
        wait = interval;
    }
}

fn type_in(tell: Sender<Happened>) {
    let tell = Farewell(tell);
    while let Ok(event) = event::read() {
        if tell.0.send(Happened::Typed(event)).is_err() {
            return;
        }
    }
}
