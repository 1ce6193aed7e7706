//! `ringway bench`: what this machine carries.

mod switch;

use clap::{Args, Subcommand};

use crate::Failure;

/// Measure what this machine carries between virtual machines
#[derive(Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    Switch(switch::Arguments),
}

pub(crate) fn run(arguments: Arguments) -> Result<(), Failure> {
    match arguments.verb {
        Verb::Switch(arguments) => switch::run(arguments),
    }
}
