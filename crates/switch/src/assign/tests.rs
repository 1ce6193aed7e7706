use super::*;

fn queues(ids: &[u16]) -> Vec<(u64, QueueRef)> {
    let queue = |&id: &u16| (id.into(), QueueRef { slot: id, queue: 0 });
    ids.iter().map(queue).collect()
}

fn slots(work: &Work) -> Vec<Vec<u16>> {
    let of = |queues: &Vec<QueueRef>| queues.iter().map(|queue| queue.slot).collect();
    work.iter().map(of).collect()
}

/// A generator of numbers that is the same in every run.
struct Random(u32);

impl Random {
    fn below(&mut self, limit: u32) -> u32 {
        self.0 = self.0.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (self.0 >> 8) % limit
    }
}

/// A plan that is carried out with workers that come round at once.
fn carried_out(assignment: &mut Assignment, ids: &[u16], count: usize) -> Plan {
    let plan = assignment.plan(&queues(ids), count);
    assignment.carry_out(plan.clone(), |_| true);
    plan
}

/// Workers, their queues and what these cost.
struct Scene {
    assignment: Assignment,
    ids: Vec<u16>,
    count: usize,
    moves: usize,
}

impl Scene {
    fn new(ids: &[u16], count: usize) -> Self {
        let mut assignment = Assignment::default();
        carried_out(&mut assignment, ids, count);
        let ids = ids.to_vec();
        Self {
            assignment,
            ids,
            count,
            moves: 0,
        }
    }

    /// One look, and the move it calls for.
    fn look(&mut self, loads: &[(u16, u32)]) -> Option<Plan> {
        let loads = loads.iter().map(|&(id, load)| (id.into(), load));
        let due = self.assignment.look(loads.collect(), self.count);
        due.then(|| {
            self.moves += 1;
            carried_out(&mut self.assignment, &self.ids, self.count)
        })
    }

    fn most(&self, loads: &[(u16, u32)]) -> u32 {
        let mut sums = vec![0; self.count];
        for &(id, load) in loads {
            sums[self.assignment.worker(id.into()).unwrap()] += load;
        }
        sums.into_iter().max().unwrap()
    }
}

#[test]
fn new_queues_go_to_the_worker_with_the_fewest_and_stay() {
    let mut assignment = Assignment::default();
    let plan = carried_out(&mut assignment, &[1, 2, 3], 2);
    assert_eq!(
        (slots(&plan.work), plan.first),
        (vec![vec![1, 3], vec![2]], None)
    );
    let plan = carried_out(&mut assignment, &[4, 3, 2, 1], 2);
    assert_eq!(
        (slots(&plan.work), plan.first),
        (vec![vec![3, 1], vec![2, 4]], None)
    );
}

#[test]
fn a_queue_that_moves_is_nobodys_first() {
    let mut assignment = Assignment::default();
    carried_out(&mut assignment, &[1, 2, 3, 4, 5, 6], 2);
    let plan = carried_out(&mut assignment, &[1, 3, 5], 2);
    assert_eq!(slots(&plan.work), [vec![1, 3], vec![5]]);
    assert_eq!(
        plan.first.as_ref().map(slots),
        Some(vec![vec![1, 3], vec![]])
    );
    let plan = carried_out(&mut assignment, &[1, 3, 5], 2);
    assert_eq!(plan.first, None);
    assert_eq!(
        (assignment.counts(0), assignment.counts(1)),
        ((2, 0), (1, 1))
    );
}

#[test]
fn a_queue_stays_nobodys_until_its_old_worker_has_come_round() {
    let mut assignment = Assignment::default();
    carried_out(&mut assignment, &[1, 2, 3, 4, 5, 6], 2);
    let mut show = |ids: &[u16], adopts: bool| {
        let mut shown = Vec::new();
        let plan = assignment.plan(&queues(ids), 2);
        assignment.carry_out(plan, |work| {
            shown.push(slots(&work));
            adopts
        });
        (shown, assignment.is_held_back())
    };
    // 5 moves. What is shown goes without it for as long as the first worker may still be at it.
    let without = vec![vec![1, 3], vec![]];
    assert_eq!(show(&[1, 3, 5], false), (vec![without.clone()], true));
    assert_eq!(show(&[1, 3, 5], false), (vec![without.clone()], true));
    assert_eq!(
        show(&[1, 3, 5], true),
        (vec![without, vec![vec![1, 3], vec![5]]], false)
    );
    assert_eq!(show(&[1, 3, 5], true).0.len(), 1);
}

#[test]
fn a_queue_that_comes_back_to_another_worker_waits_as_well() {
    let mut assignment = Assignment::default();
    carried_out(&mut assignment, &[1, 2, 3, 4], 2);
    let plan = assignment.plan(&queues(&[1, 2]), 2);
    assignment.carry_out(plan, |_| false);
    let plan = assignment.plan(&queues(&[1, 2, 4]), 2);
    assert_eq!(slots(&plan.work), [[1, 4].as_slice(), &[2]]);
    assert_eq!(plan.first.as_ref().map(slots), Some(vec![vec![1], vec![2]]));
}

#[test]
fn whatever_comes_and_goes_every_queue_has_one_worker_and_none_has_two_more_than_another() {
    let mut assignment = Assignment::default();
    let mut random = Random(1);
    for _ in 0..500 {
        let ids: Vec<u16> = (0..40).filter(|_| random.below(2) == 1).collect();
        let plan = carried_out(&mut assignment, &ids, 3);
        let mut served: Vec<u16> = slots(&plan.work).concat();
        served.sort_unstable();
        assert_eq!(served, ids);
        let lengths: Vec<usize> = plan.work.iter().map(Vec::len).collect();
        let (most, fewest) = (lengths.iter().max(), lengths.iter().min());
        assert!(most.unwrap() - fewest.unwrap() <= 1, "{lengths:?}");
    }
}

#[test]
fn of_two_busy_queues_at_one_worker_one_moves_after_two_looks() {
    let mut scene = Scene::new(&[1, 2, 3, 4], 2);
    let loads = [(1, 400), (3, 350)];
    assert!(scene.look(&loads).is_none());
    let plan = scene.look(&loads).unwrap();
    // An idle queue goes the other way, for the sake of numbers.
    assert_eq!(slots(&plan.work), [vec![1, 4], vec![2, 3]]);
    assert_eq!(slots(&plan.first.unwrap()), [vec![1], vec![2]]);
    for _ in 0..50 {
        assert!(scene.look(&loads).is_none());
    }
}

#[test]
fn what_one_look_alone_calls_for_is_not_done() {
    let mut scene = Scene::new(&[1, 2, 3, 4], 2);
    for _ in 0..50 {
        assert!(scene.look(&[(1, 400), (3, 350)]).is_none());
        assert!(scene.look(&[(1, 400), (2, 350)]).is_none());
    }
}

#[test]
fn little_load_and_load_that_cannot_be_divided_stay_where_they_are() {
    for loads in [
        [(1, 24), (3, 25), (2, 0)],
        [(1, 900), (3, 0), (2, 0)],
        [(1, 900), (3, 100), (2, 0)],
        [(1, 500), (3, 500), (2, 700)],
    ] {
        let mut scene = Scene::new(&[1, 2, 3, 4], 2);
        assert!((0..9).all(|_| scene.look(&loads).is_none()), "{loads:?}");
    }
}

#[test]
fn a_second_worker_is_helped_when_the_busiest_cannot_be() {
    let mut scene = Scene::new(&[1, 2, 3, 4, 5, 6], 3);
    let loads = [(1, 900), (2, 300), (5, 300)];
    scene.look(&loads);
    scene.look(&loads).unwrap();
    let at = |id| scene.assignment.worker(id).unwrap();
    assert_eq!(at(1), 0);
    assert_ne!(at(2), at(5));
}

#[test]
fn numbers_never_make_a_loaded_worker_busier() {
    // One busy queue at worker 0, four that are somewhat busy at worker 1.
    let mut scene = Scene::new(&[1, 2, 3, 4, 5, 6, 7, 8], 2);
    let loads = [(1, 800), (2, 150), (4, 150), (6, 150), (8, 150)];
    scene.look(&loads);
    scene.ids = vec![1, 2, 4, 6, 8];
    let plan = carried_out(&mut scene.assignment, &scene.ids, 2);
    assert_eq!(slots(&plan.work), [vec![1], vec![2, 4, 6, 8]]);
    // A new queue goes to the worker that has fewer.
    scene.ids.push(9);
    let plan = carried_out(&mut scene.assignment, &scene.ids, 2);
    assert_eq!(slots(&plan.work), [vec![1, 9], vec![2, 4, 6, 8]]);
    // Idle ones go where they should.
    let plan = scene.look(&[(1, 800)]);
    assert_eq!(plan, None);
    let plan = carried_out(&mut scene.assignment, &scene.ids, 2);
    assert_eq!(slots(&plan.work), [vec![1, 9, 8], vec![2, 4, 6]]);
}

#[test]
fn steady_loads_come_to_rest_and_the_busiest_worker_never_gets_busier() {
    let mut random = Random(7);
    let mut moves = 0;
    for _ in 0..300 {
        let count = 2 + random.below(4) as usize;
        let ids: Vec<u16> = (1..=u16::try_from(2 + random.below(30)).unwrap()).collect();
        let mut scene = Scene::new(&ids, count);
        // No worker is without rest, wherever the queues are.
        let room = 440 / u32::try_from(ids.len()).unwrap();
        let loads: Vec<(u16, u32)> = ids
            .iter()
            .map(|&id| (id, random.below(3) * random.below(room)))
            .collect();
        let mut before = scene.most(&loads);
        let mut last = 0;
        for look in 0..400 {
            if scene.look(&loads).is_some() {
                last = look;
            }
            let now = scene.most(&loads);
            // Idle queues may have been exchanged for the sake of numbers.
            assert!(now <= before + IDLE * 30, "{before} {now}");
            before = now;
        }
        assert!(last < 200, "still moving at look {last}");
        moves += scene.moves;
    }
    assert!(moves > 100, "{moves}");
}

#[test]
fn changing_loads_never_make_a_move_that_makes_the_busiest_worker_busier() {
    let mut random = Random(3);
    let ids: Vec<u16> = (1..=12).collect();
    let mut scene = Scene::new(&ids, 3);
    let mut places: HashMap<u16, (u32, usize)> = HashMap::new();
    for look in 0..20_000 {
        let loads: Vec<(u16, u32)> = ids
            .iter()
            .map(|&id| (id, 20 + random.below(if id < 7 { 300 } else { 40 })))
            .collect();
        let before = scene.most(&loads);
        if scene.look(&loads).is_some() {
            assert!(scene.most(&loads) <= before);
        }
        for &id in &ids {
            let at = scene.assignment.worker(id.into()).unwrap();
            let &mut (since, place) = places.entry(id).or_insert((0, at));
            if place != at {
                assert!(
                    since == 0 || look - since >= STAY,
                    "{id} moves at once again"
                );
                places.insert(id, (look, at));
            }
        }
    }
    assert!(scene.moves > 20, "{}", scene.moves);
}

/// What queues get that want so much, in turns, of workers that have so much to give.
fn shares(scene: &Scene, demands: &[(u16, u32)]) -> Vec<(u16, u32)> {
    let mut shares = Vec::new();
    for worker in 0..scene.count {
        let at = |id: u16| scene.assignment.worker(id.into()) == Some(worker);
        let mut here: Vec<_> = demands.iter().copied().filter(|&(id, _)| at(id)).collect();
        here.sort_by_key(|&(_, demand)| demand);
        let (mut left, mut queues) = (1000, u32::try_from(here.len()).unwrap());
        for (id, demand) in here {
            let share = demand.min(left / queues);
            shares.push((id, share));
            (left, queues) = (left - share, queues - 1);
        }
    }
    shares
}

#[test]
fn queues_that_share_a_worker_without_rest_are_spread() {
    for other in [1000, 600] {
        let mut scene = Scene::new(&[1, 2, 3, 4, 5, 6], 2);
        let demands = [(1, 1000), (3, 1000), (5, 1000), (2, other)];
        for _ in 0..60 {
            let loads = shares(&scene, &demands);
            scene.look(&loads);
        }
        assert_eq!(scene.moves, 1, "{other}");
        let loads = shares(&scene, &demands);
        assert!(loads.iter().all(|&(_, load)| load >= 500), "{loads:?}");
    }
}

#[test]
fn steady_demands_come_to_rest_whatever_the_workers_can_give() {
    let mut random = Random(11);
    let mut moves = 0;
    for _ in 0..150 {
        let count = 2 + random.below(4) as usize;
        let ids: Vec<u16> = (1..=u16::try_from(2 + random.below(30)).unwrap()).collect();
        let mut scene = Scene::new(&ids, count);
        let demands: Vec<(u16, u32)> = ids
            .iter()
            .map(|&id| (id, random.below(3) * random.below(600)))
            .collect();
        let mut last = 0;
        for look in 0..600 {
            let loads = shares(&scene, &demands);
            if scene.look(&loads).is_some() {
                last = look;
            }
        }
        assert!(last < 300, "still moving at look {last}");
        moves += scene.moves;
    }
    assert!(moves > 100, "{moves}");
}
