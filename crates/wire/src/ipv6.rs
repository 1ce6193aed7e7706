//! IPv6 (RFC 8200): the fixed header. Extension headers are walked in [`layers`](crate::layers).

use std::net::Ipv6Addr;

use crate::Truncated;
use crate::bytes::{array_at, set_u16, set_u32, u16_at, u32_at};

/// Bytes of the fixed header.
pub const HEADER_LEN: usize = 40;
/// Where the next header field stands.
pub const NEXT_HEADER_OFFSET: usize = 6;

/// Values of the next header field that name an extension header (IANA).
pub mod extension {
    /// Hop-by-hop options
    pub const HOP_BY_HOP: u8 = 0;
    /// Routing
    pub const ROUTING: u8 = 43;
    /// Fragment
    pub const FRAGMENT: u8 = 44;
    /// Encapsulating security payload: nothing behind it can be read
    pub const ESP: u8 = 50;
    /// Authentication
    pub const AUTHENTICATION: u8 = 51;
    /// Nothing follows
    pub const NONE: u8 = 59;
    /// Destination options
    pub const DESTINATION: u8 = 60;
}

/// View of a packet, or of its first bytes.
#[derive(Clone, Copy, Debug)]
pub struct Packet<T>(T);

impl<T: AsRef<[u8]>> Packet<T> {
    /// Takes bytes that hold at least the fixed header.
    pub fn new_checked(bytes: T) -> Result<Self, Fault> {
        Truncated::check("IPv6", HEADER_LEN, bytes.as_ref().len())?;
        let version = bytes.as_ref()[0] >> 4;
        if version != 6 {
            return Err(Fault::Version { version });
        }
        Ok(Self(bytes))
    }

    fn bytes(&self) -> &[u8] {
        self.0.as_ref()
    }

    /// Differentiated services and ECN.
    pub fn traffic_class(&self) -> u8 {
        u16_at(self.bytes(), 0).wrapping_shr(4).to_be_bytes()[1]
    }

    /// Flow label, 20 bits.
    pub fn flow_label(&self) -> u32 {
        u32_at(self.bytes(), 0) & 0xf_ffff
    }

    /// Bytes behind the fixed header, as it says; extension headers count.
    pub fn payload_len(&self) -> u16 {
        u16_at(self.bytes(), 4)
    }

    /// What follows the fixed header.
    pub fn next_header(&self) -> u8 {
        self.bytes()[6]
    }

    /// Hop limit.
    pub fn hop_limit(&self) -> u8 {
        self.bytes()[7]
    }

    /// Source address.
    pub fn source(&self) -> Ipv6Addr {
        Ipv6Addr::from(array_at::<16>(self.bytes(), 8))
    }

    /// Destination address.
    pub fn destination(&self) -> Ipv6Addr {
        Ipv6Addr::from(array_at::<16>(self.bytes(), 24))
    }

    /// What follows the fixed header, without what lies behind the packet's end; fewer bytes than
    /// the header says if no more are there.
    pub fn payload(&self) -> &[u8] {
        let rest = &self.bytes()[HEADER_LEN..];
        &rest[..rest.len().min(self.payload_len().into())]
    }
}

impl<T: AsRef<[u8]> + AsMut<[u8]>> Packet<T> {
    /// Writes the payload length.
    pub fn set_payload_len(&mut self, len: u16) {
        set_u16(self.0.as_mut(), 4, len);
    }
}

/// Why bytes are no IPv6 header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// They end too early.
    #[error(transparent)]
    Truncated(#[from] Truncated),
    /// The version is not 6.
    #[error("an IPv6 header says version {version}")]
    Version {
        /// What stands there.
        version: u8,
    },
}

/// Fields of the fixed header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Differentiated services and ECN.
    pub traffic_class: u8,
    /// Flow label, 20 bits; further ones are cut off.
    pub flow_label: u32,
    /// Bytes behind the fixed header.
    pub payload_len: u16,
    /// What follows.
    pub next_header: u8,
    /// Hop limit.
    pub hop_limit: u8,
    /// Source address.
    pub source: Ipv6Addr,
    /// Destination address.
    pub destination: Ipv6Addr,
}

impl Header {
    /// The header as bytes.
    pub fn to_bytes(&self) -> [u8; HEADER_LEN] {
        let mut out = [0; HEADER_LEN];
        let class = u32::from(self.traffic_class) << 20;
        set_u32(&mut out, 0, 6 << 28 | class | self.flow_label & 0xf_ffff);
        set_u16(&mut out, 4, self.payload_len);
        out[6] = self.next_header;
        out[7] = self.hop_limit;
        out[8..24].copy_from_slice(&self.source.octets());
        out[24..40].copy_from_slice(&self.destination.octets());
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_round_trip() {
        let header = Header {
            traffic_class: 0xb9,
            flow_label: 0xa_bcde,
            payload_len: 3,
            next_header: 17,
            hop_limit: 255,
            source: "fe80::1".parse().unwrap(),
            destination: "ff02::1:ff00:2".parse().unwrap(),
        };
        let mut bytes = header.to_bytes().to_vec();
        bytes.extend([7, 8, 9, 0]);
        let packet = Packet::new_checked(&bytes).unwrap();
        assert_eq!(packet.traffic_class(), 0xb9);
        assert_eq!(packet.flow_label(), 0xa_bcde);
        assert_eq!((packet.next_header(), packet.hop_limit()), (17, 255));
        assert_eq!(packet.source(), header.source);
        assert_eq!(packet.destination(), header.destination);
        assert_eq!(packet.payload(), [7, 8, 9]);
        let (foreign, _) = etherparse::Ipv6Header::from_slice(&bytes).unwrap();
        assert_eq!(foreign.to_bytes(), header.to_bytes());

        let mut packet = Packet::new_checked(&mut bytes).unwrap();
        packet.set_payload_len(400);
        assert_eq!(packet.payload().len(), 4);
    }

    #[test]
    fn headers_that_lie_are_refused() {
        assert!(Packet::new_checked([0x60; 39]).is_err());
        assert_eq!(
            Packet::new_checked([0x45; 40]).unwrap_err(),
            Fault::Version { version: 4 }
        );
    }
}
