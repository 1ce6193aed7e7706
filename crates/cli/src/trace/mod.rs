//! `ringway trace`: each frame at a port, with what the switch decided about it and why.

mod ages;
mod decision;
mod filter;
mod frame;
mod packets;
mod ports;

use std::{
    io::{self, Write as _},
    ops::ControlFlow,
    path::PathBuf,
};

use anyhow::Context;
use clap::Args;
use tokio::runtime;

use crate::{
    Failure,
    ask::Daemon,
    capture::{LONGEST, Source, blocks::Blocks},
    print,
    usage::socket_path,
};
use filter::Filter;
use packets::Packets;
use ports::Ports;

pub(crate) use decision::{Decision, Outcome};
pub(crate) use frame::Frame;
pub(crate) use packets::Packet;

/// Show each frame at a port, and what the switch did with it and why
///
/// A line for each frame: the time of day (UTC), the port, `in` for what the virtual machine sent and `out` for what was for it, what the frame
/// is, and what became of it: the port it went to, to how many ports and why to more than one, or why it was dropped and
/// which setting of which port that is. Frames for everybody that pass a port by, because it is isolated or of another VLAN, have no line
/// there. It ends with Ctrl-C, and with the port.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// NETWORK/PORT, or PORT if only one network has it, or a network's interface; with --control a port of the switch
    port: String,
    /// Only frames that match, such as: host 10.0.0.5 and not tcp port 22
    #[arg(value_name = "FILTER", long_help = FILTER_HELP)]
    filter: Vec<String>,
    /// Only what was dropped
    #[arg(long)]
    drops: bool,
    /// End after N frames were shown
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// End after S seconds
    #[arg(long, value_name = "S", value_parser = clap::value_parser!(u64).range(1..=LONGEST))]
    seconds: Option<u64>,
    /// Print a JSON object for each frame, one a line
    #[arg(long)]
    json: bool,
    /// Ask the switch with this control socket, in place of the daemon
    #[arg(long, value_name = "PATH", value_parser = socket_path, conflicts_with = "socket", display_order = 909)]
    control: Option<PathBuf>,
    #[command(flatten)]
    daemon: Daemon,
}

const EXAMPLES: &str = "\
Examples:
  ringway trace web                          all that crosses the port web
  ringway trace lan/web --drops              what is lost there, and why
  ringway trace web out udp port 53          answers of DNS, for example
  ringway trace web --json | jq .decision    for programs";

const FILTER_HELP: &str = "\
Only frames that match:

  host ADDRESS       an IP address or a MAC, of the sender or the receiver
  port N             of TCP or UDP, of the sender or the receiver
  vlan N             the frame's tag
  proto NAME         arp, ip, ip6, tcp, udp, icmp, icmp6, dhcp or dns; `proto` may be left out
  broadcast, multicast
  in, out            what the virtual machine sent, what was for it
  and, or, not, ( )  words side by side mean `and`, which binds more than `or`";

pub(crate) fn run(arguments: Arguments) -> Result<(), Failure> {
    let filter = Filter::parse(&arguments.filter).map_err(Failure::Usage)?;
    let ports = match &arguments.control {
        Some(path) => Ports::of_switch(path)?,
        None => Ports::of_daemon(&arguments.daemon.clone().client())?,
    };
    let runtime = runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.context("starting")?;
    let port = arguments.port.clone();
    let source = Source {
        port: arguments.port,
        control: arguments.control,
        daemon: arguments.daemon,
    };
    let mut trace = Trace {
        blocks: Blocks::default(),
        packets: Packets::default(),
        shown: 0,
        wanted: arguments.count.unwrap_or(u64::MAX),
        drops: arguments.drops,
        json: arguments.json,
        filter,
        ports,
    };
    let read = source.read("tracing", arguments.seconds, |bytes| trace.take(bytes));
    let end = runtime.block_on(read)?;
    trace.sum_up();
    end.told("trace", &port)
}

/// What came so far, and what of it is shown.
struct Trace {
    blocks: Blocks,
    packets: Packets,
    shown: u64,
    wanted: u64,
    drops: bool,
    json: bool,
    filter: Filter,
    ports: Ports,
}

impl Trace {
    fn take(&mut self, bytes: &[u8]) -> Result<ControlFlow<()>, Failure> {
        let whole = self.blocks.take(bytes, None)?;
        let mut out = Vec::new();
        self.packets.read(&whole, |packet| {
            let frame = Frame::new(packet.bytes);
            let decision = Decision::new(packet.inbound, packet.comment);
            let is_wanted = (!self.drops || decision.is_drop())
                && self.filter.matches(&frame, packet.inbound)
                && self.shown < self.wanted;
            if is_wanted {
                let outcome = self.ports.explain(packet.port, &frame, decision);
                let line = if self.json {
                    print::traced_json
                } else {
                    print::traced
                };
                line(&mut out, &packet, &frame, &outcome)?;
                self.shown += 1;
            }
            Ok(())
        })?;
        let mut stdout = io::stdout().lock();
        match stdout.write_all(&out).and_then(|()| stdout.flush()) {
            // Nobody reads on, as with `| head`.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(ControlFlow::Break(())),
            Err(error) => Err(error.into()),
            Ok(()) if self.shown >= self.wanted => Ok(ControlFlow::Break(())),
            Ok(()) => Ok(ControlFlow::Continue(())),
        }
    }

    /// How much was seen, and what was not.
    fn sum_up(&self) {
        let (shown, seen, missed) = (self.shown, self.blocks.packets, self.blocks.missed);
        let s = if seen == 1 { "" } else { "s" };
        if missed == 0 {
            tracing::info!("{seen} frame{s} seen, {shown} shown, none missed");
        } else {
            tracing::warn!(
                "{seen} frame{s} seen, {shown} shown, {missed} missed: they came faster than they were read"
            );
        }
    }
}
