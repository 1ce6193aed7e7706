//! Devices of the host that a machine has to itself.

use ringway_doctor::facts::Passed;

use super::{
    super::path::{Arrow, Kind, Path, Stage},
    machine::Vm,
};

/// The first byte of a PCI class: network controllers.
const NETWORK: u32 = 0x02;

/// The way through the device; `None` where it is known to be no NIC.
pub(super) fn path(vm: Vm<'_>, device: &Passed) -> Option<Path> {
    if device.class.is_some_and(|class| class >> 16 != NETWORK) {
        return None;
    }
    let address = &device.address;
    let stage = Stage::new(Kind::Device, format!("vfio-pci {address}"));
    let driver = device.driver.as_ref().map(|it| format!("driver {it}"));
    let group = device.group.map(|it| format!("IOMMU group {it}"));
    let held: Vec<String> = driver.into_iter().chain(group).collect();
    let stage = match device.present {
        true => stage.details((!held.is_empty()).then(|| held.join(", "))),
        false => stage.detail("the host has no such device").broken(),
    };
    let wire = Stage::new(Kind::Uplink, "the card's own wire")
        .detail("neither the host nor the switch carries or counts its frames");
    let pid = vm.machine.pid;
    Some(Path {
        name: vm.name().to_owned(),
        about: match pid {
            Some(pid) => format!("process {pid}, passed through {address}"),
            None => format!("passed through {address}"),
        },
        pid,
        stages: vec![vm.guest(), stage, wire],
        arrows: vec![Arrow::default(), Arrow::default()],
    })
}
