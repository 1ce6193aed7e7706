//! The parts of a packed ring in memory (virtio 1.2, 2.8.13 and 2.8.14), as both sides see them.

use std::sync::Arc;

use ringway_mem::GuestMemory;

use super::place::{OWNER, Place};
use crate::descriptor::{BYTES, Descriptor};
use crate::error::RingError;
use crate::layout::RingLayout;
use crate::shared::{Area, area};

/// Bytes of an event suppression structure.
pub(super) const EVENT_BYTES: usize = 4;
/// Where length, id and flags of a descriptor are.
const SECOND: usize = 8;

/// The memory of a packed ring. Callers pass indices below the ring's size, which are their own and never a word that they read.
pub(crate) struct Areas {
    descriptors: Area,
    driver_event: Area,
    device_event: Area,
    size: u16,
}

/// What a side wants to be told, as an event suppression structure has it (virtio 1.2, 2.8.14).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// Everything.
    Enable,
    /// Nothing.
    Disable,
    /// When this place is passed; only with VIRTIO_F_EVENT_IDX.
    Descriptor(Place),
}

impl Event {
    const ENABLE: u32 = 0;
    const DISABLE: u32 = 1;
    const DESCRIPTOR: u32 = 2;
    /// Where the device wants everything and names no place, it names this one, which nobody reads: so it never leaves the word zero, and
    /// a ring that was cleared since shows (see [`recover`](super::recover)).
    const TRACE: u32 = 1;

    #[inline(always)]
    const fn to_word(self) -> u32 {
        match self {
            Self::Enable => Self::ENABLE << 16,
            Self::Disable => Self::DISABLE << 16,
            Self::Descriptor(place) => Self::DESCRIPTOR << 16 | place.to_bits() as u32,
        }
    }

    /// The place in the low half, then two bits of flags. What is reserved asks for everything, since nothing else loses no event.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "picks a field of a word")]
    const fn from_word(word: u32, event_idx: bool) -> Self {
        match word >> 16 & 3 {
            Self::DISABLE => Self::Disable,
            Self::DESCRIPTOR if event_idx => Self::Descriptor(Place::from_bits(word as u16)),
            _ => Self::Enable,
        }
    }

    /// Whether the side that asked has to be told of `count` descriptors from `old` on.
    #[inline(always)]
    pub(crate) const fn wants(self, old: Place, count: u16, size: u16) -> bool {
        match self {
            Self::Enable => true,
            Self::Disable => false,
            Self::Descriptor(place) => place.is_passed(old, count, size),
        }
    }
}

/// Bytes of descriptor ring, driver and device event suppression.
pub(crate) const fn packed_lengths(size: u16) -> [usize; 3] {
    [size as usize * BYTES, EVENT_BYTES, EVENT_BYTES]
}

impl Areas {
    pub(crate) fn new(memory: &Arc<GuestMemory>, layout: &RingLayout) -> Result<Self, RingError> {
        let size = layout.size;
        let area = |part, address, len, align| {
            let area = area(memory, address, len, align);
            area.map_err(|source| RingError::Area { part, size, source })
        };
        let [descriptors, driver, device] = packed_lengths(size);
        Ok(Self {
            descriptors: area("descriptor ring", layout.descriptors, descriptors, 16)?,
            driver_event: area("driver event suppression", layout.available, driver, 4)?,
            device_event: area("device event suppression", layout.used, device, 4)?,
            size,
        })
    }

    #[inline(always)]
    pub(crate) fn size(&self) -> u16 {
        self.size
    }

    #[inline(always)]
    pub(crate) fn memory(&self) -> &Arc<GuestMemory> {
        self.descriptors.memory()
    }

    /// Guest addresses of what the device writes: descriptor ring, device event suppression.
    pub(super) fn written(&self) -> [Option<u64>; 2] {
        [&self.descriptors, &self.device_event].map(Area::guest_address)
    }

    /// A descriptor, its flags first: if they say that it is there, so is the rest, and all that was written before.
    #[inline(always)]
    pub(crate) fn descriptor(&self, index: u16) -> [u64; 2] {
        self.descriptors.load_desc_acquire(at(index))
    }

    /// Whose the descriptor is: its [`OWNER`] flags.
    #[inline(always)]
    pub(crate) fn owner(&self, index: u16) -> u16 {
        Descriptor::from_packed(self.descriptor(index)).flags & OWNER
    }

    #[inline(always)]
    pub(crate) fn set_first_word(&self, index: u16, word: u64) {
        self.descriptors.store_u64(at(index), word);
    }

    #[inline(always)]
    pub(crate) fn set_second_word(&self, index: u16, word: u64) {
        self.descriptors.store_u64(at(index) + SECOND, word);
    }

    /// Makes everything that was written before it visible to the other side.
    #[inline(always)]
    pub(crate) fn publish_second_word(&self, index: u16, word: u64) {
        self.descriptors.store_release_u64(at(index) + SECOND, word);
    }

    /// What calls the driver wants.
    #[inline(always)]
    pub(crate) fn driver_event(&self, event_idx: bool) -> Event {
        Event::from_word(self.driver_event.load_u32(0), event_idx)
    }

    pub(crate) fn set_driver_event(&self, event: Event) {
        self.driver_event.store_u32(0, event.to_word());
    }

    /// What kicks the device wants.
    #[inline(always)]
    pub(crate) fn device_event(&self, event_idx: bool) -> Event {
        Event::from_word(self.device_event.load_u32(0), event_idx)
    }

    /// What the device wrote there, or the driver that cleared it.
    pub(super) fn device_event_word(&self) -> u32 {
        self.device_event.load_u32(0)
    }

    /// As a driver leaves it to the device: everything is wanted.
    pub(crate) fn clear_device_event(&self) {
        self.device_event.store_u32(0, 0);
    }

    #[inline(always)]
    pub(crate) fn set_device_event(&self, event: Event) {
        self.device_event
            .store_u32(0, event.to_word().max(Event::TRACE));
    }
}

#[inline(always)]
fn at(index: u16) -> usize {
    usize::from(index) * BYTES
}
