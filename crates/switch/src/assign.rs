//! Which worker receives which queue.
//!
//! A queue stays with its worker for as long as it can. Three things make one move: a worker has two
//! more queues than another; one is loaded and another has clearly less to do; or one has no rest and
//! two more queues that share it than another has. Loads are what was measured, in thousandths of a
//! worker's time, and decide first: a move for the sake of numbers never makes the busier of the two
//! workers busier than either was.
//!
//! With loads that stay the same, moves come to an end. Each one for the sake of load makes the sum
//! of the squares of the workers' loads smaller; each one for the sake of numbers makes that of the
//! numbers smaller and the other one no larger, but for queues that are as good as idle, which never
//! move for the sake of load. What left a worker without rest is not taken back: there is no room.
//!
//! One that moves is served by nobody in between: its old worker may still be delivering a burst of
//! it when the new one would take the next, and frames would pass each other. Should its old worker
//! not come round in time, nobody serves it until that one has: whatever is shown meanwhile goes
//! without it.

mod picture;

use std::collections::HashMap;

use crate::snapshot::QueueRef;
use picture::Picture;

/// A worker with less load than this has nothing to gain.
pub(crate) const LOADED: u32 = 50;

/// A queue with at most this load counts as idle.
const IDLE: u32 = 10;

/// Looks for which a queue stays where it was moved to, while there is load.
const STAY: u32 = 10;

/// Who serves each queue, by the queue's name (see `Wakeup`).
#[derive(Debug, Default)]
pub(crate) struct Assignment {
    workers: HashMap<u64, usize>,
    /// The workers that may be at a queue, as far as anybody knows: in what was shown last, or in
    /// what one that did not come round still works with.
    shown: HashMap<u64, Vec<usize>>,
    /// What queues cost at the last look, those that cost anything.
    loads: HashMap<u64, u32>,
    /// A move that the last look called for.
    candidate: Option<Move>,
    /// A move that two looks called for.
    due: Option<Move>,
    /// Looks for which queues stay where they are.
    stay: HashMap<u64, u32>,
    /// Queues taken over from others, by worker.
    taken_over: Vec<u64>,
}

/// What each worker has to serve.
pub(crate) type Work = Vec<Vec<QueueRef>>;

/// The way to a new assignment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    /// To be in force everywhere before `work` is: the same without queues that another worker may be
    /// at. `None` = there are none.
    pub(crate) first: Option<Work>,
    /// Every queue at its worker.
    pub(crate) work: Work,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Move {
    queue: u64,
    from: usize,
    to: usize,
}

/// Queues of a worker while a plan is made.
#[derive(Clone, Default)]
struct Held {
    queues: Vec<(u64, QueueRef)>,
    load: u32,
}

impl Assignment {
    /// Assigns `queues` to `count` workers, at least one: known queues stay, new ones go to the worker
    /// with the fewest. Then queues move that have to.
    pub(crate) fn plan(&mut self, queues: &[(u64, QueueRef)], count: usize) -> Plan {
        let mut held = vec![Held::default(); count];
        let mut moved = Vec::new();
        let mut new = Vec::new();
        let due = self.due.take();
        for &queue in queues {
            let load = self.load(queue.0);
            match self.workers.get(&queue.0) {
                Some(&worker) if worker < count => match due {
                    Some(due) if due.queue == queue.0 && due.from == worker && due.to < count => {
                        moved.push((queue.0, due.to));
                        held[due.to].add(queue, load);
                    }
                    _ => held[worker].add(queue, load),
                },
                _ => new.push(queue),
            }
        }
        for queue in new {
            let (_, fewest) = ends(&held);
            held[fewest].add(queue, 0);
        }
        while let Some((queue, load, from, to)) = self.surplus(&held) {
            let queue = held[from].queues.remove(queue);
            held[from].load -= load;
            held[to].add(queue, load);
            if self.workers.contains_key(&queue.0) {
                moved.retain(|&(id, _)| id != queue.0);
                moved.push((queue.0, to));
            }
        }
        self.remember(&held, &moved);
        let work = |keep: &dyn Fn(u64) -> bool| {
            let kept = |held: &Held| {
                let kept = held.queues.iter().filter(|queue| keep(queue.0));
                kept.map(|queue| queue.1).collect()
            };
            held.iter().map(kept).collect()
        };
        Plan {
            first: self.is_held_back().then(|| work(&|id| self.is_free(id))),
            work: work(&|_| true),
        }
    }

    /// Carries the last plan out. `show` shows work to the workers, and tells whether all of them came
    /// round to it; if not, the plan ends there.
    pub(crate) fn carry_out(&mut self, plan: Plan, mut show: impl FnMut(Work) -> bool) {
        if let Some(first) = plan.first {
            let free = self.workers.iter().map(|(&id, &worker)| (id, worker));
            let free = free.filter(|&(id, _)| self.is_free(id)).collect();
            let adopted = show(first);
            self.remember_shown(free, adopted);
            if !adopted {
                return;
            }
        }
        let all = self.workers.iter().map(|(&id, &worker)| (id, worker));
        let all = all.collect();
        let adopted = show(plan.work);
        self.remember_shown(all, adopted);
    }

    /// Some queue waits for a worker that has not come round yet. The next plan serves it, if that one
    /// has by then.
    pub(crate) fn is_held_back(&self) -> bool {
        self.workers.keys().any(|&id| !self.is_free(id))
    }

    /// Nobody but its worker is at a queue.
    fn is_free(&self, queue: u64) -> bool {
        let (at, worker) = (self.shown.get(&queue), self.workers.get(&queue));
        at.is_none_or(|at| at.iter().all(|at| Some(at) == worker))
    }

    fn remember_shown(&mut self, work: Vec<(u64, usize)>, adopted: bool) {
        if adopted {
            self.shown.clear();
        }
        for (queue, worker) in work {
            let at = self.shown.entry(queue).or_default();
            if !at.contains(&worker) {
                at.push(worker);
            }
        }
    }

    /// Takes note of what queues cost, in thousandths of a worker's time. True = one has to move, by
    /// the next [`plan`](Self::plan). Only what two looks in a row call for is done.
    pub(crate) fn look(&mut self, loads: HashMap<u64, u32>, count: usize) -> bool {
        self.loads = loads;
        self.stay.retain(|_, looks| {
            *looks -= 1;
            *looks > 0
        });
        let picture = Picture::new(&self.workers, &self.loads, count);
        let still = self.candidate.take().filter(|step| {
            self.workers.get(&step.queue) == Some(&step.from) && picture.helps(step)
        });
        if still.is_none() {
            self.candidate = picture.best(|queue| !self.stay.contains_key(&queue));
        }
        self.due = still;
        self.due.is_some()
    }

    /// Nothing costs anything any more.
    pub(crate) fn rest(&mut self) {
        self.loads.clear();
        self.stay.clear();
        (self.candidate, self.due) = (None, None);
    }

    /// The worker that serves a queue.
    pub(crate) fn worker(&self, queue: u64) -> Option<usize> {
        self.workers.get(&queue).copied()
    }

    /// Queues that a worker serves, and how many of them it took over from others so far.
    pub(crate) fn counts(&self, worker: usize) -> (usize, u64) {
        let serves = self.workers.values().filter(|&&w| w == worker).count();
        (serves, self.taken_over.get(worker).copied().unwrap_or(0))
    }

    /// The queue that has to move because its worker has two more than another: its place among the
    /// worker's queues, its load, the worker and the other one.
    fn surplus(&self, held: &[Held]) -> Option<(usize, u32, usize, usize)> {
        let (most, fewest) = ends(held);
        let (from, to) = (&held[most], &held[fewest]);
        if from.queues.len() < to.queues.len() + 2 {
            return None;
        }
        let queues = from.queues.iter().enumerate();
        let queues = queues.filter(|(_, queue)| !self.stay.contains_key(&queue.0));
        let loads = queues.map(|(place, queue)| (place, self.load(queue.0)));
        let (place, load) = loads.min_by_key(|&(place, load)| {
            // Of idle ones the last to come.
            (if load <= IDLE { 0 } else { load }, usize::MAX - place)
        })?;
        let harmless = load <= IDLE || to.load + load <= from.load;
        harmless.then_some((place, load, most, fewest))
    }

    fn remember(&mut self, held: &[Held], moved: &[(u64, usize)]) {
        self.taken_over.resize(held.len(), 0);
        for &(queue, to) in moved {
            self.taken_over[to] += 1;
            if !self.loads.is_empty() {
                self.stay.insert(queue, STAY);
            }
        }
        self.workers.clear();
        for (worker, held) in held.iter().enumerate() {
            let named = held.queues.iter().map(|queue| (queue.0, worker));
            self.workers.extend(named);
        }
    }

    fn load(&self, queue: u64) -> u32 {
        self.loads.get(&queue).copied().unwrap_or(0)
    }
}

impl Held {
    fn add(&mut self, queue: (u64, QueueRef), load: u32) {
        self.queues.push(queue);
        self.load += load;
    }
}

/// The workers with the most queues and with the fewest, the first of each.
fn ends(held: &[Held]) -> (usize, usize) {
    let (mut most, mut fewest) = (0, 0);
    for (worker, Held { queues, .. }) in held.iter().enumerate() {
        if queues.len() > held[most].queues.len() {
            most = worker;
        }
        if queues.len() < held[fewest].queues.len() {
            fewest = worker;
        }
    }
    (most, fewest)
}

#[cfg(test)]
mod tests;
