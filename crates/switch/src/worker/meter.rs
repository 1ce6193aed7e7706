//! What the bursts of a queue cost, measured in a few of them.
//!
//! One turn in about sixty is measured and counted for all of them, so that the clock costs next to
//! nothing. Which one is left to chance: with a fixed step it would always be the same queue's.

use std::time::Instant;

use super::Worker;
use crate::assign::LOADED;
use crate::snapshot::Snapshot;

/// A turn that takes longer than this, in nanoseconds, is measured more often: there are fewer.
const LONG_TURN: u64 = 16_000;

/// What a queue's turn may cost more than those before it, in nanoseconds, beyond eightfold. The rest
/// was the system's doing: the worker was interrupted.
const SURPRISE: u64 = 20_000;

/// When to measure.
pub(super) struct Meter {
    /// Turns with frames until one is measured.
    left: u64,
    /// Turns the next measured one stands for.
    gap: u64,
    random: u32,
    last: Instant,
}

impl Meter {
    pub(super) fn new(start: Instant) -> Self {
        Self {
            left: 0,
            gap: 1,
            random: 1,
            last: start,
        }
    }

    /// A turn begins; the time, if it is to be measured.
    #[inline]
    pub(super) fn begin(&self) -> Option<Instant> {
        (self.left == 0).then(Instant::now)
    }

    /// A turn had frames.
    #[inline]
    pub(super) fn pass(&mut self) {
        self.left = self.left.saturating_sub(1);
    }

    fn renew(&mut self, cost: u64) {
        self.random = self
            .random
            .wrapping_mul(1_664_525)
            .wrapping_add(1_013_904_223);
        let gap = 32 + u64::from(self.random >> 26);
        self.gap = if cost > LONG_TURN { gap / 8 } else { gap };
        self.left = self.gap;
    }
}

impl Worker {
    /// A turn with frames that began at `before` has ended.
    #[cold]
    pub(super) fn measure(&mut self, snapshot: &Snapshot, index: usize, before: Instant) {
        let now = Instant::now();
        let took = nanoseconds(before, now);
        let queue = &mut self.served[index];
        let cost = took.min(queue.cost * 8 + SURPRISE);
        queue.cost = (queue.cost * 7 + cost) / 8;
        let busy = cost * self.meter.gap;
        if let Some(entry) = snapshot.entry(queue.at.slot) {
            let counters = &entry.port.counters().queues[usize::from(queue.at.queue)];
            counters.received.count_busy(busy);
        }
        self.shared.totals[self.number].count_busy(busy);
        if busy * 1000 > nanoseconds(self.meter.last, now) * u64::from(LOADED) {
            self.shared.ask_for_look();
        }
        self.meter.last = now;
        self.meter.renew(cost);
    }
}

fn nanoseconds(from: Instant, to: Instant) -> u64 {
    u64::try_from((to - from).as_nanos()).unwrap_or(u64::MAX)
}
