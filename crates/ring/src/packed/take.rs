//! Taking chains: the loop over plain descriptors, and the way to everything else.

use std::ptr;
use std::sync::Arc;

use ringway_mem::GuestMemory;

use super::place::{OWNER, Place};
use super::{Areas, PackedRing};
use crate::batch::{Batch, Chain, MAX_SEGMENTS};
use crate::descriptor::{Descriptor, INDIRECT, NEXT, SHAPE, WRITE};
use crate::error::RingFault;
use crate::gather::{Gather, Stop, Table, entry};
use crate::segment::Segment;

impl PackedRing {
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
        let size = self.areas.size();
        let mut place = self.next;
        // Descriptors that are not already ours. A driver may well mark those available again; they are none.
        let mut left = size - self.staged_slots - self.taken_slots;
        let mut hit = self.hit.clone();
        let mut taken = 0;
        while taken < want && left > 0 {
            // Whether it is available and what it says is one reading.
            let descriptor = Descriptor::from_packed(self.areas.descriptor(place.index));
            let Descriptor {
                address,
                len,
                flags,
                tag,
            } = descriptor;
            if flags & (OWNER | SHAPE) == place.available() | S::PLAIN
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
                    id: tag,
                    slots: 1,
                    first,
                    segments: 1,
                    len,
                    written: 0,
                };
                // SAFETY: `want` is at most the capacity that was left.
                unsafe { batch.chains.push_unchecked(chain) };
                taken += 1;
                left -= 1;
                place = place.forward(1, size);
                continue;
            }
            if flags & OWNER != place.available() {
                break;
            }
            match self.take_general(memory, batch, descriptor, place, left) {
                Ok(slots) => {
                    taken += 1;
                    left -= slots;
                    place = place.forward(slots, size);
                }
                // What came before the fault is good; the fault is met again by the next take.
                Err(Stop::Fault(fault)) if taken == 0 => return Err(fault),
                Err(_) => break,
            }
        }
        self.hit = hit;
        self.next = place;
        self.taken_slots = size - self.staged_slots - left;
        Ok(taken)
    }

    /// Takes one chain of any shape that begins with `head`, or leaves the batch as it was. Returns its descriptors, at most `left`.
    #[cold]
    #[inline(never)]
    fn take_general<'m, S: Segment<'m>>(
        &mut self,
        memory: &'m GuestMemory,
        batch: &mut Batch<S>,
        head: Descriptor,
        place: Place,
        left: u16,
    ) -> Result<u16, Stop> {
        let before = batch.segments.len();
        let mut gather = Gather::new(memory, &mut self.hit, &mut batch.segments);
        let table = self.table.as_deref_mut();
        let walked = walk(&self.areas, table, &mut gather, head, place, left);
        let (first, segments, len) = gather.finish();
        let (id, slots) = match walked {
            Ok(walked) => walked,
            Err(stop) => {
                batch.segments.truncate(before);
                return Err(stop);
            }
        };
        let chain = Chain {
            id,
            slots,
            first,
            segments,
            len,
            written: 0,
        };
        batch.chains.try_push(chain).map_err(|_| Stop::Full)?;
        Ok(slots)
    }
}

/// Follows a chain along the ring (virtio 1.2, 2.8.6), or through an indirect table, for which one descriptor stands alone (2.8.19).
/// Returns the id, which the last descriptor has, and the count of descriptors in the ring.
fn walk<'m, S: Segment<'m>>(
    areas: &Areas,
    table: Option<&mut Table>,
    gather: &mut Gather<'_, 'm, S>,
    head: Descriptor,
    mut place: Place,
    left: u16,
) -> Result<(u16, u16), Stop> {
    if head.flags & INDIRECT != 0 {
        let table = table.ok_or(RingFault::IndirectNotNegotiated)?;
        let count = gather.copy_table(head, table)?;
        // All of the table is the chain; NEXT and id mean nothing there (virtio 1.2, 2.8.7). DPDK's driver leaves WRITE in tables of
        // chains to be read, on the header at least. Reading those bytes harms nobody; writing without WRITE would.
        let ignored = if S::PLAIN & WRITE == 0 { WRITE } else { 0 };
        for index in 0..count {
            let descriptor = Descriptor::from_packed(entry(table, index));
            gather.table_buffer(descriptor.with_flags(descriptor.flags & !ignored))?;
        }
        return Ok((head.tag, 1));
    }
    let size = areas.size();
    let mut descriptor = head;
    let mut slots = 1;
    loop {
        gather.buffer(descriptor)?;
        if descriptor.flags & NEXT == 0 {
            return Ok((descriptor.tag, slots));
        }
        if slots == left {
            return Err(RingFault::ChainTooLong { size }.into());
        }
        slots += 1;
        place = place.forward(1, size);
        // The driver sets the flags of the first descriptor last, so the others are there.
        descriptor = Descriptor::from_packed(areas.descriptor(place.index));
        if descriptor.flags & INDIRECT != 0 {
            return Err(RingFault::IndirectWithNext.into());
        }
    }
}
