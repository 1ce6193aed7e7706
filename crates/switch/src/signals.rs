//! Signals as something to wait for.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::event::{EventfdFlags, eventfd};
use signal_hook::consts::{SIGINT, SIGTERM, SIGUSR1};
use signal_hook::iterator::Handle;
use signal_hook::iterator::Signals as Waiting;

use crate::sandbox::{Confinement, Role};

/// SIGTERM, SIGINT and SIGUSR1 since the last look.
pub(crate) struct Signals {
    shared: Arc<Pending>,
    /// Signals that come meanwhile wait in there.
    waiting: Option<Waiting>,
    handle: Option<Handle>,
    thread: Option<std::thread::JoinHandle<()>>,
}

struct Pending {
    bell: OwnedFd,
    end: AtomicBool,
    statistics: AtomicBool,
}

/// What signals asked for.
pub(crate) struct Wanted {
    pub(crate) end: bool,
    pub(crate) statistics: bool,
}

/// Ends a running switch, from another thread.
#[derive(Clone)]
pub struct Ender(Arc<Pending>);

impl Signals {
    /// Takes the signals of this process, if `process` says so; else only an [`Ender`] is heard. They
    /// are heard from [`listen`](Self::listen) on.
    pub(crate) fn new(process: bool) -> std::io::Result<Self> {
        let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let shared = Arc::new(Pending {
            bell,
            end: AtomicBool::new(false),
            statistics: AtomicBool::new(false),
        });
        let waiting = if process {
            Some(Waiting::new([SIGTERM, SIGINT, SIGUSR1])?)
        } else {
            None
        };
        Ok(Self {
            shared,
            handle: waiting.as_ref().map(Waiting::handle),
            waiting,
            thread: None,
        })
    }

    /// Starts the thread that hears them.
    pub(crate) fn listen(&mut self, confinement: &Confinement) -> std::io::Result<()> {
        let Some(mut waiting) = self.waiting.take() else {
            return Ok(());
        };
        let pending = self.shared.clone();
        let confinement = confinement.clone();
        let (ready, narrowed) = std::sync::mpsc::channel();
        let thread = std::thread::Builder::new().name("signals".into());
        self.thread = Some(thread.spawn(move || {
            let outcome = confinement.narrow(Role::Carrier);
            let failed = outcome.is_err();
            let _ = ready.send(outcome);
            if failed {
                return;
            }
            for signal in waiting.forever() {
                let flag = if signal == SIGUSR1 {
                    &pending.statistics
                } else {
                    &pending.end
                };
                pending.raise(flag);
            }
        })?);
        match narrowed.recv() {
            Ok(Err(error)) => Err(std::io::Error::other(error)),
            _ => Ok(()),
        }
    }

    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        self.shared.bell.as_fd()
    }

    /// What was asked for since the last call.
    pub(crate) fn take(&self) -> Wanted {
        let _ = rustix::io::read(&self.shared.bell, &mut [0; 8]);
        Wanted {
            end: self.shared.end.load(Ordering::Acquire),
            statistics: self.shared.statistics.swap(false, Ordering::AcqRel),
        }
    }

    pub(crate) fn ender(&self) -> Ender {
        Ender(self.shared.clone())
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        if let Some(handle) = &self.handle {
            handle.close();
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Ender {
    /// Asks the switch to take its ports down and return from [`Switch::run`](crate::Switch::run).
    pub fn end(&self) {
        self.0.raise(&self.0.end);
    }
}

impl Pending {
    fn raise(&self, flag: &AtomicBool) {
        flag.store(true, Ordering::Release);
        let _ = rustix::io::write(&self.bell, &1u64.to_ne_bytes());
    }
}
