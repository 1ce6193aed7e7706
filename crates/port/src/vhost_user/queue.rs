//! One started ring of a vhost-user port.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};

use ringway_ring::{DeviceRing, RingBase, RingLog};

use crate::Counters;

/// A started ring, shared by the views of its port for as long as its configuration stands.
pub(super) struct Queue {
    /// Name for wake-ups.
    pub(super) id: u64,
    /// Ring index as vhost-user counts them.
    pub(super) index: usize,
    /// The base it was started with, as SET_VRING_BASE has it.
    pub(super) started_at: u32,
    ring: Mutex<DeviceRing>,
    kick: Option<Arc<OwnedFd>>,
    call: Mutex<Option<Arc<OwnedFd>>>,
    failed: AtomicBool,
}

impl Queue {
    pub(super) fn new(
        index: usize,
        ring: DeviceRing,
        started_at: u32,
        kick: Option<Arc<OwnedFd>>,
        call: Option<Arc<OwnedFd>>,
    ) -> Self {
        Self {
            id: crate::next_queue_id(),
            index,
            started_at,
            ring: Mutex::new(ring),
            kick,
            call: Mutex::new(call),
            failed: AtomicBool::new(false),
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, DeviceRing> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The ring, unless somebody gave it up while we waited: then it may be served by another queue by now.
    #[inline]
    pub(super) fn enter(&self) -> Option<MutexGuard<'_, DeviceRing>> {
        let ring = self.lock();
        (!self.has_failed()).then_some(ring)
    }

    /// As [`enter`](Self::enter), for sending: several workers may want to at once, which is counted.
    #[inline]
    pub(super) fn enter_to_send(&self, counters: &Counters) -> Option<MutexGuard<'_, DeviceRing>> {
        let ring = match self.ring.try_lock() {
            Ok(ring) => ring,
            Err(TryLockError::Poisoned(ring)) => ring.into_inner(),
            Err(TryLockError::WouldBlock) => self.lock_in_turn(counters),
        };
        (!self.has_failed()).then_some(ring)
    }

    #[cold]
    fn lock_in_turn(&self, counters: &Counters) -> MutexGuard<'_, DeviceRing> {
        let ring = self.lock();
        counters.queues[self.index / 2].sent.count_lock_wait();
        ring
    }

    pub(super) fn kick(&self) -> Option<BorrowedFd<'_>> {
        self.kick.as_ref().map(|fd| fd.as_fd())
    }

    /// Exchanges the call eventfd and signals the new one once: a call that was due may have gone
    /// to the old one.
    pub(super) fn set_call(&self, call: Option<Arc<OwnedFd>>) {
        *self.call.lock().unwrap_or_else(PoisonError::into_inner) = call;
        self.call();
    }

    /// Marks what is written from now on in this log, or in none. Whoever writes holds the ring: once this
    /// returns, nothing is marked in the log before.
    pub(super) fn set_log(&self, log: Option<RingLog>) {
        self.lock().set_log(log);
    }

    /// Tells the driver that used buffers are there. The eventfd is non-blocking; a full one has
    /// been signalled already.
    pub(super) fn call(&self) {
        let call = self.call.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(fd) = &*call {
            let _ = rustix::io::write(fd, &1u64.to_ne_bytes());
        }
    }

    /// Returns buffers that were kept back. True = the driver was called for them.
    pub(super) fn settle(&self) -> bool {
        let call = self.enter().is_some_and(|mut ring| ring.publish());
        if call {
            self.call();
        }
        call
    }

    /// Gives the ring up and says where it stands. A worker that is stuck in it, because it did not come round in
    /// time, finds that out under the lock and changes nothing any more: what it took is taken again.
    pub(super) fn retire(&self) -> RingBase {
        let mut ring = self.lock();
        let ours = !self.has_failed();
        let call = ours && ring.publish();
        self.fail();
        if ours {
            ring.conclude();
        }
        let base = ring.base();
        drop(ring);
        if call {
            self.call();
        }
        base
    }

    pub(super) fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Relaxed)
    }

    pub(super) fn fail(&self) {
        self.failed.store(true, Ordering::Relaxed);
    }
}

impl Drop for Queue {
    /// Frames that were delivered are not offered to whoever serves the ring next.
    fn drop(&mut self) {
        self.settle();
    }
}
