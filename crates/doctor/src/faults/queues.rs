//! Several queues: what they need on all sides.

use super::{
    Chapter, Fault,
    scene::named_taps,
    user::{Card, cards, restart, version},
};
use crate::{command::Edit, facts::Machine};
use ringway_host::survey::Kind;

pub(super) const CHAPTER: Chapter = Chapter {
    title: "Several queues",
    faults: &[NOT_VIRTIO, MQ_OFF, ONE, BEYOND, VECTORS],
};

const WHY: &str = "all traffic of the guest goes through one queue and one CPU";

const NOT_VIRTIO: Fault = Fault {
    name: "queues-need-virtio",
    seen: &["In the guest `ethtool -l eth0`: Operation not supported"],
    cause: "Only virtio NICs have the queues that `queues=` asks for.",
    why: WHY,
    cure: &["qemu-system-x86_64 ... -device virtio-net-pci,netdev=ID,mq=on,vectors=2N+2"],
    judge: |facts| {
        cards(facts)
            .filter(|card| several(card) && !card.nic.model().is_empty() && !card.nic.is_virtio())
            .map(|card| {
                let model = card.nic.model().to_owned();
                let mut edit = card.edit();
                swap_model(&card, &mut edit);
                set(&card, &mut edit, card.nic.queues());
                card.sign(
                    format!(
                        "{} has {} queue pairs, and its {model} takes one",
                        card.nic.id,
                        card.nic.queues()
                    ),
                    restart(
                        card.machine,
                        &edit,
                        &format!(
                            "<model type='virtio'/><driver queues='{}'/>",
                            card.nic.queues()
                        ),
                        "model=virtio in --net",
                    ),
                )
            })
            .collect()
    },
};

const MQ_OFF: Fault = Fault {
    name: "queues-mq-off",
    seen: &["In the guest `ethtool -l eth0` has a maximum of 1 for Combined"],
    cause: "The back-end has several queue pairs (`queues=`), and the device does not show them without `mq=on`.",
    why: WHY,
    cure: &["qemu-system-x86_64 ... -device virtio-net-pci,netdev=ID,mq=on,vectors=2N+2"],
    judge: |facts| {
        cards(facts)
            .filter(|card| several(card) && card.nic.is_virtio() && !mq(card))
            .map(|card| {
                let mut edit = card.edit();
                set(&card, &mut edit, card.nic.queues());
                card.sign(
                    format!(
                        "{} has {} queue pairs, and its device does not say mq=on",
                        card.nic.id,
                        card.nic.queues()
                    ),
                    restart(
                        card.machine,
                        &edit,
                        &format!("<driver queues='{}'/>", card.nic.queues()),
                        "queues=N in --net",
                    ),
                )
            })
            .collect()
    },
};

const ONE: Fault = Fault {
    name: "queues-missing",
    seen: &["In the guest `ethtool -l eth0` has a maximum of 1 for Combined, in spite of mq=on"],
    cause: "`mq=on` shows the queues that the back-end has, and without `queues=` (or several `fds=`) that is one.",
    why: WHY,
    cure: &[
        "qemu-system-x86_64 ... -netdev ...,queues=N -device virtio-net-pci,...,mq=on,vectors=2N+2",
    ],
    judge: |facts| {
        cards(facts)
            .filter_map(|card| {
                let cpus = card.command.cpus();
                let most = card.port.map_or(cpus, |port| port.queues.min(cpus));
                if !card.nic.is_virtio() || !mq(&card) || card.nic.queues() > 1 || most < 2 {
                    return None;
                }
                let mut edit = card.edit();
                set(&card, &mut edit, most);
                let mut cure = Vec::new();
                // A tap with one queue has to be made again.
                let mut taps = named_taps(facts);
                let tap = taps
                    .find(|it| it.nic.id == card.nic.id && it.machine.name == card.machine.name);
                if let Some(tap) = tap
                    && let Some(Kind::Tap(made)) = tap.link().map(|link| &link.kind)
                    && !made.multi_queue
                {
                    cure.extend(tap.network.inside(super::tap::remake(&tap, true)));
                }
                cure.extend(restart(
                    card.machine,
                    &edit,
                    &format!("<driver queues='{most}'/>"),
                    &format!("queues={most} in --net"),
                ));
                Some(card.sign(
                    format!("{} says mq=on and has a single queue pair", card.nic.id),
                    cure,
                ))
            })
            .collect()
    },
};

const BEYOND: Fault = Fault {
    name: "queues-beyond-cpus",
    seen: &["In the guest `ethtool -l eth0` shows fewer queues in use than there are"],
    cause: "A guest takes one queue pair per CPU into use; more only by `ethtool -L`, and to no avail.",
    why: "the queues beyond it cost memory and interrupts, and carry nothing",
    cure: &[
        "qemu-system-x86_64 ... -smp N -netdev ...,queues=N -device virtio-net-pci,...,mq=on,vectors=2N+2",
    ],
    judge: |facts| {
        cards(facts)
            .filter_map(|card| {
                let cpus = most_cpus(&card);
                if !several(&card)
                    || !card.nic.is_virtio()
                    || !mq(&card)
                    || card.nic.queues() <= cpus
                {
                    return None;
                }
                let mut edit = card.edit();
                set(&card, &mut edit, cpus);
                Some(card.sign(
                    format!(
                        "{} has {} queue pairs for {cpus} CPU(s)",
                        card.nic.id,
                        card.nic.queues()
                    ),
                    restart(
                        card.machine,
                        &edit,
                        &format!("<driver queues='{cpus}'/>"),
                        &format!("queues={cpus} in --net"),
                    ),
                ))
            })
            .collect()
    },
};

const VECTORS: Fault = Fault {
    name: "vectors-too-few",
    seen: &[
        "Nothing is said; in the guest /proc/interrupts has one line for all queues of the NIC",
    ],
    cause: "A device with N queue pairs needs 2N+2 interrupt vectors: two per pair, one for the control queue, one for changes. With fewer the driver shares one among all queues.",
    why: "all queues interrupt the same CPU, so that several are no faster than one",
    cure: &["qemu-system-x86_64 ... -device virtio-net-pci,...,mq=on,vectors=2N+2"],
    judge: |facts| {
        cards(facts)
            .filter_map(|card| {
                let device = card.nic.device.as_ref()?;
                let needed = 2 * u32::from(card.nic.queues()) + 2;
                let given = match device.get("vectors") {
                    Some(given) => given.parse().ok()?,
                    // Before 6.1 it did not count them itself.
                    None if version(card.machine)? < (6, 1) => 3,
                    None => return None,
                };
                // Without any, somebody wanted none.
                if !several(&card)
                    || !card.nic.is_virtio()
                    || !mq(&card)
                    || given == 0
                    || given >= needed
                {
                    return None;
                }
                let mut edit = card.edit();
                card.set_device(&mut edit, "vectors", Some(&needed.to_string()));
                let xml = format!(
                    "<driver queues='{}'/>, and no vectors in <qemu:commandline>",
                    card.nic.queues()
                );
                Some(card.sign(
                    format!(
                        "{} has {} queue pairs and {given} interrupt vectors instead of {needed}",
                        card.nic.id,
                        card.nic.queues()
                    ),
                    restart(card.machine, &edit, &xml, "no vectors after `--`"),
                ))
            })
            .collect()
    },
};

fn several(card: &Card<'_>) -> bool {
    card.nic.queues() > 1
}

fn mq(card: &Card<'_>) -> bool {
    let device = card.nic.device.as_ref();
    device.is_some_and(|device| device.is_on("mq", false))
}

/// CPUs it has, or may get while it runs.
fn most_cpus(card: &Card<'_>) -> u16 {
    let smp = card.command.last("smp");
    let most = smp.and_then(|smp| smp.get("maxcpus")?.parse().ok());
    most.unwrap_or(0).max(card.command.cpus())
}

/// Gives a NIC so many queue pairs, on both sides.
pub(super) fn set(card: &Card<'_>, edit: &mut Edit, pairs: u16) {
    if card.nic.descriptors().is_empty() {
        let text = pairs.to_string();
        card.set_netdev(edit, "queues", (pairs > 1).then_some(text.as_str()));
    }
    let vectors = (2 * u32::from(pairs) + 2).to_string();
    let several = pairs > 1;
    card.set_device(edit, "mq", several.then_some("on"));
    card.set_device(edit, "vectors", several.then_some(vectors.as_str()));
}

/// Makes it a virtio NIC. What only the other model has is left out.
fn swap_model(card: &Card<'_>, edit: &mut Edit) {
    let machine = Machine {
        command: edit.words().to_vec(),
        ..Machine::default()
    };
    let words = machine.command.iter().map(|word| {
        let options = crate::command::Options::parse(word);
        let it = options.kind() == card.nic.model() && options.get("netdev") == Some(&card.nic.id);
        match it {
            true => word.replacen(card.nic.model(), "virtio-net-pci", 1),
            false => word.clone(),
        }
    });
    *edit = Edit::new(&words.collect::<Vec<_>>());
}
