//! A burst: up to 64 frames on their way from one receive queue.

use arrayvec::ArrayVec;
use ringway_mem::{GuestMemory, ReadSlice};
use ringway_ring::ReadBatch;
use ringway_wire::vnet_hdr;

use crate::{Counters, DropReason};

/// Frames in a burst; one bit each in a `u64`.
pub const MAX_BURST: usize = 64;

/// Bytes of a private head: the virtio-net header, the first bytes of the frame, and room for a
/// VLAN tag. Three cache lines.
pub const HEAD_BYTES: usize = 192;

/// Most frame bytes copied into a private head (at least L2-L4, see docs/ARCHITECTURE.md).
pub const HEAD_FRAME: usize = 128;

/// Longest frame carried: 65,535 bytes of IP behind an Ethernet header with two VLAN tags.
pub const MAX_FRAME: usize = 65_535 + 14 + 8;

/// Shortest frame carried: an Ethernet header.
pub const MIN_FRAME: usize = 14;

/// Private copy of a frame's beginning: 12 bytes of virtio-net header, then frame bytes.
///
/// What was judged is what is delivered: these bytes, not the guest's, go to the destination.
#[repr(C, align(64))]
#[derive(Clone, Copy)]
pub struct Head(pub [u8; HEAD_BYTES]);

const _: () = assert!(size_of::<Head>() == HEAD_BYTES && HEAD_FRAME + 12 + 4 <= HEAD_BYTES);

impl Head {
    /// The virtio-net header as it will be written to the destination.
    pub fn vnet(&self) -> &[u8; vnet_hdr::LEN] {
        self.0
            .first_chunk()
            .expect("a head is longer than a header")
    }

    /// The virtio-net header, to be changed.
    pub fn vnet_mut(&mut self) -> &mut [u8; vnet_hdr::LEN] {
        self.0
            .first_chunk_mut()
            .expect("a head is longer than a header")
    }

    /// Frame bytes; how many of them mean something is in [`Frame::head_len`].
    pub fn frame(&self) -> &[u8] {
        &self.0[vnet_hdr::LEN..]
    }

    /// Frame bytes, to be changed.
    pub fn frame_mut(&mut self) -> &mut [u8] {
        &mut self.0[vnet_hdr::LEN..]
    }
}

/// Heads of a burst; a worker owns them and lends them to one burst after another.
pub struct Heads(Box<[Head; MAX_BURST]>);

impl Heads {
    /// A head of zeros.
    pub const BLANK: Head = Head([0; HEAD_BYTES]);

    /// Zeroed heads.
    pub fn new() -> Self {
        Self(Box::new([Self::BLANK; MAX_BURST]))
    }
}

impl Default for Heads {
    fn default() -> Self {
        Self::new()
    }
}

/// Where a frame's bytes are.
#[derive(Clone, Copy, Debug, Default)]
pub struct Frame {
    /// Bytes of the whole frame, without virtio-net header.
    pub len: u32,
    /// Bytes of it in the private head.
    pub head_len: u16,
    /// First segment with the rest of it.
    pub first: u16,
    /// Segments with the rest of it.
    pub segments: u16,
}

/// Up to 64 frames from one receive queue.
pub struct Burst<'m> {
    /// Private heads, one per frame.
    pub heads: &'m mut [Head; MAX_BURST],
    /// The frames, in the order they were received.
    pub frames: ArrayVec<Frame, MAX_BURST>,
    /// Frames whose virtio-net header asks for something (checksum, segmentation), a bit each.
    pub offloaded: u64,
    /// Frame bytes of all frames.
    pub bytes: u64,
    /// No further frame is taken once there are so many bytes.
    pub room: u64,
    /// Chains that held no frame, counted where each was refused.
    pub refused: u64,
    /// Chains taken from the source ring and the bodies of the frames.
    pub batch: ReadBatch<'m>,
    /// Number of the port the frames come from, for captures.
    pub source: u32,
    /// Receive queue of that port.
    pub queue: usize,
    /// The memory the bodies lie in, when it may disappear.
    pub memory: Option<&'m GuestMemory>,
}

impl<'m> Burst<'m> {
    /// An empty burst over a worker's heads.
    pub fn new(heads: &'m mut Heads) -> Self {
        Self {
            heads: &mut heads.0,
            frames: ArrayVec::new(),
            offloaded: 0,
            bytes: 0,
            room: u64::MAX,
            refused: 0,
            batch: ReadBatch::new(),
            source: 0,
            queue: 0,
            memory: None,
        }
    }

    /// A bit for every frame.
    pub fn all(&self) -> u64 {
        match self.frames.len() {
            0 => 0,
            n => u64::MAX >> (MAX_BURST - n),
        }
    }

    /// Counts chains that hold no frame.
    pub fn refuse(&mut self, counters: &Counters, reason: DropReason, chains: usize) {
        self.refused += chains as u64;
        counters.drop_frames(reason, chains as u64);
    }

    /// Bodies of frame `i`: what follows its private head.
    pub fn body(&self, i: usize) -> &[ReadSlice<'m>] {
        let frame = &self.frames[i];
        let first = usize::from(frame.first);
        &self.batch.segments[first..first + usize::from(frame.segments)]
    }

    /// Private frame bytes of frame `i`.
    pub fn head_bytes(&self, i: usize) -> &[u8] {
        &self.heads[i].frame()[..usize::from(self.frames[i].head_len)]
    }

    /// Copies frame `i` into private memory; `out` must hold [`Frame::len`] bytes. Returns how many
    /// bytes were there to copy.
    pub fn copy_frame(&self, i: usize, out: &mut [u8]) -> usize {
        let head = self.head_bytes(i);
        let mut at = head.len().min(out.len());
        out[..at].copy_from_slice(&head[..at]);
        for segment in self.body(i) {
            at += segment.copy_to(&mut out[at..]);
        }
        at
    }

    /// Appends a frame whose bytes lie in `bytes`: the first ones are copied to the private head
    /// behind `vnet`, the rest is lent. False = the burst is full.
    pub fn push_private(&mut self, vnet: &[u8; vnet_hdr::LEN], bytes: &'m [u8]) -> bool {
        let i = self.frames.len();
        let head_len = bytes.len().min(HEAD_FRAME);
        let rest = &bytes[head_len..];
        if i == MAX_BURST || (!rest.is_empty() && self.batch.segments.is_full()) {
            return false;
        }
        let head = &mut self.heads[i];
        *head.vnet_mut() = *vnet;
        head.frame_mut()[..head_len].copy_from_slice(&bytes[..head_len]);
        let first = self.batch.segments.len();
        if !rest.is_empty() {
            self.batch.segments.push(ReadSlice::from_private(rest));
        }
        self.push_frame(Frame {
            len: narrow(bytes.len()),
            head_len: narrow16(head_len),
            first: narrow16(first),
            segments: u16::from(!rest.is_empty()),
        });
        true
    }

    /// Appends a frame whose head is in `heads[frames.len()]`; its virtio-net header says whether
    /// it is offloaded.
    pub fn push_frame(&mut self, frame: Frame) {
        let i = self.frames.len();
        let [flags, gso_type, ..] = *self.heads[i].vnet();
        if flags != 0 || gso_type != vnet_hdr::GSO_NONE {
            self.offloaded |= 1 << i;
        }
        self.bytes += u64::from(frame.len);
        self.frames.push(frame);
    }
}

/// Frame lengths are at most [`MAX_FRAME`].
pub(crate) fn narrow(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}

/// Segment numbers are at most `MAX_SEGMENTS`.
pub(crate) fn narrow16(len: usize) -> u16 {
    u16::try_from(len).unwrap_or(u16::MAX)
}

/// The bits of a mask, lowest first.
pub fn bits(mut mask: u64) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        (mask != 0).then(|| {
            let i = mask.trailing_zeros() as usize;
            mask &= mask - 1;
            i
        })
    })
}
