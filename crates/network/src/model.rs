//! The state: networks, completed and free of contradictions.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::PathBuf;

use ipnet::Ipv4Net;
use ringway_api::port_spec::{InterfaceName, Mac, Rate};
use ringway_api::v1::{Forward, Kind, Name, NetworkSpec, PortPath, StaticLease};
use serde::{Deserialize, Serialize};

use crate::choose;
use crate::error::Invalid;
use crate::near;

/// What the host has that networks must not clash with, and where ours may put things.
#[derive(Clone, Debug, Default)]
pub struct Site {
    /// Destinations of the host's routes, without the default one and without those of our own interfaces.
    pub routes: Vec<Ipv4Net>,
    /// Directory under which sockets of ports are made.
    pub sockets: PathBuf,
    /// Interfaces of the host that are no bridges.
    pub plain: Vec<String>,
}

/// All networks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// By name.
    pub networks: BTreeMap<Name, Network>,
    /// Number of the next forward.
    pub next_forward: u64,
}

/// A network with everything that was chosen for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// As asked for; subnet and MTU filled in.
    pub spec: NetworkSpec,
    /// What it is inside the switch, 1 to 4094.
    pub vlan: u16,
    /// The host's interface into it.
    pub interface: InterfaceName,
    /// The interface that it joins is no bridge: only a macvtap gets there.
    #[serde(default)]
    pub direct: bool,
    /// Its ports.
    pub ports: BTreeMap<Name, Port>,
    /// Addresses bound to others than ports.
    pub leases: Vec<StaticLease>,
    /// Its forwards.
    pub forwards: Vec<Forward>,
}

/// A port of a network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Port {
    /// How the NIC reaches it.
    pub path: PortPath,
    /// The vhost-user socket; empty for the other paths.
    pub socket: PathBuf,
    /// The tap, for the other paths.
    #[serde(default)]
    pub tap: Option<InterfaceName>,
    /// User who may open it.
    #[serde(default)]
    pub owner: Option<u32>,
    /// Group that may open it.
    #[serde(default)]
    pub group: Option<u32>,
    /// Address of the NIC.
    pub mac: Mac,
    /// IP address bound to it.
    pub address: Option<Ipv4Addr>,
    /// Queue pairs.
    pub queues: u16,
    /// Limit in each direction.
    pub rate: Option<Rate>,
}

impl Network {
    /// Taps of the kernel and the switch's own one share a bridge, which is there as long as there are such taps.
    pub fn bridge(&self) -> Option<InterfaceName> {
        let tap = |port: &Port| matches!(port.path, PortPath::Tap | PortPath::VhostNet);
        let ours = self.spec.kind != Kind::Bridge && self.ports.values().any(tap);
        ours.then(|| choose::bridge(&self.spec.name))
    }

    /// The interface with the gateway's address: the bridge, or the switch's tap alone.
    pub fn gateway_interface(&self) -> InterfaceName {
        self.bridge().unwrap_or_else(|| self.interface.clone())
    }

    /// The first address of the subnet; `None` with [`Kind::Bridge`].
    pub fn gateway(&self) -> Option<Ipv4Addr> {
        self.spec.subnet.map(|subnet| first(&subnet))
    }

    /// Addresses that DHCP lends: those asked for, or all behind the gateway's.
    pub fn range(&self) -> Option<(Ipv4Addr, Ipv4Addr)> {
        let subnet = self.spec.subnet?;
        let all = (
            Ipv4Addr::from(u32::from(first(&subnet)) + 1),
            Ipv4Addr::from(u32::from(subnet.broadcast()) - 1),
        );
        Some(self.spec.dhcp.range.unwrap_or(all))
    }

    /// Who has the MAC or the bound IP address.
    pub(crate) fn holder(
        &self,
        mac: Option<Mac>,
        address: Option<Ipv4Addr>,
        except: Option<&Name>,
    ) -> Option<String> {
        let same = |theirs: Option<Mac>, ip: Option<Ipv4Addr>| {
            (mac.is_some() && theirs == mac) || (address.is_some() && ip == address)
        };
        if address.is_some() && self.gateway() == address {
            return Some("the gateway".into());
        }
        let mut ports = self.ports.iter().filter(|(name, _)| Some(*name) != except);
        let port = ports
            .find(|(_, port)| same(Some(port.mac), port.address))
            .map(|(name, _)| format!("port {name}"));
        let lease = || {
            self.leases
                .iter()
                .find(|lease| same(lease.mac, Some(lease.address)))
                .map(|lease| format!("a binding of {}", lease.address))
        };
        port.or_else(lease)
    }

    pub(crate) fn check_address(
        &self,
        what: &'static str,
        address: Ipv4Addr,
    ) -> Result<(), Invalid> {
        let subnet = self
            .spec
            .subnet
            .ok_or_else(|| Invalid::NoAddresses(self.spec.name.clone()))?;
        inside(what, address, subnet)
    }
}

impl State {
    /// The network of that name.
    pub fn network(&self, name: &Name) -> Result<&Network, Invalid> {
        self.networks.get(name).ok_or_else(|| self.no_network(name))
    }

    fn no_network(&self, name: &Name) -> Invalid {
        Invalid::NoNetwork {
            name: name.clone(),
            near: near::nearest(name, self.networks.keys()).cloned(),
        }
    }

    pub(crate) fn network_mut(&mut self, name: &Name) -> Result<&mut Network, Invalid> {
        let missing = self.no_network(name);
        self.networks.get_mut(name).ok_or(missing)
    }
}

pub(crate) fn first(subnet: &Ipv4Net) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(subnet.network()) + 1)
}

pub(crate) fn inside(
    what: &'static str,
    address: Ipv4Addr,
    subnet: Ipv4Net,
) -> Result<(), Invalid> {
    if subnet.contains(&address) && address != subnet.network() && address != subnet.broadcast() {
        Ok(())
    } else {
        Err(Invalid::Outside {
            what,
            address,
            subnet,
        })
    }
}
