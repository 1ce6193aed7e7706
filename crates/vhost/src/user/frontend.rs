//! The front-end's end of a connection: what a VMM, or a driver in user space, does with a back-end.
//!
//! - [`Frontend`] is the messages, one method for each request, in any order the caller likes.
//! - [`NetDevice`] is a network device over them: negotiation, memory, rings, dirty log, and all of
//!   it once more over a new connection.
//! - [`BackendChannel`] is the second socket, on which the back-end asks and the front-end answers.
//!
//! Nothing waits for longer than the patience that the caller chose. A request with an answer of its
//! own waits for it; any other waits for an acknowledgement when [`Frontend::ask_for_acks`] says so and
//! REPLY_ACK is negotiated. The back-end is trusted with nothing: an answer is to be to the request
//! that was sent, with the flags, the size and the file descriptors that the protocol gives it. After
//! one that is not, or that never came, nobody can tell which answer is to what: further requests fail
//! with [`FrontendError::OutOfStep`], and the connection is to be made anew. A refusal costs nothing.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvFlags, Shutdown, SocketAddrUnix, SocketFlags, SocketType, connect, recv,
    shutdown, socket_with,
};

use super::features::{VHOST_USER_PROTOCOL_F_REPLY_ACK, has};
use super::message::{Answer, Header, MAX_TABLE_REGIONS, Request, RequestId, parse_u64};
use super::socket::{Message, Socket, SocketError};

mod channel;
mod device;
mod requests;

pub use channel::{BackendChannel, BackendRequest, ChannelError};
pub use device::{NetDevice, RingSetup, SetupError, Wish};
pub use requests::Inflight;

/// A connection to a back-end.
#[derive(Debug)]
pub struct Frontend {
    socket: Socket,
    patience: Duration,
    protocol_features: u64,
    ask_for_acks: bool,
    out_of_step: bool,
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
    #[error(
        "{request}: the answer is for {answered}, flags {flags:#x}, {size} bytes, {descriptors} file descriptors"
    )]
    Answer {
        /// The request.
        request: RequestId,
        /// The request that was answered.
        answered: RequestId,
        /// Flags of the answer.
        flags: u32,
        /// Size of the answer's payload.
        size: usize,
        /// File descriptors that came with it; they are closed.
        descriptors: usize,
    },
    /// An earlier answer was wrong or missing; what comes now may be to any request.
    #[error("{request}: not sent, an earlier answer was wrong or missing")]
    OutOfStep {
        /// The request.
        request: RequestId,
    },
    /// A memory table has room for 8 regions.
    #[error("SET_MEM_TABLE: {count} regions, from 1 to {MAX_TABLE_REGIONS} are possible")]
    RegionCount {
        /// Regions there are.
        count: usize,
    },
}

impl Frontend {
    /// Connects to a back-end that listens at `path`. No answer may take longer than `patience`, and
    /// neither may the connection, should the back-end not accept any.
    ///
    /// # Errors
    ///
    /// When the connection cannot be made. `WouldBlock` = the back-end did not accept it in time.
    pub fn connect(path: &Path, patience: Duration) -> io::Result<Self> {
        let socket = socket_with(
            AddressFamily::UNIX,
            SocketType::STREAM,
            SocketFlags::CLOEXEC,
            None,
        )?;
        // A connect waits where too many others do.
        let limit = patience.max(Duration::from_micros(1));
        set_socket_timeout(&socket, Timeout::Send, Some(limit))?;
        connect(&socket, &SocketAddrUnix::new(path)?)?;
        Self::new(socket, patience)
    }

    /// Takes a connected socket, for example one that a listener accepted: a back-end may be the
    /// client. No answer may take longer than `patience`.
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
            out_of_step: false,
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

    /// Ends the connection and waits until the back-end has closed its end. Only then is it sure that the
    /// back-end writes to no memory any more. What it still answers is thrown away.
    ///
    /// # Errors
    ///
    /// When the back-end does not close its end in time.
    pub fn leave(&mut self) -> Result<(), FrontendError> {
        self.out_of_step = true;
        let request = RequestId(0);
        let deadline = Instant::now() + self.patience;
        if shutdown(&self.socket, Shutdown::Write).is_err() {
            return Ok(());
        }
        let mut thrown_away = [0; 256];
        loop {
            match recv(&self.socket, &mut thrown_away, RecvFlags::DONTWAIT) {
                Ok((_, 0)) => return Ok(()),
                Ok(_) | Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => self.wait(request, PollFlags::IN, deadline)?,
                Err(_) => return Ok(()),
            }
        }
    }

    /// What SET_PROTOCOL_FEATURES said last; 0 before.
    #[must_use]
    pub fn protocol_features(&self) -> u64 {
        self.protocol_features
    }

    /// A request that may be acknowledged.
    fn request(
        &mut self,
        request: Request,
        payload: &[u8],
        files: &[BorrowedFd<'_>],
    ) -> Result<(), FrontendError> {
        let acked = self.acknowledges(request);
        let answer = self.exchange(request, payload, files, acked, acked)?;
        answer.map_or(Ok(()), |answer| self.judge(request, &answer))
    }

    /// What an acknowledgement says.
    fn judge(&mut self, request: Request, answer: &Message) -> Result<(), FrontendError> {
        match parse_u64(&answer.payload) {
            Some(0) => Ok(()),
            Some(code) => Err(FrontendError::Refused {
                request: request.id(),
                code,
            }),
            None => Err(self.wrong(request, answer)),
        }
    }

    /// Whether an answer to this request is asked for that only says how it went.
    fn acknowledges(&self, request: Request) -> bool {
        self.ask_for_acks
            && has(self.protocol_features, VHOST_USER_PROTOCOL_F_REPLY_ACK)
            && request.answer() == Answer::Ack
    }

    /// A request that has an answer of its own, which brings no file descriptor.
    fn ask(
        &mut self,
        request: Request,
        payload: &[u8],
        files: &[BorrowedFd<'_>],
    ) -> Result<Message, FrontendError> {
        match self.exchange(request, payload, files, false, true)? {
            Some(answer) if answer.descriptors.is_empty() => Ok(answer),
            Some(answer) => Err(self.wrong(request, &answer)),
            None => Err(FrontendError::OutOfStep {
                request: request.id(),
            }),
        }
    }

    /// Sends a request and takes its answer, if there is to be one.
    fn exchange(
        &mut self,
        request: Request,
        payload: &[u8],
        files: &[BorrowedFd<'_>],
        need_reply: bool,
        answered: bool,
    ) -> Result<Option<Message>, FrontendError> {
        let id = request.id();
        if self.out_of_step {
            return Err(FrontendError::OutOfStep { request: id });
        }
        // Until the answer is there and right.
        self.out_of_step = true;
        let size = u32::try_from(payload.len()).unwrap_or(u32::MAX);
        let mut bytes = Header::request(id, size, need_reply).bytes().to_vec();
        bytes.extend_from_slice(payload);
        self.send_raw(id, &bytes, files)?;
        let answer = if answered {
            let answer = self.receive_raw(id)?;
            if answer.header != Header::reply(id, answer.header.size)
                || need_reply && !answer.descriptors.is_empty()
            {
                return Err(self.wrong(request, &answer));
            }
            Some(answer)
        } else {
            None
        };
        self.out_of_step = false;
        Ok(answer)
    }

    /// An answer that is none to this request.
    fn wrong(&mut self, request: Request, answer: &Message) -> FrontendError {
        self.out_of_step = true;
        let Header {
            request: answered,
            flags,
            ..
        } = answer.header;
        FrontendError::Answer {
            request: request.id(),
            answered,
            flags,
            size: answer.payload.len(),
            descriptors: answer.descriptors.len(),
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
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(errno) => Err(SocketError::Io(errno.into()).into()),
        }
    }
}

impl AsFd for Frontend {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
