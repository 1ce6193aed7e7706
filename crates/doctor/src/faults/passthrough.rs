//! Host devices that guests get whole (VFIO).

use super::{Chapter, Fault, Sign};
use crate::{
    Facts,
    command::quoted,
    facts::{Machine, Passed},
};

pub(super) const CHAPTER: Chapter = Chapter {
    title: "Passthrough",
    faults: &[IOMMU, UNBOUND, GROUP],
};

const IOMMU: Fault = Fault {
    name: "iommu-off",
    seen: &["vfio 0000:01:00.0: no iommu_group found: No such file or directory"],
    cause: "Without an IOMMU at work nothing would keep the device within its guest's memory.",
    why: "QEMU cannot take the device and does not start",
    cure: &[
        "# add intel_iommu=on to the kernel's command line, switch on VT-d or AMD-Vi in the firmware, and boot again",
    ],
    judge: |facts| {
        let off = facts.host.iommu == Some(false);
        let signs =
            passed(facts).filter(|(_, device)| off && device.present && device.group.is_none());
        let signs = signs.map(|(machine, device)| {
            let cure = "# add intel_iommu=on (Intel) or amd_iommu=on (AMD) to the kernel's command line, switch on VT-d or AMD-Vi in \
                the firmware, and boot again";
            sign(machine, device, format!("{} is in no IOMMU group: the host has no IOMMU at work", device.address), vec![cure.into()])
        });
        signs.collect()
    },
};

const UNBOUND: Fault = Fault {
    name: "vfio-unbound",
    seen: &[
        "vfio 0000:01:00.0: failed to open /dev/vfio/7: No such file or directory",
        "vfio 0000:01:00.0: Could not open '/dev/vfio/7': No such file or directory",
    ],
    cause: "The device is not there, or a driver of the host has it: it has to be bound to vfio-pci.",
    why: "QEMU cannot take the device and does not start",
    cure: &[
        "modprobe vfio-pci",
        "echo vfio-pci > /sys/bus/pci/devices/ADDRESS/driver_override",
        "echo ADDRESS > /sys/bus/pci/devices/ADDRESS/driver/unbind",
        "echo ADDRESS > /sys/bus/pci/drivers_probe",
    ],
    judge: |facts| {
        let signs = passed(facts).filter_map(|(machine, device)| {
            let address = &device.address;
            if !device.present {
                let cure = "# see which there are: lspci -D".into();
                return Some(sign(
                    machine,
                    device,
                    format!("there is no PCI device {address}"),
                    vec![cure],
                ));
            }
            let driver = device.driver.as_deref();
            if device.group.is_none() || driver == Some("vfio-pci") {
                return None;
            }
            let has = driver.unwrap_or("no driver");
            let what = format!("{has} has {address}, and vfio-pci has to have it");
            Some(sign(machine, device, what, bind(facts, &[device])))
        });
        signs.collect()
    },
};

const GROUP: Fault = Fault {
    name: "vfio-group",
    seen: &["vfio 0000:01:00.0: group 7 is not viable"],
    cause: "The IOMMU cannot keep apart the devices of one group; so all of them have to be bound to vfio-pci, or to no driver.",
    why: "QEMU cannot take the device and does not start",
    cure: &[
        "echo vfio-pci > /sys/bus/pci/devices/OTHER/driver_override",
        "echo OTHER > /sys/bus/pci/devices/OTHER/driver/unbind",
        "echo OTHER > /sys/bus/pci/drivers_probe",
    ],
    judge: |facts| {
        let signs = passed(facts).filter_map(|(machine, device)| {
            // drivers/vfio/vfio_main.c, vfio_dev_driver_allowed; bridges go along.
            let spoils = |other: &&Passed| {
                let driver = other.driver.as_deref();
                !other.bridge && !matches!(driver, None | Some("vfio-pci" | "pci-stub"))
            };
            let spoilers: Vec<&Passed> = device.others.iter().filter(spoils).collect();
            if spoilers.is_empty() {
                return None;
            }
            let each: Vec<String> = spoilers
                .iter()
                .map(|it| {
                    format!(
                        "{} ({})",
                        it.address,
                        it.driver.as_deref().unwrap_or_default()
                    )
                })
                .collect();
            let what = format!(
                "{} shares IOMMU group {} with {}, which the host uses",
                device.address,
                device.group.unwrap_or_default(),
                each.join(", ")
            );
            Some(sign(machine, device, what, bind(facts, &spoilers)))
        });
        signs.collect()
    },
};

fn passed(facts: &Facts) -> impl Iterator<Item = (&Machine, &Passed)> {
    let machines = facts.machines.iter();
    machines.flat_map(|machine| machine.passthrough.iter().map(move |it| (machine, it)))
}

fn sign(machine: &Machine, device: &Passed, what: String, cure: Vec<String>) -> Sign {
    Sign {
        machine: Some(machine.name.clone()),
        subject: format!("PCI device {}", device.address),
        what,
        cure,
    }
}

/// Commands that give devices to vfio-pci.
fn bind(facts: &Facts, devices: &[&Passed]) -> Vec<String> {
    let mut cure = Vec::new();
    if !facts.host.vfio.present {
        cure.push("modprobe vfio-pci".to_owned());
    }
    for device in devices {
        let address = &device.address;
        let file = |name: &str| quoted(&format!("/sys/bus/pci/devices/{address}/{name}"));
        let address = quoted(address);
        cure.push(format!("echo vfio-pci > {}", file("driver_override")));
        if device.driver.is_some() {
            cure.push(format!("echo {address} > {}", file("driver/unbind")));
        }
        cure.push(format!("echo {address} > /sys/bus/pci/drivers_probe"));
    }
    cure
}
