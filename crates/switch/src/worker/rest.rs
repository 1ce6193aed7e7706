//! What a worker does with queues that have nothing to give: it polls them for a while, arms them,
//! sleeps, and watches that no wake-up was forgotten.

use std::time::Duration;

use ringway_port::Wakeup;
use rustix::event::{Timespec, epoll};

use super::{BELL, Poll, Served, State, Worker};
use crate::snapshot::Snapshot;

/// Polling goes on for this long after the last frame.
const SPIN: Duration = Duration::from_micros(30);

/// Longest sleep, so that a generator's rate or a resting queue is never far off.
const LONGEST_SLEEP: Duration = Duration::from_secs(1);

/// How often armed queues are looked at for a kick that never came.
const WATCH: Duration = Duration::from_millis(100);

impl Worker {
    /// Takes queues that gave nothing for long enough out of the hot ones.
    pub(super) fn cool(&mut self, snapshot: &Snapshot) {
        let now = self.clock.instant();
        let spin = match self.poll {
            Poll::Adaptive => SPIN,
            Poll::Always => Duration::MAX,
            Poll::Never => Duration::ZERO,
        };
        let Self {
            hot,
            served,
            resting,
            shares,
            ..
        } = self;
        hot.retain(|&index| {
            let queue = &mut served[index];
            if let State::Resting(_) = queue.state {
                *resting += 1;
                queue.account.look(false, shares, queue.at.slot);
                return false;
            }
            let since = *queue.last_work.get_or_insert(now);
            let Some(entry) = snapshot.entry(queue.at.slot) else {
                return false;
            };
            let number = usize::from(queue.at.queue);
            let cooled = match entry.port.wakeup(number) {
                Wakeup::Never => true,
                // Looking costs a system call: nothing there, nothing to poll for.
                Wakeup::Descriptor { .. } | Wakeup::Timer { .. } => true,
                // The peer asked to be polled.
                Wakeup::Memory { kick: None, .. } => false,
                Wakeup::Memory { .. } => now - since >= spin,
            };
            if now - since >= SPIN.min(spin) {
                entry.port.settle(number);
            }
            if !cooled || entry.port.arm(number) {
                return true;
            }
            queue.state = State::Armed;
            queue.last_work = None;
            queue.account.look(false, shares, queue.at.slot);
            false
        });
    }

    /// Sleeps until a descriptor fires or a timer is due.
    pub(super) fn sleep(&mut self, snapshot: &Snapshot) {
        self.clock.pass();
        let now = self.clock.instant();
        let mut longest = self.watched.then_some(WATCH);
        let mut limit = |wait: Duration| {
            let wait = wait.min(LONGEST_SLEEP);
            longest = Some(longest.map_or(wait, |other: Duration| other.min(wait)));
        };
        for queue in &self.served {
            match queue.state {
                State::Resting(until) => limit(until.saturating_duration_since(now)),
                State::Armed => {
                    let wakeup = snapshot
                        .entry(queue.at.slot)
                        .map(|entry| entry.port.wakeup(usize::from(queue.at.queue)));
                    if let Some(Wakeup::Timer { wait, .. }) = wakeup {
                        limit(Duration::from_nanos(wait));
                    }
                }
                State::Hot => {}
            }
        }
        self.wait(snapshot, longest);
        self.clock.pass();
        self.watch(snapshot);
        let now = self.clock.instant();
        for index in 0..self.served.len() {
            let queue = &self.served[index];
            let due = match queue.state {
                State::Resting(until) => until <= now,
                State::Armed => !queue.registered,
                State::Hot => false,
            };
            if due {
                self.heat(snapshot, index);
            }
        }
    }

    /// Looks at descriptors, for at most `timeout` (`None` = until one fires).
    pub(super) fn wait(&mut self, snapshot: &Snapshot, timeout: Option<Duration>) {
        let timeout = timeout.map(|timeout| Timespec {
            tv_sec: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: timeout.subsec_nanos().into(),
        });
        let mut events = [const { std::mem::MaybeUninit::uninit() }; 64];
        let Ok((fired, _)) = epoll::wait(&self.epoll, &mut events, timeout.as_ref()) else {
            return;
        };
        for event in fired {
            match event.data.u64() {
                BELL => self.answer_bell(snapshot),
                id => {
                    let Some(&index) = self.by_id.get(&id) else {
                        continue;
                    };
                    let at = self.served[index].at;
                    if let Some(entry) = snapshot.entry(at.slot) {
                        entry.port.woken(usize::from(at.queue));
                    }
                    if self.served[index].state == State::Armed {
                        self.heat(snapshot, index);
                    }
                }
            }
        }
        if self.resting > 0 {
            self.end_rests(snapshot);
        }
    }

    /// Serves armed queues that have had something for a whole period without a kick: a driver or a
    /// front-end lost it, and nobody would ever look again.
    pub(super) fn watch(&mut self, snapshot: &Snapshot) {
        let now = self.clock.instant();
        if now < self.next_watch {
            return;
        }
        self.next_watch = now + WATCH;
        for index in 0..self.served.len() {
            let Served { at, state, .. } = self.served[index];
            let queue = usize::from(at.queue);
            let Some(entry) = snapshot.entry(at.slot) else {
                continue;
            };
            if state != State::Armed || !entry.port.is_waiting(queue) {
                self.served[index].suspect = false;
            } else if self.served[index].suspect {
                entry.port.counters().queues[queue]
                    .received
                    .count_missed_kick();
                self.heat(snapshot, index);
            } else {
                self.served[index].suspect = true;
            }
        }
    }

    pub(super) fn end_rests(&mut self, snapshot: &Snapshot) {
        let now = self.clock.instant();
        for index in 0..self.served.len() {
            if matches!(self.served[index].state, State::Resting(until) if until <= now) {
                self.heat(snapshot, index);
            }
        }
    }

    pub(super) fn heat(&mut self, snapshot: &Snapshot, index: usize) {
        let queue = &mut self.served[index];
        if matches!(queue.state, State::Resting(_)) {
            self.resting = self.resting.saturating_sub(1);
        }
        queue.state = State::Hot;
        queue.last_work = None;
        queue.suspect = false;
        if let Some(entry) = snapshot.entry(queue.at.slot) {
            entry.port.disarm(usize::from(queue.at.queue));
        }
        if !self.hot.contains(&index) {
            self.hot.push(index);
        }
    }
}
