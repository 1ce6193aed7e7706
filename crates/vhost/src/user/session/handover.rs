//! A session that one process began and another goes on with, over the same socket. Between two messages
//! everything about it is in its state and in what waits at its socket.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use super::rings::check_notification;
use super::{DeviceState, Offer, Session, SessionError};
use crate::user::message::{HEADER_SIZE, MAX_DESCRIPTORS, MAX_PAYLOAD, Request};
use crate::user::socket::{MAX_QUEUED, Pending, Socket};

/// Why a session cannot be gone on with.
#[derive(Debug, thiserror::Error)]
pub enum ResumeError {
    /// Whoever began it offered what is not offered here.
    #[error(
        "features {features:#x} and protocol features {protocol:#x} were negotiated that this program does not offer"
    )]
    NotOffered {
        /// virtio features.
        features: u64,
        /// vhost-user protocol features.
        protocol: u64,
    },
    /// It has another number of rings.
    #[error("the session has {rings} rings, its port {expected}")]
    Rings {
        /// Rings it has.
        rings: usize,
        /// Rings of the port.
        expected: usize,
    },
    /// More waits at its socket than ever does.
    #[error(
        "what waits at the socket: {received} bytes and {descriptors} file descriptors of one message, {queued} of answers"
    )]
    Pending {
        /// Bytes of a message that is not complete.
        received: usize,
        /// Its descriptors.
        descriptors: usize,
        /// Bytes of answers.
        queued: usize,
    },
    /// A notification is no eventfd.
    #[error(transparent)]
    Notification(#[from] SessionError),
    /// The socket's flags cannot be set.
    #[error("the session's socket")]
    Socket(#[from] io::Error),
}

impl Session {
    /// What waits at the socket, for whoever goes on with the session. To be asked between two messages,
    /// like [`state`](Self::state).
    #[must_use]
    pub fn pending(&self) -> Pending<BorrowedFd<'_>> {
        self.socket.pending()
    }

    /// Goes on with a session where another process left it. What it says is checked as if a front-end had
    /// said it, but for the rings: they are checked when they start.
    ///
    /// # Errors
    ///
    /// When it says what no front-end could have said here.
    pub fn resume(
        socket: OwnedFd,
        pending: Pending<OwnedFd>,
        offer: Offer,
        state: DeviceState,
    ) -> Result<Self, ResumeError> {
        let offer = offer.limited();
        check_offered(&offer, &state)?;
        let (rings, expected) = (state.vrings.len(), 2 * usize::from(offer.queue_pairs));
        if rings != expected {
            return Err(ResumeError::Rings { rings, expected });
        }
        check_pending(&pending)?;
        for (ring, vring) in (0..).zip(&state.vrings) {
            let notifications = [
                (Request::SetVringKick, &vring.kick),
                (Request::SetVringCall, &vring.call),
                (Request::SetVringErr, &vring.err),
            ];
            for (request, file) in notifications {
                if let Some(file) = file {
                    check_notification(request, ring, file)?;
                }
            }
        }
        Ok(Self {
            socket: Socket::resume(socket, pending)?,
            offer,
            state,
            open: None,
            inflight_words: 0,
            // As many as can be: who asked before the hand-over asks for no more.
            inflight_files: super::inflight::FILES,
            refusals: 0,
            ended: false,
        })
    }
}

fn check_offered(offer: &Offer, state: &DeviceState) -> Result<(), ResumeError> {
    let features = state.features & !offer.features;
    let protocol = state.protocol_features & !offer.protocol_features;
    if features != 0 || protocol != 0 {
        return Err(ResumeError::NotOffered { features, protocol });
    }
    Ok(())
}

fn check_pending(pending: &Pending<OwnedFd>) -> Result<(), ResumeError> {
    let (received, queued) = (pending.received.len(), pending.queued.len());
    let descriptors = pending.descriptors.len();
    let attached = &pending.attached;
    let in_order = attached.is_sorted_by(|(a, _), (b, _)| a < b)
        && attached.last().is_none_or(|(place, _)| *place < queued);
    if !in_order
        || received > HEADER_SIZE + MAX_PAYLOAD
        || descriptors > MAX_DESCRIPTORS
        || queued > MAX_QUEUED
    {
        return Err(ResumeError::Pending {
            received,
            descriptors,
            queued,
        });
    }
    Ok(())
}
