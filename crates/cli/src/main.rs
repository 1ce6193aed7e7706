//! The `ringway` command: arguments, exit codes and what is printed. What it does lies in the other crates.

#![forbid(unsafe_code)]

mod account;
mod ask;
mod bench;
mod capture;
mod daemon;
mod doctor;
mod dump;
mod file;
mod forward;
mod generate;
mod info;
mod lease;
mod live;
mod log;
mod net;
mod port;
mod print;
mod sandbox;
mod show;
mod stats;
mod switch;
mod top;
mod trace;
mod usage;
mod vm;

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

/// Networks for virtual machines: addresses, names, the way out, and a vhost-user switch in user space
#[derive(Parser)]
#[command(name = "ringway", version, disable_help_subcommand = true, after_help = AFTER)]
struct Cli {
    #[command(subcommand)]
    verb: Option<Verb>,
    #[command(flatten)]
    log: log::Arguments,
}

const AFTER: &str = "\
`ringway VERB --help` says more, `ringway` alone how to begin. Exit codes: 0 done, 1 failed, 2 wrong usage.";

#[derive(Subcommand)]
enum Verb {
    Daemon(daemon::Arguments),
    Info(info::Arguments),
    Net(net::Arguments),
    Port(port::Arguments),
    Lease(lease::Arguments),
    Forward(forward::Arguments),
    Vm(vm::Arguments),
    Stats(stats::Arguments),
    Top(top::Arguments),
    Show(show::Arguments),
    Capture(capture::Arguments),
    Trace(trace::Arguments),
    Bench(bench::Arguments),
    Doctor(doctor::Arguments),
    Switch(switch::Arguments),
    Dump(dump::Arguments),
    Completions(generate::Completions),
    Man(generate::Man),
}

/// Why the command ends without having done what was asked.
enum Failure {
    /// The command line cannot be meant; exit code 2.
    Usage(String),
    /// It could not be done; exit code 1.
    Failed(anyhow::Error),
}

impl<E: Into<anyhow::Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

fn main() -> ExitCode {
    let done = match Cli::try_parse() {
        Ok(cli) => run(cli),
        Err(error) => usage::explain(&error).map(|()| ExitCode::SUCCESS),
    };
    match done {
        Ok(code) => code,
        Err(Failure::Usage(sentence)) => {
            print::error(&sentence);
            ExitCode::from(2)
        }
        Err(Failure::Failed(error)) => {
            print::error(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> Result<ExitCode, Failure> {
    log::start(&cli.log);
    match cli.verb {
        // Done, and something may be wrong all the same.
        Some(Verb::Doctor(arguments)) => doctor::run(arguments),
        verb => perform(verb).map(|()| ExitCode::SUCCESS),
    }
}

fn perform(verb: Option<Verb>) -> Result<(), Failure> {
    match verb {
        None => print::out(&print::welcome()),
        Some(Verb::Daemon(arguments)) => daemon::run(arguments),
        Some(Verb::Info(arguments)) => info::run(arguments),
        Some(Verb::Net(arguments)) => net::run(arguments),
        Some(Verb::Port(arguments)) => port::run(arguments),
        Some(Verb::Lease(arguments)) => lease::run(arguments),
        Some(Verb::Forward(arguments)) => forward::run(arguments),
        Some(Verb::Vm(arguments)) => vm::run(arguments),
        Some(Verb::Stats(arguments)) => stats::run(arguments),
        Some(Verb::Top(arguments)) => top::run(arguments),
        Some(Verb::Show(arguments)) => show::run(arguments),
        Some(Verb::Capture(arguments)) => capture::run(arguments),
        Some(Verb::Trace(arguments)) => trace::run(arguments),
        Some(Verb::Bench(arguments)) => bench::run(arguments),
        Some(Verb::Doctor(arguments)) => doctor::run(arguments).map(drop),
        Some(Verb::Switch(arguments)) => switch::run(arguments),
        Some(Verb::Dump(arguments)) => dump::run(arguments),
        Some(Verb::Completions(arguments)) => generate::completions(&arguments, Cli::command()),
        Some(Verb::Man(arguments)) => generate::man(&arguments, Cli::command()),
    }
}

#[cfg(test)]
mod tests;
