//! The daemon as the API sees it: what can be asked of it.

use std::net::Ipv4Addr;
use std::sync::{Arc, PoisonError, RwLock};

use ringway_api::v1::{
    Applied, Code, DaemonInfo, Document, Failure, Forward, ForwardSpec, Lease, Name, NetworkInfo,
    NetworkSpec, PortInfo, PortPatch, PortRequest, StaticLease, Stats,
};
use ringway_network::{Invalid, Plan, Site, State, Things};

use crate::config::Config;
use crate::failure::refused;
use crate::report;

/// The running daemon; clones are the same one.
#[derive(Clone, Debug)]
pub struct Daemon {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    config: Config,
    /// As committed.
    state: RwLock<Arc<State>>,
    /// Held while a change is under way: one at a time.
    changing: tokio::sync::Mutex<()>,
}

impl Daemon {
    /// Starts it.
    pub async fn start(config: Config) -> Result<Self, Failure> {
        Ok(Self {
            inner: Arc::new(Inner {
                config,
                state: RwLock::default(),
                changing: tokio::sync::Mutex::default(),
            }),
        })
    }

    /// Ends what answers in the networks; the networks themselves and the switch stay for the daemon that comes next.
    pub async fn stop(&self) {}

    /// About itself.
    pub async fn info(&self) -> Result<DaemonInfo, Failure> {
        Ok(DaemonInfo {
            version: env!("CARGO_PKG_VERSION").into(),
            pid: std::process::id(),
            switch_pid: None,
            switch_restarts: 0,
            warnings: Vec::new(),
        })
    }

    /// Every network.
    pub async fn networks(&self) -> Result<Vec<NetworkInfo>, Failure> {
        let state = self.state();
        Ok(state
            .networks
            .values()
            .map(|network| report::network(network, 0))
            .collect())
    }

    /// One network.
    pub async fn network(&self, name: &Name) -> Result<NetworkInfo, Failure> {
        let state = self.state();
        Ok(report::network(state.network(name).map_err(refused)?, 0))
    }

    /// Makes a network.
    pub async fn create_network(&self, spec: NetworkSpec) -> Result<NetworkInfo, Failure> {
        let name = spec.name.clone();
        self.change(move |state, site| state.create(spec, site).map(drop))
            .await?;
        self.network(&name).await
    }

    /// Removes a network, with `force` its ports too.
    pub async fn delete_network(&self, name: &Name, force: bool) -> Result<(), Failure> {
        let name = name.clone();
        self.change(move |state, _| state.delete(&name, force).map(drop))
            .await
    }

    /// Makes networks what a document says.
    pub async fn apply(&self, document: Document, dry_run: bool) -> Result<Applied, Failure> {
        if dry_run {
            let old = self.state();
            let new = old.apply(document, &self.site()).map_err(refused)?;
            return Ok(Applied {
                steps: steps(&old, &new),
                done: false,
            });
        }
        let steps = self
            .change(move |state, site| {
                let new = state.apply(document, site)?;
                let steps = steps(state, &new);
                *state = new;
                Ok(steps)
            })
            .await?;
        Ok(Applied { steps, done: true })
    }

    /// Ports of all networks, or of one.
    pub async fn ports(&self, network: Option<&Name>) -> Result<Vec<PortInfo>, Failure> {
        let state = self.state();
        let networks = report::chosen(&state, network).map_err(refused)?;
        let ports = networks.into_iter().flat_map(|network| {
            let of = &network.spec.name;
            network
                .ports
                .iter()
                .map(move |(name, port)| report::port(of, name, port))
        });
        Ok(ports.collect())
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
        self.change(move |state, site| state.add_port(&of, request, site).map(drop))
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
        self.change(move |state, _| state.patch_port(&of, &name, patch).map(drop))
            .await?;
        self.port(network, port).await
    }

    /// Removes a port.
    pub async fn delete_port(&self, network: &Name, port: &Name) -> Result<(), Failure> {
        let (network, port) = (network.clone(), port.clone());
        self.change(move |state, _| state.remove_port(&network, &port).map(drop))
            .await
    }

    /// Addresses that are lent or bound, in all networks or one.
    pub async fn leases(&self, network: Option<&Name>) -> Result<Vec<Lease>, Failure> {
        let state = self.state();
        let networks = report::chosen(&state, network).map_err(refused)?;
        Ok(networks.into_iter().flat_map(report::bound).collect())
    }

    /// The addresses that go by a name: `NAME`, `NAME.NETWORK` or `NAME.NETWORK.DOMAIN`.
    pub async fn resolve(&self, name: &str) -> Result<Vec<Lease>, Failure> {
        let state = self.state();
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
        self.change(move |state, _| state.bind(&of, lease)).await?;
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
        self.change(move |state, _| state.unbind(&network, address))
            .await
    }

    /// Forwards of all networks, or of one.
    pub async fn forwards(&self, network: Option<&Name>) -> Result<Vec<Forward>, Failure> {
        report::forwards(&self.state(), network).map_err(refused)
    }

    /// Makes ports of the host lead to a guest.
    pub async fn add_forward(&self, network: &Name, spec: ForwardSpec) -> Result<Forward, Failure> {
        let network = network.clone();
        self.change(move |state, _| state.forward(&network, spec))
            .await
    }

    /// Ends a forward.
    pub async fn delete_forward(&self, network: &Name, id: u64) -> Result<(), Failure> {
        let network = network.clone();
        self.change(move |state, _| state.remove_forward(&network, id))
            .await
    }

    /// What was counted.
    pub async fn stats(&self) -> Result<Stats, Failure> {
        Ok(Stats {
            switch: None,
            services: Default::default(),
        })
    }

    fn state(&self) -> Arc<State> {
        let state = self.inner.state.read();
        Arc::clone(&state.unwrap_or_else(PoisonError::into_inner))
    }

    fn site(&self) -> Site {
        Site {
            routes: Vec::new(),
            sockets: self.inner.config.run.clone(),
        }
    }

    /// Makes a change of the state so on the host. It is carried through even if nobody waits for it any more.
    async fn change<T: Send + 'static>(
        &self,
        make: impl FnOnce(&mut State, &Site) -> Result<T, Invalid> + Send + 'static,
    ) -> Result<T, Failure> {
        let daemon = self.clone();
        let task = tokio::spawn(async move {
            let _turn = daemon.inner.changing.lock().await;
            let mut new = State::clone(&daemon.state());
            let made = make(&mut new, &daemon.site()).map_err(refused)?;
            let mut state = daemon.inner.state.write();
            **state.as_mut().unwrap_or_else(|error| error.get_mut()) = Arc::new(new);
            Ok(made)
        });
        task.await
            .unwrap_or_else(|error| Err(Failure::new(Code::Failed, error.to_string())))
    }
}

fn steps(old: &State, new: &State) -> Vec<String> {
    let plan = Plan::between(&Things::of(old), &Things::of(new));
    plan.steps.iter().map(ToString::to_string).collect()
}
