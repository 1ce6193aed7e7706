//! Signals as something to wait for.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::event::{EventfdFlags, eventfd};
use signal_hook::consts::{SIGINT, SIGTERM, SIGUSR1};
use signal_hook::iterator::Handle;
use signal_hook::iterator::Signals as Waiting;

/// SIGTERM, SIGINT and SIGUSR1 since the last look.
pub(crate) struct Signals {
    shared: Arc<Pending>,
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
    /// Takes the signals of this process, if `process` says so; else only an [`Ender`] is heard.
    pub(crate) fn new(process: bool) -> std::io::Result<Self> {
        let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let shared = Arc::new(Pending {
            bell,
            end: AtomicBool::new(false),
            statistics: AtomicBool::new(false),
        });
        let mut signals = Self {
            shared,
            handle: None,
            thread: None,
        };
        if process {
            let mut waiting = Waiting::new([SIGTERM, SIGINT, SIGUSR1])?;
            signals.handle = Some(waiting.handle());
            let pending = signals.shared.clone();
            let thread = std::thread::Builder::new().name("signals".into());
            signals.thread = Some(thread.spawn(move || {
                for signal in waiting.forever() {
                    let flag = if signal == SIGUSR1 {
                        &pending.statistics
                    } else {
                        &pending.end
                    };
                    pending.raise(flag);
                }
            })?);
        }
        Ok(signals)
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
