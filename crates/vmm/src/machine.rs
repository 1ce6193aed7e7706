//! What a virtual machine is, whoever runs it.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::{CpuList, Disk, Nic};

/// A virtual machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// Its name, a label of DNS.
    pub name: String,
    /// Virtual CPUs, at least 1.
    pub cpus: u16,
    /// Memory in MiB.
    pub memory: u64,
    /// Memory from the host's huge pages instead of ordinary ones.
    pub hugepages: bool,
    /// The host's NUMA node that memory comes from.
    pub numa_node: Option<u16>,
    /// The host's CPUs that virtual ones run on: one each, in order, from the beginning again when there are fewer.
    pub pin: Option<CpuList>,
    /// Booted directly, without firmware and boot loader.
    pub boot: Option<Boot>,
    /// Disks: the first one is booted from.
    pub disks: Vec<Disk>,
    /// NICs.
    pub nics: Vec<Nic>,
    /// Where the serial console goes.
    pub console: Console,
    /// Socket of QEMU's monitor (QMP).
    pub monitor: Option<PathBuf>,
    /// Starts only when the monitor is told `cont`, so that whoever looks at the console sees all of it.
    pub paused: bool,
    /// Further words for QEMU's command line.
    pub more: Vec<String>,
}

/// A kernel that is booted directly.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Boot {
    /// The kernel.
    pub kernel: PathBuf,
    /// Its initramfs.
    pub initrd: Option<PathBuf>,
    /// Its command line.
    pub append: Option<String>,
}

/// Where the serial console goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Console {
    /// To the terminal that QEMU is started in, with its monitor behind Ctrl-A C.
    Terminal,
    /// To whoever connects to a socket.
    Socket {
        /// Where it listens.
        path: PathBuf,
    },
}

/// One of everything, for the tests of the forms.
#[cfg(test)]
pub(crate) fn example() -> Machine {
    use crate::{Backend, Format, Model, disk::Writes};
    use ringway_api::port_spec::Mac;

    Machine {
        name: "web".into(),
        cpus: 8,
        memory: 1024,
        hugepages: false,
        numa_node: None,
        pin: None,
        boot: None,
        disks: vec![Disk {
            path: "/srv/web.qcow2".into(),
            format: Format::Qcow2,
            writes: Writes::Forgotten,
        }],
        nics: vec![Nic {
            backend: Backend::VhostUser {
                socket: "/run/web.sock".into(),
            },
            model: Model::Virtio,
            queues: 8,
            mac: Mac([2, 0, 0, 0, 0, 1]),
            mtu: Some(9000),
        }],
        console: Console::Terminal,
        monitor: None,
        paused: false,
        more: Vec::new(),
    }
}
