//! What is in a network: ports, bound addresses, forwards.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use ringway_api::control::Setting;
use ringway_api::port_spec::{InterfaceName, MAX_NAME, MAX_QUEUES, MAX_SOCKET_PATH, Mac};
use ringway_api::v1::{
    Forward, ForwardSpec, Kind, Name, PortPatch, PortPath, PortRequest, StaticLease,
};

use crate::choose;
use crate::error::{Invalid, label};
use crate::model::{Network, Port, Site, State};

impl State {
    /// Adds a port.
    pub fn add_port(
        &mut self,
        name: &Name,
        request: PortRequest,
        site: &Site,
    ) -> Result<&Port, Invalid> {
        let network = self.network_mut(name)?;
        if network.ports.contains_key(&request.name) {
            return Err(Invalid::PortExists {
                network: name.clone(),
                port: request.name,
            });
        }
        check_path(network, &request)?;
        if !(1..=MAX_QUEUES).contains(&request.queues) {
            return Err(Invalid::Queues(request.queues));
        }
        let mac = match request.mac {
            Some(mac) if !mac.is_unicast() => return Err(Invalid::Mac(mac)),
            Some(mac) => mac,
            None => {
                let mut macs = (0..).map(|attempt| choose::mac(name, &request.name, attempt));
                macs.find(|mac| network.holder(Some(*mac), None, None).is_none())
                    .unwrap_or(Mac([0x52, 0x54, 0, 0, 0, 1]))
            }
        };
        if let Some(holder) = network.holder(Some(mac), None, None) {
            return Err(Invalid::AddressTaken {
                address: mac.to_string(),
                holder,
            });
        }
        if let Some(address) = request.address {
            network.check_address("address", address)?;
            if let Some(holder) = network.holder(None, Some(address), None) {
                return Err(Invalid::AddressTaken {
                    address: address.to_string(),
                    holder,
                });
            }
        }
        let (mut socket, mut tap) = (PathBuf::new(), None);
        if request.path == PortPath::VhostUser {
            let in_switch = format!("{name}/{}", request.name);
            if in_switch.len() > MAX_NAME {
                return Err(Invalid::LongName(in_switch));
            }
            let file = format!("{}.sock", request.name);
            socket = site.sockets.join(name.as_str()).join(file);
            check_socket(&socket)?;
        } else {
            tap = Some(choose::tap(name, &request.name));
        }
        if let Some(tap) = &tap
            && self.has_tap(tap)
        {
            return Err(Invalid::InterfaceTaken(tap.clone()));
        }
        let network = self.network_mut(name)?;
        let port = Port {
            path: request.path,
            socket,
            tap,
            owner: request.owner,
            group: request.group,
            mac,
            address: request.address,
            queues: request.queues,
            rate: request.rate,
        };
        Ok(network.ports.entry(request.name).or_insert(port))
    }

    fn has_tap(&self, tap: &InterfaceName) -> bool {
        let mut ports = self.networks.values().flat_map(|n| n.ports.values());
        ports.any(|port| port.tap.as_ref() == Some(tap))
    }

    /// Changes a port.
    pub fn patch_port(
        &mut self,
        name: &Name,
        port: &Name,
        patch: PortPatch,
    ) -> Result<&Port, Invalid> {
        let network = self.network_mut(name)?;
        let missing = || Invalid::NoPort {
            network: name.clone(),
            port: port.clone(),
        };
        let old = network.ports.get(port).ok_or_else(missing)?;
        let mut new = old.clone();
        match patch.address {
            Setting::Keep => {}
            Setting::Clear => new.address = None,
            Setting::Set(address) => {
                network.check_address("address", address)?;
                if let Some(holder) = network.holder(None, Some(address), Some(port)) {
                    return Err(Invalid::AddressTaken {
                        address: address.to_string(),
                        holder,
                    });
                }
                new.address = Some(address);
            }
        }
        match patch.rate {
            Setting::Keep => {}
            Setting::Clear => new.rate = None,
            Setting::Set(_) if old.path != PortPath::VhostUser => {
                return Err(Invalid::NotOnTap(RATE));
            }
            Setting::Set(rate) => new.rate = Some(rate),
        }
        let place = network.ports.get_mut(port).ok_or_else(missing)?;
        *place = new;
        Ok(place)
    }

    /// Takes a port away.
    pub fn remove_port(&mut self, name: &Name, port: &Name) -> Result<Port, Invalid> {
        let network = self.network_mut(name)?;
        network.ports.remove(port).ok_or_else(|| Invalid::NoPort {
            network: name.clone(),
            port: port.clone(),
        })
    }

    /// Binds an address.
    pub fn bind(&mut self, name: &Name, lease: StaticLease) -> Result<(), Invalid> {
        let network = self.network_mut(name)?;
        if lease.mac.is_some() == lease.client_id.is_some() {
            return Err(Invalid::LeaseClient);
        }
        if let Some(id) = &lease.client_id {
            let digits = id.len() % 2 == 0
                && (4..=510).contains(&id.len())
                && id.bytes().all(|byte| byte.is_ascii_hexdigit());
            if !digits {
                return Err(Invalid::ClientId(id.clone()));
            }
        }
        network.check_address("address", lease.address)?;
        if let Some(holder) = network.holder(lease.mac, Some(lease.address), None) {
            return Err(Invalid::AddressTaken {
                address: lease.address.to_string(),
                holder,
            });
        }
        network.leases.push(lease);
        Ok(())
    }

    /// Ends a binding.
    pub fn unbind(&mut self, name: &Name, address: Ipv4Addr) -> Result<(), Invalid> {
        let network = self.network_mut(name)?;
        let count = network.leases.len();
        network.leases.retain(|lease| lease.address != address);
        if network.leases.len() == count {
            return Err(Invalid::NoLease {
                network: name.clone(),
                address,
            });
        }
        Ok(())
    }

    /// Adds a forward.
    pub fn forward(&mut self, name: &Name, spec: ForwardSpec) -> Result<Forward, Invalid> {
        let network = self.network(name)?;
        if network.spec.kind != Kind::Nat {
            return Err(Invalid::NotForKind {
                what: "a forward",
                kind: label(network.spec.kind),
            });
        }
        network.check_address("target", spec.to)?;
        let first = spec.to_port.unwrap_or(spec.ports.first());
        let count = u32::from(spec.ports.last() - spec.ports.first()) + 1;
        if first == 0 || u32::from(first) + count - 1 > u32::from(u16::MAX) {
            return Err(Invalid::ForwardRange { first, count });
        }
        let clash = self
            .networks
            .values()
            .flat_map(|network| &network.forwards)
            .find(|other| {
                let listen = other.spec.listen.is_none()
                    || spec.listen.is_none()
                    || other.spec.listen == spec.listen;
                listen
                    && other.spec.protocol == spec.protocol
                    && other.spec.ports.overlaps(spec.ports)
            });
        if let Some(other) = clash {
            return Err(Invalid::ForwardOverlap {
                protocol: spec.protocol,
                ports: spec.ports,
                id: other.id,
            });
        }
        self.next_forward += 1;
        let forward = Forward {
            id: self.next_forward,
            network: name.clone(),
            spec,
        };
        self.network_mut(name)?.forwards.push(forward.clone());
        Ok(forward)
    }

    /// Takes a forward away.
    pub fn remove_forward(&mut self, name: &Name, id: u64) -> Result<(), Invalid> {
        let network = self.network_mut(name)?;
        let count = network.forwards.len();
        network.forwards.retain(|forward| forward.id != id);
        if network.forwards.len() == count {
            return Err(Invalid::NoForward {
                network: name.clone(),
                id,
            });
        }
        Ok(())
    }
}

/// Whether the network can be reached in the way that is asked for.
fn check_path(network: &Network, request: &PortRequest) -> Result<(), Invalid> {
    let interface = network.spec.bridge.as_ref();
    match (request.path, interface) {
        (PortPath::Macvtap, None) => {
            return Err(Invalid::Macvtap(network.spec.name.clone()));
        }
        (PortPath::Macvtap, Some(_)) => {}
        (_, Some(interface)) if network.direct => {
            return Err(Invalid::NoBridgeThere(interface.clone()));
        }
        _ => {}
    }
    if request.path == PortPath::VhostUser {
        if request.owner.is_some() || request.group.is_some() {
            return Err(Invalid::NoTap);
        }
    } else if request.rate.is_some() {
        return Err(Invalid::NotOnTap(RATE));
    }
    Ok(())
}

const RATE: &str = "a rate limit";

fn check_socket(path: &Path) -> Result<(), Invalid> {
    let len = path.as_os_str().len();
    if len <= MAX_SOCKET_PATH {
        Ok(())
    } else {
        Err(Invalid::SocketPath(path.display().to_string()))
    }
}
