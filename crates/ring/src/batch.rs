//! What a take hands out: chains and their bytes, in caller-owned room.

use arrayvec::ArrayVec;
use ringway_mem::{ReadSlice, WriteSlice};

/// Chains that one batch holds at most.
pub const MAX_BATCH: usize = 64;

/// Slices that one batch, and therefore one chain, holds at most. Also the longest indirect table.
pub const MAX_SEGMENTS: usize = 1024;

/// A descriptor chain that was taken from a ring.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Chain {
    /// What names the chain to the driver: the head's index (split) or the buffer id (packed).
    pub id: u16,
    /// Places in the ring that it took: 1 (split) or its descriptors (packed).
    pub slots: u16,
    /// Index of its first slice in [`Batch::segments`].
    pub first: u16,
    /// Count of its slices.
    pub segments: u16,
    /// Bytes in all slices.
    pub len: u32,
    /// Bytes written, from the beginning of the chain on. The user sets it before [`complete`](crate::DeviceRing::complete).
    pub written: u32,
}

/// Chains in the order the driver made them available, and their bytes.
#[derive(Debug)]
pub struct Batch<S> {
    /// The chains.
    pub chains: ArrayVec<Chain, MAX_BATCH>,
    /// The slices of all chains, those of a chain side by side. None is empty.
    pub segments: ArrayVec<S, MAX_SEGMENTS>,
}

/// Chains to be read.
pub type ReadBatch<'m> = Batch<ReadSlice<'m>>;

/// Chains to be written.
pub type WriteBatch<'m> = Batch<WriteSlice<'m>>;

const _: () = assert!(size_of::<Chain>() == 16);
const _: () = assert!(MAX_SEGMENTS <= u16::MAX as usize);

impl<S: Copy> Batch<S> {
    /// A batch without chains.
    #[inline]
    pub const fn new() -> Self {
        Self {
            chains: ArrayVec::new_const(),
            segments: ArrayVec::new_const(),
        }
    }

    /// The slices of a chain of this batch.
    ///
    /// # Panics
    ///
    /// When the chain is of another batch and reaches beyond this one.
    #[inline]
    pub fn slices(&self, chain: &Chain) -> &[S] {
        let first = usize::from(chain.first);
        &self.segments[first..first + usize::from(chain.segments)]
    }

    /// Forgets chains and slices.
    #[inline]
    pub fn clear(&mut self) {
        self.chains.clear();
        // Slices are `Copy`: there is nothing to drop.
        self.segments.clear();
    }
}

impl<S: Copy> Default for Batch<S> {
    fn default() -> Self {
        Self::new()
    }
}
