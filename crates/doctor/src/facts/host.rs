//! The host.

use serde::{Deserialize, Serialize};

/// What the host has and how it is set.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Host {
    /// The kernel's release.
    pub kernel: Option<String>,
    /// CPUs that are there.
    pub cpus: Option<usize>,
    /// `/dev/kvm`.
    pub kvm: Device,
    /// Whether something boots with it: `None` = not tried; an error says what happened.
    pub kvm_boots: Option<Result<(), String>>,
    /// `/dev/net/tun`.
    pub tun: Device,
    /// `/dev/vhost-net`.
    pub vhost_net: Device,
}

/// A device node.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Device {
    /// It is there.
    pub present: bool,
    /// Its permission bits.
    pub mode: u32,
    /// Its user.
    pub owner: u32,
    /// Its group.
    pub group: u32,
    /// Why it does not open, as the system says it, though it is there.
    pub refused: Option<String>,
}
