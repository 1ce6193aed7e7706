//! Who sends as fast as it can takes its share of a worker and no more, as the order of arrival shows.

mod mock;

use mock::frames::{BROADCAST, frame, mac};
use mock::{Guest, Lab, Options, features};
use ringway_wire::MacAddress;

/// What sends to the receiver: frames of this length from so many queues.
#[derive(Clone, Copy)]
struct Bulk {
    to: MacAddress,
    len: usize,
    pairs: u16,
    /// In all.
    frames: usize,
}

const RECEIVER: u8 = 9;

impl Bulk {
    fn new(len: usize, pairs: u16, frames: usize) -> Self {
        Self {
            to: mac(RECEIVER),
            len,
            pairs,
            frames,
        }
    }

    /// What a frame of it costs the worker, in bytes to copy (`worker/share.rs`), when it goes to so many.
    fn cost(&self, copies: usize) -> f64 {
        let once = self.len + 256 + 64 + 1024 / 32;
        (once
            + if self.to == BROADCAST {
                copies * (self.len + 256)
            } else {
                0
            }) as f64
    }

    /// A guest whose rings hold all of it, unseen by the device.
    fn prepare(&self, lab: &Lab, number: u8) -> Guest {
        let name = ["a", "b"][usize::from(number) - 1];
        let options = Options {
            size: 16384,
            pairs: self.pairs,
            buffers: 4,
            features: features::BASE | features::MERGE,
            ..Options::default()
        };
        let mut guest = lab.guest(name, options);
        let bytes = [&[0; 12][..], &frame(mac(number), self.to, self.len, 0)].concat();
        let pairs = usize::from(self.pairs);
        for queue in guest.nic.queues.iter_mut().skip(1).step_by(2) {
            let piece = (queue.room().0, u32::try_from(bytes.len()).unwrap());
            queue.write(&[piece], &bytes);
            for _ in 0..self.frames / pairs {
                queue.ring.add(&[piece], &[], false).unwrap();
            }
        }
        guest
    }
}

/// The number of frames of `a` and of `b` that arrived while both had more to send.
fn race(ports: &[&str], [a, b]: [Bulk; 2]) -> (f64, f64) {
    for attempt in 0..20 {
        let lab = Lab::start(ports);
        let mut receiver = lab.guest(
            "r",
            Options {
                size: 32768,
                ..Options::default()
            },
        );
        let others: Vec<_> = ports[3..]
            .iter()
            .map(|name| lab.guest(name, Options::default()))
            .collect();
        let mut guests = [a.prepare(&lab, 1), b.prepare(&lab, 2)];
        receiver.send(&frame(mac(RECEIVER), mac(RECEIVER - 1), 60, 0));
        let before = lab
            .until("the receiver to be known", |s| s.attempted >= 1)
            .attempted;
        // Everybody is asleep. Once the first kick has woken the worker, the second has come too, mostly.
        for guest in &mut guests {
            for queue in guest.nic.queues.iter_mut().skip(1).step_by(2) {
                queue.ring.publish();
            }
        }
        for guest in &mut guests {
            guest
                .nic
                .queues
                .iter_mut()
                .skip(1)
                .step_by(2)
                .for_each(mock::queue::Queue::kick);
        }
        let copies = others.len() + 2;
        let deliveries = |bulk: &Bulk| bulk.frames * if bulk.to == BROADCAST { copies } else { 1 };
        let expected = (deliveries(&a) + deliveries(&b)) as u64;
        let done = lab.until("the end of it", |s| s.attempted - before >= expected);
        assert_eq!(done.ports[2].drops.get("no_buffers"), None, "{done:?}");
        let mut order = Vec::new();
        while let Some(received) = receiver.take() {
            order.push(received.frame[11]);
        }
        let first = |of: u8| order.iter().position(|&from| from == of).unwrap();
        let last = |of: u8| order.iter().rposition(|&from| from == of).unwrap();
        let both = first(1).max(first(2))..last(1).min(last(2));
        let count = |of: u8| {
            order[both.clone()]
                .iter()
                .filter(|&&from| from == of)
                .count()
        };
        let [from_a, from_b] = [count(1), count(2)];
        // A part that is too short says nothing: the second kick came late.
        if from_a.max(from_b) * 2 > a.frames.min(b.frames) && from_a.min(from_b) > 20 {
            return (from_a as f64, from_b as f64);
        }
        println!("attempt {attempt}: {from_a} and {from_b} are too few");
    }
    panic!("the machine is too busy to have two guests send at once");
}

/// Shares are equal within 20 %: each has between 0.4 and 0.6 of the two.
#[track_caller]
fn fair(what: &str, ports: &[&str], bulks: [Bulk; 2]) {
    let mut shares: Vec<f64> = (0..3)
        .map(|_| {
            let (a, b) = race(ports, bulks);
            let copies = ports.len() - 1;
            let (cost_a, cost_b) = (a * bulks[0].cost(copies), b * bulks[1].cost(copies));
            let share = cost_a / (cost_a + cost_b);
            println!("{what}: {a} and {b} frames, {share:.3} of the cost is the first one's");
            share
        })
        .collect();
    shares.sort_by(f64::total_cmp);
    assert!((0.4..0.6).contains(&shares[1]), "{what}: {shares:?}");
}

const PORTS: [&str; 3] = ["a", "b", "r"];

#[test]
fn equal_senders_have_equal_shares() {
    for len in [60, 1514, 9014] {
        let frames = if len > 2048 { 2000 } else { 8000 };
        fair(&format!("{len} B"), &PORTS, [Bulk::new(len, 1, frames); 2]);
    }
}

#[test]
fn long_frames_take_no_more_than_short_ones() {
    fair(
        "65,000 B and 60 B",
        &PORTS,
        [Bulk::new(65_000, 1, 120), Bulk::new(60, 1, 16_000)],
    );
    fair(
        "1514 B and 60 B",
        &PORTS,
        [Bulk::new(1514, 1, 4000), Bulk::new(60, 1, 16_000)],
    );
}

#[test]
fn four_queues_take_no_more_than_one() {
    let ports = ["a,queues=4", "b", "r"];
    for len in [60, 1514] {
        let bulks = [Bulk::new(len, 4, 8000), Bulk::new(len, 1, 8000)];
        fair(&format!("{len} B from 4 queues and from 1"), &ports, bulks);
    }
}

#[test]
fn copies_of_flooded_frames_are_their_senders() {
    let ports = ["a,storm=off", "b", "r", "c", "d", "e", "f", "g"];
    for len in [60, 1514] {
        let storm = Bulk {
            to: BROADCAST,
            ..Bulk::new(len, 1, 2000)
        };
        fair(
            &format!("{len} B to all and to one"),
            &ports,
            [storm, Bulk::new(len, 1, 14_000)],
        );
    }
}
