//! What holds for a ring of either format.

mod common;

use std::sync::Arc;

use common::{BUFFERS, FORMATS, Pair, Spot, options, spots};
use ringway_mem::GuestMemory;
use ringway_ring::{
    AddError, DeviceRing, DriverOptions, DriverRing, MAX_BATCH, MAX_SEGMENTS, ReadBatch, RingBase,
    RingError, RingFault, RingFeatures, WriteBatch,
};

#[test]
fn the_largest_ring_works_virtio_2_7_and_2_8() {
    for features in FORMATS {
        let start = Spot::new(features.packed, 32768, 0xfff0);
        let mut pair = Pair::new(DriverOptions {
            table: 0,
            ..options(32768, features, start.base())
        });
        for _ in 0..3 {
            for _ in 0..32768 {
                pair.driver.add(&[(BUFFERS, 1)], &[], false).unwrap();
            }
            let refused = pair.driver.add(&[(BUFFERS, 1)], &[], false);
            assert_eq!(refused, Err(AddError::Full { needed: 1, free: 0 }));
            pair.driver.publish();
            for _ in 0..512 {
                assert_eq!(pair.serve(MAX_BATCH).0, MAX_BATCH);
            }
            assert_eq!(pair.serve(1).0, 0);
            assert_eq!(pair.pop_all().len(), 32768);
        }
    }
}

#[test]
fn a_ring_of_one_descriptor_works() {
    for features in FORMATS {
        for start in spots(features.packed, 1) {
            let mut pair = Pair::new(options(1, features, start.base()));
            for _ in 0..5 {
                pair.offer(1);
                assert!(pair.driver.add(&[(BUFFERS, 1)], &[], false).is_err());
                assert_eq!(pair.serve(8).0, 1);
                assert!(!pair.device.has_available());
                assert_eq!(pair.pop_all(), [0]);
            }
        }
    }
}

#[test]
fn a_base_of_the_other_format_is_refused() {
    for features in FORMATS {
        let pair = Pair::start(8, features);
        let base = RingBase::start(!features.packed);
        let layout = pair.driver.layout();
        let format =
            |error| matches!(error, RingError::Format { packed } if packed == features.packed);
        let device = DeviceRing::new(&pair.memory, &layout, features, base);
        assert!(device.err().is_some_and(format));
        let driver = DriverRing::new(&pair.memory, 0, options(8, features, base));
        assert!(driver.err().is_some_and(format));
    }
}

#[test]
fn another_memory_is_refused() {
    for features in FORMATS {
        let mut pair = Pair::start(8, features);
        pair.offer(1);
        let other = GuestMemory::heap(&[(0, 0x1000)]);
        let taken = pair.device.take_readable(&other, &mut ReadBatch::new(), 1);
        assert_eq!(taken, Err(RingFault::ForeignMemory));
        let taken = pair.device.take_writable(&other, &mut WriteBatch::new(), 1);
        assert_eq!(taken, Err(RingFault::ForeignMemory));
    }
}

#[test]
fn a_driver_ring_is_inside_one_region() {
    for features in FORMATS {
        let options = options(8, features, RingBase::start(features.packed));
        let len = DriverRing::bytes(&options);
        let memory = Arc::new(GuestMemory::heap(&[(0, 0x1000), (0x1000, len)]));
        assert!(DriverRing::new(&memory, 0x1000, options).is_ok());
        for address in [0xff0, 0x1010, 0x10_0000] {
            let refused = DriverRing::new(&memory, address, options);
            assert!(matches!(refused, Err(RingError::Place { address: at, .. }) if at == address));
        }
    }
}

#[test]
fn a_device_goes_on_where_the_one_before_it_stood() {
    for features in FORMATS {
        for start in spots(features.packed, 8) {
            let mut pair = Pair::new(options(8, features, start.base()));
            pair.offer(5);
            pair.serve(3);
            assert_eq!(pair.device.base(), start.step(3).base());
            let layout = pair.driver.layout();
            let base = pair.device.base();
            pair.device = DeviceRing::new(&pair.memory, &layout, features, base).unwrap();
            assert_eq!(pair.device.base(), base);
            assert_eq!(pair.serve(8).0, 2);
            assert_eq!(pair.pop_all(), [0, 1, 2, 3, 4]);
            assert_eq!(pair.device.base(), start.step(5).base());
        }
    }
}

#[test]
fn a_driver_knows_where_a_device_has_to_start() {
    for features in FORMATS {
        for in_order in [false, true] {
            for popped in 0..=4 {
                let features = RingFeatures {
                    in_order,
                    ..features
                };
                let start = Spot::new(features.packed, 8, 6);
                let mut pair = Pair::new(options(8, features, start.base()));
                pair.offer(6);
                pair.serve(4);
                for id in 0..popped {
                    assert_eq!(
                        pair.driver.pop_used().unwrap().map(|used| used.id),
                        Some(id)
                    );
                }
                let layout = pair.driver.layout();
                let base = pair.driver.base();
                pair.device = DeviceRing::new(&pair.memory, &layout, features, base).unwrap();
                assert_eq!(pair.device.base(), start.step(4).base());
                assert_eq!(pair.serve(8).0, 2);
                assert_eq!(pair.pop_all().len(), usize::from(6 - popped));
            }
        }
    }
}

#[test]
fn base_is_what_was_published_virtio_2_7_6_and_2_8_1() {
    for features in FORMATS {
        for start in spots(features.packed, 8) {
            let mut pair = Pair::new(options(8, features, start.base()));
            pair.offer(6);
            let mut batch = ReadBatch::new();
            let taken = pair.device.take_readable(&pair.memory, &mut batch, 6);
            assert_eq!(taken, Ok(6));
            assert_eq!(pair.device.base(), start.base());
            pair.device.complete(&batch.chains[..4]);
            assert_eq!(pair.device.base(), start.base());
            pair.device.publish();
            assert_eq!(pair.device.base(), start.step(4).base());
        }
    }
}

#[test]
fn chains_of_one_frame_are_returned_together_virtio_5_1_6_3_2() {
    for features in FORMATS {
        for in_order in [false, true] {
            let features = RingFeatures {
                in_order,
                ..features
            };
            let start = Spot::new(features.packed, 8, 7);
            let mut pair = Pair::new(options(8, features, start.base()));
            for _ in 0..4 {
                pair.driver.add(&[], &[(BUFFERS, 100)], false).unwrap();
            }
            pair.driver.publish();
            let mut batch = WriteBatch::new();
            // The second frame finds the batch too short and takes one more.
            for count in [2, 1] {
                let taken = pair.device.take_writable(&pair.memory, &mut batch, count);
                assert_eq!(taken, Ok(count));
            }
            for (chain, written) in batch.chains.iter_mut().zip([100, 100, 7]) {
                chain.written = written;
            }
            pair.device.complete(&batch.chains);
            assert_eq!(pair.driver.pop_used(), Ok(None));
            pair.device.publish();
            let lens: Vec<u32> =
                std::iter::from_fn(|| pair.driver.pop_used().unwrap().map(|used| used.len))
                    .collect();
            assert_eq!(lens, [100, 100, 7]);
        }
    }
}

#[test]
fn a_frame_that_does_not_fit_is_rewound_and_the_chains_come_again() {
    for features in FORMATS {
        for start in spots(features.packed, 8) {
            let Pair {
                memory,
                mut driver,
                mut device,
            } = Pair::new(options(8, features, start.base()));
            let pieces = [(BUFFERS, 10), (BUFFERS + 0x1000, 20)];
            for count in [1, 2, 1, 2] {
                driver.add(&[], &pieces[..count], false).unwrap();
            }
            driver.publish();
            let mut batch = WriteBatch::new();
            let taken = device.take_writable(&memory, &mut batch, 8);
            assert_eq!(taken, Ok(4));
            let chains = batch.chains.clone();
            device.untake(&chains[1..]);
            batch.chains[0].written = 5;
            device.complete(&batch.chains[..1]);
            // What was given back is found again before and after the rest is published.
            for _ in 0..2 {
                let mut again = WriteBatch::new();
                let taken = device.take_writable(&memory, &mut again, 8);
                assert_eq!(taken, Ok(3));
                let facts = |chain: &ringway_ring::Chain| (chain.id, chain.slots, chain.len);
                let seen: Vec<_> = again.chains.iter().map(facts).collect();
                let before: Vec<_> = chains[1..].iter().map(facts).collect();
                assert_eq!(seen, before);
                device.untake(&again.chains);
                device.publish();
            }
            let back = driver.pop_used().unwrap();
            assert_eq!(back.map(|used| (used.id, used.len)), Some((0, 5)));
            assert_eq!(driver.pop_used(), Ok(None));
        }
    }
}

#[test]
fn what_was_staged_can_be_forgotten() {
    for features in FORMATS {
        for start in spots(features.packed, 8) {
            let mut pair = Pair::new(options(8, features, start.base()));
            pair.offer(8);
            pair.serve(2);
            for _ in 0..3 {
                let mut batch = ReadBatch::new();
                let taken = pair.device.take_readable(&pair.memory, &mut batch, 5);
                assert_eq!(taken, Ok(5));
                assert_eq!(batch.chains[0].len, 64);
                pair.device.complete(&batch.chains[..3]);
                pair.device.discard_staged();
                assert!(!pair.device.publish());
                assert_eq!(pair.device.base(), start.step(2).base());
            }
            assert_eq!(pair.serve(8).0, 6);
            assert_eq!(pair.pop_all().len(), 8);
        }
    }
}

#[test]
fn more_than_a_batch_can_be_staged() {
    for features in FORMATS {
        let mut pair = Pair::start(1024, features);
        let ids = pair.offer(1024);
        for _ in 0..16 {
            let mut batch = ReadBatch::new();
            let taken = pair
                .device
                .take_readable(&pair.memory, &mut batch, MAX_BATCH);
            assert_eq!(taken, Ok(MAX_BATCH));
            pair.device.complete(&batch.chains);
        }
        assert!(!pair.driver.has_used());
        pair.device.publish();
        assert_eq!(pair.pop_all(), ids);
    }
}

#[test]
fn a_full_batch_ends_the_take() {
    for features in FORMATS {
        let pieces = [(BUFFERS, 1); 400];
        let mut pair = Pair::start(2048, features);
        for _ in 0..3 {
            pair.driver.add(&pieces, &[], false).unwrap();
        }
        pair.driver.publish();
        let mut batch = ReadBatch::new();
        let taken = pair.device.take_readable(&pair.memory, &mut batch, 8);
        assert_eq!(taken, Ok(2));
        assert_eq!(batch.segments.len(), 800);
        let taken = pair.device.take_readable(&pair.memory, &mut batch, 8);
        assert_eq!(taken, Ok(0));
        assert!(pair.device.has_available());
        batch.clear();
        let taken = pair.device.take_readable(&pair.memory, &mut batch, 8);
        assert_eq!(taken, Ok(1));
        pair.driver.add(&[(BUFFERS, 1); 800], &[], false).unwrap();
        pair.driver.publish();
        batch.clear();
        let taken = pair.device.take_readable(&pair.memory, &mut batch, 8);
        assert_eq!(taken, Ok(1));
    }
}

#[test]
fn a_chain_fills_a_batch_at_most_and_a_longer_one_is_a_fault() {
    for features in FORMATS {
        let mut pair = Pair::start(4096, features);
        for count in [MAX_SEGMENTS, MAX_SEGMENTS, MAX_SEGMENTS + 1] {
            let pieces = vec![(BUFFERS, 1); count];
            pair.driver.add(&pieces, &[], false).unwrap();
        }
        pair.driver.publish();
        let mut batch = ReadBatch::new();
        for _ in 0..2 {
            batch.clear();
            for count in [1, 0] {
                let taken = pair.device.take_readable(&pair.memory, &mut batch, 8);
                assert_eq!(taken, Ok(count));
            }
        }
        batch.clear();
        let taken = pair.device.take_readable(&pair.memory, &mut batch, 8);
        let max = MAX_SEGMENTS;
        assert_eq!(taken, Err(RingFault::TooManySegments { max }));
        assert!(batch.segments.is_empty());
    }
}

#[test]
fn descriptors_without_bytes_are_borne_but_not_without_end() {
    for features in FORMATS {
        let mut pair = Pair::start(4096, features);
        for count in [MAX_SEGMENTS, MAX_SEGMENTS + 1] {
            let pieces = vec![(u64::MAX, 0); count];
            pair.driver.add(&pieces, &[], false).unwrap();
        }
        pair.driver.publish();
        let mut batch = ReadBatch::new();
        let taken = pair.device.take_readable(&pair.memory, &mut batch, 8);
        assert_eq!(taken, Ok(1));
        let chain = batch.chains[0];
        assert_eq!((chain.len, chain.segments), (0, 0));
        let taken = pair.device.take_readable(&pair.memory, &mut batch, 8);
        let max = MAX_SEGMENTS;
        assert_eq!(taken, Err(RingFault::TooManySegments { max }));
    }
}

#[test]
fn a_take_with_no_room_or_no_wish_takes_nothing() {
    for features in FORMATS {
        let mut pair = Pair::start(128, features);
        pair.offer(128);
        let mut batch = ReadBatch::new();
        for (wish, count) in [(0, 0), (1000, MAX_BATCH), (1, 0)] {
            let taken = pair.device.take_readable(&pair.memory, &mut batch, wish);
            assert_eq!(taken, Ok(count));
        }
    }
}

#[test]
fn a_driver_refuses_chains_it_cannot_hold() {
    for features in FORMATS {
        let indirect = RingFeatures {
            indirect: true,
            ..features
        };
        let mut pair = Pair::start(4, indirect);
        assert_eq!(pair.driver.add(&[], &[], false), Err(AddError::Empty));
        let pieces = [(BUFFERS, 1); 9];
        let refused = pair.driver.add(&pieces, &[], false);
        assert_eq!(refused, Err(AddError::Full { needed: 9, free: 4 }));
        let refused = pair.driver.add(&pieces, &[], true);
        let table = |table| Err(AddError::Table { needed: 9, table });
        assert_eq!(refused, table(8));
        assert_eq!(pair.driver.free(), 4);
        assert!(!pair.driver.publish());
        assert_eq!(pair.driver.add(&pieces[..8], &[], true), Ok(0));
        let mut pair = Pair::start(4, features);
        let refused = pair.driver.add(&pieces, &[], true);
        assert_eq!(refused, table(0));
    }
}
