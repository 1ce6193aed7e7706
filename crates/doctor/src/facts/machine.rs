//! A virtual machine, whoever started it.

use std::{collections::BTreeMap, path::PathBuf};

use serde::{Deserialize, Serialize};

use super::VirtioNic;

/// One virtual machine, or a command that is to start one.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Machine {
    /// Its name, or the number of its process.
    pub name: String,
    /// Who started it.
    pub origin: Origin,
    /// Its process; `None` = it does not run.
    pub pid: Option<i32>,
    /// The user that runs it.
    pub user: u32,
    /// The groups of that user.
    pub groups: Vec<u32>,
    /// That user may do what `CAP_NET_ADMIN` allows.
    pub net_admin: bool,
    /// The words of its command line, the program first.
    pub command: Vec<String>,
    /// QEMU's version, as `10.0.2`.
    pub version: Option<String>,
    /// Open files.
    pub descriptors: Vec<Descriptor>,
    /// How many files it may have open.
    pub descriptor_limit: Option<u64>,
    /// To how many it may raise that itself.
    pub descriptor_limit_hard: Option<u64>,
    /// Its threads.
    pub threads: Vec<Thread>,
    /// Sockets of the file system that its command names.
    pub sockets: Vec<Socket>,
    /// The network namespace it lives in: [`super::Network::id`].
    pub namespace: Option<u64>,
    /// Host devices that its command line passes through.
    pub passthrough: Vec<Passed>,
    /// Size in KiB of the pages of directories that its memory comes from (`mem-path`), where these are huge.
    pub huge_paths: BTreeMap<PathBuf, u64>,
    /// What AppArmor or SELinux takes it for: a profile and how it is used, or a label.
    pub confined: Option<String>,
    /// For how many seconds it has run.
    pub age: Option<u64>,
    /// What its monitor says it does: `running`, `paused`, `prelaunch`.
    pub state: Option<String>,
    /// Its virtio NICs, as its monitor describes them.
    pub virtio: Vec<VirtioNic>,
    /// Why its monitor was not asked about them.
    pub unasked: Option<String>,
    /// What it, or whoever started it, wrote: the last lines.
    pub messages: Vec<String>,
}

impl Machine {
    /// AppArmor or SELinux keeps it from what libvirt did not foresee.
    pub fn is_confined(&self) -> bool {
        let label = self.confined.as_deref().unwrap_or_default();
        label.ends_with(" (enforce)")
            || label.contains(":svirt_t:")
            || label.contains(":svirt_tcg_t:")
    }
}

/// Who started a machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Origin {
    /// `ringway vm run`.
    Ringway,
    /// libvirt.
    Libvirt,
    /// A person or a script.
    #[default]
    Hand,
    /// Nobody yet: a command line that was given.
    Command,
}

/// An open file.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Descriptor {
    /// Its number.
    pub number: i32,
    /// What the link in /proc says.
    pub target: String,
    /// The tap whose queue it is.
    pub tap: Option<String>,
}

/// A thread.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Thread {
    /// Its number.
    pub id: i32,
    /// Its name.
    pub name: String,
}

/// A PCI device.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Passed {
    /// Its address, as `0000:01:00.0`.
    pub address: String,
    /// It is there.
    pub present: bool,
    /// Its class, subclass and interface, three bytes, as in sysfs.
    pub class: Option<u32>,
    /// Its driver.
    pub driver: Option<String>,
    /// It is a bridge between buses, which goes with its group by itself.
    pub bridge: bool,
    /// Its IOMMU group.
    pub group: Option<u32>,
    /// Others in this group.
    pub others: Vec<Passed>,
}

/// A socket that a command line names.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Socket {
    /// Where, as the command line has it.
    pub path: PathBuf,
    /// The same from the root, without links to its folder.
    pub resolved: PathBuf,
    /// There is a socket; `Some(false)` = there is something else; `None` = nothing.
    pub is_socket: Option<bool>,
    /// Its permission bits.
    pub mode: u32,
    /// Its user.
    pub owner: u32,
    /// Its group.
    pub group: u32,
    /// Folders on the way to it that not everybody may pass.
    pub folders: Vec<Folder>,
    /// A program has it: it can be connected to.
    pub alive: Option<bool>,
    /// The processes that listen, if that could be seen.
    pub listeners: Vec<i32>,
    /// Somebody is connected.
    pub connected: Option<bool>,
}

/// A folder.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Folder {
    /// Where.
    pub path: PathBuf,
    /// Its permission bits.
    pub mode: u32,
    /// Its user.
    pub owner: u32,
    /// Its group.
    pub group: u32,
}
