//! The driver's private account of descriptors and chains. It alone says what is out; the ring in memory is never asked.

/// Descriptors by index: a queue of free ones, and the chains that are out.
pub(super) struct Slots {
    slots: Box<[Slot]>,
    head: u16,
    tail: u16,
    free: u16,
}

/// Of a descriptor; chain facts are kept at its head.
#[derive(Clone, Copy, Default)]
struct Slot {
    /// The descriptor after this one in its chain, or among the free.
    next: u16,
    /// The last descriptor of the chain.
    last: u16,
    /// Descriptors of the chain; 0 = no chain that is out begins here.
    count: u16,
    /// Available index of the chain.
    turn: u16,
    /// Bytes that the device may write.
    room: u32,
}

/// A chain that was added and has not come back.
#[derive(Clone, Copy)]
pub(super) struct Held {
    /// Available index at which it was added.
    pub(super) turn: u16,
    /// Bytes that the device may write.
    pub(super) room: u32,
}

impl Slots {
    pub(super) fn new(size: u16) -> Self {
        let slot = |index: u16| Slot {
            next: index.wrapping_add(1),
            ..Slot::default()
        };
        Self {
            slots: (0..size).map(slot).collect(),
            head: 0,
            tail: size - 1,
            free: size,
        }
    }

    #[inline]
    pub(super) fn free(&self) -> u16 {
        self.free
    }

    /// The first free descriptor, which heads the next chain.
    #[inline]
    pub(super) fn head(&self) -> u16 {
        self.head
    }

    /// The descriptor after `index`.
    #[inline]
    pub(super) fn next(&self, index: u16) -> u16 {
        self.slots[usize::from(index)].next
    }

    /// Takes the first `count` free descriptors as a chain, whose last is `last`.
    #[inline]
    pub(super) fn take(&mut self, count: u16, last: u16, held: Held) {
        let after = self.next(last);
        let slot = &mut self.slots[usize::from(self.head)];
        (slot.last, slot.count) = (last, count);
        (slot.turn, slot.room) = (held.turn, held.room);
        self.head = after;
        self.free -= count;
    }

    /// The chain that begins with `head`, if there is one.
    #[inline]
    pub(super) fn chain(&self, head: u16) -> Option<Held> {
        let &Slot {
            count, turn, room, ..
        } = self.slots.get(usize::from(head))?;
        (count > 0).then_some(Held { turn, room })
    }

    /// Puts a chain that is out behind the free descriptors: used in turn, they stay in order.
    #[inline]
    pub(super) fn give_back(&mut self, head: u16) {
        let Slot { last, count, .. } = self.slots[usize::from(head)];
        self.slots[usize::from(head)].count = 0;
        if self.free == 0 {
            self.head = head;
        } else {
            self.slots[usize::from(self.tail)].next = head;
        }
        self.tail = last;
        self.free += count;
    }
}

/// Bytes of all buffers, as much as a length can say.
pub(super) fn room(buffers: &[(u64, u32)]) -> u32 {
    buffers
        .iter()
        .fold(0, |sum: u32, &(_, len)| sum.saturating_add(len))
}
