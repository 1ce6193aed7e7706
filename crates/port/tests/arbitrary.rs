//! Drivers that do anything, as the fuzzer makes them.

use std::cell::Cell;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use ringway_port::vhost_user::fuzz;

#[test]
fn whatever_drivers_do_honest_ones_get_the_frames_that_were_delivered() {
    let delivered = Cell::new(0);
    let config = Config {
        cases: 2000,
        failure_persistence: None,
        ..Config::default()
    };
    let guests = any::<[u8; 6]>();
    let steps = prop::collection::vec(step(), 1..100);
    TestRunner::new(config)
        .run(&(guests, steps), |(guests, steps)| {
            let input = [&guests[..], &steps.concat()].concat();
            delivered.set(delivered.get() + fuzz::exercise(&input));
            Ok(())
        })
        .unwrap_or_else(|error| panic!("{error}"));
    assert!(delivered.get() > 300, "only {delivered:?} deliveries");
}

/// A step of a script, most often one that an honest driver or a worker takes.
fn step() -> impl Strategy<Value = Vec<u8>> {
    let kind = prop_oneof![
        6 => Just(0_u8), 4 => Just(3), 6 => Just(5), 2 => Just(8), 1 => Just(10), 1 => Just(11),
    ];
    let lie = prop_oneof![60 => Just(None), 1 => any::<[u8; 11]>().prop_map(Some)];
    (
        kind,
        lie,
        any::<bool>(),
        prop::collection::vec(any::<u8>(), 40),
    )
        .prop_map(|(kind, lie, second, more)| {
            let (kind, more) = match lie {
                Some(lie) => (9, lie.to_vec()),
                None => {
                    let mut more = more;
                    tame(kind, &mut more);
                    more.truncate(length(kind, &more));
                    (kind, more)
                }
            };
            // Bit 7 says which guest it is.
            let step = (0..=255_u8).find(|step| step % 12 == kind && (*step >= 0x80) == second);
            [vec![step.unwrap_or(0)], more].concat()
        })
}

/// Most frames are short and most buffers long, so that many are delivered.
fn tame(kind: u8, more: &mut [u8]) {
    if kind == 0 && more[39] & 3 != 0 {
        more[0] &= 0x81;
        more[1] = 0;
    }
    if kind == 3 && more[39] & 3 != 0 {
        more[0] |= 0x40;
        more[1] |= 0x20;
    }
}

/// Bytes that a step of this kind takes after its own.
fn length(kind: u8, more: &[u8]) -> usize {
    match kind {
        0 => 1 + 3 * (1 + usize::from(more[0] % 12)),
        3 => 2 + usize::from(more[0] % 4),
        5 => 2,
        8 => 4 + 2 * usize::from(more[0] >> 4),
        10 => 1,
        _ => 0,
    }
}

#[test]
fn the_fuzzers_seeds_deliver_what_they_say() {
    let seeds = include_str!("../../../fuzz/seeds/guests.hex");
    for seed in seeds.split("\n= ").skip(1) {
        let (name, lines) = seed.split_once('\n').unwrap();
        let (_, frames) = name.rsplit_once(": ").unwrap();
        let codes = lines.lines().flat_map(|line| {
            let code = line.split('#').next().unwrap_or_default();
            code.split_whitespace()
        });
        let input: Vec<u8> = codes
            .map(|code| u8::from_str_radix(code, 16).unwrap())
            .collect();
        assert_eq!(
            fuzz::exercise(&input).to_string(),
            frames.replace(" frames", ""),
            "{name}"
        );
    }
}
