//! A worker: a thread that serves receive queues, bursts of each in every round ([`share`] says how many).
//!
//! A queue is in one of three states. *Hot* queues are polled every round. A queue that gave
//! nothing for the spin time asks for wake-ups again, looks once more and becomes *armed*: it costs
//! nothing until its descriptor fires. A queue whose port sent beyond its rate *rests* until it is
//! even. With no hot queue left the worker sleeps in epoll.

mod meter;
mod rest;
pub(crate) mod share;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use ringway_port::{Burst, DropReason, Heads, Wakeup};
use rustix::event::epoll;

use crate::classify::classify;
use crate::clock::Clock;
use crate::deliver::Delivery;
use crate::snapshot::{QueueRef, Shared, Snapshot};
use meter::Meter;
use share::{Account, BURST_BYTES, Shares};

/// How workers wait for frames.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Poll {
    /// Poll for a short time after work, then sleep.
    #[default]
    Adaptive,
    /// Never sleep while a queue can be polled.
    Always,
    /// Sleep as soon as nothing is there.
    Never,
}

/// The descriptors of armed queues are looked at once in so many rounds; a look costs a system call,
/// and a burst takes as long as several rounds without one, the more the dearer it is (bytes, as a power of two).
const PEEK_ROUNDS: u32 = 64;
const ROUNDS_OF_WORK: u32 = 4;
const COST_OF_ROUND: u32 = 14;

/// Pauses of the processor after a round without work, some 50 ns.
const IDLE_PAUSES: u32 = 4;

/// Rounds between two looks at how long the queues without work have had none.
const COOL_ROUNDS: u64 = 8;

/// Epoll datum of the bell; queue ids start at 1.
const BELL: u64 = 0;

pub(crate) struct Worker {
    number: usize,
    shared: Arc<Shared>,
    poll: Poll,
    epoll: OwnedFd,
    heads: Heads,
    delivery: Delivery,
    clock: Clock,
    meter: Meter,
    served: Vec<Served>,
    by_id: HashMap<u64, usize>,
    /// Indices into `served`.
    hot: Vec<usize>,
    resting: usize,
    shares: Shares,
    rounds: u64,
    /// Rounds since the descriptors were looked at.
    unseen: u32,
    /// Some queue waits for kicks.
    watched: bool,
    next_watch: Instant,
}

/// A queue this worker serves.
struct Served {
    at: QueueRef,
    id: u64,
    registered: bool,
    state: State,
    last_work: Option<Instant>,
    /// Armed, with something to give, at the last look.
    suspect: bool,
    /// What its turns cost of late, in nanoseconds.
    cost: u64,
    account: Account,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Hot,
    Armed,
    Resting(Instant),
}

impl Worker {
    pub(crate) fn new(number: usize, shared: Arc<Shared>, poll: Poll) -> std::io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let bell = epoll::EventData::new_u64(BELL);
        epoll::add(&epoll, shared.bell(number), bell, edge())?;
        Ok(Self {
            number,
            poll,
            epoll,
            heads: Heads::new(),
            delivery: Delivery::new(),
            clock: Clock::new(shared.start),
            meter: Meter::new(shared.start),
            served: Vec::new(),
            by_id: HashMap::new(),
            hot: Vec::new(),
            resting: 0,
            shares: Shares::default(),
            rounds: 0,
            unseen: 0,
            watched: false,
            next_watch: shared.start,
            shared,
        })
    }

    /// Serves until the switch stops.
    pub(crate) fn run(mut self) {
        // The first local is the last one to go: no snapshot is held then, also after a panic.
        let _presence = Presence(self.number, self.shared.clone());
        let shared = self.shared.clone();
        let mut old = None;
        while !shared.stopping.load(Ordering::Relaxed) {
            let (generation, snapshot) = shared
                .snapshots
                .newest(self.number, old, |old, new| self.take_up(old, new));
            while shared.snapshots.generation() == generation {
                self.round(&snapshot);
            }
            old = Some(snapshot);
        }
    }

    fn round(&mut self, snapshot: &Snapshot) {
        let mut worked = false;
        let mut idle = false;
        let mut owing = false;
        for k in 0..self.hot.len() {
            let index = self.hot[k];
            let queue = &mut self.served[index];
            queue.account.earn(&self.shares, queue.at.slot);
            while self.served[index].account.has_credit() {
                let before = self.meter.begin();
                let had = self.turn(snapshot, index);
                let queue = &mut self.served[index];
                queue.account.look(had, &mut self.shares, queue.at.slot);
                if !had {
                    idle = true;
                    break;
                }
                queue.last_work = None;
                worked = true;
                self.meter.pass();
                if let Some(before) = before {
                    self.measure(snapshot, index, before);
                }
            }
            owing |= self.served[index].account.is_owing();
        }
        if idle && (self.poll == Poll::Never || self.rounds.is_multiple_of(COOL_ROUNDS)) {
            self.clock.pass();
            self.cool(snapshot);
        }
        if !worked && !owing {
            // A moment's peace for the lines that drivers are about to write.
            (0..IDLE_PAUSES).for_each(|_| std::hint::spin_loop());
        }
        self.rounds += 1;
        self.unseen += u32::from(!worked);
        if self.hot.is_empty() {
            self.unseen = 0;
            self.sleep(snapshot);
        } else if self.unseen >= PEEK_ROUNDS {
            self.unseen = 0;
            self.clock.pass();
            self.clock.instant();
            self.wait(snapshot, Some(Duration::ZERO));
            self.watch(snapshot);
        }
    }

    /// One burst of one queue. False = it had nothing.
    fn turn(&mut self, snapshot: &Snapshot, index: usize) -> bool {
        let at = self.served[index].at;
        let queue = usize::from(at.queue);
        let Some(entry) = snapshot.entry(at.slot) else {
            return false;
        };
        if let State::Resting(_) = self.served[index].state {
            return false;
        }
        let mut burst = Burst::new(&mut self.heads);
        burst.source = entry.number;
        burst.queue = queue;
        burst.room = BURST_BYTES;
        if let Some(limiter) = &entry.policy.rate {
            self.clock.pass();
            let now = self.clock.instant();
            match limiter.grant(now) {
                Ok(bytes) => burst.room = burst.room.min(bytes),
                Err(rest) => {
                    self.served[index].state = State::Resting(now + rest);
                    return false;
                }
            }
        }
        let limit = self.served[index].account.limit();
        let taken = match entry.port.receive(queue, limit, &mut burst) {
            Ok(0) => return false,
            Ok(taken) => taken,
            Err(fault) => {
                self.shared.report(entry.number, fault);
                return false;
            }
        };
        self.delivery.sums.attempted += taken as u64 - burst.frames.len() as u64;
        self.delivery.sums.dropped += burst.refused;
        for &capture in &snapshot.captures {
            record(snapshot, capture, &burst);
        }
        if snapshot.watched {
            self.delivery.watch.begin(entry, &burst);
        }
        let judged = classify(
            &burst,
            at.slot,
            entry,
            &self.shared.table,
            self.clock.seconds(),
        );
        self.delivery.deliver(
            snapshot,
            at.slot,
            entry,
            &mut burst,
            &judged,
            &mut self.clock,
        );
        if self.delivery.watch.is_on() {
            self.delivery.watch.end(entry, &mut burst, &judged);
        }
        let copies = std::mem::take(&mut self.delivery.copies);
        let cost = self.served[index].account.spend(&burst, taken, copies);
        self.unseen += u32::try_from(cost >> COST_OF_ROUND).map_or(PEEK_ROUNDS, |rounds| {
            rounds.clamp(ROUNDS_OF_WORK, PEEK_ROUNDS)
        });
        if let Err(fault) = entry.port.release(queue, &mut burst) {
            self.shared.report(entry.number, fault);
        }
        self.shared.totals[self.number].show(&self.delivery.sums);
        for (number, fault) in self.delivery.faults.drain(..) {
            self.shared.report(number, fault);
        }
        if let Some(limiter) = &entry.policy.rate {
            let bytes = burst.bytes;
            self.clock.pass();
            let now = self.clock.instant();
            if let Some(rest) = limiter.delay(bytes, now) {
                let counters = &entry.port.counters().queues[queue];
                counters.received.count_rate_delay();
                self.served[index].state = State::Resting(now + rest);
            }
        }
        true
    }

    /// Worker 0 sends what was injected.
    #[cold]
    fn answer_bell(&mut self, snapshot: &Snapshot) {
        if self.number != 0 {
            return;
        }
        for injected in self.shared.take_injected() {
            let entry = snapshot
                .entry(injected.slot)
                .filter(|e| e.number == injected.number);
            let Some(entry) = entry else { continue };
            let mut burst = Burst::new(&mut self.heads);
            burst.source = entry.number;
            if !burst.push_private(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0], &injected.frame) {
                continue;
            }
            for &capture in &snapshot.captures {
                record(snapshot, capture, &burst);
            }
            let now = self.clock.seconds();
            let judged = classify(&burst, injected.slot, entry, &self.shared.table, now);
            let clock = &mut self.clock;
            if snapshot.watched {
                self.delivery.watch.begin(entry, &burst);
            }
            self.delivery
                .deliver(snapshot, injected.slot, entry, &mut burst, &judged, clock);
            if self.delivery.watch.is_on() {
                self.delivery.watch.end(entry, &mut burst, &judged);
            }
        }
        self.shared.totals[self.number].show(&self.delivery.sums);
    }

    /// Brings the served queues in line with a new snapshot. Every queue that is new starts hot: it
    /// counts as kicked. The old snapshot is still held, so every descriptor to deregister is open.
    fn take_up(&mut self, old: Option<&Snapshot>, new: &Snapshot) {
        let before = std::mem::take(&mut self.served);
        let mut kept: HashMap<u64, Served> = before.into_iter().map(|q| (q.id, q)).collect();
        self.by_id.clear();
        self.hot.clear();
        self.resting = 0;
        self.watched = false;
        self.shares.reset(new.ports.len());
        for &at in &new.work[self.number] {
            let Some(entry) = new.entry(at.slot) else {
                continue;
            };
            let wakeup = entry.port.wakeup(usize::from(at.queue));
            let (Wakeup::Memory { id, .. }
            | Wakeup::Descriptor { id, .. }
            | Wakeup::Timer { id, .. }) = wakeup
            else {
                continue;
            };
            self.watched |= matches!(wakeup, Wakeup::Memory { kick: Some(_), .. });
            let index = self.served.len();
            let queue = kept.remove(&id).map_or_else(
                || Served {
                    at,
                    id,
                    registered: self.register(wakeup),
                    state: State::Armed,
                    last_work: None,
                    suspect: false,
                    cost: 0,
                    account: Account::new(),
                },
                |queue| Served { at, ..queue },
            );
            self.by_id.insert(id, index);
            self.served.push(queue);
            self.served[index].account.recount();
            match self.served[index].state {
                State::Hot => self.hot.push(index),
                // The limit may be another one now.
                State::Resting(_) | State::Armed => self.heat(new, index),
            }
        }
        for gone in kept.into_values().filter(|queue| queue.registered) {
            self.deregister(old, gone);
        }
    }

    fn register(&self, wakeup: Wakeup<'_>) -> bool {
        let (Wakeup::Memory { id, kick: Some(fd) } | Wakeup::Descriptor { id, fd }) = wakeup else {
            return false;
        };
        epoll::add(&self.epoll, fd, epoll::EventData::new_u64(id), edge()).is_ok()
    }

    fn deregister(&self, old: Option<&Snapshot>, gone: Served) {
        let entry = old.and_then(|old| old.entry(gone.at.slot));
        let wakeup = entry.map(|entry| entry.port.wakeup(usize::from(gone.at.queue)));
        if let Some(Wakeup::Memory { id, kick: Some(fd) } | Wakeup::Descriptor { id, fd }) = wakeup
            && id == gone.id
        {
            let _ = epoll::delete(&self.epoll, fd);
        }
    }
}

/// A worker that runs; whoever waits for it learns when it does no more.
struct Presence(usize, Arc<Shared>);

impl Drop for Presence {
    fn drop(&mut self) {
        self.1.leave(self.0);
    }
}

/// Copies a burst to a capture. It is no delivery: what a capture misses costs no receiver anything.
#[cold]
fn record(snapshot: &Snapshot, capture: u16, burst: &Burst<'_>) {
    let Some(entry) = snapshot.entry(capture).filter(|_| !burst.frames.is_empty()) else {
        return;
    };
    let all = burst.all();
    let sent = entry.port.send(0, burst, all);
    let missed = all & !sent.delivered;
    if missed != 0 {
        let reason = sent.reason.unwrap_or(DropReason::CaptureFull);
        entry
            .port
            .counters()
            .drop_frames(reason, missed.count_ones().into());
    }
}

/// Edge-triggered: an eventfd need not be read, a tap is read until it has nothing.
fn edge() -> epoll::EventFlags {
    epoll::EventFlags::IN | epoll::EventFlags::ET
}
