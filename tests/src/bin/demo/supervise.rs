//! The demo runs in a second process. This one only waits: for its end, or for a signal, upon which it kills it. Then it collects
//! every process that was started and removes the one folder everything was made in. So nothing is left, however the demo ends.
//!
//! The guests and the daemon ask the kernel to be killed with the process that started them; as their reaper we see them go. The
//! daemon's switch outlives it, as it shall, becomes our child then, and is ended here.

use std::{
    env, fs,
    io::{self, IsTerminal},
    os::unix::fs::DirBuilderExt,
    path::Path,
    process::{Command, ExitCode},
};

use anyhow::{Context, Result};
use rustix::process::{
    Pid, Signal, WaitOptions, WaitStatus, geteuid, getpid, kill_process, set_child_subreaper, wait,
};
use signal_hook::{
    consts::{SIGCHLD, SIGHUP, SIGINT, SIGTERM},
    iterator::Signals,
};

/// Tells the second process that it is the one.
const INSIDE: &str = "RINGWAY_DEMO_INSIDE";

pub(crate) fn is_inside() -> bool {
    env::var_os(INSIDE).is_some()
}

/// Runs the demo; its exit code, or 128 and the signal's number.
pub(crate) fn run() -> ExitCode {
    let folder = env::temp_dir().join(format!("ringway-demo-{}", getpid().as_raw_nonzero()));
    let ended = fs::DirBuilder::new()
        .mode(0o700)
        .create(&folder)
        .with_context(|| format!("cannot make {}", folder.display()))
        .and_then(|()| supervise(&folder));
    let removed = fs::remove_dir_all(&folder);
    match (ended, removed) {
        (Ok(End::Exit(code)), Ok(())) => ExitCode::from(code),
        (Ok(End::Signal(number)), Ok(())) => {
            if io::stdout().is_terminal() {
                print!("\r\x1b[K");
            }
            println!(
                "ended by signal {number}: the guests and the switch are gone, their files removed"
            );
            ExitCode::from(128 + number)
        }
        (Err(error), _) => {
            eprintln!("demo: {error:#}");
            ExitCode::FAILURE
        }
        (_, Err(error)) => {
            eprintln!("demo: cannot remove {}: {error}", folder.display());
            ExitCode::FAILURE
        }
    }
}

enum End {
    Exit(u8),
    Signal(u8),
}

fn supervise(folder: &Path) -> Result<End> {
    set_child_subreaper(Some(getpid()))?;
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP, SIGCHLD])?;
    let mut inside = Command::new("setpriv");
    inside.args(["--pdeathsig", "KILL", "--"]);
    // The networks are made in namespaces; to make those takes a user namespace, or root.
    if !geteuid().is_root() {
        inside.args(["unshare", "--user", "--map-root-user", "--net", "--"]);
    }
    let child = inside
        .arg(env::current_exe()?)
        .env(INSIDE, "1")
        .env("TMPDIR", folder)
        .spawn()
        .context("cannot start the demo")?;
    let inside = Pid::from_child(&child);
    let (mut end, mut gone) = (None, false);
    for signal in signals.forever() {
        if signal != SIGCHLD && end.is_none() {
            end = Some(End::Signal(u8::try_from(signal).unwrap_or(u8::MAX)));
            // It may have ended by itself just now.
            let _ = kill_process(inside, Signal::KILL);
        }
        loop {
            match wait(WaitOptions::NOHANG) {
                Ok(Some((pid, status))) if pid == inside => {
                    end = end.or(Some(end_of(status)));
                    gone = true;
                }
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(rustix::io::Errno::CHILD) => {
                    return end.context("the demo ended without a status");
                }
                Err(error) => return Err(error.into()),
            }
        }
        if gone {
            // Each that goes may leave us another one, and tells by a signal.
            kill_children()?;
        }
    }
    anyhow::bail!("no more signals")
}

fn kill_children() -> Result<()> {
    let children = fs::read_to_string(format!("/proc/self/task/{0}/children", getpid()))?;
    for child in children.split_whitespace() {
        let pid = child.parse().ok().and_then(Pid::from_raw);
        // It may have ended by itself just now.
        let _ = kill_process(pid.context("not a process")?, Signal::KILL);
    }
    Ok(())
}

fn end_of(status: WaitStatus) -> End {
    let narrow = |number: i32| u8::try_from(number).unwrap_or(u8::MAX);
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => End::Exit(narrow(code)),
        (None, Some(number)) => End::Signal(narrow(number)),
        (None, None) => End::Exit(1),
    }
}
