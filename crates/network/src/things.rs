//! What a state means on the host and in the switch: things that are there or are not.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use ipnet::{Ipv4Net, Ipv6Net};
use ringway_api::port_spec::{InterfaceName, PortKind, PortSpec, VhostNet, VhostUser};
use ringway_api::v1::{Forward, Kind, Name, StaticLease};

use crate::model::{Network, State, first};

/// Everything a state asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Things {
    /// Interfaces of the host, by name.
    pub links: BTreeMap<String, Link>,
    /// Ports of the switch, by name.
    pub switch_ports: BTreeMap<String, SwitchPort>,
    /// The firewall, one for all networks. `None` if no network needs it.
    pub firewall: Option<Firewall>,
    /// What answers in a network, by the network's name.
    pub services: BTreeMap<Name, Service>,
}

/// A tap of the host into a network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its name.
    pub interface: InterfaceName,
    /// The gateway's address, with the subnet's length.
    pub address: Option<Ipv4Net>,
    /// The gateway's IPv6 address.
    pub address6: Option<Ipv6Net>,
    /// Largest IP packet; the bridge's if absent.
    pub mtu: Option<u16>,
    /// The bridge it belongs to.
    pub bridge: Option<InterfaceName>,
}

/// A port of the switch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SwitchPort {
    /// As the switch is told; its name is `NETWORK/PORT`, or the interface's for a gateway.
    pub spec: PortSpec,
}

/// The firewall: what every network contributes to our one table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Firewall {
    /// By name.
    pub networks: BTreeMap<Name, FirewallNetwork>,
}

/// A network as the firewall sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FirewallNetwork {
    /// How it meets the world.
    pub kind: Kind,
    /// Its interface.
    pub interface: InterfaceName,
    /// Its subnet.
    pub subnet: Ipv4Net,
    /// Its forwards.
    pub forwards: Vec<Forward>,
}

impl FirewallNetwork {
    /// The host's address in it.
    pub(crate) fn gateway(&self) -> Ipv4Addr {
        first(&self.subnet)
    }
}

/// What answers in a network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// The network.
    pub network: Network,
    /// The gateway.
    pub gateway: Ipv4Addr,
    /// Its subnet.
    pub subnet: Ipv4Net,
}

impl Service {
    /// Every address that is bound, with its name: those of ports, and those bound to others.
    pub fn bound(&self) -> impl Iterator<Item = StaticLease> + '_ {
        let ports = self.network.ports.iter().filter_map(|(name, port)| {
            Some(StaticLease {
                mac: Some(port.mac),
                client_id: None,
                address: port.address?,
                name: Some(name.clone()),
            })
        });
        ports.chain(self.network.leases.iter().cloned())
    }
}

impl Things {
    /// What `state` asks for.
    pub fn of(state: &State) -> Self {
        let mut things = Self::default();
        let mut firewall = Firewall::default();
        for (name, network) in &state.networks {
            things.add(name, network, &mut firewall);
        }
        things.firewall = (!firewall.networks.is_empty()).then_some(firewall);
        things
    }

    fn add(&mut self, name: &Name, network: &Network, firewall: &mut Firewall) {
        let spec = &network.spec;
        let subnet = spec.subnet.zip(network.gateway());
        let link = Link {
            interface: network.interface.clone(),
            address: subnet
                .and_then(|(subnet, gateway)| Ipv4Net::new(gateway, subnet.prefix_len()).ok()),
            address6: spec.subnet6.and_then(|subnet| {
                Ipv6Net::new(
                    (u128::from(subnet.trunc().network()) + 1).into(),
                    subnet.prefix_len(),
                )
                .ok()
            }),
            mtu: spec.mtu,
            bridge: spec.bridge.clone(),
        };
        self.links.insert(network.interface.to_string(), link);
        let gateway = PortSpec {
            vlan: Some(network.vlan),
            ..PortSpec::new(PortKind::Tap {
                name: network.interface.clone(),
                queues: 1,
                vhost: VhostNet::Auto,
            })
        };
        self.switch_ports
            .insert(network.interface.to_string(), SwitchPort { spec: gateway });
        for (port_name, port) in &network.ports {
            let socket = VhostUser {
                path: port.socket.clone(),
                mode: Default::default(),
                queues: port.queues,
                group: None,
                permissions: VhostUser::PERMISSIONS,
            };
            let full = format!("{name}/{port_name}");
            let spec = PortSpec {
                name: Some(full.clone()),
                vlan: Some(network.vlan),
                mac: Some(port.mac),
                rate: port.rate,
                ..PortSpec::new(PortKind::VhostUser(socket))
            };
            self.switch_ports.insert(full, SwitchPort { spec });
        }
        if let Some((subnet, gateway)) = subnet {
            let rules = FirewallNetwork {
                kind: spec.kind,
                interface: network.interface.clone(),
                subnet,
                forwards: network.forwards.clone(),
            };
            firewall.networks.insert(name.clone(), rules);
            self.services.insert(
                name.clone(),
                Service {
                    network: network.clone(),
                    gateway,
                    subnet,
                },
            );
        }
    }
}
