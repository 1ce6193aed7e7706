//! What stands between the two guests: our switch, or a peer.

mod ovs;
mod ringway;
mod testpmd;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use ringway_tests::Process;
use ringway_vhost::user::frontend::Frontend;
use rustix::process::Signal;

use crate::guest::{Guest, connect};
use crate::traffic::Traffic;

/// Time to start.
const LIMIT: Duration = Duration::from_secs(20);

/// What may be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `ringway switch --poll always`.
    Ringway,
    /// The same again: two equal ones differ by the noise.
    Copy,
    /// `ringway switch --poll adaptive`.
    Adaptive,
    /// Adaptive, with [`IDLE`] more ports whose guests are silent.
    Crowded,
    /// Adaptive, after it has learned [`LEARNED`] addresses.
    Learned,
    /// DPDK's testpmd, which sends what comes in here out there and looks nothing up.
    Testpmd,
    /// Open vSwitch with DPDK and the action NORMAL: a learning switch.
    Ovs,
}

/// Silent ports of [`Kind::Crowded`].
pub const IDLE: usize = 256;
/// Addresses of [`Kind::Learned`].
pub const LEARNED: usize = 100_000;

impl Kind {
    /// Those of the table.
    pub const ALL: [Self; 5] = [
        Self::Ringway,
        Self::Copy,
        Self::Adaptive,
        Self::Testpmd,
        Self::Ovs,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Ringway => "ringway",
            Self::Copy => "ringway again",
            Self::Adaptive => "ringway adaptive",
            Self::Crowded => "with idle ports",
            Self::Learned => "with many addresses",
            Self::Testpmd => "testpmd io",
            Self::Ovs => "OVS-DPDK NORMAL",
        }
    }

    /// Why it cannot be measured here, and the way out.
    pub fn missing(self) -> Option<String> {
        match self {
            Self::Testpmd => testpmd::missing(),
            Self::Ovs => ovs::missing(),
            _ => None,
        }
    }
}

/// What all middles are given.
#[derive(Clone, Debug)]
pub struct Place {
    /// A folder of their own, with a short path.
    pub folder: PathBuf,
    /// Our binary.
    pub ringway: PathBuf,
    /// The processor that carries frames.
    pub cpu: usize,
}

/// One that runs. Dropped, it is killed, even when it is paused.
pub struct Middle {
    /// In the order in which they are to end; the first one carries frames.
    processes: Vec<Process>,
    paused: bool,
    /// Guests that do nothing but be there.
    idle: Vec<Guest>,
}

impl Middle {
    /// Starts it and connects two front-ends.
    pub fn start(kind: Kind, place: &Place, traffic: &Traffic) -> Result<(Self, [Frontend; 2])> {
        let name = kind.name();
        let mut idle = Vec::new();
        let started = match kind {
            Kind::Ringway => ringway::start(place, "rw", &["--poll", "always"]),
            Kind::Copy => ringway::start(place, "rw2", &["--poll", "always"]),
            Kind::Adaptive => ringway::start(place, "rwa", &["--poll", "adaptive"]),
            Kind::Crowded => ringway::crowded(place, &mut idle),
            Kind::Learned => ringway::learned(place, &mut idle),
            Kind::Testpmd => testpmd::start(place, traffic),
            Kind::Ovs => ovs::start(place, traffic),
        };
        let (processes, fronts) = started
            .with_context(|| format!("{name} does not start, see {}", place.folder.display()))?;
        let middle = Self {
            processes,
            paused: false,
            idle,
        };
        Ok((middle, fronts))
    }

    /// Our switch with these options.
    pub fn ringway(place: &Place, options: &[&str]) -> Result<(Self, [Frontend; 2])> {
        let (processes, fronts) = ringway::start(place, "rw", options)?;
        let middle = Self {
            processes,
            paused: false,
            idle: Vec::new(),
        };
        Ok((middle, fronts))
    }

    /// Our switch with so many ports of two pairs of queues, and a silent guest at each.
    pub fn ports(place: &Place, count: usize) -> Result<Self> {
        let (process, idle) = ringway::ports(place, count)?;
        Ok(Self {
            processes: vec![process],
            paused: false,
            idle,
        })
    }

    /// The process that carries frames.
    pub fn pid(&self) -> u32 {
        self.processes[0].id()
    }

    pub fn pause(&mut self) -> Result<()> {
        self.paused = true;
        self.processes[0].signal(Signal::STOP)
    }

    pub fn go_on(&mut self) -> Result<()> {
        self.paused = false;
        self.processes[0].signal(Signal::CONT)
    }
}

impl Drop for Middle {
    fn drop(&mut self) {
        self.idle.clear();
        for process in &mut self.processes {
            // Orderly first: who is paused cannot hear it, and who has ended already does not matter.
            let heard = !self.paused && process.signal(Signal::TERM).is_ok();
            if !heard || process.wait(Duration::from_secs(2)).is_err() {
                process.kill();
            }
        }
    }
}

/// A program that the kernel kills when we are gone.
fn command(program: impl AsRef<std::ffi::OsStr>) -> std::process::Command {
    let mut command = std::process::Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(program);
    command
}

/// Where the two sockets of a middle are.
fn sockets(place: &Place, name: &str) -> [PathBuf; 2] {
    [0, 1].map(|side| place.folder.join(format!("{name}{side}")))
}

fn connect_both(paths: &[PathBuf; 2]) -> Result<[Frontend; 2]> {
    let [first, second] = paths;
    Ok([connect(first, LIMIT)?, connect(second, LIMIT)?])
}

/// A file for what a program prints.
fn log(folder: &Path, name: &str) -> Result<std::fs::File> {
    let path = folder.join(format!("{name}.log"));
    std::fs::File::create(&path).with_context(|| format!("cannot write {}", path.display()))
}

/// Whether a program is in PATH.
fn installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}
