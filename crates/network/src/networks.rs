//! Networks come, change and go.

use std::collections::BTreeMap;

use ipnet::Ipv4Net;
use ringway_api::v1::{Document, Forward, Kind, Name, NetworkSpec, Record, RecordData};

use crate::choose;
use crate::error::{Invalid, label};
use crate::model::{Network, Site, State, inside};

/// MTU of networks that say nothing.
const MTU: u16 = 1500;

impl State {
    /// Adds a network with what was not said chosen for it.
    pub fn create(&mut self, spec: NetworkSpec, site: &Site) -> Result<&Network, Invalid> {
        if self.networks.contains_key(&spec.name) {
            return Err(Invalid::NetworkExists(spec.name));
        }
        let used = |vlan: &u16| self.networks.values().any(|network| network.vlan == *vlan);
        let vlan = (1..=4094)
            .find(|vlan| !used(vlan))
            .ok_or(Invalid::TooManyNetworks)?;
        let spec = self.complete(spec, site)?;
        let joins = spec.bridge.as_ref().map(|bridge| bridge.as_str());
        let direct = joins.is_some_and(|bridge| site.plain.iter().any(|plain| plain == bridge));
        let interface = choose::interface(&spec.name);
        if self
            .networks
            .values()
            .any(|network| network.interface == interface)
        {
            return Err(Invalid::InterfaceTaken(interface));
        }
        let network = Network {
            vlan,
            interface,
            direct,
            ports: BTreeMap::new(),
            leases: Vec::new(),
            forwards: Vec::new(),
            spec,
        };
        Ok(self
            .networks
            .entry(network.spec.name.clone())
            .or_insert(network))
    }

    /// Checks a network as asked for and fills in what was left open.
    fn complete(&self, mut spec: NetworkSpec, site: &Site) -> Result<NetworkSpec, Invalid> {
        let kind = label(spec.kind);
        if let Some(mtu) = spec.mtu.filter(|mtu| !(576..=65521).contains(mtu)) {
            return Err(Invalid::Mtu(mtu));
        }
        if spec.kind == Kind::Bridge {
            if spec.bridge.is_none() {
                return Err(Invalid::NoBridge(spec.name));
            }
            if spec.subnet.is_some() || spec.subnet6.is_some() {
                return Err(Invalid::NotForKind {
                    what: "a subnet",
                    kind,
                });
            }
            // Somebody else's network: whatever answers there is theirs.
            spec.dhcp.enabled = false;
            spec.dns.enabled = false;
            return Ok(spec);
        }
        if spec.bridge.is_some() {
            return Err(Invalid::NotForKind {
                what: "--bridge",
                kind,
            });
        }
        spec.mtu = spec.mtu.or(Some(MTU));
        let subnet = self.subnet(&spec, site)?;
        spec.subnet = Some(subnet);
        check_dhcp(&spec, subnet)?;
        check_dns(&spec)?;
        Ok(spec)
    }

    fn subnet(&self, spec: &NetworkSpec, site: &Site) -> Result<Ipv4Net, Invalid> {
        let others = self
            .networks
            .values()
            .filter(|network| network.spec.name != spec.name);
        let others: Vec<(&Name, Ipv4Net)> = others
            .filter_map(|network| Some((&network.spec.name, network.spec.subnet?)))
            .collect();
        let Some(asked) = spec.subnet else {
            let taken: Vec<Ipv4Net> = others
                .iter()
                .map(|(_, subnet)| *subnet)
                .chain(site.routes.iter().copied())
                .collect();
            return choose::subnet(&taken).ok_or(Invalid::NoSubnetLeft);
        };
        let subnet = asked.trunc();
        let reserved = subnet.network().is_loopback()
            || subnet.network().is_multicast()
            || subnet.network().octets()[0] == 0;
        if !(8..=29).contains(&subnet.prefix_len())
            || reserved
            || subnet.network().octets()[0] >= 240
        {
            return Err(Invalid::Subnet(asked));
        }
        let network = others
            .iter()
            .find(|(_, other)| choose::overlap(&subnet, other))
            .map(|(name, other)| format!("network {name} ({other})"));
        // A host may well have a route to all of 10.0.0.0/8 and lend us a part; one that lies within ours is cut off.
        let route = || {
            site.routes
                .iter()
                .find(|route| subnet.contains(*route))
                .map(|route| format!("a route of the host ({route})"))
        };
        match network.or_else(route) {
            Some(with) => Err(Invalid::Overlap { subnet, with }),
            None => Ok(subnet),
        }
    }

    /// Takes a network away, its ports too if `force` says so.
    pub fn delete(&mut self, name: &Name, force: bool) -> Result<Network, Invalid> {
        let network = self.network(name)?.clone();
        let count = network.ports.len();
        if count > 0 && !force {
            return Err(Invalid::HasPorts {
                network: name.clone(),
                count,
            });
        }
        self.networks.remove(name);
        Ok(network)
    }

    /// The state that a document asks for. What it says about a network that stands already may differ in everything but kind,
    /// bridge, subnet and MTU.
    pub fn apply(&self, document: Document, site: &Site) -> Result<Self, Invalid> {
        let mut next = self.clone();
        let mut seen = Vec::new();
        for asked in document.networks {
            let name = asked.spec.name.clone();
            if seen.contains(&name) {
                return Err(Invalid::Twice(format!("network {name}")));
            }
            seen.push(name.clone());
            let old = next.networks.remove(&name);
            let mut spec = asked.spec;
            if let Some(old) = &old {
                let fixed = |what| Invalid::Fixed {
                    network: name.clone(),
                    what,
                };
                let kept = |asked: bool, what| if asked { Ok(()) } else { Err(fixed(what)) };
                kept(spec.kind == old.spec.kind, "the kind")?;
                kept(spec.bridge == old.spec.bridge, "the bridge")?;
                kept(
                    spec.subnet
                        .is_none_or(|subnet| Some(subnet.trunc()) == old.spec.subnet),
                    "the subnet",
                )?;
                kept(
                    spec.mtu.is_none_or(|mtu| Some(mtu) == old.spec.mtu),
                    "the MTU",
                )?;
                spec.subnet = old.spec.subnet;
                spec.mtu = old.spec.mtu;
            }
            match &old {
                Some(old) => {
                    let spec = next.complete(
                        spec,
                        &Site {
                            routes: Vec::new(),
                            ..site.clone()
                        },
                    )?;
                    let network = Network {
                        spec,
                        ports: BTreeMap::new(),
                        leases: Vec::new(),
                        forwards: Vec::new(),
                        ..old.clone()
                    };
                    next.networks.insert(name.clone(), network);
                }
                None => next.create(spec, site).map(|_| ())?,
            }
            for mut port in asked.ports {
                let before = old.as_ref().and_then(|old| old.ports.get(&port.name));
                port.mac = port.mac.or(before.map(|before| before.mac));
                next.add_port(&name, port, site)?;
            }
            for lease in asked.leases {
                next.bind(&name, lease)?;
            }
            for forward in asked.forwards {
                let same = |old: &&Forward| old.spec == forward;
                match old.as_ref().and_then(|old| old.forwards.iter().find(same)) {
                    Some(old) => next.network_mut(&name)?.forwards.push(old.clone()),
                    None => next.forward(&name, forward).map(|_| ())?,
                }
            }
        }
        Ok(next)
    }
}

fn check_dhcp(spec: &NetworkSpec, subnet: Ipv4Net) -> Result<(), Invalid> {
    // dhcpcd takes nothing shorter.
    if !(20..=u32::MAX - 1).contains(&spec.dhcp.lease_seconds) {
        return Err(Invalid::LeaseSeconds(spec.dhcp.lease_seconds));
    }
    if let Some((first, last)) = spec.dhcp.range {
        inside("the range's first", first, subnet)?;
        inside("the range's last", last, subnet)?;
        if first > last {
            return Err(Invalid::Range { first, last });
        }
    }
    spec.dhcp
        .routes
        .iter()
        .try_for_each(|route| inside("the router", route.via, subnet))
}

fn check_dns(spec: &NetworkSpec) -> Result<(), Invalid> {
    let name = |text: &str| {
        let labels = text.strip_suffix('.').unwrap_or(text);
        let fits = labels.len() <= 253
            && labels
                .split('.')
                .all(|label| (1..64).contains(&label.len()));
        if fits {
            Ok(())
        } else {
            Err(Invalid::Dns(text.to_owned()))
        }
    };
    name(&spec.dns.domain)?;
    spec.dns
        .records
        .iter()
        .try_for_each(|Record { name: owner, data }| {
            name(owner)?;
            match data {
                RecordData::Cname(target) => name(target),
                RecordData::Txt(text) if text.len() > 255 => Err(Invalid::Dns(text.clone())),
                _ => Ok(()),
            }
        })
}
