//! What the device writes to a packed ring, as runs to be marked. It is marked where it lies: the descriptor ring is written too, and
//! what a front-end names is the device event suppression structure.

use super::areas::EVENT_BYTES;
use super::{Areas, PackedRing, Place};
use crate::descriptor::BYTES;
use crate::log::RingLog;

/// Where a packed ring marks.
pub(super) struct PackedLog {
    pub(super) log: RingLog,
    /// Guest addresses of the parts that are written; `None` = not marked.
    descriptors: Option<u64>,
    device_event: Option<u64>,
}

impl PackedLog {
    pub(super) fn new(log: RingLog, areas: &Areas) -> Self {
        let [descriptors, device_event] = areas.written();
        Self {
            descriptors: log.used.and(descriptors),
            device_event: log.used.and(device_event),
            log,
        }
    }

    /// Marks the device event suppression structure.
    pub(super) fn mark_event(&self) {
        self.log.mark(self.device_event, 0, EVENT_BYTES);
    }

    /// Marks `count` descriptors from `place` on, at most a lap.
    fn mark_descriptors(&self, place: Place, count: u16, size: u16) {
        let mark = |first: u16, count: u16| {
            let (at, len) = (usize::from(first) * BYTES, usize::from(count) * BYTES);
            self.log.mark(self.descriptors, at, len);
        };
        let in_lap = count.min(size - place.index);
        mark(place.index, in_lap);
        mark(0, count - in_lap);
    }
}

impl PackedRing {
    /// Marks the descriptors of `count` that were written behind the first, then writes that one, which shows them.
    #[cold]
    #[inline(never)]
    pub(super) fn show_logged(&self, log: &PackedLog, count: u16, word: u64) {
        let (first, size) = (self.published, self.areas.size());
        log.mark_descriptors(first.forward(1, size), count - 1, size);
        self.areas.publish_second_word(first.index, word);
        log.mark_descriptors(first, 1, size);
    }
}
