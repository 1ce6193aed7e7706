//! What a state means on the host and in the switch: things that are there or are not.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use ipnet::{Ipv4Net, Ipv6Net};
use ringway_api::port_spec::{InterfaceName, Mac, PortKind, PortSpec, VhostNet, VhostUser};
use ringway_api::v1::{Forward, Kind, Name, PortPath, StaticLease};

use crate::model::{Network, Port, State, first};

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

/// An interface of the host for a network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its name.
    pub interface: InterfaceName,
    /// What it is.
    pub kind: LinkKind,
    /// The gateway's address, with the subnet's length.
    pub address: Option<Ipv4Net>,
    /// The gateway's IPv6 address.
    pub address6: Option<Ipv6Net>,
    /// Largest IP packet; the bridge's if absent.
    pub mtu: Option<u16>,
    /// The bridge it belongs to.
    pub bridge: Option<InterfaceName>,
}

/// What an interface is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkKind {
    /// The switch's tap into the host.
    Uplink,
    /// A bridge of that tap and those of virtual machines. It has the Ethernet address that the named interface has, so that the
    /// gateway's stays the same.
    Bridge(InterfaceName),
    /// A tap that a VMM opens.
    Tap(TapKind),
    /// A macvtap that a VMM opens.
    Macvtap {
        /// Over this interface.
        over: InterfaceName,
        /// The virtual machine's address, which is the interface's.
        mac: Mac,
        /// As with taps.
        tap: TapKind,
    },
}

impl LinkKind {
    /// What it is called.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Uplink => "interface",
            Self::Bridge(_) => "bridge",
            Self::Tap(_) => "tap",
            Self::Macvtap { .. } => "macvtap",
        }
    }
}

/// A tap for a VMM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TapKind {
    /// Queue pairs.
    pub queues: u16,
    /// User who may open it.
    pub owner: Option<u32>,
    /// Group that may open it.
    pub group: Option<u32>,
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
    /// Taps on bridges, and the only address that may send there: what the switch sees to at its own ports.
    pub taps: BTreeMap<String, Mac>,
}

/// A network as the firewall sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FirewallNetwork {
    /// How it meets the world.
    pub kind: Kind,
    /// Its interface.
    pub interface: InterfaceName,
    /// That is a bridge.
    pub bridged: bool,
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
        let needed = !firewall.networks.is_empty() || !firewall.taps.is_empty();
        things.firewall = needed.then_some(firewall);
        things
    }

    fn add(&mut self, name: &Name, network: &Network, firewall: &mut Firewall) {
        let spec = &network.spec;
        let subnet = spec.subnet.zip(network.gateway());
        let addressed = Link {
            interface: network.interface.clone(),
            kind: LinkKind::Uplink,
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
        let bridge = network.bridge();
        let uplink = match &bridge {
            None => addressed,
            // The address moves to the bridge; the tap is one of its ports.
            Some(bridge) => {
                let above = Link {
                    interface: bridge.clone(),
                    kind: LinkKind::Bridge(network.interface.clone()),
                    ..addressed.clone()
                };
                self.links.insert(bridge.to_string(), above);
                Link {
                    address: None,
                    address6: None,
                    bridge: Some(bridge.clone()),
                    ..addressed
                }
            }
        };
        if !network.direct {
            let interface = network.interface.to_string();
            let gateway = PortSpec {
                vlan: Some(network.vlan),
                ..PortSpec::new(PortKind::Tap {
                    name: network.interface.clone(),
                    queues: 1,
                    vhost: VhostNet::Auto,
                })
            };
            self.links.insert(interface.clone(), uplink);
            self.switch_ports
                .insert(interface, SwitchPort { spec: gateway });
        }
        let bridge = bridge.or(spec.bridge.clone());
        for (port_name, port) in &network.ports {
            match &port.tap {
                None => self.add_socket(format!("{name}/{port_name}"), network, port),
                Some(tap) => {
                    let link = tap_link(tap, network, port, bridge.clone());
                    if link.bridge.is_some() {
                        firewall.taps.insert(tap.to_string(), port.mac);
                    }
                    self.links.insert(tap.to_string(), link);
                }
            }
        }
        if let Some((subnet, gateway)) = subnet {
            let rules = FirewallNetwork {
                kind: spec.kind,
                interface: network.gateway_interface(),
                bridged: network.bridge().is_some(),
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

    /// A vhost-user port.
    fn add_socket(&mut self, full: String, network: &Network, port: &Port) {
        let socket = VhostUser {
            path: port.socket.clone(),
            mode: Default::default(),
            queues: port.queues,
            group: None,
            permissions: VhostUser::PERMISSIONS,
        };
        let spec = PortSpec {
            name: Some(full.clone()),
            vlan: Some(network.vlan),
            mac: Some(port.mac),
            rate: port.rate,
            ..PortSpec::new(PortKind::VhostUser(socket))
        };
        self.switch_ports.insert(full, SwitchPort { spec });
    }
}

/// A tap or macvtap of a port.
fn tap_link(
    tap: &InterfaceName,
    network: &Network,
    port: &Port,
    bridge: Option<InterfaceName>,
) -> Link {
    let of = TapKind {
        queues: port.queues,
        owner: port.owner,
        group: port.group,
    };
    let (kind, bridge) = match (port.path, &network.spec.bridge) {
        (PortPath::Macvtap, Some(over)) => {
            let (over, mac) = (over.clone(), port.mac);
            (LinkKind::Macvtap { over, mac, tap: of }, None)
        }
        _ => (LinkKind::Tap(of), bridge),
    };
    Link {
        interface: tap.clone(),
        kind,
        address: None,
        address6: None,
        mtu: network.spec.mtu,
        bridge,
    }
}
