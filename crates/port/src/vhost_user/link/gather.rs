//! From a chain to a frame: its beginning is copied into a private head and judged there.

use ringway_ring::Chain;
use ringway_wire::vnet_hdr::{self, VnetHeader};

use super::Link;
use crate::burst::{HEAD_FRAME, Head, MAX_FRAME, MIN_FRAME, narrow, narrow16};
use crate::{Burst, DropReason, Frame};

/// A header that asks for nothing, in one buffer.
pub(super) const PLAIN: [u8; vnet_hdr::LEN] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0];

impl Link {
    /// Copies the beginning of chain `chain` into the next private head and pushes the frame, or
    /// counts why there is none.
    #[inline]
    pub(super) fn gather(&self, burst: &mut Burst<'_>, chain: usize) {
        let Chain {
            first,
            segments,
            len,
            ..
        } = burst.batch.chains[chain];
        let len = len as usize;
        let Some(frame_len) = len
            .checked_sub(self.header_len)
            .filter(|&len| len >= MIN_FRAME)
        else {
            return burst.refuse(&self.counters, DropReason::TooShort, 1);
        };
        if frame_len > MAX_FRAME {
            return burst.refuse(&self.counters, DropReason::TooLong, 1);
        }
        let index = burst.frames.len();
        let wanted = vnet_hdr::LEN + HEAD_FRAME.min(frame_len);
        let mut frame = Frame {
            len: narrow(frame_len),
            head_len: narrow16(wanted - vnet_hdr::LEN),
            first,
            segments: 0,
        };
        let segment = burst.batch.segments[usize::from(first)];
        if segments == 1 && self.header_len == vnet_hdr::LEN {
            segment.copy_to(&mut burst.heads[index].0[..wanted]);
            if len > wanted {
                burst.batch.segments[usize::from(first)] = segment.skip(wanted);
                frame.segments = 1;
            }
        } else {
            self.gather_pieces(burst, &mut frame, segments);
        }
        let head = &mut burst.heads[index];
        let vnet = head.vnet_mut();
        if vnet[0] == 0 && vnet[1] == vnet_hdr::GSO_NONE {
            *vnet = PLAIN;
        } else if !self.judge(head, &frame) {
            return burst.refuse(&self.counters, DropReason::BadHeader, 1);
        }
        burst.push_frame(frame);
    }

    /// The same for a chain of several segments or a 10-byte header.
    #[cold]
    fn gather_pieces(&self, burst: &mut Burst<'_>, frame: &mut Frame, segments: u16) {
        let Head(head) = &mut burst.heads[burst.frames.len()];
        let end = vnet_hdr::LEN + usize::from(frame.head_len);
        let run = usize::from(frame.first)..usize::from(frame.first + segments);
        let mut at = 0;
        for i in run.clone() {
            let segment = &mut burst.batch.segments[i];
            // A legacy header is 10 bytes; the frame still begins at 12 in the private copy.
            if at < self.header_len {
                let n = segment.copy_to(&mut head[at..self.header_len]);
                *segment = segment.skip(n);
                at += n;
                if at < self.header_len {
                    continue;
                }
                at = vnet_hdr::LEN;
            }
            let n = segment.copy_to(&mut head[at..end]);
            *segment = segment.skip(n);
            at += n;
            if at == end {
                let (first, rest) = if segment.is_empty() {
                    (i + 1, run.end)
                } else {
                    (i, run.end)
                };
                frame.first = narrow16(first);
                frame.segments = narrow16(rest - first);
                return;
            }
        }
    }

    /// Checks a header that asks for something and writes it back as judged: unknown bits and
    /// fields that only a receiver's header has are cleared, the length of the headers is our own.
    #[cold]
    fn judge(&self, head: &mut Head, frame: &Frame) -> bool {
        let header = VnetHeader::from_bytes(head.vnet());
        let (len, bytes) = (frame.len as usize, head.frame());
        let clean = header
            .normalized(len, vnet_hdr::F_NEEDS_CSUM)
            .with_measured_hdr_len(&bytes[..usize::from(frame.head_len)], len);
        *head.vnet_mut() = clean.to_bytes();
        header.validate(len, self.asks).is_ok()
    }
}
