//! Every order in which workers may come round to what is shown to them, as loom finds them: no queue
//! is ever served by two workers, whoever is late, and what was let go is in nobody's hands.
//!
//! The exchange and the assignment are the switch's own; the exchange stands on loom's locks here.
//! The same models with a control thread that does not wait must fail: what cannot fail shows nothing.

#[expect(clippy::duplicate_mod, reason = "the same code on other locks")]
#[path = "exchange.rs"]
mod exchange;

mod sync {
    pub(super) use loom::sync::atomic::{AtomicU64, Ordering};
    pub(super) use loom::sync::{Arc, Condvar, Mutex, MutexGuard};
}

use std::time::Duration;

use loom::sync::atomic::{AtomicBool, Ordering};
use loom::thread;

use crate::assign::{Assignment, Work};
use crate::snapshot::QueueRef;
use exchange::Exchange;
use sync::Arc;

/// Turns of each worker before it ends. The one that loses a queue comes round once; the other may
/// begin at any time.
const TURNS: [usize; 2] = [2, 1];

/// The queue that moves.
const MOVES: u16 = 2;

/// Most times that a thread is interrupted where it could have gone on.
const PREEMPTIONS: usize = 3;

/// What the control thread does until a worker comes round.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Patience {
    /// It waits.
    Waits,
    /// It gives up at once if the worker has not come round already.
    GivesUp,
    /// It moves queues on as if the worker had come round, which is wrong.
    MovesOn,
    /// It gives up and lets go of what it showed before, which is wrong.
    LetsGo,
}

/// What is shown: who serves what, and memory that is unmapped when it is let go.
struct Shown {
    work: Work,
    unmapped: AtomicBool,
}

impl Shown {
    fn new(work: Work) -> Self {
        Self {
            work,
            unmapped: AtomicBool::new(false),
        }
    }
}

/// What a worker's turn shows.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Turn {
    /// Whether somebody else serves the queue that moves.
    Serves,
    /// Whether what it holds was let go.
    Reads,
}

struct Model {
    exchange: Exchange<Shown>,
    turn: Turn,
    /// Somebody serves the queue that moves.
    served: AtomicBool,
}

impl Model {
    /// A worker's thread.
    fn serve(&self, worker: usize) {
        let mut old = None;
        for _ in 0..TURNS[worker] {
            let (_, shown) = self.exchange.newest(worker, old.take(), |_, _| ());
            if self.turn == Turn::Reads {
                let unmapped = shown.unmapped.load(Ordering::Acquire);
                assert!(!unmapped, "a worker reads what was let go");
            } else if shown.work[worker].iter().any(|queue| queue.slot == MOVES) {
                let served = self.served.swap(true, Ordering::AcqRel);
                assert!(!served, "two workers serve a queue");
                self.served.store(false, Ordering::Release);
            }
            old = Some(shown);
        }
        drop(old);
        self.exchange.leave(worker);
    }

    /// Shows work to all workers; true = all work with it, as far as the control thread knows.
    fn show(&self, work: Work, patience: Patience) -> bool {
        let (old, generation) = self.exchange.show(Shown::new(work));
        let adopted = match patience {
            Patience::Waits => self.exchange.wait(generation, Duration::from_secs(3600)),
            _ => self.exchange.is_everywhere(),
        };
        if self.turn == Turn::Reads && (adopted || patience == Patience::LetsGo) {
            old.unmapped.store(true, Ordering::Release);
        }
        adopted || patience == Patience::MovesOn
    }
}

fn queues(slots: &[u16]) -> Vec<(u64, QueueRef)> {
    let queue = |&slot: &u16| (slot.into(), QueueRef { slot, queue: 0 });
    slots.iter().map(queue).collect()
}

/// Two workers; the first has two queues, of which one moves to the second when that loses its own.
/// Then something else is shown. The control thread is patient or not each time.
fn explore(turn: Turn, patience: [Patience; 2]) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(PREEMPTIONS);
    builder.check(move || {
        let mut assignment = Assignment::default();
        let mut first = Vec::new();
        let plan = assignment.plan(&queues(&[0, 1, 2]), 2);
        assignment.carry_out(plan, |work| {
            first = work;
            true
        });
        let model = Arc::new(Model {
            exchange: Exchange::new(Shown::new(first), 2),
            turn,
            served: AtomicBool::new(false),
        });
        let workers = [0, 1].map(|worker| {
            let model = model.clone();
            thread::spawn(move || model.serve(worker))
        });
        for patience in patience {
            let plan = assignment.plan(&queues(&[0, 2]), 2);
            assignment.carry_out(plan, |work| model.show(work, patience));
        }
        for worker in workers {
            worker.join().unwrap();
        }
        // Once all have come round, whatever waited is served.
        let plan = assignment.plan(&queues(&[0, 2]), 2);
        assert_eq!(plan.work.concat().len(), 2);
        assignment.carry_out(plan, |work| model.show(work, Patience::GivesUp));
        assert!(!assignment.is_held_back());
    });
}

#[test]
fn a_control_thread_that_waits_moves_a_queue_and_lets_go_of_what_nobody_reads() {
    for turn in [Turn::Serves, Turn::Reads] {
        explore(turn, [Patience::Waits; 2]);
    }
}

#[test]
fn a_control_thread_that_gives_up_waiting_never_has_two_workers_serve_a_queue() {
    explore(Turn::Serves, [Patience::GivesUp; 2]);
}

#[test]
#[should_panic(expected = "two workers serve a queue")]
fn two_workers_serve_a_queue_that_moves_on_without_a_wait() {
    explore(Turn::Serves, [Patience::MovesOn; 2]);
}

#[test]
#[should_panic(expected = "a worker reads what was let go")]
fn a_worker_reads_what_is_let_go_without_a_wait() {
    explore(Turn::Reads, [Patience::LetsGo; 2]);
}
