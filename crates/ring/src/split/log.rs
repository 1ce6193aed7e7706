//! What the device writes to a split ring, as runs to be marked.

use super::areas::{INDEX, RING, USED_BYTES};
use super::{Areas, SplitRing};
use crate::log::RingLog;

impl SplitRing {
    /// Used elements from `old` to `new`, then the index that shows them.
    #[cold]
    #[inline(never)]
    pub(super) fn show_logged(&self, log: &RingLog, old: u16, new: u16) {
        self.areas.mark_elements(log, old, new.wrapping_sub(old));
        self.areas.set_used_index(new);
        log.mark(log.used, INDEX, 2);
    }

    /// The used ring's flags and the index at which a kick is wanted.
    #[cold]
    #[inline(never)]
    pub(super) fn mark_suppression(&self, log: &RingLog) {
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
