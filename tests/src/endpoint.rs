//! The two ends of a connection under test: guests, and the host within a namespace.

use std::{
    sync::mpsc::{Receiver, RecvTimeoutError},
    time::Duration,
};

use anyhow::{Result, bail};

/// Something that runs command lines and has an address.
pub trait Endpoint {
    /// Starts a command line; several may run side by side.
    fn start(&self, line: &str) -> Result<Job>;

    /// Makes sure that an iperf3 server listens on `port`.
    fn serve_iperf3(&self, port: u16) -> Result<()>;
}

/// What a command line did.
#[derive(Debug, Clone)]
pub struct Output {
    /// Exit status of the shell.
    pub status: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

/// A command line that runs.
#[derive(Debug)]
pub struct Job {
    place: String,
    line: String,
    receiver: Receiver<Output>,
}

impl Job {
    /// `line`, which runs in `place`; when `receiver`'s other end is dropped, `place` has ended.
    pub(crate) fn new(place: &str, line: &str, receiver: Receiver<Output>) -> Self {
        Self {
            place: place.to_owned(),
            line: line.to_owned(),
            receiver,
        }
    }

    /// Waits for the command's end.
    pub fn wait(self, limit: Duration) -> Result<Output> {
        let Self { place, line, .. } = &self;
        match self.receiver.recv_timeout(limit) {
            Ok(output) => Ok(output),
            Err(RecvTimeoutError::Timeout) => bail!("{place}: no end within {limit:?}: {line}"),
            Err(RecvTimeoutError::Disconnected) => bail!("{place} ended during: {line}"),
        }
    }

    /// Waits for the command's end and wants status 0; what it printed.
    pub fn success(self, limit: Duration) -> Result<String> {
        let (place, line) = (self.place.clone(), self.line.clone());
        let output = self.wait(limit)?;
        if output.status != 0 {
            bail!(
                "{place}: status {} from: {line}\n{}{}",
                output.status,
                output.stdout,
                output.stderr
            );
        }
        Ok(output.stdout)
    }
}
