//! `ringway top`: ports, queues, rates, drops and the threads that carry them, live.

#[cfg(test)]
mod example;
mod grid;
mod run;
mod screen;
mod state;

use std::{
    io::{self, IsTerminal},
    path::PathBuf,
    thread,
    time::Duration,
};

use clap::Args;
use ringway_api::v1::client;

use self::{grid::Order, screen::Surroundings, state::State};
use crate::{
    Failure,
    ask::{Daemon, Form},
    live::{Rates, Source, Whom, interval},
    print,
    usage::socket_path,
};

/// Watch ports, queues and drops, and the threads that carry frames, live
///
/// Asks the daemon, or a switch alone with --control. Threads are those of the switch, of every QEMU that runs here, and of the
/// kernel's vhost. Into a pipe one sample is printed, as with --once.
#[derive(Args)]
pub(crate) struct Arguments {
    /// Seconds between two looks, 0.1 to 3600
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = interval)]
    interval: Duration,
    /// Print what happened in one interval, and end
    #[arg(long)]
    once: bool,
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
    let run = arguments.run.unwrap_or_else(client::run_directory);
    let mut source = Source::new(whom, run);
    if arguments.form.json || arguments.once || !io::stdout().is_terminal() {
        let rates = once(&mut source, arguments.interval)?;
        return print::answer(arguments.form.json, &rates, text);
    }
    let around = Surroundings {
        title: source.title(),
        interval: arguments.interval.as_secs_f64(),
        colours: print::colours(),
    };
    run::run(source, arguments.interval, &around)
}

/// What happens in one interval from now on. Without a switch it is the threads alone, and if there are none, nothing.
fn once(source: &mut Source, interval: Duration) -> Result<Rates, Failure> {
    let before = source.sample();
    if let Some(trouble) = &before.trouble {
        if before.threads.is_empty() {
            return Err(Failure::Failed(anyhow::anyhow!("{trouble}")));
        }
        print::warning(trouble);
    }
    thread::sleep(interval);
    Ok(Rates::between(Some(&before), &source.sample()))
}

/// All tables, as wide as they are.
fn text(rates: &Rates) -> String {
    let tables = [
        grid::ports(rates, Order::Rate),
        grid::queues(rates, Order::Rate),
        grid::threads(rates, Order::Rate),
    ];
    let tables = tables.into_iter().filter(|grid| !grid.rows.is_empty());
    let texts = tables.map(|grid| {
        let (grid, widths) = grid.fit(usize::MAX);
        grid.lines(&widths).join("\n") + "\n"
    });
    texts.collect::<Vec<_>>().join("\n")
}
