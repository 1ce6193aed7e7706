//! The daemon as the API sees it: what can be asked of it.

use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use ringway_api::control::PortInfo as Running;
use ringway_api::v1::{
    Addresses, Applied, CaptureRequest, DaemonInfo, Document, Failure, Forward, ForwardSpec, Lease,
    Name, NetworkInfo, NetworkSpec, PortInfo, PortPatch, PortPath, PortRequest, StaticLease, Stats,
};
use ringway_network::{Invalid, Network, Plan, Site, State, Things};

use crate::config::Config;
use crate::failure::{failed, refused};
use crate::inner::Inner;
use crate::{find, report};

/// The running daemon; clones are the same one.
#[derive(Clone, Debug)]
pub struct Daemon {
    inner: Arc<Inner>,
}

impl Daemon {
    /// Starts it: opens the store, adopts the switch that runs or starts one, and makes the host as the store says.
    pub async fn start(config: Config) -> Result<Self, Failure> {
        let inner = Inner::start(config).await?;
        Ok(Self { inner })
    }

    /// Ends what answers in the networks; the networks themselves and the switch stay for the daemon that comes next.
    pub async fn stop(&self) {
        self.inner.stop().await;
    }

    /// About itself.
    pub async fn info(&self) -> Result<DaemonInfo, Failure> {
        let switch = &self.inner.ground.switch;
        Ok(DaemonInfo {
            version: env!("CARGO_PKG_VERSION").into(),
            pid: std::process::id(),
            switch_pid: switch.pid(),
            switch_restarts: switch.restarts.load(Ordering::Relaxed),
            warnings: self.inner.warnings().await,
        })
    }

    /// Every network.
    pub async fn networks(&self) -> Result<Vec<NetworkInfo>, Failure> {
        let state = self.inner.state();
        Ok(state
            .networks
            .values()
            .map(|network| self.describe(network))
            .collect())
    }

    /// One network.
    pub async fn network(&self, name: &Name) -> Result<NetworkInfo, Failure> {
        let state = self.inner.state();
        Ok(self.describe(state.network(name).map_err(refused)?))
    }

    /// Makes a network.
    pub async fn create_network(&self, spec: NetworkSpec) -> Result<NetworkInfo, Failure> {
        let name = spec.name.clone();
        self.inner
            .change(move |state, site| state.create(spec, site).map(drop))
            .await?;
        self.network(&name).await
    }

    /// Removes a network, with `force` its ports too.
    pub async fn delete_network(&self, name: &Name, force: bool) -> Result<(), Failure> {
        let name = name.clone();
        self.inner
            .change(move |state, _| state.delete(&name, force).map(drop))
            .await
    }

    /// Makes networks what a document says.
    pub async fn apply(&self, document: Document, dry_run: bool) -> Result<Applied, Failure> {
        // Without the switch nothing can be said; then nothing is done, either, if there is a step to do.
        let running = self.inner.ground.switch.ports().await.unwrap_or_default();
        let make = move |old: &State, site: &Site| {
            let new = old.apply(document, site)?;
            check_unused(old, &new, &running)?;
            Ok((steps(old, &new), new))
        };
        if dry_run {
            let site = self.inner.site().await?;
            let (steps, _) = make(&self.inner.state(), &site).map_err(refused)?;
            return Ok(Applied { steps, done: false });
        }
        let change = self.inner.change(move |state, site| {
            let (steps, new) = make(state, site)?;
            *state = new;
            Ok(steps)
        });
        Ok(Applied {
            steps: change.await?,
            done: true,
        })
    }

    /// Ports of all networks, or of one.
    pub async fn ports(&self, network: Option<&Name>) -> Result<Vec<PortInfo>, Failure> {
        let state = self.inner.state();
        let networks = report::chosen(&state, network).map_err(refused)?;
        let running = self.inner.ground.switch.ports().await.unwrap_or_default();
        let mut ports = Vec::new();
        for network in networks {
            let of = &network.spec.name;
            let lent = self.inner.ground.services.lent(of);
            for (name, port) in &network.ports {
                let mut info = report::port(of, name, port);
                let lease = lent.iter().find(|lease| lease.mac == Some(port.mac));
                info.address = info.address.or(lease.map(|lease| lease.address));
                let full = format!("{of}/{name}");
                info.connected = match &port.tap {
                    // Whoever has a tap open gives it a carrier; of a macvtap nothing tells.
                    Some(_) if port.path == PortPath::Macvtap => None,
                    Some(tap) => {
                        let link = self.inner.ground.netlink.find(tap.as_str()).await;
                        link.ok().flatten().map(|link| link.carrier)
                    }
                    None => {
                        let there = running.iter().find(|port| port.name == full);
                        there.map(|port| port.connected)
                    }
                };
                ports.push(info);
            }
        }
        Ok(ports)
    }

    /// One port.
    pub async fn port(&self, network: &Name, port: &Name) -> Result<PortInfo, Failure> {
        let ports = self.ports(Some(network)).await?;
        let found = ports.into_iter().find(|info| info.name == *port);
        found.ok_or_else(|| {
            refused(Invalid::NoPort {
                network: network.clone(),
                port: port.clone(),
            })
        })
    }

    /// Makes a port.
    pub async fn create_port(
        &self,
        network: &Name,
        request: PortRequest,
    ) -> Result<PortInfo, Failure> {
        let (of, name) = (network.clone(), request.name.clone());
        self.inner
            .change(move |state, site| state.add_port(&of, request, site).map(drop))
            .await?;
        self.port(network, &name).await
    }

    /// Changes a port.
    pub async fn patch_port(
        &self,
        network: &Name,
        port: &Name,
        patch: PortPatch,
    ) -> Result<PortInfo, Failure> {
        let (of, name) = (network.clone(), port.clone());
        self.inner
            .change(move |state, _| state.patch_port(&of, &name, patch).map(drop))
            .await?;
        self.port(network, port).await
    }

    /// Removes a port.
    pub async fn delete_port(&self, network: &Name, port: &Name) -> Result<(), Failure> {
        let (network, port) = (network.clone(), port.clone());
        self.inner
            .change(move |state, _| state.remove_port(&network, &port).map(drop))
            .await
    }

    /// Addresses that are lent or bound, in all networks or one.
    pub async fn leases(&self, network: Option<&Name>) -> Result<Vec<Lease>, Failure> {
        let state = self.inner.state();
        let networks = report::chosen(&state, network).map_err(refused)?;
        let mut leases = Vec::new();
        for network in networks {
            leases.extend(report::bound(network));
            leases.extend(self.inner.ground.services.lent(&network.spec.name));
        }
        leases.sort_by(|a, b| (&a.network, a.address).cmp(&(&b.network, b.address)));
        Ok(leases)
    }

    /// The addresses that go by a name: `NAME`, `NAME.NETWORK` or `NAME.NETWORK.DOMAIN`.
    pub async fn resolve(&self, name: &str) -> Result<Vec<Lease>, Failure> {
        let state = self.inner.state();
        let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
        let mut leases = self.leases(None).await?;
        leases.retain(|lease| {
            let Some(label) = &lease.name else {
                return false;
            };
            let domain = state
                .networks
                .get(&lease.network)
                .map(|n| &n.spec.dns.domain);
            let network = format!("{label}.{}", lease.network);
            name == label.as_str()
                || name == network
                || domain.is_some_and(|domain| name == format!("{network}.{domain}"))
        });
        Ok(leases)
    }

    /// Binds an address.
    pub async fn bind(&self, network: &Name, lease: StaticLease) -> Result<Lease, Failure> {
        let (of, address) = (network.clone(), lease.address);
        self.inner
            .change(move |state, _| state.bind(&of, lease))
            .await?;
        let mut leases = self.leases(Some(network)).await?.into_iter();
        let bound = leases.find(|lease| lease.address == address);
        // Somebody may have ended it again at once.
        bound.ok_or_else(|| {
            refused(Invalid::NoLease {
                network: network.clone(),
                address,
            })
        })
    }

    /// Ends a binding.
    pub async fn unbind(&self, network: &Name, address: Ipv4Addr) -> Result<(), Failure> {
        let network = network.clone();
        self.inner
            .change(move |state, _| state.unbind(&network, address))
            .await
    }

    /// Forwards of all networks, or of one.
    pub async fn forwards(&self, network: Option<&Name>) -> Result<Vec<Forward>, Failure> {
        report::forwards(&self.inner.state(), network).map_err(refused)
    }

    /// Makes ports of the host lead to a guest.
    pub async fn add_forward(&self, network: &Name, spec: ForwardSpec) -> Result<Forward, Failure> {
        let network = network.clone();
        self.inner
            .change(move |state, _| state.forward(&network, spec))
            .await
    }

    /// Ends a forward.
    pub async fn delete_forward(&self, network: &Name, id: u64) -> Result<(), Failure> {
        let network = network.clone();
        self.inner
            .change(move |state, _| state.remove_forward(&network, id))
            .await
    }

    /// What was counted.
    pub async fn stats(&self) -> Result<Stats, Failure> {
        Ok(Stats {
            switch: self.inner.ground.switch.statistics().await.ok(),
            services: self.inner.ground.services.counters(),
        })
    }

    /// What the switch learned, at one of its ports or all.
    pub async fn addresses(&self, port: Option<&str>) -> Result<Addresses, Failure> {
        let switch = &self.inner.ground.switch;
        let port = match port {
            Some(port) => Some(find::port(&self.inner.state(), port)?),
            None => None,
        };
        switch.addresses(port).await.map_err(failed)
    }

    /// Has what crosses a port written into a pipe until that is closed.
    pub async fn capture(&self, request: CaptureRequest) -> Result<OwnedFd, Failure> {
        let port = find::port(&self.inner.state(), &request.port)?;
        let switch = &self.inner.ground.switch;
        switch.capture(port).await.map_err(failed)
    }

    fn describe(&self, network: &Network) -> NetworkInfo {
        let (services, name) = (&self.inner.ground.services, &network.spec.name);
        report::network(network, services.lent(name).len(), services.free(name))
    }
}

fn steps(old: &State, new: &State) -> Vec<String> {
    let plan = Plan::between(&Things::of(old), &Things::of(new));
    plan.steps.iter().map(ToString::to_string).collect()
}

/// A port that goes must not be one whose virtual machine runs.
fn check_unused(old: &State, new: &State, running: &[Running]) -> Result<(), Invalid> {
    for (name, network) in &old.networks {
        for port in network.ports.keys() {
            let stays = new
                .networks
                .get(name)
                .is_some_and(|n| n.ports.contains_key(port));
            let full = format!("{name}/{port}");
            if !stays
                && running
                    .iter()
                    .any(|there| there.connected && there.name == full)
            {
                return Err(Invalid::InUse {
                    network: name.clone(),
                    port: port.clone(),
                });
            }
        }
    }
    Ok(())
}
