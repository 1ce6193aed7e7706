//! What the host has to offer: KVM, taps, vhost-net.

use super::{Chapter, Fault, Sign};
use crate::{
    Facts,
    command::Command,
    facts::{Device, Host, Machine},
};

pub(super) const CHAPTER: Chapter = Chapter {
    title: "The host",
    faults: &[KVM, TCG, TUN, VHOST_NET, NFT],
};

const KVM: Fault = Fault {
    name: "kvm-unusable",
    seen: &[
        "Could not access KVM kernel module: No such file or directory",
        "failed to initialize kvm: Permission denied",
        "The guest is ten times slower than it should be.",
    ],
    cause: "There is no /dev/kvm, or the machine's user may not open it, or nothing boots with it, as in virtual machines whose own host \
        does not nest: QEMU translates every instruction (TCG), or does not start.",
    why: "guests are emulated, which is about ten times slower, or do not start",
    cure: &[
        "modprobe kvm_intel    # or kvm_amd; without either, virtualization is off in the firmware or in the host of this host",
        "usermod -aG kvm USER",
    ],
    judge: |facts| {
        let host = &facts.host;
        let signs = real_machines(facts).filter_map(|(machine, command)| {
            let wants = command.accelerators();
            // Who has a virtual machine of KVM open runs with it; who is to be emulated by its own command gains nothing.
            let runs = machine
                .descriptors
                .iter()
                .any(|it| it.target.contains("kvm-vm"));
            let emulated =
                machine.pid.is_none() && wants == ["tcg"] && command.last("accel").is_some();
            if runs || emulated {
                return None;
            }
            let (what, cure) = kvm_trouble(host, machine)?;
            let and = match wants.iter().all(|it| it == "kvm") {
                true => "so the machine does not start",
                false => "so the guest is emulated (TCG)",
            };
            Some(Sign {
                machine: Some(machine.name.clone()),
                subject: "/dev/kvm".into(),
                what: format!("{what}, {and}"),
                cure,
            })
        });
        signs.collect()
    },
};

const TCG: Fault = Fault {
    name: "tcg-chosen",
    seen: &["The guest is ten times slower than it should be."],
    cause: "QEMU was not told to use KVM, and translates every instruction (TCG).",
    why: "the guest is emulated, which is about ten times slower",
    cure: &["# start QEMU with -accel kvm -cpu host"],
    judge: |facts| {
        if facts.host.kvm_boots != Some(Ok(())) {
            return Vec::new();
        }
        let signs = real_machines(facts).filter_map(|(machine, command)| {
            let wants = command.accelerators();
            if wants.iter().any(|it| it == "kvm") || denied(&facts.host.kvm, machine) {
                return None;
            }
            Some(Sign {
                machine: Some(machine.name.clone()),
                subject: "its accelerator".into(),
                what: format!("{} is emulated (TCG), and KVM works here", machine.name),
                cure: vec![
                    "# start QEMU with -accel kvm -cpu host, in place of what it says now".into(),
                ],
            })
        });
        signs.collect()
    },
};

const TUN: Fault = Fault {
    name: "tun-unusable",
    seen: &[
        "could not open /dev/net/tun: No such file or directory",
        "could not open /dev/net/tun: Permission denied",
    ],
    cause: "The driver of taps is not loaded, or its device may be opened by nobody but root.",
    why: "QEMU can open no tap and does not start",
    cure: &["modprobe tun", "chmod 0666 /dev/net/tun"],
    judge: |facts| {
        let signs = real_machines(facts).filter_map(|(machine, command)| {
            let opens = command.nics().into_iter().any(|nic| {
                nic.backend() == "tap"
                    && nic.descriptors().is_empty()
                    && nic.netdev.get("helper").is_none()
            });
            if !opens || machine.pid.is_some() {
                return None;
            }
            let (what, cure) = trouble(&facts.host.tun, machine, "/dev/net/tun", "tun", "0666")?;
            Some(Sign {
                machine: Some(machine.name.clone()),
                subject: "/dev/net/tun".into(),
                what,
                cure,
            })
        });
        signs.collect()
    },
};

const VHOST_NET: Fault = Fault {
    name: "vhost-net-unusable",
    seen: &[
        "tap: open vhost char device failed: No such file or directory",
        "tap: open vhost char device failed: Permission denied",
    ],
    cause: "The machine's tap is to be served by the kernel (`vhost=on`), whose module is not loaded, or whose device the machine's user \
        may not open.",
    why: "QEMU carries every frame itself, which is slower, or with vhostforce=on does not start",
    cure: &["modprobe vhost_net", "chmod 0666 /dev/vhost-net"],
    judge: |facts| {
        let signs = real_machines(facts).filter_map(|(machine, command)| {
            let wants = command.nics().into_iter().any(|nic| {
                let given = nic.netdev.get("vhostfd").or(nic.netdev.get("vhostfds"));
                nic.vhost() && given.is_none()
            });
            // A machine that runs has it open, if it could be opened then.
            let has = machine
                .descriptors
                .iter()
                .any(|it| it.target == "/dev/vhost-net");
            if !wants || has {
                return None;
            }
            let device = &facts.host.vhost_net;
            let (what, mut cure) = trouble(device, machine, "/dev/vhost-net", "vhost_net", "0666")?;
            if machine.pid.is_some() {
                cure.push(format!("# and start {} again", machine.name));
            }
            Some(Sign {
                machine: Some(machine.name.clone()),
                subject: "/dev/vhost-net".into(),
                what,
                cure,
            })
        });
        signs.collect()
    },
};

const NFT: Fault = Fault {
    name: "nft-missing",
    seen: &["cannot run nft: install the package nftables"],
    cause: "Ringway's daemon has the kernel translate and judge packets of networks with a way out (`nat`, `routed`) by nft, and there \
        is none.",
    why: "machines in such networks reach nothing beyond the host, or the networks cannot be made at all",
    cure: &["apt-get install nftables"],
    judge: |facts| {
        let none = facts.host.nft.as_deref() == Some("");
        let daemon = facts.daemons.first().filter(|_| none);
        let sign = daemon.map(|pid| Sign {
            machine: None,
            subject: "nft".into(),
            what: format!("there is no nft, and Ringway's daemon (process {pid}) needs it for networks with a way out"),
            cure: vec!["apt-get install nftables    # or dnf, pacman, zypper, apk".into()],
        });
        sign.into_iter().collect()
    },
};

/// Those that have a command line, with it.
fn real_machines(facts: &Facts) -> impl Iterator<Item = (&Machine, Command)> {
    let machines = facts.machines.iter().filter(|it| !it.command.is_empty());
    machines.map(|machine| (machine, Command::parse(&machine.command)))
}

/// What is wrong with a device for this machine, and the cure.
fn trouble(
    device: &Device,
    machine: &Machine,
    path: &str,
    module: &str,
    mode: &str,
) -> Option<(String, Vec<String>)> {
    if !device.present {
        return Some((
            format!("there is no {path}: the module {module} is not loaded"),
            vec![
                format!("modprobe {module}"),
                format!("# at every boot: echo {module} > /etc/modules-load.d/{module}.conf"),
            ],
        ));
    }
    denied(device, machine).then(|| {
        let Device { mode: is, owner, group, .. } = device;
        let file = path.rsplit('/').next().unwrap_or(path);
        let kernel = path.trim_start_matches("/dev/");
        (
            format!(
                "user {} may not open {path}, which belongs to user {owner} and group {group} and has mode {is:04o}",
                machine.user
            ),
            vec![
                format!("chmod {mode} {path}"),
                format!(
                    "# at every boot: echo 'KERNEL==\"{file}\", MODE=\"{mode}\", OPTIONS+=\"static_node={kernel}\"' \
                     > /etc/udev/rules.d/60-{file}.rules"
                ),
            ],
        )
    })
}

/// Whether the machine's user is refused. Of a command it is who looks that would run it.
fn denied(device: &Device, machine: &Machine) -> bool {
    if machine.pid.is_none() {
        return device.refused.is_some();
    }
    let bits = match () {
        () if machine.user == 0 => return false,
        () if machine.user == device.owner => device.mode >> 6,
        () if machine.groups.contains(&device.group) => device.mode >> 3,
        () => device.mode,
    };
    bits & 6 != 6
}

fn kvm_trouble(host: &Host, machine: &Machine) -> Option<(String, Vec<String>)> {
    if !host.kvm.present {
        let cure = match host.virtualization.as_deref()? {
            "vmx" => vec!["modprobe kvm_intel".into()],
            "svm" => vec!["modprobe kvm_amd".into()],
            _ => vec![
                "# switch on virtualization (VT-x, AMD-V) in the firmware, or in a virtual machine nesting on its host: \
                 modprobe kvm_intel nested=1"
                    .into(),
            ],
        };
        return Some(("there is no /dev/kvm".into(), cure));
    }
    if denied(&host.kvm, machine) {
        let (user, group) = (machine.user, host.kvm.group);
        return Some((
            format!(
                "user {user} may not open /dev/kvm, which belongs to group {group} and has mode {:04o}",
                host.kvm.mode
            ),
            vec![
                "chmod 0666 /dev/kvm".into(),
                format!(
                    "# or, for this user alone and from the next login: usermod -aG {group} USER-{user}"
                ),
            ],
        ));
    }
    match &host.kvm_boots {
        Some(Err(why)) => Some((
            why.clone(),
            vec![
                "# this host is a virtual machine whose own host does not nest well: switch that on there (modprobe kvm_intel nested=1), \
                 or leave this out with --ignore kvm-unusable"
                    .into(),
            ],
        )),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nft_is_missed_where_a_daemon_needs_it_alone() {
        let mut facts = Facts::default();
        facts.host.nft = Some(String::new());
        assert!(crate::judge(&facts).is_empty());
        facts.daemons = vec![7];
        let [found] = crate::judge(&facts).try_into().unwrap();
        assert_eq!((found.fault, found.machine), ("nft-missing", None));
        // Nobody looked.
        facts.host.nft = None;
        assert!(crate::judge(&facts).is_empty());
    }

    /// KVM that boots is not to be had on every machine that runs tests.
    #[test]
    fn who_is_emulated_though_kvm_boots_is_told() {
        let machine = |name: &str, accel: &str| Machine {
            name: name.into(),
            command: ["qemu-system-x86_64", "-accel", accel]
                .map(str::to_owned)
                .into(),
            ..Machine::default()
        };
        let mut facts = Facts {
            machines: vec![machine("slow", "tcg"), machine("fast", "kvm")],
            ..Facts::default()
        };
        facts.host.kvm.present = true;
        facts.host.kvm_boots = Some(Ok(()));
        let found = crate::judge(&facts);
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(
            (found[0].fault, found[0].machine.as_deref()),
            ("tcg-chosen", Some("slow"))
        );
        facts.host.kvm_boots = None;
        assert!(crate::judge(&facts).is_empty());
    }
}
