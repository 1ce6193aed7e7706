//! A terminal that nobody sits at: tmux runs a command line in it and says what stands on it.

use std::{
    path::PathBuf,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

use crate::{
    Lab,
    process::{Process, command, output},
};

const LIMIT: Duration = Duration::from_secs(30);
/// A terminal does not tell when it changes.
const LOOK: Duration = Duration::from_millis(50);

/// A terminal. Dropped, it ends, and what runs in it with it.
#[derive(Debug)]
pub struct Screen {
    socket: PathBuf,
    _server: Process,
}

impl Screen {
    /// One of so many columns and lines in which a shell runs `line`. The shell should stay.
    pub fn open(lab: &Lab, name: &str, size: (u16, u16), line: &str) -> Result<Self> {
        let socket = lab.path(name);
        let mut server = command("tmux", None);
        // In the foreground, so that it ends with us, however we do.
        server
            .args(["-u", "-D", "-f", "/dev/null", "-S"])
            .arg(&socket)
            .env("LANG", "C.UTF-8")
            .env_remove("LC_ALL")
            .env_remove("NO_COLOR")
            .env_remove("TMUX")
            .stdin(Stdio::null());
        let screen = Self {
            _server: Process::spawn("tmux", &mut server)?,
            socket,
        };
        let end = Instant::now() + LIMIT;
        while !screen.socket.exists() {
            if Instant::now() > end {
                bail!("tmux does not listen");
            }
            thread::sleep(LOOK);
        }
        let (width, height) = (size.0.to_string(), size.1.to_string());
        screen.tmux(&["new-session", "-d", "-x", &width, "-y", &height, line])?;
        Ok(screen)
    }

    /// What stands on it, without what is around the letters.
    pub fn text(&self) -> Result<String> {
        self.tmux(&["capture-pane", "-p"])
    }

    /// The same with colours, as sequences for terminals.
    pub fn painted(&self) -> Result<String> {
        self.tmux(&["capture-pane", "-p", "-e"])
    }

    /// Waits until `wanted` holds for what stands on it.
    pub fn await_text(&self, what: &str, wanted: impl Fn(&str) -> bool) -> Result<String> {
        let end = Instant::now() + LIMIT;
        loop {
            let text = self.text()?;
            if wanted(&text) {
                return Ok(text);
            }
            if Instant::now() > end {
                bail!("not on the screen within {LIMIT:?}: {what}\n{text}");
            }
            thread::sleep(LOOK);
        }
    }

    /// Presses keys, by tmux's names of them.
    pub fn press(&self, keys: &[&str]) -> Result<()> {
        self.tmux(&[&["send-keys"], keys].concat()).map(drop)
    }

    /// Makes it another size.
    pub fn resize(&self, width: u16, height: u16) -> Result<()> {
        let (width, height) = (width.to_string(), height.to_string());
        self.tmux(&["resize-window", "-x", &width, "-y", &height])
            .map(drop)
    }

    fn tmux(&self, words: &[&str]) -> Result<String> {
        let mut tmux = Command::new("tmux");
        let tmux = tmux.arg("-u").arg("-S").arg(&self.socket).args(words);
        output(tmux.env("LANG", "C.UTF-8").stdin(Stdio::null()))
    }
}
