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
};

use anyhow::anyhow;
use clap::Args;

use self::{join::Wanted, path::Map, text::Look, world::World};
use crate::{Failure, ask::Form, live::Target, print};

/// Draw the way of a machine's frames: guest, device, data plane, switch or bridge, way out; with rates and drops
///
/// Without a machine: all of them, and the ports that belong to none. Whoever started a machine, it is found by its QEMU. Run it as
/// root to see into processes of others.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// The machine: one of `ringway vm list`, or what a QEMU was called with -name
    #[arg(conflicts_with = "pid")]
    vm: Option<String>,
    // What follows the machine's name by mistake, `--svg FILE` for example.
    #[arg(hide = true)]
    more: Option<String>,
    /// The QEMU with this process
    #[arg(long, value_name = "PID", value_parser = clap::value_parser!(i32).range(1..))]
    pid: Option<i32>,
    /// Write a picture to standard output, or to FILE
    // With a space `--svg web` could mean the machine as well as the file.
    #[arg(long, value_name = "FILE", num_args = 0..=1, require_equals = true, default_missing_value = "-", conflicts_with = "json")]
    svg: Option<PathBuf>,
    /// Draw with plain letters
    #[arg(long)]
    ascii: bool,
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    form: Form,
}

const EXAMPLES: &str = "\
Examples:
  ringway show                  all machines, and ports without one
  ringway show web              the machine web
  ringway show web --svg=web.svg
  ringway show --json | jq '.paths[].arrows[].drops'";

pub(crate) fn run(arguments: Arguments) -> Result<(), Failure> {
    if let Some(more) = &arguments.more {
        let told = match &arguments.svg {
            Some(_) => format!("for a file write --svg={more}"),
            None => "one machine at a time is drawn, or all without a name".into(),
        };
        return Err(Failure::Usage(format!(
            "{more} is one word too many: {told}"
        )));
    }
    let interval = arguments.target.interval;
    let (whom, run) = arguments.target.found();
    let wanted = match (arguments.vm, arguments.pid) {
        (Some(name), _) => Wanted::Name(name),
        (None, Some(pid)) => Wanted::Process(pid),
        (None, None) => Wanted::All,
    };
    let world = World::look(&whom, run, interval);
    let map = join::map(&world, &wanted);
    if map.paths.is_empty() {
        return Err(match (&wanted, &arguments.svg) {
            (Wanted::Name(file), Some(_)) if file.ends_with(".svg") => Failure::Usage(format!(
                "{file} is the name of no machine: for a file write --svg={file}"
            )),
            _ => nothing(&world, &wanted),
        });
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
