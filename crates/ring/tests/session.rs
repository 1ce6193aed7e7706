//! Long sessions of a driver and a device on one ring, against queues of plain values: what is available comes in order, what is given
//! back comes again, nothing is seen before it is published, and a device that starts anew goes on where the last one stood.

#![allow(clippy::cast_possible_truncation)]

mod common;

use std::collections::VecDeque;
use std::marker::PhantomData;
use std::sync::Arc;

use common::{BUFFERS, Direction, Pair, options};
use proptest::prelude::*;
use ringway_mem::{GuestMemory, ReadSlice, WriteSlice};
use ringway_ring::{AddError, Batch, Chain, DeviceRing, DriverRing, RingBase, RingFeatures, Used};

#[derive(Clone, Debug)]
enum Step {
    /// Lengths of the buffers of one chain; none is 0.
    Add(Vec<u32>, bool),
    DriverPublish,
    Take(usize),
    Untake(usize),
    Complete(usize),
    Publish,
    Discard,
    Restart,
    Pop(usize),
    /// Ask for events or not, on either side; the ring must bear it at any time.
    Events(u8),
}

/// A chain that is somewhere between the two sides.
#[derive(Clone, Debug)]
struct Out {
    id: u16,
    lens: Vec<u32>,
}

struct Session<'m, S> {
    driver: DriverRing,
    device: DeviceRing,
    memory: &'m Arc<GuestMemory>,
    features: RingFeatures,
    direction: PhantomData<S>,
    /// Added, not published.
    added: VecDeque<Out>,
    available: VecDeque<Out>,
    taken: VecDeque<(Out, Chain)>,
    /// Completed, with what was written.
    staged: VecDeque<(Out, u32)>,
    returned: VecDeque<Used>,
    free: u16,
    next_address: u64,
}

impl<'m, S: Direction<'m>> Session<'m, S> {
    fn step(&mut self, step: &Step) {
        match step {
            Step::Add(lens, indirect) => self.add(lens, *indirect && self.features.indirect),
            Step::DriverPublish => {
                self.driver.publish();
                self.available.append(&mut self.added);
            }
            Step::Take(max) => self.take(*max),
            Step::Untake(count) => {
                let chains: Vec<Chain> = self.taken.iter().map(|&(_, chain)| chain).collect();
                let keep = chains.len().saturating_sub(*count);
                self.device.untake(&chains[keep..]);
                for (out, _) in self.taken.drain(keep..).rev() {
                    self.available.push_front(out);
                }
            }
            Step::Complete(count) => self.complete(*count),
            Step::Publish => {
                self.device.publish();
                for (Out { id, .. }, len) in self.staged.drain(..) {
                    self.returned.push_back(Used { id, len });
                }
            }
            Step::Discard => {
                self.device.discard_staged();
                self.give_all_back();
            }
            Step::Restart => {
                let base = self.device.base();
                let layout = self.driver.layout();
                self.device = DeviceRing::new(self.memory, &layout, self.features, base).unwrap();
                assert_eq!(self.device.base(), base);
                self.give_all_back();
            }
            Step::Pop(count) => self.pop(*count),
            Step::Events(0) => drop(self.driver.enable_calls()),
            Step::Events(1) => self.driver.disable_calls(),
            Step::Events(2) => {
                assert_eq!(self.device.enable_kicks(), !self.available.is_empty());
            }
            Step::Events(_) => self.device.disable_kicks(),
        }
        assert_eq!(self.device.has_available(), !self.available.is_empty());
        assert_eq!(self.driver.has_used(), !self.returned.is_empty());
        assert_eq!(self.driver.free(), self.free);
    }

    fn add(&mut self, lens: &[u32], indirect: bool) {
        let piece = |len: &u32| {
            let address = self.next_address;
            self.next_address = BUFFERS + (address - BUFFERS + u64::from(*len)) % 0x10_0000;
            (address, *len)
        };
        let pieces: Vec<(u64, u32)> = lens.iter().map(piece).collect();
        let (readable, writable) = if S::WRITABLE {
            (&[][..], &pieces[..])
        } else {
            (&pieces[..], &[][..])
        };
        let needed = if indirect { 1 } else { pieces.len() };
        match self.driver.add(readable, writable, indirect) {
            Ok(id) => {
                assert!(needed <= usize::from(self.free));
                self.free -= needed as u16;
                self.added.push_back(Out {
                    id,
                    lens: lens.to_vec(),
                });
            }
            Err(refused) => {
                let free = self.free;
                assert_eq!(refused, AddError::Full { needed, free });
                assert!(needed > usize::from(free));
            }
        }
    }

    fn take(&mut self, max: usize) {
        let mut batch = Batch::<S>::new();
        let taken = S::take(&mut self.device, self.memory, &mut batch, max).unwrap();
        assert_eq!(taken, max.min(self.available.len()));
        for (out, chain) in self.available.drain(..taken).zip(&batch.chains) {
            assert_eq!(chain.id, out.id);
            let lens: Vec<u32> = batch
                .slices(chain)
                .iter()
                .map(|s| s.bytes().len() as u32)
                .collect();
            assert_eq!(lens, out.lens);
            assert_eq!(chain.len, out.lens.iter().sum::<u32>());
            self.taken.push_back((out, *chain));
        }
    }

    fn complete(&mut self, count: usize) {
        let count = count.min(self.taken.len());
        let mut chains = Vec::new();
        for (out, mut chain) in self.taken.drain(..count) {
            if S::WRITABLE {
                chain.written = 1 + chain.id as u32 % chain.len;
            }
            chains.push(chain);
            self.staged.push_back((out, chain.written));
        }
        self.device.complete(&chains);
    }

    fn give_all_back(&mut self) {
        for (out, _) in self.taken.drain(..).rev() {
            self.available.push_front(out);
        }
        for (out, _) in self.staged.drain(..).rev() {
            self.available.push_front(out);
        }
    }

    fn pop(&mut self, count: usize) {
        for _ in 0..count {
            let before = self.free;
            let used = self.driver.pop_used().unwrap();
            assert_eq!(used, self.returned.pop_front());
            self.free = self.driver.free();
            assert_eq!(used.is_some(), self.free > before);
        }
    }
}

fn run<'m, S: Direction<'m>>(
    memory: &'m Arc<GuestMemory>,
    (driver, device): (DriverRing, DeviceRing),
    features: RingFeatures,
    steps: &[Step],
) {
    let mut session = Session::<S> {
        free: driver.free(),
        driver,
        device,
        memory,
        features,
        direction: PhantomData,
        added: VecDeque::new(),
        available: VecDeque::new(),
        taken: VecDeque::new(),
        staged: VecDeque::new(),
        returned: VecDeque::new(),
        next_address: BUFFERS,
    };
    for step in steps {
        session.step(step);
    }
    // Everything goes round in the end.
    session.step(&Step::DriverPublish);
    while !session.available.is_empty() {
        session.step(&Step::Take(64));
    }
    session.step(&Step::Complete(usize::MAX));
    session.step(&Step::Publish);
    session.step(&Step::Pop(session.returned.len() + 1));
    assert_eq!(session.driver.free(), session.device.size());
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (prop::collection::vec(1..100_u32, 1..=4), any::<bool>()).prop_map(|(lens, indirect)| Step::Add(lens, indirect)),
        4 => (1..100_u32).prop_map(|len| Step::Add(vec![len], false)),
        4 => Just(Step::DriverPublish),
        4 => (0..20_usize).prop_map(Step::Take),
        2 => (0..6_usize).prop_map(Step::Untake),
        4 => (0..20_usize).prop_map(Step::Complete),
        4 => Just(Step::Publish),
        1 => Just(Step::Discard),
        1 => Just(Step::Restart),
        4 => (1..20_usize).prop_map(Step::Pop),
        3 => (0..4_u8).prop_map(Step::Events),
    ]
}

fn session(packed: bool) -> impl Strategy<Value = (u16, RingFeatures, RingBase, bool, Vec<Step>)> {
    // Packed rings may have any number of descriptors.
    let sizes = if packed {
        [1, 3, 16, 61]
    } else {
        [1, 4, 16, 64]
    };
    let size = prop::sample::select(sizes.to_vec());
    let base = prop_oneof![Just(0), 0xffe0..=0xffff_u16, any::<u16>()];
    let steps = prop::collection::vec(step(), 0..200);
    (size, 0..8_usize, base, any::<(bool, bool)>(), steps).prop_map(
        move |(size, features, base, (wrap, writable), steps)| {
            let features = common::all_features(packed).nth(features).unwrap();
            let base = if packed {
                RingBase::packed(base % size, wrap)
            } else {
                RingBase::split(base)
            };
            (size, features, base, writable, steps)
        },
    )
}

fn check((size, features, base, writable, steps): (u16, RingFeatures, RingBase, bool, Vec<Step>)) {
    let Pair {
        memory,
        driver,
        device,
    } = Pair::new(options(size, features, base));
    if writable {
        run::<WriteSlice<'_>>(&memory, (driver, device), features, &steps);
    } else {
        run::<ReadSlice<'_>>(&memory, (driver, device), features, &steps);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn split_session_matches_queues_of_values_virtio_2_7_13(session in session(false)) {
        check(session);
    }

    #[test]
    fn packed_session_matches_queues_of_values_virtio_2_8_21(session in session(true)) {
        check(session);
    }
}
