//! A port that takes every frame and keeps none. For tests and measurements.

use std::sync::{Arc, Mutex, PoisonError};

use crate::burst::bits;
use crate::{Burst, Counters, Fault, Offloads, Port, Sent, Wakeup};

/// A sink as the workers see it.
pub struct Sink {
    counters: Arc<Counters>,
    sending: Mutex<()>,
}

impl Sink {
    /// A sink that counts in `counters`.
    pub fn new(counters: Arc<Counters>) -> Self {
        Self {
            counters,
            sending: Mutex::new(()),
        }
    }
}

impl Port for Sink {
    fn counters(&self) -> &Counters {
        &self.counters
    }

    fn receive_queues(&self) -> usize {
        0
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

    fn receive<'m>(&'m self, _: usize, _: usize, _: &mut Burst<'m>) -> Result<usize, Fault> {
        Ok(0)
    }

    fn release(&self, _: usize, _: &mut Burst<'_>) -> Result<(), Fault> {
        Ok(())
    }

    fn send(&self, queue: usize, burst: &Burst<'_>, picks: u64) -> Sent {
        let _one_sender = self.sending.lock().unwrap_or_else(PoisonError::into_inner);
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
        Wakeup::Never
    }

    fn arm(&self, _: usize) -> bool {
        false
    }

    fn disarm(&self, _: usize) {}

    fn woken(&self, _: usize) {}
}
