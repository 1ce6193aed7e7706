//! A vhost-user NIC that shows what the guest sends.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::SystemTime;

use ringway_api::port_spec::{Mode, PortKind, PortSpec, VhostUser};
use ringway_port::capture::{Capture, Reader};
use ringway_port::pcapng;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

use crate::control::attached::Attached;
use crate::{AttachError, Config, RunError, Sandbox, StartError, Switch};

/// What to listen to.
#[derive(Clone, Debug)]
pub struct DumpConfig {
    /// The socket.
    pub path: PathBuf,
    /// Write the frames there as well.
    pub pcap: Option<PathBuf>,
    /// End after so many frames.
    pub count: Option<u64>,
    /// Give up all rights once socket and file are open.
    pub sandbox: Sandbox,
}

/// Why a dump ended other than by request.
#[derive(Debug, thiserror::Error)]
pub enum DumpError {
    /// It did not begin.
    #[error(transparent)]
    Start(#[from] StartError),
    /// It was cut off.
    #[error(transparent)]
    Run(#[from] RunError),
    /// The capture file or the output failed.
    #[error("writing failed")]
    Write(#[from] io::Error),
}

/// Shows a frame on the output; may end the dump.
pub type Show<'a> = dyn FnMut(SystemTime, &[u8], &mut dyn Write) -> ControlFlow<()> + 'a;

/// A NIC that listens.
pub struct Dump {
    switch: Switch,
    reader: Reader,
    writer: Option<pcapng::Writer<BufWriter<File>>>,
    count: Option<u64>,
}

impl Dump {
    /// Makes the socket and the file. The process's SIGTERM and SIGINT belong to the dump from here
    /// on.
    pub fn start(config: &DumpConfig) -> Result<Self, DumpError> {
        let spec = PortSpec::new(PortKind::VhostUser(VhostUser {
            path: config.path.clone(),
            mode: Mode::Server,
            queues: 1,
            group: None,
            permissions: VhostUser::PERMISSIONS,
        }));
        let config_of_switch = Config {
            ports: vec![spec.into()],
            workers: 1,
            sandbox: config.sandbox,
            ..Config::default()
        };
        let (mut switch, crew) = Switch::open(config_of_switch, true)?;
        // After the socket: a dump that cannot begin shall not empty the file of another one.
        let file = config.pcap.as_ref().map(|path| {
            File::create(path).map_err(|error| {
                let path = path.clone();
                StartError::from(AttachError::File { path, error })
            })
        });
        let file = file.transpose()?;
        switch.begin(crew)?;
        let (reader, names) = capture(&mut switch)?;
        let writer = file.map(|file| pcapng::Writer::new(BufWriter::new(file), names));
        let writer = writer.transpose()?;
        Ok(Self {
            switch,
            reader,
            writer,
            count: config.count,
        })
    }

    /// Hands every frame the guest sends to `show`, until the count is reached, `show` breaks or a
    /// signal comes. Prints `ready` on `out` first.
    pub fn run(self, out: &mut dyn Write, show: &mut Show<'_>) -> Result<(), DumpError> {
        let Self {
            mut switch,
            mut reader,
            mut writer,
            count,
        } = self;
        writeln!(out, "ready")?;
        out.flush()?;
        let ender = switch.ender();
        let mut frames = || -> io::Result<()> {
            let mut shown = 0;
            while !reader.has_ended() {
                match poll(&mut [PollFd::new(&reader.bell(), PollFlags::IN)], None) {
                    // The signal that ends the dump may come to this thread; the reader's end
                    // follows.
                    Ok(_) | Err(Errno::INTR) => {}
                    Err(error) => return Err(error.into()),
                }
                reader.silence();
                while let Some(record) = reader.take() {
                    if let Some(writer) = &mut writer {
                        writer.write(&record)?;
                        writer.flush()?;
                    }
                    shown += 1;
                    let flow = show(record.time, &record.frame, out);
                    if flow.is_break() || count.is_some_and(|count| shown >= count) {
                        return Ok(());
                    }
                }
                out.flush()?;
            }
            Ok(())
        };
        let (served, read) = std::thread::scope(|scope| {
            let serving = scope.spawn(move || {
                let served = switch.control.run(&switch.signals, &mut io::sink());
                drop(switch);
                served
            });
            let read = frames();
            ender.end();
            (serving.join().unwrap_or(Ok(())), read)
        });
        read?;
        served?;
        Ok(out.flush()?)
    }
}

fn capture(
    switch: &mut Switch,
) -> Result<(Reader, ringway_port::capture::SourceNames), StartError> {
    let spec = PortSpec {
        name: Some("dump".into()),
        ..PortSpec::new(PortKind::Sink)
    };
    let identity = switch.control.identity(&spec)?;
    let counters = std::sync::Arc::new(ringway_port::Counters::new(1));
    let (capture, reader) = Capture::new(counters).map_err(StartError::system)?;
    switch
        .control
        .install(Attached::capture(identity, spec, capture));
    Ok((reader, switch.control.names().clone()))
}
