//! Looks at a host and its machines. Whatever cannot be seen is left out, and said.

mod devices;
mod guards;
mod host;
mod machine;
mod messages;
mod monitor;
mod network;
mod sockets;
mod switches;
mod version;

use std::{fs, io::ErrorKind, path::PathBuf};

use crate::Facts;

pub use machine::{find, qemus};

/// Which machines are looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Which {
    /// All that run.
    #[default]
    All,
    /// The process of that number.
    Process(i32),
    /// A command that is to start one.
    Command(Vec<String>),
}

/// Looks. Messages are lines that QEMU, or whoever started it, wrote to these files.
pub fn gather(which: &Which, logs: &[PathBuf]) -> Facts {
    let mut facts = Facts {
        version: env!("CARGO_PKG_VERSION").into(),
        ..Facts::default()
    };
    facts.machines = match which {
        Which::All => qemus()
            .into_iter()
            .filter_map(machine::of_process)
            .collect(),
        Which::Process(pid) => machine::of_process(*pid).into_iter().collect(),
        Which::Command(words) => vec![machine::of_command(words)],
    };
    closed(&mut facts);
    for machine in &mut facts.machines {
        messages::own(machine, &mut facts.unseen);
    }
    messages::given(&mut facts, logs);
    facts.host = host::host(&facts.machines);
    facts.daemons = switches::daemons();
    network::networks(&mut facts);
    facts.holders = network::holders();
    if !facts.machines.is_empty() {
        let table = sockets::Table::read();
        for machine in &mut facts.machines {
            machine.sockets = table.of_machine(machine);
            machine.version = version::of(machine);
            monitor::ask(machine, &table, &mut facts.unseen);
        }
        facts.switches = switches::switches(&mut facts.unseen);
    }
    facts
}

/// Notes the machines whose files nobody but root and their own user may look at: without them, much is not found.
fn closed(facts: &mut Facts) {
    let closed = facts.machines.iter().filter(|it| {
        let files = it.pid.map(|pid| fs::read_dir(format!("/proc/{pid}/fd")));
        files.is_some_and(|it| it.is_err_and(|error| error.kind() == ErrorKind::PermissionDenied))
    });
    let names: Vec<&str> = closed.map(|it| it.name.as_str()).collect();
    if !names.is_empty() {
        facts.unseen.push(format!(
            "the taps, sockets, monitor and messages of {}: run doctor as root, or as the user that runs it",
            names.join(", ")
        ));
    }
}

/// All processes.
fn processes() -> Vec<i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let numbers = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    numbers.collect()
}

/// The words of a process's command line.
fn words(pid: i32) -> Vec<String> {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let words = bytes.split(|byte| *byte == 0).map(String::from_utf8_lossy);
    let mut words: Vec<String> = words.map(|it| it.into_owned()).collect();
    // The last word ends with a zero, too.
    words.pop();
    words
}
