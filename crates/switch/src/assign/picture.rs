//! What the workers have to do, as of one look, and which move would help.

use std::cmp::Reverse;
use std::collections::HashMap;

use super::{IDLE, LOADED, Move};

/// A worker with more has no rest: its queues might take more than they get.
const RESTLESS: u32 = 900;

/// The workers, by number.
pub(super) struct Picture(Vec<Laden>);

/// A worker.
#[derive(Clone, Default)]
struct Laden {
    load: u32,
    /// The queues that cost anything, and what.
    queues: Vec<(u64, u32)>,
    /// How many of them take at least half of what the first of them takes. Of a worker without rest
    /// these are the ones that would take more.
    greedy: usize,
}

impl Picture {
    /// Of queues that are served by `workers` and cost `loads`.
    pub(super) fn new(
        workers: &HashMap<u64, usize>,
        loads: &HashMap<u64, u32>,
        count: usize,
    ) -> Self {
        let mut picture = vec![Laden::default(); count];
        for (&queue, &load) in loads {
            if let Some(worker) = workers.get(&queue).and_then(|&n| picture.get_mut(n)) {
                worker.load += load;
                worker.queues.push((queue, load));
            }
        }
        for worker in &mut picture {
            worker
                .queues
                .sort_unstable_by_key(|&(queue, load)| (Reverse(load), queue));
            let most = worker.queues.first().map_or(0, |queue| queue.1);
            let greedy = |&&(_, load): &&(u64, u32)| load > IDLE && load * 2 >= most;
            worker.greedy = worker.queues.iter().take_while(greedy).count();
        }
        Self(picture)
    }

    /// The move that helps most of those with queues that may move: of the most loaded worker that can
    /// be helped the queue that brings it closest to the least loaded one, or else one that is greedy.
    pub(super) fn best(&self, may_move: impl Fn(u64) -> bool) -> Option<Move> {
        let workers = 0..self.0.len();
        let spare = workers.clone().min_by_key(|&n| self.0[n].load)?;
        let calm = workers
            .clone()
            .min_by_key(|&n| (self.0[n].greedy, self.0[n].load))?;
        let mut loaded: Vec<usize> = workers.filter(|&n| self.0[n].load >= LOADED).collect();
        loaded.sort_by_key(|&n| Reverse(self.0[n].load));
        loaded.into_iter().find_map(|from| {
            // The lightest first: of equals it moves.
            let queues = self.0[from].queues.iter().rev();
            let queues = queues.map(|queue| queue.0).filter(|&queue| may_move(queue));
            let to = |to| move |queue| Move { queue, from, to };
            let helpful = queues
                .clone()
                .map(to(spare))
                .filter_map(|step| Some((self.relief(&step)?, step)));
            let best = helpful.min_by_key(|&(most, _)| most).map(|(_, step)| step);
            best.or_else(|| queues.map(to(calm)).find(|step| self.is_fair(step)))
        })
    }

    /// Whether a move helps: by the loads, or because those of a worker without rest do not say what its
    /// queues would take elsewhere.
    pub(super) fn helps(&self, step: &Move) -> bool {
        step.from.max(step.to) < self.0.len() && (self.relief(step).is_some() || self.is_fair(step))
    }

    /// The higher load of the two workers after the move, if that is lower by a fifth.
    fn relief(&self, step: &Move) -> Option<u32> {
        let (from, to) = (self.0[step.from].load, self.0[step.to].load);
        let load = self.load(step);
        let most = (from - load).max(to + load);
        (from >= LOADED && most * 5 <= from * 4).then_some(most)
    }

    /// Whether a greedy queue of a worker without rest gets to one that has at least two less of them.
    fn is_fair(&self, step: &Move) -> bool {
        let (from, to) = (&self.0[step.from], &self.0[step.to]);
        let mut greedy = from.queues[..from.greedy].iter();
        from.load >= RESTLESS
            && from.greedy >= to.greedy + 2
            && greedy.any(|&(queue, _)| queue == step.queue)
    }

    fn load(&self, step: &Move) -> u32 {
        let mut queues = self.0[step.from].queues.iter();
        let found = queues.find(|&&(queue, _)| queue == step.queue);
        found.map_or(0, |queue| queue.1)
    }
}
