//! Where a ring lies, what was negotiated for it, and where its processing stands.

/// The largest ring (virtio 1.2, 2.7 and 2.8).
pub const MAX_SIZE: u16 = 32768;

/// The negotiated features that shape a ring.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RingFeatures {
    /// VIRTIO_F_RING_PACKED.
    pub packed: bool,
    /// VIRTIO_F_EVENT_IDX.
    pub event_idx: bool,
    /// VIRTIO_F_INDIRECT_DESC.
    pub indirect: bool,
    /// VIRTIO_F_IN_ORDER.
    pub in_order: bool,
}

/// Size and place of a ring. Addresses are the front-end's virtual addresses, as SET_VRING_ADDR carries them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RingLayout {
    /// Descriptors in the ring.
    pub size: u16,
    /// The descriptor table (split) or ring (packed).
    pub descriptors: u64,
    /// The available ring (split) or the driver event suppression structure (packed).
    pub available: u64,
    /// The used ring (split) or the device event suppression structure (packed).
    pub used: u64,
}

/// Where processing stands: what GET_VRING_BASE and SET_VRING_BASE speak of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RingBase {
    /// The next chain to be taken: a free-running index (split) or a place in the ring (packed).
    pub available: u16,
    /// The next chain to be returned, likewise.
    pub used: u16,
    /// The wrap counters of both; `None` for a split ring.
    pub wraps: Option<Wraps>,
}

/// Wrap counters of a packed ring (virtio 1.2, 2.8.1). Both are set on the first lap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wraps {
    /// The wrap counter of [`RingBase::available`].
    pub available: bool,
    /// The wrap counter of [`RingBase::used`].
    pub used: bool,
}

const WRAP: u16 = 1 << 15;

impl RingBase {
    /// A split ring of which everything before `index` is done.
    pub const fn split(index: u16) -> Self {
        Self {
            available: index,
            used: index,
            wraps: None,
        }
    }

    /// A packed ring of which everything before `index` in the lap of `wrap` is done.
    pub const fn packed(index: u16, wrap: bool) -> Self {
        Self {
            available: index,
            used: index,
            wraps: Some(Wraps {
                available: wrap,
                used: wrap,
            }),
        }
    }

    /// Where a new ring starts.
    pub const fn start(packed: bool) -> Self {
        if packed {
            Self::packed(0, true)
        } else {
            Self::split(0)
        }
    }

    /// Decodes the number of SET_VRING_BASE. Split: the index. Packed: available index in bits 0-14 and its wrap counter in bit 15,
    /// the same for used in bits 16-31. DPDK's front-end and back-end leave the upper half 0; then used is where available is, as in any
    /// ring that was stopped in peace.
    pub const fn from_vhost(number: u32, packed: bool) -> Self {
        let available = (number & 0xffff) as u16;
        if !packed {
            return Self::split(available);
        }
        let mut used = (number >> 16) as u16;
        if used == 0 {
            used = available;
        }
        Self {
            available: available & !WRAP,
            used: used & !WRAP,
            wraps: Some(Wraps {
                available: available & WRAP != 0,
                used: used & WRAP != 0,
            }),
        }
    }

    /// Encodes the number of the reply to GET_VRING_BASE, see [`from_vhost`](Self::from_vhost).
    pub const fn to_vhost(self) -> u32 {
        match self.wraps {
            None => self.available as u32,
            Some(wraps) => {
                let available = self.available as u32 | (wraps.available as u32) << 15;
                let used = self.used as u32 | (wraps.used as u32) << 15;
                available | used << 16
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vring_base_of_a_split_ring_is_the_index_virtio_2_7_6() {
        for index in [0, 1, 0x7fff, 0x8000, 0xffff] {
            let base = RingBase::from_vhost(u32::from(index), false);
            assert_eq!(base, RingBase::split(index));
            assert_eq!(base.to_vhost(), u32::from(index));
        }
    }

    #[test]
    fn vring_base_of_a_packed_ring_has_two_halves_virtio_2_8_1() {
        let base = RingBase::from_vhost(0x0007_8003, true);
        assert_eq!((base.available, base.used), (3, 7));
        let wraps = Wraps {
            available: true,
            used: false,
        };
        assert_eq!(base.wraps, Some(wraps));
        assert_eq!(base.to_vhost(), 0x0007_8003);
        for number in [
            0x8000_8000,
            0,
            0x0005_0005,
            0x8123_8123,
            0x7fff_8000,
            0x8000_0007,
        ] {
            assert_eq!(RingBase::from_vhost(number, true).to_vhost(), number);
        }
    }

    #[test]
    fn vring_base_without_an_upper_half_means_used_is_available() {
        for (number, index, wrap) in [
            (0x8000, 0, true),
            (0x8123, 0x123, true),
            (0x0123, 0x123, false),
            (0, 0, false),
        ] {
            let base = RingBase::from_vhost(number, true);
            assert_eq!(base, RingBase::packed(index, wrap));
        }
    }
}
