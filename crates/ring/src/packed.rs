//! The device side of the packed virtqueue (virtio 1.2, 2.8).
//!
//! One ring of descriptors serves both ways: the driver writes chains into it, the device overwrites the first descriptor of each with
//! what it has to say on the return. There are no indices; flags tell, together with the wrap counter of the lap, whose a descriptor
//! is. Three places, in this order and at most a lap apart:
//!
//! ```text
//! published -- staged_slots --> (staged) -- taken_slots --> next
//!     |                                                      `- next descriptor to read
//!     `-------------------------------------------------------- next descriptor to overwrite
//! ```
//!
//! A returned chain destroys the descriptor that it was read from, so what is completed waits in private memory: until `publish`, all
//! can be forgotten and taken again. `publish` writes the first descriptor of all last, which the driver has to see before it looks at
//! any other, so that the whole becomes visible at once.

mod areas;
mod log;
mod place;
mod recover;
mod take;

use std::sync::Arc;

use ringway_mem::{DirtyLog, GuestMemory, LastHit};

pub(crate) use self::areas::{Areas, Event, packed_lengths};
use self::log::PackedLog;
pub(crate) use self::place::{OWNER, Place};
use crate::batch::{Chain, MAX_BATCH};
use crate::descriptor::{Descriptor, WRITE};
use crate::device::Kicks;
use crate::error::RingError;
use crate::gather::{Table, empty_table};
use crate::journal::Journal;
use crate::layout::{MAX_SIZE, RingBase, RingFeatures, RingLayout};
use crate::log::RingLog;
use crate::shared::fence;

/// A packed ring as the device works on it.
pub struct PackedRing {
    areas: Areas,
    next: Place,
    published: Place,
    /// Descriptors of chains that were taken and not completed.
    taken_slots: u16,
    /// Descriptors of chains that were completed and not published.
    staged_slots: u16,
    staged: Vec<Staged>,
    event_idx: bool,
    in_order: bool,
    /// Whether a call was considered since the start; before that, nobody knows what the driver was told.
    signalled: bool,
    kicks: Kicks,
    hit: LastHit,
    /// Present when indirect descriptors were negotiated.
    table: Option<Box<Table>>,
    log: Option<Box<PackedLog>>,
    journal: Option<Journal>,
}

/// A used descriptor to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Staged {
    id: u16,
    /// Descriptors up to the next one to be written.
    slots: u16,
    written: u32,
}

impl Staged {
    /// All of it, for the journal.
    #[inline(always)]
    pub(crate) const fn to_word(self) -> u64 {
        self.id as u64 | (self.slots as u64) << 16 | (self.written as u64) << 32
    }

    #[expect(clippy::cast_possible_truncation, reason = "picks fields of a word")]
    pub(crate) const fn from_word(word: u64) -> Self {
        Self {
            id: word as u16,
            slots: (word >> 16) as u16,
            written: (word >> 32) as u32,
        }
    }

    /// The word of the descriptor that is overwritten; the address stays (virtio 1.2, 2.8.5: the driver ignores it).
    #[inline(always)]
    fn second_word(self, place: Place) -> u64 {
        let write = if self.written > 0 { WRITE } else { 0 };
        let descriptor = Descriptor {
            address: 0,
            len: self.written,
            flags: place.used() | write,
            tag: self.id,
        };
        descriptor.to_packed()[1]
    }
}

impl PackedRing {
    /// Everything before `used` counts as done, what is available after it is taken again.
    pub(crate) fn new(
        memory: &Arc<GuestMemory>,
        layout: &RingLayout,
        features: RingFeatures,
        base: RingBase,
    ) -> Result<Self, RingError> {
        let start = start(features, layout.size, base)?;
        Ok(Self {
            areas: Areas::new(memory, layout)?,
            next: start,
            published: start,
            taken_slots: 0,
            staged_slots: 0,
            staged: Vec::with_capacity(MAX_BATCH),
            event_idx: features.event_idx,
            in_order: features.in_order,
            signalled: false,
            kicks: Kicks::Unknown,
            hit: LastHit::default(),
            table: features.indirect.then(empty_table),
            log: None,
            journal: None,
        })
    }

    pub(crate) fn set_log(&mut self, log: Option<RingLog>) {
        self.log = log.map(|log| Box::new(PackedLog::new(log, &self.areas)));
    }

    #[inline]
    pub(crate) fn log(&self) -> Option<&DirtyLog> {
        self.log.as_ref().map(|log| &*log.log.log)
    }

    #[inline]
    pub(crate) fn untake(&mut self, chains: &[Chain]) {
        let (_, slots) = self.at_most_taken(chains);
        self.next = self.next.back(slots, self.areas.size());
        self.taken_slots -= slots;
    }

    #[inline]
    pub(crate) fn complete(&mut self, chains: &[Chain]) {
        let (chains, slots) = self.at_most_taken(chains);
        self.taken_slots -= slots;
        self.staged_slots += slots;
        if self.in_order && chains.len() > 1 && chains.iter().all(|chain| chain.written == 0) {
            // One descriptor stands for all, at the place of the first; the driver skips those of the whole batch (virtio 1.2, 2.8.9).
            // Skipped chains count as wholly used, so this is right only where nothing was written.
            let id = chains[chains.len() - 1].id;
            self.staged.push(Staged {
                id,
                slots,
                written: 0,
            });
            return;
        }
        self.staged.extend(chains.iter().map(|chain| Staged {
            id: chain.id,
            slots: chain.slots,
            written: chain.written,
        }));
    }

    #[inline]
    pub(crate) fn publish(&mut self) -> bool {
        let [first, others @ ..] = self.staged.as_slice() else {
            return false;
        };
        let size = self.areas.size();
        let (old, count) = (self.published, self.staged_slots);
        if let Some(journal) = &mut self.journal {
            journal.announce(old, old.forward(count, size), &self.staged);
        }
        let second = old.forward(first.slots, size);
        if usize::from(count) == self.staged.len() {
            self.write_side_by_side(second, others);
        } else {
            self.write_apart(second, others);
        }
        let word = first.second_word(old);
        match &self.log {
            None => self.areas.publish_second_word(old.index, word),
            Some(log) => self.show_logged(log, count, word),
        }
        self.published = old.forward(count, size);
        self.staged.clear();
        self.staged_slots = 0;
        // The driver stores what it wants and then looks at the descriptor; we do the reverse (virtio 1.2, 2.8.10).
        fence();
        let event = self.areas.driver_event(self.event_idx);
        if self.event_idx && !self.signalled {
            self.signalled = true;
            return true;
        }
        event.wants(old, count, size)
    }

    /// Writes used descriptors for chains of one descriptor each, the first at `place`.
    #[inline(always)]
    fn write_side_by_side(&self, place: Place, staged: &[Staged]) {
        let size = self.areas.size();
        let in_lap = staged.len().min(usize::from(size - place.index));
        let (lap, next_lap) = staged.split_at(in_lap);
        let start = Place {
            index: 0,
            wrap: !place.wrap,
        };
        for (place, run) in [(place, lap), (start, next_lap)] {
            for (index, staged) in (place.index..).zip(run) {
                self.areas.set_second_word(index, staged.second_word(place));
            }
        }
    }

    /// As [`write_side_by_side`](Self::write_side_by_side), for chains of any length.
    #[inline(always)]
    fn write_apart(&self, mut place: Place, staged: &[Staged]) {
        for staged in staged {
            let word = staged.second_word(place);
            self.areas.set_second_word(place.index, word);
            place = place.forward(staged.slots, self.areas.size());
        }
    }

    pub(crate) fn discard_staged(&mut self) {
        self.staged.clear();
        self.staged_slots = 0;
        self.taken_slots = 0;
        self.next = self.published;
    }

    #[inline]
    pub(crate) fn disable_kicks(&mut self) {
        if self.kicks == Kicks::Unwanted {
            return;
        }
        self.areas.set_device_event(Event::Disable);
        if let Some(log) = &self.log {
            log.mark_event();
        }
        self.kicks = Kicks::Unwanted;
    }

    pub(crate) fn enable_kicks(&mut self) -> bool {
        if self.event_idx {
            self.areas.set_device_event(Event::Descriptor(self.next));
        } else if self.kicks != Kicks::Wanted {
            self.areas.set_device_event(Event::Enable);
        }
        if let Some(log) = &self.log {
            log.mark_event();
        }
        self.kicks = Kicks::Wanted;
        fence();
        self.has_available()
    }

    #[inline]
    pub(crate) fn has_available(&self) -> bool {
        if self.staged_slots + self.taken_slots == self.areas.size() {
            return false;
        }
        self.areas.owner(self.next.index) == self.next.available()
    }

    pub(crate) fn base(&self) -> RingBase {
        RingBase::packed(self.published.index, self.published.wrap)
    }

    #[inline]
    pub(crate) fn size(&self) -> u16 {
        self.areas.size()
    }

    /// `chains` and their descriptors, or as many of them as are taken and not yet staged.
    #[inline(always)]
    fn at_most_taken<'c>(&self, chains: &'c [Chain]) -> (&'c [Chain], u16) {
        let slots: u32 = chains.iter().map(|chain| u32::from(chain.slots)).sum();
        match u16::try_from(slots) {
            Ok(slots) if slots <= self.taken_slots => (chains, slots),
            _ => too_many(chains, self.taken_slots),
        }
    }
}

/// Where a ring of `size` descriptors starts, if that is possible: everything before was returned.
pub(crate) fn start(features: RingFeatures, size: u16, base: RingBase) -> Result<Place, RingError> {
    let (true, Some(wraps)) = (features.packed, base.wraps) else {
        let packed = features.packed;
        return Err(RingError::Format { packed });
    };
    if size == 0 || size > MAX_SIZE {
        return Err(RingError::Size { size });
    }
    for index in [base.available, base.used] {
        if index >= size {
            return Err(RingError::Base { index, size });
        }
    }
    Ok(Place {
        index: base.used,
        wrap: wraps.used,
    })
}

/// The first chains of `chains` that have no more than `taken` descriptors.
#[cold]
#[inline(never)]
fn too_many(chains: &[Chain], taken: u16) -> (&[Chain], u16) {
    debug_assert!(
        false,
        "{} chains of which only a part was taken",
        chains.len()
    );
    let mut slots = 0;
    for (count, chain) in chains.iter().enumerate() {
        match chain.slots.checked_add(slots).filter(|&sum| sum <= taken) {
            Some(sum) => slots = sum,
            None => return (&chains[..count], slots),
        }
    }
    (chains, slots)
}
