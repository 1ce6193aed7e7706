//! Where the headers of a frame are: from Ethernet over at most two VLAN tags and IPv4 with options
//! or IPv6 with extension headers to TCP, UDP or ICMP.
//!
//! Looks at the frame's first bytes only. What lies beyond them but within the frame is
//! [`Found::Truncated`]: the frame may be in order, but whoever has to judge that header cannot.
//! What the frame itself ends before, or what contradicts its protocol, is [`Found::Malformed`].

use crate::bytes::u16_at;
use crate::eth::HEADER_LEN;
use crate::ipv4::{self, FRAGMENT_OFFSET, MORE_FRAGMENTS, protocol};
use crate::ipv6::{self, extension};
use crate::vlan::{TAG_LEN, Tag};
use crate::{EtherType, tcp, udp};

/// VLAN tags that are looked through. A frame with more has a tag's type as its
/// [`ether_type`](Layers::ether_type) and no network header.
pub const MAX_TAGS: usize = 2;
/// IPv6 extension headers that are looked through; more are malformed.
pub const MAX_EXTENSIONS: usize = 8;

/// Result of looking for a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found<T> {
    /// The frame has none that is known here.
    Absent,
    /// It goes on behind the bytes that could be looked at.
    Truncated,
    /// The frame ends within it, or it contradicts itself.
    Malformed,
    /// It is whole.
    Present(T),
}

impl<T> Found<T> {
    /// The header, if it is whole.
    pub fn present(self) -> Option<T> {
        match self {
            Self::Present(header) => Some(header),
            _ => None,
        }
    }
}

/// What was found. Offsets count from the frame's first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layers {
    tags: [Tag; MAX_TAGS],
    tag_count: usize,
    /// Type behind the tags; 0 if the frame is too short to have one.
    pub ether_type: EtherType,
    /// The IP header. Absent: not IP.
    pub network: Found<Network>,
    /// The header above IP. Absent: not IP, a later fragment, or a protocol not known here.
    pub transport: Found<Transport>,
    /// Where the last whole header ends.
    pub header_end: usize,
}

impl Layers {
    /// VLAN tags, outermost first.
    pub fn tags(&self) -> &[Tag] {
        &self.tags[..self.tag_count]
    }
}

/// Which IP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// IPv4
    V4,
    /// IPv6
    V6,
}

/// Whether a packet is a piece of a larger one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fragment {
    /// A whole packet.
    No,
    /// The first piece: the transport header is here.
    First,
    /// Another piece: no transport header.
    Later,
}

/// An IP header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    /// Which IP.
    pub version: Version,
    /// Where the header begins.
    pub offset: usize,
    /// Where options or extension headers end and the payload begins.
    pub payload: usize,
    /// Where the packet ends by its own length field, or the frame if that is earlier or the
    /// field is 0. Bytes behind are padding.
    pub end: usize,
    /// Protocol of the payload; of an IPv6 packet what the last header looked at says.
    pub protocol: u8,
    /// Whether it is a fragment.
    pub fragment: Fragment,
    /// IPv4 options or IPv6 extension headers are there.
    pub has_options: bool,
}

/// Kind of a transport header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransportKind {
    /// TCP; the length counts options.
    Tcp,
    /// UDP
    Udp,
    /// ICMP for IPv4: type, code and checksum
    Icmp,
    /// ICMP for IPv6: type, code and checksum
    Icmpv6,
}

/// A transport header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transport {
    /// Which protocol.
    pub kind: TransportKind,
    /// Where the header begins.
    pub offset: usize,
    /// Its bytes.
    pub header_len: usize,
}

impl Transport {
    /// Source and destination port, read from the same bytes that were dissected. None for ICMP.
    pub fn ports(&self, head: &[u8]) -> Option<(u16, u16)> {
        match self.kind {
            TransportKind::Tcp | TransportKind::Udp => {
                let ports = head.get(self.offset..)?.first_chunk::<4>()?;
                Some((u16_at(ports, 0), u16_at(ports, 2)))
            }
            TransportKind::Icmp | TransportKind::Icmpv6 => None,
        }
    }
}

/// Dissects a frame of `total_len` bytes of which `head` is the beginning.
pub fn dissect(head: &[u8], total_len: usize) -> Layers {
    let view = View {
        head: &head[..head.len().min(total_len)],
        total_len,
    };
    let untagged = Tag {
        tpid: EtherType(0),
        tci: 0,
    };
    let mut layers = Layers {
        tags: [untagged; MAX_TAGS],
        tag_count: 0,
        ether_type: EtherType(0),
        network: Found::Absent,
        transport: Found::Absent,
        header_end: 0,
    };
    if let Err(missing) = view.walk(&mut layers) {
        layers.network = missing.found();
    }
    layers
}

/// Why a walk ended before its goal.
#[derive(Clone, Copy)]
enum Missing {
    Truncated,
    Malformed,
}

impl Missing {
    fn found<T>(self) -> Found<T> {
        match self {
            Self::Truncated => Found::Truncated,
            Self::Malformed => Found::Malformed,
        }
    }
}

struct View<'a> {
    head: &'a [u8],
    total_len: usize,
}

impl View<'_> {
    /// `N` bytes at `at` that must not reach over `end`.
    fn bytes<const N: usize>(&self, at: usize, end: usize) -> Result<&[u8; N], Missing> {
        self.within(at + N, end)?;
        self.head
            .get(at..)
            .and_then(|rest| rest.first_chunk())
            .ok_or(Missing::Truncated)
    }

    /// Everything up to `upto` can be looked at and does not reach over `end`.
    fn within(&self, upto: usize, end: usize) -> Result<(), Missing> {
        if upto > end {
            return Err(Missing::Malformed);
        }
        if upto > self.head.len() {
            return Err(Missing::Truncated);
        }
        Ok(())
    }

    fn walk(&self, layers: &mut Layers) -> Result<(), Missing> {
        let link: &[u8; HEADER_LEN] = self.bytes(0, self.total_len)?;
        let mut ether_type = EtherType(u16_at(link, 12));
        let mut at = HEADER_LEN;
        while ether_type.is_vlan() && layers.tag_count < MAX_TAGS {
            let tag: &[u8; TAG_LEN] = self.bytes(at, self.total_len)?;
            layers.tags[layers.tag_count] = Tag {
                tpid: ether_type,
                tci: u16_at(tag, 0),
            };
            layers.tag_count += 1;
            ether_type = EtherType(u16_at(tag, 2));
            at += TAG_LEN;
        }
        layers.ether_type = ether_type;
        layers.header_end = at;
        let network = match ether_type {
            EtherType::IPV4 => self.ipv4(at)?,
            EtherType::IPV6 => self.ipv6(at)?,
            _ => return Ok(()),
        };
        layers.network = Found::Present(network);
        layers.header_end = network.payload;
        layers.transport = match self.transport(&network) {
            Ok(Some(transport)) => {
                layers.header_end = transport.offset + transport.header_len;
                Found::Present(transport)
            }
            Ok(None) => Found::Absent,
            Err(missing) => missing.found(),
        };
        Ok(())
    }

    fn ipv4(&self, offset: usize) -> Result<Network, Missing> {
        let fixed: &[u8; ipv4::HEADER_LEN] = self.bytes(offset, self.total_len)?;
        let header_len = usize::from(fixed[0] & 15) * 4;
        if fixed[0] >> 4 != 4 || header_len < ipv4::HEADER_LEN {
            return Err(Missing::Malformed);
        }
        let end = match usize::from(u16_at(fixed, 2)) {
            0 => self.total_len,
            len => self.total_len.min(offset + len),
        };
        self.within(offset + header_len, end)?;
        let word = u16_at(fixed, 6);
        Ok(Network {
            version: Version::V4,
            offset,
            payload: offset + header_len,
            end,
            protocol: fixed[9],
            fragment: fragment(word & FRAGMENT_OFFSET != 0, word & MORE_FRAGMENTS != 0),
            has_options: header_len > ipv4::HEADER_LEN,
        })
    }

    fn ipv6(&self, offset: usize) -> Result<Network, Missing> {
        let fixed: &[u8; ipv6::HEADER_LEN] = self.bytes(offset, self.total_len)?;
        if fixed[0] >> 4 != 6 {
            return Err(Missing::Malformed);
        }
        let mut at = offset + ipv6::HEADER_LEN;
        let mut network = Network {
            version: Version::V6,
            offset,
            payload: at,
            end: match usize::from(u16_at(fixed, 4)) {
                0 => self.total_len,
                len => self.total_len.min(at + len),
            },
            protocol: fixed[6],
            fragment: Fragment::No,
            has_options: false,
        };
        for _ in 0..MAX_EXTENSIONS {
            let units = match network.protocol {
                extension::HOP_BY_HOP | extension::ROUTING | extension::DESTINATION => 8,
                extension::AUTHENTICATION => 4,
                extension::FRAGMENT => 0,
                _ => break,
            };
            let header: &[u8; 8] = self.bytes(at, network.end)?;
            // RFC 8200, 4.2 to 4.6; RFC 4302, 2.2: length in units, the first 8 bytes not counted.
            let next = at + 8 + usize::from(header[1]) * units;
            if network.protocol == extension::FRAGMENT {
                let word = u16_at(header, 2);
                network.fragment = fragment(word & 0xfff8 != 0, word & 1 != 0);
            }
            self.within(next, network.end)?;
            network.protocol = header[0];
            network.has_options = true;
            network.payload = next;
            at = next;
            if network.fragment == Fragment::Later {
                return Ok(network);
            }
        }
        match network.protocol {
            extension::HOP_BY_HOP
            | extension::ROUTING
            | extension::DESTINATION
            | extension::AUTHENTICATION
            | extension::FRAGMENT => Err(Missing::Malformed),
            _ => Ok(network),
        }
    }

    fn transport(&self, network: &Network) -> Result<Option<Transport>, Missing> {
        if network.fragment == Fragment::Later {
            return Ok(None);
        }
        let (offset, end) = (network.payload, network.end);
        let (kind, header_len) = match (network.protocol, network.version) {
            (protocol::TCP, _) => {
                let fixed: &[u8; tcp::HEADER_LEN] = self.bytes(offset, end)?;
                let header_len = usize::from(fixed[12] >> 4) * 4;
                if header_len < tcp::HEADER_LEN {
                    return Err(Missing::Malformed);
                }
                (TransportKind::Tcp, header_len)
            }
            (protocol::UDP, _) => (TransportKind::Udp, udp::HEADER_LEN),
            (protocol::ICMP, Version::V4) => (TransportKind::Icmp, 4),
            (protocol::ICMPV6, Version::V6) => (TransportKind::Icmpv6, 4),
            _ => return Ok(None),
        };
        self.within(offset + header_len, end)?;
        Ok(Some(Transport {
            kind,
            offset,
            header_len,
        }))
    }
}

fn fragment(has_offset: bool, more: bool) -> Fragment {
    match (has_offset, more) {
        (true, _) => Fragment::Later,
        (false, true) => Fragment::First,
        (false, false) => Fragment::No,
    }
}

#[cfg(test)]
mod tests;
