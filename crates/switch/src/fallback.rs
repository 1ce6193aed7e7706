//! What a receiver does not take is done here, at egress only: checksums completed in the private
//! head, large frames cut into segments.

use ringway_port::ReadSlice;
use ringway_port::burst::{MAX_FRAME, bits};
use ringway_port::{Burst, DropReason, Frame, Heads, MAX_BURST, Offloads, Port, Sent};
use ringway_wire::checksum::Sum;
use ringway_wire::layers::dissect;
use ringway_wire::vnet_hdr::VnetHeader;
use ringway_wire::{eth, vlan};

use crate::offload::{Checksums, Segmenter, complete_checksum, complete_checksum_with};

/// DHCP's ports: its clients read raw sockets and take no partial checksum, whatever their kernel
/// negotiated.
const DHCP: [u16; 2] = [67, 68];

/// UDP's checksum field, counted from the header's begin.
const UDP_CHECKSUM: u16 = 6;

/// Completes the checksums of DHCP messages in `burst`.
#[cold]
pub(crate) fn complete_dhcp(burst: &mut Burst<'_>) {
    for i in bits(burst.offloaded) {
        let header = VnetHeader::from_bytes(burst.heads[i].vnet());
        if header.is_gso() || !header.needs_csum() || header.csum_offset != UDP_CHECKSUM {
            continue;
        }
        let start = usize::from(header.csum_start);
        let ports = burst.head_bytes(i).get(start..start + 4);
        let is_dhcp = ports.is_some_and(|ports| {
            ports
                .chunks_exact(2)
                .any(|port| DHCP.contains(&u16::from_be_bytes([port[0], port[1]])))
        });
        if is_dhcp {
            complete(burst, i);
        }
    }
}

/// Whether frame `i`, or a segment of it, is longer than `mtu` allows; VLAN tags do not count.
pub(crate) fn exceeds(burst: &Burst<'_>, i: usize, mtu: u16) -> bool {
    let least = eth::HEADER_LEN + usize::from(mtu);
    let len = burst.frames[i].len as usize;
    if len <= least {
        return false;
    }
    let header = VnetHeader::from_bytes(burst.heads[i].vnet());
    let len = if header.is_gso() {
        len.min(usize::from(header.hdr_len) + usize::from(header.gso_size))
    } else {
        len
    };
    let tags = dissect(burst.head_bytes(i), len).tags().len();
    len > least + tags * vlan::TAG_LEN
}

/// Completes the checksum of frame `i` in its private head. False = the field lies behind the head.
#[cold]
pub(crate) fn complete(burst: &mut Burst<'_>, i: usize) -> bool {
    let header = VnetHeader::from_bytes(burst.heads[i].vnet());
    if header.needs_csum() {
        let mut body = Sum::new();
        let mut piece = [0; 2048];
        for &segment in burst.body(i) {
            let mut rest = segment;
            while !rest.is_empty() {
                let n = rest.copy_to(&mut piece);
                body.add(&piece[..n]);
                rest = rest.skip(n);
            }
        }
        let len = usize::from(burst.frames[i].head_len);
        let head = &mut burst.heads[i].frame_mut()[..len];
        if complete_checksum_with(head, &header, body).is_err() {
            return false;
        }
    }
    *burst.heads[i].vnet_mut() = PLAIN.to_bytes();
    burst.offloaded &= !(1 << i);
    true
}

/// A header that asks for nothing.
const PLAIN: VnetHeader = VnetHeader {
    flags: 0,
    gso_type: 0,
    hdr_len: 0,
    gso_size: 0,
    csum_start: 0,
    csum_offset: 0,
    num_buffers: 1,
};

/// Where frames are laid out to be cut.
pub(crate) struct Scratch {
    linear: Box<[u8]>,
    heads: Heads,
}

impl Scratch {
    pub(crate) fn new() -> Self {
        Self {
            linear: vec![0; MAX_FRAME].into(),
            heads: Heads::new(),
        }
    }

    /// Sends frame `i` in the form the receiver takes. It counts as delivered when all of it is.
    #[cold]
    pub(crate) fn send(
        &mut self,
        port: &dyn Port,
        queue: usize,
        burst: &Burst<'_>,
        i: usize,
        takes: Offloads,
    ) -> Sent {
        let failed = Sent {
            reason: Some(DropReason::OffloadFailed),
            ..Sent::default()
        };
        let header = VnetHeader::from_bytes(burst.heads[i].vnet());
        let len = burst.frames[i].len as usize;
        let Some(frame) = self.linear.get_mut(..len) else {
            return failed;
        };
        if burst.copy_frame(i, frame) != len {
            return failed;
        }
        let mut total = Sent::default();
        if !header.is_gso() {
            if complete_checksum(frame, &header).is_err() {
                return failed;
            }
            let mut whole = Burst::new(&mut self.heads);
            whole.memory = burst.memory;
            whole.push_private(&PLAIN.to_bytes(), frame);
            add(&mut total, &port.send(queue, &whole, 1), 1);
            return finish(total, i);
        }
        let checksums = if takes.csum {
            Checksums::Partial
        } else {
            Checksums::Complete
        };
        let Ok(mut segmenter) = Segmenter::new(frame, &header, checksums) else {
            return failed;
        };
        while segmenter.remaining() > 0 {
            let mut segments = Burst::new(&mut self.heads);
            segments.memory = burst.memory;
            while segments.frames.len() < MAX_BURST {
                let head_len = segmenter.head_len();
                let head = &mut segments.heads[segments.frames.len()];
                let Some(segment) = segmenter.next(head.frame_mut()) else {
                    break;
                };
                *head.vnet_mut() = segment.header.to_bytes();
                let first = segments.batch.segments.len();
                let body = &frame[segment.body];
                segments.batch.segments.push(ReadSlice::from_private(body));
                let (Ok(frame_len), Ok(head_len), Ok(first)) = (
                    u32::try_from(head_len + body.len()),
                    u16::try_from(head_len),
                    u16::try_from(first),
                ) else {
                    return failed;
                };
                segments.push_frame(Frame {
                    len: frame_len,
                    head_len,
                    first,
                    segments: 1,
                });
            }
            let all = segments.all();
            if all == 0 {
                // Headers longer than a private head.
                return failed;
            }
            add(&mut total, &port.send(queue, &segments, all), all);
        }
        finish(total, i)
    }
}

/// Adds what became of some segments.
fn add(total: &mut Sent, sent: &Sent, picks: u64) {
    total.copied += sent.copied;
    total.fault = total.fault.or(sent.fault);
    if sent.delivered != picks {
        total.reason = sent.reason.or(Some(DropReason::NoBuffers));
    }
}

/// One frame, whole or not.
fn finish(mut total: Sent, i: usize) -> Sent {
    if total.reason.is_none() {
        total.delivered = 1 << i;
    }
    total
}
