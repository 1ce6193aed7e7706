//! What a port is asked to be: the text `KIND[,key=value]...` of `--port`, parsed strictly and printed back canonically.
//!
//! A comma inside a value is written twice (`path=/run/a,,b.sock`), as QEMU has it. Over the control protocol a specification
//! travels as the same text, so there is one parser and one set of rules.

mod error;
mod limit;
mod parse;
mod print;
#[cfg(test)]
mod tests;
mod value;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use error::SpecError;
pub use limit::{MAX_MACS, Storm};
pub use value::{InterfaceName, Mac, Rate, VlanSet};

/// Most queue pairs of one port: vhost-user numbers rings in 8 bits, two per pair.
pub const MAX_QUEUES: u16 = 128;
/// Longest path of a unix socket in bytes: `sockaddr_un` holds 108 with the closing NUL.
pub const MAX_SOCKET_PATH: usize = 107;
/// Longest port name in bytes.
pub const MAX_NAME: usize = 64;

/// A port as asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PortSpec {
    /// What the port is connected to.
    pub kind: PortKind,
    /// The name given; see [`PortSpec::default_name`] for ports without one.
    pub name: Option<String>,
    /// Access VLAN, 1..=4094: frames are untagged at the port. Excludes `trunk`.
    pub vlan: Option<u16>,
    /// Tagged VLANs that may cross the port. Excludes `vlan`.
    pub trunk: Option<VlanSet>,
    /// No frames to or from other isolated ports.
    pub isolated: bool,
    /// The only source address accepted from the port.
    pub mac: Option<Mac>,
    /// Limit in each direction.
    pub rate: Option<Rate>,
    /// Bytes that may pass at once where the port was below its rate; needs `rate`.
    pub burst: Option<u64>,
    /// Flooded frames from the port; see [`PortSpec::storm_limit`] for ports without the key.
    pub storm: Option<Storm>,
    /// Addresses learned behind the port, 1..=131072; that many if absent.
    pub macs: Option<u32>,
    /// Which offloads are offered to the peer.
    pub offload: Offload,
}

/// What a port is connected to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PortKind {
    /// A virtual machine's NIC over a vhost-user socket.
    VhostUser(VhostUser),
    /// A tap of the host that exists already.
    Tap {
        /// Its interface name.
        name: InterfaceName,
        /// Queue pairs, 1..=128.
        queues: u16,
        /// Whether the kernel's vhost-net moves its frames.
        vhost: VhostNet,
    },
    /// A capture file that gets every frame.
    Pcap {
        /// The file.
        path: PathBuf,
    },
    /// An interface of the host through a packet socket.
    AfPacket {
        /// Its interface name.
        interface: InterfaceName,
    },
    /// Takes every frame and forgets it.
    Sink,
    /// Sends frames of one form.
    Generator(Generator),
}

/// A vhost-user socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VhostUser {
    /// The socket, at most 107 bytes.
    pub path: PathBuf,
    /// Who listens.
    pub mode: Mode,
    /// Queue pairs, 1..=128.
    pub queues: u16,
    /// Group (name or number) that may connect; server mode only.
    pub group: Option<String>,
    /// Mode bits of the socket, at most 0o777; server mode only.
    pub permissions: u32,
}

impl VhostUser {
    /// Mode bits of a socket when none were given.
    pub const PERMISSIONS: u32 = 0o660;
}

/// Whether the kernel's vhost-net moves frames between a tap and the switch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum VhostNet {
    /// Where the host has it.
    #[default]
    Auto,
    /// Yes, or the port cannot be.
    On,
    /// No: the switch reads and writes the tap.
    Off,
}

/// Who listens on a vhost-user socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// The switch listens, the virtual machine connects.
    #[default]
    Server,
    /// The virtual machine listens, the switch connects and connects again.
    Client,
}

/// A source of equal frames, for tests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Generator {
    /// Destination address.
    pub destination: Mac,
    /// Source address.
    pub source: Mac,
    /// Frame length in bytes without FCS, 14..=65535.
    pub size: u16,
    /// Frames per second, as fast as possible if absent.
    pub frames_per_second: Option<u64>,
    /// Frames in all, without end if absent.
    pub count: Option<u64>,
}

impl Default for Generator {
    fn default() -> Self {
        Self {
            destination: Mac([0xff; 6]),
            source: Mac([0x02, 0x52, 0x57, 0, 0, 1]),
            size: 60,
            frames_per_second: None,
            count: None,
        }
    }
}

/// Which offloads a port offers to its peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Offload {
    /// None: every frame is complete and at most MTU-sized.
    Off,
    /// Partial checksums only.
    Csum,
    /// Partial checksums and segmentation.
    #[default]
    All,
}

impl PortSpec {
    /// A port of this kind with every other setting at its default.
    pub fn new(kind: PortKind) -> Self {
        Self {
            kind,
            name: None,
            vlan: None,
            trunk: None,
            isolated: false,
            mac: None,
            rate: None,
            burst: None,
            storm: None,
            macs: None,
            offload: Offload::All,
        }
    }

    /// Flooded frames per second that are taken from the port, `None` = any number. Virtual machines are trusted with
    /// 10,000 unless said otherwise, what belongs to the host with any.
    pub fn storm_limit(&self) -> Option<u64> {
        match (self.storm, &self.kind) {
            (Some(Storm::FramesPerSecond(frames)), _) => Some(frames),
            (None, PortKind::VhostUser(_)) => Some(10_000),
            (Some(Storm::Off), _) | (None, _) => None,
        }
    }

    /// The name given, or one made from the kind: a socket's or file's name without its ending, an interface's name, `sink`
    /// or `generator`. Not necessarily unique; the switch appends `-2`, `-3`... to one that is taken.
    pub fn default_name(&self) -> String {
        if let Some(name) = &self.name {
            return name.clone();
        }
        let from_path = |path: &PathBuf| {
            let stem = path
                .file_stem()
                .map(|stem| stem.to_string_lossy().into_owned());
            stem.filter(|stem| value::check_name(stem).is_ok())
                .unwrap_or_else(|| self.kind.label().to_owned())
        };
        match &self.kind {
            PortKind::VhostUser(port) => from_path(&port.path),
            PortKind::Pcap { path } => from_path(path),
            PortKind::Tap { name, .. } => name.to_string(),
            PortKind::AfPacket { interface } => interface.to_string(),
            PortKind::Sink | PortKind::Generator(_) => self.kind.label().to_owned(),
        }
    }
}

impl PortKind {
    /// The kind as written on the command line and in statistics.
    pub fn label(&self) -> &'static str {
        match self {
            Self::VhostUser(_) => "vhost-user",
            Self::Tap { .. } => "tap",
            Self::Pcap { .. } => "pcap",
            Self::AfPacket { .. } => "af-packet",
            Self::Sink => "sink",
            Self::Generator(_) => "generator",
        }
    }

    /// Queue pairs asked for; 1 for kinds without the key.
    pub fn queues(&self) -> u16 {
        match self {
            Self::VhostUser(port) => port.queues,
            Self::Tap { queues, .. } => *queues,
            _ => 1,
        }
    }
}
