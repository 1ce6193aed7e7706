//! Every state of a small ring, in every lap and around every wrap, and every step from there, against counters that never wrap.
//!
//! A state is how many chains the driver has offered, the device has taken, completed and published since the start; and whether the
//! device knows of all that are offered.

#![allow(clippy::cast_possible_truncation)]

mod common;

use std::sync::Arc;

use common::{BUFFERS, FORMATS, Spot, options, peek_u16, poke_u16};
use ringway_mem::GuestMemory;
use ringway_ring::{Chain, DeviceRing, DriverRing, MAX_BATCH, ReadBatch, RingFault, RingFeatures};

/// One for each test.
fn memory() -> Arc<GuestMemory> {
    Arc::new(GuestMemory::heap(&[(0, 0x2_0000), (BUFFERS, 0x1000)]))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Counts {
    offered: u16,
    taken: u16,
    completed: u16,
    published: u16,
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Offer(u16),
    Take(u16),
    Untake(u16),
    Complete(u16),
    Publish,
    PublishOlder,
    Discard,
    Restart,
}

struct Ring {
    memory: Arc<GuestMemory>,
    features: RingFeatures,
    start: Spot,
    driver: DriverRing,
    device: DeviceRing,
    /// Taken and not completed, and their numbers.
    chains: Vec<Chain>,
    counts: Counts,
    /// Ids by number.
    ids: Vec<u16>,
}

impl Ring {
    /// A ring in the state `counts`; with `knows`, its device has seen all that is offered.
    fn new(
        memory: &Arc<GuestMemory>,
        (features, size, start): (RingFeatures, u16, Spot),
        counts: Counts,
        knows: bool,
    ) -> Self {
        let options = options(size, features, start.base());
        let driver = DriverRing::new(memory, 0, options).unwrap();
        let device = DeviceRing::new(memory, &driver.layout(), features, options.base).unwrap();
        let mut ring = Self {
            memory: memory.clone(),
            features,
            start,
            driver,
            device,
            chains: Vec::new(),
            counts: Counts {
                offered: 0,
                taken: 0,
                completed: 0,
                published: 0,
            },
            ids: Vec::new(),
        };
        // The driver of this test polls.
        ring.driver.disable_calls();
        ring.offer(if knows { counts.offered } else { counts.taken });
        ring.take(counts.taken);
        ring.complete(counts.published);
        ring.device.publish();
        ring.counts.published = ring.counts.completed;
        ring.complete(counts.completed - counts.published);
        ring.offer(counts.offered - ring.counts.offered);
        assert_eq!(ring.counts, counts);
        ring
    }

    fn offer(&mut self, count: u16) {
        for _ in 0..count {
            let id = self.driver.add(&[(BUFFERS, 64)], &[], false).unwrap();
            self.ids.push(id);
        }
        self.driver.publish();
        self.counts.offered += count;
    }

    fn take(&mut self, max: u16) {
        let mut left = usize::from(max);
        loop {
            let there = usize::from(self.counts.offered - self.counts.taken);
            let wanted = left.min(MAX_BATCH);
            let mut batch = ReadBatch::new();
            let taken = self.device.take_readable(&self.memory, &mut batch, wanted);
            assert_eq!(taken, Ok(wanted.min(there)));
            for chain in &batch.chains {
                assert_eq!(chain.id, self.ids[usize::from(self.counts.taken)]);
                self.counts.taken += 1;
            }
            self.chains.extend(batch.chains);
            left -= wanted;
            if left == 0 || there == 0 {
                return;
            }
        }
    }

    fn complete(&mut self, count: u16) {
        let chains: Vec<Chain> = self.chains.drain(..usize::from(count)).collect();
        self.device.complete(&chains);
        self.counts.completed += count;
    }

    fn step(&mut self, step: Step) {
        let counts = &mut self.counts;
        match step {
            Step::Offer(count) => self.offer(count),
            Step::Take(max) => self.take(max),
            Step::Untake(count) => {
                let keep = self.chains.len() - usize::from(count);
                self.device.untake(&self.chains[keep..]);
                self.chains.truncate(keep);
                counts.taken -= count;
            }
            Step::Complete(count) => self.complete(count),
            Step::Publish => {
                assert!(!self.device.publish(), "a driver that polls is called");
                counts.published = counts.completed;
            }
            Step::PublishOlder => {
                assert!(!self.device.publish_older());
                let kept = kept(self.features, self.device.size());
                counts.published = counts.published.max(counts.completed.saturating_sub(kept));
            }
            Step::Discard => {
                self.device.discard_staged();
                self.forget();
            }
            Step::Restart => {
                let (layout, base) = (self.driver.layout(), self.device.base());
                self.device = DeviceRing::new(&self.memory, &layout, self.features, base).unwrap();
                self.forget();
            }
        }
    }

    fn forget(&mut self) {
        self.chains.clear();
        self.counts.taken = self.counts.published;
        self.counts.completed = self.counts.published;
    }

    /// All that can be seen of a state, and that everything comes round from there.
    fn check(mut self) {
        let Counts {
            offered,
            taken,
            published,
            ..
        } = self.counts;
        assert_eq!(self.device.base(), self.start.step(published.into()).base());
        assert_eq!(self.device.has_available(), taken < offered);
        assert_eq!(self.driver.has_used(), published > 0);
        self.take(u16::MAX);
        self.complete(self.counts.taken - self.counts.completed);
        self.device.publish();
        for &id in &self.ids {
            assert_eq!(self.driver.pop_used().unwrap().unwrap().id, id);
        }
        assert_eq!(self.driver.pop_used(), Ok(None));
        assert_eq!(self.device.base(), self.start.step(offered.into()).base());
    }
}

/// Chains that `publish_older` keeps back from a driver that polls.
fn kept(features: RingFeatures, size: u16) -> u16 {
    if features.packed {
        0
    } else {
        (size / 8).min(32)
    }
}

fn states(size: u16) -> impl Iterator<Item = Counts> {
    let up_to = |last: u16| 0..=last;
    up_to(size)
        .flat_map(move |offered| up_to(offered).map(move |taken| (offered, taken)))
        .flat_map(move |(offered, taken)| up_to(taken).map(move |done| (offered, taken, done)))
        .flat_map(move |(offered, taken, completed)| {
            up_to(completed).map(move |published| Counts {
                offered,
                taken,
                completed,
                published,
            })
        })
}

fn steps(counts: Counts, size: u16) -> impl Iterator<Item = Step> {
    let held = counts.taken - counts.completed;
    // The driver takes nothing back before the end, so there is no room for more than a lap.
    let offers = (0..=size - counts.offered).map(Step::Offer);
    let takes = (0..=counts.offered - counts.taken + 1).map(Step::Take);
    let untakes = (0..=held).map(Step::Untake);
    let completes = (0..=held).map(Step::Complete);
    let others = [
        Step::Publish,
        Step::PublishOlder,
        Step::Discard,
        Step::Restart,
    ];
    offers
        .chain(takes)
        .chain(untakes)
        .chain(completes)
        .chain(others)
}

/// Every place of a packed ring; for a split one, so many around the wrap that each index is on it once.
fn starts(packed: bool, size: u16) -> impl Iterator<Item = Spot> {
    let places = if packed { 2 * size } else { size + 1 };
    let first = if packed { 0 } else { 0_u16.wrapping_sub(size) };
    (0..places).map(move |at| Spot::new(packed, size, first.wrapping_add(at)))
}

fn every_step_of_every_state(features: RingFeatures, sizes: &[u16]) {
    let memory = memory();
    for &size in sizes {
        for start in starts(features.packed, size) {
            for counts in states(size) {
                for step in steps(counts, size) {
                    for knows in [false, true] {
                        let mut ring = Ring::new(&memory, (features, size, start), counts, knows);
                        ring.step(step);
                        ring.check();
                    }
                }
            }
        }
    }
}

#[test]
fn every_step_of_every_state_of_a_split_ring_virtio_2_7_6_and_2_7_8() {
    every_step_of_every_state(FORMATS[0], &[1, 2, 4]);
    // Of these, one chain is kept back.
    let memory = memory();
    for in_order in [false, true] {
        let features = RingFeatures {
            in_order,
            ..FORMATS[0]
        };
        for start in starts(false, 8) {
            for counts in states(8) {
                for step in [Step::PublishOlder, Step::Publish] {
                    let mut ring = Ring::new(&memory, (features, 8, start), counts, true);
                    ring.step(Step::PublishOlder);
                    ring.step(step);
                    ring.check();
                }
            }
        }
    }
}

#[test]
fn every_step_of_every_state_of_a_packed_ring_virtio_2_8_1() {
    every_step_of_every_state(FORMATS[1], &[1, 2, 3, 4]);
}

#[test]
fn in_order_changes_nothing_of_the_positions_virtio_2_7_8_1_and_2_8_9() {
    for features in FORMATS {
        let features = RingFeatures {
            in_order: true,
            ..features
        };
        every_step_of_every_state(features, &[2]);
    }
}

#[test]
fn what_is_kept_back_is_the_newest_wherever_the_index_wraps() {
    let memory = memory();
    let features = FORMATS[0];
    for size in [64, 256, 512] {
        let kept = kept(features, size);
        for start in [
            0,
            0xffff,
            0_u16.wrapping_sub(kept),
            0_u16.wrapping_sub(size),
        ] {
            let start = Spot::new(false, size, start);
            for first in (0..=size).step_by(usize::from(size / 32)) {
                for second in [0, 1, kept - 1, kept, kept + 1, size - first] {
                    let second = second.min(size - first);
                    let counts = Counts {
                        offered: size,
                        taken: first + second,
                        completed: first,
                        published: 0,
                    };
                    let mut ring = Ring::new(&memory, (features, size, start), counts, true);
                    ring.step(Step::PublishOlder);
                    assert_eq!(ring.counts.published, first.saturating_sub(kept));
                    ring.step(Step::Complete(second));
                    ring.step(Step::PublishOlder);
                    let used = ring.driver.layout().used + 2;
                    let seen = start.step((first + second).saturating_sub(kept).into());
                    assert_eq!(peek_u16(&memory, used), seen.event());
                    ring.check();
                }
            }
        }
    }
}

/// Virtio 1.2, 2.7.6.1: the available index goes forward, by no more than there are descriptors.
#[test]
fn every_available_index_in_every_state_is_taken_or_refused() {
    const SIZE: u16 = 8;
    let memory = memory();
    let mut batch = ReadBatch::new();
    for start in [0, 0x7ffd, 0xfff8, 0xfffd, 0xffff] {
        let start = Spot::new(false, SIZE, start);
        for taken in 0..=SIZE {
            let counts = Counts {
                offered: taken,
                taken,
                completed: 0,
                published: 0,
            };
            let mut ring = Ring::new(&memory, (FORMATS[0], SIZE, start), counts, true);
            let at = ring.driver.layout().available + 2;
            for index in 0..=u16::MAX {
                poke_u16(&memory, at, index);
                batch.clear();
                let found = ring.device.take_readable(&memory, &mut batch, 64);
                // How far the index is ahead of what was published, as the driver must count.
                let ahead = (0x1_0000 + u32::from(index) - u32::from(start.event())) % 0x1_0000;
                if (u32::from(taken)..=u32::from(SIZE)).contains(&ahead) {
                    assert_eq!(found, Ok(ahead as usize - usize::from(taken)));
                    ring.device.untake(&batch.chains);
                } else {
                    let (used, size) = (start.event(), SIZE);
                    assert_eq!(found, Err(RingFault::AvailableJump { index, used, size }));
                }
            }
        }
    }
}
