//! Ethernet II: the first 14 bytes of every frame.

use std::fmt;

use crate::bytes::{array_at, set_u16, u16_at};
use crate::{MacAddress, Truncated};

/// Bytes of an untagged header.
pub const HEADER_LEN: usize = 14;
/// Shortest frame on a wire, without its check sequence.
pub const MIN_FRAME_LEN: usize = 60;
/// Offset of the type field, or of the outermost VLAN tag.
pub const TYPE_OFFSET: usize = 12;

/// The type field of a frame or VLAN tag. Values below 0x600 are lengths (IEEE 802.3).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EtherType(pub u16);

impl EtherType {
    /// IPv4
    pub const IPV4: Self = Self(0x0800);
    /// ARP
    pub const ARP: Self = Self(0x0806);
    /// Reverse ARP, sent to announce a migrated station
    pub const RARP: Self = Self(0x8035);
    /// IPv6
    pub const IPV6: Self = Self(0x86dd);
    /// Customer VLAN tag (IEEE 802.1Q)
    pub const VLAN: Self = Self(0x8100);
    /// Service VLAN tag (IEEE 802.1ad)
    pub const QINQ: Self = Self(0x88a8);
    /// Link layer discovery
    pub const LLDP: Self = Self(0x88cc);
    /// Slow protocols, LACP among them
    pub const SLOW: Self = Self(0x8809);

    /// A VLAN tag follows.
    #[inline]
    pub fn is_vlan(self) -> bool {
        self == Self::VLAN || self == Self::QINQ
    }
}

impl fmt::Debug for EtherType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for EtherType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::IPV4 => f.write_str("IPv4"),
            Self::ARP => f.write_str("ARP"),
            Self::RARP => f.write_str("RARP"),
            Self::IPV6 => f.write_str("IPv6"),
            Self::VLAN => f.write_str("802.1Q"),
            Self::QINQ => f.write_str("802.1ad"),
            Self::LLDP => f.write_str("LLDP"),
            Self(other) => write!(f, "0x{other:04x}"),
        }
    }
}

/// View of a frame, or of its first bytes.
#[derive(Clone, Copy, Debug)]
pub struct Frame<T>(T);

impl<T: AsRef<[u8]>> Frame<T> {
    /// Takes bytes that hold at least the 14-byte header.
    #[inline]
    pub fn new_checked(bytes: T) -> Result<Self, Truncated> {
        Truncated::check("Ethernet", HEADER_LEN, bytes.as_ref().len())?;
        Ok(Self(bytes))
    }

    /// Destination address.
    #[inline]
    pub fn destination(&self) -> MacAddress {
        MacAddress(array_at(self.0.as_ref(), 0))
    }

    /// Source address.
    #[inline]
    pub fn source(&self) -> MacAddress {
        MacAddress(array_at(self.0.as_ref(), 6))
    }

    /// The type field; of a tagged frame the outermost tag's.
    #[inline]
    pub fn ether_type(&self) -> EtherType {
        EtherType(u16_at(self.0.as_ref(), TYPE_OFFSET))
    }

    /// What follows the 14 bytes; of a tagged frame the tag's second half first.
    #[inline]
    pub fn payload(&self) -> &[u8] {
        &self.0.as_ref()[HEADER_LEN..]
    }

    /// The bytes it was made of.
    pub fn into_inner(self) -> T {
        self.0
    }
}

impl<T: AsRef<[u8]> + AsMut<[u8]>> Frame<T> {
    /// Writes the destination address.
    pub fn set_destination(&mut self, mac: MacAddress) {
        self.0.as_mut()[..6].copy_from_slice(&mac.0);
    }

    /// Writes the source address.
    pub fn set_source(&mut self, mac: MacAddress) {
        self.0.as_mut()[6..12].copy_from_slice(&mac.0);
    }

    /// Writes the type field.
    pub fn set_ether_type(&mut self, ether_type: EtherType) {
        set_u16(self.0.as_mut(), TYPE_OFFSET, ether_type.0);
    }

    /// What follows the 14 bytes.
    pub fn payload_mut(&mut self) -> &mut [u8] {
        &mut self.0.as_mut()[HEADER_LEN..]
    }
}

/// A whole header as bytes.
pub fn header(
    destination: MacAddress,
    source: MacAddress,
    ether_type: EtherType,
) -> [u8; HEADER_LEN] {
    let mut out = [0; HEADER_LEN];
    out[..6].copy_from_slice(&destination.0);
    out[6..12].copy_from_slice(&source.0);
    set_u16(&mut out, TYPE_OFFSET, ether_type.0);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_a_header() {
        let (to, from) = (MacAddress::BROADCAST, MacAddress([0x52, 0x54, 0, 1, 2, 3]));
        let bytes = header(to, from, EtherType::ARP);
        let frame = Frame::new_checked(&bytes).unwrap();
        assert_eq!(frame.destination(), to);
        assert_eq!(frame.source(), from);
        assert_eq!(frame.ether_type(), EtherType::ARP);
        assert!(frame.payload().is_empty());

        let mut copy = Frame::new_checked([0; HEADER_LEN]).unwrap();
        copy.set_destination(to);
        copy.set_source(from);
        copy.set_ether_type(EtherType::ARP);
        assert_eq!(copy.into_inner(), bytes);
    }

    #[test]
    fn short_frames_are_refused() {
        let fault = Frame::new_checked([0; 13]).unwrap_err();
        assert_eq!(
            fault.to_string(),
            "Ethernet header needs 14 bytes, 13 are there"
        );
    }
}
