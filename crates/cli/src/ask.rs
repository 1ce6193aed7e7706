//! How verbs reach the daemon.

use std::path::PathBuf;

use clap::Args;
use ringway_api::v1::client::{self, Client};

use crate::usage::socket_path;

/// Which daemon is asked.
#[derive(Args, Clone)]
pub(crate) struct Daemon {
    /// The daemon's socket [default: $RINGWAY_SOCKET, $XDG_RUNTIME_DIR/ringway/api.sock or /run/ringway/api.sock]
    #[arg(long, value_name = "PATH", global = true, value_parser = socket_path, display_order = 910)]
    socket: Option<PathBuf>,
}

impl Daemon {
    pub(crate) fn client(self) -> Client {
        Client::new(self.socket.unwrap_or_else(client::socket))
    }
}

/// In which form the answer is printed.
#[derive(Args)]
pub(crate) struct Form {
    /// Print JSON, for programs
    #[arg(long, display_order = 900)]
    pub(crate) json: bool,
}
