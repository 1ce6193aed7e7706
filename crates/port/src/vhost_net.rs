//! A Linux tap behind the kernel's vhost-net: its threads move frames between the tap and rings of ours, so that workers need no
//! system call for a frame, only kicks.
//!
//! Frames lie in buffers of our own, one for each descriptor, long enough for the longest. A frame from the tap is in one when a worker
//! sees it; a frame to the tap is copied into one, and the kernel takes it from there after the turn.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ringway_mem::{GuestMemory, LastHit, MemoryError, WriteSlice};
use ringway_ring::{
    DriverFault, DriverOptions, DriverRing, RingBase, RingError, RingFeatures, Used,
};
use ringway_vhost::kernel::{EVENT_IDX, KernelDevice, KernelError, KernelRing, VERSION_1};
use ringway_wire::vnet_hdr;

use crate::burst::{MAX_FRAME, bits, narrow};
use crate::tap::{Tap, gather};
use crate::{Burst, Counters, DropReason, Fault, Offloads, Port, Sent, Wakeup};

/// Descriptors of a ring, and buffers for it.
const SIZE: u16 = 256;
const BUFFER: usize = (vnet_hdr::LEN + MAX_FRAME).next_multiple_of(64);

/// Why a tap could not be put behind vhost-net.
#[derive(Debug, thiserror::Error)]
pub enum VhostNetError {
    /// The kernel does not want to.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// No memory for buffers.
    #[error("no memory for its buffers: {0}")]
    Memory(#[from] MemoryError),
    /// No place for rings.
    #[error("no rings: {0}")]
    Ring(#[from] RingError),
    /// No eventfd.
    #[error("no eventfd: {0}")]
    Eventfd(io::Error),
}

/// A tap behind vhost-net, as the workers see it.
pub struct VhostNet {
    tap: Arc<Tap>,
    counters: Arc<Counters>,
    queues: Vec<Queue>,
}

struct Queue {
    id: u64,
    // Before the memory: what the kernel writes to is unmapped after it was told to stop.
    _device: KernelDevice,
    memory: Arc<GuestMemory>,
    receiving: Mutex<Side>,
    receive: Bells,
    sending: Mutex<Side>,
    transmit: Bells,
}

/// A ring's eventfds.
struct Bells {
    kick: OwnedFd,
    call: OwnedFd,
}

/// A ring and its buffers.
struct Side {
    ring: DriverRing,
    /// Guest address of the first buffer.
    buffers: u64,
    /// The buffer of a chain, by the chain's name.
    buffer_of: Vec<u16>,
    /// Buffers that the kernel does not have.
    ours: Vec<u16>,
    /// The ring is broken, which was said. Nothing is asked of it any more.
    failed: bool,
}

impl VhostNet {
    /// Puts each queue of `tap` behind one of `devices`, open /dev/vhost-net that nobody owns yet.
    pub fn new(
        tap: Arc<Tap>,
        devices: Vec<OwnedFd>,
        counters: Arc<Counters>,
    ) -> Result<Self, VhostNetError> {
        let pairs = tap.descriptors().zip(devices);
        let queues: Result<_, _> = pairs.map(|(tap, device)| Queue::new(tap, device)).collect();
        Ok(Self {
            queues: queues?,
            tap,
            counters,
        })
    }

    /// The tap itself.
    pub fn tap(&self) -> &Arc<Tap> {
        &self.tap
    }
}

impl Queue {
    fn new(tap: BorrowedFd<'_>, device: OwnedFd) -> Result<Self, VhostNetError> {
        let options = DriverOptions {
            size: SIZE,
            features: RingFeatures {
                event_idx: true,
                ..RingFeatures::default()
            },
            base: RingBase::start(false),
            table: 0,
        };
        let side =
            (DriverRing::bytes(&options) + usize::from(SIZE) * BUFFER).next_multiple_of(4096);
        let memory = Arc::new(GuestMemory::identity(2 * side)?);
        let start = memory.regions().next().map_or(0, |r| r.guest_address);
        let mut receiving = Side::new(&memory, start, options)?;
        let mut sending = Side::new(&memory, start + side as u64, options)?;
        let (receive, transmit) = (Bells::new()?, Bells::new()?);
        let mut device = KernelDevice::new(
            device,
            VERSION_1 | EVENT_IDX,
            Arc::clone(&memory),
            [receive.ring(&receiving.ring), transmit.ring(&sending.ring)],
        )?;
        // What was sent is looked for when there is more to send.
        sending.ring.disable_calls();
        receiving.lend_all();
        device.attach(tap)?;
        receive.ring_kick();
        Ok(Self {
            id: crate::next_queue_id(),
            _device: device,
            memory,
            receiving: Mutex::new(receiving),
            receive,
            sending: Mutex::new(sending),
            transmit,
        })
    }

    fn buffer(&self, side: &Side, number: u16) -> Option<WriteSlice<'_>> {
        let address = side.address(number);
        self.memory
            .write(&mut LastHit::default(), address, narrow(BUFFER))
    }
}

impl Bells {
    fn new() -> Result<Self, VhostNetError> {
        use rustix::event::{EventfdFlags, eventfd};
        let new = || {
            eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
                .map_err(|error| VhostNetError::Eventfd(error.into()))
        };
        Ok(Self {
            kick: new()?,
            call: new()?,
        })
    }

    fn ring(&self, ring: &DriverRing) -> KernelRing<'_> {
        KernelRing {
            layout: ring.layout(),
            kick: self.kick.as_fd(),
            call: self.call.as_fd(),
        }
    }

    fn ring_kick(&self) {
        // A full counter is a kick that was not taken yet.
        let _ = rustix::io::write(&self.kick, &1_u64.to_ne_bytes());
    }
}

impl Side {
    fn new(
        memory: &Arc<GuestMemory>,
        address: u64,
        options: DriverOptions,
    ) -> Result<Self, RingError> {
        let rings = DriverRing::bytes(&options).next_multiple_of(64);
        Ok(Self {
            ring: DriverRing::new(memory, address, options)?,
            buffers: address + rings as u64,
            buffer_of: vec![0; usize::from(SIZE)],
            ours: (0..SIZE).rev().collect(),
            failed: false,
        })
    }

    fn address(&self, buffer: u16) -> u64 {
        self.buffers + u64::from(buffer) * BUFFER as u64
    }

    /// The next chain that the kernel is done with, and its buffer. A broken ring is an error once, and silent from then on.
    fn take_used(&mut self) -> Result<Option<(Used, u16)>, DriverFault> {
        if self.failed {
            return Ok(None);
        }
        let used = self.ring.pop_used().inspect_err(|_| self.failed = true)?;
        Ok(used.map(|used| (used, self.buffer_of[usize::from(used.id)])))
    }

    /// Stages a buffer to be written by the kernel, or `len` bytes of it to be read.
    fn stage(&mut self, buffer: u16, read: Option<u32>) -> bool {
        let address = self.address(buffer);
        let added = match read {
            Some(len) => self.ring.add(&[(address, len)], &[], false),
            None => self.ring.add(&[], &[(address, narrow(BUFFER))], false),
        };
        // There are as many buffers as descriptors.
        let Ok(id) = added else { return false };
        self.buffer_of[usize::from(id)] = buffer;
        true
    }

    /// Gives the kernel every buffer of ours to write to. True = it wants a kick.
    fn lend_all(&mut self) -> bool {
        if self.failed {
            return false;
        }
        while let Some(buffer) = self.ours.pop() {
            self.stage(buffer, None);
        }
        self.ring.publish()
    }

    /// Asks for calls. True = there is something to take already.
    fn arm(&mut self) -> bool {
        !self.failed && self.ring.enable_calls()
    }

    fn is_waiting(&self) -> bool {
        !self.failed && self.ring.has_used()
    }
}

impl Port for VhostNet {
    fn counters(&self) -> &Counters {
        &self.counters
    }

    fn receive_queues(&self) -> usize {
        self.queues.len()
    }

    fn send_queues(&self) -> usize {
        self.queues.len()
    }

    fn offloads(&self) -> Offloads {
        self.tap.offloads()
    }

    fn receive<'m>(
        &'m self,
        queue: usize,
        limit: usize,
        burst: &mut Burst<'m>,
    ) -> Result<usize, Fault> {
        let this = &self.queues[queue];
        let mut side = lock(&this.receiving);
        let mut taken = 0;
        while taken < limit && burst.bytes < burst.room {
            let Some((used, buffer)) = side.take_used().map_err(|error| fault(queue, error))?
            else {
                break;
            };
            side.ours.push(buffer);
            taken += 1;
            if let Some(slice) = this.buffer(&side, buffer) {
                let len = used.len as usize;
                gather(burst, &self.counters, slice.take(len), len);
            }
        }
        let counters = &self.counters.queues[queue].received;
        counters.count(burst.frames.len() as u64, burst.bytes);
        Ok(taken)
    }

    fn release(&self, queue: usize, _burst: &mut Burst<'_>) -> Result<(), Fault> {
        let this = &self.queues[queue];
        if lock(&this.receiving).lend_all() {
            this.receive.ring_kick();
            self.counters.queues[queue].received.count_call();
        }
        Ok(())
    }

    fn send(&self, queue: usize, burst: &Burst<'_>, picks: u64) -> Sent {
        let this = &self.queues[queue];
        let mut sent = Sent::default();
        let mut side = lock(&this.sending);
        loop {
            match side.take_used() {
                Ok(Some((_, buffer))) => side.ours.push(buffer),
                Ok(None) => break,
                Err(error) => {
                    sent.fault = Some(fault(queue, error));
                    sent.reason = Some(DropReason::Fault);
                    return sent;
                }
            }
        }
        if side.failed {
            sent.reason = Some(DropReason::Fault);
            return sent;
        }
        let mut bytes = 0;
        for i in bits(picks) {
            let Some(&buffer) = side.ours.last() else {
                sent.reason = Some(DropReason::QueueFull);
                break;
            };
            let Some(target) = this.buffer(&side, buffer) else {
                break;
            };
            let len = write(target, burst, i);
            // What was copied from memory whose file shrank is not what the guest sent.
            if burst.memory.is_some_and(GuestMemory::is_poisoned) {
                sent.reason = Some(DropReason::Fault);
                break;
            }
            side.ours.pop();
            side.stage(buffer, Some(narrow(len)));
            sent.delivered |= 1 << i;
            bytes += u64::from(burst.frames[i].len);
        }
        let kick = side.ring.publish();
        let counters = &self.counters.queues[queue].sent;
        counters.count(u64::from(sent.delivered.count_ones()), bytes);
        if kick {
            counters.count_call();
            drop(side);
            this.transmit.ring_kick();
        }
        sent
    }

    fn wakeup(&self, queue: usize) -> Wakeup<'_> {
        let this = &self.queues[queue];
        Wakeup::Memory {
            id: this.id,
            kick: Some(this.receive.call.as_fd()),
        }
    }

    fn arm(&self, queue: usize) -> bool {
        lock(&self.queues[queue].receiving).arm()
    }

    fn disarm(&self, queue: usize) {
        lock(&self.queues[queue].receiving).ring.disable_calls();
    }

    fn is_waiting(&self, queue: usize) -> bool {
        lock(&self.queues[queue].receiving).is_waiting()
    }

    fn woken(&self, queue: usize) {
        self.counters.queues[queue].received.count_kick();
    }
}

/// Writes header and frame `i` from the beginning of `target`, which has room for the longest; how many bytes that are.
fn write(target: WriteSlice<'_>, burst: &Burst<'_>, i: usize) -> usize {
    let head = &burst.heads[i].0[..vnet_hdr::LEN + burst.head_bytes(i).len()];
    let mut rest = target.skip(target.copy_from(head));
    for &piece in burst.body(i) {
        rest = rest.skip(rest.copy_from_guest(piece));
    }
    target.len() - rest.len()
}

/// The kernel is no adversary, but what it says is checked all the same.
fn fault(queue: usize, error: DriverFault) -> Fault {
    tracing::error!("vhost-net queue {queue}: {error}");
    Fault::Io {
        queue,
        error: io::ErrorKind::InvalidData,
    }
}

fn lock(side: &Mutex<Side>) -> MutexGuard<'_, Side> {
    side.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broken_ring_is_an_error_once_and_silent_from_then_on() {
        let options = DriverOptions {
            size: SIZE,
            ..DriverOptions::default()
        };
        let bytes =
            (DriverRing::bytes(&options) + usize::from(SIZE) * BUFFER).next_multiple_of(4096);
        let memory = Arc::new(GuestMemory::identity(bytes).unwrap());
        let start = memory.regions().next().unwrap().guest_address;
        let mut side = Side::new(&memory, start, options).unwrap();
        side.lend_all();
        // More chains come back than ever went out.
        let index = side.ring.layout().used + 2;
        let place = memory.write(&mut LastHit::default(), index, 2).unwrap();
        place.copy_from(&(SIZE + 1).to_le_bytes());
        assert!(side.is_waiting() && side.arm());
        assert!(matches!(
            side.take_used(),
            Err(DriverFault::UsedJump { .. })
        ));
        assert_eq!(side.take_used(), Ok(None));
        side.ours.push(0);
        assert!(!side.lend_all() && side.ours == [0]);
        assert!(!side.is_waiting() && !side.arm());
    }
}
