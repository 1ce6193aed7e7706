//! Descriptors of a packed ring as they lie in memory.

use ringway_ring::{ReadBatch, RingFault, RingFeatures};

use super::{BUFFERS, FORMATS, Pair, peek, poke, poke_u16};

pub const PLAIN: RingFeatures = FORMATS[1];
pub const IN_ORDER: RingFeatures = RingFeatures {
    in_order: true,
    ..PLAIN
};
pub const INDIRECT: RingFeatures = RingFeatures {
    indirect: true,
    ..PLAIN
};

pub const NEXT: u16 = 1;
pub const WRITE: u16 = 2;
pub const TABLE: u16 = 4;
pub const AVAIL: u16 = 1 << 7;
pub const USED: u16 = 1 << 15;

/// A descriptor as it lies in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Descriptor {
    pub address: u64,
    pub len: u32,
    pub id: u16,
    pub flags: u16,
}

pub fn at(pair: &Pair, index: u16) -> u64 {
    pair.driver.layout().descriptors + u64::from(index) * 16
}

pub fn read(pair: &Pair, index: u16) -> Descriptor {
    let bytes = peek(&pair.memory, at(pair, index), 16);
    Descriptor {
        address: u64::from_le_bytes(bytes[..8].try_into().unwrap()),
        len: u32::from_le_bytes(bytes[8..12].try_into().unwrap()),
        id: u16::from_le_bytes(bytes[12..14].try_into().unwrap()),
        flags: u16::from_le_bytes(bytes[14..].try_into().unwrap()),
    }
}

pub fn write(pair: &Pair, index: u16, descriptor: Descriptor) {
    let at = at(pair, index);
    poke(&pair.memory, at, &descriptor.address.to_le_bytes());
    poke(&pair.memory, at + 8, &descriptor.len.to_le_bytes());
    poke_u16(&pair.memory, at + 12, descriptor.id);
    poke_u16(&pair.memory, at + 14, descriptor.flags);
}

/// A chain of one readable descriptor, as a driver of its own kind makes it available in the first lap.
pub fn plain(id: u16) -> Descriptor {
    Descriptor {
        address: BUFFERS,
        len: 8,
        id,
        flags: AVAIL,
    }
}

pub fn ring_bytes(pair: &Pair) -> Vec<u8> {
    let layout = pair.driver.layout();
    peek(&pair.memory, layout.descriptors, (layout.used + 4) as usize)
}

pub fn take(pair: &mut Pair, max: usize) -> Result<Vec<(u16, u16)>, RingFault> {
    let mut batch = ReadBatch::new();
    pair.device.take_readable(&pair.memory, &mut batch, max)?;
    let facts = batch.chains.iter().map(|chain| (chain.id, chain.slots));
    Ok(facts.collect())
}
