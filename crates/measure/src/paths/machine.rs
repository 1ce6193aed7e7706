//! The machine that is measured, and which paths it lacks.

use std::{fs, path::Path};

use ringway_vmm::{Accel, Qemu};
use serde::{Deserialize, Serialize};

use super::Kind;

/// What figures depend on.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    /// The processor's own name.
    pub model: String,
    /// How many of them this process may use.
    pub processors: usize,
    /// Gibibytes of memory.
    pub memory: u64,
    /// The host's kernel.
    pub kernel: String,
    /// Whether this is a virtual machine itself.
    pub is_virtual: bool,
    /// QEMU's version.
    pub qemu: String,
    /// How guests are executed, and why.
    pub accel: String,
    /// The guests' kernel.
    pub guest_kernel: String,
    /// Ringway's version.
    pub ringway: String,
}

impl Machine {
    /// This one.
    pub fn here(qemu: &Qemu, accel: String, processors: usize) -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let info = read("/proc/cpuinfo");
        let model = info.lines().find_map(|line| {
            let value = line.strip_prefix("model name")?.split_once(':')?.1;
            Some(value.trim().to_owned())
        });
        let memory = read("/proc/meminfo");
        let kibibytes = memory.lines().find_map(|line| {
            let value = line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB")?;
            value.parse::<u64>().ok()
        });
        Self {
            model: model.unwrap_or_else(|| "unknown processor".into()),
            processors,
            memory: (kibibytes.unwrap_or(0) + (1 << 19)) >> 20,
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            is_virtual: info
                .lines()
                .any(|line| line.starts_with("flags") && line.contains(" hypervisor")),
            qemu: qemu.version.to_string(),
            accel,
            guest_kernel: String::new(),
            ringway: env!("CARGO_PKG_VERSION").into(),
        }
    }
}

/// A path that is not measured.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Missing {
    /// The path.
    pub path: Kind,
    /// Why.
    pub reason: String,
}

/// What decides which paths there are; `Err` holds the reason.
#[derive(Debug, Clone)]
pub(super) struct Means {
    pub(super) accel: Accel,
    /// Whether QEMU is older than 8.
    pub(super) old_qemu: Option<String>,
    /// Taps and bridges in a namespace of our own.
    pub(super) taps: Result<(), String>,
    /// Macvtaps there, and their devices in /dev.
    pub(super) macvtap: Result<(), String>,
    /// /dev/vhost-net.
    pub(super) vhost_net: Result<(), String>,
    /// Groups of devices that an IOMMU keeps apart.
    pub(super) iommu_groups: usize,
}

impl Means {
    /// Why this path cannot be measured.
    pub(super) fn lacks(&self, kind: Kind) -> Option<String> {
        let taps = || self.taps.clone().err();
        match kind {
            Kind::VhostUser => {
                let version = self.old_qemu.as_ref().filter(|_| self.accel == Accel::Tcg)?;
                Some(format!(
                    "QEMU {version} crashes with vhost-user where there is no KVM: version 8 or newer is needed (--qemu)"
                ))
            }
            Kind::VhostNet => taps().or_else(|| self.vhost_net.clone().err()),
            Kind::Macvtap => taps().or_else(|| self.macvtap.clone().err()),
            Kind::Tap | Kind::E1000 | Kind::E1000e => taps(),
            Kind::Igb => taps().or_else(|| {
                let version = self.old_qemu.as_ref()?;
                Some(format!("QEMU {version} has no igb: it came with 8.0"))
            }),
            Kind::Vfio if self.iommu_groups == 0 => Some(
                "there is no IOMMU (nothing in /sys/kernel/iommu_groups), so no device can be given to a guest".into(),
            ),
            Kind::Vfio => Some(
                "no device is taken from the host for a measurement: bind two ports or virtual functions to vfio-pci and compare by hand"
                    .into(),
            ),
            Kind::User => Some(
                "it leads from a guest to the host and outside, not to another guest: every guest is alone behind QEMU's own address translation"
                    .into(),
            ),
            Kind::Passt => Some(
                "it leads from a guest to the host and outside, not to another guest, except by ports of the host's own addresses".into(),
            ),
        }
    }
}

/// As the kernel shows them.
pub(super) fn iommu_groups() -> usize {
    fs::read_dir(Path::new("/sys/kernel/iommu_groups")).map_or(0, Iterator::count)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn means() -> Means {
        Means {
            accel: Accel::Kvm,
            old_qemu: None,
            taps: Ok(()),
            macvtap: Ok(()),
            vhost_net: Ok(()),
            iommu_groups: 0,
        }
    }

    const NEVER: [Kind; 3] = [Kind::Vfio, Kind::User, Kind::Passt];

    fn missing(means: &Means) -> Vec<Kind> {
        let lacks = |kind: &Kind| means.lacks(*kind).is_some();
        Kind::ALL.into_iter().filter(lacks).collect()
    }

    #[test]
    fn a_machine_with_everything_lacks_passthrough_and_what_never_joins_guests() {
        assert_eq!(missing(&means()), NEVER);
        let groups = Means {
            iommu_groups: 9,
            ..means()
        };
        assert!(groups.lacks(Kind::Vfio).unwrap().contains("by hand"));
    }

    #[test]
    fn what_is_missing_takes_along_what_stands_on_it() {
        let no_taps = Means {
            taps: Err("no namespaces".into()),
            ..means()
        };
        assert_eq!(missing(&no_taps).len(), Kind::ALL.len() - 1);
        assert_eq!(no_taps.lacks(Kind::VhostNet).unwrap(), "no namespaces");
        let no_vhost = Means {
            vhost_net: Err("no module".into()),
            ..means()
        };
        assert_eq!(
            missing(&no_vhost)[..],
            [&[Kind::VhostNet], &NEVER[..]].concat()
        );
        let no_macvtap = Means {
            macvtap: Err("no devices".into()),
            ..means()
        };
        assert_eq!(
            missing(&no_macvtap)[..],
            [&[Kind::Macvtap], &NEVER[..]].concat()
        );
        let old = Means {
            accel: Accel::Tcg,
            old_qemu: Some("7.2".into()),
            ..means()
        };
        let wanted = [&[Kind::VhostUser, Kind::Igb], &NEVER[..]].concat();
        assert_eq!(missing(&old), wanted);
    }
}
