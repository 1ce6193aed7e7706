//! `ringway vm`: virtual machines on networks.

mod args;
mod console;
mod look;
mod machine;
mod nics;
mod pin;
mod run;
mod stop;
mod supervise;
mod undo;

use std::path::PathBuf;

use clap::{Args, Subcommand};
use ringway_api::v1::client;

use crate::{
    Failure,
    ask::{Daemon, Form},
};

pub(crate) use look::Seen;

/// Virtual machines: run one, look at it, log in, pin it, or print how it is started
#[derive(Args)]
#[command(disable_help_subcommand = true, arg_required_else_help = false)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    verb: Verb,
    #[command(flatten)]
    daemon: Daemon,
    #[command(flatten)]
    run: Run,
}

#[derive(Subcommand)]
enum Verb {
    Run(Box<run::Arguments>),
    Args(Box<args::Arguments>),
    /// List machines that run
    List {
        #[command(flatten)]
        form: Form,
    },
    Show(look::Show),
    Stop(stop::Arguments),
    Console(look::Console),
    Ssh(look::Ssh),
    Pin(pin::Arguments),
    /// Watch over a machine; `vm run` starts it
    #[command(hide = true)]
    Supervise,
}

/// Where machines that run are written down.
#[derive(Args)]
pub(super) struct Run {
    /// Directory of machines that run [default: /run/ringway, or $XDG_RUNTIME_DIR/ringway for others than root]
    #[arg(long, value_name = "DIR", global = true, display_order = 911)]
    run: Option<PathBuf>,
}

impl Run {
    /// From the root: the supervisor is elsewhere.
    fn directory(&self) -> PathBuf {
        let run = self.run.clone().unwrap_or_else(client::run_directory);
        std::path::absolute(&run).unwrap_or(run)
    }
}

pub(crate) fn run(arguments: Arguments) -> Result<(), Failure> {
    let client = arguments.daemon.client();
    let run = &arguments.run;
    match arguments.verb {
        Verb::Run(arguments) => run::run(&arguments, &client, run),
        Verb::Args(arguments) => args::run(*arguments, &client),
        Verb::List { form } => look::list(&form, &client, run),
        Verb::Show(arguments) => look::show(&arguments, &client, run),
        Verb::Stop(arguments) => stop::run(&arguments, run),
        Verb::Console(arguments) => look::console(&arguments, run),
        Verb::Ssh(arguments) => look::ssh(&arguments, &client, run),
        Verb::Pin(arguments) => pin::run(&arguments, run),
        Verb::Supervise => supervise::run(),
    }
}
