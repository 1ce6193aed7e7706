//! What a port counts. Counters are shared between workers and whoever reads statistics; they
//! outlive the port's views, so a reconnect does not reset them.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::Fault;

/// Why a frame was not delivered. Every drop has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(usize)]
pub enum DropReason {
    /// Shorter than an Ethernet header.
    TooShort,
    /// Longer than any frame carried.
    TooLong,
    /// The virtio-net header contradicts the frame or what was negotiated.
    BadHeader,
    /// The source address is a group address.
    BadSource,
    /// The source address is not the port's configured one, or is another port's.
    SpoofedMac,
    /// The tag (or its absence) does not fit the port.
    VlanMismatch,
    /// Source and destination are isolated from each other.
    Isolated,
    /// The destination is behind the port the frame came from.
    SamePort,
    /// Nobody could take it.
    NoDestination,
    /// The destination has no started receive queue.
    NotConnected,
    /// The sender's ring is disabled.
    RingDisabled,
    /// The destination offers no receive buffers.
    NoBuffers,
    /// The destination's buffers are too small and it does not merge them.
    BufferTooSmall,
    /// Longer than the MTU that the destination was told.
    MtuExceeded,
    /// The destination's queue is full.
    QueueFull,
    /// The destination's link is down.
    LinkDown,
    /// The limit towards the destination.
    RateLimited,
    /// The sender's limit of flooded frames.
    StormLimited,
    /// The receiver lacks the offload and software could not replace it.
    OffloadFailed,
    /// The destination broke while the frame was under way.
    Fault,
    /// The capture could not keep up.
    CaptureFull,
}

impl DropReason {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 21] = [
        Self::TooShort,
        Self::TooLong,
        Self::BadHeader,
        Self::BadSource,
        Self::SpoofedMac,
        Self::VlanMismatch,
        Self::Isolated,
        Self::SamePort,
        Self::NoDestination,
        Self::NotConnected,
        Self::RingDisabled,
        Self::NoBuffers,
        Self::BufferTooSmall,
        Self::MtuExceeded,
        Self::QueueFull,
        Self::LinkDown,
        Self::RateLimited,
        Self::StormLimited,
        Self::OffloadFailed,
        Self::Fault,
        Self::CaptureFull,
    ];

    /// The reason of this name, see [`name`](Self::name).
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.name() == name)
    }

    /// Name in statistics.
    pub fn name(self) -> &'static str {
        match self {
            Self::TooShort => "too_short",
            Self::TooLong => "too_long",
            Self::BadHeader => "bad_header",
            Self::BadSource => "bad_source",
            Self::SpoofedMac => "spoofed_mac",
            Self::VlanMismatch => "vlan_mismatch",
            Self::Isolated => "isolated",
            Self::SamePort => "same_port",
            Self::NoDestination => "no_destination",
            Self::NotConnected => "not_connected",
            Self::RingDisabled => "ring_disabled",
            Self::NoBuffers => "no_buffers",
            Self::BufferTooSmall => "buffer_too_small",
            Self::MtuExceeded => "mtu_exceeded",
            Self::QueueFull => "queue_full",
            Self::LinkDown => "link_down",
            Self::RateLimited => "rate_limited",
            Self::StormLimited => "storm_limited",
            Self::OffloadFailed => "offload_failed",
            Self::Fault => "fault",
            Self::CaptureFull => "capture_full",
        }
    }
}

/// Counters of one port: a pair of queues each, and its drops.
#[derive(Debug)]
pub struct Counters {
    /// One per queue pair.
    pub queues: Box<[QueueCounters]>,
    drops: [AtomicU64; DropReason::ALL.len()],
    /// By name. Each costs the ring it happened to, so there are few and they may wait for a lock.
    faults: Mutex<BTreeMap<&'static str, u64>>,
    unlearned: AtomicU64,
}

impl Counters {
    /// Zeroed counters for so many queue pairs.
    pub fn new(pairs: usize) -> Self {
        Self {
            queues: (0..pairs).map(|_| QueueCounters::default()).collect(),
            drops: Default::default(),
            faults: Mutex::default(),
            unlearned: AtomicU64::new(0),
        }
    }

    /// Counts an address that was not learned.
    pub fn count_unlearned(&self) {
        self.unlearned.fetch_add(1, Ordering::Relaxed);
    }

    /// Addresses not learned, so far.
    pub fn unlearned(&self) -> u64 {
        self.unlearned.load(Ordering::Relaxed)
    }

    /// Counts drops; several workers may do so at once.
    pub fn drop_frames(&self, reason: DropReason, frames: u64) {
        self.drops[reason as usize].fetch_add(frames, Ordering::Relaxed);
    }

    /// Counts a queue that cannot be served any more.
    #[cold]
    pub fn count_fault(&self, fault: &Fault) {
        // Numbers are whole wherever another thread may have panicked.
        let mut faults = self.faults.lock().unwrap_or_else(PoisonError::into_inner);
        *faults.entry(fault.name()).or_default() += 1;
    }

    /// Faults so far by name, those that happened only.
    pub fn faults(&self) -> BTreeMap<&'static str, u64> {
        let faults = self.faults.lock();
        faults.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Goes on from what another process counted. Nobody may be counting yet.
    pub fn resume(&self, reason: DropReason, frames: u64) {
        self.drops[reason as usize].store(frames, Ordering::Relaxed);
    }

    /// Drops for this reason so far.
    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.drops[reason as usize].load(Ordering::Relaxed)
    }

    /// Drops so far, those that happened only.
    pub fn drops(&self) -> impl Iterator<Item = (DropReason, u64)> + '_ {
        DropReason::ALL
            .into_iter()
            .map(|reason| (reason, self.drops[reason as usize].load(Ordering::Relaxed)))
            .filter(|&(_, frames)| frames != 0)
    }
}

/// Counters of a queue pair. The halves are written by different workers, so they lie on lines of
/// their own.
#[derive(Debug, Default)]
pub struct QueueCounters {
    /// From the guest; written by the worker that serves the queue.
    pub received: Half,
    /// To the guest; written under the queue's lock.
    pub sent: Half,
}

/// One direction of a queue pair.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Half {
    frames: AtomicU64,
    bytes: AtomicU64,
    events: AtomicU64,
    calls: AtomicU64,
    missed_kicks: AtomicU64,
    lock_waits: AtomicU64,
    busy: AtomicU64,
    rate_delays: AtomicU64,
}

impl Half {
    /// Everything counted so far, in an order that only grows at its end.
    pub fn words(&self) -> [u64; 7] {
        self.cells().map(|cell| cell.load(Ordering::Relaxed))
    }

    /// Goes on from what [`words`](Self::words) gave in another process. Nobody may be counting yet.
    pub fn resume(&self, words: &[u64]) {
        for (cell, &word) in self.cells().into_iter().zip(words) {
            cell.store(word, Ordering::Relaxed);
        }
    }

    fn cells(&self) -> [&AtomicU64; 7] {
        [
            &self.frames,
            &self.bytes,
            &self.events,
            &self.calls,
            &self.missed_kicks,
            &self.lock_waits,
            &self.busy,
        ]
    }

    /// Counts frames and their bytes. One writer at a time.
    pub fn count(&self, frames: u64, bytes: u64) {
        add(&self.frames, frames);
        add(&self.bytes, bytes);
    }

    /// Counts a wake-up by the other side (a kick). One writer at a time.
    pub fn count_kick(&self) {
        add(&self.events, 1);
    }

    /// Counts a kick that never came. One writer at a time.
    pub fn count_missed_kick(&self) {
        add(&self.missed_kicks, 1);
    }

    /// Counts a call of the other side. One writer at a time.
    pub fn count_call(&self) {
        add(&self.calls, 1);
    }

    /// Counts that the queue has to rest because its port sent beyond its rate. One writer at a time.
    pub fn count_rate_delay(&self) {
        add(&self.rate_delays, 1);
    }

    /// Times the queue had to rest, so far.
    pub fn rate_delays(&self) -> u64 {
        self.rate_delays.load(Ordering::Relaxed)
    }

    /// Counts that a worker found the queue's lock taken. To be called with the lock held.
    pub fn count_lock_wait(&self) {
        add(&self.lock_waits, 1);
    }

    /// Counts time a worker worked for the queue, in nanoseconds. One writer at a time.
    pub fn count_busy(&self, nanoseconds: u64) {
        add(&self.busy, nanoseconds);
    }

    /// Frames so far.
    pub fn frames(&self) -> u64 {
        self.frames.load(Ordering::Relaxed)
    }

    /// Frame bytes so far.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Kicks so far.
    pub fn kicks(&self) -> u64 {
        self.events.load(Ordering::Relaxed)
    }

    /// Kicks that never came, so far.
    pub fn missed_kicks(&self) -> u64 {
        self.missed_kicks.load(Ordering::Relaxed)
    }

    /// Times the queue's lock was taken when a worker wanted it, so far.
    pub fn lock_waits(&self) -> u64 {
        self.lock_waits.load(Ordering::Relaxed)
    }

    /// Nanoseconds of work for the queue so far, estimated from a few of its turns.
    pub fn busy(&self) -> u64 {
        self.busy.load(Ordering::Relaxed)
    }

    /// Calls so far.
    pub fn calls(&self) -> u64 {
        self.calls.load(Ordering::Relaxed)
    }
}

/// Adds without a locked instruction: there is one writer at a time.
fn add(counter: &AtomicU64, n: u64) {
    counter.store(counter.load(Ordering::Relaxed) + n, Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_numbered_in_the_order_of_all() {
        for (number, reason) in DropReason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, number, "{}", reason.name());
        }
    }

    #[test]
    fn only_drops_that_happened_are_listed() {
        let counters = Counters::new(1);
        counters.drop_frames(DropReason::NoBuffers, 3);
        counters.drop_frames(DropReason::NoBuffers, 4);
        assert_eq!(
            counters.drops().collect::<Vec<_>>(),
            [(DropReason::NoBuffers, 7)]
        );
    }

    #[test]
    fn faults_are_counted_by_name() {
        let counters = Counters::new(1);
        let jump = ringway_ring::RingFault::AvailableJump {
            index: 9,
            used: 0,
            size: 4,
        };
        for ring in 0..2 {
            counters.count_fault(&Fault::Ring { ring, fault: jump });
        }
        counters.count_fault(&Fault::MemoryLost { ring: 1 });
        let expected = BTreeMap::from([("available_jump", 2), ("memory_lost", 1)]);
        assert_eq!(counters.faults(), expected);
    }
}
