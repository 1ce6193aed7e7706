//! `ringway daemon`: the process that decides, until it is told to end.

use std::{
    io::{self, Write},
    path::{Path, PathBuf},
};

use anyhow::Context;
use clap::Args;
use ringway_api::v1::client;
use ringway_daemon::{Config, Daemon, Server};
use serde::Deserialize;
use tokio::{
    runtime::Runtime,
    signal::unix::{Signal, SignalKind, signal},
};

use crate::{Failure, file, usage::socket_path};

/// Read if it exists and no other file is named.
const FILE: &str = "/etc/ringway/daemon.toml";

/// Keep networks: addresses, names, the way out, until SIGTERM or Ctrl-C
///
/// Prints `ready` when it serves. Networks and their switch stay when it ends, and the next daemon takes them up.
#[derive(Args)]
pub(crate) struct Arguments {
    /// Serve the API at PATH [default: $RINGWAY_SOCKET, or api.sock in the directory of --run]
    #[arg(long, value_name = "PATH", value_parser = socket_path)]
    socket: Option<PathBuf>,
    /// Directory of sockets, gone after a reboot [default: /run/ringway, or $XDG_RUNTIME_DIR/ringway for others than root]
    #[arg(long, value_name = "DIR")]
    run: Option<PathBuf>,
    /// Directory of what survives a reboot [default: /var/lib/ringway]
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    /// Settings [default: /etc/ringway/daemon.toml, if it exists]
    #[arg(long, value_name = "FILE", long_help = FILE_HELP)]
    config: Option<PathBuf>,
}

const FILE_HELP: &str = "\
Settings in TOML [default: /etc/ringway/daemon.toml, if it exists].

  default_network = false      make no network `default` on the first start
  foreign_firewall = \"open\"    let networks pass firewalls of others, such as Docker's, by rules in their chains
  group = \"kvm\"                the group that may open the API's socket, to read
  resolv_conf = \"PATH\"         names the resolvers that are asked, in place of /etc/resolv.conf
  socket, run, state = \"PATH\"  as the options of these names";

/// The file.
#[derive(Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
struct File {
    default_network: Option<bool>,
    #[serde(default)]
    foreign_firewall: Foreign,
    group: Option<String>,
    socket: Option<PathBuf>,
    run: Option<PathBuf>,
    state: Option<PathBuf>,
    resolv_conf: Option<PathBuf>,
}

/// What is done about firewalls of others that drop what networks send.
#[derive(Debug, Default, Clone, Copy, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum Foreign {
    /// It is told.
    #[default]
    Leave,
    /// They get rules that let it pass.
    Open,
}

pub(crate) fn run(arguments: Arguments) -> Result<(), Failure> {
    let settings = match &arguments.config {
        Some(path) => file::toml(path)?,
        None if Path::new(FILE).exists() => file::toml(Path::new(FILE))?,
        None => File::default(),
    };
    let group = settings.group.clone();
    let config = config(arguments, settings, client::socket_of_environment());
    let runtime = Runtime::new().context("starting threads")?;
    runtime.block_on(serve(config, group))
}

async fn serve(config: Config, group: Option<String>) -> Result<(), Failure> {
    let terminate = signal(SignalKind::terminate())?;
    let interrupt = signal(SignalKind::interrupt())?;
    // Before anything is changed on the host: a second daemon must not get any further.
    let server = Server::listen(&config.socket, group.as_deref())?;
    let daemon = Daemon::start(config).await?;
    let mut stdout = io::stdout();
    writeln!(stdout, "ready").and_then(|()| stdout.flush())?;
    server
        .serve(daemon.clone(), told_to_end(terminate, interrupt))
        .await?;
    daemon.stop().await;
    Ok(())
}

async fn told_to_end(mut terminate: Signal, mut interrupt: Signal) {
    tokio::select! {
        _ = terminate.recv() => (),
        _ = interrupt.recv() => (),
    }
}

/// Options come before the environment, and that before the file.
fn config(arguments: Arguments, file: File, environment: Option<PathBuf>) -> Config {
    let defaults = Config::default();
    let run = arguments
        .run
        .or(file.run)
        .unwrap_or_else(client::run_directory);
    let socket = arguments
        .socket
        .or(environment)
        .or(file.socket)
        .unwrap_or_else(|| run.join("api.sock"));
    let state = arguments.state.or(file.state).unwrap_or(defaults.state);
    // Paths of sockets are told to machines, which may be started elsewhere.
    let absolute = |path: PathBuf| std::path::absolute(&path).unwrap_or(path);
    Config {
        run: absolute(run),
        socket: absolute(socket),
        state: absolute(state),
        default_network: file.default_network.unwrap_or(defaults.default_network),
        resolv_conf: file.resolv_conf.unwrap_or(defaults.resolv_conf),
        open_foreign: file.foreign_firewall == Foreign::Open,
        ..Config::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(socket: Option<&str>, run: Option<&str>) -> Arguments {
        Arguments {
            socket: socket.map(Into::into),
            run: run.map(Into::into),
            state: None,
            config: None,
        }
    }

    #[test]
    fn options_come_before_the_environment_and_that_before_the_file() {
        let file = || toml::from_str::<File>("socket = '/file'\nrun = '/d'").unwrap();
        let socket = |option, environment: Option<&str>, file| {
            config(arguments(option, None), file, environment.map(Into::into)).socket
        };
        assert_eq!(socket(Some("/o"), Some("/e"), file()), Path::new("/o"));
        assert_eq!(socket(None, Some("/e"), file()), Path::new("/e"));
        assert_eq!(socket(None, None, file()), Path::new("/file"));
        let made = config(arguments(None, Some("/run/mine")), File::default(), None);
        assert_eq!(made.socket, Path::new("/run/mine/api.sock"));
        assert!(made.default_network);
        let here = std::env::current_dir().unwrap();
        let made = config(arguments(None, Some("here")), File::default(), None);
        assert_eq!(made.run, here.join("here"));
        assert_eq!(made.socket, here.join("here/api.sock"));
    }

    #[test]
    fn the_file_switches_the_default_network_off_and_has_no_unknown_keys() {
        let file = toml::from_str("default_network = false").unwrap();
        assert!(!config(arguments(None, None), file, None).default_network);
        assert!(toml::from_str::<File>("default-network = false").is_err());
        for (text, open) in [("", false), ("'leave'", false), ("'open'", true)] {
            let text = format!(
                "{}{text}",
                if text.is_empty() {
                    ""
                } else {
                    "foreign_firewall = "
                }
            );
            let file = toml::from_str::<File>(&text).unwrap();
            assert_eq!(config(arguments(None, None), file, None).open_foreign, open);
        }
    }
}
