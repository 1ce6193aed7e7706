//! `ringway vm list`, `show`, `console` and `ssh`: looking at machines that run.

use std::{
    net::Ipv4Addr,
    os::unix::{net::UnixStream, process::CommandExt},
    process::Command,
};

use anyhow::anyhow;
use clap::Args;
use ringway_api::v1::{Lease, Name, client::Client};
use ringway_vmm::{
    Folder, Qmp, Record,
    folder::FolderError,
    pin::{Thread, Threads},
};
use serde::Serialize;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use super::{Run, console, console::End};
use crate::{Failure, ask::Form, print};

/// A machine as it is.
#[derive(Debug, Serialize)]
pub(crate) struct Seen {
    pub(crate) name: Name,
    /// `running`, `paused`, `shutdown` and so on, as QEMU says; `unknown` if it does not answer.
    pub(crate) state: String,
    /// Whether somebody takes everything back when it ends.
    pub(crate) supervised: bool,
    pub(crate) addresses: Vec<Ipv4Addr>,
    pub(crate) threads: Vec<Thread>,
    #[serde(flatten)]
    pub(crate) record: Record,
}

/// Show one machine: what it is, its addresses, which CPUs its threads run on
#[derive(Args)]
pub(crate) struct Show {
    /// The machine
    name: Name,
    #[command(flatten)]
    form: Form,
}

/// Be at a machine's console: Ctrl-] leaves it
#[derive(Args)]
pub(crate) struct Console {
    /// The machine
    name: Name,
}

/// Log in to a machine over SSH, or run a command there
///
/// Host keys of machines come and go, so they are neither asked for nor kept.
#[derive(Args)]
pub(crate) struct Ssh {
    /// The machine
    name: Name,
    /// The user [default: as `vm run` was told, else root]
    #[arg(short = 'l', long)]
    user: Option<String>,
    /// What to run, and options of ssh before it
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

pub(super) fn list(form: &Form, client: &Client, run: &Run) -> Result<(), Failure> {
    let mut seen = Vec::new();
    for folder in Folder::list(&run.directory())? {
        match see(&folder, client) {
            Ok(machine) => seen.push(machine),
            // It has ended meanwhile.
            Err(FolderError::NoMachine(_)) => (),
            Err(error) => return Err(error.into()),
        }
    }
    print::answer(form.json, &seen, |seen| print::machines(seen))
}

pub(super) fn show(arguments: &Show, client: &Client, run: &Run) -> Result<(), Failure> {
    let folder = Folder::new(&run.directory(), &arguments.name);
    let seen = see(&folder, client)?;
    print::answer(arguments.form.json, &seen, print::machine)
}

pub(super) fn console(arguments: &Console, run: &Run) -> Result<(), Failure> {
    let folder = Folder::new(&run.directory(), &arguments.name);
    folder.record()?;
    let stream = console::connect(&folder.console())?;
    tracing::info!("Ctrl-] leaves the console; Enter shows where it is");
    // The terminal is given back before this ends.
    let (told, tell) = UnixStream::pair()?;
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::low_level::pipe::register(signal, tell.try_clone()?)?;
    }
    match console::attach(stream, &told)? {
        End::Gone => tracing::info!("{} has ended, or its console is in use", arguments.name),
        End::Detached | End::Signalled => (),
    }
    Ok(())
}

pub(super) fn ssh(arguments: &Ssh, client: &Client, run: &Run) -> Result<(), Failure> {
    let name = &arguments.name;
    let record = Folder::new(&run.directory(), name).record()?;
    let leases = client.leases(None)?;
    let address = leases_of(&record, &leases)
        .map(|lease| lease.address)
        .next();
    let address = address.ok_or_else(|| {
        anyhow!("{name} has no address (yet): `ringway vm console {name}` shows what it does")
    })?;
    let mut ssh = Command::new("ssh");
    for option in [
        "UserKnownHostsFile=/dev/null",
        "GlobalKnownHostsFile=/dev/null",
        "StrictHostKeyChecking=no",
        "LogLevel=ERROR",
    ] {
        ssh.args(["-o", option]);
    }
    if let Some(key) = &record.key {
        ssh.arg("-i").arg(key).args(["-o", "IdentitiesOnly=yes"]);
    }
    ssh.arg("-l")
        .arg(arguments.user.as_ref().unwrap_or(&record.user));
    ssh.arg(address.to_string()).args(&arguments.command);
    // Comes back only if it cannot be started.
    let error = ssh.exec();
    Err(anyhow!("ssh cannot be started ({error}): install it (Debian: openssh-client)").into())
}

/// Leases of its NICs.
pub(super) fn leases_of<'a>(
    record: &'a Record,
    leases: &'a [Lease],
) -> impl Iterator<Item = &'a Lease> {
    let nics = &record.machine.nics;
    leases
        .iter()
        .filter(move |lease| nics.iter().any(|nic| lease.mac == Some(nic.mac)))
}

fn see(folder: &Folder, client: &Client) -> Result<Seen, FolderError> {
    let record = folder.record()?;
    let supervised = matches!(folder.claim(), Err(FolderError::Taken(_)));
    let mut monitor = Qmp::connect(&folder.monitor()).ok();
    let status = monitor.as_mut().and_then(|monitor| monitor.status().ok());
    let threads = match (record.pid, &mut monitor) {
        (Some(pid), Some(monitor)) => Threads::by_monitor(pid, monitor).ok(),
        _ => None,
    };
    let leases = match record.ports.is_empty() {
        true => Vec::new(),
        // Without a daemon there are no addresses, and the rest is worth showing.
        false => client.leases(None).unwrap_or_default(),
    };
    Ok(Seen {
        name: folder.name().clone(),
        state: status.unwrap_or_else(|| "unknown".into()),
        supervised,
        addresses: leases_of(&record, &leases)
            .map(|lease| lease.address)
            .collect(),
        threads: threads.map(|threads| threads.threads).unwrap_or_default(),
        record,
    })
}
