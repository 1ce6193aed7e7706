//! Front-ends: they come, set up rings, leave.

use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use ringway_api::socket::connect;
use ringway_port::vhost_user::{Device, Event, SessionError, View};
use ringway_wire::{MacAddress, arp};

use super::attached::{Attached, Kind, Place, Socket};
use super::socket::peer;
use super::{Control, Token};
use crate::snapshot::Injected;

/// Messages of one session handled before others have their turn.
const MESSAGES_PER_TURN: usize = 64;

/// How long a message may stay incomplete, or an answer unread.
const PATIENCE: Duration = Duration::from_millis(900);

/// Time between two attempts to connect, client mode.
const RETRY: Duration = Duration::from_millis(500);

/// Lines about faults one front-end may cause in the log.
const COMPLAINTS: u32 = 32;

impl Control {
    /// Begins to wait for a port's front-end.
    pub(super) fn watch_socket(&mut self, number: u32) {
        let Some((_, socket)) = self.socket(number) else {
            return;
        };
        let passed = socket.device.take();
        self.watch_listener(number);
        if let Some(device) = passed {
            self.connected(number, device, "the connection passed to us".into());
        } else {
            self.connect_clients(Instant::now());
        }
    }

    /// A front-end wants to connect.
    pub(super) fn accept_front_end(&mut self, number: u32) {
        // The one before may have left without our having read its end.
        self.serve_session(number);
        let Some((port, socket)) = self.socket(number) else {
            return;
        };
        let Place::Listening(listener) = &socket.place else {
            return;
        };
        let connection = match listener.accept() {
            Ok(Some(connection)) => connection,
            Ok(None) => return,
            Err(error) => {
                if socket.chatter.allows(port) {
                    tracing::warn!("port {port}: accepting a front-end: {error}");
                }
                return;
            }
        };
        let who = peer(&connection);
        if socket.device.is_some() {
            if socket.chatter.allows(port) {
                tracing::warn!("port {port}: refused {who}: another front-end is connected");
            }
            return;
        }
        self.open_session(number, connection, who);
    }

    /// Messages of a front-end.
    pub(super) fn serve_session(&mut self, number: u32) {
        for _ in 0..MESSAGES_PER_TURN {
            let Some((
                _,
                Socket {
                    device: Some(device),
                    ..
                },
            )) = self.socket(number)
            else {
                return;
            };
            match device.receive() {
                Ok(Some(event)) => {
                    let outcome = self.follow(number, event);
                    let Some((
                        _,
                        Socket {
                            device: Some(device),
                            ..
                        },
                    )) = self.socket(number)
                    else {
                        return;
                    };
                    if let Err(error) = device.finish(outcome) {
                        return self.disconnected(number, &error);
                    }
                }
                Ok(None) => break,
                Err(error) => return self.disconnected(number, &error),
            }
        }
        self.announce(number);
    }

    /// Deadlines of sessions, and attempts to connect; says when to look again.
    pub(super) fn watch_sessions(&mut self, now: Instant) -> Option<Instant> {
        let mut late = Vec::new();
        let mut next: Option<Instant> = None;
        let mut soonest = |at: Instant| next = Some(next.map_or(at, |other| other.min(at)));
        for (&number, port) in &mut self.ports {
            let Kind::VhostUser(socket) = &mut port.kind else {
                continue;
            };
            let Some(device) = &mut socket.device else {
                continue;
            };
            let session = device.session();
            let flushed = !session.wants_write() || session.flush().is_ok();
            if !flushed || session.has_partial() || session.wants_write() {
                let since = *socket.partial_since.get_or_insert(now);
                if now - since >= PATIENCE {
                    late.push(number);
                } else {
                    soonest((now + Duration::from_millis(20)).min(since + PATIENCE));
                }
            } else {
                socket.partial_since = None;
            }
        }
        for number in late {
            if let Some((port, socket)) = self.socket(number)
                && socket.chatter.allows(port)
            {
                tracing::warn!(
                    "port {port}: the front-end stopped in the middle of a message, or reads no answers"
                );
            }
            self.disconnected(number, &SessionError::Closed);
        }
        if let Some(at) = self.connect_clients(now) {
            soonest(at);
        }
        next
    }

    /// Faults that workers met.
    pub(super) fn answer_reports(&mut self) {
        let _ = rustix::io::read(self.shared.report_bell(), &mut [0; 8]);
        for (number, fault) in self.shared.take_reports() {
            let Some(port) = self.ports.get_mut(&number) else {
                continue;
            };
            let name = &port.name;
            let Kind::VhostUser(socket) = &mut port.kind else {
                tracing::error!("port {name}: {fault}; it carries nothing any more");
                continue;
            };
            socket.complaints += 1;
            if socket.complaints <= COMPLAINTS && socket.chatter.allows(name) {
                tracing::error!(
                    "port {name}: {fault}; the ring is stopped until the driver starts it again"
                );
            }
            if let Some(device) = &mut socket.device {
                device.report(&fault);
            }
        }
    }

    /// Brings the data path in line with what a message changed.
    fn follow(&mut self, number: u32, event: Event) -> Result<(), ()> {
        match event {
            Event::Answered | Event::Status(_) | Event::Mtu | Event::CallChanged(_) => Ok(()),
            Event::Rarp(mac) => {
                if let Some((_, socket)) = self.socket(number) {
                    socket.rarp = Some(MacAddress(mac));
                }
                self.announce_guest(number);
                Ok(())
            }
            Event::Features
            | Event::Memory
            | Event::Log
            | Event::Inflight
            | Event::Ring(_)
            | Event::StopRing(_)
            | Event::ResetRings => self.synchronize(number),
        }
    }

    fn synchronize(&mut self, number: u32) -> Result<(), ()> {
        let Some((
            _,
            Socket {
                device: Some(device),
                ..
            },
        )) = self.socket(number)
        else {
            return Err(());
        };
        let view = device.retire();
        self.show(number, view);
        let Some((
            port,
            Socket {
                device: Some(device),
                complaints,
                chatter,
                ..
            },
        )) = self.socket(number)
        else {
            return Err(());
        };
        let (view, errors) = device.revive();
        for error in &errors {
            *complaints += 1;
            if *complaints <= COMPLAINTS && chatter.allows(port) {
                tracing::error!("port {port}: {error}");
            }
        }
        self.show(number, view);
        if errors.is_empty() { Ok(()) } else { Err(()) }
    }

    /// Gives the workers another view of a port, and waits until they have it.
    fn show(&mut self, number: u32, view: View) {
        let Some(port) = self.ports.get_mut(&number) else {
            return;
        };
        match view {
            View::Same => return,
            View::Gone => port.view = None,
            View::New(link) => port.view = Some(link),
        }
        self.publish();
        self.announce_guest(number);
    }

    /// Sends the announcement that the front-end asked for. A front-end may ask before it starts the rings: a port that workers do not
    /// see sends nothing, and its guest takes nothing yet, so it waits for the first one.
    fn announce_guest(&mut self, number: u32) {
        let Some(port) = self.ports.get_mut(&number) else {
            return;
        };
        let Kind::VhostUser(socket) = &mut port.kind else {
            return;
        };
        if port.view.is_some()
            && let Some(mac) = socket.rarp.take()
        {
            self.shared.inject(Injected {
                number,
                slot: port.slot,
                frame: arp::rarp_announce(mac).to_vec(),
            });
        }
    }

    fn open_session(&mut self, number: u32, connection: OwnedFd, who: String) {
        let Some(port) = self.ports.get(&number) else {
            return;
        };
        match Device::new(connection, &port.settings(), port.counters.clone()) {
            Ok(device) => self.connected(number, device, who),
            Err(error) => tracing::warn!("port {}: {error}", port.name),
        }
    }

    fn connected(&mut self, number: u32, mut device: Device, who: String) {
        let Some((port, socket)) = self.socket(number) else {
            return;
        };
        if socket.chatter.allows(port) {
            tracing::info!("port {port}: front-end connected ({who})");
        }
        socket.since = Instant::now();
        socket.partial_since = None;
        socket.announced = None;
        socket.rarp = None;
        socket.complaints = 0;
        if socket.chatter.is_silent() {
            device.session().hide_refusals();
        }
        socket.device = Some(device.with_journal(socket.journal.clone()));
        self.watch_session(number);
    }

    /// The session is over: nothing of it stays, the port waits for the next one.
    pub(super) fn disconnected(&mut self, number: u32, error: &SessionError) {
        let Some((port, socket)) = self.socket(number) else {
            return;
        };
        let seconds = socket.since.elapsed().as_secs_f32();
        match error {
            _ if !socket.chatter.allows(port) => {}
            SessionError::Closed => {
                tracing::info!("port {port}: front-end disconnected after {seconds:.1} s");
            }
            error => {
                tracing::warn!("port {port}: front-end disconnected after {seconds:.1} s: {error}");
            }
        }
        let device = socket.device.take();
        if let Place::Connecting { next, .. } = &mut socket.place {
            *next = Instant::now() + RETRY;
        }
        if let Some(device) = &device {
            self.unwatch(device.as_fd(), Token::Session(number));
        }
        let Some(port) = self.ports.get_mut(&number) else {
            return;
        };
        let slot = port.slot;
        if port.view.take().is_some() {
            self.publish();
        }
        self.shared.table.forget_port(slot);
        drop(device);
    }

    /// Says in one line what the driver negotiated, when that has changed.
    fn announce(&mut self, number: u32) {
        let Some((port, socket)) = self.socket(number) else {
            return;
        };
        let Some(device) = &socket.device else { return };
        let now = (device.features(), device.active_pairs());
        let before = socket.announced.unwrap_or_default();
        if now == before || (now.1 == 0 && before.1 == 0) {
            return;
        }
        match now.1 {
            _ if !socket.chatter.allows(port) => {}
            0 => tracing::info!("port {port}: the driver stopped"),
            _ => tracing::info!("port {port}: {}", device.negotiated()),
        }
        socket.announced = Some(now);
    }

    /// Client mode: connects where nobody is connected; says when to try again.
    fn connect_clients(&mut self, now: Instant) -> Option<Instant> {
        let mut opened = Vec::new();
        let mut again: Option<Instant> = None;
        for (&number, port) in &mut self.ports {
            let Kind::VhostUser(socket) = &mut port.kind else {
                continue;
            };
            let Place::Connecting {
                path: Some(path),
                next,
            } = &mut socket.place
            else {
                continue;
            };
            if socket.device.is_some() {
                continue;
            }
            if *next <= now {
                match connect(path) {
                    Ok(connection) => {
                        opened.push((number, connection));
                        continue;
                    }
                    Err(error) => {
                        *next = now + RETRY;
                        if error.kind() == ErrorKind::PermissionDenied && socket.complaints == 0 {
                            socket.complaints = 1;
                            let (name, path) = (&port.name, path.display());
                            tracing::warn!(
                                "port {name}: no right to connect to {path}: make it writable for the user that runs the switch; in its sandbox root has no more rights than others"
                            );
                        }
                    }
                }
            }
            again = Some(again.map_or(*next, |other| other.min(*next)));
        }
        for (number, connection) in opened {
            let who = peer(&connection);
            self.open_session(number, connection, who);
        }
        again
    }

    pub(super) fn watch_listener(&mut self, number: u32) {
        let token = self.token(Token::Listener(number));
        if let Some(Kind::VhostUser(socket)) = self.ports.get(&number).map(|port| &port.kind)
            && let Place::Listening(listener) = &socket.place
        {
            self.watch(listener.as_fd(), token);
        }
    }

    pub(super) fn watch_session(&mut self, number: u32) {
        let token = self.token(Token::Session(number));
        if let Some(device) = self.ports.get(&number).and_then(Attached::device) {
            self.watch(device.as_fd(), token);
        }
    }

    fn socket(&mut self, number: u32) -> Option<(&str, &mut Socket)> {
        let Attached { name, kind, .. } = self.ports.get_mut(&number)?;
        match kind {
            Kind::VhostUser(socket) => Some((name, socket)),
            _ => None,
        }
    }
}
