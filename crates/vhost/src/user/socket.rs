//! Framing: whole messages with their file descriptors over a non-blocking stream socket.
//!
//! A message is read in two steps, header and payload, and never beyond its end, so the file
//! descriptors that arrive on the way are its own. Whatever goes wrong, descriptors that nobody
//! took are closed: they are owned from the moment they are received.

use std::collections::VecDeque;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::OFlags;
use rustix::io::{Errno, FdFlags};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};

use super::message::{HEADER_SIZE, Header, MAX_DESCRIPTORS, MAX_PAYLOAD, RequestId};

/// Most bytes of answers that wait for a peer that does not read them.
pub const MAX_QUEUED: usize = 4096;

/// A connected socket and what of a message has been read so far.
#[derive(Debug)]
pub struct Socket {
    fd: OwnedFd,
    received: Vec<u8>,
    descriptors: Vec<OwnedFd>,
    queued: Vec<u8>,
    /// Files that go with the byte at their place in what is queued.
    attached: VecDeque<(usize, OwnedFd)>,
}

/// What waits between a connection's socket and whoever uses it.
#[derive(Debug)]
pub struct Pending<D> {
    /// The beginning of a message of which the rest has not come.
    pub received: Vec<u8>,
    /// Descriptors that came with it.
    pub descriptors: Vec<D>,
    /// Answers that the peer has not taken.
    pub queued: Vec<u8>,
    /// Files that go with the byte at their place in them.
    pub attached: Vec<(usize, D)>,
}

/// One whole message.
#[derive(Debug)]
pub struct Message {
    /// Its header.
    pub header: Header,
    /// Its payload, exactly `header.size` bytes.
    pub payload: Vec<u8>,
    /// The file descriptors that came with it, at most [`MAX_DESCRIPTORS`].
    pub descriptors: Vec<OwnedFd>,
}

/// Why a connection cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// The peer closed the connection between two messages.
    #[error("the peer closed the connection")]
    Closed,
    /// The peer closed the connection within a message.
    #[error("the peer closed the connection after {received} of {expected} bytes of a message")]
    Truncated {
        /// Bytes that came.
        received: usize,
        /// Bytes of the message, as far as known.
        expected: usize,
    },
    /// File descriptors were cut off: too many in one message, or this process has no free slot.
    #[error(
        "control data truncated: more than {MAX_DESCRIPTORS} file descriptors in a message, or the limit on open files is reached"
    )]
    ControlTruncated,
    /// More file descriptors came with the pieces of one message than a message may have.
    #[error("{count} file descriptors in a message, at most {MAX_DESCRIPTORS} are possible")]
    TooManyDescriptors {
        /// Descriptors that came.
        count: usize,
    },
    /// The header announces a payload that no message has.
    #[error("{request}: payload of {size} bytes, at most {MAX_PAYLOAD} are possible")]
    PayloadTooLong {
        /// The message.
        request: RequestId,
        /// The size announced.
        size: u32,
    },
    /// The peer asks and asks but does not read what it is answered.
    #[error("{bytes} bytes of answers are not read by the peer, at most {MAX_QUEUED} are kept")]
    QueueFull {
        /// Bytes waiting.
        bytes: usize,
    },
    /// A system call failed.
    #[error("socket failed")]
    Io(#[from] io::Error),
}

impl Socket {
    /// Takes a connected stream socket, makes it non-blocking and close-on-exec.
    ///
    /// # Errors
    ///
    /// When the flags cannot be set.
    pub fn new(fd: OwnedFd) -> io::Result<Self> {
        rustix::io::fcntl_setfd(&fd, FdFlags::CLOEXEC)?;
        let flags = rustix::fs::fcntl_getfl(&fd)?;
        rustix::fs::fcntl_setfl(&fd, flags | OFlags::NONBLOCK)?;
        Ok(Self {
            fd,
            received: Vec::new(),
            descriptors: Vec::new(),
            queued: Vec::new(),
            attached: VecDeque::new(),
        })
    }

    /// As [`new`](Self::new), for a connection that somebody else began to serve.
    pub(super) fn resume(fd: OwnedFd, pending: Pending<OwnedFd>) -> io::Result<Self> {
        let Pending {
            received,
            descriptors,
            queued,
            attached,
        } = pending;
        Ok(Self {
            received,
            descriptors,
            queued,
            attached: attached.into(),
            ..Self::new(fd)?
        })
    }

    /// What waits between the socket and whoever uses it.
    pub(super) fn pending(&self) -> Pending<BorrowedFd<'_>> {
        Pending {
            received: self.received.clone(),
            descriptors: self.descriptors.iter().map(AsFd::as_fd).collect(),
            queued: self.queued.clone(),
            attached: self
                .attached
                .iter()
                .map(|(place, file)| (*place, file.as_fd()))
                .collect(),
        }
    }

    /// Whether part of a message has been read and the rest is still to come.
    #[must_use]
    pub fn has_partial(&self) -> bool {
        !self.received.is_empty()
    }

    /// Whether answers wait for the socket to become writable.
    #[must_use]
    pub fn wants_write(&self) -> bool {
        !self.queued.is_empty()
    }

    /// Reads a header, or gives again the one whose message is not complete yet. `None` = would
    /// block.
    ///
    /// # Errors
    ///
    /// Any error ends the connection.
    pub fn header(&mut self) -> Result<Option<Header>, SocketError> {
        if !self.fill(HEADER_SIZE)? {
            return Ok(None);
        }
        let Some(bytes) = self.received.first_chunk() else {
            return Ok(None);
        };
        let header = Header::parse(*bytes);
        if payload_len(&header) > MAX_PAYLOAD {
            let (request, size) = (header.request, header.size);
            return Err(SocketError::PayloadTooLong { request, size });
        }
        Ok(Some(header))
    }

    /// Reads what follows the header that [`Self::header`] gave. `None` = would block.
    ///
    /// # Errors
    ///
    /// Any error ends the connection.
    pub fn message(&mut self, header: Header) -> Result<Option<Message>, SocketError> {
        if !self.fill(HEADER_SIZE + payload_len(&header).min(MAX_PAYLOAD))? {
            return Ok(None);
        }
        let payload = self.received.split_off(HEADER_SIZE);
        self.received.clear();
        let descriptors = std::mem::take(&mut self.descriptors);
        Ok(Some(Message {
            header,
            payload,
            descriptors,
        }))
    }

    /// Sends a message, with a file perhaps; what the socket does not take now is queued.
    ///
    /// # Errors
    ///
    /// Any error ends the connection.
    pub fn send(
        &mut self,
        header: &Header,
        payload: &[u8],
        file: Option<OwnedFd>,
    ) -> Result<(), SocketError> {
        let begin = self.queued.len();
        self.attached.extend(file.map(|file| (begin, file)));
        self.queued.extend_from_slice(&header.bytes());
        self.queued.extend_from_slice(payload);
        self.flush()?;
        if self.queued.len() > MAX_QUEUED {
            return Err(SocketError::QueueFull {
                bytes: self.queued.len(),
            });
        }
        Ok(())
    }

    /// Sends what was queued, as far as the socket takes it.
    ///
    /// # Errors
    ///
    /// Any error ends the connection.
    pub fn flush(&mut self) -> Result<(), SocketError> {
        while !self.queued.is_empty() {
            let Some(sent) = self.send_queued()? else {
                break;
            };
            self.queued.drain(..sent);
            // A file is gone with the first byte that went with it.
            self.attached.retain_mut(|(place, _)| {
                let waits = *place >= sent;
                *place = place.saturating_sub(sent);
                waits
            });
        }
        Ok(())
    }

    /// Sends up to the next byte that a file goes with.
    fn send_queued(&self) -> Result<Option<usize>, SocketError> {
        let file = self.attached.front().filter(|(place, _)| *place == 0);
        let next = self.attached.iter().find(|(place, _)| *place > 0);
        let end = next.map_or(self.queued.len(), |(place, _)| *place);
        match file {
            Some((_, file)) => self.send_some(&self.queued[..end], &[file.as_fd()]),
            None => self.send_some(&self.queued[..end], &[]),
        }
    }

    /// Sends as much of `bytes` as the socket takes now, with the file descriptors. `None` = would
    /// block, and the descriptors are still to be sent.
    ///
    /// # Errors
    ///
    /// Any error ends the connection.
    ///
    /// # Panics
    ///
    /// With more than [`MAX_DESCRIPTORS`] descriptors.
    pub fn send_some(
        &self,
        bytes: &[u8],
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<Option<usize>, SocketError> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() {
            let pushed = control.push(SendAncillaryMessage::ScmRights(descriptors));
            assert!(
                pushed,
                "{} file descriptors in a message",
                descriptors.len()
            );
        }
        loop {
            let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
            match rustix::net::sendmsg(&self.fd, &[IoSlice::new(bytes)], &mut control, flags) {
                Ok(sent) => return Ok(Some(sent)),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(None),
                Err(Errno::PIPE | Errno::CONNRESET) => return Err(SocketError::Closed),
                Err(errno) => return Err(SocketError::Io(errno.into())),
            }
        }
    }

    /// Reads until `wanted` bytes of the message are there; false = would block.
    fn fill(&mut self, wanted: usize) -> Result<bool, SocketError> {
        while self.received.len() < wanted {
            let have = self.received.len();
            self.received.resize(wanted, 0);
            let outcome = receive(
                self.fd.as_fd(),
                &mut self.received[have..],
                &mut self.descriptors,
            );
            self.received
                .truncate(have + outcome.as_ref().map_or(0, |read| read.unwrap_or(0)));
            match outcome? {
                Some(0) if have == 0 => return Err(SocketError::Closed),
                Some(0) => {
                    return Err(SocketError::Truncated {
                        received: have,
                        expected: wanted,
                    });
                }
                Some(_) => {}
                None => return Ok(false),
            }
        }
        Ok(true)
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn payload_len(header: &Header) -> usize {
    usize::try_from(header.size).unwrap_or(usize::MAX)
}

/// One recvmsg. `None` = would block, 0 = end of the stream.
fn receive(
    socket: BorrowedFd<'_>,
    into: &mut [u8],
    descriptors: &mut Vec<OwnedFd>,
) -> Result<Option<usize>, SocketError> {
    // The kernel installs as many descriptors as there is room for and tells that it cut the rest.
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
    let answer = loop {
        match rustix::net::recvmsg(socket, &mut [IoSliceMut::new(into)], &mut control, flags) {
            Ok(answer) => break answer,
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => return Ok(None),
            Err(Errno::CONNRESET) => return Err(SocketError::Closed),
            Err(errno) => return Err(SocketError::Io(errno.into())),
        }
    };
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = message {
            descriptors.extend(received);
        }
    }
    if answer.flags.contains(ReturnFlags::CTRUNC) {
        return Err(SocketError::ControlTruncated);
    }
    if descriptors.len() > MAX_DESCRIPTORS {
        return Err(SocketError::TooManyDescriptors {
            count: descriptors.len(),
        });
    }
    Ok(Some(answer.bytes))
}

#[cfg(test)]
mod tests;
