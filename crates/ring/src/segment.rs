//! The two directions of a take, so that one loop serves both.

use ringway_mem::{GuestMemory, LastHit, ReadSlice, WriteSlice};

use crate::descriptor::WRITE;

/// A slice of guest memory in the direction a queue needs.
pub(crate) trait Segment<'m>: Copy {
    /// The flags, of those that shape a chain, of a chain of one plain descriptor.
    const PLAIN: u16;

    /// The whole run, when it lies in one region.
    fn whole(memory: &'m GuestMemory, hit: &mut LastHit, address: u64, len: u32) -> Option<Self>;

    /// The part of the run that lies in its first region, at least one byte.
    fn prefix(memory: &'m GuestMemory, address: u64, len: u32) -> Option<Self>;

    /// Bytes.
    fn bytes(self) -> usize;

    /// Asks for the first line, in the way it will be used.
    fn prefetch_first(self);
}

impl<'m> Segment<'m> for ReadSlice<'m> {
    const PLAIN: u16 = 0;

    #[inline(always)]
    fn whole(memory: &'m GuestMemory, hit: &mut LastHit, address: u64, len: u32) -> Option<Self> {
        memory.read(hit, address, len)
    }

    fn prefix(memory: &'m GuestMemory, address: u64, len: u32) -> Option<Self> {
        memory.read_prefix(address, len)
    }

    #[inline(always)]
    fn bytes(self) -> usize {
        self.len()
    }

    #[inline(always)]
    fn prefetch_first(self) {
        self.prefetch();
    }
}

impl<'m> Segment<'m> for WriteSlice<'m> {
    const PLAIN: u16 = WRITE;

    #[inline(always)]
    fn whole(memory: &'m GuestMemory, hit: &mut LastHit, address: u64, len: u32) -> Option<Self> {
        memory.write(hit, address, len)
    }

    fn prefix(memory: &'m GuestMemory, address: u64, len: u32) -> Option<Self> {
        memory.write_prefix(address, len)
    }

    #[inline(always)]
    fn bytes(self) -> usize {
        self.len()
    }

    #[inline(always)]
    fn prefetch_first(self) {
        // What lies behind a device's header is written. Where the header has the end of a line to itself, it is looked at first
        // and rarely written.
        self.skip(16).prefetch_write();
        if self.line_offset() >= 48 {
            self.as_read().prefetch();
        }
    }
}
