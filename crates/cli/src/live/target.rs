//! Whose frames are looked at: options that `show` and `top` share.

use std::{path::PathBuf, time::Duration};

use clap::Args;
use ringway_api::v1::client;

use super::Whom;
use crate::{ask::Daemon, usage::socket_path};

/// Where counters and machines are found, and for how long they are watched.
#[derive(Args)]
pub(crate) struct Target {
    /// Seconds over which rates are taken, 0.1 to 3600
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = interval)]
    pub(crate) interval: Duration,
    /// Ask the switch with this control socket, in place of the daemon
    #[arg(long, value_name = "PATH", value_parser = socket_path, conflicts_with = "socket", display_order = 909)]
    control: Option<PathBuf>,
    /// Directory of machines that run [default: /run/ringway, or $XDG_RUNTIME_DIR/ringway for others than root]
    #[arg(long, value_name = "DIR", display_order = 911)]
    run: Option<PathBuf>,
    #[command(flatten)]
    daemon: Daemon,
}

impl Target {
    /// Whom to ask, and where machines that run are written down.
    pub(crate) fn found(self) -> (Whom, PathBuf) {
        let whom = match self.control {
            Some(path) => Whom::Switch(path),
            None => Whom::Daemon(self.daemon.client()),
        };
        (whom, self.run.unwrap_or_else(client::run_directory))
    }
}

/// Seconds, with a fraction if wanted.
fn interval(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().ok().filter(|s| (0.1..=3600.0).contains(s));
    seconds
        .map(Duration::from_secs_f64)
        .ok_or_else(|| "give seconds from 0.1 to 3600".into())
}
