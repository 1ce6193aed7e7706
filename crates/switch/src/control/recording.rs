//! The thread that writes a capture's file.

use std::fs::File;
use std::io::{self, BufWriter};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::thread::{Builder, JoinHandle};

use ringway_port::capture::{Reader, SourceNames};
use ringway_port::pcapng;
use rustix::event::{PollFd, PollFlags, poll};

use crate::sandbox::{Confinement, Role};

/// A capture's file and who writes it.
pub(crate) struct Recording {
    file: File,
    /// Before the thread was started.
    work: Option<Box<dyn FnOnce() + Send>>,
    thread: Option<JoinHandle<()>>,
}

impl Recording {
    /// A file that is begun here; frames follow until the recording end of `reader` is gone.
    pub(crate) fn new(
        reader: Reader,
        file: File,
        path: &Path,
        names: SourceNames,
    ) -> io::Result<Self> {
        let out = BufWriter::new(file.try_clone()?);
        let mut writer = pcapng::Writer::new(out, names)?;
        let drain = move || pcapng::drain(reader, &mut writer);
        Ok(Self::waiting(file, path, drain))
    }

    /// A file that another process writes until `there` is closed at its end. A new section of the file
    /// follows the one of that process; until then frames wait.
    pub(crate) fn resume(
        reader: Reader,
        file: File,
        path: &Path,
        names: SourceNames,
        there: OwnedFd,
    ) -> io::Result<Self> {
        let out = BufWriter::new(file.try_clone()?);
        let drain = move || {
            if !wait_for_end(&there, &reader)? {
                return Ok(());
            }
            drop(there);
            pcapng::drain(reader, &mut pcapng::Writer::new(out, names)?)
        };
        Ok(Self::waiting(file, path, drain))
    }

    fn waiting(
        file: File,
        path: &Path,
        drain: impl FnOnce() -> io::Result<()> + Send + 'static,
    ) -> Self {
        let path = path.to_owned();
        let work = move || {
            if let Err(error) = drain() {
                tracing::error!("{}: the capture ends here: {error}", path.display());
            }
        };
        Self {
            file,
            work: Some(Box::new(work)),
            thread: None,
        }
    }

    /// Starts the thread that writes, once.
    pub(crate) fn begin(&mut self, confinement: &Confinement) -> io::Result<()> {
        let Some(work) = self.work.take() else {
            return Ok(());
        };
        let confinement = confinement.clone();
        let (ready, narrowed) = std::sync::mpsc::channel();
        let thread = Builder::new().name("pcap".into());
        self.thread = Some(thread.spawn(move || {
            let outcome = confinement.narrow(Role::Carrier);
            let failed = outcome.is_err();
            let _ = ready.send(outcome);
            if !failed {
                work();
            }
        })?);
        match narrowed.recv() {
            Ok(Err(error)) => Err(io::Error::other(error)),
            _ => Ok(()),
        }
    }

    /// The file that is written.
    pub(crate) fn file(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// Waits until everything is written; the recording end has to be gone.
    pub(crate) fn finish(self) {
        if let Some(thread) = self.thread {
            let _ = thread.join();
        }
    }
}

/// Until the other end of a socket on which nothing more is said is closed. False = the recording end went
/// before and left nothing to write: the file is still the other process's.
fn wait_for_end(there: &OwnedFd, reader: &Reader) -> io::Result<bool> {
    loop {
        let bell = reader.bell();
        let mut fds = [
            PollFd::new(there, PollFlags::RDHUP),
            PollFd::new(&bell, PollFlags::IN),
        ];
        match poll(&mut fds, None) {
            Ok(_) if !fds[0].revents().is_empty() => return Ok(true),
            Ok(_) => reader.silence(),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        if reader.has_ended() {
            return Ok(false);
        }
    }
}
