//! QEMU as a child process.

use std::{
    fs::{self, File},
    io,
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::{Errno, FdFlags, fcntl_setfd},
    process::{Pid, PidfdFlags, pidfd_open},
};

use crate::Qmp;

/// Between two attempts to reach a monitor that is not there yet.
const POLL: Duration = Duration::from_millis(50);

/// A QEMU that we started. Dropped, it is killed.
#[derive(Debug)]
pub struct Process {
    child: Child,
    pidfd: OwnedFd,
    log: PathBuf,
}

/// Why it does not run.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// It cannot be started.
    #[error("{} cannot be started: {error}", .program.display())]
    Start {
        /// The program.
        program: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// It ended at once.
    #[error("QEMU ended ({status}): {said}")]
    Ended {
        /// How.
        status: ExitStatus,
        /// Its last words.
        said: String,
    },
    /// It does not answer.
    #[error("QEMU does not come up within {} s: {said}", .limit.as_secs())]
    Silent {
        /// How long was waited.
        limit: Duration,
        /// Its last words.
        said: String,
    },
}

impl Process {
    /// Starts the program; what it says goes to the file `log`.
    ///
    /// It inherits `handed`, under the same numbers, and nobody else does unless another thread starts a process just now. Ours are
    /// closed then: a tap is held by its machine alone.
    pub fn start(
        program: &Path,
        arguments: &[String],
        log: &Path,
        handed: Vec<OwnedFd>,
    ) -> Result<Self, ProcessError> {
        let failed = |error| ProcessError::Start {
            program: program.to_owned(),
            error,
        };
        let output = File::create(log).map_err(failed)?;
        for fd in &handed {
            fcntl_setfd(fd, FdFlags::empty()).map_err(|error| failed(error.into()))?;
        }
        let child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(output.try_clone().map_err(failed)?)
            .stderr(output)
            .spawn()
            .map_err(failed)?;
        drop(handed);
        let pidfd = pidfd_open(Pid::from_child(&child), PidfdFlags::empty())
            .map_err(|error| failed(error.into()))?;
        Ok(Self {
            child,
            pidfd,
            log: log.to_owned(),
        })
    }

    /// Its number.
    pub fn id(&self) -> i32 {
        Pid::from_child(&self.child).as_raw_nonzero().get()
    }

    /// Readable when it has ended.
    pub fn pidfd(&self) -> &OwnedFd {
        &self.pidfd
    }

    /// Waits until its monitor answers.
    pub fn await_monitor(&mut self, path: &Path, limit: Duration) -> Result<Qmp, ProcessError> {
        let end = Instant::now() + limit;
        loop {
            if path.exists()
                && let Ok(qmp) = Qmp::connect(path)
            {
                return Ok(qmp);
            }
            if ended(&self.pidfd, POLL) {
                let status = self.wait().unwrap_or_default();
                let said = self.last_words();
                return Err(ProcessError::Ended { status, said });
            }
            if Instant::now() > end {
                let said = self.last_words();
                return Err(ProcessError::Silent { limit, said });
            }
        }
    }

    /// Reaps it, once it has ended.
    pub fn wait(&mut self) -> io::Result<ExitStatus> {
        self.child.wait()
    }

    /// Kills and reaps it.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// The last lines that it said.
    pub fn last_words(&self) -> String {
        let text = fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let mut lines: Vec<&str> = text.lines().rev().take(3).map(str::trim).collect();
        lines.reverse();
        match lines.is_empty() {
            true => "it said nothing".into(),
            false => lines.join("; "),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Whether the process behind a pidfd ends within `limit`.
pub fn ended(pidfd: &impl AsFd, limit: Duration) -> bool {
    let end = Instant::now() + limit;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let left = Timespec::try_from(left).ok();
        match poll(&mut [PollFd::new(pidfd, PollFlags::IN)], left.as_ref()) {
            Ok(count) => return count > 0,
            Err(Errno::INTR) => (),
            Err(_) => return false,
        }
    }
}

/// A process of somebody else's, to be waited for; `None` if it has ended.
pub fn open(id: i32) -> Option<OwnedFd> {
    pidfd_open(Pid::from_raw(id)?, PidfdFlags::empty()).ok()
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;

    use super::*;

    #[test]
    fn who_ends_at_once_is_quoted() {
        let log = std::env::temp_dir().join(format!("ringway-process-{}", std::process::id()));
        let say = [
            "-c".to_owned(),
            "echo no such device >&2; exit 3".to_owned(),
        ];
        let mut process = Process::start(Path::new("/bin/sh"), &say, &log, Vec::new()).unwrap();
        let limit = Duration::from_secs(60);
        let error = process.await_monitor(Path::new("/nowhere/monitor"), limit);
        let error = error.unwrap_err().to_string();
        assert_eq!(error, "QEMU ended (exit status: 3): no such device");
        fs::remove_file(&log).unwrap();
    }

    #[test]
    fn what_is_handed_over_is_inherited_and_closed_here() {
        let log = std::env::temp_dir().join(format!("ringway-handed-{}", std::process::id()));
        let (reader, writer) = io::pipe().unwrap();
        let writer = OwnedFd::from(writer);
        let say = [
            "-c".to_owned(),
            format!("echo here >&{}", writer.as_raw_fd()),
        ];
        let mut process = Process::start(Path::new("/bin/sh"), &say, &log, vec![writer]).unwrap();
        // Comes to its end only if nobody has the other side any more.
        assert_eq!(io::read_to_string(reader).unwrap(), "here\n");
        assert!(process.wait().unwrap().success());
        fs::remove_file(&log).unwrap();
    }

    #[test]
    fn who_is_dropped_is_gone_and_who_is_silent_is_not_waited_for() {
        let log = std::env::temp_dir().join(format!("ringway-silent-{}", std::process::id()));
        let sleep = Path::new("/bin/sleep");
        let mut process = Process::start(sleep, &["60".into()], &log, Vec::new()).unwrap();
        let error = process
            .await_monitor(Path::new("/nowhere/monitor"), Duration::from_millis(60))
            .unwrap_err();
        assert!(matches!(error, ProcessError::Silent { .. }), "{error}");
        let other = open(process.id()).unwrap();
        assert!(!ended(&other, Duration::ZERO));
        drop(process);
        assert!(ended(&other, Duration::from_secs(60)));
        fs::remove_file(&log).unwrap();
    }
}
