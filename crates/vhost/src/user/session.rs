//! The back-end's end of one vhost-user connection.
//!
//! A session is driven by one thread, without blocking:
//!
//! 1. [`Session::receive`] reads at most one message, applies it to [`Session::state`] and returns
//!    an [`Event`] that says what changed.
//! 2. The caller brings the data path in line: quiesces rings before their memory goes, stops a
//!    ring whose base is asked for and writes the base back.
//! 3. [`Session::finish`] sends the answer that the message is owed.
//!
//! So an answer is never on its way before what it confirms is true. In between nothing is read;
//! the front-end's messages are handled strictly in their order.
//!
//! A message that is not sound (version, size, number of file descriptors) ends the session: what
//! follows it in the stream cannot be trusted. A sound message that asks for the impossible is
//! refused: with a negative answer if one was asked for, else the session ends as well, because
//! the front-end would go on as if it had been obeyed. A request that has an answer of its own is
//! always answered, refused or not, as QEMU's main loop waits for it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use ringway_mem::MAX_REGIONS;

use super::features::{
    VHOST_F_LOG_ALL, VHOST_USER_F_PROTOCOL_FEATURES, VHOST_USER_PROTOCOL_F_BACKEND_REQ,
    VHOST_USER_PROTOCOL_F_CONFIGURE_MEM_SLOTS, VHOST_USER_PROTOCOL_F_INFLIGHT_SHMFD,
    VHOST_USER_PROTOCOL_F_LOG_SHMFD, VHOST_USER_PROTOCOL_F_MQ, VHOST_USER_PROTOCOL_F_NET_MTU,
    VHOST_USER_PROTOCOL_F_RARP, VHOST_USER_PROTOCOL_F_REPLY_ACK,
    VHOST_USER_PROTOCOL_F_RESET_DEVICE, VHOST_USER_PROTOCOL_F_STATUS, has, mask,
};
use super::message::{Header, Request, RequestId, VringState};
use super::socket::Socket;
use dispatch::{check_header, not_offered};

mod device;
mod dispatch;
mod error;
mod handover;
mod inflight;
mod memory;
mod rings;
mod state;

pub use error::SessionError;
pub use handover::ResumeError;
pub use inflight::InflightRegion;
pub use state::{DeviceState, RingAddresses, Vring};

/// Most queue pairs of a device: SET_VRING_KICK has eight bits for the ring.
pub const MAX_QUEUE_PAIRS: u16 = 128;

/// The protocol features that [`Session`] has; others are never offered.
pub const PROTOCOL_FEATURES: u64 = mask(&[
    VHOST_USER_PROTOCOL_F_MQ,
    VHOST_USER_PROTOCOL_F_LOG_SHMFD,
    VHOST_USER_PROTOCOL_F_RARP,
    VHOST_USER_PROTOCOL_F_REPLY_ACK,
    VHOST_USER_PROTOCOL_F_NET_MTU,
    VHOST_USER_PROTOCOL_F_BACKEND_REQ,
    VHOST_USER_PROTOCOL_F_INFLIGHT_SHMFD,
    VHOST_USER_PROTOCOL_F_RESET_DEVICE,
    VHOST_USER_PROTOCOL_F_CONFIGURE_MEM_SLOTS,
    VHOST_USER_PROTOCOL_F_STATUS,
]);

/// Refusals of one session that are logged as warnings. A front-end that is refused more often has
/// made its point.
const LOGGED_REFUSALS: u32 = 16;

/// What the back-end offers.
#[derive(Debug, Clone, Copy)]
pub struct Offer {
    /// virtio features. Bit 30 is added when there are protocol features; bit 26 (dirty log) is
    /// removed unless the log can be shared (LOG_SHMFD).
    pub features: u64,
    /// vhost-user protocol features; those outside of [`PROTOCOL_FEATURES`] are removed.
    pub protocol_features: u64,
    /// Queue pairs, from 1 to [`MAX_QUEUE_PAIRS`]; what is outside is brought inside. This is the
    /// answer to GET_QUEUE_NUM.
    pub queue_pairs: u16,
    /// Memory regions that can be added one at a time, at most [`MAX_REGIONS`].
    pub max_memory_slots: u64,
}

/// What a message changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// Nothing for the data path.
    Answered,
    /// SET_FEATURES brought another feature set.
    Features,
    /// There is another memory table in the state. Rings have to be translated anew; the memory
    /// before can be dropped after that.
    Memory,
    /// There is another dirty log in the state. The front-end reads the one before for the last time
    /// once it has the answer.
    Log,
    /// There is another region in the state that tracks what is in flight. Rings that run have to go on in it.
    Inflight,
    /// Size, addresses, base, kick or enable of a ring changed.
    Ring(u16),
    /// A ring is to be stopped (GET_VRING_BASE). If the caller runs it, it writes the ring's base
    /// to the state before it finishes the event.
    StopRing(u16),
    /// All rings are to be stopped (RESET_OWNER, RESET_DEVICE, or status 0). The caller writes the
    /// bases of those it runs to the state: GET_VRING_BASE comes after status 0.
    ResetRings,
    /// SET_STATUS brought another status than 0.
    Status(u8),
    /// NET_SET_MTU; the MTU is in the state.
    Mtu,
    /// The guest's MAC address has to be announced in its network.
    Rarp([u8; 6]),
    /// The ring's call changed; the ring runs on.
    CallChanged(u16),
}

/// One connection of a front-end.
pub struct Session {
    socket: Socket,
    offer: Offer,
    state: DeviceState,
    open: Option<Open>,
    /// Words of the data path's for each packed ring, see [`Self::with_inflight_words`].
    inflight_words: usize,
    /// Files that were handed out for them.
    inflight_files: u32,
    refusals: u32,
    ended: bool,
}

/// A message that has been applied and not been answered.
struct Open {
    request: RequestId,
    owed: Owed,
}

enum Owed {
    Nothing,
    /// This payload.
    Reply(Vec<u8>),
    /// This payload, with a file.
    File(Vec<u8>, OwnedFd),
    /// The base of this ring, as it stands then.
    Base(u16),
    /// Whether the data path could follow.
    Ack,
}

impl Session {
    /// Takes a connected socket and makes it non-blocking and close-on-exec.
    ///
    /// # Errors
    ///
    /// When the socket's flags cannot be set.
    pub fn new(socket: OwnedFd, offer: Offer) -> io::Result<Self> {
        let offer = offer.limited();
        Ok(Self {
            socket: Socket::new(socket)?,
            state: DeviceState::new(2 * usize::from(offer.queue_pairs)),
            offer,
            open: None,
            inflight_words: 0,
            inflight_files: 0,
            refusals: 0,
            ended: false,
        })
    }

    /// What is offered in the end: see [`Offer`] for what is removed.
    #[must_use]
    pub fn offer(&self) -> &Offer {
        &self.offer
    }

    /// Reads at most one message and applies it. `None` = would block. After an event
    /// [`Self::finish`] has to be called before the next message is read.
    ///
    /// # Errors
    ///
    /// [`SessionError::Unfinished`] when that was forgotten. Any other error ends the session; an
    /// orderly end is [`SessionError::Closed`].
    pub fn receive(&mut self) -> Result<Option<Event>, SessionError> {
        if self.open.is_some() {
            return Err(SessionError::Unfinished);
        }
        if self.ended {
            return Err(SessionError::Closed);
        }
        let outcome = self.receive_one();
        self.ended = outcome.is_err();
        outcome
    }

    /// Sends the answer that the message of the last event is owed, if any. `Err` tells that the
    /// data path could not follow: that makes the answer a negative one if one was asked for, and
    /// the session goes on.
    ///
    /// # Errors
    ///
    /// Any error ends the session.
    pub fn finish(&mut self, outcome: Result<(), ()>) -> Result<(), SessionError> {
        let Some(Open { request, owed }) = self.open.take() else {
            return Ok(());
        };
        let sent = match owed {
            Owed::Nothing => Ok(()),
            Owed::Reply(payload) => self.reply(request, &payload, None),
            Owed::File(payload, file) => self.reply(request, &payload, Some(file)),
            Owed::Base(ring) => {
                let num = self
                    .state
                    .vrings
                    .get(usize::from(ring))
                    .map_or(0, |vring| vring.base);
                self.reply(
                    request,
                    &VringState {
                        index: ring.into(),
                        num,
                    }
                    .bytes(),
                    None,
                )
            }
            Owed::Ack => self.reply(request, &u64::from(outcome.is_err()).to_ne_bytes(), None),
        };
        self.ended |= sent.is_err();
        sent
    }

    /// The device as the front-end has set it up.
    #[must_use]
    pub fn state(&self) -> &DeviceState {
        &self.state
    }

    /// The device, to write back the base of a ring that was stopped.
    pub fn state_mut(&mut self) -> &mut DeviceState {
        &mut self.state
    }

    /// Whether part of a message has come and the rest has not. The caller decides how long that
    /// may last.
    #[must_use]
    pub fn has_partial(&self) -> bool {
        self.socket.has_partial()
    }

    /// Whether answers wait for the socket to become writable; then [`Self::flush`] is to be
    /// called when it is. [`Self::receive`] tries as well.
    #[must_use]
    pub fn wants_write(&self) -> bool {
        self.socket.wants_write()
    }

    /// Refusals are not logged any more: this front-end, or those before it, were refused often enough.
    pub fn hide_refusals(&mut self) {
        self.refusals = LOGGED_REFUSALS;
    }

    /// Sends answers that wait.
    ///
    /// # Errors
    ///
    /// Any error ends the session.
    pub fn flush(&mut self) -> Result<(), SessionError> {
        let flushed = self.socket.flush();
        self.ended |= flushed.is_err();
        Ok(flushed?)
    }

    fn receive_one(&mut self) -> Result<Option<Event>, SessionError> {
        self.socket.flush()?;
        let Some(header) = self.socket.header()? else {
            return Ok(None);
        };
        check_header(&header)?;
        let Some(message) = self.socket.message(header)? else {
            return Ok(None);
        };
        tracing::trace!(
            request = %header.request,
            payload = message.payload.len(),
            descriptors = message.descriptors.len(),
            need_reply = header.need_reply(),
            "message"
        );
        self.apply(message).map(Some)
    }

    fn require(&self, request: Request, protocol_feature: u32) -> Result<(), SessionError> {
        if has(self.offer.protocol_features, protocol_feature) {
            Ok(())
        } else {
            Err(not_offered(request))
        }
    }

    fn reply(
        &mut self,
        request: RequestId,
        payload: &[u8],
        file: Option<OwnedFd>,
    ) -> Result<(), SessionError> {
        let size = u32::try_from(payload.len()).unwrap_or(u32::MAX);
        let header = Header::reply(request, size);
        Ok(self.socket.send(&header, payload, file)?)
    }

    fn log_refusal(&mut self, error: &SessionError) {
        if self.refusals < LOGGED_REFUSALS {
            self.refusals += 1;
            tracing::warn!(error = error as &dyn std::error::Error, "request refused");
        }
    }
}

impl AsFd for Session {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Offer {
    fn limited(self) -> Self {
        let protocol_features = self.protocol_features & PROTOCOL_FEATURES;
        let bit_30 = mask(&[VHOST_USER_F_PROTOCOL_FEATURES]);
        let features = if has(protocol_features, VHOST_USER_PROTOCOL_F_LOG_SHMFD) {
            self.features
        } else {
            self.features & !mask(&[VHOST_F_LOG_ALL])
        };
        let slots = u64::try_from(MAX_REGIONS).unwrap_or(u64::MAX);
        Self {
            features: if protocol_features == 0 {
                features
            } else {
                features | bit_30
            },
            protocol_features,
            queue_pairs: self.queue_pairs.clamp(1, MAX_QUEUE_PAIRS),
            max_memory_slots: self.max_memory_slots.min(slots),
        }
    }
}

#[cfg(test)]
mod tests;
