//! `ringway capture`: what crosses a port, in a file or a pipe, with what became of it.

pub(crate) mod blocks;

use std::{
    fs::File,
    io::{self, Write},
    ops::ControlFlow,
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
pub(crate) const LONGEST: u64 = 366 * 24 * 3600;

/// Capture what crosses a port, with what became of it
///
/// The file is pcapng, for Wireshark, tshark and tcpdump. Inbound is what the virtual machine sent, outbound what was for it; a comment
/// at each frame says whereto it went, whence it came, or why it was dropped. Frames are shown as their sender sent them, unfinished
/// checksums and large segments included. It ends with Ctrl-C, and with the port.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
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
    #[arg(long, value_name = "PATH", value_parser = socket_path, conflicts_with = "socket", display_order = 909)]
    control: Option<PathBuf>,
    #[command(flatten)]
    daemon: Daemon,
}

const EXAMPLES: &str = "\
Examples:
  ringway capture web --pcap web.pcapng --seconds 10
  ringway capture lan/web --pcap - | tcpdump -n -r -";

/// Why a capture ended.
pub(crate) enum End {
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
    end.told("capture", &port)
}

impl End {
    /// Whoever asked for no end is told.
    pub(crate) fn told(self, what: &str, port: &str) -> Result<(), Failure> {
        match self {
            Self::Asked => Ok(()),
            Self::Gone => Err(anyhow::anyhow!(
                "the {what} was cut off: port {port} was removed, or its switch or daemon ended"
            )
            .into()),
        }
    }
}

async fn capture(arguments: Arguments, blocks: &mut Blocks) -> Result<End, Failure> {
    let mut file = None;
    let source = Source {
        port: arguments.port,
        control: arguments.control,
        daemon: arguments.daemon,
    };
    source
        .read("capturing", arguments.seconds, |bytes| {
            let whole = blocks.take(bytes, arguments.count)?;
            // Not before the capture has begun: a port that does not exist costs no earlier file.
            let out = match &mut file {
                Some(out) => out,
                None => file.insert(open(&arguments.pcap)?),
            };
            match out.write_all(&whole).and_then(|()| out.flush()) {
                // Nobody reads on, as with `| head`.
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                    return Ok(ControlFlow::Break(()));
                }
                done => done.with_context(|| format!("writing {}", arguments.pcap.display()))?,
            }
            let count = arguments.count;
            Ok(match count.is_some_and(|count| blocks.packets >= count) {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            })
        })
        .await
}

/// What a capture comes from.
pub(crate) struct Source {
    pub(crate) port: String,
    /// The switch's control socket, in place of the daemon.
    pub(crate) control: Option<PathBuf>,
    pub(crate) daemon: Daemon,
}

impl Source {
    /// Has `take` see all that comes until it breaks off, time is over, somebody interrupts, or no more can come.
    pub(crate) async fn read(
        self,
        doing: &str,
        seconds: Option<u64>,
        mut take: impl FnMut(&[u8]) -> Result<ControlFlow<()>, Failure>,
    ) -> Result<End, Failure> {
        // Before the capture begins, so that it ends in order however soon somebody wants it to.
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let port = self.port;
        let (begin, mut source) = match self.control {
            Some(path) => (Vec::new(), of_switch(&path, &port)?),
            None => of_daemon(self.daemon, port.clone())?,
        };
        tracing::info!("{doing} at {port}; Ctrl-C ends it");
        let limit = seconds.map(Duration::from_secs);
        let limit = Instant::now() + limit.unwrap_or(Duration::from_secs(LONGEST));
        let mut part = vec![0; 256 << 10];
        part[..begin.len()].copy_from_slice(&begin);
        let mut len = begin.len();
        loop {
            if take(&part[..len])?.is_break() {
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
}

type Pipe = Box<dyn AsyncRead + Unpin>;

fn of_switch(path: &Path, port: &str) -> Result<Pipe, Failure> {
    let mut switch = control::Client::connect(path, PATIENCE)?;
    let (reader, writer) = io::pipe()?;
    switch.capture(port, writer.into())?;
    Ok(Box::new(pipe::Receiver::from_owned_fd(OwnedFd::from(
        reader,
    ))?))
}

/// What came already, and whence more comes.
fn of_daemon(daemon: Daemon, port: String) -> Result<(Vec<u8>, Pipe), Failure> {
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
