//! What the packed ring makes of a driver or a device that lies, or does what only some do.

#![allow(clippy::cast_possible_truncation)]

mod common;

use common::packed::{
    AVAIL, Descriptor, INDIRECT, NEXT, PLAIN, TABLE, USED, WRITE, plain, read, take, write,
};
use common::{BUFFERS, Pair, Spot, peek_u16, poke_u16};
use ringway_ring::{DriverFault, ReadBatch, RingBase, RingFault, RingFeatures, WriteBatch};

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
