//! What queues cost, looked at from time to time, and the move of one whose worker has too much to
//! do. Nobody looks while there is little to do: a worker asks for it.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::Control;
use crate::snapshot::receive_queues;

/// Between two looks.
const LOOK: Duration = Duration::from_millis(200);

/// Looks that find no more than `QUIET_LOAD` thousandths of one worker until nobody looks any more.
const QUIET_LOOKS: u32 = 5;
const QUIET_LOAD: u64 = 20;

/// When to look, and what was found the last time.
#[derive(Default)]
pub(super) struct Balance {
    /// `None` = when a worker asks.
    next: Option<Instant>,
    last: Option<Instant>,
    /// Nanoseconds each queue had cost.
    busy: HashMap<u64, u64>,
    quiet: u32,
}

impl Control {
    /// Looks at the load if it is time; says when to look again.
    pub(super) fn look(&mut self, now: Instant) -> Option<Instant> {
        if self.workers == 1 || !self.shared.wants_look() {
            return None;
        }
        let next = *self.balance.next.get_or_insert(now);
        if now < next {
            return Some(next);
        }
        let (loads, total) = self.loads();
        if total > QUIET_LOAD {
            self.balance.quiet = 0;
        } else {
            self.balance.quiet += 1;
        }
        if self.balance.quiet > QUIET_LOOKS {
            self.balance = Balance::default();
            self.assignment.rest();
            self.shared.stop_looking();
            return None;
        }
        if self.assignment.look(loads, self.workers) {
            self.publish();
        }
        let next = Instant::now() + LOOK;
        self.balance.next = Some(next);
        Some(next)
    }

    /// What queues cost since the last look, in thousandths of a worker's time, and all of them.
    fn loads(&mut self) -> (HashMap<u64, u32>, u64) {
        let (entries, _) = self.entries();
        let now = Instant::now();
        let since = self.balance.last.replace(now);
        let passed = since.map_or(0, |since| now.duration_since(since).as_micros());
        let passed = u64::try_from(passed).unwrap_or(u64::MAX).max(1);
        let mut loads = HashMap::new();
        let mut total = 0;
        let mut busy = HashMap::new();
        for (id, at) in receive_queues(&entries) {
            let Some(entry) = &entries[usize::from(at.slot)] else {
                continue;
            };
            let counters = &entry.port.counters().queues[usize::from(at.queue)];
            let spent = counters.received.busy();
            busy.insert(id, spent);
            // One that was not there has cost nothing yet.
            let before = self.balance.busy.get(&id).copied().unwrap_or(spent);
            let load = spent.saturating_sub(before) / passed;
            total += load;
            if load > 0 {
                loads.insert(id, u32::try_from(load).unwrap_or(u32::MAX).min(1000));
            }
        }
        self.balance.busy = busy;
        (loads, total)
    }
}
