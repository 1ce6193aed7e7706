//! Taps: whether they can be opened as a machine wants to.

use super::{Chapter, Fault, Sign};
use crate::{Facts, command::Command, facts::Machine};
use ringway_host::survey::Kind;

pub(super) const CHAPTER: Chapter = Chapter {
    title: "Taps",
    faults: &[QUEUES],
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
        taps(facts)
            .filter_map(|(machine, name, queues)| {
                let Kind::Tap(tap) = &facts.link(&name)?.kind else {
                    return None;
                };
                let wanted = queues > 1;
                // Who has it open has opened it as it is.
                if machine.pid.is_some() || tap.multi_queue == wanted {
                    return None;
                }
                let (is, flag) = match wanted {
                    true => ("has a single queue", " multi_queue"),
                    false => ("is multi_queue", ""),
                };
                Some(Sign {
                    machine: Some(machine.name.clone()),
                    subject: format!("tap {name}"),
                    what: format!("{name} {is}, and the machine wants to open {queues} of it"),
                    cure: remake(facts, &name, flag),
                })
            })
            .collect()
    },
};

/// Taps that machines open by name: whose, which, how many queues.
fn taps(facts: &Facts) -> impl Iterator<Item = (&Machine, String, u16)> {
    facts.machines.iter().flat_map(|machine| {
        let nics = Command::parse(&machine.command).nics();
        let named = nics.into_iter().filter_map(|nic| {
            let name = nic.tap()?.to_owned();
            Some((name, nic.queues()))
        });
        named.map(move |(name, queues)| (machine, name, queues))
    })
}

/// Commands that make a tap again, where it was and as it was but for the flag.
fn remake(facts: &Facts, name: &str, flag: &str) -> Vec<String> {
    let mut commands = vec![format!("ip link delete {name}")];
    let Some(link) = facts.link(name) else {
        return commands;
    };
    let mut add = format!("ip tuntap add dev {name} mode tap{flag}");
    if let Kind::Tap(tap) = &link.kind {
        if let Some(owner) = tap.owner {
            add += &format!(" user {owner}");
        }
        if let Some(group) = tap.group {
            add += &format!(" group {group}");
        }
    }
    commands.push(add);
    if let Some(bridge) = link.master.and_then(|index| facts.link_by_index(index)) {
        commands.push(format!("ip link set {name} master {}", bridge.name));
    }
    if link.up {
        commands.push(format!("ip link set {name} up"));
    }
    commands
}
