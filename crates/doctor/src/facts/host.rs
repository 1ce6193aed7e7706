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
    /// `/dev/vfio/vfio`.
    pub vfio: Device,
    /// Devices are in IOMMU groups.
    pub iommu: Option<bool>,
    /// What the processor has to execute guests: `vmx`, `svm`, or nothing.
    pub virtualization: Option<String>,
    /// Huge pages, by size and NUMA node.
    pub huge_pages: Vec<HugePages>,
    /// The usual size of huge pages in KiB.
    pub huge_page_size: Option<u64>,
    /// The version of nft; an empty one = there is none.
    pub nft: Option<String>,
    /// What else restricts programs and is at work: `SELinux`, `AppArmor`.
    pub guards: Vec<String>,
    /// What they denied of late to machines that they confine: lines of the kernel's log or of auditd's.
    pub denials: Vec<String>,
}

/// Huge pages of a NUMA node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HugePages {
    /// The node.
    pub node: u32,
    /// Size of one in KiB.
    pub size: u64,
    /// How many there are.
    pub total: u64,
    /// How many nobody has.
    pub free: u64,
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
