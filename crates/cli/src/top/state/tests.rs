use std::time::Duration;

use super::*;
use crate::top::example::rates;

fn state() -> State {
    State {
        rates: rates(),
        ..State::default()
    }
}

fn press(state: &mut State, code: KeyCode) -> Next {
    state.press(KeyEvent::new(code, KeyModifiers::NONE))
}

#[test]
fn keys_choose_the_table_and_its_order() {
    let mut state = state();
    assert_eq!(press(&mut state, KeyCode::Tab), Next::Stay);
    assert_eq!(state.pane, Pane::Queues);
    press(&mut state, KeyCode::BackTab);
    press(&mut state, KeyCode::BackTab);
    assert_eq!(state.pane, Pane::Threads);
    press(&mut state, KeyCode::Char('1'));
    assert_eq!(state.pane, Pane::Ports);
    press(&mut state, KeyCode::Char('s'));
    assert_eq!(state.order.name(), "drops");
}

#[test]
fn q_escape_and_control_c_leave_even_from_the_help() {
    for code in [KeyCode::Char('q'), KeyCode::Esc] {
        assert_eq!(press(&mut state(), code), Next::Leave);
    }
    let mut state = state();
    press(&mut state, KeyCode::Char('?'));
    assert!(state.help);
    let interrupt = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
    assert_eq!(state.press(interrupt), Next::Leave);
    assert_eq!(press(&mut state, KeyCode::Char('q')), Next::Stay);
    assert!(!state.help);
}

#[test]
fn rows_move_by_lines_and_pages_and_not_beyond_the_last() {
    let mut state = state();
    let mut shown = |code: KeyCode, rows, room| {
        press(&mut state, code);
        state.window(Pane::Ports, rows, room)
    };
    assert_eq!(shown(KeyCode::Null, 30, 10), 0..10);
    assert_eq!(shown(KeyCode::Down, 30, 10), 1..11);
    assert_eq!(shown(KeyCode::PageDown, 30, 10), 11..21);
    assert_eq!(shown(KeyCode::End, 30, 10), 20..30);
    assert_eq!(shown(KeyCode::Down, 30, 10), 20..30);
    assert_eq!(shown(KeyCode::Up, 30, 10), 19..29);
    assert_eq!(shown(KeyCode::PageUp, 30, 10), 9..19);
    // Fewer ports than before, a larger screen, none at all.
    assert_eq!(shown(KeyCode::Null, 12, 10), 2..12);
    assert_eq!(shown(KeyCode::Null, 12, 20), 0..12);
    assert_eq!(shown(KeyCode::End, 0, 0), 0..0);
}

#[test]
fn a_pause_keeps_what_is_shown_and_the_rates_after_it_are_of_all_of_it() {
    let at = |seconds, delivered| Sample {
        at: Duration::from_secs(seconds),
        counted: true,
        delivered,
        ..Sample::default()
    };
    let mut state = State::default();
    state.take(at(1, 0));
    press(&mut state, KeyCode::Char('p'));
    state.take(at(2, 700));
    assert_eq!(state.rates.delivered, None);
    press(&mut state, KeyCode::Char('p'));
    state.take(at(3, 1000));
    assert_eq!(state.rates.delivered, Some(500.0));
}
