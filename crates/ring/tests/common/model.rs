//! What the specification makes of a chain, rule by rule, over plain bytes. Tests and fuzz targets hold the ring against it.
//!
//! It is slow and has no state: it reads an image of the guest's memory and follows one chain.

#![allow(dead_code, unreachable_pub, clippy::cast_possible_truncation)]

use ringway_ring::{MAX_SEGMENTS, RingFault};

pub const NEXT: u16 = 1;
pub const WRITE: u16 = 2;
pub const INDIRECT: u16 = 4;
pub const AVAIL: u16 = 1 << 7;
pub const USED: u16 = 1 << 15;

/// A descriptor.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    pub address: u64,
    pub len: u32,
    pub flags: u16,
    /// Next (split) or buffer id (packed).
    pub tag: u16,
}

impl Entry {
    pub fn bytes(self, packed: bool) -> [u8; 16] {
        let (third, fourth) = if packed {
            (self.tag, self.flags)
        } else {
            (self.flags, self.tag)
        };
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.address.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.len.to_le_bytes());
        bytes[12..14].copy_from_slice(&third.to_le_bytes());
        bytes[14..].copy_from_slice(&fourth.to_le_bytes());
        bytes
    }

    fn from_bytes(bytes: &[u8], packed: bool) -> Self {
        let word = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        let (flags, tag) = if packed {
            (word(14), word(12))
        } else {
            (word(12), word(14))
        };
        Self {
            address: u64::from_le_bytes(bytes[..8].try_into().unwrap()),
            len: u32::from_le_bytes(bytes[8..12].try_into().unwrap()),
            flags,
            tag,
        }
    }
}

/// The guest's memory: first address and bytes of each region, by rising address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image(pub Vec<(u64, Vec<u8>)>);

/// The bytes of a chain by guest address and length, one entry for each region a buffer touches.
pub type Pieces = Vec<(u64, u32)>;

impl Image {
    /// From `address` to the end of its region.
    pub fn rest(&self, address: u64) -> Option<&[u8]> {
        self.0.iter().find_map(|(start, bytes)| {
            let offset = address.checked_sub(*start)?;
            let rest = bytes.get(offset as usize..)?;
            (!rest.is_empty()).then_some(rest)
        })
    }

    pub fn u16(&self, address: u64) -> u16 {
        let rest = self.rest(address).unwrap();
        u16::from_le_bytes([rest[0], rest[1]])
    }

    pub fn bytes(&self, pieces: &Pieces) -> Vec<u8> {
        let piece = |&(address, len): &(u64, u32)| &self.rest(address).unwrap()[..len as usize];
        pieces.iter().flat_map(piece).copied().collect()
    }

    /// Overwrites bytes, over regions if need be.
    pub fn write(&mut self, address: u64, bytes: &[u8]) {
        for (address, &byte) in (address..).zip(bytes) {
            let region = |&&mut (start, ref bytes): &&mut (u64, Vec<u8>)| {
                address >= start && address - start < bytes.len() as u64
            };
            let (start, bytes) = self.0.iter_mut().find(region).unwrap();
            bytes[(address - *start) as usize] = byte;
        }
    }

    /// The pieces of a run of bytes, and what is missing if not all of it is there.
    fn pieces(&self, mut address: u64, mut len: u32) -> (Pieces, Option<RingFault>) {
        let mut pieces = Vec::new();
        while len > 0 {
            let Some(rest) = self.rest(address) else {
                return (pieces, Some(RingFault::Unmapped { address, len }));
            };
            let here = u64::from(len).min(rest.len() as u64) as u32;
            pieces.push((address, here));
            address += u64::from(here);
            len -= here;
        }
        (pieces, None)
    }
}

/// A ring and what was negotiated for it. Its parts lie in one region.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    pub packed: bool,
    pub indirect: bool,
    /// The direction of the queue.
    pub writable: bool,
    pub size: u16,
    pub descriptors: u64,
    /// The available ring (split).
    pub available: u64,
}

/// A chain that breaks no rule.
#[derive(Clone, Debug)]
pub struct Expected {
    pub id: u16,
    /// Places in the ring.
    pub slots: u16,
    pub pieces: Pieces,
}

impl Expected {
    pub fn len(&self) -> u32 {
        self.pieces.iter().map(|&(_, len)| len).sum()
    }
}

/// Why there is no chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// It does not fit beside the others of its batch.
    Full,
    Fault(RingFault),
}

impl From<RingFault> for Stop {
    fn from(fault: RingFault) -> Self {
        Self::Fault(fault)
    }
}

impl Rules {
    /// The head that the available ring has for an index (split).
    pub fn head(&self, image: &Image, index: u16) -> u16 {
        image.u16(self.available + 4 + u64::from(index % self.size) * 2)
    }

    /// Whether a descriptor is available in the lap of `wrap` (packed).
    pub fn is_available(&self, image: &Image, index: u16, wrap: bool) -> bool {
        let flags = self.entry(image, index).flags;
        (flags & AVAIL != 0) == wrap && (flags & USED != 0) != wrap
    }

    fn entry(&self, image: &Image, index: u16) -> Entry {
        let rest = image.rest(self.descriptors + u64::from(index) * 16);
        Entry::from_bytes(&rest.unwrap()[..16], self.packed)
    }

    /// The chain that begins with descriptor `head` and has at most `bound` of them in the ring, in a batch of which other chains
    /// have `taken` pieces.
    pub fn chain(
        &self,
        image: &Image,
        head: u16,
        bound: u16,
        taken: usize,
    ) -> Result<Expected, Stop> {
        let mut walk = Walk {
            rules: self,
            image,
            taken,
            pieces: Vec::new(),
            total: 0,
            empty: 0,
            seen_writable: false,
        };
        let (id, descriptors) = walk.ring(head, bound)?;
        Ok(Expected {
            id,
            slots: if self.packed { descriptors } else { 1 },
            pieces: walk.pieces,
        })
    }
}

struct Walk<'w> {
    rules: &'w Rules,
    image: &'w Image,
    taken: usize,
    pieces: Pieces,
    total: u64,
    empty: usize,
    seen_writable: bool,
}

impl Walk<'_> {
    /// Id and count of descriptors.
    fn ring(&mut self, head: u16, bound: u16) -> Result<(u16, u16), Stop> {
        let Rules { packed, size, .. } = *self.rules;
        if head >= size {
            return Err(RingFault::HeadOutOfRange { head, size }.into());
        }
        let (mut at, mut steps) = (head, 0);
        loop {
            let entry = self.rules.entry(self.image, at);
            let id = if packed { entry.tag } else { head };
            steps += 1;
            if entry.flags & INDIRECT != 0 {
                if packed && steps > 1 {
                    // There, a table is a chain of its own.
                    return Err(RingFault::IndirectWithNext.into());
                }
                self.table(entry)?;
                return Ok((id, steps));
            }
            self.buffer(entry)?;
            if entry.flags & NEXT == 0 {
                return Ok((id, steps));
            }
            at = if packed { (at + 1) % size } else { entry.tag };
            if at >= size {
                return Err(RingFault::NextOutOfRange { next: at, size }.into());
            }
            if steps == bound {
                return Err(RingFault::ChainTooLong { size }.into());
            }
        }
    }

    fn table(&mut self, entry: Entry) -> Result<(), Stop> {
        let table = self.table_entries(entry)?;
        let size = table.len() as u16;
        let (mut at, mut steps) = (0, 0);
        loop {
            let mut entry = table[usize::from(at)];
            if entry.flags & INDIRECT != 0 {
                return Err(RingFault::NestedIndirect.into());
            }
            if self.rules.packed && !self.rules.writable {
                // A lie of DPDK's driver that is borne.
                entry.flags &= !WRITE;
            }
            self.buffer(entry)?;
            steps += 1;
            if self.rules.packed {
                at += 1;
                if at == size {
                    return Ok(());
                }
                continue;
            }
            if entry.flags & NEXT == 0 {
                return Ok(());
            }
            at = entry.tag;
            if at >= size {
                return Err(RingFault::NextOutOfRange { next: at, size }.into());
            }
            if steps == size {
                return Err(RingFault::ChainTooLong { size }.into());
            }
        }
    }

    fn table_entries(&self, entry: Entry) -> Result<Vec<Entry>, RingFault> {
        if !self.rules.indirect {
            return Err(RingFault::IndirectNotNegotiated);
        }
        if entry.flags & NEXT != 0 {
            return Err(RingFault::IndirectWithNext);
        }
        let len = entry.len;
        if len == 0 || !len.is_multiple_of(16) || len as usize > MAX_SEGMENTS * 16 {
            let max = MAX_SEGMENTS;
            return Err(RingFault::IndirectLength { len, max });
        }
        let (pieces, missing) = self.image.pieces(entry.address, len);
        let entries = |bytes: Vec<u8>| {
            let entries = bytes.chunks(16);
            entries
                .map(|bytes| Entry::from_bytes(bytes, self.rules.packed))
                .collect()
        };
        missing.map_or_else(|| Ok(entries(self.image.bytes(&pieces))), Err)
    }

    fn buffer(&mut self, entry: Entry) -> Result<(), Stop> {
        let writable = entry.flags & WRITE != 0;
        if writable != self.rules.writable {
            return Err(if !writable && self.seen_writable {
                RingFault::ReadableAfterWritable.into()
            } else {
                RingFault::WrongDirection { writable }.into()
            });
        }
        self.seen_writable |= writable;
        self.total += u64::from(entry.len);
        if self.total >= 1 << 32 {
            return Err(RingFault::TotalTooLong { total: self.total }.into());
        }
        let max = MAX_SEGMENTS;
        self.empty += usize::from(entry.len == 0);
        if self.empty > max {
            return Err(RingFault::TooManySegments { max }.into());
        }
        let (pieces, missing) = self.image.pieces(entry.address, entry.len);
        self.pieces.extend(pieces);
        if self.taken + self.pieces.len() > max {
            return Err(if self.taken > 0 {
                Stop::Full
            } else {
                RingFault::TooManySegments { max }.into()
            });
        }
        missing.map_or(Ok(()), |fault| Err(fault.into()))
    }
}
