//! Child processes with a deadline, which never outlive who started them.

use std::{
    ffi::OsStr,
    os::fd::OwnedFd,
    process::{Child, Command, ExitStatus},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open},
};

use crate::Netns;

/// A running child. Dropped, it is killed and reaped.
///
/// The kernel kills it, too, when the thread that started it ends: a killed test leaves nothing running.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    pidfd: OwnedFd,
    status: Option<ExitStatus>,
}

/// A command for [`Process::spawn`], to be run in `netns` if one is given.
pub(crate) fn command(program: impl AsRef<OsStr>, netns: Option<&Netns>) -> Command {
    let mut command = match netns {
        Some(netns) => netns.enter(),
        None => Command::new("setpriv"),
    };
    if netns.is_some() {
        // Inside, because entering a user namespace clears the signal that setpriv asks for.
        command.arg("setpriv");
    }
    command.args(["--pdeathsig", "KILL", "--"]).arg(program);
    command
}

impl Process {
    /// Starts what [`command`] made; `name` stands in messages.
    pub fn spawn(name: &str, command: &mut Command) -> Result<Self> {
        let child = command
            .spawn()
            .with_context(|| format!("{name}: cannot start {:?}", command.get_program()))?;
        let pid = Pid::from_child(&child);
        let pidfd = pidfd_open(pid, PidfdFlags::empty())
            .with_context(|| format!("{name}: no pidfd for process {pid:?}"))?;
        Ok(Self {
            name: name.to_owned(),
            child,
            pidfd,
            status: None,
        })
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Readable when the process has ended.
    pub fn pidfd(&self) -> &OwnedFd {
        &self.pidfd
    }

    /// The child's own handle, for its pipes.
    pub fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// Sends a signal; fails when the process has been reaped.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        if let Some(status) = self.status {
            bail!("{} has ended already ({status})", self.name);
        }
        kill_process(Pid::from_child(&self.child), signal)
            .with_context(|| format!("cannot signal {}", self.name))
    }

    /// Waits for the end.
    pub fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        if let Some(status) = self.status {
            return Ok(status);
        }
        if !readable(&self.pidfd, limit)? {
            bail!("{} still runs after {limit:?}", self.name);
        }
        let status = self.child.wait()?;
        self.status = Some(status);
        Ok(status)
    }

    /// Whether it has ended, without waiting.
    pub fn ended(&mut self) -> bool {
        self.wait(Duration::ZERO).is_ok()
    }

    /// Kills and reaps.
    pub fn kill(&mut self) {
        if self.status.is_none() {
            let _ = self.child.kill();
            self.status = self.child.wait().ok();
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Waits until `fd` is readable (or at its end); false when `limit` passed before.
pub(crate) fn readable(fd: &impl std::os::fd::AsFd, limit: Duration) -> Result<bool> {
    Ok(first_readable(&mut [PollFd::new(fd, PollFlags::IN)], limit)?.is_some())
}

/// Waits for the first of `fds` to become readable; its index, or `None` when `limit` passed before.
pub(crate) fn first_readable(fds: &mut [PollFd<'_>], limit: Duration) -> Result<Option<usize>> {
    let end = Instant::now() + limit;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        match poll(fds, Some(&Timespec::try_from(left)?)) {
            Ok(0) => return Ok(None),
            Ok(_) => return Ok(fds.iter().position(|fd| !fd.revents().is_empty())),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Runs a command to its end and returns what it printed; fails with its error output.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let output = command
        .output()
        .with_context(|| format!("cannot start {command:?}"))?;
    if !output.status.success() {
        bail!(
            "{command:?} failed ({}): {}",
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_process_is_gone_and_a_slow_one_is_named() {
        let mut process = Process::spawn("sleeper", command("sleep", None).arg("60")).unwrap();
        let error = process.wait(Duration::from_millis(10)).unwrap_err();
        assert!(error.to_string().contains("sleeper still runs"), "{error}");
        let path = format!("/proc/{}", process.id());
        assert!(std::path::Path::new(&path).exists());
        drop(process);
        assert!(!std::path::Path::new(&path).exists());
    }

    #[test]
    fn the_exit_status_is_kept() {
        let mut process = Process::spawn("false", &mut command("false", None)).unwrap();
        assert_eq!(
            process.wait(Duration::from_secs(10)).unwrap().code(),
            Some(1)
        );
        assert_eq!(process.wait(Duration::ZERO).unwrap().code(), Some(1));
        assert!(process.signal(Signal::TERM).is_err());
    }
}
