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
fn rows_do_not_leave_the_screen_altogether() {
    let mut state = state();
    for _ in 0..5 {
        press(&mut state, KeyCode::Down);
    }
    assert_eq!(state.first_of(Pane::Ports), 1);
    press(&mut state, KeyCode::End);
    assert_eq!(state.first_of(Pane::Ports), 1);
    press(&mut state, KeyCode::Up);
    assert_eq!(state.first_of(Pane::Ports), 0);
    // Fewer ports than before.
    press(&mut state, KeyCode::Down);
    state.take(Sample::default());
    assert_eq!(state.first_of(Pane::Ports), 0);
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
