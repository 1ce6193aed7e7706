//! A port that sends the same UDP frame over and over. For tests and measurements.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use ringway_wire::vnet_hdr;

use crate::burst::{MAX_BURST, bits};
use crate::{Burst, Counters, Fault, Offloads, Port, Sent, Wakeup};

/// What a generator sends, and how fast.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The frame.
    pub frame: Vec<u8>,
    /// Frames per second; `None` = as fast as the switch takes them.
    pub rate: Option<u64>,
    /// Frames to send; `None` = without end.
    pub count: Option<u64>,
}

/// A generator as the workers see it. It takes and forgets what is sent to it.
pub struct Generator {
    counters: Arc<Counters>,
    plan: Plan,
    progress: Mutex<Progress>,
    id: u64,
}

struct Progress {
    start: Option<Instant>,
    sent: u64,
}

impl Generator {
    /// A generator that counts in `counters`. It starts with its first turn.
    pub fn new(plan: Plan, counters: Arc<Counters>) -> Self {
        let progress = Mutex::new(Progress {
            start: None,
            sent: 0,
        });
        Self {
            counters,
            plan,
            progress,
            id: crate::next_queue_id(),
        }
    }

    /// Frames due now, and nanoseconds until the next one is (`u64::MAX` = never).
    fn due(&self, progress: &mut Progress) -> (u64, u64) {
        // Counters go on when another process takes over.
        let sent = self.counters.queues[0].received.frames();
        let left = self
            .plan
            .count
            .map_or(u64::MAX, |count| count.saturating_sub(sent));
        let Some(rate) = self.plan.rate else {
            return (left, if left == 0 { u64::MAX } else { 0 });
        };
        let elapsed = progress
            .start
            .get_or_insert_with(Instant::now)
            .elapsed()
            .as_nanos();
        let schedule = elapsed * u128::from(rate) / 1_000_000_000 + 1;
        let behind = u64::try_from(schedule)
            .unwrap_or(u64::MAX)
            .saturating_sub(progress.sent);
        let wait = if left == 0 {
            u64::MAX
        } else {
            1_000_000_000 / rate.max(1)
        };
        (behind.min(left), wait)
    }
}

impl Port for Generator {
    fn counters(&self) -> &Counters {
        &self.counters
    }

    fn receive_queues(&self) -> usize {
        1
    }

    fn send_queues(&self) -> usize {
        1
    }

    fn offloads(&self) -> Offloads {
        Offloads {
            csum: true,
            tso4: true,
            tso6: true,
            ecn: true,
            uso: true,
        }
    }

    fn receive<'m>(
        &'m self,
        queue: usize,
        limit: usize,
        burst: &mut Burst<'m>,
    ) -> Result<usize, Fault> {
        let mut progress = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
        let (due, _) = self.due(&mut progress);
        let wanted = usize::try_from(due)
            .unwrap_or(MAX_BURST)
            .min(limit)
            .min(MAX_BURST);
        let mut pushed = 0;
        while pushed < wanted
            && burst.bytes < burst.room
            && burst.push_private(&HEADER, &self.plan.frame)
        {
            pushed += 1;
        }
        progress.sent += pushed as u64;
        self.counters.queues[queue]
            .received
            .count(pushed as u64, burst.bytes);
        Ok(pushed)
    }

    fn release(&self, _: usize, _: &mut Burst<'_>) -> Result<(), Fault> {
        Ok(())
    }

    fn send(&self, queue: usize, burst: &Burst<'_>, picks: u64) -> Sent {
        let _one_sender = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes = bits(picks).map(|i| u64::from(burst.frames[i].len)).sum();
        self.counters.queues[queue]
            .sent
            .count(u64::from(picks.count_ones()), bytes);
        Sent {
            delivered: picks,
            ..Sent::default()
        }
    }

    fn wakeup(&self, _: usize) -> Wakeup<'_> {
        let mut progress = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
        match self.due(&mut progress).1 {
            u64::MAX => Wakeup::Never,
            wait => Wakeup::Timer { id: self.id, wait },
        }
    }

    fn arm(&self, _: usize) -> bool {
        let mut progress = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
        self.due(&mut progress).0 != 0
    }

    fn disarm(&self, _: usize) {}

    fn woken(&self, _: usize) {}
}

const HEADER: [u8; vnet_hdr::LEN] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Heads;

    #[test]
    fn sends_the_count_and_then_nothing() {
        let counters = Arc::new(Counters::new(1));
        let plan = Plan {
            frame: vec![7; 200],
            rate: None,
            count: Some(70),
        };
        let generator = Generator::new(plan, counters.clone());
        let mut heads = Heads::new();
        let mut taken = Vec::new();
        for _ in 0..3 {
            let mut burst = Burst::new(&mut heads);
            taken.push(generator.receive(0, MAX_BURST, &mut burst).unwrap());
            if let Some(frame) = burst.frames.first() {
                let mut bytes = vec![0; frame.len as usize];
                assert_eq!(burst.copy_frame(0, &mut bytes), 200);
                assert_eq!(bytes, [7; 200]);
            }
        }
        assert_eq!(taken, [64, 6, 0]);
        assert_eq!(counters.queues[0].received.frames(), 70);
        assert!(matches!(generator.wakeup(0), Wakeup::Never));
    }
}
