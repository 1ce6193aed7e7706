//! Lines of a child's output, read by a thread of their own so that the child never blocks on a full pipe.

use std::{
    fs::File,
    io::{BufRead, BufReader, Read, Write},
    path::Path,
    sync::mpsc::{self, Receiver, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

/// The lines a child writes, awaited in order; all of them go to a log file as well.
#[derive(Debug)]
pub(crate) struct Lines {
    name: String,
    receiver: Receiver<String>,
    seen: Vec<String>,
}

impl Lines {
    /// Reads `pipe` until its end; every line is also written to the file `log`.
    pub(crate) fn read(name: &str, pipe: impl Read + Send + 'static, log: &Path) -> Result<Self> {
        let mut log =
            File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
        let (sender, receiver) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(pipe).split(b'\n') {
                let Ok(line) = line else { break };
                let line = String::from_utf8_lossy(&line).into_owned();
                let _ = writeln!(log, "{line}");
                // A lab that no longer listens still wants its log.
                let _ = sender.send(line);
            }
        });
        Ok(Self {
            name: name.to_owned(),
            receiver,
            seen: Vec::new(),
        })
    }

    /// The next line for which `wanted` holds; lines before it are passed over (but stay in [`Self::seen`]).
    pub(crate) fn await_line(
        &mut self,
        what: &str,
        limit: Duration,
        mut wanted: impl FnMut(&str) -> bool,
    ) -> Result<String> {
        let end = Instant::now() + limit;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            match self.receiver.recv_timeout(left) {
                Ok(line) => {
                    self.seen.push(line.clone());
                    if wanted(&line) {
                        return Ok(line);
                    }
                }
                Err(RecvTimeoutError::Timeout) => {
                    bail!("{} did not print {what} within {limit:?}", self.name)
                }
                Err(RecvTimeoutError::Disconnected) => {
                    bail!("{} ended before it printed {what}", self.name)
                }
            }
        }
    }

    /// All lines that came so far.
    pub(crate) fn seen(&mut self) -> &[String] {
        self.seen.extend(self.receiver.try_iter());
        &self.seen
    }

    /// All lines, once the writer has closed its end.
    pub(crate) fn rest(&mut self, limit: Duration) -> Result<&[String]> {
        let end = Instant::now() + limit;
        loop {
            match self
                .receiver
                .recv_timeout(end.saturating_duration_since(Instant::now()))
            {
                Ok(line) => self.seen.push(line),
                Err(RecvTimeoutError::Disconnected) => return Ok(&self.seen),
                Err(RecvTimeoutError::Timeout) => {
                    bail!("{} did not close its output within {limit:?}", self.name)
                }
            }
        }
    }
}
