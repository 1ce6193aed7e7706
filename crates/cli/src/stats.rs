//! `ringway stats`: what was counted, and what was learned.

use std::{path::PathBuf, time::Duration};

use clap::Args;
use ringway_api::{
    control,
    v1::{Addresses, Stats},
};

use crate::{
    Failure,
    ask::{Daemon, Form},
    print,
    usage::socket_path,
};

/// How long a switch may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// What was carried, dropped and answered, and which addresses were learned
#[derive(Args)]
pub(crate) struct Arguments {
    /// One line for each queue pair, too
    #[arg(long, conflicts_with = "addresses")]
    queues: bool,
    /// Which addresses the switch learned, behind which port
    #[arg(long)]
    addresses: bool,
    /// With --addresses: only those behind PORT
    #[arg(requires = "addresses")]
    port: Option<String>,
    /// Ask the switch with this control socket, in place of the daemon
    #[arg(long, value_name = "PATH", value_parser = socket_path, conflicts_with = "socket", display_order = 909)]
    control: Option<PathBuf>,
    #[command(flatten)]
    daemon: Daemon,
    #[command(flatten)]
    form: Form,
}

pub(crate) fn run(arguments: Arguments) -> Result<(), Failure> {
    let port = arguments.port.as_deref();
    let switch = match &arguments.control {
        Some(path) => Some(control::Client::connect(path, PATIENCE)?),
        None => None,
    };
    if arguments.addresses {
        let learned = match switch {
            Some(mut switch) => {
                let (addresses, learned) = switch.addresses(port)?;
                Addresses { addresses, learned }
            }
            None => arguments.daemon.client().addresses(port)?,
        };
        return print::answer(arguments.form.json, &learned, print::learned);
    }
    let stats = match switch {
        Some(mut switch) => Stats {
            switch: Some(switch.statistics(None)?),
            services: Default::default(),
        },
        None => arguments.daemon.client().stats()?,
    };
    print::answer(arguments.form.json, &stats, |stats| {
        print::stats(stats, arguments.queues)
    })
}
