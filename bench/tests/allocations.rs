//! While frames pass, nothing is allocated, in no thread of the switch.

#![forbid(unsafe_code)]

mod common;

use std::alloc::System;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use common::Inside;
use ringway_bench::generator::Generator;
use ringway_bench::traffic::Traffic;
use ringway_switch::Poll;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Long enough for the housekeeping of a second to come by.
const WINDOW: Duration = Duration::from_millis(1200);

// One test for all shapes: the allocator counts for the whole process.
#[test]
fn nothing_is_allocated_while_frames_pass() {
    let plain = Traffic::default;
    let shapes = [
        plain(),
        Traffic {
            packed: true,
            both_ways: true,
            ..plain()
        },
        Traffic {
            size: 9000,
            window: Some(96),
            ..plain()
        },
        Traffic {
            size: 65_226,
            tso: true,
            packed: true,
            burst: 4,
            window: Some(24),
            ..plain()
        },
        Traffic {
            pairs: 100,
            ..plain()
        },
    ];
    for traffic in shapes {
        passes_without(&traffic);
    }
    // The counter counts.
    let region = Region::new(ALLOCATOR);
    drop(std::hint::black_box(vec![0u8; 100]));
    assert_eq!(region.change().allocations, 1);
}

fn passes_without(traffic: &Traffic) {
    let (switch, fronts) = Inside::start(Poll::Adaptive, Vec::new());
    let stop = AtomicBool::new(false);
    let mut generator = Generator::start(fronts, traffic, &stop).unwrap();
    generator.run(WINDOW / 4, &stop).unwrap();

    let region = Region::new(ALLOCATOR);
    let count = generator.run(WINDOW, &stop).unwrap();
    let change = region.change();

    assert!(count.received > 1000, "{traffic:?}: {count:?}");
    assert_eq!(count.wrong, 0, "{traffic:?}");
    assert_eq!(
        (change.allocations, change.reallocations),
        (0, 0),
        "{traffic:?}: {} frames, {change:?}",
        count.received
    );
    drop(generator);
    drop(switch);
}
