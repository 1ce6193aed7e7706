//! `ringway dump`: a vhost-user NIC that prints what the guest sends.

use std::{io, ops::ControlFlow, path::PathBuf};

use clap::Args;
use ringway_api::{
    PortSpec,
    port_spec::{Mode, PortKind, VhostUser},
};
use ringway_switch::dump::{Dump, DumpConfig, DumpError};

use crate::{Failure, print, sandbox::Sandboxed, usage::socket_path};

/// Be a vhost-user NIC at PATH and print what the guest sends, like `tcpdump -xx`
///
/// Prints `ready` when the socket listens and ends with Ctrl-C or after N frames.
#[derive(Args)]
pub(crate) struct Arguments {
    /// The socket that the virtual machine connects to
    #[arg(value_name = "PATH", value_parser = socket_path)]
    path: PathBuf,
    /// Write the frames to FILE as well, to be opened in tcpdump or Wireshark
    #[arg(long, value_name = "FILE")]
    pcap: Option<PathBuf>,
    /// End after N frames
    #[arg(long, value_name = "N", value_parser = count)]
    count: Option<u64>,
    #[command(flatten)]
    sandbox: Sandboxed,
}

pub(crate) fn run(arguments: Arguments) -> Result<(), Failure> {
    let config = DumpConfig {
        path: arguments.path,
        pcap: arguments.pcap,
        count: arguments.count,
        sandbox: arguments.sandbox.decide(),
    };
    let port = PortSpec::new(PortKind::VhostUser(VhostUser {
        path: config.path.clone(),
        mode: Mode::Server,
        queues: 1,
        group: None,
        permissions: VhostUser::PERMISSIONS,
    }));
    let dump = Dump::start(&config)?;
    if let Some(options) = print::qemu_options(0, &port) {
        tracing::info!("connect a virtual machine with: qemu-system-x86_64 {options}");
    }
    let mut out = io::stdout();
    let mut gone = false;
    let ended = dump.run(
        &mut out,
        &mut |time, frame, out| match print::frame(out, time, frame).and_then(|()| out.flush()) {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => {
                gone = true;
                ControlFlow::Break(())
            }
        },
    );
    match ended {
        // Nobody reads on, as with `| head`: the dump is complete for whoever asked.
        Ok(()) => Ok(()),
        Err(DumpError::Write(error)) if gone || error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn count(text: &str) -> Result<u64, String> {
    match text.parse() {
        Ok(count) if count > 0 => Ok(count),
        _ => Err("give a number of frames from 1".into()),
    }
}
