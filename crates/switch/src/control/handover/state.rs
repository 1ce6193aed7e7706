//! What a hand-over says of a port, and the port made from it.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ringway_api::control::Passed;
use ringway_api::control::handover::{
    Descriptors, HandoverError, InflightState, ListenerState, LogState, PortState, Received,
    RegionState, RingPlaces, RingState, SessionState, VhostUserState,
};
use ringway_api::port_spec::{PortKind, VhostUser};
use ringway_port::capture::{Capture, SourceNames};
use ringway_port::vhost_user::Device;
use ringway_port::vhost_user::handover::{
    DeviceState, DirtyLog, GuestMemory, InflightArea, InflightRegion, MemoryError, Pending,
    RegionRequest, ResumeError, RingAddresses, Vring, map_inflight,
};

use crate::control::attached::{
    AttachError, Attached, Identity, Kind, Place, Socket, open_journal,
};
use crate::control::chatter::Chatter;
use crate::control::recording::Recording;
use crate::control::socket::Listener;

/// A socket's file and its inode.
pub(super) type SocketFile = (std::path::PathBuf, u64);

/// Why a port cannot be gone on with.
#[derive(Debug, thiserror::Error)]
pub(super) enum ResumePortError {
    #[error(transparent)]
    Handover(#[from] HandoverError),
    #[error(transparent)]
    Attach(#[from] AttachError),
    #[error(transparent)]
    Session(#[from] ResumeError),
    #[error("guest memory: {0}")]
    Memory(#[from] MemoryError),
    #[error(transparent)]
    System(#[from] std::io::Error),
    #[error("it has no sockets, although it is a vhost-user port")]
    NoSockets,
}

pub(super) fn listener_state<'a>(
    listener: &'a Listener,
    fds: &mut Descriptors<'a>,
) -> ListenerState {
    let absolute = |(path, inode): &SocketFile| {
        let path = std::path::absolute(path).unwrap_or_else(|_| path.clone());
        (path, *inode)
    };
    ListenerState {
        socket: fds.add(listener.as_fd()),
        file: listener.file().map(absolute),
    }
}

pub(super) fn port_state<'a>(port: &'a Attached, fds: &mut Descriptors<'a>) -> PortState {
    let (mut files, mut vhost_user) = (Vec::new(), None);
    match &port.kind {
        Kind::VhostUser(socket) => vhost_user = Some(vhost_user_state(socket, fds)),
        Kind::Tap(tap) => files.extend(tap.descriptors().map(|fd| fds.add(fd))),
        Kind::Capture(Some(recording)) => files.push(fds.add(recording.file())),
        Kind::Capture(None) | Kind::Plain => {}
    }
    PortState {
        number: port.number,
        slot: port.slot,
        name: port.name.clone(),
        spec: port.spec.clone(),
        files,
        vhost_user,
    }
}

fn vhost_user_state<'a>(socket: &'a Socket, fds: &mut Descriptors<'a>) -> VhostUserState {
    let (listener, connects) = match &socket.place {
        Place::Listening(listener) => (Some(listener_state(listener, fds)), false),
        Place::Connecting { path, .. } => (None, path.is_some()),
    };
    let session = socket.device.as_ref();
    VhostUserState {
        listener,
        connects,
        session: session.map(|device| SessionState {
            age: u64::try_from(socket.since.elapsed().as_millis()).unwrap_or(u64::MAX),
            complaints: socket.complaints,
            ..session_state(device, fds)
        }),
    }
}

fn session_state<'a>(device: &'a Device, fds: &mut Descriptors<'a>) -> SessionState {
    let state = device.state();
    let pending = device.pending();
    let ring = |vring: &'a Vring, fds: &mut Descriptors<'a>| {
        let mut file = |file: &'a Option<Arc<OwnedFd>>| file.as_ref().map(|fd| fds.add(fd.as_fd()));
        RingState {
            size: vring.size,
            addresses: vring.addresses.map(|at| RingPlaces {
                descriptors: at.descriptors,
                available: at.available,
                used: at.used,
                log: at.log,
                logged: at.logged,
            }),
            base: vring.base,
            kick: file(&vring.kick),
            call: file(&vring.call),
            err: file(&vring.err),
            started: vring.started,
            enabled: vring.enabled,
        }
    };
    let memory = state.memory.as_ref().map(|memory| {
        let regions = memory.files().map(|(info, mapped)| RegionState {
            guest_address: info.guest_address,
            user_address: info.user_address,
            size: info.size,
            mmap_offset: mapped.mmap_offset,
            file: fds.add(mapped.file),
        });
        regions.collect()
    });
    let log = state.log.as_ref().and_then(|log| log.file());
    let inflight = state.inflight.as_ref().and_then(|region| region.file());
    SessionState {
        socket: fds.add(device.as_fd()),
        age: 0,
        complaints: 0,
        received: pending.received,
        received_files: pending.descriptors.iter().map(|fd| fds.add(*fd)).collect(),
        queued: pending.queued,
        queued_files: {
            let files = pending.attached.iter();
            files.map(|(place, fd)| (*place, fds.add(*fd))).collect()
        },
        features: state.features,
        acked_features: state.acked_features,
        protocol_features: state.protocol_features,
        status: state.status,
        mtu: state.mtu,
        memory,
        log: log.map(|mapped| LogState {
            size: mapped.size,
            mmap_offset: mapped.mmap_offset,
            file: fds.add(mapped.file),
        }),
        inflight: inflight.map(|(area, file)| InflightState {
            size: area.size,
            mmap_offset: area.offset,
            rings: area.rings,
            ring_size: area.ring_size,
            file: fds.add(file),
        }),
        backend_requests: state
            .backend_requests
            .as_ref()
            .map(|fd| fds.add(fd.as_fd())),
        rings: state.vrings.iter().map(|vring| ring(vring, fds)).collect(),
    }
}

/// Makes the port that `state` tells of. The file of its socket is given back: it becomes ours in the
/// end. `there` is the connection to the process before.
pub(super) fn resume(
    state: PortState,
    mut fds: Received,
    names: &SourceNames,
    there: &impl AsFd,
) -> Result<(Attached, Option<SocketFile>), ResumePortError> {
    let identity = Identity {
        number: state.number,
        slot: state.slot,
        name: state.name,
    };
    let spec = state.spec;
    let files = state.files.into_iter().map(|place| fds.take(place));
    let mut files = files.collect::<Result<Vec<_>, _>>()?;
    let passed = match &spec.kind {
        PortKind::VhostUser(user) => {
            let user = user.clone();
            let sockets = state.vhost_user.ok_or(ResumePortError::NoSockets)?;
            let mut port = Attached::unserved(identity, spec);
            let (socket, file) = resume_socket(&port, &user, sockets, &mut fds)?;
            port.kind = Kind::VhostUser(Box::new(socket));
            return Ok((port, file));
        }
        PortKind::Pcap { path } => {
            let path = path.clone();
            Passed::File
                .check(&spec.kind, files.len())
                .map_err(AttachError::from)?;
            let mut port = Attached::unserved(identity, spec);
            let (capture, reader) = Capture::new(port.counters.clone())?;
            if let Some(file) = files.pop().map(File::from) {
                let there = there.as_fd().try_clone_to_owned()?;
                let recording = Recording::resume(reader, file, &path, names.clone(), there)?;
                port.kind = Kind::Capture(Some(recording));
            }
            port.view = Some(Arc::new(capture));
            return Ok((port, None));
        }
        PortKind::Tap { .. } => Passed::TapQueues,
        _ => Passed::Nothing,
    };
    Ok((Attached::open(identity, spec, passed, files, names)?, None))
}

fn resume_socket(
    port: &Attached,
    user: &VhostUser,
    state: VhostUserState,
    fds: &mut Received,
) -> Result<(Socket, Option<SocketFile>), ResumePortError> {
    let now = Instant::now();
    let mut file = None;
    let place = match state.listener {
        Some(listener) => {
            file = listener.file;
            Place::Listening(Listener::resume(fds.take(listener.socket)?))
        }
        None => Place::Connecting {
            path: state.connects.then(|| user.path.clone()),
            next: now,
        },
    };
    // The switch before keeps it, too, until it has let go: what is written here first says the same.
    let is_ours = file.is_some() || state.connects;
    let journal = is_ours.then(|| open_journal(user, &port.spec)).flatten();
    journal.iter().for_each(|journal| journal.set_owner(false));
    let mut socket = Socket {
        journal,
        place,
        device: None,
        since: now,
        partial_since: None,
        announced: None,
        complaints: 0,
        chatter: Chatter::new(now),
        rarp: None,
    };
    if let Some(session) = state.session {
        let age = Duration::from_millis(session.age);
        socket.since = now.checked_sub(age).unwrap_or(now);
        socket.complaints = session.complaints;
        match resume_session(port, session, fds) {
            Ok(device) => socket.device = Some(device.with_journal(socket.journal.clone())),
            // Its front-end shrank the file, which costs nobody else anything.
            Err(ResumePortError::Memory(error @ MemoryError::ShortFile { .. })) => {
                tracing::warn!("port {}: its session ends: {error}", port.name);
            }
            Err(error) => return Err(error),
        }
    }
    Ok((socket, file))
}

fn resume_session(
    port: &Attached,
    state: SessionState,
    fds: &mut Received,
) -> Result<Device, ResumePortError> {
    let socket = fds.take(state.socket)?;
    let queued_files = state.queued_files.iter();
    let attached = queued_files.map(|&(place, file)| Ok((place, fds.take(file)?)));
    let attached = attached.collect::<Result<_, HandoverError>>()?;
    let received = state.received_files.iter().map(|&place| fds.take(place));
    let pending = Pending {
        attached,
        descriptors: received.collect::<Result<_, _>>()?,
        received: state.received,
        queued: state.queued,
    };
    let memory = match state.memory {
        Some(regions) => {
            let regions = regions.into_iter().map(|region| {
                Ok(RegionRequest {
                    guest_address: region.guest_address,
                    size: region.size,
                    user_address: region.user_address,
                    mmap_offset: region.mmap_offset,
                    file: fds.take(region.file)?,
                })
            });
            let regions = regions.collect::<Result<_, HandoverError>>()?;
            Some(Arc::new(GuestMemory::map(regions)?))
        }
        None => None,
    };
    let log = match state.log {
        Some(log) => {
            let mapped = DirtyLog::map(fds.take(log.file)?, log.size, log.mmap_offset)?;
            Some(Arc::new(mapped))
        }
        None => None,
    };
    let inflight = match state.inflight {
        Some(place) => resume_inflight(port, place, fds, state.features)?,
        None => None,
    };
    let backend_requests = state.backend_requests.map(|place| fds.take(place));
    let rings = state.rings.into_iter().map(|ring| vring(ring, fds));
    let state = DeviceState {
        features: state.features,
        acked_features: state.acked_features,
        protocol_features: state.protocol_features,
        status: state.status,
        memory,
        log,
        inflight,
        mtu: state.mtu,
        vrings: rings.collect::<Result<_, _>>()?,
        backend_requests: backend_requests.transpose()?,
    };
    let (settings, counters) = (port.settings(), port.counters.clone());
    Ok(Device::resume(socket, pending, state, &settings, counters)?)
}

/// The region for what is in flight, unless its front-end shrank the file: it was nobody's but its own.
fn resume_inflight(
    port: &Attached,
    state: InflightState,
    fds: &mut Received,
    features: u64,
) -> Result<Option<Arc<InflightRegion>>, HandoverError> {
    let area = InflightArea {
        size: state.size,
        offset: state.mmap_offset,
        rings: state.rings,
        ring_size: state.ring_size,
    };
    let region = map_inflight(fds.take(state.file)?, area, features);
    if let Err(error) = &region {
        tracing::warn!(
            "port {}: what is in flight is kept nowhere: {error}",
            port.name
        );
    }
    Ok(region.ok().map(Arc::new))
}

fn vring(state: RingState, fds: &mut Received) -> Result<Vring, HandoverError> {
    let mut file = |place: Option<u32>| {
        let taken = place.map(|place| fds.take(place)).transpose()?;
        Ok::<_, HandoverError>(taken.map(Arc::new))
    };
    Ok(Vring {
        size: state.size,
        addresses: state.addresses.map(|at| RingAddresses {
            descriptors: at.descriptors,
            available: at.available,
            used: at.used,
            log: at.log,
            logged: at.logged,
        }),
        base: state.base,
        kick: file(state.kick)?,
        started: state.started,
        call: file(state.call)?,
        err: file(state.err)?,
        enabled: state.enabled,
    })
}
