//! `ringway capture`: what crosses a port, in a file or a pipe, with what became of it.

mod blocks;

use std::{
    fs::File,
    io::{self, Write},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context;
use clap::Args;
use ringway_api::{control, v1::CaptureRequest};
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    net::{UnixStream, unix::pipe},
    runtime,
    signal::unix::{SignalKind, signal},
    time::{Instant, sleep_until},
};

use crate::{Failure, ask::Daemon, usage::socket_path};
use blocks::Blocks;

/// How long a switch may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// `--seconds` at most: a year.
const LONGEST: u64 = 366 * 24 * 3600;

/// Capture what crosses a port, with what became of it
///
/// The file is pcapng, for Wireshark, tshark and tcpdump. Inbound is what the virtual machine sent, outbound what was for it; a comment
/// at each frame says whereto it went, whence it came, or why it was dropped. Frames are shown as their sender sent them, unfinished
/// checksums and large segments included. It ends with Ctrl-C, and with the port.
#[derive(Args)]
pub(crate) struct Arguments {
    /// NETWORK/PORT, or PORT if only one network has it, or a network's interface; with --control a port of the switch
    port: String,
    /// Write to FILE, or to standard output if it is -
    #[arg(long, value_name = "FILE")]
    pcap: PathBuf,
    /// End after N frames
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// End after S seconds
    #[arg(long, value_name = "S", value_parser = clap::value_parser!(u64).range(1..=LONGEST))]
    seconds: Option<u64>,
    /// Ask the switch with this control socket, in place of the daemon
    #[arg(long, value_name = "PATH", value_parser = socket_path, conflicts_with = "socket")]
    control: Option<PathBuf>,
    #[command(flatten)]
    daemon: Daemon,
}

/// Why a capture ended.
enum End {
    Asked,
    /// The port or the switch went.
    Gone,
}

pub(crate) fn run(arguments: Arguments) -> Result<(), Failure> {
    let runtime = runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.context("starting")?;
    let port = arguments.port.clone();
    let mut blocks = Blocks::default();
    let end = runtime.block_on(capture(arguments, &mut blocks))?;
    let (frames, missed) = (blocks.packets, blocks.missed);
    let s = if frames == 1 { "" } else { "s" };
    if missed == 0 {
        tracing::info!("{frames} frame{s} captured, none missed");
    } else {
        tracing::warn!(
            "{frames} frame{s} captured, {missed} missed: they came faster than they were written"
        );
    }
    match end {
        End::Asked => Ok(()),
        End::Gone => Err(anyhow::anyhow!(
            "the capture was cut off: port {port} was removed, or its switch or daemon ended"
        )
        .into()),
    }
}

async fn capture(arguments: Arguments, blocks: &mut Blocks) -> Result<End, Failure> {
    // Before the capture begins, so that it ends in order however soon somebody wants it to.
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let port = arguments.port;
    let (begin, mut source) = match arguments.control {
        Some(path) => (Vec::new(), of_switch(&path, &port)?),
        None => of_daemon(arguments.daemon, port.clone())?,
    };
    let mut out = open(&arguments.pcap)?;
    tracing::info!("capturing at {port}; Ctrl-C ends it");
    let limit = arguments.seconds.map(Duration::from_secs);
    let limit = Instant::now() + limit.unwrap_or(Duration::from_secs(LONGEST));
    let mut part = vec![0; 256 << 10];
    part[..begin.len()].copy_from_slice(&begin);
    let mut len = begin.len();
    loop {
        let whole = blocks.take(&part[..len], arguments.count)?;
        match out.write_all(&whole).and_then(|()| out.flush()) {
            // Nobody reads on, as with `| head`.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(End::Asked),
            done => done.with_context(|| format!("writing {}", arguments.pcap.display()))?,
        }
        if arguments.count.is_some_and(|count| blocks.packets >= count) {
            return Ok(End::Asked);
        }
        len = tokio::select! {
            _ = interrupt.recv() => return Ok(End::Asked),
            _ = terminate.recv() => return Ok(End::Asked),
            () = sleep_until(limit) => return Ok(End::Asked),
            read = source.read(&mut part) => match read {
                Ok(0) => return Ok(End::Gone),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(End::Gone),
                Err(error) => return Err(error.into()),
            },
        };
    }
}

type Source = Box<dyn AsyncRead + Unpin>;

fn of_switch(path: &Path, port: &str) -> Result<Source, Failure> {
    let mut switch = control::Client::connect(path, PATIENCE)?;
    let (reader, writer) = io::pipe()?;
    switch.capture(port, writer.into())?;
    Ok(Box::new(pipe::Receiver::from_owned_fd(OwnedFd::from(
        reader,
    ))?))
}

/// What came already, and whence more comes.
fn of_daemon(daemon: Daemon, port: String) -> Result<(Vec<u8>, Source), Failure> {
    let stream = daemon.client().capture(&CaptureRequest { port })?;
    stream.rest.set_nonblocking(true)?;
    Ok((stream.begin, Box::new(UnixStream::from_std(stream.rest)?)))
}

fn open(path: &Path) -> Result<Box<dyn Write>, Failure> {
    if path.as_os_str() == "-" {
        return Ok(Box::new(io::stdout()));
    }
    let file = File::create(path).with_context(|| {
        format!("{}: cannot write the capture there; give a file in a directory that exists and that you may write to", path.display())
    })?;
    Ok(Box::new(file))
}
