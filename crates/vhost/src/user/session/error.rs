//! Why a session ends, or a request is refused.

use std::io;

use ringway_mem::MemoryError;

use crate::user::features::{names, protocol_names};
use crate::user::message::{InflightArea, MAX_TABLE_REGIONS, RequestId};
use crate::user::socket::SocketError;

/// What is wrong with a message or with the connection.
///
/// A refusal (see [`Self::is_refusal`]) is told to a front-end that asked for an answer, and the
/// session goes on. Anything else ends the session.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// The front-end closed the connection between two messages.
    #[error("the front-end closed the connection")]
    Closed,
    /// The connection cannot go on.
    #[error(transparent)]
    Socket(SocketError),
    /// `receive` was called while an event was not finished.
    #[error("the event before is not finished")]
    Unfinished,
    /// Another version of the protocol.
    #[error("{request}: protocol version {version}, only 1 is known")]
    Version {
        /// The message.
        request: RequestId,
        /// Its version.
        version: u32,
    },
    /// Flags that a request cannot have.
    #[error("{request}: flags {flags:#x} are not those of a request")]
    Flags {
        /// The message.
        request: RequestId,
        /// Its flags.
        flags: u32,
    },
    /// The payload is not the request's.
    #[error("{request}: payload of {size} bytes instead of {expected}")]
    PayloadSize {
        /// The message.
        request: RequestId,
        /// Size of the payload.
        size: usize,
        /// Size it has to have.
        expected: usize,
    },
    /// Too few or too many file descriptors.
    #[error("{request}: {count} file descriptors instead of {expected}")]
    DescriptorCount {
        /// The message.
        request: RequestId,
        /// Descriptors that came.
        count: usize,
        /// How many there have to be, at most.
        expected: usize,
    },
    /// There is no such request.
    #[error("{request} is not known")]
    Unknown {
        /// The message.
        request: RequestId,
    },
    /// The request belongs to a feature that was not offered.
    #[error("{request} belongs to a feature that is not offered")]
    NotOffered {
        /// The message.
        request: RequestId,
    },
    /// There is no such ring.
    #[error("{request}: ring {index} of {rings}")]
    RingIndex {
        /// The message.
        request: RequestId,
        /// The ring.
        index: u32,
        /// How many rings there are.
        rings: usize,
    },
    /// Bits in the number that names a ring that have no meaning.
    #[error("{request}: {payload:#x} is not a ring index with or without the no-descriptor flag")]
    RingFile {
        /// The message.
        request: RequestId,
        /// The number.
        payload: u64,
    },
    /// A split ring of that size is impossible.
    #[error("SET_VRING_NUM: size {size} is not a power of two up to 32768")]
    SplitRingSize {
        /// The size.
        size: u32,
    },
    /// A packed ring of that size is impossible.
    #[error("SET_VRING_NUM: size {size} is not between 1 and 32768")]
    PackedRingSize {
        /// The size.
        size: u32,
    },
    /// The index of a split ring has 16 bits.
    #[error("SET_VRING_BASE: index {base:#x} does not fit a split ring")]
    SplitRingBase {
        /// The index.
        base: u32,
    },
    /// Size and index of a ring stay while it is started.
    #[error("{request}: ring {index} is started")]
    RingStarted {
        /// The message.
        request: RequestId,
        /// The ring.
        index: u32,
    },
    /// Unknown flags, or logging that was not offered.
    #[error("SET_VRING_ADDR: flags {flags:#x}, only {known:#x} can be set")]
    RingFlags {
        /// The flags.
        flags: u32,
        /// Those that can be set.
        known: u32,
    },
    /// Enabled is 0 or 1.
    #[error("SET_VRING_ENABLE: {value} is neither 0 nor 1")]
    Enable {
        /// The value.
        value: u32,
    },
    /// The file descriptor of a notification is something else.
    #[error("{request}: the file descriptor for ring {index} is not an eventfd")]
    NotEventfd {
        /// The message.
        request: RequestId,
        /// The ring.
        index: u32,
    },
    /// The file descriptor for our requests is something else.
    #[error("SET_BACKEND_REQ_FD: the file descriptor is not a socket")]
    NotSocket,
    /// A file descriptor cannot be looked at.
    #[error("{request}: cannot use the file descriptor")]
    Descriptor {
        /// The message.
        request: RequestId,
        /// What the system call answered.
        source: io::Error,
    },
    /// The driver took what was not there.
    #[error("SET_FEATURES: not offered: {}", names(*extra))]
    Features {
        /// The features in question.
        extra: u64,
    },
    /// Only dirty logging may be switched while rings are started.
    #[error("SET_FEATURES: cannot be changed while rings are started: {}", names(*changed))]
    FeaturesStarted {
        /// The features in question.
        changed: u64,
    },
    /// The front-end took what was not there.
    #[error("SET_PROTOCOL_FEATURES: not offered: {}", protocol_names(*extra))]
    ProtocolFeatures {
        /// The features in question.
        extra: u64,
    },
    /// A table of no region, or of too many.
    #[error("SET_MEM_TABLE: {count} regions, from 1 to {MAX_TABLE_REGIONS} are possible")]
    RegionCount {
        /// Regions there are.
        count: usize,
    },
    /// More regions than were offered.
    #[error("ADD_MEM_REG: {count} regions, at most {max} are possible")]
    MemorySlots {
        /// Regions there would be.
        count: usize,
        /// The limit.
        max: u64,
    },
    /// The memory cannot be mapped, or there is no such region.
    #[error("{request}: memory refused")]
    Memory {
        /// The message.
        request: RequestId,
        /// Why.
        source: MemoryError,
    },
    /// A region that tracks what is in flight in rings which there cannot be, or that has no room for them.
    #[error(
        "{request}: {} rings of {} descriptors in {:#x} bytes at {:#x} cannot be tracked",
        area.rings, area.ring_size, area.size, area.offset
    )]
    InflightArea {
        /// The message.
        request: RequestId,
        /// What it says.
        area: InflightArea,
    },
    /// The front-end asks for more and more files.
    #[error("GET_INFLIGHT_FD: {count} files were made on this connection")]
    InflightFiles {
        /// How many.
        count: u32,
    },
    /// A region is removed from no memory.
    #[error("REM_MEM_REG: there is no memory")]
    NoMemory,
    /// No Ethernet device has such an MTU.
    #[error("NET_SET_MTU: {mtu} is not between 68 and 65535")]
    Mtu {
        /// The MTU.
        mtu: u64,
    },
    /// The device status has eight bits.
    #[error("SET_STATUS: {status:#x} has more than eight bits")]
    Status {
        /// The status.
        status: u64,
    },
}

impl SessionError {
    /// Whether the message itself was sound, only what it asks for is not possible. The state is
    /// as before.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        match self {
            Self::Closed
            | Self::Socket(_)
            | Self::Unfinished
            | Self::Version { .. }
            | Self::Flags { .. }
            | Self::PayloadSize { .. }
            | Self::DescriptorCount { .. } => false,
            Self::Unknown { .. }
            | Self::NotOffered { .. }
            | Self::RingIndex { .. }
            | Self::RingFile { .. }
            | Self::SplitRingSize { .. }
            | Self::PackedRingSize { .. }
            | Self::SplitRingBase { .. }
            | Self::RingStarted { .. }
            | Self::RingFlags { .. }
            | Self::Enable { .. }
            | Self::NotEventfd { .. }
            | Self::NotSocket
            | Self::Descriptor { .. }
            | Self::Features { .. }
            | Self::FeaturesStarted { .. }
            | Self::ProtocolFeatures { .. }
            | Self::RegionCount { .. }
            | Self::MemorySlots { .. }
            | Self::Memory { .. }
            | Self::InflightArea { .. }
            | Self::InflightFiles { .. }
            | Self::NoMemory
            | Self::Mtu { .. }
            | Self::Status { .. } => true,
        }
    }
}

impl From<SocketError> for SessionError {
    fn from(error: SocketError) -> Self {
        match error {
            SocketError::Closed => Self::Closed,
            other => Self::Socket(other),
        }
    }
}
