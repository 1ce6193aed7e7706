//! Beyond the machine: workers, switch, bridges and the way out; and ports that belong to no machine.

use std::net::IpAddr;

use ringway_doctor::facts::{Machine, Network};
use ringway_host::survey::{Kind as LinkKind, PortState, Surveyed};

use super::super::{
    path::{Arrow, Kind, Path, Stage},
    world::{Known, World},
};
use crate::live::{PortRates, Role, ThreadRates};

/// A network namespace.
pub(super) struct Place<'a> {
    world: &'a World,
    /// `None` = it was not seen.
    network: Option<&'a Network>,
    /// Before the names of what was counted there.
    prefix: String,
}

impl<'a> Place<'a> {
    /// That of whoever looks, in which the daemon and its switch are taken to be.
    pub(super) fn own(world: &'a World) -> Self {
        Self {
            world,
            network: world.facts.networks.first(),
            prefix: String::new(),
        }
    }

    /// That of a machine.
    pub(super) fn of(world: &'a World, machine: &Machine) -> Self {
        let own = Self::own(world);
        let id = |place: &Self| place.network.and_then(|network| network.id);
        match machine.namespace {
            Some(namespace) if Some(namespace) != id(&own) => Self {
                network: world.facts.network(machine),
                prefix: format!("{namespace}/"),
                ..own
            },
            _ => own,
        }
    }

    /// Whether it is that of whoever looks.
    pub(super) fn is_own(&self) -> bool {
        self.prefix.is_empty()
    }

    pub(super) fn link(&self, name: &str) -> Option<&'a Surveyed> {
        self.network?.link(name)
    }

    pub(super) fn link_by_index(&self, index: u32) -> Option<&'a Surveyed> {
        self.network?.link_by_index(index)
    }

    fn counted(&self, name: &str) -> Option<&'a PortRates> {
        let name = format!("{}{name}", self.prefix);
        self.world.rates.links.iter().find(|link| link.name == name)
    }
}

type Beyond = Option<(Arrow, Stage)>;

/// The workers that serve a port's queues.
pub(super) fn workers(world: &World, port: &PortRates) -> Stage {
    let mut names: Vec<String> = port
        .queues
        .iter()
        .filter_map(|queue| Some(format!("worker-{}", queue.worker?)))
        .collect();
    names.sort();
    names.dedup();
    let found: Vec<&ThreadRates> = world
        .rates
        .threads
        .iter()
        .filter(|thread| thread.role == Role::Worker && names.contains(&thread.name))
        .collect();
    let stage = Stage::new(Kind::DataPlane, "switch workers");
    match (found.is_empty(), names.is_empty()) {
        (false, _) => stage.threads(found),
        (true, false) => stage.detail(names.join(" ")),
        (true, true) => match port.kind.as_str() {
            "vhost-user" => stage.detail("none serves it: no driver runs"),
            _ => stage.detail("sent to by all"),
        },
    }
}

/// The switch as a port sees it, and the way out from there.
pub(super) fn switch(world: &World, known: &Known) -> (Stage, Beyond) {
    let stage = Stage::new(Kind::Segment, "switch").detail(format!("port {}", known.name));
    let stage = stage.details(known.details.iter().cloned());
    let named = |name: &str| world.rates.ports.iter().find(|port| port.name == name);
    if let Some(network) = &known.network {
        let Some(network) = world.networks.iter().find(|it| it.spec.name == *network) else {
            return (stage, None);
        };
        let stage = stage.detail(format!(
            "network {}, VLAN {}",
            network.spec.name, network.vlan
        ));
        let interface = network.interface.to_string();
        let port = named(&interface);
        let arrow = Arrow::back(port)
            .drops(port)
            .note(Some(format!("all of {}", network.spec.name)));
        let kind = serde_json::to_value(network.spec.kind).unwrap_or_default();
        let uplink = Stage::new(Kind::Uplink, interface.as_str())
            .details(kind.as_str().map(|kind| format!("{kind} network")))
            .details(behind(&Place::own(world), &interface));
        return (stage, Some((arrow, uplink)));
    }
    // A switch alone: its taps are the ways out.
    let others = world.ports.len().saturating_sub(1);
    let s = if others == 1 { "" } else { "s" };
    let stage = stage.detail(format!("{others} other port{s}"));
    let taps: Vec<&Known> = world
        .ports
        .iter()
        .filter(|port| port.tap.is_some() && port.name != known.name)
        .collect();
    let [tap] = taps.as_slice() else {
        let names: Vec<&str> = taps.iter().map(|port| port.name.as_str()).collect();
        let uplink = Stage::new(Kind::Uplink, "taps").details(names.into_iter().map(str::to_owned));
        return (
            stage,
            (!taps.is_empty()).then(|| (Arrow::default(), uplink)),
        );
    };
    let port = named(&tap.name);
    let name = tap.tap.clone().unwrap_or_default();
    let uplink = Stage::new(Kind::Uplink, name.as_str()).details(behind(&Place::own(world), &name));
    let arrow = Arrow::back(port).drops(port);
    (
        stage,
        Some((arrow.note(Some(format!("all of {name}"))), uplink)),
    )
}

/// The bridge, or the link, that a tap or macvtap leads to, and what is beyond.
pub(super) fn link(place: &Place<'_>, name: &str) -> (Stage, Beyond) {
    let stage = |title: String| Stage::new(Kind::Segment, title);
    let Some(link) = place.link(name) else {
        let stage = stage(name.to_owned()).detail("in another network namespace than its QEMU");
        return (stage, None);
    };
    if let LinkKind::Macvtap(mode) = &link.kind {
        let lower = link.lower.and_then(|index| place.link_by_index(index));
        let stage = stage(format!("macvtap {name}")).detail(format!("mode {mode}"));
        let uplink = lower.map(|lower| (outwards(place, &lower.name), nic(lower)));
        return (stage, uplink);
    }
    let Some(master) = link.master.and_then(|index| place.link_by_index(index)) else {
        let stage = stage(format!("tap {name}"));
        return match link.addresses.is_empty() {
            true => (
                stage.detail("on no bridge, without an address").broken(),
                None,
            ),
            false => {
                let host = Stage::new(Kind::Uplink, "host").details(addresses(link));
                (stage.detail("on no bridge"), Some((Arrow::default(), host)))
            }
        };
    };
    let members = place.network.iter().flat_map(|network| &network.links);
    let members: Vec<&Surveyed> = members
        .filter(|it| it.master == Some(master.index))
        .collect();
    let s = if members.len() == 1 { "" } else { "s" };
    let mut segment = stage(format!("bridge {}", master.name)).detail(format!(
        "{name}{}, {} port{s} in all",
        link.port
            .map(|state| format!(" {}", lower_case(state)))
            .unwrap_or_default(),
        members.len()
    ));
    if matches!(&master.kind, LinkKind::Bridge(bridge) if bridge.stp) {
        segment = segment.detail("spanning tree on");
    }
    let beyond = match (ways(&members).as_slice(), addresses(master).is_empty()) {
        ([way], _) => Some((outwards(place, &way.name), nic(way))),
        ([], false) => {
            let host = Stage::new(Kind::Uplink, "host").details(addresses(master));
            // What a bridge receives, its host does.
            let counted = place.counted(&master.name);
            let note = Some(format!("all of {}", master.name));
            Some((Arrow::of(counted).drops(counted).note(note), host))
        }
        ([], true) => None,
        (several, _) => {
            let names = several.iter().map(|way| way.name.clone());
            let uplink = Stage::new(Kind::Uplink, "NICs").details(names);
            Some((Arrow::default(), uplink))
        }
    };
    (segment, beyond)
}

/// Members of a bridge that lead out: NICs, and where there are none what else is no guest's.
fn ways<'a>(members: &[&'a Surveyed]) -> Vec<&'a Surveyed> {
    let of = |wanted: fn(&LinkKind) -> bool| -> Vec<&'a Surveyed> {
        let ways = members.iter().filter(|member| wanted(&member.kind));
        ways.copied().collect()
    };
    let nics = of(|kind| *kind == LinkKind::Device);
    match nics.is_empty() {
        true => of(|kind| matches!(kind, LinkKind::Other(_))),
        false => nics,
    }
}

/// What a tap of the kernel counted, as seen from the guest.
pub(super) fn tap(place: &Place<'_>, name: &str) -> Option<PortRates> {
    let counted = place.counted(name)?.clone();
    let kind = place.link(name).map(|link| &link.kind);
    Some(match kind {
        // A card: what it receives goes to the guest.
        Some(LinkKind::Macvtap(_)) => counted.turned(),
        _ => counted,
    })
}

/// A port that no machine of this host is at.
pub(super) fn lone(world: &World, port: &PortRates) -> Path {
    let known = world.ports.iter().find(|known| known.name == port.name);
    let of_kernel = matches!(port.kind.as_str(), "tap" | "vhost-net" | "macvtap");
    let link = known.and_then(|known| known.tap.as_deref());
    let is_kernel_port = of_kernel && known.is_some_and(|known| known.network.is_some());
    let first = match (port.kind.as_str(), port.connected) {
        (kind, connected) if kind == "vhost-user" || is_kernel_port => match connected {
            true => Stage::new(Kind::Guest, "driver").detail("no QEMU of this host"),
            false => Stage::new(Kind::Guest, "nobody").detail("waits for a machine"),
        },
        ("generator", _) => Stage::new(Kind::Guest, "generator").detail("makes frames"),
        ("sink", _) => Stage::new(Kind::Guest, "sink").detail("forgets frames"),
        (kind, _) => {
            let stage = Stage::new(Kind::Guest, link.unwrap_or(kind));
            stage.details(
                link.into_iter()
                    .flat_map(|link| behind(&Place::own(world), link)),
            )
        }
    };
    let mut path = Path {
        name: port.name.clone(),
        about: format!("port of kind {}", port.kind),
        ..Path::default()
    };
    let (segment, beyond) = match (known, link) {
        (Some(_), Some(link)) if is_kernel_port => self::link(&Place::own(world), link),
        (Some(known), None) => switch(world, known),
        _ => (
            Stage::new(Kind::Segment, "switch").detail(format!("port {}", port.name)),
            None,
        ),
    };
    path.stages = match is_kernel_port {
        true => vec![first, segment],
        false => vec![first, workers(world, port), segment],
    };
    path.arrows = match is_kernel_port {
        true => vec![Arrow::of(Some(port)).drops(Some(port))],
        false => vec![
            Arrow::of(Some(port)),
            Arrow::of(Some(port)).drops(Some(port)),
        ],
    };
    if let Some((arrow, uplink)) = beyond.filter(|_| port.kind == "vhost-user" || is_kernel_port) {
        path.arrows.push(arrow);
        path.stages.push(uplink);
    }
    path
}

/// What leaves through an interface comes from guests.
fn outwards(place: &Place<'_>, name: &str) -> Arrow {
    let counted = place.counted(name);
    Arrow::back(counted)
        .drops(counted)
        .note(Some(format!("all of {name}")))
}

fn nic(link: &Surveyed) -> Stage {
    let stage = Stage::new(Kind::Uplink, link.name.as_str());
    match (link.up, link.carrier) {
        (true, true) => stage.details(addresses(link)),
        (true, false) => stage.detail("no carrier").broken(),
        (false, _) => stage.detail("down").broken(),
    }
}

/// Where an interface of the host leads: a bridge, or the host itself.
fn behind(place: &Place<'_>, name: &str) -> Vec<String> {
    let Some(link) = place.link(name) else {
        return vec!["not in this network namespace".into()];
    };
    let master = link.master.and_then(|index| place.link_by_index(index));
    let mut lines: Vec<String> = master
        .map(|master| format!("on bridge {}", master.name))
        .into_iter()
        .collect();
    let hosts = addresses(master.unwrap_or(link));
    lines.extend(hosts.iter().map(|address| format!("host {address}")));
    lines
}

/// Link-local ones tell nothing.
fn addresses(link: &Surveyed) -> Vec<String> {
    let told = link
        .addresses
        .iter()
        .filter(|address| match address.addr() {
            IpAddr::V6(v6) => !v6.is_unicast_link_local(),
            IpAddr::V4(_) => true,
        });
    told.map(ToString::to_string).collect()
}

fn lower_case(state: PortState) -> String {
    format!("{state:?}").to_lowercase()
}
