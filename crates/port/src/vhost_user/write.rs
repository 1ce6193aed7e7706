//! How a frame is written into receive buffers: into one, or over several.

use ringway_mem::{DirtyLog, GuestMemory, ReadSlice, WriteSlice};
use ringway_ring::{Chain, WriteBatch};
use ringway_wire::vnet_hdr;

use crate::Burst;
use crate::burst::narrow;

/// Writes frame `i` into one buffer that has room for it.
#[inline(always)]
pub(super) fn write_whole(target: WriteSlice<'_>, burst: &Burst<'_>, i: usize) {
    let head = &burst.heads[i];
    let frame_head = burst.head_bytes(i);
    let mut rest = if target.line_offset() == HEADER_ALONE {
        target.copy_changed_from(head.vnet());
        let frame = target.skip(vnet_hdr::LEN);
        frame.skip(frame.copy_from(frame_head))
    } else {
        let private = &head.0[..vnet_hdr::LEN + frame_head.len()];
        target.skip(target.copy_from(private))
    };
    for &piece in burst.body(i) {
        rest = rest.skip(rest.copy_from_guest(piece));
    }
}

/// Marks the pages of what was written to these chains of `out`, and says whether the marks are there to stay.
#[cold]
#[inline(never)]
pub(super) fn mark(
    log: &DirtyLog,
    memory: &GuestMemory,
    out: &WriteBatch<'_>,
    chains: &[Chain],
) -> bool {
    for chain in chains {
        let mut left = chain.written as usize;
        for &segment in out.slices(chain) {
            let written = segment.take(left);
            left -= written.len();
            if let Some(address) = memory
                .guest_address(written)
                .filter(|_| !written.is_empty())
            {
                log.mark(address, written.len() as u64);
            }
        }
    }
    !log.is_poisoned()
}

/// Where in its cache line a buffer begins whose header fills the line up, as DPDK's drivers lay them
/// out. Frame after frame the header is the same there, and left alone the line stays in the
/// driver's cache.
const HEADER_ALONE: usize = 64 - vnet_hdr::LEN;

/// Writes one frame over consecutive chains; every buffer but the last is filled.
pub(super) struct Scatter<'b, 'm> {
    out: &'b mut WriteBatch<'m>,
    chain: usize,
    /// Segment within the chain.
    segment: u16,
    target: Option<WriteSlice<'m>>,
}

impl<'b, 'm> Scatter<'b, 'm> {
    /// From chain `chain` of `out` on.
    pub(super) fn new(out: &'b mut WriteBatch<'m>, chain: usize) -> Self {
        Self {
            out,
            chain,
            segment: 0,
            target: None,
        }
    }

    pub(super) fn put_private(&mut self, bytes: &[u8]) {
        self.put(ReadSlice::from_private(bytes));
    }

    pub(super) fn put(&mut self, mut piece: ReadSlice<'_>) {
        while !piece.is_empty() {
            let Some(target) = self.target.filter(|target| !target.is_empty()) else {
                if !self.advance() {
                    return;
                }
                continue;
            };
            let n = target.copy_from_guest(piece);
            self.out.chains[self.chain].written += narrow(n);
            self.target = Some(target.skip(n));
            piece = piece.skip(n);
        }
    }

    /// To the next segment, of this chain or of the next one.
    fn advance(&mut self) -> bool {
        loop {
            let Some(&Chain {
                first, segments, ..
            }) = self.out.chains.get(self.chain)
            else {
                return false;
            };
            if self.segment < segments {
                self.target = Some(self.out.segments[usize::from(first + self.segment)]);
                self.segment += 1;
                return true;
            }
            self.chain += 1;
            self.segment = 0;
        }
    }
}
