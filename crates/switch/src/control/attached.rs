//! A port as the control thread keeps it: what was asked for, what is open for it, and the view the
//! workers have.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use ringway_api::control::{Passed, PassedError};
use ringway_api::port_spec::{Mode, Offload, PortKind, PortSpec, VhostUser};
use ringway_port::capture::{Capture, SourceNames};
use ringway_port::generator::{Generator, Plan};
use ringway_port::sink::Sink;
use ringway_port::tap::Tap;
use ringway_port::vhost_net::{VhostNet, VhostNetError};
use ringway_port::vhost_user::{Device, Journal, Settings};
use ringway_port::{Counters, Port};
use ringway_wire::MacAddress;

use super::chatter::Chatter;
use super::recording::Recording;
use super::socket::{Listener, SocketError};
use crate::policy::{Limiter, Policy, Storm, Vlan};
use crate::sandbox::Confinement;
use crate::steering::Steering;

/// A port and everything that was opened for it; dropping it closes and removes all of that.
pub(crate) struct Attached {
    pub(crate) number: u32,
    pub(crate) slot: u16,
    pub(crate) name: String,
    pub(crate) spec: PortSpec,
    pub(crate) counters: Arc<Counters>,
    pub(crate) policy: Arc<Policy>,
    /// A tap has been told its offloads.
    pub(crate) told: bool,
    /// What the workers see; `None` = nothing can be received or sent now.
    pub(crate) view: Option<Arc<dyn Port>>,
    pub(crate) kind: Kind,
}

pub(crate) enum Kind {
    VhostUser(Box<Socket>),
    Tap(Arc<Tap>),
    Capture(Option<Recording>),
    Plain,
}

/// The socket side of a vhost-user port.
pub(crate) struct Socket {
    pub(crate) place: Place,
    pub(crate) device: Option<Device>,
    pub(crate) since: Instant,
    /// A message has been incomplete since then.
    pub(crate) partial_since: Option<Instant>,
    /// What the last log line about the driver said.
    pub(crate) announced: Option<(u64, usize)>,
    /// The guest's address, to be announced once one of its rings runs.
    pub(crate) rarp: Option<MacAddress>,
    /// Errors already said, so that a front-end cannot fill the log.
    pub(crate) complaints: u32,
    /// What else it may say.
    pub(crate) chatter: Chatter,
    /// Where packed rings are taken up should this process be killed.
    pub(crate) journal: Option<Arc<Journal>>,
}

pub(crate) enum Place {
    Listening(Listener),
    /// Connects again after the front-end left; not when the connection was passed to us.
    Connecting {
        path: Option<PathBuf>,
        next: Instant,
    },
}

/// Why a port cannot be added.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// The name is taken.
    #[error("there is a port {name} already; give another name=")]
    NameTaken {
        /// The name.
        name: String,
    },
    /// There are too many.
    #[error("a switch has at most {limit} ports; start a second switch")]
    TooMany {
        /// The limit.
        limit: usize,
    },
    /// The descriptors do not fit.
    #[error(transparent)]
    Passed(#[from] PassedError),
    /// A tap's queues have to be opened by somebody who may.
    #[error(
        "tap {name} came without its queues: the switch does not open taps at run time; pass one descriptor per queue pair"
    )]
    TapNotOpened {
        /// The tap.
        name: String,
    },
    /// The kernel's vhost-net does not take it.
    #[error("tap {name}: {error}; vhost=off does without")]
    VhostNet {
        /// The tap.
        name: String,
        /// What went wrong.
        error: VhostNetError,
    },
    /// It would have to be opened by a switch that opens nothing any more.
    #[error(
        "port {name}: this switch is in its sandbox and opens nothing itself: pass {wanted} with the request, or start the switch with --sandbox off"
    )]
    Confined {
        /// The port.
        name: String,
        /// What to pass.
        wanted: &'static str,
    },
    /// Not built yet.
    #[error(
        "ports of kind {kind} are not available in this version; use vhost-user, tap, pcap, sink or generator"
    )]
    NotAvailable {
        /// The kind.
        kind: &'static str,
    },
    /// No socket.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// A file cannot be written.
    #[error(
        "{path}: cannot write the capture there: {error}; give a file in a directory that exists and that you may write to"
    )]
    File {
        /// The path.
        path: PathBuf,
        /// What the system said.
        error: std::io::Error,
    },
    /// Out of descriptors or the like.
    #[error("port {name}: {error}")]
    System {
        /// The port.
        name: String,
        /// What the system said.
        error: std::io::Error,
    },
}

/// What a new port is called by and counted with.
pub(crate) struct Identity {
    pub(crate) number: u32,
    pub(crate) slot: u16,
    pub(crate) name: String,
}

impl Attached {
    /// Opens what `spec` needs, or takes what came with it.
    pub(crate) fn open(
        identity: Identity,
        spec: PortSpec,
        passed: Passed,
        mut fds: Vec<OwnedFd>,
        names: &SourceNames,
    ) -> Result<Self, AttachError> {
        passed.check(&spec.kind, fds.len())?;
        let Identity { number, slot, name } = identity;
        let counters = Arc::new(Counters::new(usize::from(spec.kind.queues())));
        let system = |error| AttachError::System {
            name: name.clone(),
            error,
        };
        let mut view: Option<Arc<dyn Port>> = None;
        let kind = match &spec.kind {
            PortKind::VhostUser(user) => {
                let socket = open_socket(user, fds.pop(), &spec, &counters);
                Kind::VhostUser(Box::new(socket.map_err(|error| match error {
                    OpenError::Socket(error) => AttachError::Socket(error),
                    OpenError::System(error) => system(error),
                })?))
            }
            PortKind::Tap { name, .. } => {
                if passed == Passed::Nothing {
                    return Err(AttachError::TapNotOpened {
                        name: name.to_string(),
                    });
                }
                let devices = match passed {
                    Passed::VhostNet => fds.split_off(fds.len() / 2),
                    _ => Vec::new(),
                };
                let tap = Arc::new(Tap::new(fds, counters.clone()));
                view = Some(tap.clone());
                if !devices.is_empty() {
                    let error = |error| AttachError::VhostNet {
                        name: name.to_string(),
                        error,
                    };
                    let vhost = VhostNet::new(tap.clone(), devices, counters.clone());
                    view = Some(Arc::new(vhost.map_err(error)?));
                    tracing::info!("port {name}: vhost-net moves its frames");
                }
                Kind::Tap(tap)
            }
            PortKind::Pcap { path } => {
                let file = |error| AttachError::File {
                    path: path.clone(),
                    error,
                };
                let out = match fds.pop() {
                    Some(fd) => File::from(fd),
                    None => File::create(path).map_err(file)?,
                };
                let (capture, reader) = Capture::new(counters.clone()).map_err(system)?;
                let begun = Recording::new(reader, out, path, names.clone());
                view = Some(Arc::new(capture));
                Kind::Capture(Some(begun.map_err(file)?))
            }
            PortKind::AfPacket { .. } => {
                return Err(AttachError::NotAvailable {
                    kind: spec.kind.label(),
                });
            }
            PortKind::Sink => {
                view = Some(Arc::new(Sink::new(counters.clone())));
                Kind::Plain
            }
            PortKind::Generator(generator) => {
                let plan = plan(generator);
                view = Some(Arc::new(Generator::new(plan, counters.clone())));
                Kind::Plain
            }
        };
        let policy = Arc::new(policy(&spec));
        Ok(Self {
            number,
            slot,
            name,
            spec,
            counters,
            policy,
            told: false,
            view,
            kind,
        })
    }

    /// Starts the thread it has, if any.
    pub(crate) fn begin(&mut self, confinement: &Confinement) -> Result<(), AttachError> {
        let Kind::Capture(Some(recording)) = &mut self.kind else {
            return Ok(());
        };
        let begun = recording.begin(confinement);
        begun.map_err(|error| AttachError::System {
            name: self.name.clone(),
            error,
        })
    }

    /// A port before anything is open for it.
    pub(crate) fn unserved(identity: Identity, spec: PortSpec) -> Self {
        let Identity { number, slot, name } = identity;
        Self {
            number,
            slot,
            name,
            counters: Arc::new(Counters::new(usize::from(spec.kind.queues()))),
            policy: Arc::new(policy(&spec)),
            spec,
            told: false,
            view: None,
            kind: Kind::Plain,
        }
    }

    /// A capture somebody in this process reads.
    pub(crate) fn capture(identity: Identity, spec: PortSpec, capture: Capture) -> Self {
        Self::made_here(identity, spec, Arc::new(capture), Kind::Capture(None))
    }

    /// A port that somebody in this process made.
    #[cfg(test)]
    pub(crate) fn plain(identity: Identity, spec: PortSpec, view: Arc<dyn Port>) -> Self {
        Self::made_here(identity, spec, view, Kind::Plain)
    }

    fn made_here(identity: Identity, spec: PortSpec, view: Arc<dyn Port>, kind: Kind) -> Self {
        let mut port = Self::unserved(identity, spec);
        port.counters = Arc::new(Counters::new(1));
        port.view = Some(view);
        port.kind = kind;
        port
    }

    /// A front-end is there, or a device is open.
    pub(crate) fn connected(&self) -> bool {
        self.device().is_some() || !matches!(self.kind, Kind::VhostUser(_))
    }

    /// Negotiated features; 0 without a front-end.
    pub(crate) fn features(&self) -> u64 {
        self.device().map_or(0, Device::features)
    }

    pub(crate) fn device(&self) -> Option<&Device> {
        match &self.kind {
            Kind::VhostUser(socket) => socket.device.as_ref(),
            _ => None,
        }
    }

    /// Takes over settings that may change while frames cross.
    pub(crate) fn change(&mut self, spec: PortSpec) {
        self.policy = Arc::new(policy(&spec));
        self.spec = spec;
    }

    /// What to offer a front-end.
    pub(crate) fn settings(&self) -> Settings {
        settings(&self.spec)
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        // The writer ends when the recording end is gone, which is when the last view is.
        self.view = None;
        if let Kind::Capture(Some(recording)) =
            std::mem::replace(&mut self.kind, Kind::Capture(None))
        {
            recording.finish();
        }
    }
}

/// Whether all came along that a port needs of a switch that opens nothing itself.
pub(crate) fn check_passed(spec: &PortSpec, passed: Passed) -> Result<(), AttachError> {
    let wanted = match (&spec.kind, passed) {
        (PortKind::VhostUser(user), Passed::Nothing) => match user.mode {
            Mode::Server => "a listening socket (`listener`)",
            Mode::Client => "a connected socket (`connection`)",
        },
        (PortKind::Pcap { .. }, Passed::Nothing) => "a file open for writing (`file`)",
        // A tap is never opened here, the others need nothing.
        _ => return Ok(()),
    };
    Err(AttachError::Confined {
        name: spec.default_name(),
        wanted,
    })
}

enum OpenError {
    Socket(SocketError),
    System(std::io::Error),
}

fn open_socket(
    user: &VhostUser,
    passed: Option<OwnedFd>,
    spec: &PortSpec,
    counters: &Arc<Counters>,
) -> Result<Socket, OpenError> {
    let now = Instant::now();
    let mut device = None;
    let is_ours = passed.is_none();
    let place = match (user.mode, passed) {
        (Mode::Server, Some(fd)) => {
            Place::Listening(Listener::adopt(fd).map_err(OpenError::System)?)
        }
        (Mode::Server, None) => Place::Listening(
            Listener::bind(&user.path, user.permissions, user.group.as_deref())
                .map_err(OpenError::Socket)?,
        ),
        (Mode::Client, Some(fd)) => {
            let opened = Device::new(fd, &settings(spec), counters.clone());
            device = Some(opened.map_err(OpenError::System)?);
            Place::Connecting {
                path: None,
                next: now,
            }
        }
        (Mode::Client, None) => Place::Connecting {
            path: Some(user.path.clone()),
            next: now,
        },
    };
    // Once the socket is ours: then nobody else keeps the journal.
    let journal = is_ours.then(|| open_journal(user, spec)).flatten();
    Ok(Socket {
        journal,
        place,
        device,
        since: now,
        partial_since: None,
        announced: None,
        rarp: None,
        complaints: 0,
        chatter: Chatter::new(now),
    })
}

/// The journal beside the socket; without one the port works, and a warning says what is lost.
pub(super) fn open_journal(user: &VhostUser, spec: &PortSpec) -> Option<Arc<Journal>> {
    let path = Journal::beside(&user.path);
    match Journal::open(&path, spec.kind.queues()) {
        Ok(journal) => Some(Arc::new(journal)),
        Err(error) => {
            tracing::warn!(
                "{}: {error}; should this switch be killed, guests with packed rings at {} have to start their driver again",
                path.display(),
                user.path.display()
            );
            None
        }
    }
}

fn settings(spec: &PortSpec) -> Settings {
    Settings {
        queue_pairs: spec.kind.queues(),
        checksum: spec.offload != Offload::Off,
        segmentation: spec.offload == Offload::All,
    }
}

fn policy(spec: &PortSpec) -> Policy {
    Policy {
        vlan: match (spec.vlan, &spec.trunk) {
            (Some(vlan), _) => Vlan::Access(vlan),
            (None, Some(vlans)) => Vlan::Trunk(vlans.clone()),
            (None, None) => Vlan::Plain,
        },
        isolated: spec.isolated,
        mac: spec.mac.map(|mac| {
            let [a, b, c, d, e, f] = mac.0;
            u64::from_le_bytes([a, b, c, d, e, f, 0, 0])
        }),
        rate: spec
            .rate
            .map(|rate| Limiter::new(rate.bits_per_second(), spec.burst, Instant::now())),
        storm: spec
            .storm_limit()
            .map(|frames| Storm::new(frames, Instant::now())),
        steering: Steering::new(spec.kind.queues()),
    }
}

/// A UDP frame of the discard port, of the size asked for; below the size of such a frame, bytes
/// of the experimental EtherType.
fn plan(generator: &ringway_api::port_spec::Generator) -> Plan {
    use ringway_wire::build::FrameBuilder;
    let size = usize::from(generator.size);
    let (source, destination) = (
        MacAddress(generator.source.0),
        MacAddress(generator.destination.0),
    );
    let headers = FrameBuilder::ipv4([10, 0, 0, 1].into(), [10, 0, 0, 2].into())
        .macs(source, destination)
        .udp(9, 9);
    let empty = headers.build(&[]);
    let frame = if let Some(payload) = size.checked_sub(empty.len()) {
        headers.build(&vec![0; payload])
    } else {
        let mut frame = empty[..size].to_vec();
        frame[12..14].copy_from_slice(&[0x88, 0xb5]);
        frame
    };
    Plan {
        frame,
        rate: generator.frames_per_second,
        count: generator.count,
    }
}
