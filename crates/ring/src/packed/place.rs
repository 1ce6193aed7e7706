//! Places in a packed ring (virtio 1.2, 2.8.1): an index and the wrap counter of its lap.
//!
//! Two laps make up the whole of what can be told apart. Everything that is between the sides is within one lap of the place where it
//! begins, so no two of the places that matter at a time are alike.

/// The descriptor is available, in laps whose counter is set.
pub(crate) const AVAIL: u16 = 1 << 7;
/// The descriptor is used, in laps whose counter is set.
pub(crate) const USED: u16 = 1 << 15;
/// The flags that tell whose a descriptor is.
pub(crate) const OWNER: u16 = AVAIL | USED;

/// The wrap counter beside an index of 15 bits.
const WRAP: u16 = 1 << 15;

/// A place in a ring: what comes next there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// Below the ring's size, unless it was read from the other side.
    pub(crate) index: u16,
    /// The wrap counter.
    pub(crate) wrap: bool,
}

impl Place {
    /// The place `count` descriptors on, at most a lap.
    #[inline(always)]
    pub(crate) const fn forward(self, count: u16, size: u16) -> Self {
        // Sizes are at most 32768: the sum fits.
        let index = self.index + count;
        if index < size {
            Self { index, ..self }
        } else {
            std::hint::cold_path();
            Self {
                index: index - size,
                wrap: !self.wrap,
            }
        }
    }

    /// The place `count` descriptors before, at most a lap.
    #[inline(always)]
    pub(crate) const fn back(self, count: u16, size: u16) -> Self {
        match self.index.checked_sub(count) {
            Some(index) => Self { index, ..self },
            None => Self {
                index: self.index + (size - count),
                wrap: !self.wrap,
            },
        }
    }

    /// Descriptors from here to `to`, at most a lap: the inverse of [`forward`](Self::forward).
    pub(crate) const fn distance(self, to: Self, size: u16) -> u16 {
        if self.wrap == to.wrap {
            to.index.saturating_sub(self.index)
        } else {
            (to.index + size).saturating_sub(self.index)
        }
    }

    /// [`OWNER`] flags of a descriptor that is available here (virtio 1.2, 2.8.1).
    #[inline(always)]
    pub(crate) const fn available(self) -> u16 {
        if self.wrap { AVAIL } else { USED }
    }

    /// [`OWNER`] flags of a descriptor that is used here (virtio 1.2, 2.8.1).
    #[inline(always)]
    pub(crate) const fn used(self) -> u16 {
        if self.wrap { OWNER } else { 0 }
    }

    /// As 16 bits: the index, above it the wrap counter.
    #[inline(always)]
    pub(crate) const fn to_bits(self) -> u16 {
        self.index | if self.wrap { WRAP } else { 0 }
    }

    /// The inverse of [`to_bits`](Self::to_bits). The index may be outside the ring.
    #[inline(always)]
    pub(crate) const fn from_bits(bits: u16) -> Self {
        Self {
            index: bits & !WRAP,
            wrap: bits & WRAP != 0,
        }
    }

    /// Whether this place is passed on the way of `count` descriptors, at most a lap, from `old` on (virtio 1.2, 2.8.10). A place
    /// outside the ring, which only a broken other side asks for, is passed or not as it comes.
    #[inline(always)]
    pub(crate) const fn is_passed(self, old: Self, count: u16, size: u16) -> bool {
        let end = if self.wrap == old.wrap {
            self.index
        } else {
            self.index + size
        };
        match end.checked_sub(old.index) {
            Some(distance) => distance < count,
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LARGEST: u16 = 32768;

    fn places(size: u16) -> impl Iterator<Item = Place> {
        let place = move |i: u32| Place {
            index: u16::try_from(i % u32::from(size)).unwrap(),
            wrap: i < u32::from(size),
        };
        let all = 2 * u32::from(size);
        let step = if size > 64 { 1021 } else { 1 };
        (0..all).step_by(step).chain([all - 1]).map(place)
    }

    fn step(place: Place, size: u16) -> Place {
        if place.index + 1 < size {
            Place {
                index: place.index + 1,
                ..place
            }
        } else {
            Place {
                index: 0,
                wrap: !place.wrap,
            }
        }
    }

    #[test]
    fn forward_is_so_many_steps_and_back_undoes_it_virtio_2_8_1() {
        for size in (1..=9).chain([64]) {
            for from in places(size) {
                let mut to = from;
                for count in 0..=size {
                    assert_eq!(from.forward(count, size), to);
                    assert_eq!(to.back(count, size), from);
                    assert_eq!(from.distance(to, size), count);
                    to = step(to, size);
                }
            }
        }
    }

    #[test]
    fn the_largest_ring_overflows_nothing() {
        for from in places(LARGEST) {
            let opposite = Place {
                wrap: !from.wrap,
                ..from
            };
            for count in [0, 1, 2, 16384, LARGEST - 1, LARGEST] {
                let to = from.forward(count, LARGEST);
                assert!(to.index < LARGEST);
                assert_eq!(to.back(count, LARGEST), from);
                assert_eq!(to, to.back(LARGEST, LARGEST).forward(LARGEST, LARGEST));
                assert!(!to.is_passed(from, count, LARGEST));
                assert_eq!(from.is_passed(from, count, LARGEST), count > 0);
            }
            assert_eq!(from.forward(LARGEST, LARGEST), opposite);
        }
    }

    #[test]
    fn is_passed_agrees_with_a_walk_virtio_2_8_10() {
        for size in 1..=9 {
            for old in places(size) {
                for count in 0..=size {
                    for event in places(size) {
                        let mut walk = old;
                        let mut passed = false;
                        for _ in 0..count {
                            passed |= walk == event;
                            walk = step(walk, size);
                        }
                        assert_eq!(event.is_passed(old, count, size), passed);
                    }
                }
            }
        }
    }

    #[test]
    fn any_event_of_the_other_side_is_borne() {
        for bits in 0..=u16::MAX {
            let event = Place::from_bits(bits);
            assert_eq!(event.to_bits(), bits);
            for size in [1, 7, LARGEST] {
                for old in [places(size).next().unwrap(), places(size).last().unwrap()] {
                    event.is_passed(old, size, size);
                }
            }
        }
    }

    #[test]
    fn owner_flags_follow_the_wrap_counter_virtio_2_8_1() {
        let place = |wrap| Place { index: 0, wrap };
        assert_eq!(place(true).available(), 0x0080);
        assert_eq!(place(false).available(), 0x8000);
        assert_eq!(place(true).used(), 0x8080);
        assert_eq!(place(false).used(), 0);
    }
}
