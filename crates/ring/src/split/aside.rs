//! What is written besides a split ring: runs of it that are to be marked, and where it stands.

use ringway_mem::Words;

use super::areas::{INDEX, RING, USED_BYTES};
use super::{Areas, SplitRing};
use crate::log::RingLog;

/// A dirty log, a word that shows the used index, or both.
pub(super) struct Aside {
    pub(super) log: Option<RingLog>,
    pub(super) position: Option<Words>,
}

/// Bits below `used_idx` in the second word of `QueueRegionSplit` (vhost-user, "Inflight I/O tracking").
const OTHERS: u32 = 48;

impl Aside {
    pub(super) fn new(log: Option<RingLog>, position: Option<Words>) -> Option<Box<Self>> {
        let wanted = log.is_some() || position.is_some();
        wanted.then(|| Box::new(Self { log, position }))
    }

    /// The used index is `used`.
    pub(super) fn stand(&self, used: u16) {
        if let Some(word) = &self.position {
            let others = word.load(0) & ((1 << OTHERS) - 1);
            word.store(0, others | u64::from(used) << OTHERS);
        }
    }
}

impl SplitRing {
    /// Used elements from `old` to `new`, then the index that shows them.
    #[cold]
    #[inline(never)]
    pub(super) fn show_aside(&self, aside: &Aside, old: u16, new: u16) {
        if let Some(log) = &aside.log {
            self.areas.mark_elements(log, old, new.wrapping_sub(old));
        }
        self.areas.set_used_index(new);
        if let Some(log) = &aside.log {
            log.mark(log.used, INDEX, 2);
        }
        aside.stand(new);
    }

    /// The used ring's flags and the index at which a kick is wanted.
    #[cold]
    #[inline(never)]
    pub(super) fn mark_suppression(&self, aside: &Aside) {
        let Some(log) = &aside.log else { return };
        log.mark(log.used, 0, 2);
        if self.event_idx {
            let at = RING + usize::from(self.size()) * USED_BYTES;
            log.mark(log.used, at, 2);
        }
    }
}

impl Areas {
    /// Marks `count` used elements, at most a lap.
    fn mark_elements(&self, log: &RingLog, from: u16, count: u16) {
        let mark = |first: u16, count: u16| {
            let at = RING + usize::from(first) * USED_BYTES;
            log.mark(log.used, at, usize::from(count) * USED_BYTES);
        };
        let first = from % self.size();
        let in_lap = count.min(self.size() - first);
        mark(first, in_lap);
        mark(0, count - in_lap);
    }
}
