//! QEMU itself.

use super::{
    Chapter, Fault,
    user::{restart, version, vhost_user},
};
use crate::facts::Host;

pub(super) const CHAPTER: Chapter = Chapter {
    title: "QEMU",
    faults: &[CRASH],
};

const CRASH: Fault = Fault {
    name: "qemu-crashes",
    seen: &["Segmentation fault, when the guest's driver starts"],
    cause: "QEMU 7.2 ends so with vhost-user and MSI-X where it emulates the processor (TCG). With KVM it does not.",
    why: "the machine ends while it boots",
    cure: &[
        "apt-get install -t bookworm-backports qemu-system-x86",
        "qemu-system-x86_64 ... -device virtio-net-pci,...,vectors=0 # slower, where 7.2 has to be",
    ],
    judge: |facts| {
        vhost_user(facts)
            .filter_map(|card| {
                let device = card.nic.device.as_ref()?;
                let version = version(card.machine)?;
                let harmless = device.get("vectors") == Some("0");
                if version >= (8, 0) || harmless || !emulated(&card.command.accelerators(), &facts.host) {
                    return None;
                }
                let mut edit = card.edit();
                card.set_device(&mut edit, "vectors", Some("0"));
                card.set_device(&mut edit, "mq", None);
                card.set_netdev(&mut edit, "queues", None);
                let mut cure = vec![
                    "# better: a QEMU of 8.0 or newer, on Debian 12 by `apt-get install -t bookworm-backports qemu-system-x86`; else".into(),
                ];
                cure.extend(restart(
                    card.machine,
                    &edit,
                    "an <emulator> of 8.0 or newer",
                    "--qemu of 8.0 or newer",
                ));
                Some(card.sign(
                    format!(
                        "QEMU {}.{} without KVM crashes when the guest starts {}",
                        version.0, version.1, card.nic.id
                    ),
                    cure,
                ))
            })
            .collect()
    },
};

/// Whether the first accelerator that works emulates.
fn emulated(accelerators: &[String], host: &Host) -> bool {
    let usable = |name: &&String| match name.as_str() {
        "kvm" => host.kvm.present && host.kvm.refused.is_none(),
        _ => true,
    };
    accelerators
        .iter()
        .find(usable)
        .is_some_and(|name| name == "tcg")
}
