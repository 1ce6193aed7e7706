//! Taking chains: the loop over plain descriptors, and the way to everything else.

use std::ptr;
use std::sync::Arc;

use ringway_mem::GuestMemory;

use super::{Areas, SplitRing};
use crate::batch::{Batch, Chain, MAX_BATCH, MAX_SEGMENTS};
use crate::descriptor::{Descriptor, INDIRECT, NEXT, SHAPE};
use crate::error::RingFault;
use crate::gather::{Gather, Stop, Table, entry};
use crate::segment::Segment;

impl SplitRing {
    /// See [`DeviceRing::take_readable`](crate::DeviceRing::take_readable).
    #[inline(always)]
    pub(crate) fn take<'m, S: Segment<'m>>(
        &mut self,
        memory: &'m GuestMemory,
        batch: &mut Batch<S>,
        max: usize,
    ) -> Result<usize, RingFault> {
        if !ptr::eq(memory, Arc::as_ptr(self.areas.memory())) {
            return Err(RingFault::ForeignMemory);
        }
        let want = max.min(batch.chains.remaining_capacity());
        let ready = self.ready(want)?;
        let count = want.min(ready);

        // First all heads, so that the descriptors are on their way while the rest is looked at.
        let mut heads = [0; MAX_BATCH];
        let mut index = self.next;
        for head in &mut heads[..count] {
            *head = self.areas.head(index);
            self.areas.prefetch_descriptor(*head);
            index = index.wrapping_add(1);
        }

        let mut hit = self.hit.clone();
        let mut taken = 0_u16;
        for &head in &heads[..count] {
            if head < self.areas.size() {
                let Descriptor {
                    address,
                    len,
                    flags,
                    ..
                } = Descriptor::from_split(self.areas.descriptor(head));
                if flags & SHAPE == S::PLAIN
                    && len > 0
                    && batch.segments.len() < MAX_SEGMENTS
                    && let Some(slice) = S::whole(memory, &mut hit, address, len)
                {
                    slice.prefetch_first();
                    #[expect(clippy::cast_possible_truncation, reason = "at most MAX_SEGMENTS")]
                    let first = batch.segments.len() as u16;
                    // SAFETY: the length was just compared with the capacity.
                    unsafe { batch.segments.push_unchecked(slice) };
                    let chain = Chain {
                        id: head,
                        slots: 1,
                        first,
                        segments: 1,
                        len,
                        written: 0,
                    };
                    // SAFETY: `count` is at most the capacity that was left.
                    unsafe { batch.chains.push_unchecked(chain) };
                    taken += 1;
                    continue;
                }
            }
            match self.take_general(memory, batch, head) {
                Ok(()) => taken += 1,
                // What came before the fault is good; the fault is met again by the next take.
                Err(Stop::Fault(fault)) if taken == 0 => return Err(fault),
                Err(_) => break,
            }
        }
        self.hit = hit;
        self.next = self.next.wrapping_add(taken);
        Ok(usize::from(taken))
    }

    /// Chains that are available, counted up to what the ring may have. Loads the index only when it knows of fewer than `want`.
    #[inline(always)]
    fn ready(&mut self, want: usize) -> Result<usize, RingFault> {
        let mut ready = self.known.wrapping_sub(self.next);
        if usize::from(ready) < want {
            let index = self.areas.available_index();
            ready = index.wrapping_sub(self.next);
            let taken = self.next.wrapping_sub(self.published);
            if u32::from(ready) + u32::from(taken) > u32::from(self.areas.size()) {
                let (used, size) = (self.published, self.areas.size());
                return Err(RingFault::AvailableJump { index, used, size });
            }
            self.known = index;
        }
        Ok(usize::from(ready))
    }

    /// Takes one chain of any shape, or leaves the batch as it was.
    #[cold]
    #[inline(never)]
    fn take_general<'m, S: Segment<'m>>(
        &mut self,
        memory: &'m GuestMemory,
        batch: &mut Batch<S>,
        head: u16,
    ) -> Result<(), Stop> {
        let before = batch.segments.len();
        let mut gather = Gather::new(memory, &mut self.hit, &mut batch.segments);
        let walked = walk(&self.areas, self.table.as_deref_mut(), &mut gather, head);
        let (first, segments, len) = gather.finish();
        if let Err(stop) = walked {
            batch.segments.truncate(before);
            return Err(stop);
        }
        let chain = Chain {
            id: head,
            slots: 1,
            first,
            segments,
            len,
            written: 0,
        };
        batch.chains.try_push(chain).map_err(|_| Stop::Full)
    }
}

/// Follows a chain through the descriptor table and, at its end, perhaps through an indirect one (virtio 1.2, 2.7.5.3.2).
fn walk<'m, S: Segment<'m>>(
    areas: &Areas,
    table: Option<&mut Table>,
    gather: &mut Gather<'_, 'm, S>,
    head: u16,
) -> Result<(), Stop> {
    let size = areas.size();
    if head >= size {
        return Err(RingFault::HeadOutOfRange { head, size }.into());
    }
    let mut index = head;
    for _ in 0..size {
        let descriptor = Descriptor::from_split(areas.descriptor(index));
        if descriptor.flags & INDIRECT != 0 {
            let table = table.ok_or(RingFault::IndirectNotNegotiated)?;
            let count = gather.copy_table(descriptor, table)?;
            return walk_table(table, count, gather);
        }
        gather.buffer(descriptor)?;
        if descriptor.flags & NEXT == 0 {
            return Ok(());
        }
        index = descriptor.tag;
        if index >= size {
            return Err(RingFault::NextOutOfRange { next: index, size }.into());
        }
    }
    Err(RingFault::ChainTooLong { size }.into())
}

/// Follows a chain through the copy of a table of `size` descriptors; it begins with the first one.
fn walk_table<'m, S: Segment<'m>>(
    table: &Table,
    size: u16,
    gather: &mut Gather<'_, 'm, S>,
) -> Result<(), Stop> {
    let mut index = 0;
    for _ in 0..size {
        let descriptor = Descriptor::from_split(entry(table, index));
        gather.table_buffer(descriptor)?;
        if descriptor.flags & NEXT == 0 {
            return Ok(());
        }
        index = descriptor.tag;
        if index >= size {
            return Err(RingFault::NextOutOfRange { next: index, size }.into());
        }
    }
    Err(RingFault::ChainTooLong { size }.into())
}
