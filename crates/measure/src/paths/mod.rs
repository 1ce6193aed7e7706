//! What the ways between two guests carry on this machine, and what they cost.
//!
//! For every path two guests are booted, A and B, joined by it alone. The agent in them ([`agent`]) sends and counts; here the kernel is
//! asked what the processes used meanwhile ([`account`]). Not all guests can run at once, so a *round* is one pair of guests after
//! the other, each with all loads, and there are several rounds: what drifts on the machine meets every path alike. Many rounds of
//! short windows say more than few of long ones: a window's own length matters little beside what differs from boot to boot and from
//! minute to minute. Figures are medians over rounds, with the interval in which the true one lies ([`crate::confidence`]); ratios are
//! taken within a round, where machine and moment are nearly the same.

mod account;
pub mod agent;
mod compare;
mod document;
mod folder;
mod guest;
mod machine;
mod pair;
mod parcel;
mod place;
mod plot;
mod protocol;
mod report;
mod run;
mod switch;
mod table;

pub use compare::Agreement;
pub use document::refresh;
pub use folder::Folder;
pub use guest::Image;
pub use machine::{Machine, Missing};
pub use report::{Estimate, Figure, Report, Row, Sample};
pub use run::{Bench, Interrupted, Plan, Progress, Wiring};

use serde::{Deserialize, Serialize};

use ringway_vmm::Model;

/// A way from one guest to the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// virtio, through `ringway switch` in user space.
    VhostUser,
    /// virtio, whose rings the kernel serves, to a tap on a bridge.
    VhostNet,
    /// virtio, whose rings QEMU serves, to a tap on a bridge.
    Tap,
    /// virtio, whose rings QEMU serves, to a macvtap; all upon one interface reach each other without a bridge.
    Macvtap,
    /// An emulated Intel 82540EM on a tap.
    E1000,
    /// An emulated Intel 82574L.
    E1000e,
    /// An emulated Intel 82576.
    Igb,
    /// A device of the host's that is given to the guest.
    Vfio,
    /// virtio to the network stack within QEMU (`-netdev user`), which leads to the host and not to another guest.
    User,
    /// virtio to `passt` beside QEMU, which leads to the host and not to another guest.
    Passt,
}

impl Kind {
    /// All, in the order in which they are shown.
    pub const ALL: [Self; 10] = [
        Self::VhostUser,
        Self::VhostNet,
        Self::Tap,
        Self::Macvtap,
        Self::Igb,
        Self::E1000e,
        Self::E1000,
        Self::Vfio,
        Self::User,
        Self::Passt,
    ];

    /// On the command line and in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::VhostUser => "vhost-user",
            Self::VhostNet => "vhost-net",
            Self::Tap => "tap",
            Self::Macvtap => "macvtap",
            Self::E1000 => "e1000",
            Self::E1000e => "e1000e",
            Self::Igb => "igb",
            Self::Vfio => "vfio",
            Self::User => "user",
            Self::Passt => "passt",
        }
    }

    /// For people.
    pub fn title(self) -> &'static str {
        match self {
            Self::VhostUser => "virtio, ringway switch (vhost-user)",
            Self::VhostNet => "virtio, kernel (vhost-net), bridge",
            Self::Tap => "virtio, QEMU, tap, bridge",
            Self::Macvtap => "virtio, QEMU, macvtap",
            Self::E1000 => "e1000, QEMU, tap, bridge",
            Self::E1000e => "e1000e, QEMU, tap, bridge",
            Self::Igb => "igb, QEMU, tap, bridge",
            Self::Vfio => "passthrough (VFIO)",
            Self::User => "QEMU's own network (`-netdev user`)",
            Self::Passt => "passt",
        }
    }

    /// What the guest sees.
    pub fn model(self) -> Model {
        match self {
            Self::E1000 => Model::E1000,
            Self::E1000e => Model::E1000e,
            Self::Igb => Model::Igb,
            _ => Model::Virtio,
        }
    }

    /// Whether a number of queue pairs can be chosen.
    pub fn has_queues(self) -> bool {
        matches!(
            self,
            Self::VhostUser | Self::VhostNet | Self::Tap | Self::Macvtap
        )
    }
}

impl std::str::FromStr for Kind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|kind| kind.name() == text);
        found.ok_or_else(|| {
            let names = Self::ALL.map(Self::name).join(", ");
            format!("{text:?} is no path: give some of {names}, joined by commas")
        })
    }
}

/// What crosses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Load {
    /// One TCP connection from A to B.
    Tcp1,
    /// One from B to A.
    Tcp1Back,
    /// Four from A to B.
    Tcp4,
    /// Four from B to A.
    Tcp4Back,
    /// Datagrams of 64 bytes, as many as A sends.
    Udp64,
    /// Datagrams of 1472 bytes, which fill a frame.
    Udp1472,
    /// Requests of 64 bytes from A and answers from B, one after the other.
    Exchange,
}

impl Load {
    /// All, in the order in which they are run.
    pub const ALL: [Self; 7] = [
        Self::Tcp1,
        Self::Tcp1Back,
        Self::Tcp4,
        Self::Tcp4Back,
        Self::Udp64,
        Self::Udp1472,
        Self::Exchange,
    ];

    /// For people.
    pub fn title(self) -> &'static str {
        match self {
            Self::Tcp1 => "TCP, 1 stream, A to B",
            Self::Tcp1Back => "TCP, 1 stream, B to A",
            Self::Tcp4 => "TCP, 4 streams, A to B",
            Self::Tcp4Back => "TCP, 4 streams, B to A",
            Self::Udp64 => "UDP, 64 bytes, A to B",
            Self::Udp1472 => "UDP, 1472 bytes, A to B",
            Self::Exchange => "request and response, 64 bytes, TCP",
        }
    }

    /// Whether B sends.
    fn is_back(self) -> bool {
        matches!(self, Self::Tcp1Back | Self::Tcp4Back)
    }

    /// What the sender is told, with so many queue pairs.
    fn of_agent(self, queues: u16) -> protocol::Load {
        let udp = |size| protocol::Load::Udp {
            size,
            flows: queues,
        };
        match self {
            Self::Tcp1 | Self::Tcp1Back => protocol::Load::Tcp { streams: 1 },
            Self::Tcp4 | Self::Tcp4Back => protocol::Load::Tcp { streams: 4 },
            Self::Udp64 => udp(64),
            Self::Udp1472 => udp(1472),
            Self::Exchange => protocol::Load::Exchange,
        }
    }
}
