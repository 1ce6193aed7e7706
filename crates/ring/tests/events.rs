//! Who is told what: suppression of kicks and calls, exhaustively around the edges of the index arithmetic.
//!
//! The words differ by format, the rules do not.

mod common;

use common::{BUFFERS, FORMATS, Pair, Spot, options, peek_u16, poke_u16, spots};
use ringway_ring::RingFeatures;

const SIZE: u16 = 8;
/// Flags of either format: everything, nothing. And of the packed one: from an event on.
const ENABLE: u16 = 0;
const DISABLE: u16 = 1;
const DESCRIPTOR: u16 = 2;

fn with_events(packed: bool) -> RingFeatures {
    RingFeatures {
        packed,
        event_idx: true,
        ..RingFeatures::default()
    }
}

fn is_packed(pair: &Pair) -> bool {
    pair.driver.base().wraps.is_some()
}

/// Where the driver says what calls it wants: event and flags.
fn call_words(pair: &Pair) -> (u64, u64) {
    let at = pair.driver.layout().available;
    if is_packed(pair) {
        (at, at + 2)
    } else {
        (at + 4 + 2 * u64::from(SIZE), at)
    }
}

/// Where the device says what kicks it wants: event and flags.
fn kick_words(pair: &Pair) -> (u64, u64) {
    let at = pair.driver.layout().used;
    if is_packed(pair) {
        (at, at + 2)
    } else {
        (at + 4 + 8 * u64::from(SIZE), at)
    }
}

fn ask_for(pair: &Pair, (event, flags): (u64, u64), spot: Spot) {
    poke_u16(&pair.memory, event, spot.event());
    if is_packed(pair) {
        poke_u16(&pair.memory, flags, DESCRIPTOR);
    }
}

fn kick_flags(pair: &Pair) -> u16 {
    peek_u16(&pair.memory, kick_words(pair).1)
}

fn add(pair: &mut Pair, count: u16) {
    for _ in 0..count {
        pair.driver.add(&[(BUFFERS, 1)], &[], false).unwrap();
    }
}

/// True when `event` is passed on the way from `old` by `count` steps: the words of virtio 1.2, 2.7.10.1 and 2.8.10, as a walk.
fn passed(event: Spot, old: Spot, count: u16) -> bool {
    (0..count.into()).any(|step| old.step(step) == event)
}

#[test]
fn device_calls_when_the_event_is_passed_virtio_2_7_7_2_and_2_8_10() {
    for packed in [false, true] {
        for start in spots(packed, SIZE) {
            for count in 1..=SIZE {
                for distance in -12..=12 {
                    let features = with_events(packed);
                    let mut pair = Pair::new(options(SIZE, features, start.base()));
                    // The first publication calls in any case.
                    pair.offer(1);
                    assert_eq!(pair.serve(1), (1, true));
                    pair.pop_all();
                    let old = start.step(1);
                    let event = old.step(distance);
                    ask_for(&pair, call_words(&pair), event);
                    pair.offer(count);
                    assert_eq!(
                        pair.serve(SIZE.into()),
                        (count.into(), passed(event, old, count)),
                        "{event:?}, from {old:?} by {count}"
                    );
                }
            }
        }
    }
}

#[test]
fn driver_kicks_when_the_event_is_passed_virtio_2_7_13_4_and_2_8_10() {
    for packed in [false, true] {
        for start in spots(packed, SIZE) {
            for count in 1..=SIZE {
                for distance in -12..=12 {
                    let features = with_events(packed);
                    let mut pair = Pair::new(options(SIZE, features, start.base()));
                    let event = start.step(distance);
                    ask_for(&pair, kick_words(&pair), event);
                    add(&mut pair, count);
                    assert_eq!(pair.driver.publish(), passed(event, start, count));
                }
            }
        }
    }
}

#[test]
fn chains_of_several_descriptors_pass_the_events_in_between_virtio_2_8_10() {
    for start in spots(true, SIZE) {
        for distance in 0..16 {
            let mut pair = Pair::new(options(SIZE, with_events(true), start.base()));
            let event = start.step(distance);
            ask_for(&pair, kick_words(&pair), event);
            for pieces in [3, 1, 2] {
                let pieces = vec![(BUFFERS, 1); pieces];
                pair.driver.add(&pieces, &[], false).unwrap();
            }
            assert_eq!(pair.driver.publish(), distance < 6);
            // The first publication calls in any case.
            assert_eq!(pair.serve(1), (1, true));
            let event = start.step(3 + distance);
            ask_for(&pair, call_words(&pair), event);
            assert_eq!(pair.serve(2), (2, distance < 3));
        }
    }
}

#[test]
fn the_devices_event_is_the_next_chain_to_take_virtio_2_7_10_and_2_8_10() {
    for packed in [false, true] {
        for start in spots(packed, SIZE) {
            let features = with_events(packed);
            let mut pair = Pair::new(options(SIZE, features, start.base()));
            let (event, _) = kick_words(&pair);
            assert!(!pair.device.enable_kicks());
            assert_eq!(peek_u16(&pair.memory, event), start.event());
            pair.offer(3);
            pair.serve(2);
            // One is there: it was published before the driver could know that we want to be told.
            assert!(pair.device.enable_kicks());
            assert_eq!(peek_u16(&pair.memory, event), start.step(2).event());
            let wanted = if packed { DESCRIPTOR } else { ENABLE };
            assert_eq!(kick_flags(&pair), wanted);
            pair.device.disable_kicks();
            pair.serve(1);
            add(&mut pair, 1);
            assert!(
                !pair.driver.publish(),
                "a driver that was asked not to kicks"
            );
            // The split ring's flags stay 0 where there are events.
            let unwanted = if packed { DISABLE } else { ENABLE };
            assert_eq!(kick_flags(&pair), unwanted);
        }
    }
}

#[test]
fn the_drivers_event_is_the_next_chain_to_come_back_virtio_2_7_7_and_2_8_10() {
    for packed in [false, true] {
        for start in spots(packed, SIZE) {
            let features = with_events(packed);
            let mut pair = Pair::new(options(SIZE, features, start.base()));
            let (event, _) = call_words(&pair);
            assert!(!pair.driver.enable_calls());
            assert_eq!(peek_u16(&pair.memory, event), start.event());
            pair.offer(3);
            pair.serve(2);
            pair.driver.pop_used().unwrap();
            assert!(pair.driver.enable_calls(), "one came back unseen");
            assert_eq!(peek_u16(&pair.memory, event), start.step(1).event());
            pair.pop_all();
            assert!(!pair.driver.enable_calls());
            assert_eq!(pair.serve(1), (1, true));
        }
    }
}

#[test]
fn flags_ask_for_no_kicks_virtio_2_7_10_and_2_8_14() {
    for features in FORMATS {
        let mut pair = Pair::start(SIZE, features);
        pair.device.disable_kicks();
        assert_eq!(kick_flags(&pair), DISABLE);
        add(&mut pair, 1);
        assert!(!pair.driver.publish());
        assert!(pair.device.enable_kicks());
        assert_eq!(kick_flags(&pair), ENABLE);
        pair.serve(1);
        assert!(!pair.device.enable_kicks());
        add(&mut pair, 1);
        assert!(pair.driver.publish());
    }
}

#[test]
fn flags_left_by_another_device_are_overwritten() {
    for packed in [false, true] {
        for event_idx in [false, true] {
            let features = RingFeatures {
                packed,
                event_idx,
                ..RingFeatures::default()
            };
            let wanted = if packed && event_idx {
                DESCRIPTOR
            } else {
                ENABLE
            };
            let mut pair = Pair::start(SIZE, features);
            let (_, flags) = kick_words(&pair);
            poke_u16(&pair.memory, flags, DISABLE);
            pair.device.enable_kicks();
            assert_eq!(kick_flags(&pair), wanted);
            pair.device.disable_kicks();
            pair.device.enable_kicks();
            assert_eq!(kick_flags(&pair), wanted);
            let mut pair = Pair::start(SIZE, features);
            poke_u16(&pair.memory, flags, wanted);
            pair.device.disable_kicks();
            let unwanted = if event_idx && !packed {
                wanted
            } else {
                DISABLE
            };
            assert_eq!(kick_flags(&pair), unwanted);
        }
    }
}

#[test]
fn flags_ask_for_no_calls_virtio_2_7_7_and_2_8_14() {
    for features in FORMATS {
        let mut pair = Pair::start(SIZE, features);
        pair.offer(3);
        assert_eq!(pair.serve(1), (1, true));
        pair.driver.disable_calls();
        assert_eq!(pair.serve(1), (1, false));
        assert!(pair.driver.enable_calls(), "two came back unseen");
        assert_eq!(pair.serve(1), (1, true));
    }
}

#[test]
fn reserved_flags_ask_for_everything_virtio_2_8_14() {
    for (event_idx, flags) in [(false, 2), (false, 3), (true, 3), (true, 0xfffc)] {
        let features = RingFeatures {
            event_idx,
            ..FORMATS[1]
        };
        let mut pair = Pair::start(SIZE, features);
        poke_u16(&pair.memory, call_words(&pair).1, flags);
        poke_u16(&pair.memory, kick_words(&pair).1, flags);
        for _ in 0..3 {
            add(&mut pair, 1);
            assert!(pair.driver.publish());
            assert_eq!(pair.serve(1), (1, true));
        }
    }
}

#[test]
fn nothing_published_calls_nobody() {
    for packed in [false, true] {
        for features in [with_events(packed), FORMATS[usize::from(packed)]] {
            let mut pair = Pair::start(SIZE, features);
            assert!(!pair.device.publish());
            assert!(!pair.driver.publish());
            pair.offer(1);
            assert_eq!(pair.serve(0), (0, false));
        }
    }
}
