//! What can be wrong with a ring, before it starts and while it runs.

use ringway_mem::MemoryError;

/// Why a ring was not set up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RingError {
    /// Split rings have a power of two of descriptors, packed ones any number from 1 on; both at most 32768.
    #[error("a ring of {size} descriptors is not possible")]
    Size {
        /// Descriptors asked for.
        size: u16,
    },
    /// A packed ring cannot stand at a place that it does not have.
    #[error("ring base {index} is outside a ring of {size} descriptors")]
    Base {
        /// The place.
        index: u16,
        /// Descriptors in the ring.
        size: u16,
    },
    /// The base is of the other ring format.
    #[error("ring base and negotiated ring format differ: packed is {packed}")]
    Format {
        /// What was negotiated.
        packed: bool,
    },
    /// A part of the ring is not in guest memory.
    #[error("the {part} of a ring of {size} descriptors cannot be used")]
    Area {
        /// Which part.
        part: &'static str,
        /// Descriptors in the ring.
        size: u16,
        /// What is wrong with it.
        source: MemoryError,
    },
    /// A driver ring was to be laid out where the guest has no memory.
    #[error("{len:#x} bytes at guest address {address:#x} are not inside one memory region")]
    Place {
        /// Guest address of the ring.
        address: u64,
        /// Bytes that it needs.
        len: usize,
    },
}

/// Why a ring does not stand where its journal says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Stale {
    /// There is nothing in it.
    #[error("nothing was written down")]
    Nothing,
    /// It cannot be of this ring.
    #[error("what was written down is no place in this ring")]
    Record,
    /// The ring's memory was cleared since.
    #[error("the ring was cleared since")]
    Cleared,
    /// A descriptor says something else.
    #[error("descriptor {index} has flags {flags:#x}, which cannot be where the ring was")]
    Contradicted {
        /// The descriptor.
        index: u16,
        /// Whose it is (virtio 1.2, 2.8.1).
        flags: u16,
    },
}

/// What a driver did that no driver may. The ring is of no further use; what was taken before is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RingFault {
    /// More chains are available than the ring has room for (virtio 1.2, 2.7.13.3).
    #[error("available index {index} is more than {size} ahead of the used index {used}")]
    AvailableJump {
        /// The index that was read.
        index: u16,
        /// How far the device has returned chains.
        used: u16,
        /// Descriptors in the ring.
        size: u16,
    },
    /// The available ring names a descriptor that is not there.
    #[error("head {head} is outside a ring of {size} descriptors")]
    HeadOutOfRange {
        /// The head.
        head: u16,
        /// Descriptors in the ring.
        size: u16,
    },
    /// A descriptor goes on with one that is not there (virtio 1.2, 2.7.5).
    #[error("next descriptor {next} is outside a table of {size}")]
    NextOutOfRange {
        /// The next descriptor.
        next: u16,
        /// Descriptors in the table.
        size: u16,
    },
    /// A chain is longer than its table: it loops (virtio 1.2, 2.7.5.2).
    #[error("a chain has more descriptors than its table of {size}")]
    ChainTooLong {
        /// Descriptors in the table.
        size: u16,
    },
    /// Bytes that are not guest memory.
    #[error("{len} bytes at guest address {address:#x} are not guest memory")]
    Unmapped {
        /// Guest address.
        address: u64,
        /// Bytes that are missing from there on.
        len: u32,
    },
    /// A readable descriptor follows a writable one (virtio 1.2, 2.7.4.2).
    #[error("a device-readable descriptor follows a device-writable one")]
    ReadableAfterWritable,
    /// Readable where the queue needs writable, or the reverse.
    #[error("a descriptor is {}", if *.writable { "device-writable, not device-readable" } else { "device-readable, not device-writable" })]
    WrongDirection {
        /// What the descriptor is.
        writable: bool,
    },
    /// An indirect table that is empty, too long, or not of whole descriptors (virtio 1.2, 2.7.5.3).
    #[error("an indirect table has {len} bytes, which is not 1 to {max} descriptors of 16 bytes")]
    IndirectLength {
        /// Bytes.
        len: u32,
        /// Descriptors that are possible.
        max: usize,
    },
    /// A table in a table (virtio 1.2, 2.7.5.3.1).
    #[error("an indirect table has an indirect descriptor")]
    NestedIndirect,
    /// A table in the middle of a chain (virtio 1.2, 2.7.5.3.1).
    #[error("an indirect descriptor goes on with a next one")]
    IndirectWithNext,
    /// A table that was not negotiated.
    #[error("an indirect descriptor, but VIRTIO_F_INDIRECT_DESC was not negotiated")]
    IndirectNotNegotiated,
    /// A chain in more pieces than a batch holds.
    #[error("a chain has more than {max} pieces")]
    TooManySegments {
        /// What a batch holds.
        max: usize,
    },
    /// A chain of more than 2^32 - 1 bytes (virtio 1.2, 2.7.5.2).
    #[error("a chain has {total} bytes or more")]
    TotalTooLong {
        /// Bytes up to where it was given up.
        total: u64,
    },
    /// The memory that was passed is not the one that the ring lies in: ours to mend, not the driver's.
    #[error("the ring lies in another memory than the one passed")]
    ForeignMemory,
}

impl RingFault {
    /// Name in statistics.
    pub fn name(&self) -> &'static str {
        match self {
            Self::AvailableJump { .. } => "available_jump",
            Self::HeadOutOfRange { .. } => "head_out_of_range",
            Self::NextOutOfRange { .. } => "next_out_of_range",
            Self::ChainTooLong { .. } => "chain_too_long",
            Self::Unmapped { .. } => "unmapped",
            Self::ReadableAfterWritable => "readable_after_writable",
            Self::WrongDirection { .. } => "wrong_direction",
            Self::IndirectLength { .. } => "indirect_length",
            Self::NestedIndirect => "nested_indirect",
            Self::IndirectWithNext => "indirect_with_next",
            Self::IndirectNotNegotiated => "indirect_not_negotiated",
            Self::TooManySegments { .. } => "too_many_segments",
            Self::TotalTooLong { .. } => "total_too_long",
            Self::ForeignMemory => "foreign_memory",
        }
    }
}
