//! Descriptors of both formats as two words, and the flags they carry.

/// The chain goes on (VIRTQ_DESC_F_NEXT).
pub(crate) const NEXT: u16 = 1 << 0;
/// The device writes here (VIRTQ_DESC_F_WRITE).
pub(crate) const WRITE: u16 = 1 << 1;
/// The bytes are a table of descriptors (VIRTQ_DESC_F_INDIRECT).
pub(crate) const INDIRECT: u16 = 1 << 2;
/// Flags that make a chain more than one descriptor with bytes to read.
pub(crate) const SHAPE: u16 = NEXT | WRITE | INDIRECT;

/// Bytes of a descriptor in memory.
pub(crate) const BYTES: usize = 16;

/// A descriptor, decoded from its two little-endian words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Descriptor {
    pub(crate) address: u64,
    pub(crate) len: u32,
    pub(crate) flags: u16,
    /// Split: the next descriptor. Packed: the buffer id.
    pub(crate) tag: u16,
}

impl Descriptor {
    /// Address, then from low bits to high: length, flags, next (virtio 1.2, 2.7.5).
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "picks fields of a word")]
    pub(crate) const fn from_split([address, rest]: [u64; 2]) -> Self {
        Self {
            address,
            len: rest as u32,
            flags: (rest >> 32) as u16,
            tag: (rest >> 48) as u16,
        }
    }

    /// The inverse of [`from_split`](Self::from_split).
    #[inline(always)]
    pub(crate) const fn to_split(self) -> [u64; 2] {
        let rest = self.len as u64 | (self.flags as u64) << 32 | (self.tag as u64) << 48;
        [self.address, rest]
    }

    /// Reads from 16 bytes of a copied table.
    pub(crate) fn words(bytes: &[u8; BYTES]) -> [u64; 2] {
        let (words, _) = bytes.as_chunks::<8>();
        [words[0], words[1]].map(u64::from_le_bytes)
    }
}

/// Whether the other side asked to be told at `event`, given that we moved from `old` to `new` (virtio 1.2, 2.7.10.1). All indices
/// are modulo 2^16.
#[inline(always)]
pub(crate) const fn need_event(event: u16, new: u16, old: u16) -> bool {
    new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old)
}
