//! What the daemon is made of, and what it does without being asked: it starts again a switch that ended, and puts back a
//! firewall table that somebody flushed.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use ringway_api::v1::{Code, Failure, Kind, NetworkSpec};
use ringway_host::link::Netlink;
use ringway_host::{nft, ready};
use ringway_network::{Invalid, Site, State, Step, Things, firewall};
use tokio::task::JoinSet;

use crate::apply::{self, Ground, HostGround, SharedStore};
use crate::config::Config;
use crate::failure::{chain, failed, refused};
use crate::foreign::Foreign;
use crate::services::Services;
use crate::store::Store;
use crate::switch_process::SwitchProcess;

/// Somebody who loads a ruleset does so in several transactions; it is looked at when they are done.
const SETTLE: Duration = Duration::from_millis(300);
/// A switch that ended sooner than this after its start is waited with before the next start.
const SOON: Duration = Duration::from_secs(2);

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) config: Config,
    pub(crate) ground: HostGround,
    store: SharedStore,
    /// As committed.
    state: RwLock<Arc<State>>,
    /// Held while a change is under way: one at a time.
    changing: tokio::sync::Mutex<()>,
    watchers: Mutex<JoinSet<()>>,
    /// Warnings that were logged.
    told: Mutex<Vec<String>>,
}

impl Inner {
    /// Opens the store, finds or starts the switch, and makes the host as the store says.
    pub(crate) async fn start(config: Config) -> Result<Arc<Self>, Failure> {
        std::fs::create_dir_all(&config.run).map_err(|error| {
            let run = config.run.display();
            Failure::new(Code::Failed, format!("cannot make {run}: {error}"))
        })?;
        let store = Store::open(&config.state).map_err(failed)?;
        let fresh = store.fresh;
        let store = Arc::new(Mutex::new(store));
        let program = match &config.switch {
            Some(program) => program.clone(),
            None => std::env::current_exe().unwrap_or_else(|_| PathBuf::from("ringway")),
        };
        let switch = SwitchProcess::new(program, &config.run);
        let adopted = switch.adopt_or_start().await.map_err(failed)?;
        tracing::info!(
            "the switch is process {}, {}",
            switch.pid().unwrap_or(0),
            if adopted { "adopted" } else { "started" }
        );
        let ground = HostGround {
            netlink: Netlink::open().map_err(failed)?,
            switch,
            services: Services::new(Arc::clone(&store), config.resolv_conf.clone()),
            forwarding_note: config.run.join("ip_forward"),
            open_foreign: config.open_foreign,
            foreign_clean: AtomicBool::new(false),
        };
        let state = apply::reconcile(&store, &ground).await.map_err(failed)?;
        let inner = Arc::new(Self {
            ground,
            store,
            state: RwLock::new(Arc::new(state)),
            changing: tokio::sync::Mutex::default(),
            watchers: Mutex::default(),
            told: Mutex::default(),
            config,
        });
        if fresh && inner.config.default_network {
            inner.make_default().await;
        }
        inner.tell().await;
        inner.watch();
        Ok(inner)
    }

    /// Ends what answers and what watches.
    pub(crate) async fn stop(&self) {
        let _turn = self.changing.lock().await;
        lock(&self.watchers).abort_all();
        self.ground.services.clear();
    }

    pub(crate) fn state(&self) -> Arc<State> {
        Arc::clone(&self.state.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// What networks must not clash with.
    pub(crate) async fn site(&self) -> Result<Site, Failure> {
        let state = self.state();
        let links = Things::of(&state).links;
        let ours = |name: &str| links.contains_key(name);
        Ok(Site {
            routes: self.ground.netlink.routes(ours).await.map_err(failed)?,
            sockets: self.config.run.clone(),
            plain: self.ground.netlink.plain().await.map_err(failed)?,
        })
    }

    /// Makes a change of the state so on the host. It is carried through even if nobody waits for it any more.
    pub(crate) async fn change<T: Send + 'static>(
        self: &Arc<Self>,
        make: impl FnOnce(&mut State, &Site) -> Result<T, Invalid> + Send + 'static,
    ) -> Result<T, Failure> {
        let inner = Arc::clone(self);
        let task = tokio::spawn(async move {
            let _turn = inner.changing.lock().await;
            let old = inner.state();
            let mut new = State::clone(&old);
            let made = make(&mut new, &inner.site().await?).map_err(refused)?;
            inner.check_interfaces(&old, &new).await?;
            apply::change(&inner.store, &inner.ground, &old, &new)
                .await
                .map_err(failed)?;
            *inner.state.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(new);
            Ok(made)
        });
        task.await
            .unwrap_or_else(|error| Err(Failure::new(Code::Failed, error.to_string())))
    }

    /// Interfaces must not be there before, as somebody else's.
    async fn check_interfaces(&self, old: &State, new: &State) -> Result<(), Failure> {
        let (old, new) = (Things::of(old).links, Things::of(new).links);
        for (name, link) in new.iter().filter(|(name, _)| !old.contains_key(*name)) {
            let found = self.ground.netlink.find(name).await.map_err(failed)?;
            if found.is_some() {
                return Err(refused(Invalid::InterfaceTaken(link.interface.clone())));
            }
        }
        Ok(())
    }

    /// A network for who wants no questions. The daemon is of use without it, too.
    async fn make_default(self: &Arc<Self>) {
        let made = self
            .change(|state, site| {
                let name = "default";
                let spec = NetworkSpec {
                    name: name.parse().map_err(|_| Invalid::Dns(name.to_owned()))?,
                    kind: Kind::Nat,
                    subnet: None,
                    subnet6: None,
                    bridge: None,
                    mtu: None,
                    dhcp: Default::default(),
                    dns: Default::default(),
                };
                state.create(spec, site).map(drop)
            })
            .await;
        if let Err(error) = made {
            tracing::warn!("no default network: {error}");
        }
    }

    fn watch(self: &Arc<Self>) {
        let mut watchers = lock(&self.watchers);
        watchers.spawn(Arc::clone(self).watch_switch());
        watchers.spawn(Arc::clone(self).watch_firewall());
    }

    /// Starts the switch again whenever it ends, and gives it its ports back; guests connect again by themselves.
    async fn watch_switch(self: Arc<Self>) {
        let switch = &self.ground.switch;
        loop {
            let since = Instant::now();
            switch.ended().await;
            tracing::warn!("the switch ended; it is started again");
            if since.elapsed() < SOON {
                tokio::time::sleep(SOON).await;
            }
            if let Err(error) = switch.adopt_or_start().await {
                tracing::error!("{}", chain(&error));
                continue;
            }
            switch.restarts.fetch_add(1, Ordering::Relaxed);
            let _turn = self.changing.lock().await;
            for port in Things::of(&self.state()).switch_ports.into_values() {
                let spec = port.spec.clone();
                if let Err(error) = switch.set_port(spec).await {
                    tracing::error!("port {}: {}", port.spec.default_name(), chain(&error));
                }
            }
            tracing::info!(
                "the switch runs again, as process {}",
                switch.pid().unwrap_or(0)
            );
        }
    }

    /// Puts our table back when it was flushed.
    async fn watch_firewall(self: Arc<Self>) {
        let changes = match nft::changes().and_then(ready::watch) {
            Ok(changes) => changes,
            Err(error) => {
                tracing::warn!("changes of the firewall by others go unnoticed: {error}");
                return;
            }
        };
        while let Ok(mut ready) = changes.readable().await {
            tokio::time::sleep(SETTLE).await;
            let mut message = [0u8; 8192];
            while rustix::io::read(changes.get_ref(), &mut message).is_ok_and(|len| len > 0) {}
            ready.clear_ready();
            let _turn = self.changing.lock().await;
            let wanted = Things::of(&self.state()).firewall;
            if wanted.is_none() {
                continue;
            }
            let there = tokio::task::spawn_blocking(|| nft::has_table(firewall::TABLE)).await;
            if !matches!(there, Ok(Ok(false))) {
                if self.config.open_foreign {
                    self.ground.set_foreign(wanted).await;
                }
                self.tell().await;
                continue;
            }
            tracing::warn!(
                "somebody removed the table {}: it is put back",
                firewall::TABLE
            );
            let step = Step::Firewall(Box::new(ringway_network::Change {
                old: None,
                new: wanted,
            }));
            if let Err(error) = self.ground.carry(&step).await {
                tracing::error!("{step}: {}", chain(&error));
            }
            self.tell().await;
        }
    }

    /// What a person should know about the host.
    pub(crate) async fn warnings(&self) -> Vec<String> {
        let state = self.state();
        if state.networks.is_empty() {
            return Vec::new();
        }
        let read = tokio::task::spawn_blocking(move || match Foreign::read() {
            Ok(foreign) => foreign.warnings(&state),
            Err(error) => vec![format!(
                "whether other firewalls drop something is not known: {error}"
            )],
        });
        read.await.unwrap_or_default()
    }

    /// Logs the warnings that are new.
    async fn tell(&self) {
        let warnings = self.warnings().await;
        let mut told = lock(&self.told);
        for warning in &warnings {
            if !told.contains(warning) {
                tracing::warn!("{warning}");
            }
        }
        *told = warnings;
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
