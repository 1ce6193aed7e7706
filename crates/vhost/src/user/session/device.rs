//! Requests about the device as a whole.

use std::os::fd::OwnedFd;

use rustix::fs::{FileType, fstat};

use super::{Event, Session, SessionError};
use crate::user::features::{
    VHOST_F_LOG_ALL, VHOST_USER_PROTOCOL_F_BACKEND_REQ, VHOST_USER_PROTOCOL_F_NET_MTU,
    VHOST_USER_PROTOCOL_F_RARP, VHOST_USER_PROTOCOL_F_RESET_DEVICE, VHOST_USER_PROTOCOL_F_STATUS,
    mask,
};
use crate::user::message::Request;

/// Least MTU of virtio-net (virtio 1.2, 5.1.4.1).
const MIN_MTU: u16 = 68;

impl Session {
    pub(super) fn set_features(&mut self, features: u64) -> Result<Event, SessionError> {
        let extra = features & !self.offer.features;
        if extra != 0 {
            return Err(SessionError::Features { extra });
        }
        let changed = features ^ self.state.features;
        // QEMU sends the features again for each queue pair, while others are running.
        if self.state.acked_features && changed == 0 {
            return Ok(Event::Answered);
        }
        let fixed = changed & !mask(&[VHOST_F_LOG_ALL]);
        if fixed != 0 && self.state.vrings.iter().any(|vring| vring.is_ready()) {
            return Err(SessionError::FeaturesStarted { changed: fixed });
        }
        self.state.features = features;
        self.state.acked_features = true;
        self.enable_without_protocol_features();
        Ok(Event::Features)
    }

    pub(super) fn set_protocol_features(&mut self, features: u64) -> Result<Event, SessionError> {
        let extra = features & !self.offer.protocol_features;
        if extra != 0 {
            return Err(SessionError::ProtocolFeatures { extra });
        }
        self.state.protocol_features = features;
        Ok(Event::Answered)
    }

    /// Deprecated; back-ends ignore it or disable all rings, as we do.
    pub(super) fn reset_owner(&mut self) -> Event {
        for vring in &mut self.state.vrings {
            vring.stop();
            vring.enabled = false;
        }
        Event::ResetRings
    }

    /// Back to the start, but memory and notifications stay: QEMU does not send the regions and
    /// the error notification again.
    pub(super) fn reset_device(&mut self) -> Result<Event, SessionError> {
        self.require(Request::ResetDevice, VHOST_USER_PROTOCOL_F_RESET_DEVICE)?;
        self.state.features = 0;
        self.state.acked_features = false;
        self.state.status = 0;
        Ok(self.reset_owner())
    }

    pub(super) fn set_status(&mut self, status: u64) -> Result<Event, SessionError> {
        self.require(Request::SetStatus, VHOST_USER_PROTOCOL_F_STATUS)?;
        let status = u8::try_from(status).map_err(|_| SessionError::Status { status })?;
        self.state.status = status;
        if status != 0 {
            return Ok(Event::Status(status));
        }
        // A ring stays enabled as it was, and its base stays: QEMU 7.2 asks for it after this.
        for vring in &mut self.state.vrings {
            vring.stop();
        }
        Ok(Event::ResetRings)
    }

    pub(super) fn set_mtu(&mut self, mtu: u64) -> Result<Event, SessionError> {
        self.require(Request::NetSetMtu, VHOST_USER_PROTOCOL_F_NET_MTU)?;
        match u16::try_from(mtu) {
            Ok(valid) if valid >= MIN_MTU => {
                self.state.mtu = Some(valid);
                Ok(Event::Mtu)
            }
            _ => Err(SessionError::Mtu { mtu }),
        }
    }

    pub(super) fn send_rarp(&self, payload: u64) -> Result<Event, SessionError> {
        self.require(Request::SendRarp, VHOST_USER_PROTOCOL_F_RARP)?;
        // The address is the number's first six bytes in memory.
        let [a, b, c, d, e, f, _, _] = payload.to_ne_bytes();
        Ok(Event::Rarp([a, b, c, d, e, f]))
    }

    pub(super) fn set_backend_request_fd(
        &mut self,
        socket: OwnedFd,
    ) -> Result<Event, SessionError> {
        let request = Request::SetBackendReqFd;
        self.require(request, VHOST_USER_PROTOCOL_F_BACKEND_REQ)?;
        let stat = fstat(&socket).map_err(|errno| SessionError::Descriptor {
            request: request.id(),
            source: errno.into(),
        })?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::Socket {
            return Err(SessionError::NotSocket);
        }
        self.state.backend_requests = Some(socket);
        Ok(Event::Answered)
    }
}
