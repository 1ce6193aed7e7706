//! The switch as a process of its own, which outlives the daemon: started, or adopted if it runs, asked over its control socket.
//!
//! The switch is confined and opens nothing: taps and listening sockets are opened here and passed.

mod start;

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use std::{io, path::Path};

use ringway_api::control::{Client, ClientError, Passed, PortChange, PortInfo, Setting};
use ringway_api::port_spec::{PortKind, PortSpec};
use ringway_api::stats::Statistics;
use ringway_api::v1::Addresses;
use ringway_host::tap::{self, TapError};
use ringway_host::vhost_net;

/// How long the switch may take for an answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// What the switch did not do.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SwitchError {
    /// Over its control socket.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// No tap for it.
    #[error(transparent)]
    Tap(#[from] TapError),
    /// No directory for sockets.
    #[error("cannot make the directory {}", path.display())]
    Directory {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// No pipe for a capture.
    #[error("cannot make a pipe")]
    Pipe(#[source] io::Error),
    /// It does not start.
    #[error("cannot start the switch {}", program.display())]
    Start {
        program: PathBuf,
        #[source]
        source: io::Error,
    },
    /// It started and ended.
    #[error("the switch ended at once ({status}): its log {} says why", log.display())]
    Ended { status: String, log: PathBuf },
}

/// The switch.
#[derive(Debug)]
pub(crate) struct SwitchProcess {
    program: PathBuf,
    control: PathBuf,
    log: PathBuf,
    client: Mutex<Option<Client>>,
    /// 0 while it does not run.
    pid: AtomicU32,
    pub(crate) restarts: AtomicU64,
}

impl SwitchProcess {
    /// The process that is asked at `run/switch.sock`; it is neither started nor looked for yet.
    pub(crate) fn new(program: PathBuf, run: &Path) -> Arc<Self> {
        Arc::new(Self {
            program,
            control: run.join("switch.sock"),
            log: run.join("switch.log"),
            client: Mutex::default(),
            pid: AtomicU32::new(0),
            restarts: AtomicU64::new(0),
        })
    }

    /// Its process id, while it runs.
    pub(crate) fn pid(&self) -> Option<u32> {
        Some(self.pid.load(Ordering::Relaxed)).filter(|pid| *pid != 0)
    }

    /// Makes a port what it shall be: nothing is done to one that is so, and no guest is cut off for a setting that can change.
    pub(crate) async fn set_port(self: &Arc<Self>, spec: PortSpec) -> Result<(), SwitchError> {
        self.ask(move |client| {
            let name = spec.default_name();
            let ports = client.ports()?;
            let Some(there) = ports.into_iter().find(|port| port.name == name) else {
                return open(client, spec);
            };
            if there.spec == spec {
                return Ok(());
            }
            let change = PortChange {
                mac: setting(spec.mac),
                rate: setting(spec.rate),
                ..PortChange::default()
            };
            if change
                .apply(&there.spec)
                .is_ok_and(|changed| changed == spec)
            {
                return Ok(client.change_port(&name, change)?);
            }
            client.close_port(&name)?;
            open(client, spec)
        })
        .await
    }

    /// Removes a port and its socket; nothing if there is none.
    pub(crate) async fn remove_port(self: &Arc<Self>, name: &str) -> Result<(), SwitchError> {
        let name = name.to_owned();
        self.ask(move |client| {
            let ports = client.ports()?;
            let Some(port) = ports.into_iter().find(|port| port.name == name) else {
                return Ok(());
            };
            client.close_port(&name)?;
            if let PortKind::VhostUser(user) = &port.spec.kind
                && let Some(directory) = user.path.parent()
            {
                // Fails unless it was the network's last.
                let _ = std::fs::remove_dir(directory);
            }
            Ok(())
        })
        .await
    }

    /// The ports there are.
    pub(crate) async fn ports(self: &Arc<Self>) -> Result<Vec<PortInfo>, SwitchError> {
        self.ask(|client| Ok(client.ports()?)).await
    }

    /// What it counted.
    pub(crate) async fn statistics(self: &Arc<Self>) -> Result<Statistics, SwitchError> {
        self.ask(|client| Ok(client.statistics(None)?)).await
    }

    /// What it learned, at one port or all.
    pub(crate) async fn addresses(
        self: &Arc<Self>,
        port: Option<String>,
    ) -> Result<Addresses, SwitchError> {
        self.ask(move |client| {
            let (addresses, learned) = client.addresses(port.as_deref())?;
            Ok(Addresses { addresses, learned })
        })
        .await
    }

    /// Has what crosses a port written into a pipe, whose other end is given back.
    pub(crate) async fn capture(self: &Arc<Self>, port: String) -> Result<OwnedFd, SwitchError> {
        self.ask(move |client| {
            let (reader, writer) = io::pipe().map_err(SwitchError::Pipe)?;
            client.capture(&port, writer.into())?;
            Ok(reader.into())
        })
        .await
    }

    /// Asks in a thread where waiting holds nobody up. A connection that broke is made anew by the next question.
    async fn ask<T: Send + 'static>(
        self: &Arc<Self>,
        question: impl FnOnce(&mut Client) -> Result<T, SwitchError> + Send + 'static,
    ) -> Result<T, SwitchError> {
        let this = Arc::clone(self);
        let task = tokio::task::spawn_blocking(move || {
            let mut place = this.client.lock().unwrap_or_else(PoisonError::into_inner);
            let mut client = match place.take() {
                Some(client) => client,
                None => Client::connect(&this.control, PATIENCE)?,
            };
            let answer = question(&mut client);
            let broken = matches!(&answer, Err(SwitchError::Client(error)) if !matches!(error, ClientError::Refused(_)));
            *place = (!broken).then_some(client);
            answer
        });
        match task.await {
            Ok(answer) => answer,
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }
}

fn setting<T>(value: Option<T>) -> Setting<T> {
    value.map_or(Setting::Clear, Setting::Set)
}

/// Opens what the port needs and adds it.
fn open(client: &mut Client, spec: PortSpec) -> Result<(), SwitchError> {
    match &spec.kind {
        PortKind::Tap { name, queues, .. } => {
            let tap = tap::open(name.as_str(), *queues)?;
            match vhost_net::open(*queues) {
                Ok(devices) => {
                    let fds = tap.queues.into_iter().chain(devices).collect();
                    client.add_port(spec, Passed::VhostNet, fds)?;
                }
                Err(error) => {
                    tracing::debug!("{name} does without vhost-net: {error}");
                    client.add_port(spec, Passed::TapQueues, tap.queues)?;
                }
            }
        }
        PortKind::VhostUser(user) => {
            if let Some(directory) = user.path.parent() {
                std::fs::create_dir_all(directory).map_err(|source| SwitchError::Directory {
                    path: directory.to_owned(),
                    source,
                })?;
            }
            client.open_port(spec)?;
        }
        _ => {
            client.open_port(spec)?;
        }
    }
    Ok(())
}
