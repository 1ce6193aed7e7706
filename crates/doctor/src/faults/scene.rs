//! What faults of taps and links look at: machines with their NICs, and where those end on the host.

use ipnet::{IpNet, Ipv4Net};
use ringway_host::survey::{Bridge, Kind, Surveyed};

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

/// A bridge that machines are on, or a tap of one that has an address itself: what the guest's link ends at.
pub(super) struct Place<'a> {
    pub(super) network: &'a Network,
    pub(super) link: &'a Surveyed,
    pub(super) machines: Vec<&'a str>,
}

/// Where machines' taps end, each once.
pub(super) fn places(facts: &Facts) -> Vec<Place<'_>> {
    let mut places: Vec<Place<'_>> = Vec::new();
    for seat in seats(facts) {
        let link = seat.network.master(seat.link).unwrap_or(seat.link);
        let same = |place: &&mut Place<'_>| {
            std::ptr::eq(place.network, seat.network) && place.link.index == link.index
        };
        match places.iter_mut().find(same) {
            Some(place) => place.machines.push(&seat.machine.name),
            None => places.push(Place {
                network: seat.network,
                link,
                machines: vec![&seat.machine.name],
            }),
        }
    }
    for place in &mut places {
        place.machines.dedup();
    }
    places
}

impl<'a> Place<'a> {
    /// It as a bridge.
    pub(super) fn bridge(&self) -> Option<&'a Bridge> {
        match &self.link.kind {
            Kind::Bridge(bridge) => Some(bridge),
            _ => None,
        }
    }

    /// Its ports that are no taps: the ways on from a bridge.
    pub(super) fn ways_on(&self) -> Vec<&'a Surveyed> {
        let ports = self.network.ports(self.link);
        ports
            .filter(|port| !matches!(port.kind, Kind::Tap(_)))
            .collect()
    }

    /// Its IPv4 networks.
    pub(super) fn subnets(&self) -> Vec<Ipv4Net> {
        let addresses = self.link.addresses.iter();
        let v4 = addresses.filter_map(|address| match address {
            IpNet::V4(it) => Some(it.trunc()),
            IpNet::V6(_) => None,
        });
        v4.collect()
    }

    /// The link that leads outside, where that is another one and the host stands between.
    pub(super) fn outside(&self) -> Option<&'a Surveyed> {
        let uplink = self.network.uplink()?;
        let between = uplink.index != self.link.index && !self.subnets().is_empty();
        between.then_some(uplink)
    }

    /// Its sign.
    pub(super) fn sign(&self, subject: &Surveyed, what: String, cure: Vec<String>) -> Sign {
        let kind = match &subject.kind {
            Kind::Bridge(_) => "bridge",
            Kind::Tap(_) => "tap",
            _ => "link",
        };
        let machine = match self.machines.as_slice() {
            [one] => Some((*one).to_owned()),
            _ => None,
        };
        Sign {
            machine,
            subject: format!("{kind} {}", subject.name),
            what,
            cure: self.network.inside(cure),
        }
    }
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

    /// The link of the best default route.
    pub(super) fn uplink(&self) -> Option<&Surveyed> {
        let routes = self.routes.iter();
        let defaults = routes.filter(|route| route.destination.prefix_len() == 0);
        let best = defaults.min_by_key(|route| route.metric)?;
        self.link_by_index(best.link)
    }

    /// The bridge a tap may be put into: the only one there is.
    pub(super) fn only_bridge(&self) -> Option<&Surveyed> {
        let is_bridge = |link: &&Surveyed| matches!(link.kind, Kind::Bridge(_));
        let mut bridges = self.links.iter().filter(is_bridge);
        bridges.next().filter(|_| bridges.next().is_none())
    }
}
