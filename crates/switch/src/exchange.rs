//! A value behind a generation number that workers read without a lock, and how it is exchanged.
//!
//! The control thread shows a new value and waits until every worker has taken it up and let go of
//! the old one. A worker that does not come round keeps what it has: nothing the old value alone
//! refers to may be reused before [`Exchange::is_everywhere`].

use std::sync::PoisonError;
use std::time::{Duration, Instant};

use super::sync::{Arc, AtomicU64, Condvar, Mutex, MutexGuard, Ordering};

pub(crate) struct Exchange<T> {
    current: Mutex<Arc<T>>,
    generation: AtomicU64,
    /// By worker.
    adopted: Mutex<Vec<u64>>,
    adopted_changed: Condvar,
}

impl<T> Exchange<T> {
    pub(crate) fn new(first: T, workers: usize) -> Self {
        Self {
            current: Mutex::new(Arc::new(first)),
            generation: AtomicU64::new(1),
            adopted: Mutex::new(vec![0; workers]),
            adopted_changed: Condvar::new(),
        }
    }

    /// Shows `new` to workers that look. Returns the old value and the new generation.
    pub(crate) fn show(&self, new: T) -> (Arc<T>, u64) {
        let new = Arc::new(new);
        let old = std::mem::replace(&mut *lock(&self.current), new);
        (old, self.advance())
    }

    /// Has every worker look; returns the new generation.
    pub(crate) fn advance(&self) -> u64 {
        self.generation.fetch_add(1, Ordering::Release) + 1
    }

    /// Waits until every worker has adopted `generation`. False = it took longer than `patience`.
    #[must_use]
    pub(crate) fn wait(&self, generation: u64, patience: Duration) -> bool {
        let end = Instant::now() + patience;
        let mut adopted = lock(&self.adopted);
        while adopted.iter().any(|&seen| seen < generation) {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            let waited = self.adopted_changed.wait_timeout(adopted, left);
            adopted = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    /// Every worker works with what was shown last.
    pub(crate) fn is_everywhere(&self) -> bool {
        let generation = self.generation();
        lock(&self.adopted).iter().all(|&seen| seen >= generation)
    }

    /// The generation a worker compares with its own; one load of a line nobody writes meanwhile.
    #[inline]
    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// What worker `worker` works with from now on, and its generation: the newest value, once
    /// `take_up` has seen it beside the `old` one. The old one is let go before anybody hears of it.
    pub(crate) fn newest(
        &self,
        worker: usize,
        old: Option<Arc<T>>,
        take_up: impl FnOnce(Option<&T>, &T),
    ) -> (u64, Arc<T>) {
        let generation = self.generation();
        // Of this generation or a later one.
        let current = lock(&self.current).clone();
        take_up(old.as_deref(), &current);
        drop(old);
        self.adopt(worker, generation);
        (generation, current)
    }

    /// Worker `worker` holds nothing and never will: nobody waits for it any more.
    pub(crate) fn leave(&self, worker: usize) {
        self.adopt(worker, u64::MAX);
    }

    fn adopt(&self, worker: usize, generation: u64) {
        lock(&self.adopted)[worker] = generation;
        self.adopted_changed.notify_all();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
