//! ARP for IPv4 over Ethernet (RFC 826), and the RARP announcement of a migrated station.

use std::net::Ipv4Addr;

use crate::bytes::{array_at, set_u16, u16_at};
use crate::eth::{self, MIN_FRAME_LEN};
use crate::{EtherType, MacAddress, Truncated};

/// Bytes of a packet for IPv4 over Ethernet.
pub const LEN: usize = 28;

/// Operation: who has that address?
pub const REQUEST: u16 = 1;
/// Operation: I have it.
pub const REPLY: u16 = 2;
/// Operation of RARP: which address have I (RFC 903)?
pub const REVERSE_REQUEST: u16 = 3;

/// A packet in our own words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// [`REQUEST`], [`REPLY`] or another.
    pub operation: u16,
    /// The sender's MAC address.
    pub sender_mac: MacAddress,
    /// The sender's IPv4 address; unspecified in a probe (RFC 5227).
    pub sender: Ipv4Addr,
    /// The target's MAC address, without meaning in a request.
    pub target_mac: MacAddress,
    /// The target's IPv4 address.
    pub target: Ipv4Addr,
}

/// Why bytes are no such packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// They end too early.
    #[error(transparent)]
    Truncated(#[from] Truncated),
    /// Not IPv4 over Ethernet.
    #[error(
        "an ARP packet is for hardware type {hardware} and protocol 0x{protocol:04x} with addresses of {hardware_len} and {protocol_len} bytes"
    )]
    Kind {
        /// Hardware type; 1 is Ethernet.
        hardware: u16,
        /// Protocol type.
        protocol: u16,
        /// Bytes of a hardware address.
        hardware_len: u8,
        /// Bytes of a protocol address.
        protocol_len: u8,
    },
}

/// Ethernet, IPv4, 6 and 4 bytes of address.
const KIND: [u8; 6] = [0, 1, 0x08, 0, 6, 4];

impl Packet {
    /// Reads the packet behind an Ethernet header; bytes behind its end (padding) are ignored.
    pub fn parse(bytes: &[u8]) -> Result<Self, Fault> {
        Truncated::check("ARP", LEN, bytes.len())?;
        if bytes[..6] != KIND {
            return Err(Fault::Kind {
                hardware: u16_at(bytes, 0),
                protocol: u16_at(bytes, 2),
                hardware_len: bytes[4],
                protocol_len: bytes[5],
            });
        }
        Ok(Self {
            operation: u16_at(bytes, 6),
            sender_mac: MacAddress(array_at(bytes, 8)),
            sender: Ipv4Addr::from(array_at::<4>(bytes, 14)),
            target_mac: MacAddress(array_at(bytes, 18)),
            target: Ipv4Addr::from(array_at::<4>(bytes, 24)),
        })
    }

    /// The packet as bytes.
    pub fn to_bytes(&self) -> [u8; LEN] {
        let mut out = [0; LEN];
        out[..6].copy_from_slice(&KIND);
        set_u16(&mut out, 6, self.operation);
        out[8..14].copy_from_slice(&self.sender_mac.0);
        out[14..18].copy_from_slice(&self.sender.octets());
        out[18..24].copy_from_slice(&self.target_mac.0);
        out[24..28].copy_from_slice(&self.target.octets());
        out
    }

    /// The answer to a request, given by the one who has `mac`.
    pub fn answered_by(&self, mac: MacAddress) -> Self {
        Self {
            operation: REPLY,
            sender_mac: mac,
            sender: self.target,
            target_mac: self.sender_mac,
            target: self.sender,
        }
    }

    /// An untagged frame from the sender's MAC address to `destination`, padded to the minimum.
    pub fn to_frame(&self, destination: MacAddress) -> [u8; MIN_FRAME_LEN] {
        frame(destination, EtherType::ARP, self)
    }
}

/// The frame that tells switches behind which port a station now is, as QEMU and the kernel's
/// failover code send it: a broadcast RARP request for its own address.
pub fn rarp_announce(mac: MacAddress) -> [u8; MIN_FRAME_LEN] {
    let packet = Packet {
        operation: REVERSE_REQUEST,
        sender_mac: mac,
        sender: Ipv4Addr::UNSPECIFIED,
        target_mac: mac,
        target: Ipv4Addr::UNSPECIFIED,
    };
    frame(MacAddress::BROADCAST, EtherType::RARP, &packet)
}

fn frame(destination: MacAddress, kind: EtherType, packet: &Packet) -> [u8; MIN_FRAME_LEN] {
    let mut out = [0; MIN_FRAME_LEN];
    let (head, rest) = out.split_at_mut(eth::HEADER_LEN);
    head.copy_from_slice(&eth::header(destination, packet.sender_mac, kind));
    rest[..LEN].copy_from_slice(&packet.to_bytes());
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const GUEST: MacAddress = MacAddress([0x52, 0x54, 0, 0, 0, 1]);
    const GATEWAY: MacAddress = MacAddress([0x52, 0x54, 0, 0, 0, 0xfe]);

    #[test]
    fn a_request_and_its_answer() {
        let request = Packet {
            operation: REQUEST,
            sender_mac: GUEST,
            sender: Ipv4Addr::new(192, 168, 7, 2),
            target_mac: MacAddress::ZERO,
            target: Ipv4Addr::new(192, 168, 7, 1),
        };
        let bytes = request.to_frame(MacAddress::BROADCAST);
        let view = eth::Frame::new_checked(&bytes).unwrap();
        assert_eq!(view.ether_type(), EtherType::ARP);
        assert_eq!(view.source(), GUEST);
        assert_eq!(Packet::parse(view.payload()), Ok(request));
        let foreign = etherparse::ArpPacketSlice::from_slice(view.payload()).unwrap();
        assert_eq!(foreign.sender_protocol_addr(), [192, 168, 7, 2]);
        assert_eq!(foreign.target_protocol_addr(), [192, 168, 7, 1]);

        let answer = request.answered_by(GATEWAY);
        assert_eq!(answer.operation, REPLY);
        assert_eq!(
            (answer.sender, answer.sender_mac),
            (request.target, GATEWAY)
        );
        assert_eq!((answer.target, answer.target_mac), (request.sender, GUEST));
    }

    #[test]
    fn other_kinds_are_refused() {
        let mut bytes = rarp_announce(GUEST)[eth::HEADER_LEN..].to_vec();
        bytes[0] = 6;
        let fault = Packet::parse(&bytes).unwrap_err();
        assert!(matches!(
            fault,
            Fault::Kind {
                hardware: 0x601,
                ..
            }
        ));
        assert!(Packet::parse(&bytes[..27]).is_err());
    }

    #[test]
    fn announcement_of_a_station() {
        let bytes = rarp_announce(GUEST);
        assert_eq!(bytes[..6], [0xff; 6]);
        assert_eq!(bytes[6..12], GUEST.0);
        assert_eq!(bytes[12..22], [0x80, 0x35, 0, 1, 8, 0, 6, 4, 0, 3]);
        assert_eq!(bytes[22..28], GUEST.0);
        assert_eq!(bytes[32..38], GUEST.0);
        assert_eq!(bytes[42..], [0; 18]);
    }
}
