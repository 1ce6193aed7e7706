//! `ringway stats`: what was counted.

use clap::Args;

use crate::{
    Failure,
    ask::{Daemon, Form},
    print,
};

/// What was carried, dropped and answered
#[derive(Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    daemon: Daemon,
    #[command(flatten)]
    form: Form,
}

pub(crate) fn run(arguments: Arguments) -> Result<(), Failure> {
    let stats = arguments.daemon.client().stats()?;
    print::answer(arguments.form.json, &stats, print::stats)
}
