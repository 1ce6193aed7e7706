//! The general way through a chain, for all that is not one plain descriptor: several descriptors, indirect tables, runs that span
//! regions, and every lie. It is shared by both ring formats; only the walk through the ring itself differs.
//!
//! Nothing here trusts a count: the caller bounds the walk through the ring by its size and the walk through a table by the table's
//! length, and the batch bounds the pieces.

use arrayvec::ArrayVec;
use ringway_mem::{GuestMemory, LastHit};

use crate::batch::MAX_SEGMENTS;
use crate::descriptor::{BYTES, Descriptor, INDIRECT, NEXT, WRITE};
use crate::error::RingFault;
use crate::segment::Segment;

/// Room for the copy of one indirect table.
pub(crate) type Table = [u8; MAX_SEGMENTS * BYTES];

/// Why a chain was not taken.
#[derive(Debug)]
pub(crate) enum Stop {
    /// The batch has no room for it beside those that it holds.
    Full,
    /// The driver broke a rule.
    Fault(RingFault),
}

impl From<RingFault> for Stop {
    fn from(fault: RingFault) -> Self {
        Self::Fault(fault)
    }
}

/// Collects the pieces of one chain. When it stops, the pieces pushed so far are left for the caller to cut off.
pub(crate) struct Gather<'b, 'm, S> {
    memory: &'m GuestMemory,
    hit: &'b mut LastHit,
    segments: &'b mut ArrayVec<S, MAX_SEGMENTS>,
    /// Pieces of other chains before ours.
    before: usize,
    total: u64,
    /// Descriptors without bytes, which leave no piece to count.
    empty: usize,
    written: bool,
}

impl<'b, 'm, S: Segment<'m>> Gather<'b, 'm, S> {
    pub(crate) fn new(
        memory: &'m GuestMemory,
        hit: &'b mut LastHit,
        segments: &'b mut ArrayVec<S, MAX_SEGMENTS>,
    ) -> Self {
        Self {
            memory,
            hit,
            before: segments.len(),
            segments,
            total: 0,
            empty: 0,
            written: false,
        }
    }

    /// The bytes of one descriptor that is not indirect.
    pub(crate) fn buffer(&mut self, descriptor: Descriptor) -> Result<(), Stop> {
        let writable = descriptor.flags & WRITE != 0;
        if writable != (S::PLAIN & WRITE != 0) {
            return Err(if self.written && !writable {
                RingFault::ReadableAfterWritable.into()
            } else {
                RingFault::WrongDirection { writable }.into()
            });
        }
        self.written |= writable;
        let Descriptor { address, len, .. } = descriptor;
        self.total += u64::from(len);
        if self.total > u64::from(u32::MAX) {
            return Err(RingFault::TotalTooLong { total: self.total }.into());
        }
        if len == 0 {
            self.empty += 1;
            return if self.empty > MAX_SEGMENTS {
                Err(RingFault::TooManySegments { max: MAX_SEGMENTS }.into())
            } else {
                Ok(())
            };
        }
        match S::whole(self.memory, self.hit, address, len) {
            Some(slice) => self.push(slice),
            None => self.pieces(address, len),
        }
    }

    /// A run that spans regions.
    fn pieces(&mut self, mut address: u64, mut len: u32) -> Result<(), Stop> {
        while len > 0 {
            let unmapped = RingFault::Unmapped { address, len };
            let slice = S::prefix(self.memory, address, len).ok_or(unmapped)?;
            self.push(slice)?;
            // A piece is no longer than what was asked for, and not empty.
            let done = u32::try_from(slice.bytes()).unwrap_or(len).clamp(1, len);
            len -= done;
            if len > 0 {
                address = address.checked_add(u64::from(done)).ok_or(unmapped)?;
            }
        }
        Ok(())
    }

    fn push(&mut self, slice: S) -> Result<(), Stop> {
        slice.prefetch_first();
        self.segments.try_push(slice).map_err(|_| {
            if self.before > 0 {
                Stop::Full
            } else {
                RingFault::TooManySegments { max: MAX_SEGMENTS }.into()
            }
        })
    }

    /// Copies the table of an indirect descriptor into `table` and returns its count of descriptors. The table may span regions; our
    /// copy is what is walked.
    pub(crate) fn copy_table(
        &mut self,
        descriptor: Descriptor,
        table: &mut Table,
    ) -> Result<u16, RingFault> {
        if descriptor.flags & NEXT != 0 {
            return Err(RingFault::IndirectWithNext);
        }
        let Descriptor {
            mut address,
            mut len,
            ..
        } = descriptor;
        let size = len as usize;
        if size == 0 || !size.is_multiple_of(BYTES) || size > size_of::<Table>() {
            let max = MAX_SEGMENTS;
            return Err(RingFault::IndirectLength { len, max });
        }
        let mut at = 0;
        while at < size {
            let unmapped = RingFault::Unmapped { address, len };
            let piece = self.memory.read_prefix(address, len).ok_or(unmapped)?;
            let done = piece.copy_to(&mut table[at..size]).max(1);
            at += done;
            len = u32::try_from(size - at).unwrap_or(0);
            if len > 0 {
                address = address.checked_add(done as u64).ok_or(unmapped)?;
            }
        }
        u16::try_from(size / BYTES).map_err(|_| RingFault::IndirectLength {
            len,
            max: MAX_SEGMENTS,
        })
    }

    /// A descriptor of a copied table, refusing a table in a table.
    pub(crate) fn table_buffer(&mut self, descriptor: Descriptor) -> Result<(), Stop> {
        if descriptor.flags & INDIRECT != 0 {
            return Err(RingFault::NestedIndirect.into());
        }
        self.buffer(descriptor)
    }

    /// First piece, count of pieces and bytes of the chain.
    pub(crate) fn finish(self) -> (u16, u16, u32) {
        // Pieces are at most MAX_SEGMENTS, the total was checked with each descriptor.
        let first = u16::try_from(self.before).unwrap_or(u16::MAX);
        let count = u16::try_from(self.segments.len() - self.before).unwrap_or(u16::MAX);
        (first, count, u32::try_from(self.total).unwrap_or(u32::MAX))
    }
}

/// A table to copy into, of zeroes.
pub(crate) fn empty_table() -> Box<Table> {
    // Zeroed without passing over the stack.
    vec![0; size_of::<Table>()]
        .into_boxed_slice()
        .try_into()
        .unwrap_or_else(|_| Box::new([0; size_of::<Table>()]))
}

/// Descriptor `index` of a copied table.
pub(crate) fn entry(table: &Table, index: u16) -> [u64; 2] {
    let (entries, _) = table.as_chunks::<BYTES>();
    Descriptor::words(&entries[usize::from(index)])
}
