//! Which worker receives which queue.
//!
//! A queue stays with its worker for as long as the load by numbers allows. One that moves is served
//! by nobody in between: its old worker may still be delivering a burst of it when the new one would
//! take the next, and frames would pass each other.

use std::collections::HashMap;

use crate::snapshot::QueueRef;

/// Who serves each queue, by the queue's name (see `Wakeup`).
#[derive(Debug, Default)]
pub(crate) struct Assignment {
    workers: HashMap<u64, usize>,
}

/// What each worker has to serve.
pub(crate) type Work = Vec<Vec<QueueRef>>;

/// The way to a new assignment.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    /// To be in force everywhere before `work` is: the same without queues that change their worker.
    /// `None` = no queue does.
    pub(crate) first: Option<Work>,
    /// Every queue at its worker.
    pub(crate) work: Work,
}

impl Assignment {
    /// Assigns `queues` to `count` workers, at least one: known queues stay, new ones go to the worker
    /// with the fewest, and queues move only from a worker that has two more than another.
    pub(crate) fn plan(&mut self, queues: &[(u64, QueueRef)], count: usize) -> Plan {
        let mut held: Vec<Vec<(u64, QueueRef)>> = vec![Vec::new(); count];
        let mut new = Vec::new();
        for &queue in queues {
            match self.workers.get(&queue.0) {
                Some(&worker) if worker < count => held[worker].push(queue),
                _ => new.push(queue),
            }
        }
        for queue in new {
            let (_, fewest) = ends(&held);
            held[fewest].push(queue);
        }
        let mut moved = Vec::new();
        loop {
            let (most, fewest) = ends(&held);
            if held[most].len() < held[fewest].len() + 2 {
                break;
            }
            let Some(queue) = held[most].pop() else { break };
            if self.workers.contains_key(&queue.0) {
                moved.push(queue.0);
            }
            held[fewest].push(queue);
        }
        let named = |(worker, held): (usize, &Vec<(u64, QueueRef)>)| {
            held.iter()
                .map(move |queue| (queue.0, worker))
                .collect::<Vec<_>>()
        };
        self.workers = held.iter().enumerate().flat_map(named).collect();
        let work = |keep: &dyn Fn(u64) -> bool| {
            let kept = |held: &Vec<(u64, QueueRef)>| {
                held.iter()
                    .filter(|queue| keep(queue.0))
                    .map(|queue| queue.1)
                    .collect()
            };
            held.iter().map(kept).collect()
        };
        Plan {
            first: (!moved.is_empty()).then(|| work(&|id| !moved.contains(&id))),
            work: work(&|_| true),
        }
    }
}

/// The workers with the most queues and with the fewest, the first of each.
fn ends(held: &[Vec<(u64, QueueRef)>]) -> (usize, usize) {
    let (mut most, mut fewest) = (0, 0);
    for (worker, queues) in held.iter().enumerate() {
        if queues.len() > held[most].len() {
            most = worker;
        }
        if queues.len() < held[fewest].len() {
            fewest = worker;
        }
    }
    (most, fewest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queues(ids: &[u16]) -> Vec<(u64, QueueRef)> {
        let queue = |&id: &u16| (id.into(), QueueRef { slot: id, queue: 0 });
        ids.iter().map(queue).collect()
    }

    fn slots(work: &Work) -> Vec<Vec<u16>> {
        let of = |queues: &Vec<QueueRef>| queues.iter().map(|queue| queue.slot).collect();
        work.iter().map(of).collect()
    }

    #[test]
    fn new_queues_go_to_the_worker_with_the_fewest_and_stay() {
        let mut assignment = Assignment::default();
        let plan = assignment.plan(&queues(&[1, 2, 3]), 2);
        assert_eq!(
            (slots(&plan.work), plan.first),
            (vec![vec![1, 3], vec![2]], None)
        );
        let plan = assignment.plan(&queues(&[4, 3, 2, 1]), 2);
        assert_eq!(
            (slots(&plan.work), plan.first),
            (vec![vec![3, 1], vec![2, 4]], None)
        );
    }

    #[test]
    fn a_queue_that_moves_is_nobodys_first() {
        let mut assignment = Assignment::default();
        assignment.plan(&queues(&[1, 2, 3, 4, 5, 6]), 2);
        let plan = assignment.plan(&queues(&[1, 3, 5]), 2);
        assert_eq!(slots(&plan.work), [vec![1, 3], vec![5]]);
        assert_eq!(
            plan.first.as_ref().map(slots),
            Some(vec![vec![1, 3], vec![]])
        );
        let plan = assignment.plan(&queues(&[1, 3, 5]), 2);
        assert_eq!(plan.first, None);
    }

    #[test]
    fn whatever_comes_and_goes_every_queue_has_one_worker_and_none_has_two_more_than_another() {
        let mut assignment = Assignment::default();
        let mut state = 1u32;
        for _ in 0..500 {
            let ids: Vec<u16> = (0..40)
                .filter(|_| {
                    state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    state >> 31 == 1
                })
                .collect();
            let plan = assignment.plan(&queues(&ids), 3);
            let mut served: Vec<u16> = slots(&plan.work).concat();
            served.sort_unstable();
            assert_eq!(served, ids);
            let lengths: Vec<usize> = plan.work.iter().map(Vec::len).collect();
            let (most, fewest) = (lengths.iter().max(), lengths.iter().min());
            assert!(most.unwrap() - fewest.unwrap() <= 1, "{lengths:?}");
        }
    }
}
