//! The driver's private account of chains in a packed ring, by buffer id. It alone says what is out; the ring in memory is never asked.

use std::collections::VecDeque;

/// Ids, as many as the ring has descriptors: a queue of free ones, and the chains that are out.
pub(super) struct Chains {
    chains: Box<[Chain]>,
    free: VecDeque<u16>,
    /// Ids of the chains that are out, oldest first; kept only where they come back in that order.
    order: Option<VecDeque<u16>>,
    /// Chains added and published so far, modulo 2^32.
    added: u32,
    published: u32,
}

#[derive(Clone, Copy, Default)]
struct Chain {
    /// Descriptors in the ring; 0 = the id is free.
    slots: u16,
    /// Bytes that the device may write.
    room: u32,
    /// Chains added before, modulo 2^32.
    turn: u32,
}

impl Chains {
    pub(super) fn new(size: u16, in_order: bool) -> Self {
        Self {
            chains: vec![Chain::default(); usize::from(size)].into_boxed_slice(),
            free: (0..size).collect(),
            order: in_order.then(|| VecDeque::with_capacity(usize::from(size))),
            added: 0,
            published: 0,
        }
    }

    /// The id of the next chain. There is none only when there is no free descriptor either.
    #[inline]
    pub(super) fn next_id(&self) -> Option<u16> {
        self.free.front().copied()
    }

    /// Takes the next id for a chain of so many descriptors in the ring.
    #[inline]
    pub(super) fn take(&mut self, slots: u16, room: u32) {
        let Some(id) = self.free.pop_front() else {
            return;
        };
        let turn = self.added;
        self.chains[usize::from(id)] = Chain { slots, room, turn };
        self.added = turn.wrapping_add(1);
        if let Some(order) = &mut self.order {
            order.push_back(id);
        }
    }

    /// All that was added is now the device's.
    #[inline]
    pub(super) fn publish(&mut self) {
        self.published = self.added;
    }

    /// Descriptors and writable bytes of a chain, if the device has it.
    #[inline]
    pub(super) fn out(&self, id: u16) -> Option<(u16, u32)> {
        let chain = self.chains.get(usize::from(id))?;
        let staged = self.added.wrapping_sub(self.published);
        let is_published = self.added.wrapping_sub(chain.turn) > staged;
        (chain.slots > 0 && is_published).then_some((chain.slots, chain.room))
    }

    /// The id of the chain that comes back next, where that is known.
    #[inline]
    pub(super) fn oldest(&self) -> Option<u16> {
        self.order.as_ref()?.front().copied()
    }

    /// The ids that come back next, where that is known.
    pub(super) fn oldest_first(&self) -> impl Iterator<Item = u16> {
        self.order.iter().flatten().copied()
    }

    /// Frees the id of a chain that is out: used in turn, ids stay in order.
    #[inline]
    pub(super) fn give_back(&mut self, id: u16) {
        self.chains[usize::from(id)].slots = 0;
        self.free.push_back(id);
        if let Some(order) = &mut self.order {
            order.pop_front();
        }
    }
}
