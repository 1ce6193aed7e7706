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
    /// All zero.
    pub(crate) const NONE: Self = Self {
        address: 0,
        len: 0,
        flags: 0,
        tag: 0,
    };

    /// The same with other flags.
    #[inline(always)]
    pub(crate) const fn with_flags(self, flags: u16) -> Self {
        Self { flags, ..self }
    }

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

    /// Address, then from low bits to high: length, buffer id, flags (virtio 1.2, 2.8.13).
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "picks fields of a word")]
    pub(crate) const fn from_packed([address, rest]: [u64; 2]) -> Self {
        Self {
            address,
            len: rest as u32,
            flags: (rest >> 48) as u16,
            tag: (rest >> 32) as u16,
        }
    }

    /// The inverse of [`from_packed`](Self::from_packed).
    #[inline(always)]
    pub(crate) const fn to_packed(self) -> [u64; 2] {
        let rest = self.len as u64 | (self.tag as u64) << 32 | (self.flags as u64) << 48;
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

#[cfg(test)]
mod tests {
    use super::*;

    /// `event` is among the indices `old`, `old` + 1, … up to before `new`.
    fn passed(event: u16, new: u16, old: u16) -> bool {
        u32::from(event.wrapping_sub(old)) < u32::from(new.wrapping_sub(old))
    }

    #[test]
    fn need_event_for_every_event_virtio_2_7_10_1() {
        let distances = (0..=64).chain([255, 256, 1024, 0x7fff, 0x8000, 0x8001, 0xffff]);
        for distance in distances {
            for old in [0_u16, 1, 63, 0x7fff, 0x8000, 0xffc0, 0xfffe, 0xffff] {
                let new = old.wrapping_add(distance);
                for event in 0..=u16::MAX {
                    assert_eq!(need_event(event, new, old), passed(event, new, old));
                }
            }
        }
    }

    #[test]
    fn need_event_depends_on_differences_alone() {
        for event in 0..=u16::MAX {
            for (new, old) in [(1, 0), (0, 0xffff), (700, 3), (3, 700)] {
                let shifted = |by: u16| {
                    let add = |index: u16| index.wrapping_add(by);
                    need_event(add(event), add(new), add(old))
                };
                assert!(
                    [1, 0x7fff, 0x8000, 0xffff].map(shifted) == [need_event(event, new, old); 4]
                );
            }
        }
    }

    #[test]
    fn descriptor_fields_lie_where_the_specification_says_virtio_2_7_5_and_2_8_13() {
        let bytes: Vec<u8> = (1..=16).collect();
        let words = Descriptor::words(bytes.as_slice().try_into().unwrap());
        let split = Descriptor {
            address: 0x0807_0605_0403_0201,
            len: 0x0c0b_0a09,
            flags: 0x0e0d,
            tag: 0x100f,
        };
        assert_eq!(Descriptor::from_split(words), split);
        assert_eq!(split.to_split(), words);
        let packed = Descriptor {
            flags: 0x100f,
            tag: 0x0e0d,
            ..split
        };
        assert_eq!(Descriptor::from_packed(words), packed);
        assert_eq!(packed.to_packed(), words);
    }
}
