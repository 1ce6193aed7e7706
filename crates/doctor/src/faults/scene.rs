//! What faults of taps and links look at: machines with their NICs, and where those end on the host.

use ringway_host::survey::{Kind, Surveyed};

use super::Sign;
use crate::{
    Facts,
    command::{Command, Nic},
    facts::{Machine, Network},
};

/// A tap that a machine opens by name.
pub(super) struct Named<'a> {
    pub(super) machine: &'a Machine,
    pub(super) network: &'a Network,
    pub(super) nic: Nic,
    pub(super) name: String,
}

/// A link of a machine on the host: a tap or macvtap that is there.
#[derive(Clone, Copy)]
pub(super) struct Seat<'a> {
    pub(super) machine: &'a Machine,
    pub(super) network: &'a Network,
    pub(super) link: &'a Surveyed,
}

/// Taps that machines open by name.
pub(super) fn named_taps(facts: &Facts) -> impl Iterator<Item = Named<'_>> {
    facts.machines.iter().flat_map(|machine| {
        let nics = Command::parse(&machine.command).nics();
        nics.into_iter().filter_map(|nic| {
            Some(Named {
                machine,
                network: facts.network(machine)?,
                name: nic.tap()?.to_owned(),
                nic,
            })
        })
    })
}

/// Taps and macvtaps that machines have or want, if they are there.
pub(super) fn seats(facts: &Facts) -> Vec<Seat<'_>> {
    let mut seats = Vec::new();
    for machine in &facts.machines {
        let Some(network) = facts.network(machine) else {
            continue;
        };
        let nics = Command::parse(&machine.command).nics();
        let named = nics.iter().filter_map(|nic| network.link(nic.tap()?));
        let open = machine.descriptors.iter().filter_map(|descriptor| {
            let macvtap = descriptor.target.strip_prefix("/dev/tap");
            match (&descriptor.tap, macvtap) {
                (Some(tap), _) => network.link(tap),
                (None, Some(index)) => network.link_by_index(index.parse().ok()?),
                (None, None) => None,
            }
        });
        let mut links: Vec<&Surveyed> = named.chain(open).collect();
        links.sort_by_key(|link| link.index);
        links.dedup_by_key(|link| link.index);
        seats.extend(links.into_iter().map(|link| Seat {
            machine,
            network,
            link,
        }));
    }
    seats
}

impl Named<'_> {
    /// The tap, if it is there.
    pub(super) fn link(&self) -> Option<&Surveyed> {
        self.network.link(&self.name)
    }

    /// Its sign.
    pub(super) fn sign(&self, what: String, cure: Vec<String>) -> Sign {
        Sign {
            machine: Some(self.machine.name.clone()),
            subject: format!("tap {}", self.name),
            what,
            cure: self.network.inside(cure),
        }
    }
}

impl Seat<'_> {
    /// Its sign.
    pub(super) fn sign(&self, what: String, cure: Vec<String>) -> Sign {
        let kind = match self.link.kind {
            Kind::Macvtap(_) => "macvtap",
            _ => "tap",
        };
        Sign {
            machine: Some(self.machine.name.clone()),
            subject: format!("{kind} {}", self.link.name),
            what,
            cure: self.network.inside(cure),
        }
    }
}

impl Network {
    /// Commands for this namespace, made such as can be run where doctor was.
    pub(super) fn inside(&self, commands: Vec<String>) -> Vec<String> {
        let Some(pid) = self.entrance else {
            return commands;
        };
        let one = |line: String| match line.starts_with('#') {
            true => line,
            false => format!("nsenter --target {pid} --net {line}"),
        };
        commands.into_iter().map(one).collect()
    }

    /// The bridge a tap may be put into: the only one there is.
    pub(super) fn only_bridge(&self) -> Option<&Surveyed> {
        let is_bridge = |link: &&Surveyed| matches!(link.kind, Kind::Bridge(_));
        let mut bridges = self.links.iter().filter(is_bridge);
        bridges.next().filter(|_| bridges.next().is_none())
    }
}
