//! The switch that takes over.

use std::collections::HashMap;
use std::path::Path;
use std::time::Instant;

use ringway_api::control::Client;
use ringway_api::control::handover::{
    FromNew, FromOld, HandoverError, Learned, Line, PortState, Received, Standing, Stopped,
    SwitchState,
};
use ringway_port::DropReason;
use ringway_port::vhost_user::handover::Position;
use ringway_port::vhost_user::{Device, View};

use super::state::{SocketFile, resume};
use super::{PREPARING, STANDING_STILL, TakeoverError, monotonic, s};
use crate::control::Control;
use crate::control::attached::{Attached, Kind, Place};
use crate::control::socket::Listener;
use crate::table::{Key, MAX_PORTS};
use crate::totals::Sums;

/// The switch before this one, which has said everything that stays as it is.
pub(crate) struct Takeover {
    line: Line,
    files: Files,
}

/// Files of sockets that are ours once the switch before has let go.
#[derive(Default)]
struct Files {
    control: Option<(Listener, Option<SocketFile>)>,
    ports: HashMap<u32, SocketFile>,
}

impl Takeover {
    /// Files that will be removed with their sockets.
    pub(crate) fn files(&self) -> impl Iterator<Item = &Path> {
        let control = self.files.control.iter();
        let control = control.filter_map(|(_, file)| file.as_ref());
        let files = control.chain(self.files.ports.values());
        files.map(|(path, _)| &**path)
    }
}

impl Control {
    /// Opens and maps everything that the switch has whose control socket is at `path`. Nobody sees it yet.
    pub(crate) fn take_over(&mut self, path: &Path) -> Result<(), TakeoverError> {
        let client = Client::connect(path, PREPARING)?;
        let mut line = client.take_over()?;
        tracing::info!("taking over from the switch at {}", path.display());
        let prepared = self.prepare(&mut line);
        let files = said(&mut line, prepared)?;
        self.takeover = Some(Takeover { line, files });
        Ok(())
    }

    /// Becomes the switch that is taken over, if one is. Frames cross when this returns.
    pub(crate) fn finish_takeover(&mut self) -> Result<(), TakeoverError> {
        let Some(Takeover { mut line, files }) = self.takeover.take() else {
            return Ok(());
        };
        let followed = self.become_it(&mut line, files);
        said(&mut line, followed)
    }

    fn become_it(&mut self, line: &mut Line, mut files: Files) -> Result<(), TakeoverError> {
        line.send(&FromNew::Prepared)?;
        line.set_deadline(Instant::now() + PREPARING);
        let stopped = self.place_at(line)?;
        line.set_deadline(Instant::now() + STANDING_STILL);
        line.send(&FromNew::Ready)?;
        match line.receive_all()?.0 {
            FromOld::Go => {}
            other => return Err(unexpected(&other).into()),
        }
        // The rings are ours.
        self.own(&mut files);
        self.publish();
        let gap = monotonic().saturating_sub(stopped.at) / 1000;
        for port in self.ports.values() {
            if let Some(device) = port.device() {
                device.call_all();
            }
        }
        // Should it not be heard, the switch before leaves all the same.
        let _ = line.send(&FromNew::Running { gap });
        self.watch_everything();
        let ports = self.ports.len();
        let devices = self.ports.values().filter_map(Attached::device);
        let rings: usize = devices.map(Device::running).sum();
        tracing::info!(
            "took over {ports} port{} and {rings} ring{}; frames waited for {:.3} ms",
            s(ports),
            s(rings),
            gap as f64 / 1000.0
        );
        Ok(())
    }

    /// Opens and maps everything that the switch before has.
    fn prepare(&mut self, line: &mut Line) -> Result<Files, TakeoverError> {
        let mut files = Files::default();
        loop {
            match line.receive_all()? {
                (FromOld::Switch(state), fds) => {
                    files.control = self.resume_switch(*state, fds)?;
                }
                (FromOld::Port(state), fds) => self.resume_port(*state, fds, line, &mut files)?,
                (FromOld::Learned { addresses }, _) => self.learn(&addresses),
                (FromOld::Prepare, _) => return Ok(files),
                (other, _) => return Err(unexpected(&other).into()),
            }
        }
    }

    fn resume_switch(
        &mut self,
        state: SwitchState,
        mut fds: Received,
    ) -> Result<Option<(Listener, Option<SocketFile>)>, TakeoverError> {
        self.next_number = state.next_number;
        let Some(control) = state.control else {
            return Ok(None);
        };
        let listener = Listener::resume(fds.take(control.socket)?);
        Ok(Some((listener, control.file)))
    }

    fn resume_port(
        &mut self,
        state: PortState,
        fds: Received,
        line: &Line,
        files: &mut Files,
    ) -> Result<(), TakeoverError> {
        let (number, name) = (state.number, state.name.clone());
        let refused = |reason: String| TakeoverError::Port {
            name: name.clone(),
            reason,
        };
        let taken = |port: &Attached| {
            port.number == number || port.slot == state.slot || port.name == state.name
        };
        if usize::from(state.slot) >= MAX_PORTS || self.ports.values().any(taken) {
            return Err(refused("its number, slot or name is impossible".into()));
        }
        let resumed = resume(state, fds, &self.names, line);
        let (port, file) = resumed.map_err(|error| refused(error.to_string()))?;
        files.ports.extend(file.map(|file| (number, file)));
        self.enter(port);
        Ok(())
    }

    fn learn(&self, addresses: &[Learned]) {
        let now = self.shared.now();
        for learned in addresses {
            let [a, b, c, d, e, f] = learned.mac.0;
            let key = Key::new(u64::from_le_bytes([a, b, c, d, e, f, 0, 0]), learned.vlan);
            if usize::from(learned.slot) < MAX_PORTS {
                let seen = now.saturating_sub(learned.age);
                let _ = self.shared.table.learn(key, learned.slot, seen);
            }
        }
    }

    /// Has everything begin where it stands; nobody is served yet.
    fn place_at(&mut self, line: &mut Line) -> Result<Stopped, TakeoverError> {
        loop {
            match line.receive_all()?.0 {
                FromOld::Learned { addresses } => self.learn(&addresses),
                FromOld::Standing { ports } => {
                    for standing in &ports {
                        if let Some(port) = self.ports.get_mut(&standing.number) {
                            stand(port, standing);
                        }
                    }
                }
                FromOld::Stopped(stopped) => {
                    self.carried = Sums {
                        attempted: stopped.attempted,
                        delivered: stopped.delivered,
                        dropped: stopped.dropped,
                        copied_bytes: stopped.copied_bytes,
                    };
                    return Ok(stopped);
                }
                other => return Err(unexpected(&other).into()),
            }
        }
    }

    /// The files of sockets are removed with the sockets, and journals with them, from now on by us.
    fn own(&mut self, files: &mut Files) {
        let sockets = self.ports.values().filter_map(|port| match &port.kind {
            Kind::VhostUser(socket) => socket.journal.as_ref(),
            _ => None,
        });
        sockets.for_each(|journal| journal.set_owner(true));
        for (number, file) in files.ports.drain() {
            if let Some(Attached {
                kind: Kind::VhostUser(socket),
                ..
            }) = self.ports.get_mut(&number)
                && let Place::Listening(listener) = &mut socket.place
            {
                listener.set_file(Some(file));
            }
        }
        if let Some((mut listener, file)) = files.control.take() {
            listener.set_file(file);
            // One of our own is at another path: this one goes.
            if self.listener.is_none() {
                self.listener = Some(listener);
                self.watch_control();
            }
        }
    }

    fn watch_everything(&mut self) {
        let numbers: Vec<u32> = self.ports.keys().copied().collect();
        for number in numbers {
            let Some(port) = self.ports.get(&number) else {
                continue;
            };
            if matches!(port.kind, Kind::VhostUser(_)) {
                let connected = port.device().is_some();
                self.watch_listener(number);
                if connected {
                    self.watch_session(number);
                }
            }
        }
    }
}

/// Counters go on, rings start.
fn stand(port: &mut Attached, standing: &Standing) {
    for (queue, [received, sent]) in port.counters.queues.iter().zip(&standing.counters) {
        queue.received.resume(received);
        queue.sent.resume(sent);
    }
    for (reason, &frames) in &standing.drops {
        if let Some(reason) = DropReason::named(reason) {
            port.counters.resume(reason, frames);
        }
    }
    let Kind::VhostUser(socket) = &mut port.kind else {
        return;
    };
    let Some(device) = &mut socket.device else {
        return;
    };
    let positions = standing.rings.iter().map(|ring| Position {
        ring: ring.ring,
        base: ring.base,
        failed: ring.failed,
    });
    let (view, errors) = device.start_at(&positions.collect::<Vec<_>>());
    for error in errors {
        tracing::error!("port {}: {error}", port.name);
    }
    if let View::New(link) = view {
        port.view = Some(link);
    }
    // Said by the switch before.
    socket.announced = Some((device.features(), device.active_pairs()));
}

/// Tells the other side of a failure.
fn said<T>(line: &mut Line, outcome: Result<T, TakeoverError>) -> Result<T, TakeoverError> {
    if let Err(error) = &outcome {
        let message = error.to_string();
        let _ = line.send(&FromNew::Failed { message });
    }
    outcome
}

fn unexpected(message: &FromOld) -> HandoverError {
    let name = match message {
        FromOld::Descriptors => "descriptors",
        FromOld::Switch(_) => "switch",
        FromOld::Port(_) => "port",
        FromOld::Learned { .. } => "learned",
        FromOld::Prepare => "prepare",
        FromOld::Standing { .. } => "standing",
        FromOld::Stopped(_) => "stopped",
        FromOld::Go => "go",
        FromOld::Failed { .. } => "failed",
    };
    HandoverError::Unexpected(name.into())
}
