//! VLAN tags (IEEE 802.1Q, 802.1ad), read and changed in a private copy of a frame's first bytes.
//!
//! Adding or removing a tag moves everything behind it: a checksum start kept in the frame's
//! virtio-net header has to move along, see [`VnetHeader::move_headers`](crate::VnetHeader::move_headers).

use crate::EtherType;
use crate::bytes::{set_u16, u16_at};
use crate::eth::{HEADER_LEN, TYPE_OFFSET};

/// Bytes a tag adds to a frame.
pub const TAG_LEN: usize = 4;

/// A VLAN's number, 1 to 4094.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VlanId(u16);

impl VlanId {
    /// Refuses 0 (priority tag, no VLAN) and 4095 (reserved) and what has more than 12 bits.
    pub fn new(number: u16) -> Option<Self> {
        (1..=4094).contains(&number).then_some(Self(number))
    }

    /// The number.
    #[inline]
    pub fn get(self) -> u16 {
        self.0
    }
}

impl std::fmt::Display for VlanId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// A tag as it stands in the frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tag {
    /// [`EtherType::VLAN`] or [`EtherType::QINQ`].
    pub tpid: EtherType,
    /// Priority (3 bits), drop eligible (1 bit), VLAN (12 bits).
    pub tci: u16,
}

impl Tag {
    /// A customer tag of priority 0.
    pub fn new(vlan: VlanId) -> Self {
        Self {
            tpid: EtherType::VLAN,
            tci: vlan.0,
        }
    }

    /// The VLAN field as it is, 0 and 4095 included.
    #[inline]
    pub fn vid(self) -> u16 {
        self.tci & 0xfff
    }

    /// The VLAN; none for a priority tag (0) and the reserved 4095.
    #[inline]
    pub fn vlan(self) -> Option<VlanId> {
        VlanId::new(self.vid())
    }

    /// Priority code point, 0 to 7.
    #[inline]
    pub fn priority(self) -> u8 {
        (self.tci.to_be_bytes()[0]) >> 5
    }

    /// The same tag for another VLAN; priority stays.
    #[inline]
    pub fn with_vlan(self, vlan: VlanId) -> Self {
        Self {
            tpid: self.tpid,
            tci: self.tci & 0xf000 | vlan.0,
        }
    }
}

/// Why a tag could not be added or removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TagFault {
    /// The bytes end before a header or tag does.
    #[error("{len} bytes hold no header with a tag")]
    Short {
        /// Bytes there were.
        len: usize,
    },
    /// The buffer is full.
    #[error("a buffer of {room} bytes has no room for {needed}")]
    NoRoom {
        /// Size of the buffer.
        room: usize,
        /// Bytes that had to fit.
        needed: usize,
    },
    /// There is no tag to remove or change.
    #[error("the frame carries no VLAN tag")]
    Untagged,
}

/// The outermost tag. None if there is none, or if the bytes end before it does.
#[inline]
pub fn read(frame: &[u8]) -> Option<Tag> {
    let header: &[u8; HEADER_LEN + 2] = frame.first_chunk()?;
    let tpid = EtherType(u16_at(header, TYPE_OFFSET));
    tpid.is_vlan().then(|| Tag {
        tpid,
        tci: u16_at(header, TYPE_OFFSET + 2),
    })
}

/// Inserts a tag as the outermost one into the first `len` bytes of `buffer`; returns the new length.
pub fn insert(buffer: &mut [u8], len: usize, tag: Tag) -> Result<usize, TagFault> {
    if len < HEADER_LEN {
        return Err(TagFault::Short { len });
    }
    let room = buffer.len();
    // `len` beyond the buffer fails here too.
    let needed = len.saturating_add(TAG_LEN);
    if needed > room {
        return Err(TagFault::NoRoom { room, needed });
    }
    buffer.copy_within(TYPE_OFFSET..len, TYPE_OFFSET + TAG_LEN);
    write(buffer, tag);
    Ok(needed)
}

/// Removes the outermost tag from the first `len` bytes of `buffer`; returns the tag and the new length.
pub fn remove(buffer: &mut [u8], len: usize) -> Result<(Tag, usize), TagFault> {
    let tag = outermost(buffer, len)?;
    buffer.copy_within(TYPE_OFFSET + TAG_LEN..len, TYPE_OFFSET);
    Ok((tag, len - TAG_LEN))
}

/// Overwrites the outermost tag; returns the one that was there.
pub fn replace(buffer: &mut [u8], len: usize, tag: Tag) -> Result<Tag, TagFault> {
    let old = outermost(buffer, len)?;
    write(buffer, tag);
    Ok(old)
}

/// The outermost tag, provided that a whole header is left behind it.
fn outermost(buffer: &[u8], len: usize) -> Result<Tag, TagFault> {
    let frame = buffer.get(..len).ok_or(TagFault::NoRoom {
        room: buffer.len(),
        needed: len,
    })?;
    if len < HEADER_LEN {
        return Err(TagFault::Short { len });
    }
    if !EtherType(u16_at(frame, TYPE_OFFSET)).is_vlan() {
        return Err(TagFault::Untagged);
    }
    match read(frame) {
        Some(tag) if len >= HEADER_LEN + TAG_LEN => Ok(tag),
        _ => Err(TagFault::Short { len }),
    }
}

fn write(buffer: &mut [u8], tag: Tag) {
    set_u16(buffer, TYPE_OFFSET, tag.tpid.0);
    set_u16(buffer, TYPE_OFFSET + 2, tag.tci);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame() -> [u8; 24] {
        let mut bytes = [0; 24];
        for (i, byte) in (0u8..).zip(&mut bytes) {
            *byte = i;
        }
        set_u16(&mut bytes, TYPE_OFFSET, EtherType::IPV4.0);
        bytes
    }

    #[test]
    fn insert_then_remove_gives_the_frame_back() {
        let mut bytes = frame();
        let tag = Tag::new(VlanId::new(100).unwrap());
        assert_eq!(read(&bytes[..20]), None);
        assert_eq!(insert(&mut bytes, 20, tag), Ok(24));
        assert_eq!(read(&bytes), Some(tag));
        assert_eq!(u16_at(&bytes, 16), EtherType::IPV4.0);
        assert_eq!(bytes[..12], frame()[..12]);
        assert_eq!(bytes[18..], frame()[14..20]);
        assert_eq!(remove(&mut bytes, 24), Ok((tag, 20)));
        assert_eq!(bytes[..20], frame()[..20]);
    }

    #[test]
    fn outer_service_tag_goes_on_top() {
        let mut bytes = [0; 32];
        bytes[..24].copy_from_slice(&frame());
        let inner = Tag::new(VlanId::new(7).unwrap());
        let outer = Tag {
            tpid: EtherType::QINQ,
            tci: 0xe009,
        };
        let len = insert(&mut bytes, 24, inner).unwrap();
        let len = insert(&mut bytes, len, outer).unwrap();
        assert_eq!((len, read(&bytes)), (32, Some(outer)));
        assert_eq!((outer.vid(), outer.priority()), (9, 7));
        let changed = outer.with_vlan(VlanId::new(0xabc).unwrap());
        assert_eq!(changed.tci, 0xeabc);
        assert_eq!(replace(&mut bytes, len, changed), Ok(outer));
        assert_eq!(remove(&mut bytes, len), Ok((changed, 28)));
        assert_eq!(read(&bytes), Some(inner));
    }

    #[test]
    fn faults() {
        let tag = Tag::new(VlanId::new(1).unwrap());
        let mut bytes = frame();
        let no_room = TagFault::NoRoom {
            room: 24,
            needed: 25,
        };
        assert_eq!(insert(&mut bytes, 21, tag), Err(no_room));
        assert!(insert(&mut bytes, usize::MAX, tag).is_err());
        assert_eq!(
            insert(&mut bytes, 13, tag),
            Err(TagFault::Short { len: 13 })
        );
        assert_eq!(remove(&mut bytes, 20), Err(TagFault::Untagged));
        set_u16(&mut bytes, TYPE_OFFSET, EtherType::VLAN.0);
        for len in 0..HEADER_LEN + TAG_LEN {
            assert_eq!(remove(&mut bytes, len), Err(TagFault::Short { len }));
        }
        assert!(remove(&mut bytes, 25).is_err());
    }

    #[test]
    fn vlan_numbers() {
        assert_eq!(VlanId::new(0), None);
        assert_eq!(VlanId::new(4095), None);
        assert_eq!(VlanId::new(4094).map(VlanId::get), Some(4094));
        let priority_only = Tag {
            tpid: EtherType::VLAN,
            tci: 0xa000,
        };
        assert_eq!((priority_only.vlan(), priority_only.priority()), (None, 5));
    }
}
