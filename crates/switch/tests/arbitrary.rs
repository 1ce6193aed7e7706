//! Frames that are anything, between ports of every kind, as the fuzzer sends them.

use std::cell::{Cell, RefCell};

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use ringway_switch::fuzz::Switch;

#[test]
fn whatever_is_sent_receivers_get_what_they_take() {
    let switch = RefCell::new(Switch::new());
    let delivered = Cell::new(0);
    let config = Config {
        cases: 3000,
        failure_persistence: None,
        ..Config::default()
    };
    TestRunner::new(config)
        .run(&prop::collection::vec(any::<u8>(), 0..600), |input| {
            let more = switch.borrow_mut().exercise(&input);
            delivered.set(delivered.get() + more);
            Ok(())
        })
        .unwrap_or_else(|error| panic!("{error}"));
    assert!(delivered.get() > 300, "only {delivered:?} deliveries");
}
