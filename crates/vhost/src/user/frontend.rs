//! The front-end's end of a connection, as far as tests, benches and uplinks need it.
//!
//! Each request is one method. A request with an answer of its own waits for it; any other waits
//! for an acknowledgement when [`Frontend::ask_for_acks`] says so and REPLY_ACK is negotiated.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};

use super::features::{VHOST_USER_PROTOCOL_F_REPLY_ACK, has};
use super::message::{Answer, Header, Request, RequestId, parse_u64};
use super::socket::{Message, Socket, SocketError};

mod requests;

/// A connection to a back-end.
#[derive(Debug)]
pub struct Frontend {
    socket: Socket,
    patience: Duration,
    protocol_features: u64,
    ask_for_acks: bool,
}

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub enum FrontendError {
    /// The connection cannot go on.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// The back-end does not answer, or does not read.
    #[error("{request}: the back-end did not answer within {patience:?}")]
    Timeout {
        /// The request.
        request: RequestId,
        /// How long it had.
        patience: Duration,
    },
    /// The back-end answered that it did not do what was asked.
    #[error("{request}: the back-end refused with {code:#x}")]
    Refused {
        /// The request.
        request: RequestId,
        /// Its answer.
        code: u64,
    },
    /// The back-end answered something else.
    #[error("{request}: the answer is for {answered}, flags {flags:#x}, {size} bytes")]
    Answer {
        /// The request.
        request: RequestId,
        /// The request that was answered.
        answered: RequestId,
        /// Flags of the answer.
        flags: u32,
        /// Size of the answer's payload.
        size: usize,
    },
}

impl Frontend {
    /// Connects to a back-end that listens at `path`. No answer may take longer than `patience`.
    ///
    /// # Errors
    ///
    /// When the connection cannot be made.
    pub fn connect(path: &Path, patience: Duration) -> io::Result<Self> {
        let socket = socket_with(
            AddressFamily::UNIX,
            SocketType::STREAM,
            SocketFlags::CLOEXEC,
            None,
        )?;
        connect(&socket, &SocketAddrUnix::new(path)?)?;
        Self::new(socket, patience)
    }

    /// Takes a connected socket. No answer may take longer than `patience`.
    ///
    /// # Errors
    ///
    /// When the socket's flags cannot be set.
    pub fn new(socket: OwnedFd, patience: Duration) -> io::Result<Self> {
        let socket = Socket::new(socket)?;
        Ok(Self {
            socket,
            patience,
            protocol_features: 0,
            ask_for_acks: false,
        })
    }

    /// Sets need_reply on the requests that follow and waits for their acknowledgement. It has an
    /// effect once REPLY_ACK is negotiated.
    pub fn ask_for_acks(&mut self, ask: bool) {
        self.ask_for_acks = ask;
    }

    /// Sends any bytes with any file descriptors, as they are. `request` names them in errors.
    ///
    /// # Errors
    ///
    /// When the back-end is gone or does not read in time.
    ///
    /// # Panics
    ///
    /// With more than 8 file descriptors.
    pub fn send_raw(
        &mut self,
        request: RequestId,
        bytes: &[u8],
        files: &[BorrowedFd<'_>],
    ) -> Result<(), FrontendError> {
        let deadline = Instant::now() + self.patience;
        let (mut rest, mut files) = (bytes, files);
        while !rest.is_empty() {
            match self.socket.send_some(rest, files)? {
                Some(sent) => (rest, files) = (rest.get(sent..).unwrap_or_default(), &[]),
                None => self.wait(request, PollFlags::OUT, deadline)?,
            }
        }
        Ok(())
    }

    /// The next message of the back-end, whatever it is. `request` names it in errors.
    ///
    /// # Errors
    ///
    /// When the back-end is gone or none comes in time.
    pub fn receive_raw(&mut self, request: RequestId) -> Result<Message, FrontendError> {
        let deadline = Instant::now() + self.patience;
        loop {
            if let Some(header) = self.socket.header()?
                && let Some(message) = self.socket.message(header)?
            {
                return Ok(message);
            }
            self.wait(request, PollFlags::IN, deadline)?;
        }
    }

    /// A request that may be acknowledged.
    fn request(
        &mut self,
        request: Request,
        payload: &[u8],
        files: &[BorrowedFd<'_>],
    ) -> Result<(), FrontendError> {
        let acked = self.acknowledges(request);
        self.send(request, payload, files, acked)?;
        if !acked {
            return Ok(());
        }
        let answer = self.answer_to(request)?;
        match parse_u64(&answer.payload) {
            Some(0) => Ok(()),
            Some(code) => Err(FrontendError::Refused {
                request: request.id(),
                code,
            }),
            None => Err(unexpected(request.id(), &answer)),
        }
    }

    /// Whether an answer to this request is asked for that only says how it went.
    fn acknowledges(&self, request: Request) -> bool {
        self.ask_for_acks
            && has(self.protocol_features, VHOST_USER_PROTOCOL_F_REPLY_ACK)
            && request.answer() == Answer::Ack
    }

    /// A request that has an answer of its own.
    fn ask(
        &mut self,
        request: Request,
        payload: &[u8],
        files: &[BorrowedFd<'_>],
    ) -> Result<Message, FrontendError> {
        self.send(request, payload, files, false)?;
        self.answer_to(request)
    }

    fn send(
        &mut self,
        request: Request,
        payload: &[u8],
        files: &[BorrowedFd<'_>],
        need_reply: bool,
    ) -> Result<(), FrontendError> {
        let size = u32::try_from(payload.len()).unwrap_or(u32::MAX);
        let mut bytes = Header::request(request.id(), size, need_reply)
            .bytes()
            .to_vec();
        bytes.extend_from_slice(payload);
        self.send_raw(request.id(), &bytes, files)
    }

    fn answer_to(&mut self, request: Request) -> Result<Message, FrontendError> {
        let answer = self.receive_raw(request.id())?;
        let expected = Header::reply(request.id(), answer.header.size);
        if answer.header == expected {
            Ok(answer)
        } else {
            Err(unexpected(request.id(), &answer))
        }
    }

    fn wait(
        &self,
        request: RequestId,
        events: PollFlags,
        deadline: Instant,
    ) -> Result<(), FrontendError> {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).ok();
        let mut fds = [PollFd::new(&self.socket, events)];
        match poll(&mut fds, timeout.as_ref()) {
            Ok(0) => Err(FrontendError::Timeout {
                request,
                patience: self.patience,
            }),
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(errno) => Err(SocketError::Io(errno.into()).into()),
        }
    }
}

impl AsFd for Frontend {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn unexpected(request: RequestId, answer: &Message) -> FrontendError {
    let Header {
        request: answered,
        flags,
        ..
    } = answer.header;
    FrontendError::Answer {
        request,
        answered,
        flags,
        size: answer.payload.len(),
    }
}
