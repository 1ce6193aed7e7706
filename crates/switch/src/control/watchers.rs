//! Captures that somebody reads from a pipe, each at one port. A capture ends with its reader: the writing end of a pipe tells when
//! the last one is gone, however that happened.

use std::fs::File;
use std::io::BufWriter;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use ringway_port::capture::{Capture, Reader};
use ringway_port::{Counters, pcapng};
use rustix::event::epoll;

use super::{Control, Token};
use crate::sandbox::Role;
use crate::watch::Watchers;

/// Captures at once: each keeps memory for frames that wait for its reader.
const MAX_WATCHERS: usize = 16;

/// How long the last frames may take into the pipe when the switch ends.
const GRACE: Duration = Duration::from_secs(1);

/// A capture at a port.
pub(super) struct Watcher {
    /// Number of the port.
    port: u32,
    capture: Arc<Capture>,
    /// Watched for its reader's end; the thread writes to a copy.
    pipe: OwnedFd,
    /// Closed when the thread has written everything.
    written: Receiver<()>,
}

/// Why there is no capture.
#[derive(Debug, thiserror::Error)]
pub(super) enum WatchError {
    #[error("there are {MAX_WATCHERS} captures already: end one of them first")]
    TooMany,
    #[error("a capture needs one descriptor, the writing end of a pipe, and {0} came")]
    Descriptors(usize),
    #[error("a capture is written to a pipe, and what came is none")]
    NoPipe(#[source] std::io::Error),
    #[error("cannot start the capture")]
    System(#[source] std::io::Error),
}

impl Control {
    /// Has what crosses a port recorded and written to a pipe, until nobody reads there or the port goes.
    pub(super) fn capture(&mut self, port: u32, mut fds: Vec<OwnedFd>) -> Result<(), WatchError> {
        let pipe = match (fds.pop(), fds.len()) {
            (Some(pipe), 0) => pipe,
            (last, others) => {
                return Err(WatchError::Descriptors(
                    others + usize::from(last.is_some()),
                ));
            }
        };
        if self.watchers.len() >= MAX_WATCHERS {
            return Err(WatchError::TooMany);
        }
        let counters = Arc::new(Counters::new(1));
        let (capture, reader) = Capture::new(counters.clone()).map_err(WatchError::System)?;
        let out = pipe.try_clone().map_err(WatchError::System)?;
        // A regular file cannot be waited for, which says that it is no pipe.
        let token = self.token(Token::Watcher);
        let data = epoll::EventData::new_u64(token);
        let watched = epoll::add(&self.epoll, &pipe, data, epoll::EventFlags::empty());
        let begun = watched
            .map_err(|error| WatchError::NoPipe(error.into()))
            .and_then(|()| self.write_to(port, reader, counters, out));
        let written = match begun {
            Ok(written) => written,
            Err(error) => {
                let _ = epoll::delete(&self.epoll, &pipe);
                self.tokens.remove(&token);
                return Err(error);
            }
        };
        let capture = Arc::new(capture);
        let watcher = Watcher {
            port,
            capture,
            pipe,
            written,
        };
        self.watchers.insert(token, watcher);
        self.publish();
        Ok(())
    }

    /// Starts the thread that writes. A reader that stops reading holds up this thread alone.
    fn write_to(
        &self,
        port: u32,
        reader: Reader,
        counters: Arc<Counters>,
        out: OwnedFd,
    ) -> Result<Receiver<()>, WatchError> {
        let confinement = self.confinement.clone();
        let names = self.names.clone();
        let (ready, narrowed) = channel();
        let (writing, written) = channel();
        let thread = std::thread::Builder::new().name("pcap".into());
        let thread = thread.spawn(move || {
            let outcome = confinement.narrow(Role::Carrier);
            let failed = outcome.is_err();
            let _ = ready.send(outcome);
            if failed {
                return;
            }
            let out = File::from(out);
            let copy = BufWriter::with_capacity(64 << 10, &out);
            let done = pcapng::Writer::new(copy, names).and_then(|mut writer| {
                pcapng::stream(reader, &mut writer, port, &counters, out.as_fd())
            });
            // A reader that leaves in the middle has seen enough.
            if let Err(error) = done {
                tracing::debug!("a capture ends: {error}");
            }
            drop(writing);
        });
        thread.map_err(WatchError::System)?;
        match narrowed.recv() {
            Ok(Err(error)) => Err(WatchError::System(std::io::Error::other(error))),
            _ => Ok(written),
        }
    }

    /// The reader of a capture is gone.
    pub(super) fn end_capture(&mut self, token: u64) {
        if self.forget_watcher(token).is_some() {
            self.publish();
        }
    }

    /// A port goes, and captures at it with it.
    pub(super) fn end_captures_at(&mut self, port: u32) {
        let at = |(token, watcher): (&u64, &Watcher)| (watcher.port == port).then_some(*token);
        let tokens: Vec<u64> = self.watchers.iter().filter_map(at).collect();
        for token in tokens {
            self.forget_watcher(token);
        }
    }

    /// The switch ends: what is recorded still goes into the pipes, unless somebody does not read. Workers have let go of all.
    pub(super) fn end_captures(&mut self) {
        let all: Vec<u64> = self.watchers.keys().copied().collect();
        for token in all {
            let Some(Watcher {
                capture, written, ..
            }) = self.forget_watcher(token)
            else {
                continue;
            };
            drop(capture);
            if written.recv_timeout(GRACE) == Err(RecvTimeoutError::Timeout) {
                tracing::warn!("a capture's reader does not read; its last frames are lost");
            }
        }
    }

    /// Captures at a port, for the workers.
    pub(super) fn watchers_of(&self, port: u32) -> Option<Watchers> {
        let here = self.watchers.values().filter(|w| w.port == port);
        let captures: Vec<Arc<Capture>> = here.map(|w| w.capture.clone()).collect();
        (!captures.is_empty()).then(|| captures.into())
    }

    fn forget_watcher(&mut self, token: u64) -> Option<Watcher> {
        let watcher = self.watchers.remove(&token)?;
        // The thread may hold the pipe open for a while.
        let _ = epoll::delete(&self.epoll, &watcher.pipe);
        self.tokens.remove(&token);
        Some(watcher)
    }
}
