//! The data path of a vhost-user port: what the workers see of it.
//!
//! A link is immutable. It is built by [`Device`](super::Device) from what the front-end has said,
//! and replaced as a whole when that changes; rings that stay as they were are shared by the old
//! link and the new one.

mod gather;

use std::sync::Arc;

use ringway_mem::{DirtyLog, GuestMemory};
use ringway_ring::{DeviceRing, WriteBatch};
use ringway_wire::vnet_hdr;

use super::queue::Queue;
use super::write::{Scatter, mark, write_whole};
use crate::burst::{bits, narrow};
use crate::{Burst, Counters, DropReason, Fault, Offloads, Port, Sent, Wakeup};

/// Bytes copied per hold of a destination's lock, so that one sender's bulk does not keep the
/// others waiting.
const HOLD_BYTES: u64 = 64 * 1024;

/// A vhost-user port as the workers see it.
pub struct Link {
    pub(super) counters: Arc<Counters>,
    pub(super) memory: Arc<GuestMemory>,
    /// By queue pair; `None` = not started.
    pub(super) from_guest: Vec<Option<Source>>,
    /// Started and enabled ones only.
    pub(super) to_guest: Vec<Arc<Queue>>,
    /// Bytes of the virtio-net header in guest memory: 12, or 10 for legacy drivers.
    pub(super) header_len: usize,
    pub(super) mergeable: bool,
    /// What the guest takes.
    pub(super) takes: Offloads,
    /// What the guest may ask of us.
    pub(super) asks: Offloads,
    /// What the guest was told (virtio 1.2, 5.1.4.1).
    pub(super) mtu: Option<u16>,
}

/// A started transmit ring of the guest.
#[derive(Clone)]
pub(super) struct Source {
    pub(super) queue: Arc<Queue>,
    /// The ring is started but disabled: what it holds is discarded (vhost-user, "Ring states").
    pub(super) discard: bool,
}

impl Port for Link {
    fn counters(&self) -> &Counters {
        &self.counters
    }

    fn receive_queues(&self) -> usize {
        self.from_guest.len()
    }

    fn send_queues(&self) -> usize {
        self.to_guest.len()
    }

    fn offloads(&self) -> Offloads {
        self.takes
    }

    fn mtu(&self) -> Option<u16> {
        self.mtu
    }

    fn receive<'m>(
        &'m self,
        queue: usize,
        limit: usize,
        burst: &mut Burst<'m>,
    ) -> Result<usize, Fault> {
        let Some(Some(source)) = self.from_guest.get(queue) else {
            return Ok(0);
        };
        let ring = &source.queue;
        burst.memory = Some(&self.memory);
        let Some(mut device) = ring.enter() else {
            return Ok(0);
        };
        let taken = device
            .take_readable(&self.memory, &mut burst.batch, limit)
            .map_err(|fault| self.fail(ring, fault))?;
        drop(device);
        // A ring whose memory disappeared may look as if there were nothing in it.
        if taken == 0 && self.memory.is_poisoned() {
            return Err(self.lost(ring));
        }
        if source.discard {
            burst.refuse(&self.counters, DropReason::RingDisabled, taken);
            return Ok(taken);
        }
        let mut taken = taken;
        for chain in 0..taken {
            if burst.bytes >= burst.room {
                put_back(ring, burst, chain);
                taken = chain;
                break;
            }
            self.gather(burst, chain);
        }
        self.counters.queues[queue]
            .received
            .count(burst.frames.len() as u64, burst.bytes);
        Ok(taken)
    }

    fn release(&self, queue: usize, burst: &mut Burst<'_>) -> Result<(), Fault> {
        let Some(Some(Source { queue: ring, .. })) = self.from_guest.get(queue) else {
            return Ok(());
        };
        let Some(mut device) = ring.enter() else {
            return Ok(());
        };
        device.complete(&burst.batch.chains);
        if self.memory.is_poisoned() || device.log().is_some_and(DirtyLog::is_poisoned) {
            device.discard_staged();
            return Err(self.lost(ring));
        }
        let call = device.publish_older();
        drop(device);
        if call {
            ring.call();
            self.counters.queues[queue].received.count_call();
        }
        Ok(())
    }

    fn send(&self, queue: usize, burst: &Burst<'_>, picks: u64) -> Sent {
        let mut sent = Sent::default();
        let Some(ring) = self.to_guest.get(queue).filter(|ring| !ring.has_failed()) else {
            sent.reason = Some(DropReason::NotConnected);
            return sent;
        };
        let mut rest = picks;
        while rest != 0 {
            let hold = portion(burst, rest);
            rest &= !hold;
            rest |= self.send_portion(ring, burst, hold, &mut sent);
            if sent.fault.is_some() {
                break;
            }
        }
        sent
    }

    fn wakeup(&self, queue: usize) -> Wakeup<'_> {
        match self.from_guest.get(queue) {
            Some(Some(Source { queue, .. })) => Wakeup::Memory {
                id: queue.id,
                kick: queue.kick(),
            },
            _ => Wakeup::Never,
        }
    }

    fn arm(&self, queue: usize) -> bool {
        match self.from_guest.get(queue) {
            Some(Some(Source { queue, .. })) => {
                queue.enter().is_some_and(|mut ring| ring.enable_kicks())
            }
            _ => false,
        }
    }

    fn settle(&self, queue: usize) {
        if let Some(Some(source)) = self.from_guest.get(queue)
            && source.queue.settle()
        {
            self.counters.queues[queue].received.count_call();
        }
    }

    fn is_waiting(&self, queue: usize) -> bool {
        match self.from_guest.get(queue) {
            Some(Some(Source { queue, .. })) => {
                queue.enter().is_some_and(|ring| ring.has_available())
            }
            _ => false,
        }
    }

    fn disarm(&self, queue: usize) {
        if let Some(Some(Source { queue, .. })) = self.from_guest.get(queue)
            && let Some(mut ring) = queue.enter()
        {
            ring.disable_kicks();
        }
    }

    fn woken(&self, queue: usize) {
        self.counters.queues[queue].received.count_kick();
    }
}

impl Link {
    /// One hold of the destination's lock: take buffers, copy, publish once. Returns the picks that
    /// wait for the next hold, because they need more chains than the batch has room for.
    fn send_portion(&self, queue: &Queue, burst: &Burst<'_>, picks: u64, sent: &mut Sent) -> u64 {
        let Some(mut ring) = queue.enter_to_send(&self.counters) else {
            sent.reason = Some(DropReason::NotConnected);
            return 0;
        };
        let mut out = WriteBatch::new();
        let wanted = picks.count_ones() as usize;
        if let Err(fault) = ring.take_writable(&self.memory, &mut out, wanted) {
            ring.untake(&out.chains);
            drop(ring);
            sent.reason = Some(DropReason::Fault);
            sent.fault = Some(self.fail(queue, fault));
            return 0;
        }
        let mut used = 0;
        let mut delivered = 0u64;
        let mut bytes = 0u64;
        let mut later = 0;
        for i in bits(picks) {
            let frame = burst.frames[i];
            let need = self.header_len + frame.len as usize;
            match out.chains.get_mut(used) {
                Some(chain)
                    if chain.segments == 1
                        && chain.len as usize >= need
                        && self.header_len == vnet_hdr::LEN =>
                {
                    let target = out.segments[usize::from(chain.first)];
                    chain.written = narrow(need);
                    used += 1;
                    // A buffer of no bytes has no piece.
                    let next = out.chains.get(used).map(|next| usize::from(next.first));
                    if frame.segments != 0
                        && let Some(next) = next.and_then(|first| out.segments.get(first))
                    {
                        // Stores wait for their lines in order: fetch the next frame's meanwhile.
                        next.take(need).prefetch_write_all();
                    }
                    write_whole(target, burst, i);
                }
                _ => match self.scatter(&mut ring, &mut out, used, burst, i) {
                    Ok(chains) => used += chains,
                    Err(NoRoom::Batch) if used > 0 => {
                        later = picks >> i << i;
                        break;
                    }
                    Err(no_room) => {
                        let reason = no_room.reason();
                        sent.reason = Some(reason);
                        continue;
                    }
                },
            }
            delivered |= 1 << i;
            bytes += u64::from(frame.len);
        }
        // After the copies, and before the driver learns of them.
        let marked = ring
            .log()
            .is_none_or(|log| mark(log, &self.memory, &out, &out.chains[..used]));
        ring.complete(&out.chains[..used]);
        ring.untake(&out.chains[used..]);
        let lost = !marked || self.memory.is_poisoned();
        if lost || burst.memory.is_some_and(GuestMemory::is_poisoned) {
            ring.discard_staged();
            drop(ring);
            sent.reason = Some(DropReason::Fault);
            if lost {
                sent.fault = Some(self.lost(queue));
            }
            return 0;
        }
        if used == 0 {
            return later;
        }
        let call = ring.publish();
        let counters = &self.counters.queues[queue.index / 2].sent;
        counters.count(u64::from(delivered.count_ones()), bytes);
        sent.delivered |= delivered;
        sent.copied += bytes;
        if call {
            counters.count_call();
            drop(ring);
            queue.call();
        }
        later
    }

    /// Writes frame `i` into as many chains as it needs, from `out.chains[used]` on; more are taken
    /// when the batch has too few. The whole frame or nothing. Returns the chains used.
    #[cold]
    fn scatter<'m>(
        &'m self,
        ring: &mut DeviceRing,
        out: &mut WriteBatch<'m>,
        used: usize,
        burst: &Burst<'_>,
        i: usize,
    ) -> Result<usize, NoRoom> {
        let need = self.header_len + burst.frames[i].len as usize;
        let mut room = 0;
        let mut chains = 0;
        while room < need {
            if chains == 1 && !self.mergeable {
                return Err(NoRoom::Buffer);
            }
            if used + chains == out.chains.len() && !self.take_more(ring, out, need - room) {
                // An empty batch that got nothing was too early, be there something by now.
                return Err(if !out.chains.is_empty() && ring.has_available() {
                    NoRoom::Batch
                } else {
                    NoRoom::Ring
                });
            }
            room += out.chains[used + chains].len as usize;
            chains += 1;
        }
        let mut head = burst.heads[i];
        let count = u16::try_from(chains).unwrap_or(u16::MAX).to_le_bytes();
        head.vnet_mut()[vnet_hdr::LEGACY_LEN..].copy_from_slice(&count);
        let mut scatter = Scatter::new(out, used);
        scatter.put_private(&head.vnet()[..self.header_len]);
        scatter.put_private(&head.frame()[..usize::from(burst.frames[i].head_len)]);
        for &piece in burst.body(i) {
            scatter.put(piece);
        }
        Ok(chains)
    }

    /// More chains at the end of the batch, as many as `need` bytes will take when they are as long as
    /// the last one. A fault met here is met again, and reported, by the next hold.
    fn take_more<'m>(
        &'m self,
        ring: &mut DeviceRing,
        out: &mut WriteBatch<'m>,
        need: usize,
    ) -> bool {
        let last = out.chains.last().map_or(need, |chain| chain.len as usize);
        let count = need.div_ceil(last.max(1));
        matches!(ring.take_writable(&self.memory, out, count), Ok(taken) if taken > 0)
    }

    fn fail(&self, queue: &Queue, fault: ringway_ring::RingFault) -> Fault {
        // Of a ring whose memory disappeared zeroes are read, which is no lie of the driver's.
        if self.memory.is_poisoned() {
            return self.lost(queue);
        }
        let ring = queue.index;
        self.stop(queue, Fault::Ring { ring, fault })
    }

    fn lost(&self, queue: &Queue) -> Fault {
        self.stop(queue, Fault::MemoryLost { ring: queue.index })
    }

    fn stop(&self, queue: &Queue, fault: Fault) -> Fault {
        queue.fail();
        self.counters.count_fault(&fault);
        fault
    }
}

/// The chains from `first` on wait for their queue's next turn.
#[cold]
fn put_back(ring: &Queue, burst: &mut Burst<'_>, first: usize) {
    ring.lock().untake(&burst.batch.chains[first..]);
    burst.batch.chains.truncate(first);
}

/// Why a frame cannot be written now.
enum NoRoom {
    /// The chain is too short and may not be continued in another.
    Buffer,
    /// The ring has no more chains.
    Ring,
    /// The batch takes no more chains, or no more pieces.
    Batch,
}

impl NoRoom {
    fn reason(&self) -> DropReason {
        match self {
            Self::Ring => DropReason::NoBuffers,
            // Not even an empty batch takes as many chains of this size as the frame needs.
            Self::Buffer | Self::Batch => DropReason::BufferTooSmall,
        }
    }
}

/// The first picks whose frames make up one hold.
fn portion(burst: &Burst<'_>, picks: u64) -> u64 {
    if burst.bytes <= HOLD_BYTES {
        return picks;
    }
    let mut bytes = 0;
    let mut hold = 0;
    for i in bits(picks) {
        bytes += u64::from(burst.frames[i].len);
        if hold != 0 && bytes > HOLD_BYTES {
            break;
        }
        hold |= 1 << i;
    }
    hold
}

#[cfg(test)]
mod tests;
