//! The driver side of a ring: what a guest does. For tests, benches and connections to other back-ends.
//!
//! It owns no buffers: the user passes guest addresses and learns by id when the device is done with them. Like the device side it trusts
//! nothing that the other side writes.

mod chains;
mod packed;
mod slots;
mod split;
mod tables;

use std::sync::Arc;

use ringway_mem::GuestMemory;

pub use self::packed::PackedDriver;
pub use self::split::SplitDriver;
use crate::descriptor::BYTES;
use crate::error::RingError;
use crate::layout::{RingBase, RingFeatures, RingLayout};
use crate::packed::packed_lengths;
use crate::split::split_lengths;

/// How a driver ring is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DriverOptions {
    /// Descriptors in the ring.
    pub size: u16,
    /// What was negotiated.
    pub features: RingFeatures,
    /// Where the ring starts; a new one at [`RingBase::start`].
    pub base: RingBase,
    /// Descriptors that the indirect table of one chain holds. The ring has one table for each of its descriptors.
    pub table: u16,
}

impl Default for DriverOptions {
    /// A split ring of 256 descriptors without features or tables.
    fn default() -> Self {
        Self {
            size: 256,
            features: RingFeatures::default(),
            base: RingBase::start(false),
            table: 0,
        }
    }
}

/// A chain that the device returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Used {
    /// What [`DriverRing::add`] named it.
    pub id: u16,
    /// Bytes that the device wrote.
    pub len: u32,
}

/// Why a chain could not be made available.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddError {
    /// The ring has not enough free descriptors.
    #[error("a chain needs {needed} descriptors, {free} are free")]
    Full {
        /// Descriptors of the chain.
        needed: usize,
        /// Descriptors left.
        free: u16,
    },
    /// A chain has at least one descriptor.
    #[error("a chain has no descriptors")]
    Empty,
    /// More descriptors than a table holds; none when indirect descriptors were not negotiated.
    #[error("a chain needs {needed} descriptors, its indirect table holds {table}")]
    Table {
        /// Descriptors of the chain.
        needed: usize,
        /// Descriptors of a table.
        table: u16,
    },
}

/// What a device did that no device may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DriverFault {
    /// More chains came back than are out.
    #[error("used index {index} is beyond {expected} and the {out} chains that are out")]
    UsedJump {
        /// The index that was read.
        index: u16,
        /// The next index that was expected.
        expected: u16,
        /// Chains that the device has.
        out: u16,
    },
    /// A chain came back that is not out, or not at its turn where order was negotiated.
    #[error("chain {id} came back, which is not out or not next")]
    UnknownChain {
        /// What the device named.
        id: u32,
    },
    /// More bytes were written than the chain has for that.
    #[error("{len} bytes written to chain {id}, which has room for {room}")]
    Overwritten {
        /// The chain.
        id: u16,
        /// Bytes that the device names.
        len: u32,
        /// Writable bytes of the chain.
        room: u32,
    },
}

/// A ring as the driver works on it.
pub enum DriverRing {
    /// The split virtqueue (virtio 1.2, 2.7).
    Split(SplitDriver),
    /// The packed virtqueue (virtio 1.2, 2.8).
    Packed(PackedDriver),
}

impl DriverRing {
    /// Bytes of guest memory that a ring needs.
    pub const fn bytes(options: &DriverOptions) -> usize {
        Plan::new(options).end
    }

    /// Lays a ring out from `guest_address` on, which must be aligned to 16 bytes, and clears it.
    pub fn new(
        memory: &Arc<GuestMemory>,
        guest_address: u64,
        options: DriverOptions,
    ) -> Result<Self, RingError> {
        if options.features.packed {
            PackedDriver::new(memory, guest_address, options).map(Self::Packed)
        } else {
            SplitDriver::new(memory, guest_address, options).map(Self::Split)
        }
    }

    /// Stages a chain: buffers to be read by the device, then buffers to be written, each a guest address and a length. Returns what
    /// names the chain until it comes back.
    #[inline]
    pub fn add(
        &mut self,
        readable: &[(u64, u32)],
        writable: &[(u64, u32)],
        indirect: bool,
    ) -> Result<u16, AddError> {
        match self {
            Self::Split(ring) => ring.add(readable, writable, indirect),
            Self::Packed(ring) => ring.add(readable, writable, indirect),
        }
    }

    /// Makes what was added visible to the device. True when the device wants a kick for it.
    #[inline]
    pub fn publish(&mut self) -> bool {
        match self {
            Self::Split(ring) => ring.publish(),
            Self::Packed(ring) => ring.publish(),
        }
    }

    /// The next chain that came back, if any.
    #[inline]
    pub fn pop_used(&mut self) -> Result<Option<Used>, DriverFault> {
        match self {
            Self::Split(ring) => ring.pop_used(),
            Self::Packed(ring) => ring.pop_used(),
        }
    }

    /// Asks the device not to call. It may still do so now and then.
    pub fn disable_calls(&mut self) {
        match self {
            Self::Split(ring) => ring.disable_calls(),
            Self::Packed(ring) => ring.disable_calls(),
        }
    }

    /// Asks the device to call for the next chain. True when one has come back already: then no call may come for it.
    pub fn enable_calls(&mut self) -> bool {
        match self {
            Self::Split(ring) => ring.enable_calls(),
            Self::Packed(ring) => ring.enable_calls(),
        }
    }

    /// Looks whether a chain has come back.
    #[inline]
    pub fn has_used(&self) -> bool {
        match self {
            Self::Split(ring) => ring.has_used(),
            Self::Packed(ring) => ring.has_used(),
        }
    }

    /// Free descriptors.
    #[inline]
    pub fn free(&self) -> u16 {
        match self {
            Self::Split(ring) => ring.free(),
            Self::Packed(ring) => ring.free(),
        }
    }

    /// What the device has to know of the place.
    pub fn layout(&self) -> RingLayout {
        match self {
            Self::Split(ring) => ring.layout(),
            Self::Packed(ring) => ring.layout(),
        }
    }

    /// Where a device has to start that takes the ring up now: after the last chain that came back. A device finds that out for itself
    /// in a split ring, for which this is the last chain that was popped.
    pub fn base(&self) -> RingBase {
        match self {
            Self::Split(ring) => ring.base(),
            Self::Packed(ring) => ring.base(),
        }
    }
}

/// Offsets of the parts from the beginning. Each has lines of its own, and so has its neighbour, which some processors fetch along.
struct Plan {
    available: usize,
    used: usize,
    tables: usize,
    end: usize,
}

/// Two lines.
const PART: usize = 128;

impl Plan {
    const fn new(options: &DriverOptions) -> Self {
        let [descriptors, available, used] = if options.features.packed {
            packed_lengths(options.size)
        } else {
            split_lengths(options.size)
        };
        let available_at = descriptors.next_multiple_of(PART);
        let used_at = (available_at + available).next_multiple_of(PART);
        let tables = (used_at + used).next_multiple_of(PART);
        let table_bytes = options.table as usize * BYTES;
        Self {
            available: available_at,
            used: used_at,
            tables,
            end: tables + options.size as usize * table_bytes,
        }
    }

    /// Guest address `guest_address` as the front-end's, given that the whole plan fits there.
    fn user_address(&self, memory: &GuestMemory, guest_address: u64) -> Result<u64, RingError> {
        let len = self.end;
        let place = memory.regions().find_map(|region| {
            let offset = guest_address.checked_sub(region.guest_address)?;
            let left = region.size.checked_sub(offset)?;
            (len as u64 <= left).then_some(region.user_address + offset)
        });
        place.ok_or(RingError::Place {
            address: guest_address,
            len,
        })
    }
}
