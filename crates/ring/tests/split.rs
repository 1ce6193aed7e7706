//! The split ring word by word: where it may lie, where it starts, what it leaves in memory.

#![allow(clippy::cast_possible_truncation)]

mod common;

use std::sync::Arc;

use common::{BUFFERS, Pair, options, peek, peek_u16, poke, poke_u16, spots};
use ringway_mem::GuestMemory;
use ringway_ring::{
    DeviceRing, DriverFault, DriverRing, ReadBatch, RingBase, RingError, RingFault, RingFeatures,
    RingLayout, WriteBatch,
};

const PLAIN: RingFeatures = RingFeatures {
    packed: false,
    event_idx: false,
    indirect: false,
    in_order: false,
};

fn used_element(pair: &Pair, index: u16) -> (u32, u32) {
    let slot = u64::from(index % pair.device.size());
    let bytes = peek(&pair.memory, pair.driver.layout().used + 4 + slot * 8, 8);
    let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
    (word(0), word(4))
}

fn used_index(pair: &Pair) -> u16 {
    peek_u16(&pair.memory, pair.driver.layout().used + 2)
}

#[test]
fn sizes_other_than_powers_of_two_are_refused_virtio_2_7() {
    let memory = Arc::new(GuestMemory::heap(&[(0, 0x10_0000)]));
    for size in [0, 3, 255, 1000, 32769, 65535] {
        let layout = RingLayout {
            size,
            descriptors: 0,
            available: 0x8_0000,
            used: 0xa_0000,
        };
        let ring = DeviceRing::new(&memory, &layout, PLAIN, RingBase::split(0));
        assert!(matches!(ring, Err(RingError::Size { size: found }) if found == size));
        let options = options(size, PLAIN, RingBase::split(0));
        let ring = DriverRing::new(&memory, 0, options);
        assert!(matches!(ring, Err(RingError::Size { size: found }) if found == size));
    }
}

#[test]
fn parts_outside_memory_or_misaligned_are_refused_virtio_2_7() {
    let memory = Arc::new(GuestMemory::heap(&[(0, 0x1000)]));
    let good = RingLayout {
        size: 8,
        descriptors: 0,
        available: 0x100,
        used: 0x200,
    };
    let new = |layout| DeviceRing::new(&memory, &layout, PLAIN, RingBase::split(0));
    assert!(new(good).is_ok());
    let part = |layout| match new(layout) {
        Err(RingError::Area { part, size: 8, .. }) => part,
        _ => panic!("not refused"),
    };
    assert_eq!(
        part(RingLayout {
            descriptors: 8,
            ..good
        }),
        "descriptor table"
    );
    assert_eq!(
        part(RingLayout {
            descriptors: 0xfa0,
            ..good
        }),
        "descriptor table"
    );
    assert_eq!(
        part(RingLayout {
            available: 0x101,
            ..good
        }),
        "available ring"
    );
    assert_eq!(
        part(RingLayout {
            available: 0xff8,
            ..good
        }),
        "available ring"
    );
    assert_eq!(
        part(RingLayout {
            used: 0x202,
            ..good
        }),
        "used ring"
    );
    assert_eq!(
        part(RingLayout {
            used: u64::MAX - 3,
            ..good
        }),
        "used ring"
    );
}

#[test]
fn written_lengths_are_in_the_used_elements_virtio_2_7_8() {
    for in_order in [false, true] {
        let features = RingFeatures { in_order, ..PLAIN };
        let mut pair = Pair::new(options(4, features, RingBase::split(0xfffe)));
        for _ in 0..3 {
            pair.driver.add(&[], &[(BUFFERS, 100)], false).unwrap();
        }
        pair.driver.publish();
        let mut batch = WriteBatch::new();
        assert_eq!(
            pair.device.take_writable(&pair.memory, &mut batch, 8),
            Ok(3)
        );
        for (written, chain) in (1..).zip(&mut batch.chains) {
            chain.written = written * 10;
        }
        pair.device.complete(&batch.chains);
        assert_eq!(used_index(&pair), 0xfffe, "nothing is visible yet");
        pair.device.publish();
        assert_eq!(used_index(&pair), 1);
        assert_eq!(used_element(&pair, 0xfffe), (0, 10));
        assert_eq!(used_element(&pair, 0xffff), (1, 20));
        assert_eq!(used_element(&pair, 0), (2, 30));
    }
}

#[test]
fn in_order_returns_a_batch_by_its_last_chain_virtio_2_7_8_1() {
    let features = RingFeatures {
        in_order: true,
        ..PLAIN
    };
    let mut pair = Pair::new(options(4, features, RingBase::split(0xffff)));
    pair.offer(4);
    pair.serve(3);
    assert_eq!(used_index(&pair), 2);
    assert_eq!(used_element(&pair, 0xffff), (2, 0));
    assert_eq!(used_element(&pair, 0), (0, 0), "skipped");
    assert_eq!(pair.pop_all(), [0, 1, 2]);
    pair.serve(1);
    assert_eq!(used_element(&pair, 2), (3, 0));
    assert_eq!(pair.pop_all(), [3]);
}

#[test]
fn in_order_no_publication_ends_inside_a_batch_virtio_2_7_8_1() {
    let features = RingFeatures {
        in_order: true,
        ..PLAIN
    };
    // The driver begins to poll before a batch is completed, or after.
    for polls_before in [false, true] {
        let mut pair = Pair::start(64, features);
        let memory = pair.memory.clone();
        let mut served = 0;
        for _ in 0..4 {
            pair.offer(24);
            let mut batch = ReadBatch::new();
            let taken = pair.device.take_readable(&memory, &mut batch, 24).unwrap();
            if polls_before {
                pair.driver.disable_calls();
            }
            pair.device.complete(&batch.chains[..taken]);
            pair.driver.disable_calls();
            assert!(!pair.device.publish_older());
            pair.driver.enable_calls();
            // A driver that sees a part of a batch refuses it.
            served += pair.pop_all().len();
        }
        assert_eq!(served, if polls_before { 4 * 24 - 8 } else { 4 * 24 });
        pair.device.publish();
        served += pair.pop_all().len();
        assert_eq!(served, 4 * 24);
    }
}

#[test]
fn an_index_that_goes_back_is_a_fault_virtio_2_7_6() {
    let mut pair = Pair::start(8, PLAIN);
    pair.offer(4);
    let mut batch = ReadBatch::new();
    assert_eq!(
        pair.device.take_readable(&pair.memory, &mut batch, 4),
        Ok(4)
    );
    poke_u16(&pair.memory, pair.driver.layout().available + 2, 3);
    let taken = pair.device.take_readable(&pair.memory, &mut batch, 4);
    let fault = RingFault::AvailableJump {
        index: 3,
        used: 0,
        size: 8,
    };
    assert_eq!(taken, Err(fault));
    // More than the ring holds, counting those that are out.
    poke_u16(&pair.memory, pair.driver.layout().available + 2, 9);
    let taken = pair.device.take_readable(&pair.memory, &mut batch, 4);
    let fault = RingFault::AvailableJump {
        index: 9,
        used: 0,
        size: 8,
    };
    assert_eq!(taken, Err(fault));
}

#[test]
fn a_driver_sees_through_a_lying_device_virtio_2_7_14() {
    let with = |index: u16, id: u32, len: u32, in_order: bool| {
        let mut pair = Pair::start(4, RingFeatures { in_order, ..PLAIN });
        pair.driver.add(&[], &[(BUFFERS, 10)], false).unwrap();
        pair.driver.add(&[], &[(BUFFERS, 10)], false).unwrap();
        pair.driver.publish();
        let used = pair.driver.layout().used;
        poke(&pair.memory, used + 4, &id.to_le_bytes());
        poke(&pair.memory, used + 8, &len.to_le_bytes());
        poke_u16(&pair.memory, used + 2, index);
        pair
    };
    let first = |index, id, len| with(index, id, len, false).driver.pop_used().unwrap_err();
    let jump = DriverFault::UsedJump {
        index: 3,
        expected: 0,
        out: 2,
    };
    assert_eq!(first(3, 0, 0), jump);
    assert_eq!(first(1, 2, 0), DriverFault::UnknownChain { id: 2 });
    assert_eq!(first(1, 4, 0), DriverFault::UnknownChain { id: 4 });
    assert_eq!(
        first(1, 0x1_0000, 0),
        DriverFault::UnknownChain { id: 0x1_0000 }
    );
    let overwritten = DriverFault::Overwritten {
        id: 1,
        len: 11,
        room: 10,
    };
    assert_eq!(first(1, 1, 11), overwritten);
    // In order: the element names a chain that the index does not reach.
    let mut pair = with(1, 3, 0, true);
    assert_eq!(pair.driver.pop_used().unwrap().map(|used| used.id), Some(0));
    let unknown = DriverFault::UnknownChain { id: 3 };
    assert_eq!(pair.driver.pop_used(), Err(unknown));
    // The same chain twice.
    let mut pair = with(2, 0, 0, false);
    assert_eq!(pair.driver.pop_used().unwrap().map(|used| used.id), Some(0));
    let unknown = DriverFault::UnknownChain { id: 0 };
    assert_eq!(pair.driver.pop_used(), Err(unknown));
}

#[test]
fn a_used_element_of_a_chain_that_was_not_published_is_a_fault_virtio_2_7_8() {
    for start in spots(false, 4) {
        for in_order in [false, true] {
            let features = RingFeatures { in_order, ..PLAIN };
            let mut pair = Pair::new(options(4, features, start.base()));
            let chain = [(BUFFERS, 10)];
            let first = pair.driver.add(&[], &chain, false).unwrap();
            pair.driver.publish();
            let staged = pair.driver.add(&[], &chain, false).unwrap();
            let used = pair.driver.layout().used;
            let index = start.base().used;
            poke(
                &pair.memory,
                used + 4 + u64::from(index % 4) * 8,
                &u32::from(staged).to_le_bytes(),
            );
            poke_u16(&pair.memory, used + 2, index.wrapping_add(1));
            let popped = pair.driver.pop_used();
            if in_order {
                // It may name the last of several, so the first comes back before it is missed.
                assert_eq!(popped.unwrap().map(|used| used.id), Some(first));
            }
            let unknown = DriverFault::UnknownChain { id: staged.into() };
            assert_eq!(pair.driver.pop_used(), Err(unknown));
            // Once it is published it is out like any other.
            if !in_order {
                pair.driver.publish();
                assert_eq!(
                    pair.driver.pop_used().unwrap().map(|used| used.id),
                    Some(staged)
                );
            }
        }
    }
}

#[test]
fn the_newest_chains_of_a_polling_driver_stay_back_until_they_are_asked_for() {
    fn serve(pair: &mut Pair) -> bool {
        let mut batch = ReadBatch::new();
        let taken = pair.device.take_readable(&pair.memory, &mut batch, 32);
        pair.device.complete(&batch.chains[..taken.unwrap()]);
        pair.device.publish_older()
    }
    for (size, kept) in [(8, 1), (64, 8), (256, 32), (1024, 32)] {
        let mut pair = Pair::start(size, PLAIN);
        pair.driver.disable_calls();
        let mut served = 0;
        for _ in 0..3 {
            pair.offer(size / 2);
            served += size / 2;
            while pair.device.has_available() {
                assert!(!serve(&mut pair));
            }
            assert_eq!(used_index(&pair), served - kept);
            assert_eq!(pair.device.base(), RingBase::split(served - kept));
            pair.pop_all();
        }
        assert!(!pair.device.publish());
        assert_eq!(used_index(&pair), served);
        assert_eq!(pair.pop_all().len(), usize::from(kept));
        // A driver that waits is told at once.
        pair.driver.enable_calls();
        pair.offer(1);
        assert!(serve(&mut pair));
        assert_eq!(used_index(&pair), served + 1);
    }
}
