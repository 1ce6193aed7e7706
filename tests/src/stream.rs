//! A TCP stream whose every byte is checked: the key makes it, SHA-256 judges it.

use std::{
    fmt,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use crate::{Endpoint, guest::Job, process::output};

/// Bytes per block of [`Stream::blocks`].
pub const BLOCK: u64 = 1 << 20;
const PORT: u16 = 5100;

/// A stream to be sent.
#[derive(Debug, Clone, Copy)]
pub struct Stream {
    /// Length in MiB.
    pub blocks: u64,
    /// Which stream: equal keys make equal bytes.
    pub key: u8,
}

/// A stream on its way.
#[derive(Debug)]
pub struct Sending {
    stream: Stream,
    begun: Instant,
    sender: Job,
    receiver: Job,
}

/// What arrived, in how much time.
#[derive(Debug, Clone, Copy)]
pub struct Arrived {
    /// Bytes, all of them the right ones.
    pub bytes: u64,
    /// From the start of the receiver to its end.
    pub time: Duration,
}

impl fmt::Display for Arrived {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.time.as_secs_f64();
        write!(
            f,
            "{} MiB with equal SHA-256 in {seconds:.1} s ({:.0} Mbit/s, limited by hashing)",
            self.bytes / BLOCK,
            self.bytes as f64 * 8e-6 / seconds
        )
    }
}

impl Stream {
    /// Sends it from one end to the other, which has `address`, and compares the hashes at both ends.
    pub fn send(self, from: &dyn Endpoint, to: &dyn Endpoint, address: &str) -> Result<Arrived> {
        self.start(from, to, address)?.finish()
    }

    /// Begins to send it.
    pub fn start(self, from: &dyn Endpoint, to: &dyn Endpoint, address: &str) -> Result<Sending> {
        let begun = Instant::now();
        let receiver = to.start(&format!(
            "socat -u -b 262144 TCP-LISTEN:{PORT},reuseaddr - | openssl dgst -sha256 -r"
        ))?;
        let sender = from.start(&format!(
            "{} | socat -u -b 262144 - TCP:{address}:{PORT},retry=100,interval=0.1",
            self.source()
        ))?;
        Ok(Sending {
            stream: self,
            begun,
            sender,
            receiver,
        })
    }

    /// Its SHA-256.
    pub fn hash(self) -> Result<String> {
        let line = format!("{} | openssl dgst -sha256 -r", self.source());
        hash(&output(Command::new("sh").args(["-c", &line]))?)
    }

    /// The command that prints the stream: AES in counter mode never repeats itself, and every machine here has it.
    pub fn source(self) -> String {
        format!(
            "dd if=/dev/zero bs={BLOCK} count={} 2>/dev/null | \
             openssl enc -aes-128-ctr -bufsize 262144 -K {:032x} -iv 00000000000000000000000000000000",
            self.blocks, self.key
        )
    }
}

impl Sending {
    /// Waits until everything is there, and compares the hashes at both ends.
    pub fn finish(self) -> Result<Arrived> {
        let Self {
            stream,
            begun,
            sender,
            receiver,
        } = self;
        let limit = Duration::from_secs(60 + stream.blocks);
        sender.success(limit)?;
        let arrived = hash(&receiver_output(receiver, limit)?)?;
        let time = begun.elapsed();
        let sent = stream.hash()?;
        if arrived != sent {
            bail!("sent {sent}, arrived {arrived}");
        }
        Ok(Arrived {
            bytes: stream.blocks * BLOCK,
            time,
        })
    }
}

fn receiver_output(receiver: Job, limit: Duration) -> Result<String> {
    receiver.success(limit).context("the receiver")
}

/// The hash in `HASH *stdin`.
pub(crate) fn hash(text: &str) -> Result<String> {
    match text.split_whitespace().next() {
        Some(hash) if hash.len() == 64 => Ok(hash.to_owned()),
        _ => bail!("no hash: {text}"),
    }
}
