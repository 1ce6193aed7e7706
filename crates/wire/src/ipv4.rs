//! IPv4 (RFC 791).

use std::net::Ipv4Addr;

use crate::Truncated;
use crate::bytes::{array_at, set_u16, u16_at};
use crate::checksum;

/// Bytes of a header without options.
pub const HEADER_LEN: usize = 20;
/// Bytes of the longest header.
pub const MAX_HEADER_LEN: usize = 60;

/// Flag in the fragment word: must not be fragmented.
pub const DONT_FRAGMENT: u16 = 0x4000;
/// Flag in the fragment word: more fragments follow.
pub const MORE_FRAGMENTS: u16 = 0x2000;
/// The fragment's offset in the fragment word, in units of 8 bytes.
pub const FRAGMENT_OFFSET: u16 = 0x1fff;

/// Numbers of the protocols above, the same in IPv4 and IPv6 (IANA).
pub mod protocol {
    /// ICMP for IPv4
    pub const ICMP: u8 = 1;
    /// IGMP
    pub const IGMP: u8 = 2;
    /// TCP
    pub const TCP: u8 = 6;
    /// UDP
    pub const UDP: u8 = 17;
    /// ICMP for IPv6
    pub const ICMPV6: u8 = 58;
}

/// View of a packet, or of its first bytes.
#[derive(Clone, Copy, Debug)]
pub struct Packet<T>(T);

impl<T: AsRef<[u8]>> Packet<T> {
    /// Takes bytes that hold at least the header with all its options.
    pub fn new_checked(bytes: T) -> Result<Self, Fault> {
        let have = bytes.as_ref();
        Truncated::check("IPv4", HEADER_LEN, have.len())?;
        let (version, header_len) = (have[0] >> 4, usize::from(have[0] & 15) * 4);
        if version != 4 {
            return Err(Fault::Version { version });
        }
        if header_len < HEADER_LEN {
            return Err(Fault::HeaderLen { header_len });
        }
        Truncated::check("IPv4", header_len, have.len())?;
        Ok(Self(bytes))
    }

    fn bytes(&self) -> &[u8] {
        self.0.as_ref()
    }

    /// Bytes of the header with its options.
    pub fn header_len(&self) -> usize {
        usize::from(self.bytes()[0] & 15) * 4
    }

    /// Differentiated services and ECN.
    pub fn traffic_class(&self) -> u8 {
        self.bytes()[1]
    }

    /// Bytes of header and payload, as the header says.
    pub fn total_len(&self) -> u16 {
        u16_at(self.bytes(), 2)
    }

    /// Identification, shared by the fragments of one packet.
    pub fn ident(&self) -> u16 {
        u16_at(self.bytes(), 4)
    }

    /// Flags and fragment offset.
    pub fn fragment_word(&self) -> u16 {
        u16_at(self.bytes(), 6)
    }

    /// The packet is a piece of a larger one.
    pub fn is_fragment(&self) -> bool {
        self.fragment_word() & (MORE_FRAGMENTS | FRAGMENT_OFFSET) != 0
    }

    /// Time to live.
    pub fn ttl(&self) -> u8 {
        self.bytes()[8]
    }

    /// Protocol of the payload.
    pub fn protocol(&self) -> u8 {
        self.bytes()[9]
    }

    /// The header's checksum as it stands there.
    pub fn checksum(&self) -> u16 {
        u16_at(self.bytes(), 10)
    }

    /// The header's checksum is right.
    pub fn checksum_ok(&self) -> bool {
        checksum::checksum(&self.bytes()[..self.header_len()]) == 0
    }

    /// Source address.
    pub fn source(&self) -> Ipv4Addr {
        Ipv4Addr::from(array_at::<4>(self.bytes(), 12))
    }

    /// Destination address.
    pub fn destination(&self) -> Ipv4Addr {
        Ipv4Addr::from(array_at::<4>(self.bytes(), 16))
    }

    /// The options with their padding.
    pub fn options(&self) -> &[u8] {
        &self.bytes()[HEADER_LEN..self.header_len()]
    }

    /// What follows the header, without what lies behind the packet's end (Ethernet padding); fewer
    /// bytes than the header says if no more are there.
    pub fn payload(&self) -> &[u8] {
        let end = usize::from(self.total_len()).min(self.bytes().len());
        self.bytes().get(self.header_len()..end).unwrap_or(&[])
    }
}

impl<T: AsRef<[u8]> + AsMut<[u8]>> Packet<T> {
    /// Writes the total length.
    pub fn set_total_len(&mut self, len: u16) {
        set_u16(self.0.as_mut(), 2, len);
    }

    /// Writes the identification.
    pub fn set_ident(&mut self, ident: u16) {
        set_u16(self.0.as_mut(), 4, ident);
    }

    /// Writes flags and fragment offset.
    pub fn set_fragment_word(&mut self, word: u16) {
        set_u16(self.0.as_mut(), 6, word);
    }

    /// Computes the header's checksum; to be done after all other changes.
    pub fn fill_checksum(&mut self) {
        let len = self.header_len();
        let header = &mut self.0.as_mut()[..len];
        set_u16(header, 10, 0);
        let sum = checksum::checksum(header);
        set_u16(header, 10, sum);
    }
}

/// Why bytes are no IPv4 header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// They end too early.
    #[error(transparent)]
    Truncated(#[from] Truncated),
    /// The version is not 4.
    #[error("an IPv4 header says version {version}")]
    Version {
        /// What stands there.
        version: u8,
    },
    /// The header says that it is shorter than 20 bytes.
    #[error("an IPv4 header says that it has {header_len} bytes")]
    HeaderLen {
        /// What stands there.
        header_len: usize,
    },
}

/// Fields of a header without options.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Bytes behind the header.
    pub payload_len: u16,
    /// Identification.
    pub ident: u16,
    /// Flags and fragment offset.
    pub fragment_word: u16,
    /// Time to live.
    pub ttl: u8,
    /// Protocol of the payload.
    pub protocol: u8,
    /// Source address.
    pub source: Ipv4Addr,
    /// Destination address.
    pub destination: Ipv4Addr,
}

impl Header {
    /// The header with its checksum. A payload above 65,515 bytes is cut down in the length field.
    pub fn to_bytes(&self) -> [u8; HEADER_LEN] {
        let mut out = [0; HEADER_LEN];
        out[0] = 0x45;
        set_u16(&mut out, 2, self.payload_len.saturating_add(20));
        set_u16(&mut out, 4, self.ident);
        set_u16(&mut out, 6, self.fragment_word);
        out[8] = self.ttl;
        out[9] = self.protocol;
        out[12..16].copy_from_slice(&self.source.octets());
        out[16..20].copy_from_slice(&self.destination.octets());
        let sum = checksum::checksum(&out);
        set_u16(&mut out, 10, sum);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_round_trip() {
        let header = Header {
            payload_len: 4,
            ident: 0xbeef,
            fragment_word: DONT_FRAGMENT,
            ttl: 64,
            protocol: protocol::UDP,
            source: Ipv4Addr::new(192, 168, 7, 1),
            destination: Ipv4Addr::new(192, 168, 7, 2),
        };
        let mut bytes = header.to_bytes().to_vec();
        bytes.extend([1, 2, 3, 4, 0, 0]);
        let packet = Packet::new_checked(&bytes).unwrap();
        assert!(packet.checksum_ok() && !packet.is_fragment());
        assert_eq!((packet.total_len(), packet.ident()), (24, 0xbeef));
        assert_eq!((packet.ttl(), packet.protocol()), (64, protocol::UDP));
        assert_eq!(packet.source(), header.source);
        assert_eq!(packet.destination(), header.destination);
        assert_eq!(packet.payload(), [1, 2, 3, 4]);
        assert!(packet.options().is_empty());
        let (foreign, _) = etherparse::Ipv4Header::from_slice(&bytes).unwrap();
        assert_eq!(foreign.header_checksum, packet.checksum());

        let mut packet = Packet::new_checked(&mut bytes).unwrap();
        packet.set_total_len(26);
        packet.set_ident(1);
        packet.set_fragment_word(MORE_FRAGMENTS);
        assert!(!packet.checksum_ok());
        packet.fill_checksum();
        assert!(packet.checksum_ok() && packet.is_fragment());
        assert_eq!(packet.payload().len(), 6);
    }

    #[test]
    fn headers_that_lie_are_refused() {
        let mut bytes = [0x45; 60];
        assert!(Packet::new_checked(&bytes[..19]).is_err());
        bytes[0] = 0x65;
        assert_eq!(
            Packet::new_checked(&bytes).unwrap_err(),
            Fault::Version { version: 6 }
        );
        bytes[0] = 0x44;
        assert_eq!(
            Packet::new_checked(&bytes).unwrap_err(),
            Fault::HeaderLen { header_len: 16 }
        );
        bytes[0] = 0x4f;
        assert!(Packet::new_checked(&bytes[..59]).is_err());
        // A total length below the header's leaves an empty payload.
        bytes[2..4].fill(0);
        assert!(Packet::new_checked(&bytes).unwrap().payload().is_empty());
    }
}
