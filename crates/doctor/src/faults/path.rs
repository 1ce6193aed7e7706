//! The way of a frame through the host: up, joined, and passed on.

use ringway_host::survey::Kind;

use super::{Chapter, Fault, scene::seats};
use crate::{
    command::Command,
    facts::{Machine, Network},
};

pub(super) const CHAPTER: Chapter = Chapter {
    title: "The way through the host",
    faults: &[LOOSE],
};

const LOOSE: Fault = Fault {
    name: "tap-not-connected",
    seen: &["The guest's link is up, and nothing comes through."],
    cause: "The tap is down, or belongs to no bridge and has no address: frames of the guest end there.",
    why: "the guest reaches nobody",
    cure: &["ip link set TAP master BRIDGE", "ip link set TAP up"],
    judge: |facts| {
        let signs = seats(facts).into_iter().filter_map(|seat| {
            let link = seat.link;
            if !matches!(link.kind, Kind::Tap(_)) || has_script(seat.machine, &link.name) {
                return None;
            }
            let name = &link.name;
            let addressed = link.addresses.iter().any(|it| !is_own(it));
            let mut cure = Vec::new();
            let mut wrong = Vec::new();
            if !link.up {
                wrong.push("is down");
            }
            if link.master.is_none() && !addressed {
                wrong.push("belongs to no bridge and has no address");
                cure.extend(join(seat.network, name));
            }
            if !link.up {
                cure.push(format!("ip link set {name} up"));
            }
            let what = format!("{name} {}", wrong.join(", and "));
            (!wrong.is_empty()).then(|| seat.sign(what, cure))
        });
        signs.collect()
    },
};

/// The command that puts a tap into the bridge it most likely belongs to.
pub(super) fn join(network: &Network, tap: &str) -> Vec<String> {
    if let Some(bridge) = network.only_bridge() {
        return vec![format!("ip link set {tap} master {}", bridge.name)];
    }
    let is_bridge = |kind: &Kind| matches!(kind, Kind::Bridge(_));
    let bridges: Vec<&str> = network
        .links
        .iter()
        .filter(|link| is_bridge(&link.kind))
        .map(|link| link.name.as_str())
        .collect();
    vec![match bridges.is_empty() {
        true => format!(
            "# make a bridge and put it there: ip link add BRIDGE type bridge; ip link set BRIDGE up; ip link set {tap} master BRIDGE"
        ),
        false => format!(
            "# put it into its bridge, one of {}: ip link set {tap} master BRIDGE",
            bridges.join(", ")
        ),
    }]
}

/// Addresses that a link gives itself.
pub(super) fn is_own(address: &ipnet::IpNet) -> bool {
    match address {
        ipnet::IpNet::V6(it) => it.addr().is_unicast_link_local(),
        ipnet::IpNet::V4(_) => false,
    }
}

/// Whether a machine that does not run yet has a script that will see to its tap.
fn has_script(machine: &Machine, tap: &str) -> bool {
    let nics = Command::parse(&machine.command).nics();
    let nic = nics.iter().find(|nic| nic.tap() == Some(tap));
    machine.pid.is_none() && nic.is_some_and(|nic| nic.netdev.get("script") != Some("no"))
}
