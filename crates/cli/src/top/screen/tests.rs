use ratatui::{
    Terminal,
    backend::TestBackend,
    crossterm::event::{KeyCode, KeyEvent, KeyModifiers},
};

use super::*;
use crate::{live::Rates, top::example::rates};

fn shown(state: &mut State, width: u16, height: u16) -> Vec<String> {
    let around = Surroundings {
        title: "daemon /run/ringway/api.sock".into(),
        interval: 1.0,
        colours: true,
    };
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw(frame, state, &around)).unwrap();
    let buffer = terminal.backend().buffer();
    let line = |y| (0..width).map(move |x| buffer[(x, y)].symbol());
    (0..height)
        .map(|y| line(y).collect::<String>().trim_end().to_owned())
        .collect()
}

fn state() -> State {
    State {
        rates: rates(),
        ..State::default()
    }
}

#[test]
fn a_screen_of_24_lines_shows_all_tables() {
    assert_eq!(
        shown(&mut state(), 80, 24),
        [
            "ringway top  822k delivered/s  60 dropped/s  every 1 s  daemon /run/ringway/api.",
            " 1 Ports  2 Queues  3 Threads   by rate",
            "PORT     LINK  RX-F/S  RX-BIT/S  TX-F/S  TX-BIT/S  DROPS/S  WHY",
            "lan/web  up      812k     9.41G   10.0k     5.12M       60  no_buffers too_long",
            "lan/db   down       -         -       -         -        -",
            "",
            "PORT          Q  SERVED-BY  RX-F/S  RX-BIT/S  TX-F/S  TX-BIT/S  KICKS/S  CALLS/S",
            "lan/web       0  worker-1     812k     9.41G   10.0k     5.12M      300        -",
            "",
            "",
            "OWNER   ROLE    THREAD        TID     CPU    %CPU",
            "switch  worker  worker-1       12       3    98.7",
            "web     vcpu    CPU 0/KVM      34       1    45.0",
            "web     vhost   vhost-33       35       -       -",
            "",
            "",
            "",
            "",
            "",
            "",
            "",
            "",
            "",
            "q leave  ? help  s sort  Tab 1-3 tables  p pause  Up/Down",
        ]
    );
}

#[test]
fn a_small_screen_shows_the_table_that_is_looked_at() {
    let mut state = state();
    state.pane = Pane::Threads;
    let lines = shown(&mut state, 40, 6);
    assert_eq!(
        lines[2..5],
        [
            "OWNER   THREAD        CPU    %CPU",
            "switch  worker-1        3    98.7",
            "... 2 more"
        ]
    );
    assert_eq!(lines[5], "q leave  ? help  s sort  Tab 1-3 tables");
    state.press(KeyEvent::new(KeyCode::Down, KeyModifiers::NONE));
    assert_eq!(
        shown(&mut state, 40, 6)[3..5],
        ["web     CPU 0/KVM       1    45.0", "... 1 above, 1 more"]
    );
    // Nothing is too small.
    for (width, height) in [(1, 1), (3, 2), (10, 4), (300, 100)] {
        shown(&mut state, width, height);
    }
}

#[test]
fn what_is_wrong_stands_in_the_last_line() {
    let mut state = State {
        rates: Rates {
            trouble: Some("no daemon answers".into()),
            ..Rates::default()
        },
        ..State::default()
    };
    let lines = shown(&mut state, 60, 10);
    assert_eq!(lines[9], "no daemon answers");
    let narrow = shown(&mut state, 10, 10);
    assert_eq!(narrow[8..], ["no daemon", "answers"]);
    assert_eq!(lines[3], "(looking)");
    let mut help = State {
        help: true,
        ..State::default()
    };
    for size in [(80, 24), (40, 10)] {
        let lines = shown(&mut help, size.0, size.1);
        assert!(lines[0].starts_with("q Esc Ctrl-C"));
        assert_eq!(lines.last().unwrap(), "any key: back");
    }
}
