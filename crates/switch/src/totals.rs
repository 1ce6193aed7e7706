//! The three counters that must agree: attempted = delivered + dropped.
//!
//! Each is counted where it happens, none is derived from the others. A worker counts privately and
//! shows its sums at the end of a turn, so a reader never sees them in the middle of one.

use std::sync::atomic::{AtomicU64, Ordering, fence};

/// Deliveries: one per frame and destination, one for a frame that has none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sums {
    /// Begun.
    pub(crate) attempted: u64,
    /// Done.
    pub(crate) delivered: u64,
    /// Given up, for a reason that is counted at a port.
    pub(crate) dropped: u64,
    /// Frame bytes written into guests.
    pub(crate) copied_bytes: u64,
}

impl Sums {
    /// Adds another worker's.
    pub(crate) fn add(&mut self, other: &Self) {
        self.attempted += other.attempted;
        self.delivered += other.delivered;
        self.dropped += other.dropped;
        self.copied_bytes += other.copied_bytes;
    }
}

/// One worker's sums, shown to others (a sequence lock: odd while being written).
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct Totals {
    sequence: AtomicU64,
    words: [AtomicU64; 4],
    busy: AtomicU64,
}

impl Totals {
    /// Shows `sums`. One writer.
    pub(crate) fn show(&self, sums: &Sums) {
        let sequence = self.sequence.load(Ordering::Relaxed);
        self.sequence.store(sequence + 1, Ordering::Relaxed);
        fence(Ordering::Release);
        let values = [
            sums.attempted,
            sums.delivered,
            sums.dropped,
            sums.copied_bytes,
        ];
        for (word, value) in self.words.iter().zip(values) {
            word.store(value, Ordering::Relaxed);
        }
        self.sequence.store(sequence + 2, Ordering::Release);
    }

    /// Counts work for bursts, in nanoseconds. One writer.
    pub(crate) fn count_busy(&self, nanoseconds: u64) {
        let busy = self.busy.load(Ordering::Relaxed);
        self.busy.store(busy + nanoseconds, Ordering::Relaxed);
    }

    /// Nanoseconds of work for bursts so far.
    pub(crate) fn busy(&self) -> u64 {
        self.busy.load(Ordering::Relaxed)
    }

    /// The sums of the end of some turn.
    pub(crate) fn read(&self) -> Sums {
        loop {
            let before = self.sequence.load(Ordering::Acquire);
            let [attempted, delivered, dropped, copied_bytes] =
                std::array::from_fn(|i| self.words[i].load(Ordering::Relaxed));
            fence(Ordering::Acquire);
            if before.is_multiple_of(2) && self.sequence.load(Ordering::Relaxed) == before {
                return Sums {
                    attempted,
                    delivered,
                    dropped,
                    copied_bytes,
                };
            }
            std::hint::spin_loop();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicBool;

    #[test]
    fn a_reader_never_sees_half_a_turn() {
        let totals = Totals::default();
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for n in 0..200_000 {
                    let dropped = n / 3;
                    let delivered = n - dropped;
                    totals.show(&Sums {
                        attempted: n,
                        delivered,
                        dropped,
                        copied_bytes: n * 60,
                    });
                }
                done.store(true, Ordering::Relaxed);
            });
            while !done.load(Ordering::Relaxed) {
                let sums = totals.read();
                assert_eq!(sums.attempted, sums.delivered + sums.dropped);
                assert_eq!(sums.copied_bytes, sums.attempted * 60);
            }
        });
    }
}
