//! The switch that runs and hands over.

use std::os::fd::AsFd;
use std::time::Instant;

use ringway_api::control::Reply;
use ringway_api::control::handover::{
    Descriptors, FORMAT, FromNew, FromOld, HandoverError, Learned, Line, RingStanding, Standing,
    Stopped, SwitchState,
};
use ringway_api::port_spec::Mac;
use ringway_port::vhost_user::{Device, SessionError};

use super::state::{listener_state, port_state};
use super::{PREPARING, STANDING_STILL, monotonic, s};
use crate::control::Control;
use crate::control::attached::{Attached, Kind, Place};
use crate::control::socket::{Listener, peer};
use crate::snapshot::Snapshot;
use crate::totals::Sums;

/// Addresses in one message, which stays below the limit of its length.
const ADDRESSES: usize = 8192;

/// Queue pairs in one message, likewise.
const PAIRS: usize = 1024;

/// How a hand-over ended that did not fail.
enum Outcome {
    /// The new switch runs; nobody was served for so many microseconds.
    Running { gap: u64 },
    /// It was told to go and did not say that it runs. It may run all the same.
    Silent,
    /// It was told to go and is gone.
    Gone,
}

impl Control {
    /// Hands everything to the client of this control connection.
    pub(in crate::control) fn hand_over(&mut self, token: u64) {
        let Some(mut channel) = self.connections.remove(&token) else {
            return;
        };
        let _ = rustix::event::epoll::delete(&self.epoll, &channel);
        self.tokens.remove(&token);
        let who = channel.as_fd().try_clone_to_owned();
        let who = who.map_or_else(|error| error.to_string(), |socket| peer(&socket));
        let ports = self.ports.len();
        tracing::info!("handing over {ports} port{} to {who}", s(ports));
        let begun = channel.send(&Reply::HandingOver { format: FORMAT }, Vec::new());
        let mut line = Line::new(channel, Instant::now() + PREPARING);
        let handed = match begun {
            Ok(()) => self.try_to_hand_over(&mut line),
            Err(error) => Err(error.into()),
        };
        match handed {
            Ok(Outcome::Running { gap }) => {
                let devices = self.ports.values().filter_map(Attached::device);
                let rings: usize = devices.map(Device::running).sum();
                tracing::info!(
                    "handed over {ports} port{} and {rings} ring{}; frames waited for {:.3} ms",
                    s(ports),
                    s(rings),
                    gap as f64 / 1000.0
                );
                self.let_go();
            }
            Ok(Outcome::Silent) => {
                tracing::error!("handed over, but {who} does not say that it runs");
                self.let_go();
            }
            Ok(Outcome::Gone) => {
                tracing::error!(
                    "{who} was gone when it had just taken over: front-ends have to connect again"
                );
                self.end_sessions();
            }
            Err(error) => {
                tracing::warn!("the hand-over to {who} failed, this switch goes on: {error}")
            }
        }
    }

    fn try_to_hand_over(&mut self, line: &mut Line) -> Result<Outcome, HandoverError> {
        let begun = self.shared.now();
        self.say_what_stays(line)?;
        line.expect(&FromNew::Prepared)?;
        self.say_learned(line, begun)?;
        line.set_deadline(Instant::now() + STANDING_STILL);
        let at = monotonic();
        if let Err(error) = self.stop(line, at) {
            let message = error.to_string();
            let _ = line.send(&FromOld::Failed { message });
            self.publish();
            return Err(error);
        }
        // Said: from here on the rings are the new one's.
        Ok(match line.answer() {
            Ok(FromNew::Running { gap }) => Outcome::Running { gap },
            Ok(_) | Err(HandoverError::Timeout) => Outcome::Silent,
            Err(_) => Outcome::Gone,
        })
    }

    /// Everything that stays as it is while frames cross.
    fn say_what_stays(&self, line: &mut Line) -> Result<(), HandoverError> {
        let mut fds = Descriptors::default();
        let control = self.listener.as_ref();
        let switch = SwitchState {
            control: control.map(|listener| listener_state(listener, &mut fds)),
            next_number: self.next_number,
        };
        line.send_all(&FromOld::Switch(Box::new(switch)), &fds)?;
        for port in self.ports.values() {
            let mut fds = Descriptors::default();
            let state = port_state(port, &mut fds);
            line.send_all(&FromOld::Port(Box::new(state)), &fds)?;
        }
        self.say_learned(line, 0)?;
        line.send(&FromOld::Prepare)
    }

    /// Addresses that were learned, or seen again, from second `since` on.
    fn say_learned(&self, line: &mut Line, since: u32) -> Result<(), HandoverError> {
        let now = self.shared.now();
        let mut learned = Vec::new();
        self.shared.table.for_each(|key, slot, seen| {
            if seen < since {
                return;
            }
            let (mac, vlan) = (key.mac(), key.domain());
            let [a, b, c, d, e, f, _, _] = mac.to_le_bytes();
            learned.push(Learned {
                mac: Mac([a, b, c, d, e, f]),
                vlan,
                slot,
                age: now.saturating_sub(seen),
            });
        });
        for addresses in learned.chunks(ADDRESSES) {
            let addresses = addresses.to_vec();
            line.send(&FromOld::Learned { addresses })?;
        }
        Ok(())
    }

    /// Has nobody served any more, says where all stands and, once the new switch is ready, lets it go.
    /// After an error it has not been let go, and never will.
    fn stop(&mut self, line: &mut Line, at: u64) -> Result<(), HandoverError> {
        if !self.serve_nobody() {
            return Err(HandoverError::Failed("a worker is stuck here".into()));
        }
        self.answer_reports();
        let mut some = Vec::new();
        let mut pairs = 0;
        for port in self.ports.values() {
            pairs += port.counters.queues.len();
            some.push(standing(port));
            if pairs >= PAIRS {
                pairs = 0;
                let ports = std::mem::take(&mut some);
                line.send(&FromOld::Standing { ports })?;
            }
        }
        line.send(&FromOld::Standing { ports: some })?;
        let mut sums: Sums = self.carried;
        let each = self.shared.totals.iter();
        each.for_each(|totals| sums.add(&totals.read()));
        line.send(&FromOld::Stopped(Stopped {
            at,
            attempted: sums.attempted,
            delivered: sums.delivered,
            dropped: sums.dropped,
            copied_bytes: sums.copied_bytes,
        }))?;
        line.expect(&FromNew::Ready)?;
        // Nothing else waits to be sent: the message goes as a whole or not at all.
        line.send(&FromOld::Go)
    }

    /// Shows the workers a world without ports. Everything stays open, and goes on with `publish`.
    fn serve_nobody(&mut self) -> bool {
        let plan = self.assignment.plan(&[], self.workers);
        let mut adopted = true;
        self.assignment.carry_out(plan, |work| {
            adopted &= self.shared.publish(Snapshot::new(Vec::new(), &[], work));
            adopted
        });
        adopted
    }

    /// Leaves the switch to its successor: what is closed here stays open there, no file is removed. Files of
    /// captures are complete when this returns; the successor waits for the end of the connection.
    fn let_go(&mut self) {
        let is_capture = |_: &u32, port: &mut Attached| matches!(port.kind, Kind::Capture(_));
        self.ports.extract_if(.., is_capture).for_each(drop);
        let forget = |listener: &mut Listener| listener.set_file(None);
        self.listener.iter_mut().for_each(forget);
        for port in self.ports.values_mut() {
            let Kind::VhostUser(socket) = &mut port.kind else {
                continue;
            };
            socket.device.iter().for_each(Device::let_go);
            socket
                .journal
                .iter()
                .for_each(|journal| journal.set_owner(false));
            if let Place::Listening(listener) = &mut socket.place {
                forget(listener);
            }
        }
        self.leaving = true;
    }

    /// Where the rings stand is not known any more: front-ends say it when they connect again.
    fn end_sessions(&mut self) {
        let numbers: Vec<u32> = self.ports.keys().copied().collect();
        for number in numbers {
            if self
                .ports
                .get(&number)
                .is_some_and(|port| port.device().is_some())
            {
                self.disconnected(number, &SessionError::Closed);
            }
        }
        self.publish();
    }
}

fn standing(port: &Attached) -> Standing {
    let positions = port.device().map(Device::positions);
    let rings = positions.unwrap_or_default().into_iter();
    let queues = port.counters.queues.iter();
    let drops = port.counters.drops();
    Standing {
        number: port.number,
        rings: rings
            .map(|position| RingStanding {
                ring: position.ring,
                base: position.base,
                failed: position.failed,
            })
            .collect(),
        counters: queues
            .map(|queue| [&queue.received, &queue.sent].map(|half| half.words().to_vec()))
            .collect(),
        drops: drops
            .map(|(reason, n)| (reason.name().to_owned(), n))
            .collect(),
    }
}
