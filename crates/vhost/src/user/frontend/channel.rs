//! What the back-end asks, on the socket that SET_BACKEND_REQ_FD gave it.
//!
//! The caller polls the channel beside its own descriptors, takes one request at a time, and answers
//! it where an answer is asked for. Nothing here waits.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

use super::{Frontend, FrontendError};
use crate::user::message::{Header, RequestId, VERSION, VringState};
use crate::user::socket::{Message, Socket, SocketError};

/// The front-end's end of the second socket.
#[derive(Debug)]
pub struct BackendChannel {
    socket: Socket,
    owed: Option<RequestId>,
}

/// A request of the back-end. Its file descriptors are closed with it.
#[derive(Debug)]
pub enum BackendRequest {
    /// An IOTLB miss or a change of access; `struct vhost_iotlb_msg`, unparsed.
    Iotlb(Vec<u8>),
    /// The device's configuration changed.
    ConfigChange,
    /// Doorbells of a ring are offered in a file, at an offset and of a size: ring number (bits 0-7), no
    /// descriptor (bit 8), offset, size.
    HostNotifier {
        /// The bytes as they came.
        description: Vec<u8>,
        /// The file, none to take the offer back.
        file: Option<OwnedFd>,
    },
    /// A ring has used buffers.
    VringCall(u32),
    /// A ring is broken.
    VringError(u32),
    /// A shared object is added (6), removed (7) or looked up (8).
    SharedObject {
        /// The request's number.
        id: u32,
        /// The bytes as they came.
        payload: Vec<u8>,
    },
}

/// Why the second socket cannot be used any more. The first one is not concerned.
#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    /// The connection ended.
    #[error("the back-end's requests: {0}")]
    Socket(#[from] SocketError),
    /// The message is none that a back-end sends.
    #[error(
        "the back-end's request {id}: flags {flags:#x}, {size} bytes, {descriptors} file descriptors"
    )]
    Request {
        /// Its number.
        id: u32,
        /// Its flags.
        flags: u32,
        /// Size of its payload.
        size: usize,
        /// File descriptors that came with it; they are closed.
        descriptors: usize,
    },
    /// A request was to be taken while the one before is not answered.
    #[error("the back-end's request before is not answered")]
    Unanswered,
}

impl Frontend {
    /// Opens the second socket and gives its other end to the back-end. BACKEND_REQ has to be negotiated.
    ///
    /// # Errors
    ///
    /// As for every request, and when there is no socket to be had.
    pub fn open_backend_channel(&mut self) -> Result<BackendChannel, FrontendError> {
        let (ours, theirs) = socketpair(
            AddressFamily::UNIX,
            SocketType::STREAM,
            SocketFlags::CLOEXEC,
            None,
        )
        .map_err(|errno| SocketError::Io(errno.into()))?;
        let channel = BackendChannel::new(ours).map_err(SocketError::Io)?;
        self.set_backend_req_fd(theirs.as_fd())?;
        Ok(channel)
    }
}

impl BackendChannel {
    /// Takes the end of a socket whose other end the back-end has.
    ///
    /// # Errors
    ///
    /// When the socket's flags cannot be set.
    pub fn new(socket: OwnedFd) -> io::Result<Self> {
        let socket = Socket::new(socket)?;
        Ok(Self { socket, owed: None })
    }

    /// The next request, if there is one. [`Self::answer`] has to follow before the next is taken.
    ///
    /// # Errors
    ///
    /// When the back-end closed the socket, or sent what no back-end sends; then the channel is of no
    /// further use.
    pub fn receive(&mut self) -> Result<Option<BackendRequest>, ChannelError> {
        if self.owed.is_some() {
            return Err(ChannelError::Unanswered);
        }
        let Some(header) = self.socket.header()? else {
            return Ok(None);
        };
        let Some(message) = self.socket.message(header)? else {
            return Ok(None);
        };
        let wrong = ChannelError::Request {
            id: header.request.0,
            flags: header.flags,
            size: message.payload.len(),
            descriptors: message.descriptors.len(),
        };
        if header.version() != VERSION || header.is_reply() || header.reserved_flags() != 0 {
            return Err(wrong);
        }
        let request = parse(message).ok_or(wrong)?;
        self.owed = header.need_reply().then_some(header.request);
        Ok(Some(request))
    }

    /// Answers the request that was taken last, if the back-end asked for that.
    ///
    /// # Errors
    ///
    /// When the back-end is gone or reads no answers.
    pub fn answer(&mut self, outcome: Result<(), ()>) -> Result<(), ChannelError> {
        let Some(request) = self.owed.take() else {
            return Ok(());
        };
        let code = u64::from(outcome.is_err());
        Ok(self
            .socket
            .send(&Header::reply(request, 8), &code.to_ne_bytes(), None)?)
    }
}

impl AsFd for BackendChannel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn parse(message: Message) -> Option<BackendRequest> {
    /// `struct vhost_iotlb_msg`.
    const IOTLB: usize = 32;
    /// Ring, size and offset.
    const AREA: usize = 24;
    /// Of a shared object's name.
    const UUID: usize = 16;
    let Message {
        header,
        payload,
        mut descriptors,
    } = message;
    let ring = || VringState::parse(&payload).map(|state| state.index);
    let id = header.request.0;
    let request = match (id, payload.len(), descriptors.len()) {
        (1, IOTLB, 0) => BackendRequest::Iotlb(payload),
        (2, 0, 0) => BackendRequest::ConfigChange,
        (3, AREA, 0 | 1) => BackendRequest::HostNotifier {
            description: payload,
            file: descriptors.pop(),
        },
        (4, ..) if descriptors.is_empty() => BackendRequest::VringCall(ring()?),
        (5, ..) if descriptors.is_empty() => BackendRequest::VringError(ring()?),
        (6..=8, UUID, 0) => BackendRequest::SharedObject { id, payload },
        _ => return None,
    };
    Some(request)
}
