//! One end of a control connection on a non-blocking socket; the switch's event loop and the blocking client both stand on it.

use std::{
    collections::VecDeque,
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use rustix::{
    io::Errno,
    net::{
        RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
        SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
    },
};
use serde::{Serialize, de::DeserializeOwned};

use super::{CodecError, Decoder, Hello, MAX_FDS, MAX_MESSAGE, Message, Reply, VERSION, encode};

/// Bytes that may wait for a peer that does not read.
const MAX_OUTBOX: usize = 4 * MAX_MESSAGE;
const READ_SIZE: usize = 64 << 10;

/// A control connection. Queues our [`Hello`] when made and checks the peer's before anything else is given out.
#[derive(Debug)]
pub struct Channel {
    socket: OwnedFd,
    decoder: Decoder,
    greeted: bool,
    outbox: VecDeque<Outgoing>,
}

/// A message with its file descriptors.
#[derive(Debug)]
pub struct Received<T> {
    /// What was said.
    pub message: T,
    /// What came along; closed when dropped.
    pub fds: Vec<OwnedFd>,
}

/// Why a control connection cannot go on, or, for [`ChannelError::is_fatal`] false, why a message was refused.
#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    /// The peer closed the connection between two messages.
    #[error("the control connection was closed")]
    Closed,
    /// The peer closed the connection within a message.
    #[error("the control connection was closed in the middle of a message")]
    Truncated,
    /// The peers do not speak the same version.
    #[error(
        "this side speaks control protocol version {ours} and the other side version {theirs}: use the same ringway on both"
    )]
    Version {
        /// Ours.
        ours: u32,
        /// The peer's.
        theirs: u32,
    },
    /// The peer answered our hello with an error.
    #[error("the other side refused the control connection: {0}")]
    Refused(String),
    /// The kernel could not hand all file descriptors over.
    #[error(
        "not all file descriptors of a control message could be received: raise the limit on open files (ulimit -n)"
    )]
    LostFds,
    /// The peer does not read what it asks for.
    #[error(
        "{waiting} bytes wait to be read by the other side of the control connection, more than the limit of {limit}"
    )]
    Backlog {
        /// Bytes that wait.
        waiting: usize,
        /// The most there may be.
        limit: usize,
    },
    /// What came is no message.
    #[error(transparent)]
    Codec(CodecError),
    /// The message cannot be sent as one; nothing of it was.
    #[error(transparent)]
    Unsendable(CodecError),
    /// The socket failed.
    #[error("the control connection failed")]
    Io(#[source] io::Error),
}

impl ChannelError {
    /// Whether the connection must be closed. If not, the message was refused and can be answered with an error.
    pub fn is_fatal(&self) -> bool {
        !matches!(self, Self::Codec(CodecError::Json(_)) | Self::Unsendable(_))
    }
}

#[derive(Debug)]
struct Outgoing {
    bytes: Vec<u8>,
    sent: usize,
    fds: Vec<OwnedFd>,
}

impl Channel {
    /// On a connected stream socket, which is made non-blocking and close-on-exec.
    pub fn new(socket: OwnedFd) -> Result<Self, ChannelError> {
        let flags = rustix::fs::fcntl_getfl(&socket).map_err(io_error)?;
        rustix::fs::fcntl_setfl(&socket, flags | rustix::fs::OFlags::NONBLOCK).map_err(io_error)?;
        rustix::io::fcntl_setfd(&socket, rustix::io::FdFlags::CLOEXEC).map_err(io_error)?;
        let mut channel = Self {
            socket,
            decoder: Decoder::default(),
            greeted: false,
            outbox: VecDeque::new(),
        };
        channel.send(&Hello { version: VERSION }, Vec::new())?;
        Ok(channel)
    }

    /// Whether the peer's hello has come and fits.
    pub fn is_greeted(&self) -> bool {
        self.greeted
    }

    /// Whether bytes wait for the socket to become writable, upon which [`flush`](Self::flush) is due.
    pub fn wants_write(&self) -> bool {
        !self.outbox.is_empty()
    }

    /// Whether part of a message has come; a caller with a clock bounds how long the rest may take.
    pub fn has_partial(&self) -> bool {
        self.decoder.has_partial()
    }

    /// The next whole message; `None` if the socket has no more for now.
    ///
    /// On an error that is not [fatal](ChannelError::is_fatal) the message is gone, its descriptors are closed and the next one
    /// can be received.
    pub fn receive<T: DeserializeOwned>(&mut self) -> Result<Option<Received<T>>, ChannelError> {
        while let Some(message) = self.receive_message()? {
            if self.greeted {
                let parsed = message.parse().map_err(ChannelError::Codec)?;
                return Ok(Some(Received {
                    message: parsed,
                    fds: message.fds,
                }));
            }
            self.greet(&message)?;
        }
        Ok(None)
    }

    /// Waits for the peer's hello only; `true` when it has come.
    pub(super) fn receive_hello(&mut self) -> Result<bool, ChannelError> {
        if !self.greeted
            && let Some(message) = self.receive_message()?
        {
            self.greet(&message)?;
        }
        Ok(self.greeted)
    }

    fn greet(&mut self, message: &Message) -> Result<(), ChannelError> {
        let Ok(hello) = message.parse::<Hello>() else {
            return Err(match message.parse::<Reply>() {
                Ok(Reply::Error { message }) => ChannelError::Refused(message),
                _ => ChannelError::Refused("its first message is no hello".to_owned()),
            });
        };
        if hello.version != VERSION {
            let error = ChannelError::Version {
                ours: VERSION,
                theirs: hello.version,
            };
            // Best effort: the connection ends either way.
            let _ = self.send(
                &Reply::Error {
                    message: error.to_string(),
                },
                Vec::new(),
            );
            return Err(error);
        }
        self.greeted = true;
        Ok(())
    }

    /// Queues a message and sends what the socket takes. The descriptors are closed here once they are sent.
    ///
    /// [`ChannelError::Unsendable`] leaves the connection as it was, so that a reply that became too long can be replaced by an
    /// error.
    pub fn send(
        &mut self,
        message: &impl Serialize,
        fds: Vec<OwnedFd>,
    ) -> Result<(), ChannelError> {
        if fds.len() > MAX_FDS {
            let error = CodecError::TooManyFds {
                count: fds.len(),
                limit: MAX_FDS,
            };
            return Err(ChannelError::Unsendable(error));
        }
        let bytes = encode(message).map_err(ChannelError::Unsendable)?;
        let waiting = self
            .outbox
            .iter()
            .map(|message| message.bytes.len() - message.sent)
            .sum::<usize>()
            + bytes.len();
        if waiting > MAX_OUTBOX {
            return Err(ChannelError::Backlog {
                waiting,
                limit: MAX_OUTBOX,
            });
        }
        self.outbox.push_back(Outgoing {
            bytes,
            sent: 0,
            fds,
        });
        self.flush()
    }

    /// Sends what the socket takes.
    pub fn flush(&mut self) -> Result<(), ChannelError> {
        while let Some(front) = self.outbox.front_mut() {
            match front.send(self.socket.as_fd()) {
                Ok(()) if front.sent == front.bytes.len() => drop(self.outbox.pop_front()),
                Ok(()) | Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(()),
                Err(Errno::PIPE | Errno::CONNRESET) => return Err(ChannelError::Closed),
                Err(error) => return Err(io_error(error)),
            }
        }
        Ok(())
    }

    fn receive_message(&mut self) -> Result<Option<Message>, ChannelError> {
        let mut buffer = [0; READ_SIZE];
        loop {
            let wanted = self.decoder.wanted().min(buffer.len());
            let (length, fds) = match receive_bytes(self.socket.as_fd(), &mut buffer[..wanted]) {
                Ok(Some(received)) => received,
                Ok(None) => return Err(ChannelError::LostFds),
                Err(Errno::AGAIN) => return Ok(None),
                Err(Errno::INTR) => continue,
                Err(Errno::CONNRESET) => (0, Vec::new()),
                Err(error) => return Err(io_error(error)),
            };
            if length == 0 {
                let partial = self.decoder.has_partial();
                return Err(if partial {
                    ChannelError::Truncated
                } else {
                    ChannelError::Closed
                });
            }
            let message = self
                .decoder
                .feed(&buffer[..length], fds)
                .map_err(ChannelError::Codec)?;
            if message.is_some() {
                return Ok(message);
            }
        }
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Outgoing {
    fn send(&mut self, socket: BorrowedFd<'_>) -> rustix::io::Result<()> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let fds: Vec<_> = self.fds.iter().map(AsFd::as_fd).collect();
        if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(&fds)) {
            return Err(Errno::TOOMANYREFS);
        }
        let rest = IoSlice::new(&self.bytes[self.sent..]);
        let length = sendmsg(
            socket,
            &[rest],
            &mut control,
            SendFlags::NOSIGNAL | SendFlags::DONTWAIT,
        )?;
        self.sent += length;
        // They went with the first byte.
        self.fds.clear();
        Ok(())
    }
}

/// `None` if descriptors were lost on the way; those that came are closed.
fn receive_bytes(
    socket: BorrowedFd<'_>,
    into: &mut [u8],
) -> rustix::io::Result<Option<(usize, Vec<OwnedFd>)>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
    let received = recvmsg(socket, &mut [IoSliceMut::new(into)], &mut control, flags)?;
    let mut fds = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            fds.extend(rights);
        }
    }
    Ok((!received.flags.contains(ReturnFlags::CTRUNC)).then_some((received.bytes, fds)))
}

fn io_error(error: Errno) -> ChannelError {
    ChannelError::Io(error.into())
}
