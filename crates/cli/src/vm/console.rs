//! The serial console of a machine in this terminal.

use std::{
    io::{self, IsTerminal, Read, Write},
    os::unix::net::UnixStream,
    path::Path,
};

use anyhow::Context;
use rustix::{
    event::{PollFd, PollFlags, poll},
    io::Errno,
    termios::{OptionalActions, Termios, tcgetattr, tcsetattr},
};

use crate::Failure;

/// Ctrl-], as telnet and virsh have it.
const DETACH: u8 = 0x1d;

/// How a look at the console ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// The detach key was pressed: the machine goes on.
    Detached,
    /// The machine has gone.
    Gone,
    /// The signal pipe became readable.
    Signalled,
}

/// Keys go to the machine, and what it says comes here, until one of the three ends.
pub(super) fn attach(mut console: UnixStream, signals: &UnixStream) -> Result<End, Failure> {
    let stdin = io::stdin();
    // Restored when dropped.
    let _raw = if stdin.is_terminal() {
        Some(Raw::set()?)
    } else {
        None
    };
    let mut input_open = true;
    let mut buffer = [0; 4096];
    loop {
        let mut fds = vec![
            PollFd::new(&console, PollFlags::IN),
            PollFd::new(signals, PollFlags::IN),
        ];
        if input_open {
            fds.push(PollFd::new(&stdin, PollFlags::IN));
        }
        match poll(&mut fds, None) {
            Err(Errno::INTR) => continue,
            done => done?,
        };
        let ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        drop(fds);
        if ready[1] {
            return Ok(End::Signalled);
        }
        if ready[0] {
            let count = console.read(&mut buffer).unwrap_or(0);
            if count == 0 {
                return Ok(End::Gone);
            }
            let mut out = io::stdout();
            out.write_all(&buffer[..count])?;
            out.flush()?;
        }
        if input_open && ready[2] {
            // Not through the buffer of `Stdin`, in which poll would not see what is left.
            let count = rustix::io::read(&stdin, &mut buffer).unwrap_or(0);
            input_open = count > 0;
            let typed = &buffer[..count];
            let end = typed.iter().position(|&byte| byte == DETACH);
            if console.write_all(&typed[..end.unwrap_or(count)]).is_err() {
                return Ok(End::Gone);
            }
            if end.is_some() {
                return Ok(End::Detached);
            }
        }
    }
}

/// Connects to the console's socket, which takes one at a time.
pub(super) fn connect(path: &Path) -> Result<UnixStream, Failure> {
    let stream = UnixStream::connect(path);
    Ok(stream.with_context(|| format!("the console at {}", path.display()))?)
}

/// A terminal that passes every key on.
struct Raw(Termios);

impl Raw {
    fn set() -> Result<Self, Failure> {
        let before = tcgetattr(io::stdin())?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(io::stdin(), OptionalActions::Now, &raw)?;
        Ok(Self(before))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        let _ = tcsetattr(io::stdin(), OptionalActions::Drain, &self.0);
    }
}
