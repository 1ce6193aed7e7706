//! What answers in the networks: DHCP and DNS, each network's for itself.

mod dhcp;
mod dns;
mod upstream;

use std::collections::BTreeMap;
use std::io;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use ringway_api::port_spec::{InterfaceName, Mac};
use ringway_api::v1::{Binding, Lease, Name, NetworkSpec, Record, RecordData};
use ringway_network::Service;
use ringway_service::dhcp4;
use ringway_service::dns::{Data, Resolver, Zone, message};
use ringway_service::leases::{Client, Reservation, State};
use ringway_wire::MacAddress;
use tokio::task::JoinSet;

use crate::apply::{SharedStore, gateway_mac, with};
use crate::store::StoreError;

/// What a service did not get.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ServiceError {
    #[error("cannot listen for DHCP on {interface}")]
    Packets {
        interface: InterfaceName,
        #[source]
        source: io::Error,
    },
    #[error(
        "cannot answer DNS at {gateway}: another DNS server that takes all addresses may run, tell it to leave this one alone"
    )]
    Dns {
        gateway: Ipv4Addr,
        #[source]
        source: io::Error,
    },
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The services of all networks.
#[derive(Debug)]
pub(crate) struct Services {
    store: SharedStore,
    /// Where the host names its resolvers.
    resolv_conf: PathBuf,
    running: Mutex<BTreeMap<Name, Running>>,
}

#[derive(Debug)]
struct Running {
    answers: Arc<Answers>,
    /// Ends with the value.
    tasks: JoinSet<()>,
}

/// What a network's services know.
#[derive(Debug)]
struct Answers {
    service: Service,
    store: SharedStore,
    dhcp: Mutex<dhcp4::Server>,
    dns: Mutex<Resolver>,
}

impl Services {
    pub(crate) fn new(store: SharedStore, resolv_conf: PathBuf) -> Self {
        Self {
            store,
            resolv_conf,
            running: Mutex::default(),
        }
    }

    /// Makes a network's services answer as it says. Where only bound addresses change, nothing is interrupted.
    pub(crate) async fn set(&self, service: &Service) -> Result<(), ServiceError> {
        let name = service.network.spec.name.clone();
        let same = |running: &Running| {
            let before = &running.answers.service;
            before.network.spec == service.network.spec
                && before.network.gateway_interface() == service.network.gateway_interface()
        };
        if let Some(running) = self.running().get(&name).filter(|running| same(running)) {
            let mut dhcp = lock(&running.answers.dhcp);
            dhcp.pool.set_reservations(reservations(service));
            return Ok(());
        }
        let before = self.running().remove(&name);
        if let Some(mut before) = before {
            // Until they have ended, their sockets have the addresses.
            before.tasks.shutdown().await;
        }
        let mut dhcp = dhcp4::Server::new(settings(service));
        dhcp.pool.set_reservations(reservations(service));
        let of = name.clone();
        for lease in with(&self.store, move |store| store.leases(&of)).await? {
            dhcp.pool.restore(lease);
        }
        let answers = Arc::new(Answers {
            service: service.clone(),
            store: Arc::clone(&self.store),
            dhcp: Mutex::new(dhcp),
            dns: Mutex::new(Resolver::new(zone(service))),
        });
        let mut tasks = JoinSet::new();
        if service.network.spec.dhcp.enabled {
            tasks.spawn(dhcp::serve(Arc::clone(&answers))?);
        }
        if service.network.spec.dns.enabled {
            dns::serve(&answers, &self.resolv_conf, &mut tasks).map_err(|source| {
                ServiceError::Dns {
                    gateway: service.gateway,
                    source,
                }
            })?;
        }
        let running = Running { answers, tasks };
        self.running().insert(name, running);
        Ok(())
    }

    /// Ends a network's services.
    pub(crate) fn remove(&self, network: &Name) {
        self.running().remove(network);
    }

    /// Ends all of them.
    pub(crate) fn clear(&self) {
        self.running().clear();
    }

    /// What DHCP lent in a network: addresses that are somebody's now.
    pub(crate) fn lent(&self, network: &Name) -> Vec<Lease> {
        let running = self.running();
        let Some(running) = running.get(network) else {
            return Vec::new();
        };
        let (dhcp, now) = (lock(&running.answers.dhcp), now());
        let bound: Vec<Ipv4Addr> = dhcp.pool.reservations().map(|r| r.address).collect();
        let lent = dhcp.pool.leases().filter(|lease| lease.is_active(now));
        lent.filter(|lease| !bound.contains(&lease.address))
            .map(|lease| Lease {
                network: network.clone(),
                address: lease.address,
                mac: Some(Mac(lease.mac.0)),
                client_id: match &lease.client {
                    Client::Id(id) => Some(id.iter().map(|byte| format!("{byte:02x}")).collect()),
                    Client::Mac(_) => None,
                },
                name: lease.name.as_ref().and_then(|name| name.parse().ok()),
                binding: match lease.state {
                    State::Declined => Binding::Declined,
                    _ => Binding::Dynamic,
                },
                expires: Some(lease.expires),
            })
            .collect()
    }

    /// How many addresses DHCP has left to lend in a network.
    pub(crate) fn free(&self, network: &Name) -> Option<usize> {
        let running = self.running();
        let answers = &running.get(network)?.answers;
        let lends = answers.service.network.spec.dhcp.enabled;
        lends.then(|| lock(&answers.dhcp).pool.free(now()))
    }

    /// What each network's services counted.
    pub(crate) fn counters(&self) -> BTreeMap<String, BTreeMap<String, u64>> {
        let running = self.running();
        let all = running.iter().map(|(name, running)| {
            let mut counters: BTreeMap<String, u64> = BTreeMap::new();
            let dhcp = lock(&running.answers.dhcp);
            counters.extend(dhcp.counters().iter().map(|(k, v)| ((*k).to_owned(), *v)));
            let dns = lock(&running.answers.dns).counters();
            counters.extend(dns.into_iter().map(|(k, v)| (k.to_owned(), v)));
            (name.to_string(), counters)
        });
        all.collect()
    }

    fn running(&self) -> MutexGuard<'_, BTreeMap<Name, Running>> {
        lock(&self.running)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Seconds since 1970-01-01 UTC.
fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

fn settings(service: &Service) -> dhcp4::Config {
    let Service {
        network,
        gateway,
        subnet,
    } = service;
    let NetworkSpec {
        name, dhcp, dns, ..
    } = &network.spec;
    let (first, last) = network.range().unwrap_or((*gateway, *gateway));
    dhcp4::Config {
        subnet: *subnet,
        server: *gateway,
        mac: MacAddress(gateway_mac(network.interface.as_str())),
        range: first..=last,
        lease_seconds: dhcp.lease_seconds,
        router: (network.spec.kind != ringway_api::v1::Kind::Isolated).then_some(*gateway),
        routes: dhcp.routes.iter().map(|r| (r.to, r.via)).collect(),
        dns: dns.enabled.then_some(*gateway).into_iter().collect(),
        domain: Some(format!("{name}.{}", dns.domain)),
        ntp: dhcp.ntp.clone(),
        mtu: network.spec.mtu,
    }
}

fn reservations(service: &Service) -> Vec<Reservation> {
    let bound = service.bound().filter_map(|lease| {
        let client = match (lease.mac, &lease.client_id) {
            (Some(mac), _) => Client::Mac(MacAddress(mac.0)),
            (None, Some(digits)) => Client::Id(bytes(digits)?),
            (None, None) => return None,
        };
        Some(Reservation {
            address: lease.address,
            client,
            name: lease.name.map(String::from),
        })
    });
    bound.collect()
}

fn bytes(digits: &str) -> Option<Vec<u8>> {
    let pairs = digits.as_bytes().chunks(2);
    pairs
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
        .collect()
}

fn zone(service: &Service) -> Zone {
    let spec = &service.network.spec;
    let zone =
        |domain: &str| Zone::new(spec.name.as_str(), domain, service.subnet, service.gateway);
    // The model takes no domain that is no name; one that is too long together with the network's falls back.
    let mut zone = zone(&spec.dns.domain)
        .or_else(|| zone("ringway"))
        .unwrap_or_else(|| unreachable!("{} is a label", spec.name));
    for Record { name, data } in &spec.dns.records {
        let owner = owner(name, &zone.origin);
        let data = match data {
            RecordData::A(address) => Some(Data::A(*address)),
            RecordData::Aaaa(address) => Some(Data::Aaaa(*address)),
            RecordData::Cname(target) => self::owner(target, &zone.origin).map(Data::Cname),
            RecordData::Txt(text) => Some(Data::Txt(text.clone())),
        };
        if let Some((owner, data)) = owner.zip(data) {
            zone.records.entry(owner).or_default().push(data);
        }
    }
    zone
}

/// A name as people write it: within the zone if it has no dot at its end.
fn owner(text: &str, origin: &message::Name) -> Option<message::Name> {
    let name = message::Name::parse(text)?;
    if text.ends_with('.') {
        Some(name)
    } else {
        name.within(origin)
    }
}
