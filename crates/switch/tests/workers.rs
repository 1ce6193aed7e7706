//! Several workers: queues move to where there is less to do without a frame lost or out of order,
//! and share a destination evenly.

mod mock;

use std::time::Instant;

use mock::frames::{BROADCAST, frame, mac, seed};
use mock::{Guest, Lab, Options, PATIENCE, Shape};
use ringway_api::stats::{PortStatistics, Statistics};
use ringway_switch::Poll;
use ringway_wire::VnetHeader;

/// Frames a sender has under way at most.
const WINDOW: u64 = 24;

/// Everything that is under way to one guest fits into its buffers.
const BUFFERS: usize = 100;
const _: () = assert!(4 * WINDOW + 4 <= BUFFERS as u64);

/// Bytes of a frame: as many as make the copy the larger part of the work.
const LENGTH: usize = 16_000;

/// Guests in one thread, some of which send to others: numbered frames, none of which may be lost,
/// repeated or overtaken.
struct Crowd {
    guests: Vec<Guest>,
    flows: Vec<Flow>,
}

#[derive(Debug)]
struct Flow {
    from: usize,
    to: usize,
    sent: u64,
    arrived: u64,
    bytes: Vec<u8>,
}

impl Crowd {
    /// Guests at these ports. Every port is known to the switch afterwards.
    fn new(lab: &Lab, ports: &[&str]) -> Self {
        let options = Options {
            buffer: 16_384,
            buffers: BUFFERS,
            ..Options::default()
        };
        let guests = ports.iter().map(|port| lab.guest(port, options.clone()));
        let mut guests: Vec<_> = guests.collect();
        for n in 0..guests.len() {
            guests[n].send(&frame(address(n), BROADCAST, 60, 0));
            let others = guests.iter_mut().enumerate().filter(|&(k, _)| k != n);
            others.for_each(|(_, guest)| assert_eq!(seed(&guest.receive().frame), 0));
        }
        Self {
            guests,
            flows: Vec::new(),
        }
    }

    /// Has `from` send to `to`.
    fn add(&mut self, from: usize, to: usize) {
        self.flows.push(Flow {
            from,
            to,
            sent: 0,
            arrived: 0,
            bytes: frame(address(from), address(to), LENGTH, 0),
        });
    }

    /// Every sender's window is filled, everything that has come is checked. Nobody is first always.
    fn step(&mut self) {
        self.flows.rotate_left(1);
        for flow in &mut self.flows {
            let guest = &mut self.guests[flow.from];
            guest.reclaim();
            while flow.sent < flow.arrived + WINDOW {
                flow.sent += 1;
                flow.bytes[14..22].copy_from_slice(&flow.sent.to_le_bytes());
                guest.stage(0, VnetHeader::default(), &flow.bytes, &Shape::default());
            }
            guest.queues[1].publish();
        }
        self.collect();
    }

    fn collect(&mut self) {
        for (n, guest) in self.guests.iter_mut().enumerate() {
            while let Some(received) = guest.take() {
                let from = &received.frame[6..12];
                let flow = self.flows.iter_mut();
                let flow = { flow }.find(|flow| flow.to == n && address(flow.from).0 == *from);
                let flow = flow.expect("a frame for nobody here");
                assert_eq!(seed(&received.frame), flow.arrived + 1, "lost or overtaken");
                flow.arrived += 1;
            }
            guest.fill();
        }
    }

    /// Goes on until statistics, looked at now and then, are as they should be.
    fn until(&mut self, lab: &Lab, what: &str, done: impl Fn(&Statistics) -> bool) -> Statistics {
        let deadline = Instant::now() + PATIENCE;
        loop {
            (0..100).for_each(|_| self.step());
            let statistics = lab.statistics();
            if done(&statistics) {
                return statistics;
            }
            assert!(Instant::now() < deadline, "{what}: {statistics:#?}");
        }
    }

    fn arrived(&self) -> u64 {
        self.flows.iter().map(|flow| flow.arrived).sum()
    }

    /// Sends no more and waits for what is under way.
    fn end(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        while self.flows.iter().any(|flow| flow.arrived < flow.sent) {
            self.collect();
            assert!(Instant::now() < deadline, "frames are lost");
        }
        self.guests.iter_mut().for_each(|guest| guest.drain());
    }
}

fn address(n: usize) -> ringway_wire::MacAddress {
    mac(u8::try_from(n + 1).unwrap())
}

/// The worker that serves the first queue of port `n`.
fn worker(statistics: &Statistics, n: usize) -> usize {
    statistics.ports[n].queues[0].worker.unwrap()
}

#[test]
fn two_busy_senders_at_one_worker_are_parted_and_no_frame_is_lost_or_overtaken() {
    let lab = Lab::with(2, Poll::Adaptive, &["a", "b", "c", "d"]);
    let mut crowd = Crowd::new(&lab, &["a", "b", "c", "d"]);
    let before = lab.statistics();
    let workers: Vec<_> = (0..4).map(|n| worker(&before, n)).collect();
    assert_eq!(workers, [0, 1, 0, 1]);
    crowd.add(0, 1);
    crowd.add(2, 3);
    let parted = crowd.until(&lab, "the senders to be parted", |statistics| {
        worker(statistics, 0) != worker(statistics, 2)
    });
    assert!(parted.workers.iter().all(|worker| worker.queues == 2));
    // An idle one went the other way, and that was all.
    let moves = |statistics: &Statistics| -> Vec<u64> {
        statistics
            .workers
            .iter()
            .map(|worker| worker.moves)
            .collect()
    };
    assert_eq!(moves(&parted), [1, 1]);
    let enough = crowd.arrived() + 10_000;
    while crowd.arrived() < enough {
        crowd.step();
    }
    crowd.end();
    let sent: u64 = crowd.guests.iter().map(|guest| guest.sent).sum();
    // The first four were flooded to three each.
    let statistics = lab.settled(sent + 8);
    assert_eq!(statistics.dropped, 0);
    assert_eq!(moves(&statistics), [1, 1]);
    for (n, port) in statistics.ports.iter().enumerate() {
        assert_eq!(port.queues[0].rx_frames, crowd.guests[n].sent);
        let most = statistics.ports[0].queues[0].busy_ns;
        assert_eq!(port.queues[0].busy_ns > most / 10, n % 2 == 0);
    }
    let attempted: u64 = statistics
        .workers
        .iter()
        .map(|worker| worker.attempted)
        .sum();
    assert_eq!(attempted, statistics.attempted);
    for worker in &statistics.workers {
        let cpu = worker.cpu_ns.unwrap();
        println!(
            "{}: {} deliveries, {:.0} ns of CPU for each, {:.0} ns of them for bursts",
            worker.name,
            worker.attempted,
            cpu as f64 / worker.attempted as f64,
            worker.busy_ns as f64 / worker.attempted as f64
        );
        assert!(worker.attempted > 0 && worker.busy_ns > 0);
    }
}

#[test]
fn four_senders_with_two_workers_share_one_receiver() {
    let ports = ["a", "b", "c", "d", "e"];
    let lab = Lab::with(2, Poll::Adaptive, &ports);
    let mut crowd = Crowd::new(&lab, &ports);
    (0..4).for_each(|n| crowd.add(n, 4));
    let statistics = loop {
        let statistics = crowd.until(&lab, "workers to meet", |statistics| {
            statistics.ports[4].queues[0].lock_waits > 0
        });
        if crowd.arrived() > 200_000 {
            break statistics;
        }
    };
    crowd.end();
    // Every queue has as much waiting whenever a worker comes by, and gives one burst per round: what
    // remains is how much of the processors each worker got.
    let mut arrived: Vec<_> = crowd.flows.iter().map(|f| (f.from, f.arrived)).collect();
    arrived.sort_unstable();
    println!("arrived by sender: {arrived:?}");
    println!("lock waits: {}", statistics.ports[4].queues[0].lock_waits);
    let most = arrived.iter().map(|&(_, arrived)| arrived).max().unwrap();
    let least = arrived.iter().map(|&(_, arrived)| arrived).min().unwrap();
    assert!(2 * most <= 3 * least, "{arrived:?}");
    let waits = |port: &PortStatistics| port.queues[0].lock_waits;
    assert!(statistics.ports[..4].iter().all(|port| waits(port) == 0));
    assert_eq!(lab.statistics().dropped, 0);
}
