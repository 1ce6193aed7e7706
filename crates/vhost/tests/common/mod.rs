//! A back-end without data path, for tests that talk to a session from another thread.
// Each test binary uses its part of this.
#![allow(dead_code)]

use std::os::fd::OwnedFd;
use std::thread::JoinHandle;
use std::time::Duration;

use ringway_vhost::user::frontend::Frontend;
use ringway_vhost::user::{Event, Offer, Session, SessionError, features::*};
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

/// Long enough for a loaded machine; nothing waits that long when all is well.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) const FEATURES: u64 = mask(&[
    VIRTIO_NET_F_CSUM,
    VIRTIO_NET_F_GUEST_CSUM,
    VIRTIO_NET_F_MTU,
    VIRTIO_NET_F_MRG_RXBUF,
    VIRTIO_NET_F_GUEST_ANNOUNCE,
    VIRTIO_NET_F_MQ,
    VIRTIO_RING_F_INDIRECT_DESC,
    VIRTIO_RING_F_EVENT_IDX,
    VIRTIO_F_VERSION_1,
    VIRTIO_F_RING_PACKED,
]);

pub(crate) fn offer(queue_pairs: u16) -> Offer {
    let protocol_features = ringway_vhost::user::session::PROTOCOL_FEATURES;
    Offer {
        features: FEATURES,
        protocol_features,
        queue_pairs,
        max_memory_slots: 32,
    }
}

/// What a session went through.
pub(crate) struct Record {
    /// Every event that was not merely answered, with the rings that were ready and enabled then.
    pub(crate) events: Vec<(Event, Vec<u16>)>,
    /// The session, which the front-end has left.
    pub(crate) session: Session,
}

impl Record {
    pub(crate) fn events(&self) -> Vec<Event> {
        self.events.iter().map(|(event, _)| *event).collect()
    }

    /// The rings that carried traffic after the last event of that kind.
    pub(crate) fn running_after(&self, wanted: impl Fn(&Event) -> bool) -> &[u16] {
        let found = self.events.iter().rev().find(|(event, _)| wanted(event));
        &found.expect("no such event").1
    }
}

/// Serves a connection until the front-end leaves. Ring 0 is at 100 when it is stopped, ring 1 at
/// 101 and so on.
pub(crate) fn serve(mut session: Session) -> JoinHandle<Record> {
    std::thread::spawn(move || {
        let mut events = Vec::new();
        let mut running: Vec<u16> = Vec::new();
        loop {
            let event = match session.receive() {
                Ok(Some(event)) => event,
                Ok(None) => {
                    poll(&mut [PollFd::new(&session, PollFlags::IN)], None).unwrap();
                    continue;
                }
                Err(SessionError::Closed) => return Record { events, session },
                Err(error) => panic!("{error}: {:?}", std::error::Error::source(&error)),
            };
            let stopped = match event {
                Event::StopRing(ring) => vec![ring],
                Event::ResetRings => running.clone(),
                _ => Vec::new(),
            };
            let state = session.state_mut();
            for ring in stopped.into_iter().filter(|ring| running.contains(ring)) {
                state.vrings[usize::from(ring)].base = 100 + u32::from(ring);
            }
            running = (0..)
                .zip(&state.vrings)
                .filter(|(_, v)| v.is_ready())
                .map(|p| p.0)
                .collect();
            let carries = |ring: &u16| state.vrings[usize::from(*ring)].enabled;
            if event != Event::Answered {
                events.push((event, running.iter().copied().filter(carries).collect()));
            }
            session.finish(Ok(())).unwrap();
        }
    })
}

/// A connected pair of an in-tree front-end and a session.
pub(crate) fn connected(offer: Offer) -> (Frontend, Session) {
    let (ours, theirs) = socketpair(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        None,
    )
    .unwrap();
    (
        Frontend::new(theirs, PATIENCE).unwrap(),
        Session::new(ours, offer).unwrap(),
    )
}

pub(crate) fn event() -> OwnedFd {
    eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).unwrap()
}
