use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use ringway_mem::{GuestMemory, RegionRequest};
use rustix::event::{EventfdFlags, eventfd};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::pipe::pipe;

use super::*;
use crate::user::features::*;
use crate::user::frontend::{Frontend, FrontendError};
use crate::user::message::*;
use crate::user::socket::{Message, SocketError};

mod device;
mod fds;
mod handover;
mod inflight;
mod log;
mod memory;
mod messages;
mod rings;

const FEATURES: u64 = mask(&[
    VIRTIO_NET_F_CSUM,
    VIRTIO_NET_F_MRG_RXBUF,
    VIRTIO_NET_F_MQ,
    VIRTIO_RING_F_INDIRECT_DESC,
    VIRTIO_RING_F_EVENT_IDX,
    VIRTIO_F_VERSION_1,
    VIRTIO_F_RING_PACKED,
]);
const BIT_30: u64 = mask(&[VHOST_USER_F_PROTOCOL_FEATURES]);
/// Split rings, enabled by message.
const ACKED: u64 = mask(&[VIRTIO_F_VERSION_1, VHOST_USER_F_PROTOCOL_FEATURES]);

/// Both ends of a connection, driven by one thread.
struct Pair {
    frontend: Frontend,
    session: Session,
}

impl Pair {
    fn offering(offer: Offer) -> Self {
        let (ours, theirs) = sockets();
        // Answers are there when the session has finished, or never.
        let frontend = Frontend::new(theirs, Duration::ZERO).unwrap();
        Self {
            frontend,
            session: Session::new(ours, offer).unwrap(),
        }
    }

    /// A new connection, nothing negotiated.
    fn fresh() -> Self {
        Self::offering(Offer {
            features: FEATURES,
            protocol_features: u64::MAX,
            queue_pairs: 2,
            max_memory_slots: 4,
        })
    }

    /// All protocol features and the features of a split ring.
    fn negotiated() -> Self {
        let mut pair = Self::fresh();
        pair.session.state_mut().protocol_features = PROTOCOL_FEATURES;
        pair.ok(Request::SetFeatures, &ACKED.to_ne_bytes(), &[]);
        pair
    }

    /// With the first ring started.
    fn started() -> Self {
        let mut pair = Self::negotiated();
        pair.ok(Request::SetVringNum, &ring(0, 256), &[]);
        pair.ok(Request::SetVringAddr, &addresses(0, 0), &[]);
        pair.ok(Request::SetVringKick, &number(0), &[event().as_fd()]);
        assert!(pair.session.state().vrings[0].is_ready());
        pair
    }

    fn send(
        &mut self,
        request: impl Into<RequestId>,
        payload: &[u8],
        files: &[BorrowedFd<'_>],
        need_reply: bool,
    ) {
        let request = request.into();
        let size = u32::try_from(payload.len()).unwrap();
        self.send_header(Header::request(request, size, need_reply), payload, files);
    }

    fn send_header(&mut self, header: Header, payload: &[u8], files: &[BorrowedFd<'_>]) {
        let bytes = [&header.bytes(), payload].concat();
        self.frontend
            .send_raw(header.request, &bytes, files)
            .unwrap();
    }

    /// Lets the session handle the message that was sent; the data path follows.
    fn handle(&mut self) -> Result<Event, SessionError> {
        let event = self.session.receive()?.expect("a whole message");
        self.session.finish(Ok(()))?;
        Ok(event)
    }

    /// One message without need_reply.
    fn tell(
        &mut self,
        request: impl Into<RequestId>,
        payload: &[u8],
        files: &[BorrowedFd<'_>],
    ) -> Result<Event, SessionError> {
        self.send(request, payload, files, false);
        self.handle()
    }

    /// One message that is not answered and must be accepted.
    fn ok(&mut self, request: Request, payload: &[u8], files: &[BorrowedFd<'_>]) -> Event {
        let event = self.tell(request, payload, files).unwrap();
        assert!(self.answer().is_none());
        event
    }

    /// One message with need_reply, and the number in its answer.
    fn ask(
        &mut self,
        request: impl Into<RequestId>,
        payload: &[u8],
        files: &[BorrowedFd<'_>],
    ) -> (Event, u64) {
        let request = request.into();
        self.send(request, payload, files, true);
        let event = self.handle().unwrap();
        let answer = self.answer().expect("an answer");
        assert_eq!(answer.header, Header::reply(request, 8));
        assert!(self.answer().is_none(), "a second answer");
        (event, parse_u64(&answer.payload).unwrap())
    }

    fn answer(&mut self) -> Option<Message> {
        match self.frontend.receive_raw(RequestId(0)) {
            Ok(message) => Some(message),
            Err(FrontendError::Timeout { .. }) => None,
            Err(error) => panic!("{error}"),
        }
    }

    /// Refused with an answer that was asked for, the session going on; and without one, the
    /// session ending with the error that is returned.
    fn refused(
        make: fn() -> Self,
        request: Request,
        payload: &[u8],
        files: &[BorrowedFd<'_>],
    ) -> SessionError {
        let mut asked = make();
        asked.session.state_mut().protocol_features |= mask(&[VHOST_USER_PROTOCOL_F_REPLY_ACK]);
        assert_eq!(asked.ask(request, payload, files), (Event::Answered, 1));
        assert!(asked.frontend_lives());
        let mut told = make();
        let error = told.tell(request, payload, files).unwrap_err();
        assert!(error.is_refusal(), "{error}");
        assert!(told.answer_or_end().is_none());
        assert!(matches!(told.session.receive(), Err(SessionError::Closed)));
        error
    }

    fn frontend_lives(&mut self) -> bool {
        self.tell(Request::GetFeatures, &[], &[]).is_ok() && self.answer().is_some()
    }

    fn answer_or_end(&mut self) -> Option<Message> {
        self.frontend.receive_raw(RequestId(0)).ok()
    }
}

fn sockets() -> (OwnedFd, OwnedFd) {
    socketpair(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        None,
    )
    .unwrap()
}

fn event() -> OwnedFd {
    eventfd(0, EventfdFlags::CLOEXEC).unwrap()
}

fn number(number: u64) -> [u8; 8] {
    number.to_ne_bytes()
}

fn ring(index: u32, num: u32) -> [u8; 8] {
    VringState { index, num }.bytes()
}

fn addresses(index: u32, flags: u32) -> [u8; 40] {
    let (descriptors, used, available) = (0x1000, 0x3000, 0x2000);
    VringAddress {
        index,
        flags,
        descriptors,
        used,
        available,
        log: 0,
    }
    .bytes()
}

#[test]
fn the_session_reads_nothing_before_an_event_is_finished() {
    let mut pair = Pair::fresh();
    pair.send(Request::GetFeatures, &[], &[], false);
    assert_eq!(pair.session.receive().unwrap(), Some(Event::Answered));
    assert!(matches!(
        pair.session.receive(),
        Err(SessionError::Unfinished)
    ));
    assert!(
        pair.answer().is_none(),
        "answered before the data path followed"
    );
    pair.session.finish(Ok(())).unwrap();
    assert!(pair.answer().is_some());
    assert!(matches!(pair.session.receive(), Ok(None)));
}

#[test]
fn the_answer_is_negative_when_the_data_path_cannot_follow() {
    let mut pair = Pair::negotiated();
    for (outcome, code) in [(Ok(()), 0), (Err(()), 1)] {
        pair.send(Request::SetVringEnable, &ring(0, 1), &[], true);
        assert!(pair.session.receive().unwrap().is_some());
        pair.session.finish(outcome).unwrap();
        assert_eq!(parse_u64(&pair.answer().unwrap().payload), Some(code));
    }
    pair.send(Request::SetVringEnable, &ring(0, 0), &[], false);
    assert!(pair.session.receive().unwrap().is_some());
    pair.session.finish(Err(())).unwrap();
    assert!(pair.answer().is_none());
    assert!(pair.frontend_lives());
}

#[test]
fn an_offer_is_limited_to_what_the_session_has() {
    let offer = Offer {
        features: FEATURES | mask(&[VHOST_F_LOG_ALL]),
        protocol_features: u64::MAX,
        queue_pairs: 1000,
        max_memory_slots: u64::MAX,
    };
    let pair = Pair::offering(offer);
    let limited = pair.session.offer();
    let log_all = mask(&[VHOST_F_LOG_ALL]);
    assert_eq!(limited.features, FEATURES | log_all | BIT_30);
    assert_eq!(limited.protocol_features, 0x1_b03f);
    assert_eq!(limited.queue_pairs, 128);
    assert_eq!(limited.max_memory_slots, 509);
    assert_eq!(pair.session.state().vrings.len(), 256);

    let bare = Offer {
        protocol_features: 0,
        queue_pairs: 0,
        ..offer
    };
    let pair = Pair::offering(bare);
    assert_eq!(
        pair.session.offer().features,
        FEATURES,
        "bits 26 and 30 without protocol features"
    );
    assert_eq!(pair.session.state().vrings.len(), 2);
}

#[test]
fn every_get_is_answered_at_any_time() {
    for (request, expected) in [
        (Request::GetFeatures, FEATURES | BIT_30),
        (Request::GetProtocolFeatures, PROTOCOL_FEATURES),
        (Request::GetQueueNum, 2),
        (Request::GetMaxMemSlots, 4),
        (Request::GetStatus, 0),
    ] {
        let mut pair = Pair::fresh();
        assert_eq!(pair.ask(request, &[], &[]), (Event::Answered, expected));
        let mut pair = Pair::negotiated();
        assert_eq!(
            pair.ask(request, &[], &[]),
            (Event::Answered, expected),
            "one answer only"
        );
    }
}
