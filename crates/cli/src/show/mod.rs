//! `ringway show`: the ways of frames, drawn.

#[cfg(test)]
mod example;
mod join;
mod path;
mod svg;
mod text;
mod world;

use std::{
    env,
    io::{self, IsTerminal},
    path::PathBuf,
    time::Duration,
};

use anyhow::anyhow;
use clap::Args;
use ringway_api::v1::client;

use self::{join::Wanted, path::Map, text::Look, world::World};
use crate::{
    Failure,
    ask::{Daemon, Form},
    live::{Whom, interval},
    print,
    usage::socket_path,
};

/// Draw the way of a machine's frames: guest, device, data plane, switch or bridge, way out; with rates and drops
///
/// Without a machine: all of them, and the ports that belong to none. Whoever started a machine, it is found by its QEMU. Run it as
/// root to see into processes of others.
#[derive(Args)]
pub(crate) struct Arguments {
    /// The machine: one of `ringway vm list`, or what a QEMU was called with -name
    #[arg(conflicts_with = "pid")]
    vm: Option<String>,
    /// The QEMU with this process
    #[arg(long, value_name = "PID", value_parser = clap::value_parser!(i32).range(1..))]
    pid: Option<i32>,
    /// Seconds over which rates are taken, 0.1 to 3600
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = interval)]
    interval: Duration,
    /// Write a picture to FILE, or to standard output
    #[arg(long, value_name = "FILE", num_args = 0..=1, default_missing_value = "-", conflicts_with = "json")]
    svg: Option<PathBuf>,
    /// Draw with plain letters
    #[arg(long)]
    ascii: bool,
    /// Ask the switch with this control socket, in place of the daemon
    #[arg(long, value_name = "PATH", value_parser = socket_path, conflicts_with = "socket")]
    control: Option<PathBuf>,
    /// Directory of machines that run [default: /run/ringway, or $XDG_RUNTIME_DIR/ringway for others than root]
    #[arg(long, value_name = "DIR")]
    run: Option<PathBuf>,
    #[command(flatten)]
    daemon: Daemon,
    #[command(flatten)]
    form: Form,
}

pub(crate) fn run(arguments: Arguments) -> Result<(), Failure> {
    let whom = match arguments.control {
        Some(path) => Whom::Switch(path),
        None => Whom::Daemon(arguments.daemon.client()),
    };
    let wanted = match (arguments.vm, arguments.pid) {
        (Some(name), _) => Wanted::Name(name),
        (None, Some(pid)) => Wanted::Process(pid),
        (None, None) => Wanted::All,
    };
    let run = arguments.run.unwrap_or_else(client::run_directory);
    let world = World::look(&whom, run, arguments.interval);
    let map = join::map(&world, &wanted);
    if map.paths.is_empty() {
        return Err(nothing(&world, &wanted));
    }
    if let Some(trouble) = &map.trouble {
        print::warning(trouble);
    }
    match arguments.svg {
        None => print::answer(arguments.form.json, &map, |map: &Map| {
            text::text(map, look(arguments.ascii))
        }),
        Some(path) if path.as_os_str() == "-" => print::out(&svg::svg(&map)),
        Some(path) => std::fs::write(&path, svg::svg(&map))
            .map_err(|error| anyhow!("{}: {error}", path.display()).into()),
    }
}

fn nothing(world: &World, wanted: &Wanted) -> Failure {
    let runs = |pid: i32| world.facts.machines.iter().any(|m| m.pid == Some(pid));
    let named = |name: &str| {
        world.names.values().any(|it| it == name)
            || world.facts.machines.iter().any(|m| m.name == name)
    };
    Failure::Failed(match wanted {
        Wanted::Name(name) if named(name) => anyhow!("{name} has no NIC"),
        Wanted::Name(name) => anyhow!(
            "no QEMU runs with the name {name}: `ringway vm list` shows machines of ours, --pid takes any process"
        ),
        Wanted::Process(pid) if runs(*pid) => anyhow!("process {pid} has no NIC"),
        Wanted::Process(pid) => anyhow!(
            "process {pid} is no QEMU: `ringway vm list` shows machines of ours, `pgrep -a qemu` all"
        ),
        Wanted::All => match &world.rates.trouble {
            Some(trouble) => anyhow!("{trouble}"),
            None => anyhow!("there is nothing to draw: no machine runs, and no port was made"),
        },
    })
}

fn look(ascii: bool) -> Look {
    Look {
        width: columns(),
        ascii: ascii || !print::unicode(),
        colours: print::colours(),
    }
}

/// Of the terminal, or what somebody asked for.
fn columns() -> usize {
    let terminal = io::stdout().is_terminal().then(|| {
        let size = rustix::termios::tcgetwinsize(io::stdout()).ok()?;
        Some(usize::from(size.ws_col)).filter(|columns| *columns > 0)
    });
    let asked = || env::var("COLUMNS").ok()?.parse().ok();
    terminal.flatten().or_else(asked).unwrap_or(80)
}
