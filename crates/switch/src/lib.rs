//! The learning switch: workers carry frames, one control thread keeps the ports.
//!
//! A turn of a worker is `receive` (the port), [`classify`], [`deliver`] (which calls the ports'
//! `send`), `release`. Workers read one immutable snapshot; the control thread publishes a new one
//! and waits until every worker has taken it up, see `snapshot`.

#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod assign;
mod classify;
mod clock;
mod control;
mod deliver;
pub mod dump;
mod exchange;
#[cfg(test)]
mod explore;
mod fallback;
pub mod fuzz;
pub mod offload;
mod policy;
pub mod sandbox;
mod signals;
mod snapshot;
mod steering;
mod sync;
mod table;
#[cfg(test)]
mod tests;
mod totals;
mod watch;
mod worker;

use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use ringway_api::control::Passed;
use ringway_api::port_spec::PortSpec;

pub use control::attached::AttachError;
pub use control::handover::TakeoverError;
pub use control::socket::SocketError;
pub use sandbox::Sandbox;
pub use signals::Ender;
pub use worker::Poll;

use control::Control;
use control::statistics::CpuClock;
use sandbox::{Confinement, Role, SandboxError};
use signals::Signals;
use snapshot::Shared;
use table::{AGEING_SECONDS, PORT_LIMIT, Table};
use worker::Worker;

/// How often statistics are printed; `None` = on SIGUSR1 only.
type StatisticsFrequency = Option<Duration>;

/// Most workers; more than this is a slip of the finger.
pub const MAX_WORKERS: usize = 64;

/// What a switch starts with.
#[derive(Debug, Default)]
pub struct Config {
    /// Its first ports.
    pub ports: Vec<NewPort>,
    /// Threads that carry frames; 0 = one per two CPUs, at least one.
    pub workers: usize,
    /// CPUs the workers are pinned to, in turn; empty = not pinned.
    pub cpus: Vec<usize>,
    /// How workers wait.
    pub poll: Poll,
    /// Print statistics this often.
    pub stats_interval: Option<Duration>,
    /// Listen for control connections here.
    pub control: Option<PathBuf>,
    /// Give up all rights once the first ports stand.
    pub sandbox: Sandbox,
    /// Take over from the switch whose control socket this is: its ports, its front-ends, and its control
    /// socket unless there is another of one's own.
    pub takeover: Option<PathBuf>,
}

/// A port and what was opened for it beforehand.
#[derive(Debug)]
pub struct NewPort {
    /// What it shall be.
    pub spec: PortSpec,
    /// What the descriptors are.
    pub passed: Passed,
    /// Descriptors, as many as `passed` says.
    pub fds: Vec<OwnedFd>,
}

impl From<PortSpec> for NewPort {
    /// A port for which the switch opens everything.
    fn from(spec: PortSpec) -> Self {
        Self {
            spec,
            passed: Passed::Nothing,
            fds: Vec::new(),
        }
    }
}

/// Why a switch does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A port cannot be added.
    #[error(transparent)]
    Port(#[from] AttachError),
    /// The control socket cannot be made.
    #[error(transparent)]
    Control(#[from] SocketError),
    /// The switch before cannot be taken over.
    #[error(transparent)]
    Takeover(#[from] TakeoverError),
    /// A CPU to pin to is not there.
    #[error(
        "worker {worker} cannot run on CPU {cpu}: {error}; give CPUs of this machine, see `nproc`"
    )]
    Cpu {
        /// The worker.
        worker: usize,
        /// The CPU.
        cpu: usize,
        /// What the system said.
        error: std::io::Error,
    },
    /// Too many workers.
    #[error(
        "{workers} workers are too many: at most {MAX_WORKERS}, and more than there are CPUs help nobody"
    )]
    Workers {
        /// How many were asked for.
        workers: usize,
    },
    /// Rights cannot be given up.
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    /// Guest memory cannot be guarded.
    #[error("cannot guard guest memory")]
    Guard(#[from] ringway_port::GuardError),
    /// Out of descriptors, threads or the like.
    #[error("the system refused: {0}; see `ulimit -a`")]
    System(std::io::Error),
}

impl StartError {
    fn system(error: impl Into<std::io::Error>) -> Self {
        Self::System(error.into())
    }
}

/// Why a switch that ran ended without being asked to.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Waiting or printing failed.
    #[error(transparent)]
    System(#[from] std::io::Error),
    /// A worker panicked.
    #[error(
        "worker-{worker} broke off, the message before this one says where; start the switch again, front-ends connect again"
    )]
    WorkerLost {
        /// Its number.
        worker: usize,
    },
}

/// A switch that runs.
pub struct Switch {
    control: Control,
    signals: Signals,
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
}

/// What a switch that has opened everything still needs to begin.
pub(crate) struct Crew {
    workers: usize,
    cpus: Vec<usize>,
    poll: Poll,
    sandbox: Sandbox,
}

impl Switch {
    /// Starts the workers and opens every port. When this returns every socket listens. The
    /// process's SIGTERM, SIGINT and SIGUSR1 belong to the switch from here on.
    pub fn start(config: Config) -> Result<Self, StartError> {
        raise_open_files();
        let (mut switch, crew) = Self::open(config, true)?;
        switch.begin(crew)?;
        Ok(switch)
    }

    /// As [`start`](Self::start) within a process that keeps its signals: the switch ends by its
    /// [`Ender`] or a request over the control socket.
    pub fn embed(config: Config) -> Result<Self, StartError> {
        let (mut switch, crew) = Self::open(config, false)?;
        switch.begin(crew)?;
        Ok(switch)
    }

    /// What ends the switch while it runs.
    pub fn ender(&self) -> Ender {
        self.signals.ender()
    }

    /// Opens whatever there is to open, and starts no thread.
    pub(crate) fn open(config: Config, process_signals: bool) -> Result<(Self, Crew), StartError> {
        let count = match config.workers {
            0 => (std::thread::available_parallelism().map_or(1, usize::from) / 2).max(1),
            workers if workers > MAX_WORKERS => return Err(StartError::Workers { workers }),
            workers => workers,
        };
        ringway_port::guard_memory()?;
        let signals = Signals::new(process_signals).map_err(StartError::system)?;
        let mut shared = Shared::new(count, Table::new(PORT_LIMIT)).map_err(StartError::system)?;
        let mut control = config.control.as_deref();
        if let Some(before) = &config.takeover {
            shared = shared.backdated(Duration::from_secs(AGEING_SECONDS.into()));
            control = control.filter(|control| !is_same_file(control, before));
        }
        let shared = Arc::new(shared);
        let control = Control::new(
            shared.clone(),
            count,
            &signals,
            control,
            config.stats_interval,
        )?;
        let mut switch = Self {
            control,
            signals,
            shared,
            workers: Vec::new(),
        };
        if let Some(before) = &config.takeover {
            switch.control.take_over(before)?;
        }
        for NewPort { spec, passed, fds } in config.ports {
            switch.control.place(spec, passed, fds)?;
        }
        let crew = Crew {
            workers: count,
            cpus: config.cpus,
            poll: config.poll,
            sandbox: config.sandbox,
        };
        Ok((switch, crew))
    }

    /// Gives up all rights, if that is wanted, and starts the threads, which have none then.
    pub(crate) fn begin(&mut self, crew: Crew) -> Result<(), StartError> {
        let confinement = match crew.sandbox {
            Sandbox::Off => Confinement::none(),
            Sandbox::On => Confinement::enter(&self.control.reach())?,
        };
        self.signals
            .listen(&confinement)
            .map_err(StartError::system)?;
        for number in 0..crew.workers {
            let cpu = crew.cpus.get(number % crew.cpus.len().max(1)).copied();
            self.spawn(number, cpu, crew.poll, &confinement)?;
        }
        self.control.begin(&confinement)?;
        confinement.narrow(Role::Control)?;
        Ok(self.control.finish_takeover()?)
    }

    /// Serves until SIGTERM, SIGINT, its [`Ender`] or a request over the control socket. Prints
    /// `ready` on `out` first, statistics later. However it ends, nothing of the switch is left.
    pub fn run(mut self, out: &mut dyn Write) -> Result<(), RunError> {
        writeln!(out, "ready")?;
        out.flush()?;
        self.control.run(&self.signals, out)
    }

    fn spawn(
        &mut self,
        number: usize,
        cpu: Option<usize>,
        poll: Poll,
        confinement: &Confinement,
    ) -> Result<(), StartError> {
        let worker = Worker::new(number, self.shared.clone(), poll).map_err(StartError::system)?;
        let prepare = {
            let confinement = confinement.clone();
            move || -> Result<CpuClock, StartError> {
                if let Some(cpu) = cpu {
                    pin(cpu).map_err(|error| StartError::Cpu {
                        worker: number,
                        cpu,
                        error,
                    })?;
                }
                let clock = CpuClock::of_this_thread();
                confinement.narrow(Role::Carrier)?;
                Ok(clock)
            }
        };
        let (prepared, outcome) = std::sync::mpsc::channel();
        let thread = std::thread::Builder::new().name(format!("worker-{number}"));
        let thread = thread.spawn(move || {
            let result = prepare();
            let failed = result.is_err();
            let _ = prepared.send(result);
            if !failed {
                worker.run();
            }
        });
        let thread = thread.map_err(StartError::system)?;
        match outcome.recv() {
            Ok(Err(error)) => {
                let _ = thread.join();
                return Err(error);
            }
            Ok(Ok(clock)) => self.control.cpu_clocks.push(clock),
            // It panicked, which its presence tells the control thread.
            Err(_) => {}
        }
        self.workers.push(thread);
        Ok(())
    }
}

impl Drop for Switch {
    fn drop(&mut self) {
        // A worker that never ran would be waited for.
        if self.workers.len() == self.shared.totals.len() {
            self.control.leave();
        }
        self.shared.stopping.store(true, Ordering::Release);
        self.shared.end();
        for worker in self.workers.drain(..) {
            let _ = worker.join();
        }
    }
}

/// Files of guest memory stay open, one for each region: as many as the system allows.
fn raise_open_files() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::debug!("the limit of open files stays as it is: {error}");
    }
}

fn is_same_file(one: &Path, other: &Path) -> bool {
    let inode = |path: &Path| path.metadata().map(|data| (data.dev(), data.ino()));
    one == other || inode(one).is_ok_and(|one| inode(other).is_ok_and(|other| one == other))
}

/// Binds the calling thread to one CPU.
fn pin(cpu: usize) -> std::io::Result<()> {
    let mut set = rustix::thread::CpuSet::new();
    if cpu >= rustix::thread::CpuSet::MAX_CPU {
        return Err(std::io::ErrorKind::InvalidInput.into());
    }
    set.set(cpu);
    Ok(rustix::thread::sched_setaffinity(None, &set)?)
}
