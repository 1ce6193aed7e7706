//! `ringway bench`: what this machine carries.

mod agent;
mod guest;
mod isolate;
mod output;
mod paths;
mod switch;
mod wiring;

use clap::{Args, Subcommand};

use crate::Failure;

/// Measure what this machine carries between virtual machines
#[derive(Args)]
#[command(disable_help_subcommand = true, arg_required_else_help = false)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    Paths(paths::Arguments),
    Switch(switch::Arguments),
    Agent(agent::Arguments),
}

pub(crate) fn run(arguments: Arguments) -> Result<(), Failure> {
    match arguments.verb {
        Verb::Paths(arguments) => paths::run(arguments),
        Verb::Switch(arguments) => switch::run(arguments),
        Verb::Agent(arguments) => agent::run(&arguments),
    }
}
