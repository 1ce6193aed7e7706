//! Taps: whether they can be opened as a machine wants to.

use ringway_host::survey::{Kind, Tap};

use super::{
    Chapter, Fault, Sign,
    scene::{Named, named_taps},
};
use crate::{Facts, command::quoted, facts::Machine};

pub(super) const CHAPTER: Chapter = Chapter {
    title: "Taps",
    faults: &[QUEUES, KIND, BUSY, OWNER, MISSING],
};

const QUEUES: Fault = Fault {
    name: "tap-queues",
    seen: &["could not configure /dev/net/tun (TAP): Invalid argument"],
    cause: "A tap is made for one queue or for several (`multi_queue`), and can be opened in that way only.",
    why: "QEMU cannot open the tap and does not start",
    cure: &[
        "ip link delete TAP",
        "ip tuntap add dev TAP mode tap multi_queue",
    ],
    judge: |facts| {
        let signs = wanted(facts).filter_map(|named| {
            let (link, queues) = (named.link()?, named.nic.queues());
            let Kind::Tap(tap) = &link.kind else {
                return None;
            };
            let several = queues > 1;
            if tap.multi_queue == several {
                return None;
            }
            let name = &named.name;
            let what = match several {
                true => format!("{name} is made for one queue, and {queues} are wanted"),
                false => format!(
                    "{name} is made for several queues (multi_queue), and is wanted with one"
                ),
            };
            Some(named.sign(what, remake(&named, several)))
        });
        signs.collect()
    },
};

const KIND: Fault = Fault {
    name: "not-a-tap",
    seen: &["could not configure /dev/net/tun (TAP): Invalid argument"],
    cause: "The interface of that name is no tap: a tun, which carries packets without Ethernet, or something else.",
    why: "QEMU cannot open it and does not start",
    cure: &["ip link delete TAP", "ip tuntap add dev TAP mode tap"],
    judge: |facts| {
        let signs = wanted(facts).filter_map(|named| {
            let name = &named.name;
            let several = named.nic.queues() > 1;
            match &named.link()?.kind {
                Kind::Tap(_) => None,
                Kind::Tun => {
                    let what = format!("{name} is a tun, which carries no Ethernet frames, and a tap is wanted");
                    Some(named.sign(what, remake(&named, several)))
                }
                kind => {
                    let flag = if several { " multi_queue" } else { "" };
                    let what = format!("{name} is {}, and a tap is wanted", kind_of(kind));
                    let cure = format!(
                        "# name a tap as ifname=; this makes one: ip tuntap add dev tap-NAME mode tap{flag}"
                    );
                    Some(named.sign(what, vec![cure]))
                }
            }
        });
        signs.collect()
    },
};

const BUSY: Fault = Fault {
    name: "tap-busy",
    seen: &["could not configure /dev/net/tun (TAP): Device or resource busy"],
    cause: "A tap of one queue can be open once only, and somebody has it open: another machine, or a program that was left behind.",
    why: "QEMU cannot open the tap and does not start",
    cure: &["grep -l 'iff:.*TAP' /proc/[0-9]*/fdinfo/*", "kill PID"],
    judge: |facts| {
        let signs = wanted(facts).filter_map(|named| {
            let link = named.link()?;
            let single = matches!(&link.kind, Kind::Tap(tap) if !tap.multi_queue);
            // A tap has a carrier as long as it is open.
            if !single || !link.carrier || named.nic.queues() > 1 {
                return None;
            }
            let name = &named.name;
            let holders = || facts.holders.iter().filter(|it| it.tap == *name);
            // It may have been moved here from the holder's namespace.
            let holder = holders()
                .find(|it| it.namespace == named.network.id)
                .or_else(|| holders().next());
            let tap = format!("# or give this one a tap of its own and name it as ifname= in place of {name}");
            let Some(holder) = holder else {
                let cure = vec![
                    format!("# as root, this says who has it: grep -l 'iff:.*{name}' /proc/[0-9]*/fdinfo/*"),
                    tap,
                ];
                return Some(named.sign(format!("{name} has one queue, which another program has open"), cure));
            };
            let pid = holder.pid;
            let machine = facts.machines.iter().find(|it| it.pid == Some(pid));
            let who = machine.map_or(&holder.name, |it| &it.name);
            Some(Sign {
                // Processes have no network namespace to be entered.
                cure: vec![format!("kill {pid}"), tap],
                ..named.sign(format!("{name} has one queue, which process {pid} ({who}) has open"), Vec::new())
            })
        });
        signs.collect()
    },
};

const OWNER: Fault = Fault {
    name: "tap-owner",
    seen: &["could not configure /dev/net/tun (TAP): Operation not permitted"],
    cause: "The tap belongs to another user or group, and QEMU has no CAP_NET_ADMIN.",
    why: "QEMU cannot open the tap and does not start",
    cure: &[
        "ip link delete TAP",
        "ip tuntap add dev TAP mode tap user USER",
    ],
    judge: |facts| {
        let signs = wanted(facts).filter_map(|named| {
            let Kind::Tap(tap) = &named.link()?.kind else {
                return None;
            };
            let machine = named.machine;
            if may_open(tap, machine) {
                return None;
            }
            let whose = match (tap.owner, tap.group) {
                (Some(owner), _) => format!("user {owner}"),
                (None, group) => format!("group {}", group.unwrap_or_default()),
            };
            let what = format!(
                "{} belongs to {whose}, and user {} without CAP_NET_ADMIN is to open it",
                named.name, machine.user
            );
            let multi_queue = tap.multi_queue;
            Some(named.sign(what, remake(&named, multi_queue)))
        });
        signs.collect()
    },
};

const MISSING: Fault = Fault {
    name: "tap-missing",
    seen: &["could not configure /dev/net/tun (TAP): Operation not permitted"],
    cause: "There is no such tap, and QEMU has no right to make one (CAP_NET_ADMIN).",
    why: "QEMU does not start",
    cure: &[
        "ip tuntap add dev TAP mode tap user USER",
        "ip link set TAP master BRIDGE",
        "ip link set TAP up",
    ],
    judge: |facts| {
        let signs = wanted(facts).filter_map(|named| {
            if named.link().is_some() || named.machine.net_admin {
                return None;
            }
            let what = format!(
                "there is no tap {}, and user {} has no right to make it",
                named.name, named.machine.user
            );
            let mut cure = vec![add(&named, named.nic.queues() > 1)];
            cure.extend(super::path::join(named.network, &named.name));
            cure.push(format!("ip link set {} up", quoted(&named.name)));
            Some(named.sign(what, cure))
        });
        signs.collect()
    },
};

/// Taps that are still to be opened: who has one open has opened it as it is.
fn wanted(facts: &Facts) -> impl Iterator<Item = Named<'_>> {
    named_taps(facts).filter(|named| named.machine.pid.is_none())
}

/// Both have to fit where both are set, says the kernel (drivers/net/tun.c, `tun_not_capable`); that either does was the rule of some.
fn may_open(tap: &Tap, machine: &Machine) -> bool {
    let user = tap.owner.map(|owner| owner == machine.user);
    let group = tap.group.map(|group| machine.groups.contains(&group));
    machine.net_admin || user == Some(true) || group == Some(true) || (user, group) == (None, None)
}

fn kind_of(kind: &Kind) -> String {
    match kind {
        Kind::Bridge(_) => "a bridge".into(),
        Kind::Macvtap(_) => "a macvtap, which is opened as /dev/tapN and handed over as fd=".into(),
        Kind::Other(kind) => format!("an interface of kind {kind}"),
        _ => "another interface".into(),
    }
}

/// The command that makes a tap which its machine may open.
fn add(named: &Named<'_>, several: bool) -> String {
    let flag = if several { " multi_queue" } else { "" };
    let mut add = format!("ip tuntap add dev {} mode tap{flag}", quoted(&named.name));
    let kind = named.link().map(|link| &link.kind);
    match kind {
        Some(Kind::Tap(tap)) if may_open(tap, named.machine) => {
            if let Some(owner) = tap.owner {
                add += &format!(" user {owner}");
            }
            if let Some(group) = tap.group {
                add += &format!(" group {group}");
            }
        }
        _ if named.machine.net_admin => {}
        _ => add += &format!(" user {}", named.machine.user),
    }
    add
}

/// Commands that make a tap again, where it was and as it was but for what is wrong.
pub(super) fn remake(named: &Named<'_>, several: bool) -> Vec<String> {
    let name = quoted(&named.name);
    let mut commands = vec![format!("ip link delete {name}"), add(named, several)];
    let Some(link) = named.link() else {
        return commands;
    };
    match named.network.master(link) {
        Some(bridge) => commands.push(format!(
            "ip link set {name} master {}",
            quoted(&bridge.name)
        )),
        // A tun is in no bridge; a tap that has neither that nor an address is of no use.
        None if link.addresses.is_empty() => {
            commands.extend(super::path::join(named.network, &named.name));
        }
        None => {}
    }
    if link.mtu != 1500 {
        commands.push(format!("ip link set {name} mtu {}", link.mtu));
    }
    for address in link.addresses.iter().filter(|it| !super::path::is_own(it)) {
        commands.push(format!("ip address add {address} dev {name}"));
    }
    commands.push(format!("ip link set {name} up"));
    commands
}
