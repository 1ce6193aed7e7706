//! How one switch hands everything over to another, on a control connection that began like any other.
//!
//! ```text
//! new   take-over {oldest, newest}      which formats it reads
//! old   handing-over {format}           from here on messages of this module; or an error
//! old   switch, port.., learned.., prepare     descriptors, if any, in messages before: each answered `got`
//! new   prepared                        all is open and mapped
//! old   learned.., standing.., stopped  nobody serves anything any more, and where all of it stands
//! new   ready                           every ring could begin
//! old   go                              the old one will never touch a ring again
//! new   running                         frames cross again; the old one leaves
//! ```
//!
//! Before `go` either side may say `failed`, close the connection or fall silent: the old one serves its rings again. It alone
//! decides, by sending `go` or not, so the two never serve a ring at the same time.
//!
//! A format is what a program of its time wrote. Fields are added with a default and never change their meaning; a message or a
//! meaning that older readers would miss makes a new format. A program reads every format from [`OLDEST_FORMAT`] on.

mod line;
#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

use crate::port_spec::{Mac, PortSpec};

pub use line::{Descriptors, HandoverError, Line, Received};

/// The format written here, the newest one that is read.
pub const FORMAT: u32 = 1;
/// The oldest format that is read.
pub const OLDEST_FORMAT: u32 = 1;

/// A descriptor: its place among those sent before the message, since the last message that was not descriptors.
pub type Place = u32;

/// What the old switch says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum FromOld {
    /// Nothing but descriptors, for the next message that is not of this type. They are waited for one message at a time.
    Descriptors,
    /// The switch as a whole; the first message.
    Switch(Box<SwitchState>),
    /// A port.
    Port(Box<PortState>),
    /// Addresses that were learned; later ones replace earlier ones.
    Learned {
        /// In no order.
        addresses: Vec<Learned>,
    },
    /// All is said that can be said while frames cross.
    Prepare,
    /// Where ports stand that are served no more.
    Standing {
        /// Each port is in one of these messages.
        ports: Vec<Standing>,
    },
    /// Nobody serves anything; every port's standing has been said.
    Stopped(Stopped),
    /// The new one may touch the rings.
    Go,
    /// It is over; the old one goes on.
    Failed {
        /// One sentence.
        message: String,
    },
}

/// What the new switch says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum FromNew {
    /// The descriptors arrived.
    Got,
    /// Everything is open and mapped.
    Prepared,
    /// Every ring can begin where it stands.
    Ready,
    /// Frames cross again.
    Running {
        /// For how long they did not, in microseconds.
        gap: u64,
    },
    /// It is over; the old one is to go on.
    Failed {
        /// One sentence.
        message: String,
    },
}

/// The switch as a whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SwitchState {
    /// The control socket.
    pub control: Option<ListenerState>,
    /// The number that the next port would have got.
    pub next_number: u32,
}

/// A socket that others connect to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListenerState {
    /// The socket.
    pub socket: Place,
    /// Its file, if it is to be removed in the end, and the inode by which it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<(std::path::PathBuf, u64)>,
}

/// A port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortState {
    /// Its number, which no other port ever had.
    pub number: u32,
    /// Its short number, which addresses are learned for.
    pub slot: u16,
    /// Its name.
    pub name: String,
    /// What it was asked to be, changes included.
    pub spec: PortSpec,
    /// Queues of a tap, or the file of a capture.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<Place>,
    /// What a vhost-user port has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vhost_user: Option<VhostUserState>,
}

/// The sockets of a vhost-user port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VhostUserState {
    /// Where front-ends connect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listener: Option<ListenerState>,
    /// Whether it connects by itself, to the path in its specification.
    #[serde(default)]
    pub connects: bool,
    /// The front-end that is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<SessionState>,
}

/// A front-end's session between two messages.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionState {
    /// The connection.
    pub socket: Place,
    /// Milliseconds since the front-end connected.
    pub age: u64,
    /// Lines it has caused in the log.
    pub complaints: u32,
    /// The beginning of a message, in hexadecimal digits.
    #[serde(
        default,
        with = "crate::hex::bytes",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub received: Vec<u8>,
    /// What came with it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub received_files: Vec<Place>,
    /// Answers that it has not taken.
    #[serde(
        default,
        with = "crate::hex::bytes",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub queued: Vec<u8>,
    /// Files that go with them: with which byte, and the file.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub queued_files: Vec<(usize, Place)>,
    /// virtio features that the driver took.
    #[serde(with = "crate::hex")]
    pub features: u64,
    /// Whether it said so.
    pub acked_features: bool,
    /// vhost-user protocol features in use.
    #[serde(with = "crate::hex")]
    pub protocol_features: u64,
    /// virtio device status.
    pub status: u8,
    /// MTU that the guest was told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u16>,
    /// The guest's memory; `None` before there was any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<Vec<RegionState>>,
    /// The dirty log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log: Option<LogState>,
    /// Where it is kept what is in flight.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inflight: Option<InflightState>,
    /// The socket for requests of the back-end's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend_requests: Option<Place>,
    /// By ring index.
    pub rings: Vec<RingState>,
}

/// A region for what is in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct InflightState {
    /// Size in bytes.
    pub size: u64,
    /// Offset in the file.
    pub mmap_offset: u64,
    /// Rings that it is for.
    pub rings: u16,
    /// Descriptors of each.
    pub ring_size: u16,
    /// The file.
    pub file: Place,
}

/// A region of guest memory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegionState {
    /// Guest physical address.
    #[serde(with = "crate::hex")]
    pub guest_address: u64,
    /// Address in the front-end.
    #[serde(with = "crate::hex")]
    pub user_address: u64,
    /// Bytes.
    #[serde(with = "crate::hex")]
    pub size: u64,
    /// Where it begins in its file.
    #[serde(with = "crate::hex")]
    pub mmap_offset: u64,
    /// Its file.
    pub file: Place,
}

/// A dirty log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogState {
    /// Bytes.
    #[serde(with = "crate::hex")]
    pub size: u64,
    /// Where it begins in its file.
    #[serde(with = "crate::hex")]
    pub mmap_offset: u64,
    /// Its file.
    pub file: Place,
}

/// A ring as the front-end set it up.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RingState {
    /// Descriptors.
    pub size: u16,
    /// Where it lies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub addresses: Option<RingPlaces>,
    /// The base that was set, or where the ring stopped. One that runs stands where [`RingStanding`] says.
    pub base: u32,
    /// The driver's notification.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kick: Option<Place>,
    /// The device's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub call: Option<Place>,
    /// That of errors.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub err: Option<Place>,
    /// SET_VRING_KICK has come.
    pub started: bool,
    /// The ring is enabled.
    pub enabled: bool,
}

/// Addresses of a ring in the front-end, as SET_VRING_ADDR has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RingPlaces {
    /// Descriptors.
    #[serde(with = "crate::hex")]
    pub descriptors: u64,
    /// Available ring, or driver event area.
    #[serde(with = "crate::hex")]
    pub available: u64,
    /// Used ring, or device event area.
    #[serde(with = "crate::hex")]
    pub used: u64,
    /// Where writes to the used ring are logged.
    #[serde(with = "crate::hex")]
    pub log: u64,
    /// Whether they are.
    pub logged: bool,
}

/// An address that was learned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Learned {
    /// The address.
    pub mac: Mac,
    /// Its VLAN, 0 for ports without one.
    pub vlan: u16,
    /// The slot of the port that it is behind.
    pub slot: u16,
    /// Seconds since its last frame.
    pub age: u32,
}

/// Where a port stands that is served no more.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// The port.
    pub number: u32,
    /// Its rings that ran.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rings: Vec<RingStanding>,
    /// Counters of each queue pair, from the guest and to it. Each has frames, bytes, kicks, calls, missed kicks, waits for the lock,
    /// nanoseconds of work; what is missing at the end is 0.
    pub counters: Vec<[Vec<u64>; 2]>,
    /// Drops by reason.
    #[serde(default)]
    pub drops: std::collections::BTreeMap<String, u64>,
}

/// Where a ring stands. Nothing is taken that was not returned, so available and used index are the same, wrap counters included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RingStanding {
    /// Ring index.
    pub ring: usize,
    /// Its base, as GET_VRING_BASE has it.
    pub base: u32,
    /// Its driver broke the rules: it is not served until the driver starts it again.
    #[serde(default)]
    pub failed: bool,
}

/// Nobody serves anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stopped {
    /// When that began: nanoseconds of CLOCK_MONOTONIC.
    pub at: u64,
    /// Deliveries begun.
    pub attempted: u64,
    /// Deliveries done.
    pub delivered: u64,
    /// Deliveries given up.
    pub dropped: u64,
    /// Frame bytes written into guests.
    pub copied_bytes: u64,
}
