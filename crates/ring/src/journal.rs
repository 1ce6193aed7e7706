//! What a packed ring writes down, so that its place is known when the process is killed.
//!
//! Nothing in a packed ring's memory tells where the device stands, and the used descriptors of one publication destroy those that they
//! are written over while the driver sees none of them yet. So before it touches the ring, a publication is written down as a whole:
//! where it begins and ends, and its elements. [`recover`](crate::DeviceRing::recover) carries it out again if the driver cannot have seen
//! it; then the ring stands where it ends. Nothing has to be written after a publication: the descriptor at its beginning tells.
//!
//! A place that was written down is believed only of a ring that does not contradict it: a driver that was reset meanwhile begins anew,
//! in the same memory perhaps.

use ringway_mem::Words;

use crate::batch::MAX_BATCH;
use crate::packed::{Place, Staged};

/// Words of one ring's journal: the last publication, and its elements.
pub const JOURNAL_WORDS: usize = 1 + MAX_BATCH;

/// The last publication that was written down. Zero, which no record is, stands for none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    /// Where the publication before began; `from` when nobody knows.
    pub(crate) before: Place,
    /// Where it began.
    pub(crate) from: Place,
    /// Where it ended; `from` for a ring that only started there.
    pub(crate) to: Place,
    /// Elements that were written down with it.
    pub(crate) elements: usize,
}

/// Bits of a place.
const PLACE: u32 = 16;
/// Above three places: how many elements, and one so that the whole is not zero.
const ELEMENTS: u32 = 3 * PLACE;

impl Record {
    #[inline(always)]
    pub(crate) const fn to_word(self) -> u64 {
        self.before.to_bits() as u64
            | (self.from.to_bits() as u64) << PLACE
            | (self.to.to_bits() as u64) << (2 * PLACE)
            | (self.elements as u64 + 1) << ELEMENTS
    }

    #[expect(clippy::cast_possible_truncation, reason = "picks fields of a word")]
    pub(crate) const fn from_word(word: u64) -> Option<Self> {
        let Some(elements) = (word >> ELEMENTS).checked_sub(1) else {
            return None;
        };
        Some(Self {
            before: Place::from_bits(word as u16),
            from: Place::from_bits((word >> PLACE) as u16),
            to: Place::from_bits((word >> (2 * PLACE)) as u16),
            elements: elements as usize,
        })
    }
}

/// Where a ring writes down its publications.
pub(crate) struct Journal {
    words: Words,
    /// Where the last publication began; its descriptor bears witness of it.
    before: Place,
    /// Where others can see the place as well.
    position: Option<Words>,
    /// As many elements and more are for [`announce_aside`](Self::announce_aside).
    room: usize,
}

impl Journal {
    /// Of a ring that stands at `start`, until it says otherwise.
    pub(crate) fn begin(words: Words, start: Place) -> Self {
        let journal = Self {
            room: words.count(),
            words,
            before: start,
            position: None,
        };
        journal.write(start, start, 0);
        journal
    }

    /// Of a ring that stands at `start` and writes down nothing but its place.
    pub(crate) fn only_position(word: Words, start: Place) -> Self {
        let mut journal = Self {
            words: word.part(0, 0),
            before: start,
            position: None,
            room: 0,
        };
        journal.show_position(word, start);
        journal
    }

    /// Shows where the ring stands in `word`, in the form of vhost-user's region for a packed ring.
    pub(crate) fn show_position(&mut self, word: Words, place: Place) {
        self.position = Some(word);
        self.room = 0;
        self.stand(place);
    }

    /// Nothing is under way at `place`.
    pub(crate) fn stand(&self, place: Place) {
        if let Some(word) = &self.position {
            word.store(0, position(place, place));
        }
    }

    /// Of a ring that goes on after `record`.
    pub(crate) fn resume(words: Words, record: Record, pending: bool) -> Self {
        let before = if pending || record.elements == 0 {
            record.before
        } else {
            record.from
        };
        Self {
            room: words.count(),
            words,
            before,
            position: None,
        }
    }

    /// Writes down that `elements` are about to be published.
    #[inline(always)]
    pub(crate) fn announce(&mut self, from: Place, to: Place, elements: &[Staged]) {
        if elements.len() >= self.room {
            return self.announce_aside(from, to, elements);
        }
        self.note(from, to, elements);
    }

    /// For the position as well, or with more than can be written down: then for a moment nobody knows where the ring stands.
    #[cold]
    #[inline(never)]
    fn announce_aside(&mut self, from: Place, to: Place, elements: &[Staged]) {
        if let Some(word) = &self.position {
            word.store(0, position(from, to));
        }
        let room = self.words.count();
        if elements.len() < room {
            self.note(from, to, elements);
        } else if room > 0 {
            self.words.store(0, 0);
        }
    }

    #[inline(always)]
    fn note(&mut self, from: Place, to: Place, elements: &[Staged]) {
        for (index, element) in elements.iter().enumerate() {
            self.words.store(1 + index, element.to_word());
        }
        self.write(from, to, elements.len());
        self.before = from;
    }

    #[inline(always)]
    fn write(&self, from: Place, to: Place, elements: usize) {
        let before = self.before;
        let record = Record {
            before,
            from,
            to,
            elements,
        };
        self.words.store(0, record.to_word());
    }
}

/// Of a publication from `old` to `new`: `used_idx`, `old_used_idx`, `used_wrap_counter` and `old_used_wrap_counter` as they lie side by
/// side in `QueueRegionPacked` (vhost-user, "Inflight I/O tracking"). Whoever finds them apart looks at the descriptor at the old place, as
/// we do.
#[inline(always)]
const fn position(old: Place, new: Place) -> u64 {
    new.index as u64 | (old.index as u64) << 16 | (new.wrap as u64) << 32 | (old.wrap as u64) << 40
}

/// What was written down last: the record, and its elements.
pub(crate) fn read(words: &Words) -> Option<(Record, Vec<Staged>)> {
    let record = Record::from_word(words.load(0))?;
    if record.elements >= words.count() {
        return None;
    }
    let elements = (1..=record.elements).map(|index| Staged::from_word(words.load(index)));
    Some((record, elements.collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_lies_as_in_the_region_of_vhost_user() {
        let place = |index, wrap| Place { index, wrap };
        let word = position(place(0x0102, true), place(0x0304, false));
        let bytes = [0x04, 0x03, 0x02, 0x01, 0, 1, 0, 0];
        assert_eq!(word, u64::from_le_bytes(bytes));
    }

    #[test]
    fn a_record_is_one_word_and_never_zero() {
        for (bits, elements) in [(0, 0), (0x8000, 1), (0x7fff, 64), (0xffff, 64)] {
            let place = Place::from_bits(bits);
            let record = Record {
                before: place,
                from: Place::from_bits(!bits),
                to: place,
                elements,
            };
            assert_ne!(record.to_word(), 0);
            assert_eq!(Record::from_word(record.to_word()), Some(record));
        }
        assert_eq!(Record::from_word(0), None);
        assert_eq!(Record::from_word(u64::MAX >> 16), None);
    }
}
