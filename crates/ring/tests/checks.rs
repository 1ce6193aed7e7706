//! Each check of what a driver says has a test of its name here, in both formats, with what is still right beside what is not any more.

#![allow(clippy::cast_possible_truncation)]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use common::packed::{AVAIL, NEXT, TABLE as INDIRECT, WRITE};
use common::{BUFFERS, Pair, options, poke, poke_u16};
use ringway_mem::GuestMemory;
use ringway_ring::{
    DeviceRing, DriverRing, MAX_SEGMENTS, ReadBatch, RingBase, RingFault, RingFeatures, WriteBatch,
};

const SIZE: u16 = 8;
/// Where memory ends.
const END: u64 = 2 * BUFFERS;
/// Where an indirect table lies.
const TABLE: u64 = BUFFERS + 0x10_0000;

/// Address, length, flags, and the next descriptor (split) or the buffer id (packed).
type Descriptor = (u64, u32, u16, u16);

/// A ring of which the test writes every word.
struct Raw {
    pair: Pair,
    packed: bool,
}

impl Raw {
    fn new(packed: bool) -> Self {
        let features = RingFeatures {
            packed,
            indirect: true,
            ..RingFeatures::default()
        };
        Self {
            pair: Pair::start(SIZE, features),
            packed,
        }
    }

    /// With memory of another layout, whose first region has the ring.
    fn over(packed: bool, layout: &[(u64, usize)]) -> Self {
        let mut raw = Self::new(packed);
        let features = RingFeatures {
            packed,
            indirect: true,
            ..RingFeatures::default()
        };
        let options = options(SIZE, features, RingBase::start(packed));
        let memory = Arc::new(GuestMemory::heap(layout));
        raw.pair.driver = DriverRing::new(&memory, 0, options).unwrap();
        let layout = raw.pair.driver.layout();
        raw.pair.device = DeviceRing::new(&memory, &layout, features, options.base).unwrap();
        raw.pair.memory = memory;
        raw
    }

    /// Both formats.
    fn each() -> [Self; 2] {
        [false, true].map(Self::new)
    }

    fn encode(&self, (address, len, flags, tag): Descriptor) -> Vec<u8> {
        let (first, second) = if self.packed {
            (tag, flags)
        } else {
            (flags, tag)
        };
        let mut bytes = address.to_le_bytes().to_vec();
        bytes.extend(len.to_le_bytes());
        bytes.extend(first.to_le_bytes());
        bytes.extend(second.to_le_bytes());
        bytes
    }

    fn put(&self, index: u16, (address, len, flags, tag): Descriptor) {
        let flags = flags | if self.packed { AVAIL } else { 0 };
        let at = self.pair.driver.layout().descriptors + u64::from(index) * 16;
        let bytes = self.encode((address, len, flags, tag));
        poke(&self.pair.memory, at, &bytes);
    }

    fn set_head(&self, head: u16) {
        let available = self.pair.driver.layout().available;
        poke_u16(&self.pair.memory, available + 4, head);
    }

    fn set_index(&self, index: u16) {
        let available = self.pair.driver.layout().available;
        poke_u16(&self.pair.memory, available + 2, index);
    }

    /// One chain of the descriptors from 0 on, each going on with the one after it.
    fn chain(self, chain: &[(u64, u32, u16)]) -> Self {
        for (index, &(address, len, flags)) in (0..).zip(chain) {
            let more = index + 1 < chain.len() as u16;
            let next = if more { NEXT } else { 0 };
            let tag = if self.packed { 0 } else { index + 1 };
            self.put(index, (address, len, flags | next, tag));
        }
        if !self.packed {
            self.set_head(0);
            self.set_index(1);
        }
        self
    }

    /// A chain of one descriptor that names a table, which has its entries linked.
    fn table(self, entries: &[(u64, u32, u16)]) -> Self {
        let at = TABLE;
        self.table_at(at, entries)
    }

    fn table_at(self, at: u64, entries: &[(u64, u32, u16)]) -> Self {
        let mut bytes = Vec::new();
        for (index, &(address, len, flags)) in (0..).zip(entries) {
            let more = index + 1 < entries.len() as u16;
            let (next, tag) = if more { (NEXT, index + 1) } else { (0, 0) };
            bytes.extend(self.encode((address, len, flags | next, tag)));
        }
        poke(&self.pair.memory, at, &bytes);
        self.chain(&[(at, bytes.len() as u32, INDIRECT)])
    }

    /// Takes what is to be read: bytes and pieces of the one chain.
    fn read(&mut self) -> Result<(u32, usize), RingFault> {
        let mut batch = ReadBatch::new();
        let memory = &self.pair.memory;
        let taken = self.pair.device.take_readable(memory, &mut batch, 4)?;
        assert_eq!(taken, 1);
        Ok((batch.chains[0].len, batch.segments.len()))
    }

    /// Takes what is to be written.
    fn write(&mut self) -> Result<(u32, usize), RingFault> {
        let mut batch = WriteBatch::new();
        let memory = &self.pair.memory;
        let taken = self.pair.device.take_writable(memory, &mut batch, 4)?;
        assert_eq!(taken, 1);
        Ok((batch.chains[0].len, batch.segments.len()))
    }
}

/// Ends the thread that changes bytes, also when the test fails.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn entries_and_descriptors_are_read_once_into_locals() {
    // Each word flips between two values. Checked and used are the same, or a slice would be longer than its chain or leave memory.
    for mut raw in Raw::each() {
        let words = [(END - 100, 100), (BUFFERS, 200)];
        raw = raw.chain(&[(words[0].0, words[0].1, WRITE)]);
        let stop = AtomicBool::new(false);
        let Raw { pair, packed } = raw;
        let layout = pair.driver.layout();
        let (memory, mut device) = (&pair.memory, pair.device);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for turn in 0_usize.. {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    let (address, len) = words[turn % 2];
                    poke(memory, layout.descriptors, &u64::to_le_bytes(address));
                    poke(memory, layout.descriptors + 8, &u32::to_le_bytes(len));
                    if !packed {
                        poke_u16(memory, layout.available + 4, [0, SIZE][turn % 2]);
                    }
                }
            });
            let _stopped = Stop(&stop);
            let mut outcomes = [0_u32; 2];
            // The other thread may not run for a while.
            for take in 0_u64.. {
                if take >= 20_000 && outcomes.iter().all(|&count| count > 0) {
                    break;
                }
                if take % 1000 == 0 {
                    std::thread::yield_now();
                }
                let mut batch = WriteBatch::new();
                match device.take_writable(memory, &mut batch, 1) {
                    Ok(_) => {
                        let chain = batch.chains[0];
                        assert_eq!(batch.segments[0].len(), chain.len as usize);
                        let at = memory.guest_address(batch.segments[0]).unwrap();
                        assert!(at + u64::from(chain.len) <= END);
                        assert!(words.iter().any(|&(_, len)| len == chain.len));
                        device.untake(&batch.chains);
                        outcomes[0] += 1;
                    }
                    Err(RingFault::HeadOutOfRange { head: SIZE, .. }) if !packed => {
                        outcomes[1] += 1;
                    }
                    Err(RingFault::Unmapped { address, len }) => {
                        assert_eq!((address, len), (END, 100));
                        outcomes[1] += 1;
                    }
                    Err(other) => panic!("{other}"),
                }
            }
        });
    }
}

#[test]
fn avail_jump_above_size_is_rejected() {
    for (index, rejected) in [
        (SIZE, false),
        (SIZE + 1, true),
        (u16::MAX, true),
        (0x8000, true),
    ] {
        let mut raw = Raw::new(false);
        for head in 0..SIZE {
            raw.put(head, (BUFFERS, 8, 0, 0));
        }
        raw.set_index(index);
        let mut batch = ReadBatch::new();
        let memory = &raw.pair.memory;
        let taken = raw.pair.device.take_readable(memory, &mut batch, 64);
        if rejected {
            let (used, size) = (0, SIZE);
            assert_eq!(taken, Err(RingFault::AvailableJump { index, used, size }));
        } else {
            assert_eq!(taken, Ok(SIZE.into()));
        }
    }
}

#[test]
fn head_not_below_size_is_rejected() {
    for head in [SIZE - 1, SIZE, SIZE + 1, u16::MAX] {
        let mut raw = Raw::new(false);
        // Where it would be if it were cut to size, there is something.
        for index in 0..SIZE {
            raw.put(index, (BUFFERS, 8, 0, 0));
        }
        raw.set_head(head);
        raw.set_index(1);
        let expected = if head < SIZE {
            Ok((8, 1))
        } else {
            Err(RingFault::HeadOutOfRange { head, size: SIZE })
        };
        assert_eq!(raw.read(), expected);
    }
}

#[test]
fn head_not_below_size_is_rejected_whatever_seems_to_stand_there() {
    // The available ring follows the descriptors, and this one reads like a descriptor whose bytes are guest memory.
    let region = 0x8_0000_0000;
    let mut raw = Raw::over(false, &[(0, BUFFERS as usize), (region, BUFFERS as usize)]);
    let layout = raw.pair.driver.layout();
    assert_eq!(layout.available - layout.descriptors, u64::from(SIZE) * 16);
    raw.set_index(1);
    raw.set_head(SIZE);
    poke_u16(&raw.pair.memory, layout.available + 4 + 2 * 2, 60);
    let (head, size) = (SIZE, SIZE);
    assert_eq!(raw.read(), Err(RingFault::HeadOutOfRange { head, size }));
}

#[test]
fn next_not_below_the_ring_or_table_size_is_rejected() {
    for next in [1, SIZE - 1, SIZE, u16::MAX] {
        let mut raw = Raw::new(false).chain(&[(BUFFERS, 8, 0)]);
        raw.put(0, (BUFFERS, 8, NEXT, next));
        if next < SIZE {
            raw.put(next, (BUFFERS, 8, 0, 0));
            assert_eq!(raw.read(), Ok((16, 2)));
        } else {
            assert_eq!(
                raw.read(),
                Err(RingFault::NextOutOfRange { next, size: SIZE })
            );
        }
    }
    for next in [1, 2, u16::MAX] {
        let mut raw = Raw::new(false).table(&[(BUFFERS, 8, 0), (BUFFERS, 8, 0)]);
        let bytes = raw.encode((BUFFERS, 8, NEXT, next));
        poke(&raw.pair.memory, TABLE, &bytes);
        if next < 2 {
            assert_eq!(raw.read(), Ok((16, 2)));
        } else {
            assert_eq!(raw.read(), Err(RingFault::NextOutOfRange { next, size: 2 }));
        }
    }
}

#[test]
fn steps_are_counted_up_to_the_ring_or_table_size() {
    let too_long = |size| Err(RingFault::ChainTooLong { size });
    for mut raw in Raw::each() {
        // All of the ring is a chain; one more is not.
        raw = raw.chain(&[(BUFFERS, 1, 0); SIZE as usize]);
        raw.put(SIZE - 1, (BUFFERS, 1, NEXT, 0));
        assert_eq!(raw.read(), too_long(SIZE));
        raw.put(SIZE - 1, (BUFFERS, 1, 0, 0));
        assert_eq!(raw.read(), Ok((u32::from(SIZE), SIZE.into())));
    }
    // In a table of a packed ring there are no links to loop through.
    let mut raw = Raw::new(false).table(&[(BUFFERS, 1, 0); 3]);
    let last = raw.encode((BUFFERS, 1, NEXT, 0));
    poke(&raw.pair.memory, TABLE + 2 * 16, &last);
    assert_eq!(raw.read(), too_long(3));
}

#[test]
fn no_readable_descriptor_after_a_writable_one() {
    let mixed = [(BUFFERS, 8, WRITE), (BUFFERS, 8, 0)];
    for mut raw in Raw::each() {
        raw = raw.chain(&mixed);
        assert_eq!(raw.write(), Err(RingFault::ReadableAfterWritable));
        assert_eq!(
            raw.read(),
            Err(RingFault::WrongDirection { writable: true })
        );
        let mut raw = Raw::new(raw.packed).table(&mixed);
        assert_eq!(raw.write(), Err(RingFault::ReadableAfterWritable));
        // Nothing to be written before it: that is another fault.
        let mut raw = Raw::new(raw.packed).chain(&[(BUFFERS, 8, 0)]);
        let readable = RingFault::WrongDirection { writable: false };
        assert_eq!(raw.write(), Err(readable));
    }
}

#[test]
fn segments_are_capped() {
    let max = MAX_SEGMENTS;
    for mut raw in Raw::each() {
        raw = raw.table(&vec![(BUFFERS, 1, 0); max]);
        assert_eq!(raw.read(), Ok((max as u32, max)));
        // The last one in two regions is a piece more.
        let mut entries = vec![(BUFFERS, 1, 0); max];
        entries[max - 1] = (BUFFERS - 1, 2, 0);
        let mut raw = Raw::new(raw.packed).table(&entries);
        assert_eq!(raw.read(), Err(RingFault::TooManySegments { max }));
        // After a chain that fills the batch the next one waits, however plain it is.
        let mut raw = Raw::new(raw.packed).table(&vec![(BUFFERS, 1, 0); max]);
        raw.put(1, (BUFFERS, 8, 0, 1));
        if !raw.packed {
            let available = raw.pair.driver.layout().available;
            poke_u16(&raw.pair.memory, available + 6, 1);
            raw.set_index(2);
        }
        assert_eq!(raw.read(), Ok((max as u32, max)));
        assert_eq!(raw.read(), Ok((8, 1)));
    }
}

#[test]
fn total_bytes_are_capped() {
    // As much as a length can say, and a byte more.
    const PIECE: u32 = 1 << 28;
    for packed in [false, true] {
        let layout = [(0, BUFFERS as usize), (BUFFERS, PIECE as usize)];
        for (last, rejected) in [(PIECE - 1, false), (PIECE, true)] {
            let mut entries = vec![(BUFFERS, PIECE, 0); 16];
            entries[15].1 = last;
            let mut raw = Raw::over(packed, &layout);
            raw = raw.table(&entries);
            let total = 15 * u64::from(PIECE) + u64::from(last);
            if rejected {
                assert_eq!(raw.read(), Err(RingFault::TotalTooLong { total }));
            } else {
                assert_eq!(raw.read(), Ok((u32::MAX, 16)));
            }
        }
    }
}

#[test]
fn indirect_len_is_a_multiple_of_16_non_zero_and_capped() {
    let max = MAX_SEGMENTS;
    let longest = max as u32 * 16;
    for packed in [false, true] {
        for len in [
            0,
            1,
            8,
            15,
            17,
            31,
            longest - 1,
            longest + 1,
            longest + 16,
            !15,
        ] {
            let mut raw = Raw::new(packed).chain(&[(TABLE, len, INDIRECT)]);
            assert_eq!(
                raw.read(),
                Err(RingFault::IndirectLength { len, max }),
                "{len}"
            );
        }
        let mut raw = Raw::new(packed).table(&[(BUFFERS, 8, 0)]);
        assert_eq!(raw.read(), Ok((8, 1)));
        let mut raw = Raw::new(packed).table(&vec![(BUFFERS, 1, 0); max]);
        assert_eq!(raw.read(), Ok((max as u32, max)));
    }
}

#[test]
fn indirect_tables_do_not_nest() {
    for packed in [false, true] {
        let mut raw = Raw::new(packed).table(&[(BUFFERS, 8, 0), (TABLE, 16, INDIRECT)]);
        assert_eq!(raw.read(), Err(RingFault::NestedIndirect));
    }
}

#[test]
fn indirect_and_next_exclude_each_other() {
    for packed in [false, true] {
        let mut raw = Raw::new(packed).table(&[(BUFFERS, 8, 0)]);
        raw.put(0, (TABLE, 16, INDIRECT | NEXT, 1));
        assert_eq!(raw.read(), Err(RingFault::IndirectWithNext));
    }
    // A table at the end of a chain: split rings have that (virtio 1.2, 2.7.5.3.2), packed ones do not (2.8.19).
    let chain = [(BUFFERS, 8, 0), (TABLE, 16, INDIRECT)];
    let mut raw = Raw::new(false).table(&[(BUFFERS, 8, 0)]).chain(&chain);
    assert_eq!(raw.read(), Ok((16, 2)));
    let mut raw = Raw::new(true).table(&[(BUFFERS, 8, 0)]).chain(&chain);
    assert_eq!(raw.read(), Err(RingFault::IndirectWithNext));
}

#[test]
fn indirect_tables_that_were_not_negotiated_are_rejected() {
    for packed in [false, true] {
        let features = RingFeatures {
            packed,
            ..RingFeatures::default()
        };
        let pair = Pair::start(SIZE, features);
        let mut raw = Raw { pair, packed }.table(&[(BUFFERS, 8, 0)]);
        assert_eq!(raw.read(), Err(RingFault::IndirectNotNegotiated));
    }
}

#[test]
fn indirect_tables_that_span_regions_are_copied_whole() {
    for packed in [false, true] {
        for before in [1, 8, 16, 24, 47] {
            let entries = [(BUFFERS, 8, 0), (BUFFERS + 8, 100, 0), (BUFFERS, 1, 0)];
            let mut raw = Raw::new(packed).table_at(BUFFERS - before, &entries);
            assert_eq!(raw.read(), Ok((109, 3)));
        }
        // And not a byte further than memory is.
        let mut raw = Raw::new(packed).chain(&[(END - 24, 32, INDIRECT)]);
        let fault = RingFault::Unmapped {
            address: END,
            len: 8,
        };
        assert_eq!(raw.read(), Err(fault));
    }
}

#[test]
fn the_whole_length_is_inside_regions_rechecked_per_chunk_cve_2018_1059() {
    for packed in [false, true] {
        // In one region, over the border of two, up to the last byte.
        for (address, len, pieces) in [
            (BUFFERS - 8, 8, 1),
            (BUFFERS - 8, 9, 2),
            (0, END as u32, 2),
            (END - 1, 1, 1),
        ] {
            let mut raw = Raw::new(packed).chain(&[(address, len, 0)]);
            assert_eq!(raw.read(), Ok((len, pieces)));
        }
        // The first chunk is there and what follows is not.
        for (address, len, at) in [
            (END - 8, 9, END),
            (0, END as u32 + 1, END),
            (BUFFERS - 1, u32::MAX, END),
            (END, 1, END),
        ] {
            let mut raw = Raw::new(packed).chain(&[(address, len, 0)]);
            let left = len - (at - address) as u32;
            let fault = RingFault::Unmapped {
                address: at,
                len: left,
            };
            assert_eq!(raw.read(), Err(fault));
        }
    }
}

#[test]
fn address_and_length_are_added_without_wrapping() {
    for packed in [false, true] {
        for (address, len) in [(u64::MAX, 2), (u64::MAX - 7, 8), (u64::MAX - 7, u32::MAX)] {
            for flags in [0, INDIRECT] {
                let len = if flags == 0 { len } else { 32 };
                let mut raw = Raw::new(packed).chain(&[(address, len, flags)]);
                assert_eq!(raw.read(), Err(RingFault::Unmapped { address, len }));
            }
        }
    }
}

#[test]
fn zero_length_descriptors_are_allowed_but_counted() {
    let max = MAX_SEGMENTS;
    for packed in [false, true] {
        // Wherever they point.
        let mut raw = Raw::new(packed).chain(&[(u64::MAX, 0, 0), (BUFFERS, 8, 0), (1 << 40, 0, 0)]);
        assert_eq!(raw.read(), Ok((8, 1)));
        let mut raw = Raw::new(packed).table(&vec![(0, 0, 0); max]);
        assert_eq!(raw.read(), Ok((0, 0)));
        // Alone, in memory: no piece either.
        let mut raw = Raw::new(packed).chain(&[(BUFFERS, 0, 0)]);
        assert_eq!(raw.read(), Ok((0, 0)));
    }
    // One more than there may be: a table and a descriptor before it.
    let mut raw = Raw::new(false).table(&vec![(0, 0, 0); max]);
    raw = raw.chain(&[(0, 0, 0), (TABLE, max as u32 * 16, INDIRECT)]);
    assert_eq!(raw.read(), Err(RingFault::TooManySegments { max }));
}
