//! What a device's ring should do, step by step on an image of the memory, without any thought for speed.

use std::collections::VecDeque;

use ringway_ring::{Chain, MAX_BATCH, RingBase, RingFault, RingFeatures};

use crate::model::{AVAIL, Entry, Expected, Image, Rules, Stop, USED, WRITE};
use crate::script::{AVAILABLE, DESCRIPTORS, USED_RING};

pub(crate) struct Twin {
    pub(crate) rules: Rules,
    pub(crate) features: RingFeatures,
    pub(crate) image: Image,
    /// Places are numbers that go round: after 2^16 indices (split) or after two laps (packed).
    published: u16,
    staged: u16,
    next: u16,
    /// The available index as last looked at (split).
    known: u16,
    /// Used descriptors to be written, with their places (packed).
    used: VecDeque<(u16, u16, u32)>,
    signalled: bool,
    /// Where the last batch ends that one element stands for (split).
    batch_end: u16,
    /// Where the driver goes on.
    offered: u16,
}

impl Twin {
    pub(crate) fn new(rules: Rules, features: RingFeatures, start: u16, image: Image) -> Self {
        Self {
            rules,
            features,
            image,
            published: start,
            staged: start,
            next: start,
            known: start,
            used: VecDeque::new(),
            signalled: false,
            batch_end: start,
            offered: start,
        }
    }

    fn forward(&self, place: u16, count: u16) -> u16 {
        if self.rules.packed {
            (place + count) % (2 * self.rules.size)
        } else {
            place.wrapping_add(count)
        }
    }

    fn distance(&self, from: u16, to: u16) -> u16 {
        if self.rules.packed {
            (to + 2 * self.rules.size - from) % (2 * self.rules.size)
        } else {
            to.wrapping_sub(from)
        }
    }

    fn index(&self, place: u16) -> u16 {
        place % self.rules.size
    }

    fn wrap(&self, place: u16) -> bool {
        place < self.rules.size
    }

    pub(crate) fn base(&self) -> RingBase {
        if self.rules.packed {
            RingBase::packed(self.index(self.published), self.wrap(self.published))
        } else {
            RingBase::split(self.published)
        }
    }

    fn available_index(&self) -> u16 {
        self.image.u16(AVAILABLE + 2)
    }

    pub(crate) fn has_available(&self) -> bool {
        let Rules { packed, size, .. } = self.rules;
        if packed {
            let (index, wrap) = (self.index(self.next), self.wrap(self.next));
            self.distance(self.published, self.next) < size
                && self.rules.is_available(&self.image, index, wrap)
        } else {
            self.known != self.next || self.available_index() != self.next
        }
    }

    /// The chains of one take, or the fault of the first.
    pub(crate) fn take(&mut self, max: usize) -> (Vec<Expected>, Option<RingFault>) {
        let Rules { packed, size, .. } = self.rules;
        let max = max.min(MAX_BATCH);
        if !packed && usize::from(self.distance(self.next, self.known)) < max {
            let (index, used) = (self.available_index(), self.published);
            let ready = self.distance(self.next, index);
            let taken = self.distance(used, self.next);
            if u32::from(ready) + u32::from(taken) > size.into() {
                return (
                    Vec::new(),
                    Some(RingFault::AvailableJump { index, used, size }),
                );
            }
            self.known = index;
        }
        let mut chains: Vec<Expected> = Vec::new();
        let mut pieces = 0;
        while chains.len() < max && self.is_next() {
            let chain = if packed {
                let left = size - self.distance(self.published, self.next);
                let head = self.index(self.next);
                self.rules.chain(&self.image, head, left, pieces)
            } else {
                let head = self.rules.head(&self.image, self.next);
                self.rules.chain(&self.image, head, size, pieces)
            };
            match chain {
                Ok(chain) => {
                    self.next = self.forward(self.next, chain.slots);
                    pieces += chain.pieces.len();
                    chains.push(chain);
                }
                Err(Stop::Fault(fault)) if chains.is_empty() => return (chains, Some(fault)),
                Err(_) => break,
            }
        }
        (chains, None)
    }

    fn is_next(&self) -> bool {
        if self.rules.packed {
            self.has_available()
        } else {
            self.known != self.next
        }
    }

    pub(crate) fn untake(&mut self, chains: &[Chain]) {
        for chain in chains {
            let back = 0u16.wrapping_sub(chain.slots);
            self.next = if self.rules.packed {
                self.forward(self.next, 2 * self.rules.size - chain.slots)
            } else {
                self.forward(self.next, back)
            };
        }
    }

    pub(crate) fn complete(&mut self, chains: &[Chain]) {
        let unwritten = chains.iter().all(|chain| chain.written == 0);
        let in_order = self.features.in_order && !self.may_keep();
        let one_for_all = in_order && unwritten && chains.len() > 1;
        let before = self.staged;
        for chain in chains {
            if !one_for_all {
                self.stage(self.staged, chain.id, chain.written);
            }
            self.staged = self.forward(self.staged, chain.slots);
        }
        if let Some(last) = chains.last().filter(|_| one_for_all) {
            self.stage(before, last.id, 0);
            self.batch_end = self.staged;
        }
    }

    /// A split ring keeps chains back from a driver that polls.
    fn may_keep(&self) -> bool {
        !self.rules.packed && !self.features.event_idx && self.image.u16(AVAILABLE) & 1 != 0
    }

    fn stage(&mut self, place: u16, id: u16, written: u32) {
        if self.rules.packed {
            self.used.push_back((place, id, written));
            return;
        }
        let at = USED_RING + 4 + u64::from(self.index(place)) * 8;
        self.image.write(at, &u32::from(id).to_le_bytes());
        self.image.write(at + 4, &written.to_le_bytes());
    }

    pub(crate) fn publish(&mut self) -> bool {
        self.publish_to(self.staged)
    }

    /// The newest chains are kept back: an eighth of the ring, at most 32, and no part of a batch.
    pub(crate) fn publish_older(&mut self) -> bool {
        let staged = self.distance(self.published, self.staged);
        let apart = self.distance(self.batch_end, self.staged);
        let kept = if self.may_keep() {
            (self.rules.size / 8).min(32).min(apart)
        } else {
            0
        };
        self.publish_to(self.forward(self.published, staged.saturating_sub(kept)))
    }

    fn publish_to(&mut self, end: u16) -> bool {
        let count = self.distance(self.published, end);
        if count == 0 {
            return false;
        }
        for (place, id, written) in std::mem::take(&mut self.used) {
            let owner = if self.wrap(place) { AVAIL | USED } else { 0 };
            let flags = owner | if written > 0 { WRITE } else { 0 };
            let at = DESCRIPTORS + u64::from(self.index(place)) * 16;
            self.image.write(at + 8, &written.to_le_bytes());
            self.image.write(at + 12, &id.to_le_bytes());
            self.image.write(at + 14, &flags.to_le_bytes());
        }
        if !self.rules.packed {
            self.image.write(USED_RING + 2, &end.to_le_bytes());
        }
        let old = std::mem::replace(&mut self.published, end);
        if self.features.event_idx && !std::mem::replace(&mut self.signalled, true) {
            return true;
        }
        self.driver_wants(old, count)
    }

    /// Whether the driver wants a call for `count` places from `old` on.
    fn driver_wants(&self, old: u16, count: u16) -> bool {
        let Rules { packed, size, .. } = self.rules;
        if packed {
            let [event, flags] = [0, 2].map(|at| self.image.u16(AVAILABLE + at));
            match flags & 3 {
                1 => false,
                2 if self.features.event_idx => {
                    // In this lap or the next one, counted on from where this one began.
                    let in_lap = (event & 0x8000 != 0) == self.wrap(old);
                    let event = (event & 0x7fff) + if in_lap { 0 } else { size };
                    (0..count).any(|step| self.index(old) + step == event)
                }
                _ => true,
            }
        } else if self.features.event_idx {
            let event = self.image.u16(AVAILABLE + 4 + 2 * u64::from(size));
            (0..count).any(|step| self.forward(old, step) == event)
        } else {
            self.image.u16(AVAILABLE) & 1 == 0
        }
    }

    pub(crate) fn discard(&mut self) {
        self.staged = self.published;
        self.next = self.published;
        self.used.clear();
    }

    pub(crate) fn restart(&mut self) {
        if !self.rules.packed {
            // A split ring stands where its used index says.
            self.published = self.image.u16(USED_RING + 2);
        }
        self.discard();
        self.known = self.published;
        self.batch_end = self.published;
        self.signalled = false;
    }

    /// Where the device says what kicks it wants.
    pub(crate) fn kick_words(&self) -> Vec<(u64, usize)> {
        if self.rules.packed {
            vec![(USED_RING, 4)]
        } else {
            let event = USED_RING + 4 + 8 * u64::from(self.rules.size);
            vec![(USED_RING, 2), (event, 2)]
        }
    }

    /// What a driver writes that makes `entry` available after those before it; `twist` makes it forget some of that.
    pub(crate) fn offer(&mut self, mut entry: Entry, twist: u8) -> Vec<(u64, Vec<u8>)> {
        let Rules { packed, .. } = self.rules;
        let place = self.offered;
        let at = u64::from(self.index(place));
        if twist & 1 == 0 {
            self.offered = self.forward(place, 1);
        }
        let mut writes = Vec::new();
        if packed {
            entry.flags |= if self.wrap(place) { AVAIL } else { USED };
        } else {
            let index = self.offered.to_le_bytes().to_vec();
            let head = self.index(place).to_le_bytes().to_vec();
            writes.push((AVAILABLE + 4 + at * 2, head));
            writes.push((AVAILABLE + 2, index));
        }
        writes.push((DESCRIPTORS + at * 16, entry.bytes(packed).to_vec()));
        writes
    }
}
