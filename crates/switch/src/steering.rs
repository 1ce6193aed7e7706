//! Automatic receive steering: frames for a port with several queues go to the one that their flow came from last. In a guest that is
//! the queue of the processor that uses the flow (virtio 1.2, 5.1.6.5.6).

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// Flows remembered, a power of two. A guest fills its own table only, so all it can spoil is the way its own frames take.
const FLOWS: usize = 4096;
/// Seconds per tick of an entry's clock.
const TICK: u32 = 4;
/// A flow that was not seen for so many ticks gives way to another one with the same place. Until then it stays: two that took
/// turns would both change queues all the time, and arrive out of order.
const STALE: u8 = 2;

/// What one port sent lately: per place 16 bits of the flow's hash, 8 of the time, and the queue counted from 1; 0 is free.
///
/// Workers read and write single words: the worst that a race does is a flow at another queue for a burst.
pub(crate) struct Steering(Box<[AtomicU32]>);

impl Steering {
    /// A table for a port of so many queues; one queue needs none.
    pub(crate) fn new(queues: u16) -> Option<Self> {
        let places = (0..FLOWS).map(|_| AtomicU32::new(0));
        (queues > 1).then(|| Self(places.collect()))
    }

    /// A frame of the flow with this hash came from `queue`.
    pub(crate) fn record(&self, hash: u32, queue: usize, seconds: u32) {
        let Some(queue) = u8::try_from(queue + 1).ok().filter(|&queue| queue != 0) else {
            return;
        };
        let [now, ..] = (seconds / TICK).to_le_bytes();
        let new = word(hash, now, queue);
        let place = self.place(hash);
        let old = place.load(Relaxed);
        if old == new {
            return;
        }
        let [_, seen, ..] = old.to_le_bytes();
        let others = old != 0 && !same_flow(old, hash);
        if others && now.wrapping_sub(seen) < STALE {
            return;
        }
        place.store(new, Relaxed);
    }

    /// The queue of the flow with this hash, if it is known and one of `queues`.
    pub(crate) fn find(&self, hash: u32, queues: usize) -> Option<usize> {
        let found = self.place(hash).load(Relaxed);
        let [queue, ..] = found.to_le_bytes();
        let queue = usize::from(queue).checked_sub(1)?;
        (same_flow(found, hash) && queue < queues).then_some(queue)
    }

    fn place(&self, hash: u32) -> &AtomicU32 {
        &self.0[hash as usize % FLOWS]
    }
}

fn word(hash: u32, time: u8, queue: u8) -> u32 {
    let [.., low, high] = hash.to_le_bytes();
    u32::from_le_bytes([queue, time, low, high])
}

fn same_flow(word: u32, hash: u32) -> bool {
    word >> 16 == hash >> 16
}

impl std::fmt::Debug for Steering {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let known = self.0.iter().filter(|place| place.load(Relaxed) != 0);
        write!(f, "Steering({} flows)", known.count())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flow_is_found_where_it_came_from_last() {
        let steering = Steering::new(4).unwrap();
        assert_eq!(steering.find(7, 4), None);
        steering.record(7, 3, 0);
        assert_eq!(steering.find(7, 4), Some(3));
        // The guest uses fewer queues by now.
        assert_eq!(steering.find(7, 3), None);
        steering.record(7, 0, 0);
        assert_eq!(steering.find(7, 4), Some(0));
        // Another flow of the same place.
        assert_eq!(steering.find(7 + (1 << 16), 4), None);
    }

    #[test]
    fn a_flow_keeps_its_place_while_it_is_used() {
        let steering = Steering::new(2).unwrap();
        let (one, other) = (7, 7 + (1 << 16));
        let mut now = 1020;
        for _ in 0..50 {
            steering.record(one, 1, now);
            steering.record(other, 0, now);
            assert_eq!(
                (steering.find(one, 2), steering.find(other, 2)),
                (Some(1), None)
            );
            now += TICK;
        }
        now += TICK * u32::from(STALE);
        steering.record(other, 0, now);
        assert_eq!(
            (steering.find(one, 2), steering.find(other, 2)),
            (None, Some(0))
        );
    }

    #[test]
    fn one_queue_needs_no_table_and_the_last_one_is_remembered_if_it_fits() {
        assert!(Steering::new(1).is_none());
        let steering = Steering::new(u16::MAX).unwrap();
        steering.record(1, 254, 0);
        assert_eq!(steering.find(1, 300), Some(254));
        steering.record(2, 255, 0);
        assert_eq!(steering.find(2, 300), None);
    }
}
