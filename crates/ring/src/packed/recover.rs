//! Taking up a ring whose device was killed.

use std::sync::Arc;

use ringway_mem::{GuestMemory, Words};

use super::place::OWNER;
use super::{Areas, PackedRing, Place, Staged};
use crate::error::{RingError, Stale};
use crate::journal::{self, Journal, Record};
use crate::layout::{RingBase, RingFeatures, RingLayout};

impl PackedRing {
    /// Writes down from now on where the ring stands, in `words` alone.
    pub(crate) fn keep_journal(&mut self, words: Words) {
        self.leave_trace();
        self.journal = Some(Journal::begin(words, self.published));
    }

    /// Shows from now on where the ring stands in `word`.
    pub(crate) fn show_position(&mut self, word: Words) {
        let place = self.published;
        match &mut self.journal {
            Some(journal) => journal.show_position(word, place),
            None => self.journal = Some(Journal::only_position(word, place)),
        }
    }

    /// Nothing is under way any more.
    pub(crate) fn conclude(&self) {
        if let Some(journal) = &self.journal {
            journal.stand(self.published);
        }
    }

    /// A ring that stands where its journal says, if that can be. A publication that nobody saw is staged again.
    pub(crate) fn recover(
        memory: &Arc<GuestMemory>,
        layout: &RingLayout,
        features: RingFeatures,
        words: Words,
    ) -> Result<Result<Self, Stale>, RingError> {
        let Some((record, elements)) = journal::read(&words) else {
            return Ok(Err(Stale::Nothing));
        };
        let Record { from, to, .. } = record;
        let size = layout.size;
        if [record.before, from, to]
            .iter()
            .any(|place| place.index >= size)
            || from.distance(to, size) > size
        {
            return Ok(Err(Stale::Record));
        }
        let base = RingBase::packed(from.index, from.wrap);
        let mut ring = Self::new(memory, layout, features, base)?;
        let pending = match ring.areas.judge(record, &elements) {
            Ok(pending) => pending,
            Err(stale) => return Ok(Err(stale)),
        };
        ring.next = to;
        if pending {
            ring.staged = elements;
            ring.staged_slots = from.distance(to, size);
        } else {
            ring.published = to;
        }
        ring.leave_trace();
        ring.journal = Some(Journal::resume(words, record, pending));
        Ok(Ok(ring))
    }

    /// Sees to it that a driver which clears the ring's memory removes a trace of us.
    fn leave_trace(&self) {
        if self.areas.has_no_trace() {
            self.areas.set_device_event(super::Event::Enable);
            if let Some(log) = &self.log {
                log.mark_event();
            }
        }
    }
}

impl Areas {
    /// Whether the publication is still to be made visible. An error when the ring cannot be the one of which this was written down.
    fn judge(&self, record: Record, elements: &[Staged]) -> Result<bool, Stale> {
        let Record {
            before, from, to, ..
        } = record;
        let size = self.size();
        if self.has_no_trace() {
            return Err(Stale::Cleared);
        }
        let count = from.distance(to, size);
        // The first descriptor of a publication is written last.
        let pending = from != to && self.owner(from.index) == from.available();
        let witness = if pending || from == to { before } else { from };
        let ours = if pending { count } else { 0 };
        if witness != from || !pending && from != to {
            self.must_be_returned(witness, from, ours)?;
        }
        if pending {
            let sum: u32 = elements.iter().map(|e| u32::from(e.slots)).sum();
            if sum != u32::from(count) || elements.iter().any(|element| element.slots == 0) {
                return Err(Stale::Record);
            }
            let mut place = from;
            for element in elements {
                let owner = self.owner(place.index);
                if owner != place.available() && owner != place.used() {
                    return Err(contradiction(place, owner));
                }
                place = place.forward(element.slots, size);
            }
        }
        // What lies ahead was never returned: it is available, or as the lap before left it.
        let ahead = if pending { size - count } else { size };
        for distance in 0..ahead {
            let place = to.forward(distance, size);
            let owner = self.owner(place.index);
            if owner == place.used() {
                return Err(contradiction(place, owner));
            }
        }
        Ok(pending)
    }

    /// The descriptor at a place that was returned says so, unless the driver has made it available again in the next lap, and the
    /// publication that is pending, of `count` descriptors from `from` on, has returned it again.
    fn must_be_returned(&self, place: Place, from: Place, count: u16) -> Result<(), Stale> {
        let owner = self.owner(place.index);
        let next_lap = Place {
            wrap: !place.wrap,
            ..place
        };
        let again = from.distance(next_lap, self.size()) < count && owner == next_lap.used();
        if owner == place.used() || owner == next_lap.available() || again {
            Ok(())
        } else {
            Err(contradiction(place, owner))
        }
    }

    /// What the device wrote for its notifications is never zero, see [`Event`](super::Event).
    fn has_no_trace(&self) -> bool {
        self.device_event_word() == 0
    }
}

fn contradiction(place: Place, owner: u16) -> Stale {
    Stale::Contradicted {
        index: place.index,
        flags: owner & OWNER,
    }
}
