//! The packed ring word by word: where it may lie, where it starts, what it leaves in memory.

#![allow(clippy::cast_possible_truncation)]

mod common;

use std::sync::Arc;

use common::packed::{
    AVAIL, Descriptor, IN_ORDER, INDIRECT, NEXT, PLAIN, TABLE, USED, WRITE, read, ring_bytes, write,
};
use common::{BUFFERS, Pair, Spot, options, peek, spots};
use ringway_mem::GuestMemory;
use ringway_ring::{
    DeviceRing, DriverRing, ReadBatch, RingBase, RingError, RingFeatures, RingLayout, Used, Wraps,
    WriteBatch,
};

#[test]
fn sizes_from_1_to_32768_are_possible_virtio_2_8() {
    let memory = Arc::new(GuestMemory::heap(&[(0, 0x20_0000)]));
    let layout = |size| RingLayout {
        size,
        descriptors: 0,
        available: 0x10_0000,
        used: 0x10_0004,
    };
    let base = RingBase::start(true);
    for size in [1, 2, 3, 255, 1000, 32767, 32768] {
        let ring = DeviceRing::new(&memory, &layout(size), PLAIN, base);
        assert_eq!(ring.map(|ring| ring.size()).ok(), Some(size));
    }
    for size in [0, 32769, 65535] {
        let ring = DeviceRing::new(&memory, &layout(size), PLAIN, base);
        assert!(matches!(ring, Err(RingError::Size { size: found }) if found == size));
        let ring = DriverRing::new(&memory, 0, options(size, PLAIN, base));
        assert!(matches!(ring, Err(RingError::Size { size: found }) if found == size));
    }
}

#[test]
fn a_base_outside_the_ring_is_refused_virtio_2_8_1() {
    let pair = Pair::start(8, PLAIN);
    let layout = pair.driver.layout();
    let wraps = Some(Wraps {
        available: true,
        used: true,
    });
    for (available, used, wrong) in [(8, 0, 8), (0, 8, 8), (0x7fff, 7, 0x7fff)] {
        let base = RingBase {
            available,
            used,
            wraps,
        };
        let ring = DeviceRing::new(&pair.memory, &layout, PLAIN, base);
        assert!(matches!(ring, Err(RingError::Base { index, size: 8 }) if index == wrong));
        let ring = DriverRing::new(&pair.memory, 0, options(8, PLAIN, base));
        assert!(matches!(ring, Err(RingError::Base { index, size: 8 }) if index == wrong));
    }
}

#[test]
fn a_device_that_had_chains_in_flight_is_succeeded_from_its_used_place() {
    for start in spots(true, 8) {
        let mut pair = Pair::new(options(8, PLAIN, start.base()));
        pair.offer(6);
        pair.serve(2);
        // Another back-end may say that it had taken three more.
        let [used, taken] = [2, 5].map(|steps| start.step(steps).base());
        let base = RingBase {
            available: taken.available,
            used: used.used,
            wraps: taken.wraps.zip(used.wraps).map(|(taken, used)| Wraps {
                available: taken.available,
                used: used.used,
            }),
        };
        let layout = pair.driver.layout();
        pair.device = DeviceRing::new(&pair.memory, &layout, PLAIN, base).unwrap();
        assert_eq!(pair.device.base(), used);
        assert_eq!(pair.serve(8).0, 4);
        assert_eq!(pair.pop_all(), [0, 1, 2, 3, 4, 5]);
    }
}

#[test]
fn parts_outside_memory_or_misaligned_are_refused_virtio_2_8() {
    let memory = Arc::new(GuestMemory::heap(&[(0, 0x1000)]));
    let good = RingLayout {
        size: 7,
        descriptors: 0xf80,
        available: 0xff0,
        used: 0xffc,
    };
    let new = |layout| DeviceRing::new(&memory, &layout, PLAIN, RingBase::start(true));
    assert!(new(good).is_ok());
    let with = |change: fn(&mut RingLayout)| {
        let mut layout = good;
        change(&mut layout);
        match new(layout) {
            Err(RingError::Area { part, size: 7, .. }) => part,
            _ => panic!("not refused"),
        }
    };
    assert_eq!(with(|l| l.descriptors = 8), "descriptor ring");
    assert_eq!(with(|l| l.descriptors = 0xfa0), "descriptor ring");
    assert_eq!(with(|l| l.available = 2), "driver event suppression");
    assert_eq!(with(|l| l.available = 0x1000), "driver event suppression");
    assert_eq!(with(|l| l.used = 0xffe), "device event suppression");
    assert_eq!(with(|l| l.used = u64::MAX - 3), "device event suppression");
}

#[test]
fn descriptors_as_the_driver_writes_them_virtio_2_8_6() {
    let base = Spot::new(true, 5, 3).base();
    let mut pair = Pair::new(options(5, INDIRECT, base));
    let id = pair.driver.add(
        &[(BUFFERS, 7), (BUFFERS + 64, 8)],
        &[(BUFFERS + 128, 9)],
        false,
    );
    assert_eq!(id, Ok(0));
    assert_eq!(
        pair.driver.add(&[(BUFFERS, 7)], &[(BUFFERS + 64, 8)], true),
        Ok(1)
    );
    assert_eq!(
        read(&pair, 3).flags & (AVAIL | USED),
        0,
        "the first comes last"
    );
    pair.driver.publish();
    let flags = |index| read(&pair, index).flags;
    assert_eq!(flags(3), NEXT | AVAIL);
    assert_eq!(flags(4), NEXT | AVAIL);
    // The next lap, in which the flags are the other way round.
    assert_eq!(flags(0), WRITE | USED);
    assert_eq!(flags(1), TABLE | USED);
    assert_eq!(read(&pair, 0).id, 0);
    let table = read(&pair, 1);
    assert_eq!((table.id, table.len), (1, 32));
    let entries = peek(&pair.memory, table.address, 32);
    assert_eq!(entries[14..16], [0, 0]);
    assert_eq!(entries[30..], [2, 0]);
}

#[test]
fn used_descriptors_as_the_device_writes_them_virtio_2_8_5() {
    for in_order in [false, true] {
        let features = RingFeatures { in_order, ..PLAIN };
        // Two chains in this lap, one in the next.
        let base = Spot::new(true, 6, 3).base();
        let mut pair = Pair::new(options(6, features, base));
        let pieces = [(BUFFERS, 100), (BUFFERS + 0x1000, 100)];
        for count in [2, 1, 2] {
            pair.driver.add(&[], &pieces[..count], false).unwrap();
        }
        pair.driver.publish();
        let mut batch = WriteBatch::new();
        let taken = pair.device.take_writable(&pair.memory, &mut batch, 8);
        assert_eq!(taken, Ok(3));
        for (chain, written) in batch.chains.iter_mut().zip([120, 0, 70]) {
            chain.written = written;
        }
        pair.device.complete(&batch.chains);
        pair.device.publish();
        let used = |index| {
            let Descriptor { len, id, flags, .. } = read(&pair, index);
            (id, len, flags)
        };
        assert_eq!(used(3), (0, 120, AVAIL | USED | WRITE));
        // No flag where nothing was written: the length means nothing.
        assert_eq!(used(5), (1, 0, AVAIL | USED));
        assert_eq!(used(0), (2, 70, WRITE));
        // The rest of a chain stays as it was.
        assert_eq!(used(4), (0, 100, AVAIL | WRITE));
        let back: Vec<Used> = std::iter::from_fn(|| pair.driver.pop_used().unwrap()).collect();
        let lens = [(0, 120), (1, 0), (2, 70)].map(|(id, len)| Used { id, len });
        assert_eq!(back, lens);
    }
}

#[test]
fn nothing_is_stored_before_publish() {
    for features in common::all_features(true) {
        for start in spots(true, 8) {
            let mut pair = Pair::new(options(8, features, start.base()));
            pair.offer(7);
            pair.serve(1);
            let before = ring_bytes(&pair);
            let mut batch = ReadBatch::new();
            let taken = pair.device.take_readable(&pair.memory, &mut batch, 8);
            assert_eq!(taken, Ok(6));
            pair.device.complete(&batch.chains[..2]);
            pair.device.complete(&batch.chains[2..4]);
            pair.device.untake(&batch.chains[4..]);
            assert_eq!(ring_bytes(&pair), before);
            pair.device.discard_staged();
            assert_eq!(ring_bytes(&pair), before);
            assert!(!pair.device.publish());
            assert_eq!(ring_bytes(&pair), before);
        }
    }
}

#[test]
fn in_order_returns_a_batch_by_its_last_chain_virtio_2_8_9() {
    for start in spots(true, 8) {
        let mut pair = Pair::new(options(8, IN_ORDER, start.base()));
        let pieces = [(BUFFERS, 1); 3];
        for count in [2, 1, 3, 1] {
            pair.driver.add(&pieces[..count], &[], false).unwrap();
        }
        pair.driver.publish();
        let index = |steps| start.step(steps).base().available;
        let used = |pair: &Pair, steps| {
            let descriptor = read(pair, index(steps));
            let both = [AVAIL, USED].map(|bit| descriptor.flags & bit != 0);
            let wrap = start.step(steps).base().wraps.unwrap().used;
            (both == [wrap; 2]).then_some((descriptor.id, descriptor.len))
        };
        assert_eq!(pair.serve(3).0, 3);
        // One for six descriptors, at the place of the first.
        assert_eq!(used(&pair, 0).map(|(id, _)| id), Some(2));
        for skipped in 1..6 {
            assert_eq!(used(&pair, skipped), None);
        }
        assert_eq!(pair.serve(1).0, 1);
        assert_eq!(used(&pair, 6).map(|(id, _)| id), Some(3));
        assert_eq!(pair.driver.free(), 1);
        assert_eq!(pair.pop_all(), [0, 1, 2, 3]);
        assert_eq!(pair.driver.free(), 8);
    }
}

#[test]
fn skipped_chains_count_as_wholly_written_virtio_2_8_9() {
    let mut pair = Pair::start(8, IN_ORDER);
    for len in [10, 20, 30] {
        pair.driver.add(&[], &[(BUFFERS, len)], false).unwrap();
    }
    pair.driver.publish();
    // As a device may that filled the first two.
    write(
        &pair,
        0,
        Descriptor {
            address: 0,
            len: 5,
            id: 2,
            flags: AVAIL | USED | WRITE,
        },
    );
    let back: Vec<Used> = std::iter::from_fn(|| pair.driver.pop_used().unwrap()).collect();
    let lens = [(0, 10), (1, 20), (2, 5)].map(|(id, len)| Used { id, len });
    assert_eq!(back, lens);
}
