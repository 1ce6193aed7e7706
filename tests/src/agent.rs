//! The host's end of the guest's command agent (`guest/agent`).

use std::{
    collections::HashMap,
    io::{BufRead, BufReader, Read, Write},
    os::unix::net::UnixStream,
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{self, Receiver, RecvTimeoutError, Sender},
    },
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail};

use crate::endpoint::{Job, Output};

/// A connection to a guest's agent.
#[derive(Debug)]
pub(crate) struct Agent {
    name: String,
    stream: UnixStream,
    requests: Arc<Mutex<Requests>>,
    ready: Receiver<()>,
}

/// The requests of a guest, over however many connections: one that migrates has two for a while.
#[derive(Debug, Default)]
struct Requests {
    last: u64,
    waiting: HashMap<u64, Sender<Output>>,
    /// Without any the guest is gone.
    connections: usize,
}

impl Agent {
    pub(crate) fn new(name: &str, stream: UnixStream) -> Result<Self> {
        Self::connected(name, stream, Arc::default())
    }

    /// The agent at the place that its guest will migrate to: what it was asked before is answered there.
    pub(crate) fn moving(&self, name: &str, stream: UnixStream) -> Result<Self> {
        Self::connected(name, stream, Arc::clone(&self.requests))
    }

    fn connected(name: &str, stream: UnixStream, requests: Arc<Mutex<Requests>>) -> Result<Self> {
        let (is_ready, ready) = mpsc::channel();
        let reader = BufReader::new(stream.try_clone()?);
        let shared = Arc::clone(&requests);
        lock(&requests).connections += 1;
        thread::spawn(move || {
            // At the last stream's end, or at a reply that is none, the senders are dropped: whoever waits learns at once.
            let _ = receive(reader, &is_ready, &shared);
            let mut requests = lock(&shared);
            requests.connections -= 1;
            if requests.connections == 0 {
                requests.waiting.clear();
            }
        });
        Ok(Self {
            name: name.to_owned(),
            stream,
            requests,
            ready,
        })
    }

    /// Waits until the guest has booted.
    pub(crate) fn await_ready(&self, limit: Duration) -> Result<()> {
        match self.ready.recv_timeout(limit) {
            Ok(()) => Ok(()),
            Err(RecvTimeoutError::Timeout) => bail!("did not boot within {limit:?}"),
            Err(RecvTimeoutError::Disconnected) => bail!("ended while booting"),
        }
    }

    /// Starts a command line.
    pub(crate) fn start(&mut self, line: &str) -> Result<Job> {
        if line.contains('\n') {
            bail!("the guest's agent takes one line at a time: {line:?}");
        }
        let (sender, receiver) = mpsc::channel();
        let mut requests = lock(&self.requests);
        if requests.connections == 0 {
            bail!("guest {} is gone; not run: {line}", self.name);
        }
        requests.last += 1;
        let id = requests.last;
        requests.waiting.insert(id, sender);
        drop(requests);
        writeln!(self.stream, "{id} {line}")
            .with_context(|| format!("guest {}: cannot send {line:?}", self.name))?;
        let place = format!("guest {}", self.name);
        Ok(Job::new(&place, line, receiver))
    }
}

fn lock(requests: &Mutex<Requests>) -> std::sync::MutexGuard<'_, Requests> {
    requests.lock().unwrap_or_else(PoisonError::into_inner)
}

fn receive(
    mut reader: BufReader<UnixStream>,
    ready: &Sender<()>,
    requests: &Mutex<Requests>,
) -> Result<()> {
    let mut line = String::new();
    loop {
        line.clear();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        if line.trim_end() == "ready" {
            let _ = ready.send(());
            continue;
        }
        let mut words = line.split_whitespace();
        let mut word = || words.next().context("short reply");
        let id: u64 = word()?.parse()?;
        let status: i32 = word()?.parse()?;
        let lengths: [usize; 2] = [word()?.parse()?, word()?.parse()?];
        let [stdout, stderr] = lengths.map(|length| vec![0; length]);
        let [mut stdout, mut stderr] = [stdout, stderr];
        reader.read_exact(&mut stdout)?;
        reader.read_exact(&mut stderr)?;
        let sender = lock(requests).waiting.remove(&id);
        if let Some(sender) = sender {
            let _ = sender.send(Output {
                status,
                stdout: String::from_utf8_lossy(&stdout).into_owned(),
                stderr: String::from_utf8_lossy(&stderr).into_owned(),
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);

    #[test]
    fn replies_find_their_requests_in_any_order() {
        let (host, mut guest) = UnixStream::pair().unwrap();
        let mut agent = Agent::new("g", host).unwrap();
        guest.write_all(b"ready\n").unwrap();
        agent.await_ready(LIMIT).unwrap();
        let first = agent.start("one").unwrap();
        let second = agent.start("two").unwrap();
        guest.write_all(b"2 0 3 0\ntwo1 4 0 2\nno").unwrap();
        assert_eq!(second.success(LIMIT).unwrap(), "two");
        let error = first.success(LIMIT).unwrap_err().to_string();
        assert!(error.contains("status 4 from: one\nno"), "{error}");
    }

    #[test]
    fn a_guest_that_moves_answers_at_its_new_place() {
        let (old, old_guest) = UnixStream::pair().unwrap();
        let (new, mut guest) = UnixStream::pair().unwrap();
        let mut agent = Agent::new("g", old).unwrap();
        let before = agent.start("one").unwrap();
        let mut moved = agent.moving("h", new).unwrap();
        let after = moved.start("two").unwrap();
        drop((agent, old_guest));
        guest.write_all(b"1 0 3 0\none2 0 3 0\ntwo").unwrap();
        assert_eq!(before.success(LIMIT).unwrap(), "one");
        assert_eq!(after.success(LIMIT).unwrap(), "two");
    }

    #[test]
    fn a_guest_that_ends_fails_what_runs_and_what_comes() {
        let (host, guest) = UnixStream::pair().unwrap();
        let mut agent = Agent::new("g", host).unwrap();
        let job = agent.start("one").unwrap();
        drop(guest);
        assert!(job.wait(LIMIT).is_err());
        assert!(agent.start("two").is_err());
        assert!(agent.start("two\nlines").is_err());
    }
}
