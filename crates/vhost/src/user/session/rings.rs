//! Requests about one ring.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::{CWD, FileType, OFlags, fcntl_getfl, fcntl_setfl, fstat, readlinkat};

use super::{Event, RingAddresses, Session, SessionError, Vring};
use crate::user::features::{
    VHOST_F_LOG_ALL, VHOST_USER_F_PROTOCOL_FEATURES, VIRTIO_F_RING_PACKED, has,
};
use crate::user::message::{Request, VringAddress, VringFile, VringState};

/// Most descriptors of a ring (virtio 1.2, 2.7 and 2.8).
const MAX_RING_SIZE: u16 = 32768;

/// `VHOST_VRING_F_LOG`: writes to the used ring are logged.
const RING_FLAG_LOG: u32 = 1;

impl Session {
    pub(super) fn set_vring_num(&mut self, state: VringState) -> Result<Event, SessionError> {
        let VringState { index, num } = state;
        let request = Request::SetVringNum;
        let packed = self.is_packed();
        let (ring, vring) = self.vring(request, index)?;
        let size = match u16::try_from(num) {
            Ok(size) if (1..=MAX_RING_SIZE).contains(&size) => size,
            _ if packed => return Err(SessionError::PackedRingSize { size: num }),
            _ => return Err(SessionError::SplitRingSize { size: num }),
        };
        if !packed && !size.is_power_of_two() {
            return Err(SessionError::SplitRingSize { size: num });
        }
        if vring.size == size {
            return Ok(Event::Answered);
        }
        if vring.is_ready() {
            return Err(SessionError::RingStarted {
                request: request.id(),
                index,
            });
        }
        vring.size = size;
        Ok(Event::Ring(ring))
    }

    pub(super) fn set_vring_base(&mut self, state: VringState) -> Result<Event, SessionError> {
        let VringState { index, num: base } = state;
        let request = Request::SetVringBase;
        let packed = self.is_packed();
        let (ring, vring) = self.vring(request, index)?;
        if !packed && u16::try_from(base).is_err() {
            return Err(SessionError::SplitRingBase { base });
        }
        if vring.is_ready() {
            return Err(SessionError::RingStarted {
                request: request.id(),
                index,
            });
        }
        vring.base = base;
        Ok(Event::Ring(ring))
    }

    pub(super) fn set_vring_addr(&mut self, address: VringAddress) -> Result<Event, SessionError> {
        let request = Request::SetVringAddr;
        let known = if has(self.offer.features, VHOST_F_LOG_ALL) {
            RING_FLAG_LOG
        } else {
            0
        };
        let VringAddress {
            index,
            flags,
            descriptors,
            used,
            available,
            log,
        } = address;
        let (ring, vring) = self.vring(request, index)?;
        if flags & !known != 0 {
            return Err(SessionError::RingFlags { flags, known });
        }
        let logged = flags & RING_FLAG_LOG != 0;
        let addresses = Some(RingAddresses {
            descriptors,
            available,
            used,
            log,
            logged,
        });
        if vring.addresses == addresses {
            return Ok(Event::Answered);
        }
        vring.addresses = addresses;
        Ok(Event::Ring(ring))
    }

    /// Starts the ring. The protocol lets it start with the first kick, but a ring without
    /// notification is polled, and a guest may have filled it before.
    pub(super) fn set_vring_kick(
        &mut self,
        payload: u64,
        file: Option<OwnedFd>,
    ) -> Result<Event, SessionError> {
        let (ring, vring, file) = self.vring_file(Request::SetVringKick, payload, file)?;
        vring.kick = file;
        vring.started = true;
        self.enable_without_protocol_features();
        Ok(Event::Ring(ring))
    }

    pub(super) fn set_vring_call(
        &mut self,
        payload: u64,
        file: Option<OwnedFd>,
    ) -> Result<Event, SessionError> {
        let (ring, vring, file) = self.vring_file(Request::SetVringCall, payload, file)?;
        vring.call = file;
        Ok(Event::CallChanged(ring))
    }

    pub(super) fn set_vring_err(
        &mut self,
        payload: u64,
        file: Option<OwnedFd>,
    ) -> Result<Event, SessionError> {
        let (_, vring, file) = self.vring_file(Request::SetVringErr, payload, file)?;
        vring.err = file;
        Ok(Event::Answered)
    }

    /// Legal at any time: QEMU enables rings before it sends features, and again and again.
    pub(super) fn set_vring_enable(&mut self, state: VringState) -> Result<Event, SessionError> {
        let (ring, vring) = self.vring(Request::SetVringEnable, state.index)?;
        let enabled = match state.num {
            0 => false,
            1 => true,
            value => return Err(SessionError::Enable { value }),
        };
        if vring.enabled == enabled {
            return Ok(Event::Answered);
        }
        vring.enabled = enabled;
        Ok(Event::Ring(ring))
    }

    /// Stops the ring and gives its index.
    pub(super) fn get_vring_base(&mut self, state: VringState) -> Result<u16, SessionError> {
        let (ring, vring) = self.vring(Request::GetVringBase, state.index)?;
        vring.stop();
        Ok(ring)
    }

    /// A front-end that did not negotiate bit 30 cannot enable rings: they are enabled once
    /// started.
    pub(super) fn enable_without_protocol_features(&mut self) {
        let state = &mut self.state;
        if state.acked_features && !has(state.features, VHOST_USER_F_PROTOCOL_FEATURES) {
            for vring in state.vrings.iter_mut().filter(|vring| vring.started) {
                vring.enabled = true;
            }
        }
    }

    pub(super) fn is_packed(&self) -> bool {
        has(self.state.features, VIRTIO_F_RING_PACKED)
    }

    fn vring(&mut self, request: Request, index: u32) -> Result<(u16, &mut Vring), SessionError> {
        let rings = self.state.vrings.len();
        let wrong = SessionError::RingIndex {
            request: request.id(),
            index,
            rings,
        };
        let (Ok(ring), Ok(place)) = (u16::try_from(index), usize::try_from(index)) else {
            return Err(wrong);
        };
        match self.state.vrings.get_mut(place) {
            Some(vring) => Ok((ring, vring)),
            None => Err(wrong),
        }
    }

    fn vring_file(
        &mut self,
        request: Request,
        payload: u64,
        file: Option<OwnedFd>,
    ) -> Result<(u16, &mut Vring, Option<Arc<OwnedFd>>), SessionError> {
        let Some(VringFile { index, .. }) = VringFile::parse(payload) else {
            return Err(SessionError::RingFile {
                request: request.id(),
                payload,
            });
        };
        let (ring, vring) = self.vring(request, index.into())?;
        let file = match file {
            Some(file) => Some(Arc::new(notification(request, ring, file)?)),
            None => None,
        };
        Ok((ring, vring, file))
    }
}

/// Lets only an eventfd through, and makes it non-blocking: a worker must never wait for a
/// counter that the front-end filled or emptied.
fn notification(request: Request, ring: u16, file: OwnedFd) -> Result<OwnedFd, SessionError> {
    check_notification(request, ring, &file)?;
    Ok(file)
}

/// As [`notification`], for one that is in use already.
pub(super) fn check_notification(
    request: Request,
    ring: u16,
    file: &OwnedFd,
) -> Result<(), SessionError> {
    let request = request.id();
    let failed = |errno: rustix::io::Errno| SessionError::Descriptor {
        request,
        source: errno.into(),
    };
    if !is_eventfd(file).map_err(failed)? {
        return Err(SessionError::NotEventfd {
            request,
            index: ring.into(),
        });
    }
    let flags = fcntl_getfl(file).map_err(failed)?;
    fcntl_setfl(file, flags | OFlags::NONBLOCK).map_err(failed)
}

/// The link in /proc names the kind of an anonymous file, which nothing else has a way to look
/// like. Without /proc only files, pipes, sockets and devices can be told apart from it.
fn is_eventfd(file: &OwnedFd) -> rustix::io::Result<bool> {
    let link = format!("/proc/self/fd/{}", file.as_fd().as_raw_fd());
    if let Ok(target) = readlinkat(CWD, link, Vec::new()) {
        return Ok(target.as_bytes() == b"anon_inode:[eventfd]");
    }
    Ok(FileType::from_raw_mode(fstat(file)?.st_mode) == FileType::Unknown)
}
