//! The `ringway switch` under test.

use std::{
    collections::BTreeMap,
    env,
    path::PathBuf,
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use rustix::process::Signal;
use serde::Deserialize;

use crate::{
    Lab, Netns, lab,
    lines::Lines,
    process::{Process, command},
};

const LIMIT: Duration = Duration::from_secs(30);

/// The binary: `$RINGWAY`, or the newest of `target/release/ringway` and `target/debug/ringway`.
pub fn binary() -> Result<PathBuf> {
    if let Some(path) = env::var_os("RINGWAY") {
        return Ok(path.into());
    }
    let target = env::var_os("CARGO_TARGET_DIR").map_or_else(lab::target, PathBuf::from);
    ["release", "debug"]
        .map(|profile| target.join(profile).join("ringway"))
        .into_iter()
        .filter_map(|path| Some((path.metadata().ok()?.modified().ok()?, path)))
        .max()
        .map(|(_, path)| path)
        .with_context(|| {
            format!(
                "no ringway in {}; `make build` makes it, RINGWAY=/path/to/ringway names another",
                target.display()
            )
        })
}

/// A switch before it starts.
#[derive(Debug, Clone)]
pub struct SwitchBuilder<'a> {
    lab: &'a Lab,
    name: String,
    arguments: Vec<String>,
    netns: Option<&'a Netns>,
    unprivileged: bool,
    program: Option<PathBuf>,
}

impl<'a> SwitchBuilder<'a> {
    pub(crate) fn new(lab: &'a Lab) -> Self {
        Self {
            lab,
            name: "switch".into(),
            arguments: Vec::new(),
            netns: None,
            unprivileged: false,
            program: None,
        }
    }

    /// Its logs' name, where there is more than one switch.
    pub fn named(mut self, name: &str) -> Self {
        self.name = name.into();
        self
    }

    /// A vhost-user port called `name`, listening at the lab's path of that name.
    pub fn vhost_user(self, name: &str, queues: u16) -> Self {
        let path = self.lab.path(name);
        self.port(&format!(
            "vhost-user,path={},queues={queues},name={name}",
            path.display()
        ))
    }

    /// A port as on the command line.
    pub fn port(self, specification: &str) -> Self {
        self.arguments(&["--port", specification])
    }

    /// More of the command line.
    pub fn arguments(mut self, arguments: &[&str]) -> Self {
        self.arguments
            .extend(arguments.iter().map(ToString::to_string));
        self
    }

    /// Runs it in this network namespace.
    pub fn within(mut self, netns: &'a Netns) -> Self {
        self.netns = Some(netns);
        self
    }

    /// Runs another binary than the one under test.
    pub fn program(mut self, program: PathBuf) -> Self {
        self.program = Some(program);
        self
    }

    /// Runs it as a user who may do nothing in particular.
    pub fn unprivileged(mut self) -> Self {
        self.unprivileged = true;
        self
    }

    /// Starts it and waits until it is ready.
    pub fn start(self) -> Result<Switch> {
        let mut command = if self.unprivileged && rustix::process::geteuid().is_root() {
            let mut setpriv = command("setpriv", self.netns);
            setpriv
                .args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"])
                .arg(self.lab.reachable_binary()?);
            setpriv
        } else {
            let program = self.program.clone().map_or_else(binary, Ok)?;
            command(program, self.netns)
        };
        command
            .arg("switch")
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut process = Process::spawn("ringway switch", &mut command)?;
        let (stdout, stderr) = (process.child().stdout.take(), process.child().stderr.take());
        let mut switch = Switch {
            stdout: Lines::read(
                "ringway switch",
                stdout.context("no pipe")?,
                &self.lab.log(&format!("{}.stdout", self.name)),
            )?,
            stderr: Lines::read(
                "ringway switch",
                stderr.context("no pipe")?,
                &self.lab.log(&format!("{}.stderr", self.name)),
            )?,
            process,
            killed: false,
        };
        let ready = switch
            .stdout
            .await_line("`ready`", LIMIT, |line| line == "ready");
        if let Err(error) = ready {
            // It need not end orderly any more: this error is the one to tell, with its last words.
            switch.process.kill();
            switch.killed = true;
            let _ = switch.stderr.rest(LIMIT);
            return Err(error.context(switch.messages().join("\n")));
        }
        Ok(switch)
    }
}

/// A running switch. Dropped, it gets SIGTERM and must exit with 0.
#[derive(Debug)]
pub struct Switch {
    process: Process,
    killed: bool,
    stdout: Lines,
    stderr: Lines,
}

impl Switch {
    /// The process id.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// What it said on stderr so far.
    pub fn messages(&mut self) -> Vec<String> {
        self.stderr.seen().to_vec()
    }

    /// Waits for the next line on stderr for which `wanted` holds.
    pub fn await_message(
        &mut self,
        what: &str,
        wanted: impl FnMut(&str) -> bool,
    ) -> Result<String> {
        self.stderr.await_line(what, LIMIT, wanted)
    }

    /// Its statistics now.
    pub fn statistics(&mut self) -> Result<Statistics> {
        self.process.signal(Signal::USR1)?;
        let line = self
            .stdout
            .await_line("statistics", LIMIT, |line| line.starts_with('{'))?;
        serde_json::from_str(&line).with_context(|| format!("not the statistics promised: {line}"))
    }

    /// Waits until its statistics satisfy `wanted`: what guests count and what the switch counts meet a moment later.
    pub fn await_statistics(
        &mut self,
        what: &str,
        wanted: impl Fn(&Statistics) -> bool,
    ) -> Result<Statistics> {
        let end = std::time::Instant::now() + LIMIT;
        loop {
            let statistics = self.statistics()?;
            if wanted(&statistics) {
                return Ok(statistics);
            }
            if std::time::Instant::now() > end {
                bail!("not within {LIMIT:?}: {what}; last: {statistics:?}");
            }
        }
    }

    /// Open files and memory of the process.
    pub fn footprint(&self) -> Result<Footprint> {
        let proc = PathBuf::from(format!("/proc/{}", self.id()));
        let status = std::fs::read_to_string(proc.join("status"))?;
        let resident = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .and_then(|line| line.split_whitespace().next())
            .context("no VmRSS")?;
        Ok(Footprint {
            files: std::fs::read_dir(proc.join("fd"))?.count(),
            mappings: std::fs::read_to_string(proc.join("maps"))?.lines().count(),
            resident_kib: resident.parse()?,
            threads: std::fs::read_dir(proc.join("task"))?.count(),
        })
    }

    /// Asks it to end and checks that it does so orderly.
    pub fn stop(self) -> Result<()> {
        self.end_by(Signal::TERM)
    }

    /// Ends it with this signal and checks that it exits with 0.
    pub fn end_by(mut self, signal: Signal) -> Result<()> {
        self.finish(signal)
    }

    /// Waits until it ends by itself and checks that it exits with 0.
    pub fn await_end(mut self) -> Result<()> {
        self.process.wait(LIMIT)?;
        self.finish(Signal::TERM)
    }

    /// Ends it without its consent.
    pub fn kill(mut self) {
        self.process.kill();
        self.killed = true;
    }

    fn finish(&mut self, signal: Signal) -> Result<()> {
        if !self.process.ended() {
            self.process.signal(signal)?;
        }
        let status = self.process.wait(LIMIT)?;
        if !status.success() {
            self.stderr.rest(LIMIT)?;
            bail!(
                "ringway switch ended with {status} instead of 0: {}",
                self.messages().join("\n")
            );
        }
        Ok(())
    }
}

impl Drop for Switch {
    fn drop(&mut self) {
        if self.killed {
            return;
        }
        let end = self.finish(Signal::TERM);
        if thread::panicking() {
            eprintln!("ringway switch said:\n{}", self.messages().join("\n"));
        } else if let Err(error) = end {
            panic!("{error:#}");
        }
    }
}

/// What a process holds, for finding leaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Footprint {
    /// Open file descriptors.
    pub files: usize,
    /// Memory mappings.
    pub mappings: usize,
    /// Resident memory in KiB.
    pub resident_kib: u64,
    /// Threads.
    pub threads: usize,
}

/// The statistics that `ringway switch` prints on SIGUSR1, read by their promised names alone.
#[derive(Debug, Clone, Deserialize)]
#[allow(missing_docs)]
pub struct Statistics {
    pub ports: Vec<PortStatistics>,
    pub attempted: u64,
    pub delivered: u64,
    pub dropped: u64,
    pub copied_bytes: u64,
}

/// One port's part.
#[derive(Debug, Clone, Deserialize)]
#[allow(missing_docs)]
pub struct PortStatistics {
    pub name: String,
    pub kind: String,
    pub connected: bool,
    pub features: String,
    pub queues: Vec<QueueStatistics>,
    pub drops: BTreeMap<String, u64>,
    #[serde(default)]
    pub faults: BTreeMap<String, u64>,
}

/// One queue pair's part; rx is from the guest, tx is to the guest.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[allow(missing_docs)]
pub struct QueueStatistics {
    pub rx_frames: u64,
    pub rx_bytes: u64,
    pub tx_frames: u64,
    pub tx_bytes: u64,
    pub kicks: u64,
    pub calls: u64,
    #[serde(default)]
    pub missed_kicks: u64,
}

impl Statistics {
    /// The port called `name`.
    pub fn port(&self, name: &str) -> Result<&PortStatistics> {
        self.ports
            .iter()
            .find(|port| port.name == name)
            .with_context(|| format!("no port {name} in {self:?}"))
    }

    /// Every frame was delivered or dropped for a reason, and the ports' reasons add up.
    pub fn check(&self) -> Result<()> {
        let reasons: u64 = self.ports.iter().flat_map(|port| port.drops.values()).sum();
        if self.attempted != self.delivered + self.dropped || reasons != self.dropped {
            bail!("counters disagree (reasons add up to {reasons}): {self:?}");
        }
        Ok(())
    }
}

impl PortStatistics {
    /// All its queues together.
    pub fn sum(&self) -> QueueStatistics {
        self.queues
            .iter()
            .fold(QueueStatistics::default(), |a, b| QueueStatistics {
                rx_frames: a.rx_frames + b.rx_frames,
                rx_bytes: a.rx_bytes + b.rx_bytes,
                tx_frames: a.tx_frames + b.tx_frames,
                tx_bytes: a.tx_bytes + b.tx_bytes,
                kicks: a.kicks + b.kicks,
                calls: a.calls + b.calls,
                missed_kicks: a.missed_kicks + b.missed_kicks,
            })
    }

    /// The negotiated features.
    pub fn features(&self) -> Result<u64> {
        let digits = self
            .features
            .strip_prefix("0x")
            .context("features without 0x")?;
        Ok(u64::from_str_radix(digits, 16)?)
    }
}

/// A command line of `ringway` that is expected to end by itself: status, stdout, stderr.
pub fn ringway(arguments: &[&str]) -> Result<std::process::Output> {
    Command::new(binary()?)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .context("cannot start ringway")
}
