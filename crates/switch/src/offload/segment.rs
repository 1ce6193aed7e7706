//! Segmentation in software: TCP over IPv4 and IPv6 (TSO) and UDP (USO).
//!
//! Every segment consists of the original's headers, corrected, and a range of its payload, which
//! is not copied here. The rules are those of the kernel's own segmentation (net/ipv4/tcp_offload.c,
//! udp_offload.c, af_inet.c): the IPv4 identification counts up, FIN and PSH stay on the last
//! segment, CWR on the first. A payload that fits into one segment makes one. Fragments, and packets
//! with an IPv6 fragment or authentication header, are refused.
//!
//! The checksum of a segment starts from what the sender left in the field, the sum of the pseudo
//! header (virtio 1.2, 5.1.6.2), with the length exchanged. It is not computed from the addresses:
//! behind an IPv6 routing header or an IPv4 source route those are not the ones it covers.

use std::ops::Range;

use ringway_wire::checksum::Sum;
use ringway_wire::ipv6::extension;
use ringway_wire::layers::{Fragment, Network, Transport, TransportKind, Version, dissect};
use ringway_wire::vnet_hdr::{F_NEEDS_CSUM, GSO_ECN, GSO_TCPV4, GSO_TCPV6, GSO_UDP_L4};
use ringway_wire::{VnetHeader, ipv4, ipv6, tcp, udp};

use super::OffloadFault;

/// Most segments that are made of one frame.
pub const MAX_SEGMENTS: usize = 1500;
/// Most bytes of headers, from the Ethernet header to the end of TCP's or UDP's.
pub const MAX_HEAD_LEN: usize = 512;

/// What becomes of the transport checksums.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checksums {
    /// They are computed: the receiver takes no partial ones.
    Complete,
    /// They are left partial: the receiver takes those, but not this segmentation.
    Partial,
}

/// One segment: [`Segmenter::head_len`] bytes of headers were written, the body is a range of the
/// original frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// The virtio-net header it goes out with.
    pub header: VnetHeader,
    /// Its payload in the original frame.
    pub body: Range<usize>,
}

/// Cuts one frame into segments.
#[derive(Clone, Debug)]
pub struct Segmenter<'f> {
    frame: &'f [u8],
    network: Network,
    transport: Transport,
    /// Bytes of headers; the payload begins here.
    head_len: usize,
    size: usize,
    count: usize,
    /// Segments made so far.
    made: usize,
    checksums: Checksums,
    csum_start: u16,
    csum_offset: u16,
    /// The pseudo header's sum without its length.
    pseudo: u16,
}

impl<'f> Segmenter<'f> {
    /// Takes a whole frame and the virtio-net header it came with; its `hdr_len` is not used. Bytes
    /// behind the IP packet's end are left out.
    pub fn new(
        frame: &'f [u8],
        header: &VnetHeader,
        checksums: Checksums,
    ) -> Result<Self, OffloadFault> {
        let gso_type = header.gso_type;
        if header.gso_size == 0 {
            return Err(OffloadFault::SizeZero);
        }
        if !header.needs_csum() {
            return Err(OffloadFault::WithoutChecksum { gso_type });
        }
        let (network, transport) = headers(frame, gso_type)?;
        let head_len = transport.offset + transport.header_len;
        if head_len > MAX_HEAD_LEN {
            return Err(OffloadFault::HeadersTooLong { len: head_len });
        }
        let right_offset = match transport.kind {
            TransportKind::Tcp => tcp::CHECKSUM_OFFSET,
            _ => udp::CHECKSUM_OFFSET,
        };
        if usize::from(header.csum_start) != transport.offset || header.csum_offset != right_offset
        {
            return Err(OffloadFault::ChecksumMisplaced {
                start: header.csum_start,
                offset: header.csum_offset,
                right_start: transport.offset,
                right_offset,
            });
        }
        let payload = network.end - head_len;
        let size = usize::from(header.gso_size);
        let count = payload.div_ceil(size).max(1);
        if count > MAX_SEGMENTS {
            return Err(OffloadFault::TooManySegments {
                payload,
                size: header.gso_size,
            });
        }
        let longest = head_len - network.offset + payload.min(size);
        if longest > usize::from(u16::MAX) {
            return Err(OffloadFault::SegmentTooLong { len: longest });
        }
        Ok(Self {
            frame,
            network,
            transport,
            head_len,
            size,
            count,
            made: 0,
            checksums,
            csum_start: header.csum_start,
            csum_offset: header.csum_offset,
            pseudo: pseudo_without_length(frame, &network, &transport, right_offset),
        })
    }

    /// Bytes of headers in front of every segment's body.
    pub fn head_len(&self) -> usize {
        self.head_len
    }

    /// Segments that are still to come.
    pub fn remaining(&self) -> usize {
        self.count - self.made
    }

    /// Writes the next segment's headers to the first [`head_len`](Self::head_len) bytes of `head`.
    /// None when all are made, and when `head` is shorter than that.
    pub fn next(&mut self, head: &mut [u8]) -> Option<Segment> {
        if self.made == self.count {
            return None;
        }
        let head = head.get_mut(..self.head_len)?;
        head.copy_from_slice(&self.frame[..self.head_len]);
        let begin = self.head_len + self.made * self.size;
        let body = begin..(begin + self.size).min(self.network.end);
        let packet_len = self.head_len - self.network.offset + body.len();
        let transport_len = self.transport.header_len + body.len();
        self.write_network(&mut head[self.network.offset..], packet_len);
        let transport = &mut head[self.transport.offset..];
        match self.transport.kind {
            TransportKind::Tcp => self.write_tcp(transport),
            _ => udp::Datagram::new_checked(&mut *transport)
                .ok()?
                .set_len(narrow(transport_len)),
        }
        self.write_checksum(transport, transport_len, &self.frame[body.clone()]);
        self.made += 1;
        let mut header = VnetHeader {
            num_buffers: 1,
            ..VnetHeader::default()
        };
        if self.checksums == Checksums::Partial {
            header.flags = F_NEEDS_CSUM;
            header.csum_start = self.csum_start;
            header.csum_offset = self.csum_offset;
        }
        Some(Segment { header, body })
    }

    fn write_network(&self, bytes: &mut [u8], packet_len: usize) {
        match self.network.version {
            Version::V4 => {
                if let Ok(mut packet) = ipv4::Packet::new_checked(bytes) {
                    packet.set_total_len(narrow(packet_len));
                    packet.set_ident(packet.ident().wrapping_add(narrow(self.made)));
                    packet.fill_checksum();
                }
            }
            Version::V6 => {
                if let Ok(mut packet) = ipv6::Packet::new_checked(bytes) {
                    packet.set_payload_len(narrow(packet_len - ipv6::HEADER_LEN));
                }
            }
        }
    }

    fn write_tcp(&self, bytes: &mut [u8]) {
        if let Ok(mut segment) = tcp::Segment::new_checked(bytes) {
            let passed = u32::try_from(self.made * self.size).unwrap_or(0);
            segment.set_sequence(segment.sequence().wrapping_add(passed));
            let mut flags = segment.flags();
            if self.made != 0 {
                flags &= !tcp::flag::CWR;
            }
            if self.made + 1 != self.count {
                flags &= !(tcp::flag::FIN | tcp::flag::PSH);
            }
            segment.set_flags(flags);
        }
    }

    fn write_checksum(&self, transport: &mut [u8], len: usize, body: &[u8]) {
        let mut pseudo = Sum::from_field(self.pseudo);
        pseudo.add_u16(narrow(len));
        let at = usize::from(self.csum_offset);
        transport[at..at + 2].copy_from_slice(&pseudo.folded().to_be_bytes());
        if self.checksums == Checksums::Complete {
            let mut sum = Sum::new();
            sum.add(transport);
            sum.add(body);
            // As the kernel does: to TCP, 0 is a checksum like any other.
            let checksum = match self.transport.kind {
                TransportKind::Tcp => sum.checksum(),
                _ => sum.checksum_nonzero(),
            };
            transport[at..at + 2].copy_from_slice(&checksum.to_be_bytes());
        }
    }
}

/// The headers that a type of segmentation needs, whole and not of a fragment.
fn headers(frame: &[u8], gso_type: u8) -> Result<(Network, Transport), OffloadFault> {
    const TCPV4_ECN: u8 = GSO_TCPV4 | GSO_ECN;
    const TCPV6_ECN: u8 = GSO_TCPV6 | GSO_ECN;
    let (version, kind) = match gso_type {
        GSO_TCPV4 | TCPV4_ECN => (Some(Version::V4), TransportKind::Tcp),
        GSO_TCPV6 | TCPV6_ECN => (Some(Version::V6), TransportKind::Tcp),
        GSO_UDP_L4 => (None, TransportKind::Udp),
        _ => return Err(OffloadFault::UnknownType { gso_type }),
    };
    let layers = dissect(frame, frame.len());
    match (layers.network.present(), layers.transport.present()) {
        (Some(network), Some(transport))
            if transport.kind == kind
                && version.is_none_or(|version| version == network.version)
                && network.fragment == Fragment::No
                && can_repeat_extensions(frame, &network) =>
        {
            Ok((network, transport))
        }
        _ => Err(OffloadFault::HeadersMissing {
            gso_type,
            len: frame.len(),
        }),
    }
}

/// Every segment may have the extension headers of the original: none of them speaks of one packet
/// alone. `network` was found in `frame`.
fn can_repeat_extensions(frame: &[u8], network: &Network) -> bool {
    if network.version == Version::V4 {
        return true;
    }
    let mut at = network.offset + ipv6::HEADER_LEN;
    let mut kind = frame[network.offset + ipv6::NEXT_HEADER_OFFSET];
    while at < network.payload {
        match kind {
            extension::HOP_BY_HOP | extension::ROUTING | extension::DESTINATION => {
                kind = frame[at];
                at += 8 + usize::from(frame[at + 1]) * 8;
            }
            _ => return false,
        }
    }
    true
}

/// Takes the original's length out of the sum that the sender left in the checksum field. The
/// field lies in the transport header, which is whole.
fn pseudo_without_length(
    frame: &[u8],
    network: &Network,
    transport: &Transport,
    csum_offset: u16,
) -> u16 {
    let bytes = &frame[transport.offset..];
    let word = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
    let mut sum = Sum::from_field(word(csum_offset.into()));
    match transport.kind {
        // RFC 768: UDP's pseudo header has the length that the header itself says.
        TransportKind::Udp => sum.subtract_u16(word(4)),
        _ => {
            let [.., a, b, c, d] = (network.end - transport.offset).to_be_bytes();
            sum.subtract_u16(u16::from_be_bytes([a, b]));
            sum.subtract_u16(u16::from_be_bytes([c, d]));
        }
    }
    sum.folded()
}

/// Lengths and counts that [`Segmenter::new`] has bounded.
fn narrow(len: usize) -> u16 {
    u16::try_from(len).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests;
