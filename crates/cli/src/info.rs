//! `ringway info`: the daemon, its switch, and what a person should know about the host.

use clap::Args;

use crate::{
    Failure,
    ask::{Daemon, Form},
    print,
};

/// Show whether the daemon and its switch run, and what is wrong on the host
#[derive(Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    form: Form,
    #[command(flatten)]
    daemon: Daemon,
}

pub(crate) fn run(arguments: Arguments) -> Result<(), Failure> {
    let info = arguments.daemon.client().info()?;
    print::answer(arguments.form.json, &info, print::info)
}
