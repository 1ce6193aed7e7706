//! Frames put together from fields: for tests, and for ports that generate traffic.

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::bytes::set_u16;
use crate::checksum::Sum;
use crate::ipv4::protocol;
use crate::vlan::Tag;
use crate::vnet_hdr::{F_NEEDS_CSUM, GSO_ECN, GSO_TCPV4, GSO_TCPV6, GSO_UDP_L4};
use crate::{EtherType, MacAddress, VnetHeader, eth, ipv4, ipv6, tcp, udp};

/// Fields of a TCP header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpFields {
    /// Source port.
    pub source_port: u16,
    /// Destination port.
    pub destination_port: u16,
    /// Sequence number.
    pub sequence: u32,
    /// Acknowledgement number.
    pub acknowledgement: u32,
    /// Flag byte, see [`tcp::flag`].
    pub flags: u8,
    /// Window.
    pub window: u16,
}

/// Source and destination.
#[derive(Clone, Copy, Debug)]
enum Addresses {
    V4(Ipv4Addr, Ipv4Addr),
    V6(Ipv6Addr, Ipv6Addr),
}

#[derive(Clone, Debug)]
enum Transport {
    Udp(u16, u16),
    Tcp(TcpFields, Vec<u8>),
}

/// Builds IP frames. The setters may come in any order; without one of them the frame is a UDP
/// datagram between ports 0.
#[derive(Clone, Debug)]
pub struct FrameBuilder {
    destination_mac: MacAddress,
    source_mac: MacAddress,
    tags: Vec<Tag>,
    addresses: Addresses,
    ident: u16,
    fragment_word: u16,
    options: Vec<u8>,
    extensions: Vec<(u8, Vec<u8>)>,
    transport: Transport,
}

impl FrameBuilder {
    /// A frame with an IPv4 packet.
    pub fn ipv4(source: Ipv4Addr, destination: Ipv4Addr) -> Self {
        Self::new(Addresses::V4(source, destination))
    }

    /// A frame with an IPv6 packet.
    pub fn ipv6(source: Ipv6Addr, destination: Ipv6Addr) -> Self {
        Self::new(Addresses::V6(source, destination))
    }

    fn new(addresses: Addresses) -> Self {
        Self {
            destination_mac: MacAddress([0x52, 0x54, 0, 0, 0, 2]),
            source_mac: MacAddress([0x52, 0x54, 0, 0, 0, 1]),
            tags: Vec::new(),
            addresses,
            ident: 0,
            fragment_word: ipv4::DONT_FRAGMENT,
            options: Vec::new(),
            extensions: Vec::new(),
            transport: Transport::Udp(0, 0),
        }
    }

    /// MAC addresses; 52:54:00:00:00:01 to 52:54:00:00:00:02 without this.
    pub fn macs(mut self, source: MacAddress, destination: MacAddress) -> Self {
        (self.source_mac, self.destination_mac) = (source, destination);
        self
    }

    /// Adds a VLAN tag inside those already there.
    pub fn tag(mut self, tag: Tag) -> Self {
        self.tags.push(tag);
        self
    }

    /// IPv4: identification, and flags with fragment offset.
    pub fn fragment(mut self, ident: u16, fragment_word: u16) -> Self {
        (self.ident, self.fragment_word) = (ident, fragment_word);
        self
    }

    /// IPv4: options, filled up with zeros to a multiple of 4; what is above 40 bytes is cut off.
    pub fn options(mut self, options: &[u8]) -> Self {
        self.options = options[..options.len().min(40)].to_vec();
        self.options
            .resize(self.options.len().next_multiple_of(4), 0);
        self
    }

    /// IPv6: adds an extension header behind those already there. `kind` is its number, `body` what
    /// follows its next-header and length bytes, filled up to a multiple of 8. A fragment header
    /// has a body of 6 bytes.
    pub fn extension(mut self, kind: u8, body: &[u8]) -> Self {
        let mut bytes = vec![0, 0];
        bytes.extend(&body[..body.len().min(2046)]);
        bytes.resize(bytes.len().next_multiple_of(8), 0);
        if kind != ipv6::extension::FRAGMENT {
            let unit = if kind == ipv6::extension::AUTHENTICATION {
                4
            } else {
                8
            };
            bytes[1] = u8::try_from((bytes.len() - 8) / unit).unwrap_or(u8::MAX);
        }
        self.extensions.push((kind, bytes));
        self
    }

    /// A UDP datagram between these ports.
    pub fn udp(mut self, source_port: u16, destination_port: u16) -> Self {
        self.transport = Transport::Udp(source_port, destination_port);
        self
    }

    /// A TCP segment. `options` is filled up with zeros to a multiple of 4 and cut at 40 bytes.
    pub fn tcp(mut self, fields: TcpFields, options: &[u8]) -> Self {
        let mut options = options[..options.len().min(40)].to_vec();
        options.resize(options.len().next_multiple_of(4), 0);
        self.transport = Transport::Tcp(fields, options);
        self
    }

    /// The frame with all checksums complete.
    pub fn build(&self, payload: &[u8]) -> Vec<u8> {
        let (mut bytes, header) = self.build_partial(payload);
        let start = usize::from(header.csum_start);
        let mut sum = Sum::new();
        sum.add(&bytes[start..]);
        let field = start + usize::from(header.csum_offset);
        set_u16(&mut bytes, field, sum.checksum_nonzero());
        bytes
    }

    /// The frame with only the pseudo header's sum in its transport checksum, and the virtio-net
    /// header that says so.
    pub fn build_partial(&self, payload: &[u8]) -> (Vec<u8>, VnetHeader) {
        let (transport, number) = self.transport_header(payload.len());
        let total = transport.len() + payload.len();
        let mut bytes = self.link_header();
        self.network_header(&mut bytes, number, total);
        let start = bytes.len();
        bytes.extend(transport);
        let csum_offset = match self.transport {
            Transport::Udp(..) => udp::CHECKSUM_OFFSET,
            Transport::Tcp(..) => tcp::CHECKSUM_OFFSET,
        };
        let mut sum = Sum::new();
        match self.addresses {
            Addresses::V4(from, to) => sum.add_pseudo_v4(from, to, number, total),
            Addresses::V6(from, to) => sum.add_pseudo_v6(from, to, number, total),
        }
        set_u16(&mut bytes, start + usize::from(csum_offset), sum.folded());
        let header = VnetHeader {
            flags: F_NEEDS_CSUM,
            csum_start: clamp(start),
            csum_offset,
            hdr_len: clamp(bytes.len()),
            ..VnetHeader::default()
        };
        bytes.extend(payload);
        (bytes, header)
    }

    /// The frame for segmentation into pieces of `gso_size` bytes of payload. TCP with CWR set gets
    /// the ECN flag.
    pub fn build_gso(&self, payload: &[u8], gso_size: u16) -> (Vec<u8>, VnetHeader) {
        let (bytes, mut header) = self.build_partial(payload);
        header.gso_size = gso_size;
        header.gso_type = match (&self.transport, self.addresses) {
            (Transport::Udp(..), _) => GSO_UDP_L4,
            (Transport::Tcp(..), Addresses::V4(..)) => GSO_TCPV4,
            (Transport::Tcp(..), Addresses::V6(..)) => GSO_TCPV6,
        };
        if let Transport::Tcp(fields, _) = &self.transport
            && fields.flags & tcp::flag::CWR != 0
        {
            header.gso_type |= GSO_ECN;
        }
        (bytes, header)
    }

    fn link_header(&self) -> Vec<u8> {
        let network = match self.addresses {
            Addresses::V4(..) => EtherType::IPV4,
            Addresses::V6(..) => EtherType::IPV6,
        };
        let mut bytes = eth::header(self.destination_mac, self.source_mac, network).to_vec();
        bytes.truncate(eth::TYPE_OFFSET);
        for tag in &self.tags {
            bytes.extend(tag.tpid.0.to_be_bytes());
            bytes.extend(tag.tci.to_be_bytes());
        }
        bytes.extend(network.0.to_be_bytes());
        bytes
    }

    fn network_header(&self, bytes: &mut Vec<u8>, number: u8, transport_len: usize) {
        match self.addresses {
            Addresses::V4(source, destination) => {
                let header = ipv4::Header {
                    payload_len: clamp(transport_len + self.options.len()),
                    ident: self.ident,
                    fragment_word: self.fragment_word,
                    ttl: 64,
                    protocol: number,
                    source,
                    destination,
                };
                let at = bytes.len();
                bytes.extend(header.to_bytes());
                bytes.extend(&self.options);
                bytes[at] += u8::try_from(self.options.len() / 4).unwrap_or(0);
                if let Ok(mut packet) = ipv4::Packet::new_checked(&mut bytes[at..]) {
                    packet.fill_checksum();
                }
            }
            Addresses::V6(source, destination) => {
                let kinds = self.extensions.iter().map(|(kind, _)| *kind);
                let mut next = kinds.chain([number]);
                let extension_len: usize = self.extensions.iter().map(|(_, b)| b.len()).sum();
                let header = ipv6::Header {
                    traffic_class: 0,
                    flow_label: 0,
                    payload_len: clamp(transport_len + extension_len),
                    next_header: next.next().unwrap_or(number),
                    hop_limit: 64,
                    source,
                    destination,
                };
                bytes.extend(header.to_bytes());
                for ((_, body), next) in self.extensions.iter().zip(next) {
                    bytes.push(next);
                    bytes.extend(&body[1..]);
                }
            }
        }
    }

    fn transport_header(&self, payload_len: usize) -> (Vec<u8>, u8) {
        match &self.transport {
            Transport::Udp(source, destination) => {
                let mut bytes = vec![0; udp::HEADER_LEN];
                set_u16(&mut bytes, 0, *source);
                set_u16(&mut bytes, 2, *destination);
                set_u16(&mut bytes, 4, clamp(udp::HEADER_LEN + payload_len));
                (bytes, protocol::UDP)
            }
            Transport::Tcp(fields, options) => {
                let mut bytes = Vec::with_capacity(tcp::MAX_HEADER_LEN);
                bytes.extend(fields.source_port.to_be_bytes());
                bytes.extend(fields.destination_port.to_be_bytes());
                bytes.extend(fields.sequence.to_be_bytes());
                bytes.extend(fields.acknowledgement.to_be_bytes());
                let words = u8::try_from((tcp::HEADER_LEN + options.len()) / 4).unwrap_or(15);
                bytes.extend([words << 4, fields.flags]);
                bytes.extend(fields.window.to_be_bytes());
                bytes.extend([0; 4]);
                bytes.extend(options);
                (bytes, protocol::TCP)
            }
        }
    }
}

/// Lengths above the field's range stay at its end.
fn clamp(len: usize) -> u16 {
    u16::try_from(len).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests;
