//! The way of a frame through the host: up, joined, and passed on.

use super::{Chapter, Fault, Sign};
use crate::{command::Command, facts::Machine};
use ringway_host::survey::Kind;

pub(super) const CHAPTER: Chapter = Chapter {
    title: "The way through the host",
    faults: &[LOOSE],
};

const LOOSE: Fault = Fault {
    name: "tap-not-connected",
    seen: &["The guest's link is up, and nothing comes through."],
    cause: "The tap is down, or belongs to no bridge and has no address: frames of the guest end there.",
    why: "the guest reaches nobody",
    cure: &["ip link set TAP up", "ip link set TAP master BRIDGE"],
    judge: |facts| {
        let names = facts.machines.iter().flat_map(|machine| {
            taps_of(machine)
                .into_iter()
                .map(|name| (machine, name))
                .collect::<Vec<_>>()
        });
        names
            .filter_map(|(machine, name)| {
                let link = facts.link(&name).filter(|_| !machine.elsewhere)?;
                let loose = link.master.is_none() && link.addresses.is_empty();
                let mut cure = Vec::new();
                let mut wrong = Vec::new();
                if !link.up {
                    wrong.push("is down");
                    cure.push(format!("ip link set {name} up"));
                }
                if loose {
                    wrong.push("belongs to no bridge and has no address");
                    let mut bridges = facts
                        .links
                        .iter()
                        .filter(|it| matches!(it.kind, Kind::Bridge(_)));
                    let bridge = match (bridges.next(), bridges.next()) {
                        (Some(bridge), None) => bridge.name.as_str(),
                        _ => "BRIDGE",
                    };
                    let doubt = if bridge == "BRIDGE" { "# " } else { "" };
                    cure.push(format!("{doubt}ip link set {name} master {bridge}"));
                }
                (!wrong.is_empty()).then(|| Sign {
                    machine: Some(machine.name.clone()),
                    subject: format!("tap {name}"),
                    what: format!("{name} {}", wrong.join(" and ")),
                    cure,
                })
            })
            .collect()
    },
};

/// Taps that a machine has or wants.
fn taps_of(machine: &Machine) -> Vec<String> {
    let nics = Command::parse(&machine.command).nics();
    let mut names: Vec<String> = nics
        .iter()
        .filter_map(|nic| nic.tap().map(str::to_owned))
        .collect();
    names.extend(machine.descriptors.iter().filter_map(|it| it.tap.clone()));
    names.sort();
    names.dedup();
    names
}
