//! Either end of a hand-over: messages and many descriptors, each step within a time.

use std::{
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
};
use serde::{Serialize, de::DeserializeOwned};

use super::{FromNew, FromOld, Place};
use crate::control::{Channel, ChannelError, MAX_FDS};

/// A hand-over's connection; every call waits, but not beyond the deadline.
#[derive(Debug)]
pub struct Line {
    channel: Channel,
    deadline: Instant,
}

/// Why a hand-over came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum HandoverError {
    /// The other side did not answer.
    #[error("the other side did not answer in time")]
    Timeout,
    /// It gave up.
    #[error("the other side gave up: {0}")]
    Failed(String),
    /// It said something else.
    #[error("the other side said {0} instead")]
    Unexpected(String),
    /// A descriptor is missing, or used twice.
    #[error("file descriptor {place} did not come or was used before")]
    NoDescriptor {
        /// Which.
        place: Place,
    },
    /// The connection failed.
    #[error(transparent)]
    Channel(#[from] ChannelError),
}

/// Descriptors that go with a message.
#[derive(Debug, Default)]
pub struct Descriptors<'a>(Vec<BorrowedFd<'a>>);

/// Descriptors that came with a message.
#[derive(Debug, Default)]
pub struct Received(Vec<Option<OwnedFd>>);

impl<'a> Descriptors<'a> {
    /// Adds one, and gives its place.
    pub fn add(&mut self, file: BorrowedFd<'a>) -> Place {
        let place = Place::try_from(self.0.len()).unwrap_or(Place::MAX);
        self.0.push(file);
        place
    }
}

impl Received {
    /// The descriptor at `place`, which nobody took before.
    pub fn take(&mut self, place: Place) -> Result<OwnedFd, HandoverError> {
        let missing = HandoverError::NoDescriptor { place };
        let at = usize::try_from(place).unwrap_or(usize::MAX);
        self.0.get_mut(at).and_then(Option::take).ok_or(missing)
    }
}

impl Line {
    /// A hand-over on a connection that is greeted.
    pub fn new(channel: Channel, deadline: Instant) -> Self {
        Self { channel, deadline }
    }

    /// From now on, calls wait until then.
    pub fn set_deadline(&mut self, deadline: Instant) {
        self.deadline = deadline;
    }

    /// Says something.
    pub fn send(&mut self, message: &impl Serialize) -> Result<(), HandoverError> {
        self.send_with(message, Vec::new())
    }

    /// The old switch's side: says something that has descriptors. One message of them after the other: the kernel counts those that
    /// are under way against the limit of open files.
    pub fn send_all(
        &mut self,
        message: &FromOld,
        descriptors: &Descriptors<'_>,
    ) -> Result<(), HandoverError> {
        for some in descriptors.0.chunks(MAX_FDS) {
            let copies = some.iter().map(BorrowedFd::try_clone_to_owned);
            let copies = copies.collect::<Result<_, _>>().map_err(ChannelError::Io)?;
            self.send_with(&FromOld::Descriptors, copies)?;
            match self.receive::<FromNew>()?.0 {
                FromNew::Got => {}
                other => return Err(unexpected(&other)),
            }
        }
        self.send(message)
    }

    /// The new switch's side: what the old one says next, with its descriptors.
    pub fn receive_all(&mut self) -> Result<(FromOld, Received), HandoverError> {
        let mut descriptors = Received::default();
        loop {
            match self.receive()? {
                (FromOld::Descriptors, fds) => {
                    descriptors.0.extend(fds.into_iter().map(Some));
                    self.send(&FromNew::Got)?;
                }
                (FromOld::Failed { message }, _) => return Err(HandoverError::Failed(message)),
                (message, _) => return Ok((message, descriptors)),
            }
        }
    }

    /// The old switch's side: what the new one says next, unless it gives up.
    pub fn answer(&mut self) -> Result<FromNew, HandoverError> {
        match self.receive()?.0 {
            FromNew::Failed { message } => Err(HandoverError::Failed(message)),
            message => Ok(message),
        }
    }

    /// Waits for this answer.
    pub fn expect(&mut self, expected: &FromNew) -> Result<(), HandoverError> {
        match self.answer()? {
            answer if answer == *expected => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    fn send_with(
        &mut self,
        message: &impl Serialize,
        fds: Vec<OwnedFd>,
    ) -> Result<(), HandoverError> {
        self.channel.send(message, fds)?;
        while self.channel.wants_write() {
            self.wait(PollFlags::OUT)?;
            self.channel.flush()?;
        }
        Ok(())
    }

    fn receive<T: DeserializeOwned>(&mut self) -> Result<(T, Vec<OwnedFd>), HandoverError> {
        loop {
            if let Some(received) = self.channel.receive()? {
                return Ok((received.message, received.fds));
            }
            self.wait(PollFlags::IN)?;
        }
    }

    fn wait(&self, events: PollFlags) -> Result<(), HandoverError> {
        loop {
            let left = self.deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(HandoverError::Timeout);
            }
            let left = Timespec::try_from(left.min(Duration::from_secs(60)));
            let timeout = left.unwrap_or_default();
            let fd = PollFd::from_borrowed_fd(self.channel.as_fd(), events);
            match poll(&mut [fd], Some(&timeout)) {
                Ok(0) | Err(Errno::INTR) => {}
                Ok(_) => return Ok(()),
                Err(error) => return Err(ChannelError::Io(error.into()).into()),
            }
        }
    }
}

impl AsFd for Line {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.channel.as_fd()
    }
}

/// Something that was not to be said now.
pub(super) fn unexpected(message: &impl std::fmt::Debug) -> HandoverError {
    let mut text = format!("{message:?}");
    text.truncate(text.find([' ', '{', '(']).unwrap_or(text.len()));
    HandoverError::Unexpected(text)
}
