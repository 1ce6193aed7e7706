//! The `ringway dump` under test.

use std::{path::Path, process::Stdio, time::Duration};

use anyhow::{Context, Result, bail};
use rustix::process::Signal;

use crate::{
    Lab,
    lines::Lines,
    process::{Process, command},
    switch::binary,
};

/// As long as a guest may take to boot.
const LIMIT: Duration = crate::guest::BOOT;

/// A dump that runs. Dropped, it is killed.
#[derive(Debug)]
pub struct Dump {
    process: Process,
    stdout: Lines,
    stderr: Lines,
}

impl Dump {
    /// Starts it at `socket` and waits until it is ready.
    pub fn start(lab: &Lab, socket: &Path, options: &[&str]) -> Result<Self> {
        let mut dump = command(binary()?, None);
        dump.arg("dump")
            .arg(socket)
            .args(options)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut process = Process::spawn("ringway dump", &mut dump)?;
        let (stdout, stderr) = (process.child().stdout.take(), process.child().stderr.take());
        let mut dump = Self {
            stdout: Lines::read(
                "ringway dump",
                stdout.context("no pipe")?,
                &lab.log("dump.stdout"),
            )?,
            stderr: Lines::read(
                "ringway dump",
                stderr.context("no pipe")?,
                &lab.log("dump.stderr"),
            )?,
            process,
        };
        dump.await_line("`ready`", |line| line == "ready")?;
        Ok(dump)
    }

    /// Waits for the next line of its output for which `wanted` holds.
    pub fn await_line(&mut self, what: &str, wanted: impl FnMut(&str) -> bool) -> Result<String> {
        self.stdout.await_line(what, LIMIT, wanted)
    }

    /// The same for what it says on stderr.
    pub fn await_message(
        &mut self,
        what: &str,
        wanted: impl FnMut(&str) -> bool,
    ) -> Result<String> {
        self.stderr.await_line(what, LIMIT, wanted)
    }

    /// Ends it as from a terminal; it must exit with 0.
    pub fn stop(self) -> Result<()> {
        self.process.signal(Signal::INT)?;
        self.finished().map(drop)
    }

    /// Waits until it has ended by itself, with 0; all it printed.
    pub fn finished(mut self) -> Result<Vec<String>> {
        let status = self.process.wait(LIMIT)?;
        if !status.success() {
            let messages = self.stderr.rest(LIMIT)?.join("\n");
            bail!("ringway dump ended with {status} instead of 0: {messages}");
        }
        Ok(self.stdout.rest(LIMIT)?.to_vec())
    }
}
