//! `ringway switch`: a learning switch in the foreground.

use std::{io, path::PathBuf, time::Duration};

use clap::{Args, ValueEnum};
use ringway_api::{
    PortSpec,
    control::Passed,
    port_spec::{PortKind, VhostNet},
};
use ringway_switch::{Config, NewPort, Poll, Switch};

use crate::{Failure, print, sandbox::Sandboxed, usage::socket_path};

/// Carry frames between ports until SIGTERM or Ctrl-C
///
/// Prints `ready` when every socket listens; SIGUSR1 prints statistics as one JSON line.
#[derive(Args)]
pub(crate) struct Arguments {
    /// A port; may be given many times
    #[arg(long = "port", value_name = "KIND[,key=value]...", required_unless_present_any = ["control", "takeover"], long_help = PORT_HELP)]
    ports: Vec<PortSpec>,
    /// Threads that carry frames [default: one per two CPUs]
    #[arg(long, value_name = "N", value_parser = workers)]
    workers: Option<usize>,
    /// CPUs the threads are bound to, in turn, such as 1,3 or 2-5
    #[arg(long, value_name = "LIST", value_parser = cpus)]
    cpus: Option<Cpus>,
    /// How the threads wait for frames
    #[arg(long, value_enum, value_name = "HOW", default_value_t = PollArgument::Adaptive)]
    poll: PollArgument,
    /// Print statistics this often, in seconds
    #[arg(long, value_name = "S", value_parser = interval)]
    stats_interval: Option<Duration>,
    /// Accept control connections on a unix socket at PATH
    #[arg(long, value_name = "PATH", value_parser = socket_path)]
    control: Option<PathBuf>,
    #[command(flatten)]
    sandbox: Sandboxed,
    /// Take over from the running switch whose control socket is CONTROL, while frames cross
    #[arg(long, value_name = "CONTROL", value_parser = socket_path, conflicts_with = "ports", long_help = TAKEOVER_HELP)]
    takeover: Option<PathBuf>,
}

const TAKEOVER_HELP: &str = "\
Take over from the running switch whose control socket is CONTROL, while frames cross.

From it come its ports with all their settings, sockets, front-ends, taps and captures, learned addresses, counters, and the \
control socket itself unless --control names another. --workers, --cpus, --poll and --stats-interval are those given here. \
Front-ends notice nothing. The switch before exits with 0 when this one serves; if this one cannot, it goes on.";

const PORT_HELP: &str = "\
A port; may be given many times.

Kinds:
  vhost-user,path=P[,mode=server|client][,queues=N][,group=G][,perm=0660]
                               a virtual machine's NIC
  tap,name=T[,queues=N][,vhost=auto|on|off]
                               a tap of the host that exists already; the kernel's vhost-net
                               moves its frames where the host has it
  pcap,path=F                  a file that gets every frame
  sink                         takes every frame and forgets it
  generator[,destination=M][,source=M][,size=B][,pps=N][,count=N]
                               sends equal frames

Every kind takes:
  name=N                       what it is called
  vlan=V | trunk=V+V-V..       untagged frames of one VLAN, or tagged ones of several
  isolated                     nothing to or from other isolated ports
  mac=M                        the only source accepted, and from no other port
  rate=R[,burst=B]             bits per second each way (k, M, G), bytes at once (k, M)
  storm=N|off                  broadcast, multicast and unknown frames per second (k, M);
                               10k for virtual machines, off for the others
  macs=N                       addresses learned behind it at most
  offload=off|csum|all         what the other side is offered

A comma inside a value is written twice.";

#[derive(Clone, Copy, ValueEnum)]
enum PollArgument {
    /// Poll for a short time after work, then sleep
    Adaptive,
    /// Never sleep: one whole CPU per thread
    Always,
    /// Sleep as soon as nothing is there
    Never,
}

pub(crate) fn run(arguments: Arguments) -> Result<(), Failure> {
    let ports = arguments.ports.into_iter().map(opened);
    let ports = ports.collect::<Result<Vec<_>, _>>()?;
    let lines = qemu_lines(&ports);
    let switch = Switch::start(Config {
        ports,
        workers: arguments.workers.unwrap_or(0),
        cpus: arguments.cpus.unwrap_or_default().0,
        poll: match arguments.poll {
            PollArgument::Adaptive => Poll::Adaptive,
            PollArgument::Always => Poll::Always,
            PollArgument::Never => Poll::Never,
        },
        stats_interval: arguments.stats_interval,
        control: arguments.control,
        sandbox: arguments.sandbox.decide(),
        takeover: arguments.takeover,
    })?;
    for line in lines {
        tracing::info!("{line}");
    }
    Ok(switch.run(&mut io::stdout())?)
}

/// The switch has no right to taps: it gets them open.
fn opened(spec: PortSpec) -> Result<NewPort, Failure> {
    let PortKind::Tap {
        name,
        queues,
        vhost,
    } = &spec.kind
    else {
        return Ok(spec.into());
    };
    let tap = ringway_host::tap::open(name.as_str(), *queues)?;
    let devices = match (vhost, ringway_host::vhost_net::open(*queues)) {
        (VhostNet::Off, _) => Vec::new(),
        (_, Ok(devices)) => devices,
        (VhostNet::On, Err(error)) => return Err(error.into()),
        (VhostNet::Auto, Err(error)) => {
            tracing::debug!("tap {name} does without vhost-net: {error}");
            Vec::new()
        }
    };
    if let Err(error) = ringway_host::tap::check_up(name.as_str()) {
        tracing::warn!("{error}");
    }
    Ok(NewPort {
        spec,
        passed: match devices.is_empty() {
            true => Passed::TapQueues,
            false => Passed::VhostNet,
        },
        fds: tap.queues.into_iter().chain(devices).collect(),
    })
}

fn qemu_lines(ports: &[NewPort]) -> Vec<String> {
    let lines = ports.iter().enumerate().filter_map(|(index, port)| {
        let options = print::qemu_options(index, &port.spec)?;
        Some(format!(
            "port {}: qemu-system-x86_64 {options}",
            port.spec.default_name()
        ))
    });
    lines.collect()
}

fn workers(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(count) if (1..=ringway_switch::MAX_WORKERS).contains(&count) => Ok(count),
        _ => Err(format!(
            "give a number from 1 to {}",
            ringway_switch::MAX_WORKERS
        )),
    }
}

fn interval(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().ok().filter(|seconds: &f64| *seconds >= 0.001);
    let interval = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    interval.ok_or_else(|| "give seconds, such as 1 or 0.5".into())
}

/// CPU numbers in the order given.
#[derive(Clone, Default)]
struct Cpus(Vec<usize>);

/// Beyond the largest machine Linux runs on.
const MAX_CPU: usize = 8192;

fn cpus(text: &str) -> Result<Cpus, String> {
    let mut cpus = Vec::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        match (first.trim().parse::<usize>(), last.trim().parse()) {
            (Ok(first), Ok(last)) if first <= last && last < MAX_CPU => cpus.extend(first..=last),
            _ => {
                return Err(format!(
                    "`{part}` is no CPU or range of CPUs; give such as 1,3 or 2-5"
                ));
            }
        }
    }
    Ok(Cpus(cpus))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_lists_keep_their_order() {
        assert_eq!(cpus("5,1-3, 7").unwrap().0, [5, 1, 2, 3, 7]);
    }

    #[test]
    fn cpu_lists_that_mean_nothing_are_refused() {
        for text in ["", "a", "1-", "-1", "3-1", "1,,2", "0-99999999999", "8192"] {
            assert!(cpus(text).is_err(), "{text}");
        }
    }

    #[test]
    fn intervals_are_positive_and_finite() {
        assert_eq!(interval("0.5"), Ok(Duration::from_millis(500)));
        for text in ["0", "-1", "nan", "inf", "1e300", "x", ""] {
            assert!(interval(text).is_err(), "{text}");
        }
    }

    #[test]
    fn workers_are_counted_from_one() {
        assert_eq!(workers("2"), Ok(2));
        for text in ["0", "-1", "65", "x"] {
            assert!(workers(text).is_err(), "{text}");
        }
    }
}
