//! `ringway top`: ports, queues, rates, drops and the threads that carry them, live.

#[cfg(test)]
mod example;
mod grid;
mod run;
mod screen;
mod state;

use std::{
    io::{self, IsTerminal},
    thread,
    time::Duration,
};

use clap::Args;

use self::{grid::Order, screen::Surroundings, state::State};
use crate::{
    Failure,
    ask::Form,
    live::{Rates, Source, Target},
    print,
};

/// Watch ports, queues and drops, and the threads that carry frames, live
///
/// Asks the daemon, or a switch alone with --control. Threads are those of the switch, of every QEMU that runs here, and of the
/// kernel's vhost. Into a pipe, and on a terminal that is `dumb`, one sample is printed, as with --once.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// Print what happened in one interval, and end
    #[arg(long)]
    once: bool,
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    form: Form,
}

const EXAMPLES: &str = "\
Examples:
  ringway top --interval 0.5
  ringway top --once --interval 10 --json | jq '.ports[].drops'";

pub(crate) fn run(arguments: Arguments) -> Result<(), Failure> {
    let interval = arguments.target.interval;
    let (whom, run) = arguments.target.found();
    let mut source = Source::new(whom, run);
    if arguments.form.json || arguments.once || !can_draw() {
        let rates = once(&mut source, interval)?;
        return print::answer(arguments.form.json, &rates, text);
    }
    let around = Surroundings {
        title: source.title(),
        interval: interval.as_secs_f64(),
        colours: print::colours(),
    };
    run::run(source, interval, &around)
}

/// Whether standard output is a terminal, and one that can put letters where they belong.
fn can_draw() -> bool {
    let is_dumb = std::env::var_os("TERM").is_none_or(|term| term.is_empty() || term == "dumb");
    io::stdout().is_terminal() && !is_dumb
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
