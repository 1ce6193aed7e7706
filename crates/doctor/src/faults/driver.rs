//! What the guest's driver made of its virtio NIC, as QEMU's monitor or the tap tells.

use ringway_host::survey::Kind;

use super::{
    Chapter, Fault,
    user::{Card, cards},
};
use crate::{Facts, facts::VirtioNic};

pub(super) const CHAPTER: Chapter = Chapter {
    title: "The guest's driver",
    faults: &[ABSENT, BROKEN, SINGLE, UNUSED],
};

/// Seconds after which a guest has booted, emulated ones too, so that the driver that is there is the one that stays: firmware and
/// boot loaders have some of their own.
const BOOTED: u64 = 300;

const ABSENT: Fault = Fault {
    name: "driver-missing",
    seen: &[
        "The guest has no such interface; in Linux `lspci` shows a virtio network device without `Kernel driver in use`.",
    ],
    cause: "The guest has no driver for virtio, or it was never loaded: Windows has none of its own. Or the guest did not boot, and is \
        still in its firmware or boot loader.",
    why: "the NIC carries nothing",
    cure: &[
        "# in a Linux guest: modprobe virtio_net",
        "# in a Windows guest: install NetKVM, of virtio-win",
    ],
    judge: |facts| {
        let signs = running(facts).filter_map(|(card, nic)| {
            let waits = nic.runs() || stopped(nic).is_some() || !booted(&card);
            if waits || card.machine.state.as_deref() != Some("running") {
                return None;
            }
            let minutes = card.machine.age.unwrap_or(0) / 60;
            let far = match nic.status.is_empty() {
                true => "no driver has touched it".to_owned(),
                false => format!("it got as far as {}", nic.status.join(", ")),
            };
            let cure = vec![
                "# in a Linux guest: modprobe virtio_net, then see what `dmesg | grep virtio` says"
                    .into(),
                "# in a Windows guest: install NetKVM, of virtio-win".into(),
                "# a guest that hangs in its boot loader shows it on its console".into(),
            ];
            Some(card.sign(
                format!(
                    "the guest has not started {} in {minutes} minutes: {far}",
                    card.nic.id
                ),
                cure,
            ))
        });
        signs.collect()
    },
};

const BROKEN: Fault = Fault {
    name: "driver-stopped",
    seen: &[
        "qemu-system-x86_64: Guest moved used index from 0 to 256",
        "qemu-system-x86_64: virtio: zero sized buffers are not allowed",
        "The guest's interface is there, and nothing comes through until it boots again.",
    ],
    cause: "The guest's driver did what no driver may, and QEMU serves the NIC no more; or the driver gave it up itself (FAILED).",
    why: "the NIC carries nothing until its driver starts it anew",
    cure: &["# in a Linux guest: rmmod virtio_net; modprobe virtio_net"],
    judge: |facts| {
        let signs = running(facts).filter_map(|(card, nic)| {
            let what = stopped(nic)?;
            let cure = vec![
                "# in a Linux guest: rmmod virtio_net; modprobe virtio_net".into(),
                "# in any other: boot it again, and look for a newer driver".into(),
            ];
            Some(card.sign(what.replace("{}", &card.nic.id), cure))
        });
        signs.collect()
    },
};

const WHY: &str = "all traffic of the guest goes through fewer queues and CPUs than it has";

const SINGLE: Fault = Fault {
    name: "driver-single-queue",
    seen: &[
        "In the guest `ethtool -l eth0` has a maximum of 1 for Combined, in spite of mq=on and queues=",
    ],
    cause: "The NIC offers several queues (VIRTIO_NET_F_MQ), and the guest's driver did not take them: it is too old, or they are \
        switched off there (RSS in Windows).",
    why: WHY,
    cure: &[
        "# in a Linux guest: a kernel of 3.8 or newer",
        "# in a Windows guest: Enable-NetAdapterRss -Name '*'",
    ],
    judge: |facts| {
        let signs = running(facts).filter_map(|(card, nic)| {
            const MQ: &str = "VIRTIO_NET_F_MQ";
            let declined = nic.runs() && nic.offers(MQ) && !nic.takes(MQ);
            if !declined || !booted(&card) || usable(&card) < 2 {
                return None;
            }
            let cure = vec![
                "# in a Linux guest: a kernel of 3.8 or newer".into(),
                "# in a Windows guest: Enable-NetAdapterRss -Name '*'".into(),
            ];
            Some(card.sign(
                format!(
                    "{} has {} queue pairs, and the guest's driver takes one (it did not accept {MQ})",
                    card.nic.id,
                    card.nic.queues()
                ),
                cure,
            ))
        });
        signs.collect()
    },
};

const UNUSED: Fault = Fault {
    name: "queues-unused",
    seen: &[
        "In the guest `ethtool -l eth0` shows fewer for Combined now than its maximum, which it has the CPUs for",
    ],
    cause: "The guest was told to use fewer queues than its NIC has (`ethtool -L`), or got its CPUs after it booted.",
    why: WHY,
    cure: &["# in the guest: ethtool -L eth0 combined N"],
    judge: |facts| {
        let signs = cards(facts).filter_map(|card| {
            let used = used_queues(facts, &card)?;
            let wanted = usable(&card);
            // Who has no driver, or one that knows one queue, has that told.
            let known = card.virtio().map(|nic| nic.runs() && nic.takes("VIRTIO_NET_F_MQ"));
            if used >= wanted || !known.unwrap_or(booted(&card)) {
                return None;
            }
            let mac = card.virtio().and_then(|nic| nic.mac.as_deref());
            let plain = |mac: &&str| mac.bytes().all(|it| it == b':' || it.is_ascii_hexdigit());
            let interface = match mac.filter(plain) {
                Some(mac) => format!("$(grep -l {mac} /sys/class/net/*/address | cut -d/ -f5)"),
                None => "eth0".into(),
            };
            Some(card.sign(
                format!(
                    "{} has {} queue pairs, and the guest uses {used} of the {wanted} that its CPUs can",
                    card.nic.id,
                    card.nic.queues()
                ),
                vec![format!("# in the guest: ethtool -L {interface} combined {wanted}")],
            ))
        });
        signs.collect()
    },
};

/// NICs of which the monitor told.
fn running(facts: &Facts) -> impl Iterator<Item = (Card<'_>, &VirtioNic)> {
    cards(facts).filter_map(|card| {
        let nic = card.virtio()?;
        Some((card, nic))
    })
}

/// In which way it stopped, if it did.
fn stopped(nic: &VirtioNic) -> Option<&'static str> {
    let is = |name: &str| nic.status.iter().any(|it| it == name);
    match () {
        () if nic.broken => Some("QEMU serves {} no more, because of what the guest's driver did"),
        () if is("FAILED") => Some("the guest's driver has given up {}"),
        () if is("NEEDS_RESET") => Some("{} waits for the guest's driver to start it anew"),
        () => None,
    }
}

fn booted(card: &Card<'_>) -> bool {
    card.machine.age.is_some_and(|age| age >= BOOTED)
}

/// Queue pairs that the guest could use.
fn usable(card: &Card<'_>) -> u16 {
    let device = card.nic.device.as_ref();
    match device.is_some_and(|it| it.is_on("mq", false)) && card.nic.is_virtio() {
        true => card.nic.queues().min(card.command.cpus()),
        false => 1,
    }
}

/// Queue pairs that the guest uses: QEMU detaches the others from their tap.
fn used_queues(facts: &Facts, card: &Card<'_>) -> Option<u16> {
    card.machine.pid?;
    let given = card.nic.descriptors();
    let mut open = card.machine.descriptors.iter();
    let by_number = || open.find(|it| given.contains(&it.number))?.tap.as_deref();
    let name = card.nic.tap().or_else(by_number)?;
    match &facts.network(card.machine)?.link(name)?.kind {
        Kind::Tap(tap) if tap.multi_queue => {
            // Somebody else may have some.
            let all = tap.queues.checked_add(tap.idle_queues);
            (all == Some(card.nic.queues().into())).then(|| u16::try_from(tap.queues).ok())?
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use ringway_host::survey::{Surveyed, Tap};

    use super::*;
    use crate::facts::{Machine, Network};

    /// A guest whose driver took all that it was offered, and its twin.
    fn facts(queues: u32, cpus: u32, change: impl FnOnce(&mut Machine)) -> Facts {
        let mut facts = Facts::default();
        let mut network = Network {
            id: Some(1),
            ..Network::default()
        };
        for (index, name) in (1..).zip(["sick", "sound"]) {
            let words = format!(
                "qemu-system-x86_64 -smp {cpus} -netdev tap,id=n,ifname={name},queues=4 -device virtio-net-pci,netdev=n,mq=on,vectors=10"
            );
            let names = |names: &[&str]| names.iter().map(|it| (*it).to_owned()).collect();
            facts.machines.push(Machine {
                name: name.into(),
                pid: Some(index),
                age: Some(3600),
                namespace: Some(1),
                command: words.split(' ').map(str::to_owned).collect(),
                state: Some("running".into()),
                virtio: vec![VirtioNic {
                    netdev: "n".into(),
                    mac: Some("52:54:00:00:00:01".into()),
                    status: names(&["DRIVER", "DRIVER_OK"]),
                    offered: names(&["VIRTIO_NET_F_MQ"]),
                    acked: names(&["VIRTIO_NET_F_MQ"]),
                    ..VirtioNic::default()
                }],
                ..Machine::default()
            });
            let queues = if name == "sick" { queues } else { cpus.min(4) };
            network.links.push(Surveyed {
                index: index.unsigned_abs(),
                name: name.into(),
                up: true,
                master: Some(9),
                kind: Kind::Tap(Tap {
                    multi_queue: true,
                    queues,
                    idle_queues: 4 - queues,
                    ..Tap::default()
                }),
                ..Surveyed::default()
            });
        }
        facts.networks.push(network);
        change(&mut facts.machines[0]);
        facts
    }

    fn found(facts: &Facts) -> Vec<(&'static str, String)> {
        let found = crate::judge(facts).into_iter();
        let found =
            found.filter(|it| it.fault != "kvm-unusable" && it.fault != "queues-beyond-cpus");
        found
            .map(|it| (it.fault, it.machine.unwrap_or_default()))
            .collect()
    }

    fn names(facts: &Facts) -> Vec<&'static str> {
        let found = found(facts);
        assert!(
            found.iter().all(|(_, machine)| machine == "sick"),
            "{found:?}"
        );
        found.into_iter().map(|(fault, _)| fault).collect()
    }

    #[test]
    fn a_guest_that_uses_what_it_can_is_well() {
        assert_eq!(names(&facts(4, 4, |_| {})), [""; 0]);
        assert_eq!(names(&facts(2, 2, |_| {})), [""; 0]);
    }

    #[test]
    fn queues_that_are_set_aside_are_told_with_the_guests_interface() {
        let facts = facts(1, 4, |_| {});
        assert_eq!(names(&facts), ["queues-unused"]);
        let cure = &crate::judge(&facts).pop().unwrap().cure;
        assert!(cure[0].contains("grep -l 52:54:00:00:00:01") && cure[0].ends_with("combined 4"));
    }

    #[test]
    fn without_a_monitor_the_tap_tells_once_the_guest_has_booted() {
        let young = |machine: &mut Machine| {
            machine.virtio.clear();
            machine.age = Some(10);
        };
        assert_eq!(names(&facts(1, 4, young)), [""; 0]);
        assert_eq!(
            names(&facts(1, 4, |it| it.virtio.clear())),
            ["queues-unused"]
        );
    }

    #[test]
    fn a_driver_that_takes_one_queue_is_told_where_there_are_cpus_for_more() {
        let declines = |machine: &mut Machine| machine.virtio[0].acked.clear();
        assert_eq!(names(&facts(1, 4, declines)), ["driver-single-queue"]);
        assert_eq!(names(&facts(1, 1, declines)), [""; 0]);
        let boots = |machine: &mut Machine| {
            machine.virtio[0].acked.clear();
            machine.age = Some(20);
        };
        assert_eq!(names(&facts(1, 4, boots)), [""; 0]);
    }

    #[test]
    fn a_driver_that_is_not_there_is_told_when_the_guest_had_its_time() {
        let absent = |age, state: &'static str| {
            move |machine: &mut Machine| {
                machine.virtio[0].status = vec!["ACKNOWLEDGE".into()];
                machine.age = Some(age);
                machine.state = Some(state.into());
            }
        };
        assert_eq!(
            names(&facts(1, 4, absent(3600, "running"))),
            ["driver-missing"]
        );
        assert_eq!(names(&facts(1, 4, absent(30, "running"))), [""; 0]);
        assert_eq!(names(&facts(1, 4, absent(3600, "paused"))), [""; 0]);
    }

    #[test]
    fn a_nic_that_stopped_is_told_whoever_stopped_it() {
        let stopped = facts(4, 4, |machine| machine.virtio[0].broken = true);
        assert_eq!(names(&stopped), ["driver-stopped"]);
        let failed = facts(1, 4, |machine| {
            machine.virtio[0].status = vec!["FAILED".into()]
        });
        assert_eq!(names(&failed), ["driver-stopped"]);
    }
}
