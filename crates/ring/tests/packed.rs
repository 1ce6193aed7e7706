//! The packed ring word by word: where it may lie, where it starts, what it leaves in memory, and what it makes of a driver or a device
//! that lies.

#![allow(clippy::cast_possible_truncation)]

mod common;

use std::sync::Arc;

use common::{BUFFERS, FORMATS, Pair, Spot, options, peek, peek_u16, poke, poke_u16, spots};
use ringway_mem::GuestMemory;
use ringway_ring::{
    DeviceRing, DriverFault, DriverRing, ReadBatch, RingBase, RingError, RingFault, RingFeatures,
    RingLayout, Used, Wraps, WriteBatch,
};

const PLAIN: RingFeatures = FORMATS[1];
const IN_ORDER: RingFeatures = RingFeatures {
    in_order: true,
    ..PLAIN
};
const INDIRECT: RingFeatures = RingFeatures {
    indirect: true,
    ..PLAIN
};

const NEXT: u16 = 1;
const WRITE: u16 = 2;
const TABLE: u16 = 4;
const AVAIL: u16 = 1 << 7;
const USED: u16 = 1 << 15;

/// A descriptor as it lies in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Descriptor {
    address: u64,
    len: u32,
    id: u16,
    flags: u16,
}

fn at(pair: &Pair, index: u16) -> u64 {
    pair.driver.layout().descriptors + u64::from(index) * 16
}

fn read(pair: &Pair, index: u16) -> Descriptor {
    let bytes = peek(&pair.memory, at(pair, index), 16);
    Descriptor {
        address: u64::from_le_bytes(bytes[..8].try_into().unwrap()),
        len: u32::from_le_bytes(bytes[8..12].try_into().unwrap()),
        id: u16::from_le_bytes(bytes[12..14].try_into().unwrap()),
        flags: u16::from_le_bytes(bytes[14..].try_into().unwrap()),
    }
}

fn write(pair: &Pair, index: u16, descriptor: Descriptor) {
    let at = at(pair, index);
    poke(&pair.memory, at, &descriptor.address.to_le_bytes());
    poke(&pair.memory, at + 8, &descriptor.len.to_le_bytes());
    poke_u16(&pair.memory, at + 12, descriptor.id);
    poke_u16(&pair.memory, at + 14, descriptor.flags);
}

/// A chain of one readable descriptor, as a driver of its own kind makes it available in the first lap.
fn plain(id: u16) -> Descriptor {
    Descriptor {
        address: BUFFERS,
        len: 8,
        id,
        flags: AVAIL,
    }
}

fn ring_bytes(pair: &Pair) -> Vec<u8> {
    let layout = pair.driver.layout();
    peek(&pair.memory, layout.descriptors, (layout.used + 4) as usize)
}

fn take(pair: &mut Pair, max: usize) -> Result<Vec<(u16, u16)>, RingFault> {
    let mut batch = ReadBatch::new();
    pair.device.take_readable(&pair.memory, &mut batch, max)?;
    let facts = batch.chains.iter().map(|chain| (chain.id, chain.slots));
    Ok(facts.collect())
}

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

#[test]
fn ids_are_the_drivers_own_virtio_2_8_6() {
    let mut pair = Pair::start(4, PLAIN);
    // The same for two chains, beyond the ring, and one that only the last descriptor says.
    write(&pair, 1, plain(0xffff));
    let first = Descriptor {
        flags: AVAIL | NEXT,
        ..plain(1)
    };
    write(&pair, 2, first);
    write(&pair, 3, plain(0xffff));
    write(&pair, 0, plain(0x8000));
    assert_eq!(
        take(&mut pair, 8),
        Ok(vec![(0x8000, 1), (0xffff, 1), (0xffff, 2)])
    );
    pair.device.discard_staged();
    assert_eq!(pair.serve(8).0, 3);
    let ids = [0, 1, 2].map(|index| read(&pair, index).id);
    assert_eq!(ids, [0x8000, 0xffff, 0xffff]);
}

#[test]
fn descriptors_of_another_lap_are_not_available_virtio_2_8_1() {
    for flags in [0, USED, AVAIL | USED] {
        let mut pair = Pair::start(4, PLAIN);
        write(&pair, 0, Descriptor { flags, ..plain(0) });
        assert!(!pair.device.has_available());
        assert_eq!(take(&mut pair, 8), Ok(vec![]));
    }
}

#[test]
fn no_more_than_a_lap_is_taken_whatever_the_flags_say() {
    let mut pair = Pair::start(4, PLAIN);
    pair.offer(4);
    assert_eq!(take(&mut pair, 3).map(|chains| chains.len()), Ok(3));
    assert_eq!(take(&mut pair, 8).map(|chains| chains.len()), Ok(1));
    // The driver makes them available in the next lap although none came back.
    for index in 0..4 {
        let flags = USED;
        write(&pair, index, Descriptor { flags, ..plain(9) });
    }
    assert!(!pair.device.has_available());
    assert_eq!(take(&mut pair, 8), Ok(vec![]));
    pair.device.discard_staged();
    assert_eq!(take(&mut pair, 8), Ok(vec![]), "the first lap is spoilt");
}

#[test]
fn a_chain_longer_than_what_is_left_of_the_ring_is_a_fault_virtio_2_8_8() {
    let endless = Descriptor {
        flags: AVAIL | NEXT,
        ..plain(0)
    };
    for before in 0..4 {
        let mut pair = Pair::start(4, PLAIN);
        for index in 0..4 {
            write(&pair, index, endless);
        }
        for index in 0..before {
            write(&pair, index, plain(index));
        }
        if before > 0 {
            let taken = take(&mut pair, 8);
            assert_eq!(taken.map(|chains| chains.len()), Ok(before.into()));
        }
        let fault = RingFault::ChainTooLong { size: 4 };
        assert_eq!(take(&mut pair, 8), Err(fault));
        assert!(pair.device.has_available(), "the fault is still there");
    }
}

#[test]
fn a_table_stands_alone_virtio_2_8_19() {
    let table = Descriptor {
        flags: AVAIL | TABLE,
        len: 16,
        ..plain(3)
    };
    let mut pair = Pair::start(4, INDIRECT);
    let first = Descriptor {
        flags: AVAIL | NEXT,
        ..plain(0)
    };
    write(&pair, 0, first);
    write(&pair, 1, table);
    assert_eq!(take(&mut pair, 8), Err(RingFault::IndirectWithNext));
    write(&pair, 0, table);
    assert_eq!(take(&mut pair, 8), Ok(vec![(3, 1), (3, 1)]));
    pair.device.discard_staged();
    let flags = table.flags | NEXT;
    write(&pair, 0, Descriptor { flags, ..table });
    assert_eq!(take(&mut pair, 8), Err(RingFault::IndirectWithNext));
}

#[test]
fn next_and_id_mean_nothing_in_a_table_virtio_2_8_7() {
    let mut pair = Pair::start(4, INDIRECT);
    let buffer = (BUFFERS + 0x1000, 5);
    pair.driver
        .add(&[buffer, buffer, buffer], &[], true)
        .unwrap();
    pair.driver.publish();
    let table = read(&pair, 0).address;
    // Flags that go on at the end and do not before, and ids.
    for (entry, flags) in [0, AVAIL | USED, NEXT].into_iter().enumerate() {
        let at = table + entry as u64 * 16;
        poke_u16(&pair.memory, at + 12, 0xffff);
        poke_u16(&pair.memory, at + 14, flags);
    }
    let mut batch = ReadBatch::new();
    let taken = pair.device.take_readable(&pair.memory, &mut batch, 8);
    assert_eq!(taken, Ok(1));
    let chain = batch.chains[0];
    assert_eq!((chain.id, chain.len, chain.segments), (0, 15, 3));
}

/// DPDK's driver marks the header of what it sends so, and with some luck more of the frame.
#[test]
fn write_is_borne_in_a_table_to_be_read_and_wanted_in_one_to_be_written() {
    let table_of = |readable: &[(u64, u32)], writable: &[(u64, u32)]| {
        let mut pair = Pair::start(4, INDIRECT);
        pair.driver.add(readable, writable, true).unwrap();
        pair.driver.publish();
        pair
    };
    let buffers = [(BUFFERS + 0x1000, 5), (BUFFERS + 0x2000, 7)];
    let mut pair = table_of(&[], &buffers);
    assert_eq!(take(&mut pair, 8), Ok(vec![(0, 1)]));
    let mut pair = table_of(&buffers[..1], &buffers[1..]);
    assert_eq!(take(&mut pair, 8), Ok(vec![(0, 1)]));
    pair.device.discard_staged();
    let mut batch = WriteBatch::new();
    let taken = pair.device.take_writable(&pair.memory, &mut batch, 8);
    assert_eq!(taken, Err(RingFault::WrongDirection { writable: false }));
    // In the ring itself it is a fault.
    let mut pair = Pair::start(4, INDIRECT);
    pair.driver.add(&[], &buffers, false).unwrap();
    pair.driver.publish();
    let fault = RingFault::WrongDirection { writable: true };
    assert_eq!(take(&mut pair, 8), Err(fault));
}

#[test]
fn a_driver_sees_through_a_lying_device_virtio_2_8_22() {
    let with = |id: u16, len: u32, in_order: bool| {
        let mut pair = Pair::start(4, RingFeatures { in_order, ..PLAIN });
        pair.driver.add(&[], &[(BUFFERS, 10)], false).unwrap();
        pair.driver.add(&[], &[(BUFFERS, 10)], false).unwrap();
        pair.driver.publish();
        // Number 2 is staged: the device cannot have it.
        pair.driver.add(&[], &[(BUFFERS, 10)], false).unwrap();
        let flags = AVAIL | USED | WRITE;
        let used = Descriptor {
            address: 0,
            len,
            id,
            flags,
        };
        write(&pair, 0, used);
        pair
    };
    for in_order in [false, true] {
        for id in [2, 3, 4, 0xffff] {
            let mut pair = with(id, 0, in_order);
            let unknown = DriverFault::UnknownChain { id: id.into() };
            assert_eq!(pair.driver.pop_used(), Err(unknown));
            assert_eq!(pair.driver.pop_used(), Err(unknown), "the fault stays");
            assert_eq!(pair.driver.base(), RingBase::start(true));
        }
        let overwritten = DriverFault::Overwritten {
            id: 0,
            len: 11,
            room: 10,
        };
        assert_eq!(with(0, 11, in_order).driver.pop_used(), Err(overwritten));
    }
    // The same chain twice.
    let mut pair = with(0, 0, false);
    assert_eq!(pair.driver.pop_used().unwrap().map(|used| used.id), Some(0));
    write(
        &pair,
        1,
        Descriptor {
            flags: AVAIL | USED,
            ..plain(0)
        },
    );
    let unknown = DriverFault::UnknownChain { id: 0 };
    assert_eq!(pair.driver.pop_used(), Err(unknown));
    // Used where nothing is out.
    let mut pair = Pair::start(4, PLAIN);
    let flags = AVAIL | USED;
    write(&pair, 0, Descriptor { flags, ..plain(0) });
    assert_eq!(pair.driver.pop_used(), Err(unknown));
}

#[test]
fn what_a_device_writes_over_the_ring_does_not_mislead_the_driver() {
    let mut pair = Pair::start(4, PLAIN);
    pair.offer(4);
    // Used out of order, as other devices do: their descriptors come one after the other all the same.
    for (index, id) in [2, 0, 3, 1].into_iter().enumerate() {
        let flags = AVAIL | USED;
        write(&pair, index as u16, Descriptor { flags, ..plain(id) });
    }
    assert_eq!(pair.driver.base(), Spot::new(true, 4, 4).base());
    assert_eq!(pair.pop_all(), [2, 0, 3, 1]);
    assert_eq!(pair.driver.free(), 4);
    assert_eq!(peek_u16(&pair.memory, pair.driver.layout().available), 0);
}
