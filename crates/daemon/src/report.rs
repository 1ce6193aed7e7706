//! The state as clients see it.

use ringway_api::v1::{Binding, Forward, Lease, Name, NetworkInfo, PortInfo};
use ringway_network::{Invalid, Network, Port, State};

/// A network; `lent` is how many of its addresses DHCP lent, `free` how many it has left.
pub(crate) fn network(network: &Network, lent: usize, free: Option<usize>) -> NetworkInfo {
    let bound = network.ports.values().filter(|p| p.address.is_some());
    NetworkInfo {
        spec: network.spec.clone(),
        gateway: network.gateway(),
        interface: network.interface.clone(),
        vlan: network.vlan,
        ports: network.ports.len(),
        leases: bound.count() + network.leases.len() + lent,
        free,
    }
}

/// A port; what is not known from the state is left open.
pub(crate) fn port(network: &Name, name: &Name, port: &Port) -> PortInfo {
    PortInfo {
        network: network.clone(),
        name: name.clone(),
        path: port.path,
        socket: port.tap.is_none().then(|| port.socket.clone()),
        tap: port.tap.clone(),
        mac: port.mac,
        address: port.address,
        queues: port.queues,
        rate: port.rate,
        connected: None,
    }
}

/// Addresses that are bound, by ports and by people.
pub(crate) fn bound(network: &Network) -> Vec<Lease> {
    let ports = network.ports.iter().filter_map(|(name, port)| {
        Some(Lease {
            network: network.spec.name.clone(),
            address: port.address?,
            mac: Some(port.mac),
            client_id: None,
            name: Some(name.clone()),
            binding: Binding::Port,
            expires: None,
        })
    });
    let people = network.leases.iter().map(|lease| Lease {
        network: network.spec.name.clone(),
        address: lease.address,
        mac: lease.mac,
        client_id: lease.client_id.clone(),
        name: lease.name.clone(),
        binding: Binding::Static,
        expires: None,
    });
    ports.chain(people).collect()
}

/// The networks a listing is about: all, or the one that is named.
pub(crate) fn chosen<'a>(
    state: &'a State,
    network: Option<&Name>,
) -> Result<Vec<&'a Network>, Invalid> {
    match network {
        Some(name) => Ok(vec![state.network(name)?]),
        None => Ok(state.networks.values().collect()),
    }
}

/// Forwards of the networks chosen.
pub(crate) fn forwards(state: &State, network: Option<&Name>) -> Result<Vec<Forward>, Invalid> {
    let networks = chosen(state, network)?;
    let mut forwards: Vec<Forward> = networks
        .into_iter()
        .flat_map(|network| network.forwards.clone())
        .collect();
    forwards.sort_by_key(|forward| forward.id);
    Ok(forwards)
}
