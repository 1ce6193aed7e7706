//! Ports of the switch: where frames come from and go to, one file or folder per kind.
//!
//! A port is what the workers see: an immutable view of one attachment, shared by `Arc` in the
//! switch's snapshot. Whatever changes a port (a driver starts, memory is remapped, a ring stops)
//! makes a new view; the old one is dropped after every worker has let go of it.
//!
//! A frame's way through a port, per burst of at most 64:
//!
//! 1. [`Port::receive`] takes chains from a queue and fills a [`Burst`]: the virtio-net header and
//!    the first bytes of each frame become private, the rest stays where it is.
//! 2. The switch decides on the private bytes alone.
//! 3. [`Port::send`] of each destination writes the private bytes and copies the rest, once.
//! 4. [`Port::release`] gives the chains back, in the order they were taken.

#![warn(missing_docs)]

pub mod burst;
pub mod capture;
pub mod counters;
pub mod generator;
pub mod pcapng;
pub mod sink;
pub mod tap;
pub mod vhost_net;
pub mod vhost_user;

use std::os::fd::BorrowedFd;

pub use burst::{Burst, Frame, Head, Heads, MAX_BURST};
pub use counters::{Counters, DropReason, QueueCounters};
pub use ringway_mem::{MemoryError as GuardError, ReadSlice};
pub use ringway_wire::vnet_hdr::Allowed as Offloads;

/// What the workers ask of a port. Every method but the counters works on a whole burst.
///
/// Receive queue numbers run from 0 to [`receive_queues`](Port::receive_queues) and are served by
/// one worker at a time; send queues may be used by several workers, each call takes the queue's
/// own lock once.
pub trait Port: Send + Sync {
    /// Counters of the attachment, which outlive this view of it.
    fn counters(&self) -> &Counters;

    /// Receive queues, including those that have nothing to give at present.
    fn receive_queues(&self) -> usize;

    /// Queues [`send`](Port::send) may be given; 0 = nothing can be delivered now.
    fn send_queues(&self) -> usize;

    /// Offloads the other side takes in frames sent to it. Everything else must be completed or
    /// segmented before [`send`](Port::send).
    fn offloads(&self) -> Offloads;

    /// Most bytes that the other side takes in a frame that is not to be segmented, Ethernet header
    /// and VLAN tags not counted; `None` = any. Longer ones must not be given to
    /// [`send`](Port::send).
    fn mtu(&self) -> Option<u16> {
        None
    }

    /// Takes at most `limit` frames from `queue` into `burst`, and none once it has
    /// [`room`](Burst::room) no more. Frames that are no frames are
    /// counted as drops of this port and returned with the rest. The number says how many chains
    /// were taken: 0 means the queue is empty.
    fn receive<'m>(
        &'m self,
        queue: usize,
        limit: usize,
        burst: &mut Burst<'m>,
    ) -> Result<usize, Fault>;

    /// Returns everything [`receive`](Port::receive) took for `burst`; publishes once and calls at
    /// most once. The last buffers may be kept back until [`settle`](Port::settle).
    fn release(&self, queue: usize, burst: &mut Burst<'_>) -> Result<(), Fault>;

    /// Delivers the frames of `burst` whose bits are set in `picks`, in order.
    fn send(&self, queue: usize, burst: &Burst<'_>, picks: u64) -> Sent;

    /// How a worker learns that a receive queue has something.
    fn wakeup(&self, queue: usize) -> Wakeup<'_>;

    /// The queue has had nothing for a while: what was kept back of its buffers is returned.
    fn settle(&self, _queue: usize) {}

    /// Asks for wake-ups again before a worker sleeps. True = frames have come meanwhile.
    fn arm(&self, queue: usize) -> bool;

    /// Wake-ups are not needed while a worker polls the queue.
    fn disarm(&self, queue: usize);

    /// Whether an armed queue has something although no wake-up said so.
    fn is_waiting(&self, _queue: usize) -> bool {
        false
    }

    /// A wake-up arrived.
    fn woken(&self, queue: usize);
}

/// How a worker learns of frames in a receive queue, see [`Port::wakeup`].
#[derive(Clone, Copy)]
pub enum Wakeup<'a> {
    /// Nothing ever arrives here.
    Never,
    /// Looking costs a memory access; the descriptor (if any) becomes readable on a kick.
    Memory {
        /// Names the queue for as long as the same ring is served, across views of the port.
        id: u64,
        /// The kick eventfd; `None` = the peer asked to be polled.
        kick: Option<BorrowedFd<'a>>,
    },
    /// Looking costs a system call; the descriptor becomes readable when there is something.
    Descriptor {
        /// Names the queue for as long as the same descriptor is served.
        id: u64,
        /// The descriptor to wait on.
        fd: BorrowedFd<'a>,
    },
    /// Looking is free and there is nothing to wait on; `id` as above.
    Timer {
        /// Names the queue.
        id: u64,
        /// Nanoseconds until something may be there.
        wait: u64,
    },
}

/// What became of the frames given to [`Port::send`].
#[derive(Clone, Copy, Debug, Default)]
pub struct Sent {
    /// Frames delivered, a subset of the picks.
    pub delivered: u64,
    /// Frame bytes copied into the memory of the other side, without virtio-net headers.
    pub copied: u64,
    /// Why the others were not delivered; set when there are others.
    pub reason: Option<DropReason>,
    /// The queue must be taken out of service.
    pub fault: Option<Fault>,
}

/// A queue that can no longer be served. It costs its own port, nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The driver broke the rules of the virtqueue.
    #[error("ring {ring}: {fault}")]
    Ring {
        /// Ring index as vhost-user counts them (2 x pair, + 1 for the guest's transmit ring).
        ring: usize,
        /// What was wrong.
        fault: ringway_ring::RingFault,
    },
    /// The memory file was truncated while it was mapped.
    #[error("guest memory disappeared under ring {ring}: its file was truncated")]
    MemoryLost {
        /// Ring index as vhost-user counts them.
        ring: usize,
    },
    /// The descriptor failed.
    #[error("queue {queue}: {error}")]
    Io {
        /// Queue of the port.
        queue: usize,
        /// The error number as text.
        error: std::io::ErrorKind,
    },
}

impl Fault {
    /// Name in statistics.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Ring { fault, .. } => fault.name(),
            Self::MemoryLost { .. } => "memory_lost",
            Self::Io { .. } => "io",
        }
    }
}

/// Guards this process against front-ends that truncate the memory they share: the fault costs
/// their port, not the process. To be called once before the first port is opened.
pub fn guard_memory() -> Result<(), GuardError> {
    ringway_mem::sigbus::install()
}

/// Next name for a queue, see [`Wakeup`].
pub(crate) fn next_queue_id() -> u64 {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}
