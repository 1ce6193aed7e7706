//! From what a NIC is asked to be to what it is: at a socket as it stands, at a network after the daemon has made a port.

use std::{
    os::fd::{AsRawFd, OwnedFd, RawFd},
    path::Path,
};

use anyhow::{Context, anyhow};
use ringway_api::v1::{
    Code, Name, PortInfo, PortPath, PortRequest,
    client::{Client, ClientError},
};
use ringway_host::{tap, vhost_net};
use ringway_vmm::{
    Backend, Model, Nic, NicRequest, PortOf,
    nic::{Target, mac_of},
};

use super::machine::absolute;
use crate::Failure;

/// Queue pairs that a machine gets at a network without asking, at most: more are for those who measure.
const MOST_QUEUES: u16 = 8;
/// What guests take their MTU to be when nobody tells.
const ETHERNET_MTU: u16 = 1500;

/// How QEMU gets at taps of the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Taps {
    /// By their names: whoever starts it may open them.
    Named,
    /// We open them, and it inherits their queues: it needs no right of its own.
    Opened,
}

/// A NIC, and the port that it is at.
pub(super) struct Resolved {
    pub(super) nic: Nic,
    /// What QEMU shall inherit.
    pub(super) descriptors: Vec<OwnedFd>,
    pub(super) port: Option<PortOf>,
}

/// Makes the ports that are missing. On a failure those that were made are in `made` nevertheless.
pub(super) fn resolve(
    requests: &[NicRequest],
    machine: &Name,
    cpus: u16,
    taps: Taps,
    client: &Client,
    made: &mut Vec<PortOf>,
) -> Result<Vec<Resolved>, Failure> {
    let mut resolved: Vec<Resolved> = Vec::new();
    for request in requests {
        let next = match &request.target {
            Target::Socket(path) => Resolved {
                nic: at_socket(request, path)?,
                descriptors: Vec::new(),
                port: None,
            },
            Target::Network(network) => {
                let same = resolved.iter().filter_map(|other| other.port.as_ref());
                let number = same.filter(|other| other.network == *network).count();
                let name = port_name(machine, number)?;
                let (port, is_new) = port(request, network, name, cpus, client)?;
                let of = PortOf {
                    network: port.network.clone(),
                    port: port.name.clone(),
                    made: is_new,
                };
                if is_new && port.path == PortPath::Macvtap {
                    tracing::info!(
                        "the host itself is not reached from a macvtap, nor is the machine from the host; everything else on that network is"
                    );
                }
                if is_new {
                    made.push(of.clone());
                }
                let (nic, descriptors) = at_port(request, &port, taps, client)?;
                Resolved {
                    nic,
                    descriptors,
                    port: Some(of),
                }
            }
        };
        resolved.push(next);
    }
    Ok(resolved)
}

/// Takes back what [`resolve`] made; what cannot be taken back is said.
pub(super) fn delete(ports: &[PortOf], client: &Client) {
    for port in ports.iter().filter(|port| port.made) {
        match client.delete_port(&port.network, &port.port) {
            Ok(()) => (),
            Err(ClientError::Refused(failure)) if failure.code == Code::NotFound => (),
            Err(error) => tracing::warn!(
                "port {} of network {} stays: {error}",
                port.port,
                port.network
            ),
        }
    }
}

fn at_socket(request: &NicRequest, path: &Path) -> Result<Nic, Failure> {
    let socket = absolute(path)?;
    if !socket.exists() {
        tracing::warn!(
            "no switch listens at {} yet: QEMU waits for it before it starts the machine",
            socket.display()
        );
    }
    Ok(Nic {
        model: request.model,
        queues: request.queues.unwrap_or(1),
        mac: request
            .mac
            .unwrap_or_else(|| mac_of(&socket.display().to_string())),
        mtu: request.mtu,
        backend: Backend::VhostUser { socket },
    })
}

/// A second NIC at the same network has a port of its own.
fn port_name(machine: &Name, number: usize) -> Result<Name, Failure> {
    if number == 0 {
        return Ok(machine.clone());
    }
    let name = format!("{machine}-{}", number + 1);
    Ok(name
        .parse()
        .map_err(|error| anyhow!("{error}; choose a shorter --name"))?)
}

/// The port, and whether it is new: one that was made before, with an address of its own perhaps, is taken as it is.
fn port(
    request: &NicRequest,
    network: &Name,
    name: Name,
    cpus: u16,
    client: &Client,
) -> Result<(PortInfo, bool), Failure> {
    match client.port(network, &name) {
        Ok(port) => {
            agrees(request, &port)?;
            return Ok((port, false));
        }
        Err(ClientError::Refused(failure)) if failure.code == Code::NotFound => (),
        Err(error) => return Err(error.into()),
    }
    let queues = match request.model {
        Model::Virtio => request.queues.unwrap_or(cpus.min(MOST_QUEUES)),
        _ => 1,
    };
    let port = client.create_port(
        network,
        &PortRequest {
            name,
            path: request.chosen_path(),
            mac: request.mac,
            address: None,
            queues,
            rate: None,
            owner: None,
            group: None,
        },
    )?;
    Ok((port, true))
}

/// A port that is there already can be taken for this NIC.
fn agrees(request: &NicRequest, port: &PortInfo) -> Result<(), Failure> {
    let (name, network) = (&port.name, &port.network);
    let differs = |what: &str| {
        anyhow!(
            "port {name} of network {network} is there already and has another {what}: give another --name, or delete the port"
        )
    };
    if port.connected == Some(true) {
        let way_out = "give another --name";
        return Err(anyhow!(
            "port {name} of network {network} is in use by another virtual machine: {way_out}"
        )
        .into());
    }
    if port.path != request.chosen_path() {
        return Err(differs("path").into());
    }
    if request.mac.is_some_and(|mac| mac != port.mac) {
        return Err(differs("MAC").into());
    }
    if request.queues.is_some_and(|queues| queues != port.queues) {
        return Err(differs("number of queues").into());
    }
    if request.model != Model::Virtio && port.queues > 1 {
        return Err(anyhow!(
            "port {name} of network {network} is there already with {} queues, and model={} has one: take model=virtio, or give another --name",
            port.queues, request.model
        )
        .into());
    }
    Ok(())
}

fn at_port(
    request: &NicRequest,
    port: &PortInfo,
    taps: Taps,
    client: &Client,
) -> Result<(Nic, Vec<OwnedFd>), Failure> {
    let missing = || format!("the daemon does not say where port {} is", port.name);
    let mut descriptors = Vec::new();
    let backend = match (port.path, taps) {
        (PortPath::VhostUser, _) => Backend::VhostUser {
            socket: port.socket.clone().with_context(missing)?,
        },
        (path, Taps::Opened) => {
            let name = port.tap.clone().with_context(missing)?;
            descriptors = tap::open_for_vm(name.as_str(), port.queues)?;
            let queues = numbers(&descriptors);
            let devices = match path {
                PortPath::VhostNet => vhost_net::open(port.queues)?,
                _ => Vec::new(),
            };
            let vhost = numbers(&devices);
            descriptors.extend(devices);
            Backend::Descriptors {
                name,
                queues,
                vhost,
            }
        }
        (PortPath::Macvtap, Taps::Named) => {
            return Err(anyhow!(
                "a macvtap comes as a descriptor, which a command line cannot say: `ringway vm run` hands it over"
            )
            .into());
        }
        (path, Taps::Named) => Backend::Tap {
            name: port.tap.clone().with_context(missing)?,
            vhost: path == PortPath::VhostNet,
        },
    };
    let network = client.network(&port.network)?;
    let mtu = network.spec.mtu.filter(|&mtu| mtu != ETHERNET_MTU);
    let nic = Nic {
        backend,
        model: request.model,
        queues: port.queues,
        mac: port.mac,
        mtu: request
            .mtu
            .or(mtu.filter(|_| request.model == Model::Virtio)),
    };
    Ok((nic, descriptors))
}

fn numbers(descriptors: &[OwnedFd]) -> Vec<RawFd> {
    descriptors.iter().map(AsRawFd::as_raw_fd).collect()
}
