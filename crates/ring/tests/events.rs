//! Who is told what: suppression of kicks and calls, exhaustively around the edges of the index arithmetic.

#![allow(clippy::cast_possible_truncation)]

mod common;

use common::{Pair, options, peek_u16, poke_u16};
use ringway_ring::{DriverRing, RingBase, RingFeatures};

const SPLIT: RingFeatures = RingFeatures {
    packed: false,
    event_idx: false,
    indirect: false,
    in_order: false,
};
const SPLIT_EVENTS: RingFeatures = RingFeatures {
    event_idx: true,
    ..SPLIT
};
const SIZE: u16 = 8;

/// Free-running starts, on and around the places where 16-bit and signed indices turn over.
const STARTS: [u16; 5] = [0, 0x7ffc, 0x8000, 0xfff4, 0xffff];

fn used_event_address(driver: &DriverRing) -> u64 {
    driver.layout().available + 4 + 2 * u64::from(SIZE)
}

fn available_event_address(driver: &DriverRing) -> u64 {
    driver.layout().used + 4 + 8 * u64::from(SIZE)
}

/// True when index `event` is passed on the way from `old` by `count` steps: the words of virtio 1.2, 2.7.10.1, as a walk.
fn passed(event: u16, old: u16, count: u16) -> bool {
    (0..count).any(|step| old.wrapping_add(step) == event)
}

#[test]
fn split_device_calls_when_used_event_is_passed_virtio_2_7_7_2() {
    for start in STARTS {
        for count in 1..=SIZE {
            for distance in -12..=12_i16 {
                let mut pair = Pair::new(options(SIZE, SPLIT_EVENTS, RingBase::split(start)));
                // The first publication calls in any case.
                pair.offer(1);
                assert_eq!(pair.serve(1), (1, true));
                pair.pop_all();
                let old = start.wrapping_add(1);
                let event = old.wrapping_add_signed(distance);
                poke_u16(&pair.memory, used_event_address(&pair.driver), event);
                pair.offer(count);
                assert_eq!(
                    pair.serve(SIZE.into()),
                    (count.into(), passed(event, old, count)),
                    "event {event:#x}, from {old:#x} by {count}"
                );
            }
        }
    }
}

#[test]
fn split_driver_kicks_when_available_event_is_passed_virtio_2_7_13_4() {
    for start in STARTS {
        for count in 1..=SIZE {
            for distance in -12..=12_i16 {
                let mut pair = Pair::new(options(SIZE, SPLIT_EVENTS, RingBase::split(start)));
                let event = start.wrapping_add_signed(distance);
                poke_u16(&pair.memory, available_event_address(&pair.driver), event);
                for _ in 0..count {
                    pair.driver
                        .add(&[(common::BUFFERS, 1)], &[], false)
                        .unwrap();
                }
                assert_eq!(pair.driver.publish(), passed(event, start, count));
            }
        }
    }
}

#[test]
fn split_available_event_is_the_next_chain_to_take_virtio_2_7_10() {
    for start in STARTS {
        let mut pair = Pair::new(options(SIZE, SPLIT_EVENTS, RingBase::split(start)));
        let address = available_event_address(&pair.driver);
        assert!(!pair.device.enable_kicks());
        assert_eq!(peek_u16(&pair.memory, address), start);
        pair.offer(3);
        pair.serve(2);
        // One is there: it was published before the driver could know that we want to be told.
        assert!(pair.device.enable_kicks());
        assert_eq!(peek_u16(&pair.memory, address), start.wrapping_add(2));
        pair.device.disable_kicks();
        pair.serve(1);
        pair.driver
            .add(&[(common::BUFFERS, 1)], &[], false)
            .unwrap();
        assert!(
            !pair.driver.publish(),
            "a driver that was asked not to kicks"
        );
        assert_eq!(
            peek_u16(&pair.memory, pair.driver.layout().used),
            0,
            "flags stay 0"
        );
    }
}

#[test]
fn split_flags_ask_for_no_kicks_virtio_2_7_10() {
    let mut pair = Pair::start(SIZE, SPLIT);
    let flags = pair.driver.layout().used;
    pair.device.disable_kicks();
    assert_eq!(peek_u16(&pair.memory, flags), 1);
    pair.driver
        .add(&[(common::BUFFERS, 1)], &[], false)
        .unwrap();
    assert!(!pair.driver.publish());
    assert!(pair.device.enable_kicks());
    assert_eq!(peek_u16(&pair.memory, flags), 0);
    pair.serve(1);
    assert!(!pair.device.enable_kicks());
    pair.driver
        .add(&[(common::BUFFERS, 1)], &[], false)
        .unwrap();
    assert!(pair.driver.publish());
}

#[test]
fn split_flags_left_by_another_device_are_overwritten() {
    for features in [SPLIT, SPLIT_EVENTS] {
        let mut pair = Pair::start(SIZE, features);
        let flags = pair.driver.layout().used;
        poke_u16(&pair.memory, flags, 1);
        pair.device.enable_kicks();
        assert_eq!(peek_u16(&pair.memory, flags), 0);
        poke_u16(&pair.memory, flags, 1);
        pair.device.disable_kicks();
        pair.device.enable_kicks();
        assert_eq!(peek_u16(&pair.memory, flags), u16::from(features.event_idx));
    }
}

#[test]
fn split_flags_ask_for_no_calls_virtio_2_7_7() {
    let mut pair = Pair::start(SIZE, SPLIT);
    pair.offer(3);
    assert_eq!(pair.serve(1), (1, true));
    pair.driver.disable_calls();
    assert_eq!(pair.serve(1), (1, false));
    assert!(pair.driver.enable_calls(), "two came back unseen");
    assert_eq!(pair.serve(1), (1, true));
}

#[test]
fn nothing_published_calls_nobody() {
    for features in [SPLIT, SPLIT_EVENTS] {
        let mut pair = Pair::start(SIZE, features);
        assert!(!pair.device.publish());
        assert!(!pair.driver.publish());
        pair.offer(1);
        assert_eq!(pair.serve(0), (0, false));
    }
}
