//! An input as a script: what the driver has laid down, then what both sides do.

use ringway_ring::RingFeatures;

use crate::model::{AVAIL, Entry, INDIRECT, Image, NEXT, Rules, USED, WRITE};
use crate::twin::Twin;

/// Two regions side by side, and one apart that ends inside a page.
pub(crate) const REGIONS: [(u64, usize); 3] = [(0, 0x2000), (0x2000, 0x1000), (0x1_0000, 0x300)];
pub(crate) const DESCRIPTORS: u64 = 0;
pub(crate) const AVAILABLE: u64 = 0x400;
pub(crate) const USED_RING: u64 = 0x500;
/// Half of the tables is in the first region, half in the second.
const TABLES: u64 = 0x2000 - 8 * 16;
const TABLE_ENTRIES: u64 = 16;
/// Where ring parts end; buffers are above, most of the time.
const RING_END: usize = 0x800;
/// The largest ring as a power of two.
const ORDER: u8 = 6;

pub(crate) struct Script<'i>(&'i [u8]);

impl<'i> Script<'i> {
    pub(crate) fn new(input: &'i [u8]) -> Self {
        Self(input)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The next byte; 0 after the end.
    pub(crate) fn byte(&mut self) -> u8 {
        self.bytes::<1>()[0]
    }

    fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        let count = N.min(self.0.len());
        bytes[..count].copy_from_slice(&self.0[..count]);
        self.0 = &self.0[count..];
        bytes
    }

    fn word(&mut self) -> u16 {
        u16::from_le_bytes(self.bytes())
    }

    /// The ring with its features, and the memory as the device finds it.
    pub(crate) fn setup(&mut self) -> (Twin, Image) {
        let [shape, size, filled, tabled] = self.bytes();
        let start = self.word();
        let bit = |bit: u8| shape & 1 << bit != 0;
        let packed = bit(0);
        let size = if packed {
            u16::from(size % (1 << ORDER)) + 1
        } else {
            1 << (size % (ORDER + 1))
        };
        let rules = Rules {
            packed,
            indirect: bit(1),
            writable: bit(2),
            size,
            descriptors: DESCRIPTORS,
            available: AVAILABLE,
        };
        let features = RingFeatures {
            packed,
            indirect: bit(1),
            event_idx: bit(3),
            in_order: bit(4),
        };
        let start = if packed { start % (2 * size) } else { start };
        let pattern = |(start, len): (u64, usize)| {
            let byte = |i: usize| ((start as usize + i).wrapping_mul(0x9e37_79b1) >> 13) as u8;
            (start, (0..len).map(byte).collect::<Vec<u8>>())
        };
        let mut image = Image(REGIONS.map(pattern).to_vec());
        image.0[0].1[..RING_END].fill(0);
        for at in (0..TABLE_ENTRIES).take(tabled.into()) {
            let mut entry = self.entry(rules);
            // A table in a table is rare.
            if entry.tag & 7 != 0 {
                entry.flags &= !INDIRECT;
            }
            image.write(TABLES + at * 16, &entry.bytes(packed));
        }
        let filled = u16::from(filled) % (size + 1);
        let twin = Twin::new(rules, features, start, image.clone());
        for i in 0..filled {
            let at = (start % size + i) % size;
            let mut entry = self.entry(rules);
            if packed {
                // The second lap is that in which the wrap counter is not set.
                let place = (start + i) % (2 * size);
                entry.flags |= if place < size { AVAIL } else { USED };
            } else {
                let head = u16::from(self.byte());
                let head = if head & 0x80 == 0 { head % size } else { head };
                image.write(AVAILABLE + 4 + u64::from(at) * 2, &head.to_le_bytes());
            }
            image.write(DESCRIPTORS + u64::from(at) * 16, &entry.bytes(packed));
        }
        if !packed {
            let index = start.wrapping_add(filled);
            image.write(AVAILABLE + 2, &index.to_le_bytes());
            image.write(USED_RING + 2, &start.to_le_bytes());
        }
        (twin, image)
    }

    /// A descriptor. Zeroes make it right in most ways; `AVAIL` and `USED` are for the caller.
    pub(crate) fn entry(&mut self, rules: Rules) -> Entry {
        let [kind, flags] = self.bytes();
        let address = match kind & 7 {
            0..=3 => RING_END as u64 + u64::from(kind & 3) * 0x800 + u64::from(self.byte()) * 8,
            4 => 0x1_0000 + u64::from(self.byte()) * 4,
            5 => TABLES + u64::from(self.byte()) % TABLE_ENTRIES * 16,
            6 => u64::MAX - u64::from(self.byte()),
            _ => u64::from_le_bytes(self.bytes()),
        };
        let len = match kind >> 3 & 3 {
            0 => u32::from(self.byte()),
            1 => u32::from(self.byte() % 18) * 16,
            2 => u32::from(self.word()),
            _ => u32::from_le_bytes(self.bytes()),
        };
        let tag = match kind >> 5 {
            0..=5 => u16::from(self.byte()) % rules.size,
            _ => self.word(),
        };
        let right = if rules.writable { WRITE } else { 0 };
        let mut flags = u16::from(flags & 0x7f) & (NEXT | WRITE | INDIRECT | 0x78) ^ right;
        if flags & INDIRECT != 0 {
            flags &= !NEXT | u16::from(kind >> 7);
        }
        Entry {
            address,
            len,
            flags,
            tag,
        }
    }

    /// Any bytes anywhere, most often where the ring is.
    pub(crate) fn poke(&mut self, size: u16) -> (u64, Vec<u8>) {
        let [kind, at] = self.bytes();
        let last = u64::from(size) * 16;
        let address = match kind & 7 {
            0 | 1 => AVAILABLE + u64::from(at % 0x90),
            2 => USED_RING + u64::from(at % 8),
            3 => USED_RING + 4 + 8 * u64::from(size),
            4 => AVAILABLE + 4 + 2 * u64::from(size),
            5 => TABLES + u64::from(at),
            _ => DESCRIPTORS + u64::from(at) * 4 % last,
        };
        let bytes = self.bytes::<4>();
        (address, bytes[..1 + usize::from(kind >> 6)].to_vec())
    }
}
