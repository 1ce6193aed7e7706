//! The control thread: sockets, sessions, ports, requests. It waits in one epoll for all of them
//! and never touches a frame.

mod addresses;
pub(crate) mod attached;
mod balance;
pub(crate) mod chatter;
pub(crate) mod handover;
pub(crate) mod recording;
mod requests;
mod sessions;
pub(crate) mod socket;
pub(crate) mod statistics;
mod watchers;

use std::collections::{BTreeMap, HashMap};
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ringway_api::control::{Channel, Passed};
use ringway_api::port_spec::PortSpec;
use ringway_port::Offloads;
use ringway_port::capture::SourceNames;
use rustix::event::{Timespec, epoll};

use crate::assign::Assignment;
use crate::sandbox::{Confinement, Reach, directory};
use crate::signals::Signals;
use crate::snapshot::{Entry, Shared, Snapshot, receive_queues};
use crate::table::MAX_PORTS;
use crate::totals::Sums;
use crate::{RunError, StartError, StatisticsFrequency};
use attached::{AttachError, Attached, Identity, Kind, Place};
use balance::Balance;
use handover::Takeover;
use socket::Listener;
use statistics::CpuClock;
use watchers::Watcher;

/// Seconds between two sweeps of the learning table.
const SWEEP: Duration = Duration::from_secs(10);

/// Between two looks whether a worker has come round that did not in time.
const RETRY: Duration = Duration::from_millis(100);

/// Who may become readable. Tokens above are ports (by number) and control connections.
const SIGNALS: u64 = 0;
const REPORTS: u64 = 1;
const CONTROL: u64 = 2;
const FIRST_FREE: u64 = 16;

/// A descriptor's meaning.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Token {
    /// The listening socket of a port.
    Listener(u32),
    /// The session of a port.
    Session(u32),
    /// A control connection.
    Connection,
    /// The pipe of a capture.
    Watcher,
}

pub(crate) struct Control {
    pub(super) shared: Arc<Shared>,
    workers: usize,
    assignment: Assignment,
    balance: Balance,
    /// By worker.
    pub(crate) cpu_clocks: Vec<CpuClock>,
    epoll: OwnedFd,
    tokens: HashMap<u64, Token>,
    next_token: u64,
    ports: BTreeMap<u32, Attached>,
    next_number: u32,
    names: SourceNames,
    listener: Option<Listener>,
    connections: HashMap<u64, Channel>,
    /// Captures, by the token of their pipe.
    watchers: HashMap<u64, Watcher>,
    tap_offloads: Offloads,
    confinement: Confinement,
    next_sweep: Instant,
    frequency: StatisticsFrequency,
    leaving: bool,
    /// What was counted by the switch before this one.
    carried: Sums,
    /// The switch before this one, while it is taken over.
    takeover: Option<Takeover>,
}

impl Control {
    pub(crate) fn new(
        shared: Arc<Shared>,
        workers: usize,
        signals: &Signals,
        control: Option<&Path>,
        frequency: StatisticsFrequency,
    ) -> Result<Self, StartError> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(StartError::system)?;
        let add = |fd, token| {
            let data = epoll::EventData::new_u64(token);
            epoll::add(&epoll, fd, data, epoll::EventFlags::IN).map_err(StartError::system)
        };
        add(signals.as_fd(), SIGNALS)?;
        add(shared.report_bell().as_fd(), REPORTS)?;
        let listener = control
            .map(|path| Listener::bind(path, 0o600, None))
            .transpose()?;
        if let Some(listener) = &listener {
            add(listener.as_fd(), CONTROL)?;
        }
        Ok(Self {
            shared,
            workers,
            assignment: Assignment::default(),
            balance: Balance::default(),
            cpu_clocks: Vec::new(),
            epoll,
            tokens: HashMap::new(),
            next_token: FIRST_FREE,
            ports: BTreeMap::new(),
            next_number: 1,
            names: SourceNames::default(),
            listener,
            connections: HashMap::new(),
            watchers: HashMap::new(),
            tap_offloads: Offloads::default(),
            confinement: Confinement::none(),
            next_sweep: Instant::now() + SWEEP,
            frequency,
            leaving: false,
            carried: Sums::default(),
            takeover: None,
        })
    }

    pub(crate) fn names(&self) -> &SourceNames {
        &self.names
    }

    /// Serves until a signal or a request ends the switch. `out` gets statistics.
    pub(crate) fn run(&mut self, signals: &Signals, out: &mut dyn Write) -> Result<(), RunError> {
        let mut next_statistics = self.frequency.map(|every| Instant::now() + every);
        while !self.leaving {
            let now = Instant::now();
            if now >= self.next_sweep {
                self.shared.table.age(self.shared.now());
                self.next_sweep = now + SWEEP;
            }
            if let (Some(every), Some(next)) = (self.frequency, &mut next_statistics)
                && now >= *next
            {
                writeln!(out, "{}", self.statistics(None).to_json())?;
                out.flush()?;
                *next = now + every;
            }
            let sessions = self.watch_sessions(now);
            let look = self.look(now);
            let held_back = self.serve_held_back(now);
            let wake = [
                Some(self.next_sweep),
                next_statistics,
                sessions,
                look,
                held_back,
            ]
            .into_iter()
            .flatten()
            .min();
            let wait = wake.map_or(SWEEP, |wake| wake.saturating_duration_since(Instant::now()));
            for token in self.wait(wait)? {
                match token {
                    SIGNALS => self.answer_signals(signals, out)?,
                    REPORTS => {
                        self.answer_reports();
                        if let Some(worker) = self.shared.lost_worker() {
                            return Err(RunError::WorkerLost { worker });
                        }
                    }
                    CONTROL => self.accept_connection(),
                    token => match self.tokens.get(&token).copied() {
                        Some(Token::Listener(port)) => self.accept_front_end(port),
                        Some(Token::Session(port)) => self.serve_session(port),
                        Some(Token::Connection) => self.serve_connection(token),
                        Some(Token::Watcher) => self.end_capture(token),
                        None => {}
                    },
                }
            }
        }
        Ok(())
    }

    /// Takes every port down: sockets are removed, files are complete, guests see the link go.
    pub(crate) fn leave(&mut self) {
        self.listener = None;
        self.connections.clear();
        let ports = std::mem::take(&mut self.ports);
        self.publish();
        drop(ports);
        self.end_captures();
    }

    /// Adds a port to a switch that runs; returns its name.
    pub(crate) fn add(
        &mut self,
        spec: PortSpec,
        passed: Passed,
        fds: Vec<OwnedFd>,
    ) -> Result<String, AttachError> {
        if self.confinement.is_on() {
            attached::check_passed(&spec, passed)?;
        }
        let number = self.place(spec, passed, fds)?;
        let confinement = self.confinement.clone();
        let Some(port) = self.ports.get_mut(&number) else {
            return Ok(String::new());
        };
        if let Err(error) = port.begin(&confinement) {
            self.remove(number);
            return Err(error);
        }
        let name = port.name.clone();
        if port.view.is_some() {
            self.publish();
        }
        Ok(name)
    }

    /// Opens a port, which workers do not see yet; returns its number.
    pub(crate) fn place(
        &mut self,
        spec: PortSpec,
        passed: Passed,
        fds: Vec<OwnedFd>,
    ) -> Result<u32, AttachError> {
        let identity = self.identity(&spec)?;
        let number = identity.number;
        let attached = Attached::open(identity, spec, passed, fds, &self.names)?;
        let has_socket = matches!(attached.kind, Kind::VhostUser(_));
        self.enter(attached);
        if has_socket {
            self.watch_socket(number);
        }
        Ok(number)
    }

    /// What the ports that were placed need of the file system later.
    pub(crate) fn reach(&self) -> Reach {
        let mut reach = Reach::default();
        let mut removing = |path: &Path| reach.removing.push(directory(path));
        self.listener
            .as_ref()
            .and_then(Listener::path)
            .map(&mut removing);
        let takeover = self.takeover.iter();
        let files = takeover.flat_map(Takeover::files);
        files.for_each(&mut removing);
        for port in self.ports.values() {
            let Kind::VhostUser(socket) = &port.kind else {
                continue;
            };
            match &socket.place {
                Place::Listening(listener) => {
                    listener.path().map(&mut removing);
                }
                Place::Connecting { path, .. } => {
                    reach.connecting.extend(path.as_deref().map(directory));
                }
            }
        }
        reach
    }

    /// Starts what the ports that were placed have threads for, and shows the workers the ports.
    pub(crate) fn begin(&mut self, confinement: &Confinement) -> Result<(), AttachError> {
        self.confinement = confinement.clone();
        for port in self.ports.values_mut() {
            port.begin(confinement)?;
        }
        // Until the switch before lets go, its ports are its own.
        if self.takeover.is_none() {
            self.publish();
        }
        Ok(())
    }

    /// Number, slot and name of a new port.
    pub(crate) fn identity(&mut self, spec: &PortSpec) -> Result<Identity, AttachError> {
        let taken = |name: &str| self.ports.values().any(|port| port.name == name);
        let wanted = spec.default_name();
        let name = match (&spec.name, taken(&wanted)) {
            (_, false) => wanted,
            (Some(_), true) => return Err(AttachError::NameTaken { name: wanted }),
            (None, true) => (2..)
                .map(|n| format!("{wanted}-{n}"))
                .find(|name| !taken(name))
                .unwrap_or(wanted),
        };
        let used: Vec<u16> = self.ports.values().map(|port| port.slot).collect();
        let slot =
            (0..u16::try_from(MAX_PORTS).unwrap_or(u16::MAX)).find(|slot| !used.contains(slot));
        let slot = slot.ok_or(AttachError::TooMany { limit: MAX_PORTS })?;
        let number = self.next_number;
        self.next_number += 1;
        Ok(Identity { number, slot, name })
    }

    /// Makes a port known to the workers.
    pub(crate) fn install(&mut self, port: Attached) {
        let visible = port.view.is_some();
        self.enter(port);
        if visible {
            self.publish();
        }
    }

    fn enter(&mut self, port: Attached) {
        self.names
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .insert(port.number, port.name.clone());
        self.ports.insert(port.number, port);
    }

    /// Removes a port and everything that was opened for it.
    fn remove(&mut self, number: u32) {
        let Some(port) = self.ports.remove(&number) else {
            return;
        };
        if let Kind::VhostUser(socket) = &port.kind {
            if let Place::Listening(listener) = &socket.place {
                self.unwatch(listener.as_fd(), Token::Listener(number));
            }
            if let Some(device) = &socket.device {
                self.unwatch(device.as_fd(), Token::Session(number));
            }
        }
        self.end_captures_at(number);
        self.publish();
        self.shared.table.forget_port(port.slot);
        let names = self.names.lock();
        let mut names = names.unwrap_or_else(std::sync::PoisonError::into_inner);
        // Captures may still write what they recorded of ports that went lately.
        names.retain(|of, _| self.ports.contains_key(of) || of + 64 > number);
    }

    /// The ports as they are now, by slot, and the slots of captures.
    fn entries(&self) -> (Vec<Option<Entry>>, Vec<u16>) {
        let slots = self
            .ports
            .values()
            .map(|port| usize::from(port.slot) + 1)
            .max()
            .unwrap_or(0);
        let mut entries: Vec<Option<Entry>> = (0..slots).map(|_| None).collect();
        let mut captures = Vec::new();
        for port in self.ports.values() {
            let Some(view) = &port.view else { continue };
            if matches!(port.kind, Kind::Capture(_)) {
                captures.push(port.slot);
            }
            entries[usize::from(port.slot)] = Some(Entry {
                port: view.clone(),
                number: port.number,
                policy: port.policy.clone(),
                watchers: self.watchers_of(port.number),
            });
        }
        (entries, captures)
    }

    /// Shows the workers the ports as they are now.
    fn publish(&mut self) {
        self.set_tap_offloads();
        let (entries, captures) = self.entries();
        self.tell_table();
        let plan = self
            .assignment
            .plan(&receive_queues(&entries), self.workers);
        self.assignment.carry_out(plan, |work| {
            let snapshot = Snapshot::new(entries.clone(), &captures, work);
            let adopted = self.shared.publish(snapshot);
            if !adopted {
                tracing::error!(
                    "a worker has not come round for five seconds; its ports are stuck"
                );
            }
            adopted
        });
    }

    /// Has queues served that had to wait for a worker to come round, once it has; says when to look
    /// again.
    fn serve_held_back(&mut self, now: Instant) -> Option<Instant> {
        if self.assignment.is_held_back() && self.shared.snapshots.is_everywhere() {
            self.publish();
        }
        self.assignment.is_held_back().then_some(now + RETRY)
    }

    /// A tap may give us frames with whatever at least one other port takes: for the rest software
    /// completes and segments, and one old guest does not slow the others. A tap takes everything.
    fn set_tap_offloads(&mut self) {
        let mut wanted = Offloads::default();
        let mut taps = 0;
        for port in self.ports.values() {
            let counts = match port.kind {
                Kind::VhostUser(_) => true,
                // Its own frames do not come back to it.
                Kind::Tap(_) => {
                    taps += 1;
                    taps > 1
                }
                _ => false,
            };
            let view = port.view.as_ref().filter(|_| counts);
            let takes = view.map(|view| view.offloads());
            let takes = takes.unwrap_or_default();
            wanted.csum |= takes.csum;
            wanted.tso4 |= takes.tso4;
            wanted.tso6 |= takes.tso6;
            wanted.ecn |= takes.ecn;
            wanted.uso |= takes.uso;
        }
        let changed = wanted != self.tap_offloads;
        self.tap_offloads = wanted;
        for port in self.ports.values_mut() {
            let Kind::Tap(tap) = &port.kind else { continue };
            if (changed || !std::mem::replace(&mut port.told, true))
                && let Err(error) = tap.set_offloads(wanted)
            {
                tracing::warn!("port {}: setting the tap's offloads: {error}", port.name);
            }
        }
    }

    fn answer_signals(&mut self, signals: &Signals, out: &mut dyn Write) -> std::io::Result<()> {
        let wanted = signals.take();
        if wanted.statistics {
            writeln!(out, "{}", self.statistics(None).to_json())?;
            out.flush()?;
        }
        self.leaving |= wanted.end;
        Ok(())
    }

    /// Tokens of what is ready, sessions before listeners: a front-end that left makes room for the
    /// one that comes.
    fn wait(&self, wait: Duration) -> std::io::Result<Vec<u64>> {
        let timeout = Timespec {
            tv_sec: i64::try_from(wait.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: wait.subsec_nanos().into(),
        };
        let mut events = [const { std::mem::MaybeUninit::uninit() }; 64];
        let ready = match epoll::wait(&self.epoll, &mut events, Some(&timeout)) {
            Ok((ready, _)) => ready,
            Err(rustix::io::Errno::INTR) => return Ok(Vec::new()),
            Err(error) => return Err(error.into()),
        };
        let mut tokens: Vec<u64> = ready.iter().map(|event| event.data.u64()).collect();
        tokens.sort_by_key(|token| matches!(self.tokens.get(token), Some(Token::Listener(_))));
        Ok(tokens)
    }

    /// A token for something to watch.
    fn token(&mut self, token: Token) -> u64 {
        let number = self.next_token;
        self.next_token += 1;
        self.tokens.insert(number, token);
        number
    }

    fn watch(&self, fd: BorrowedFd<'_>, token: u64) {
        let data = epoll::EventData::new_u64(token);
        if let Err(error) = epoll::add(&self.epoll, fd, data, epoll::EventFlags::IN) {
            tracing::error!("cannot wait for a socket: {error}");
        }
    }

    fn watch_control(&self) {
        if let Some(listener) = &self.listener {
            self.watch(listener.as_fd(), CONTROL);
        }
    }

    /// Before a descriptor is closed: somebody else may hold its other end, or a copy of it.
    fn unwatch(&mut self, fd: BorrowedFd<'_>, token: Token) {
        let _ = epoll::delete(&self.epoll, fd);
        self.tokens.retain(|_, other| *other != token);
    }
}
