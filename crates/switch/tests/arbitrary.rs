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

/// What the fuzzer found once.
#[test]
fn a_checksum_is_not_written_over_a_vlan_tag() {
    let input = [
        0x3e, 0x3e, 0x2d, 0x3e, 0xfe, 0xf9, 0xfe, 0xde, 0x53, 0x52, 0x53, 0x53, 0x43, 0x53, 0x51,
        0x2d, 0xfe, 0xfb, 0xfe, 0x3e, 0xde, 0x53, 0x52, 0x53, 0x53, 0x53, 0x53, 0x2d, 0x3e, 0x3e,
        0x2d, 0x3e, 0xfe, 0xf9, 0xfe, 0xde, 0x01, 0xfa, 0x01, 0x00, 0x5e, 0x05, 0xff, 0xa9, 0x59,
        0xd2, 0x00, 0x00, 0x06, 0x55, 0x3e, 0xfe, 0xfe, 0x00, 0x00, 0x00, 0x00, 0x00, 0x3d, 0x00,
        0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x3d, 0x3d,
    ];
    Switch::new().exercise(&input);
}
