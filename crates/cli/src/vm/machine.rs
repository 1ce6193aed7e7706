//! What a virtual machine is, as options say it.

use std::path::{self, Path, PathBuf};

use anyhow::Context;
use clap::Args;
use ringway_api::v1::Name;
use ringway_vmm::{
    Accel, Boot, Console, CpuList, Disk, Machine, NicRequest, Qemu, accel,
    disk::{self, Writes},
    qemu,
};

use crate::Failure;

/// Options that all forms of a machine have.
#[derive(Args)]
pub(crate) struct MachineArguments {
    /// The disk image to boot, qcow2 or raw
    #[arg(value_name = "IMAGE", required_unless_present = "kernel")]
    pub(super) image: Option<PathBuf>,
    /// A network card; may be given several times
    #[arg(long = "net", value_name = "NET", long_help = NET_HELP)]
    pub(super) nets: Vec<NicRequest>,
    /// Virtual CPUs
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=255))]
    pub(super) cpus: u16,
    /// Memory, with M or G
    #[arg(long, value_name = "SIZE", default_value = "1G", value_parser = mebibytes)]
    memory: u64,
    /// Its name [default: made from the image's]
    #[arg(long)]
    name: Option<Name>,
    /// Write into the image itself; else it stays as it is
    #[arg(long)]
    pub(super) persistent: bool,
    /// Boot this kernel, without firmware and boot loader
    #[arg(long, value_name = "FILE")]
    pub(super) kernel: Option<PathBuf>,
    /// Its initramfs
    #[arg(long, value_name = "FILE", requires = "kernel")]
    initrd: Option<PathBuf>,
    /// Its command line
    #[arg(long, value_name = "TEXT", requires = "kernel")]
    append: Option<String>,
    /// Take memory from the host's huge pages (of 2 MiB)
    #[arg(long)]
    pub(super) hugepages: bool,
    /// Take memory from this NUMA node of the host
    #[arg(long, value_name = "N")]
    numa_node: Option<u16>,
    /// CPUs of the host that the virtual ones run on, one each, such as 2-5
    #[arg(long, value_name = "CPUS")]
    pin: Option<CpuList>,
    /// The QEMU to use [default: $QEMU or qemu-system-x86_64]
    #[arg(long, value_name = "PROGRAM")]
    qemu: Option<PathBuf>,
    /// Further words for QEMU's command line
    #[arg(last = true, value_name = "QEMU ARGS")]
    more: Vec<String>,
}

const NET_HELP: &str = "\
A network card; may be given several times.

  NAME                   at a network of the daemon, which gets a port named after the machine
  socket=PATH            at a vhost-user socket of a switch; needs no daemon
  ,path=PATH             vhost-user, tap, vhost-net or macvtap [default: vhost-user for virtio, else tap]
  ,model=MODEL           virtio, e1000, e1000e or igb [default: virtio]
  ,queues=N              queue pairs, 1 to 128 [default: 1 at a socket, else one per CPU up to 8]
  ,mac=MAC               its address [default: made from the names, or from the socket's path]
  ,mtu=N                 what the guest is told as its MTU [default: the network's]";

/// A QEMU, and how it executes guests here.
pub(super) struct Runner {
    pub(super) qemu: Qemu,
    pub(super) accel: Accel,
}

impl Runner {
    /// Finds both out, and says it.
    pub(super) fn find(arguments: &MachineArguments) -> Result<Self, Failure> {
        let qemu = Qemu::find(arguments.qemu.as_deref())?;
        let choice = accel::choose(&qemu, arguments.kernel.as_deref());
        tracing::info!("QEMU {} runs it with {choice}", qemu.version);
        Ok(Self {
            qemu,
            accel: choice.accel,
        })
    }

    /// Refuses what this QEMU does wrong.
    pub(super) fn check(&self, machine: &Machine) -> Result<(), Failure> {
        Ok(qemu::check(&self.qemu, self.accel, machine)?)
    }
}

impl MachineArguments {
    /// The machine without its NICs.
    pub(super) fn machine(&self) -> Result<Machine, Failure> {
        if self.hugepages && !self.memory.is_multiple_of(2) {
            return Err(Failure::Usage(format!(
                "--memory {}M is no multiple of 2 MiB, the size of huge pages: take one more or one less",
                self.memory
            )));
        }
        let boot = match &self.kernel {
            None => None,
            Some(kernel) => Some(Boot {
                kernel: readable(kernel)?,
                initrd: self.initrd.as_deref().map(readable).transpose()?,
                append: self.append.clone(),
            }),
        };
        let disks = match &self.image {
            None => Vec::new(),
            Some(image) => vec![Disk {
                format: disk::format_of(image)?,
                path: absolute(image)?,
                writes: if self.persistent {
                    Writes::Kept
                } else {
                    Writes::Forgotten
                },
            }],
        };
        Ok(Machine {
            name: self.name()?.to_string(),
            cpus: self.cpus,
            memory: self.memory,
            hugepages: self.hugepages,
            numa_node: self.numa_node,
            pin: self.pin.clone(),
            boot,
            disks,
            nics: Vec::new(),
            console: Console::Terminal,
            monitor: None,
            paused: false,
            more: self.more.clone(),
        })
    }

    /// As given, or what can be a name of that of the image.
    pub(super) fn name(&self) -> Result<Name, Failure> {
        if let Some(name) = &self.name {
            return Ok(name.clone());
        }
        let file = self.image.as_ref().or(self.kernel.as_ref());
        let stem = file.and_then(|file| file.file_stem()).unwrap_or_default();
        let stem = stem.to_string_lossy();
        name_of(&stem).ok_or_else(|| {
            Failure::Usage(format!(
                "no name can be made of {stem:?}: give one with --name"
            ))
        })
    }
}

fn name_of(stem: &str) -> Option<Name> {
    let plain = |c: char| {
        if c.is_ascii_alphanumeric() {
            c.to_ascii_lowercase()
        } else {
            '-'
        }
    };
    let text: String = stem.chars().map(plain).take(63).collect();
    text.trim_matches('-').parse().ok()
}

/// The path from the root: whoever reads it may be elsewhere.
pub(super) fn absolute(path: &Path) -> Result<PathBuf, Failure> {
    Ok(path::absolute(path).with_context(|| format!("the path {}", path.display()))?)
}

fn readable(path: &Path) -> Result<PathBuf, Failure> {
    std::fs::File::open(path).with_context(|| format!("{} cannot be read", path.display()))?;
    absolute(path)
}

/// Mebibytes, of a size with M or G; a number alone is in MiB, as with QEMU.
pub(super) fn mebibytes(text: &str) -> Result<u64, String> {
    let (digits, unit) = match text.strip_suffix(['G', 'g']) {
        Some(digits) => (digits, 1024),
        None => (text.strip_suffix(['M', 'm']).unwrap_or(text), 1),
    };
    let number: Option<u64> = digits
        .bytes()
        .all(|byte| byte.is_ascii_digit())
        .then(|| digits.parse().ok())
        .flatten();
    number
        .and_then(|number| number.checked_mul(unit))
        .filter(|&size| (1..=1 << 24).contains(&size))
        .ok_or_else(|| "give a size in MiB, or with M or G, such as 512M or 2G".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_in_mebibytes_unless_they_say_otherwise() {
        for (text, size) in [("512", 512), ("512M", 512), ("2G", 2048), ("2g", 2048)] {
            assert_eq!(mebibytes(text), Ok(size));
        }
        for text in ["", "0", "G", "1T", "-1", "1.5G", "99999999999999999999"] {
            assert!(mebibytes(text).unwrap_err().contains("512M"), "{text}");
        }
    }

    #[test]
    fn a_name_is_made_of_the_files() {
        for (stem, name) in [
            ("Debian_12", "debian-12"),
            ("-web.v1-", "web-v1"),
            (&"a".repeat(80), &"a".repeat(63)),
        ] {
            assert_eq!(name_of(stem), Some(name.parse().unwrap()));
        }
        assert_eq!(name_of("---"), None);
    }
}
