//! Looks at a host and its machines. Whatever cannot be seen is left out, and said.

mod host;
mod machine;
mod network;

use std::path::PathBuf;

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
    facts.host = host::host();
    facts.machines = match which {
        Which::All => qemus()
            .into_iter()
            .filter_map(machine::of_process)
            .collect(),
        Which::Process(pid) => machine::of_process(*pid).into_iter().collect(),
        Which::Command(words) => vec![machine::of_command(words)],
    };
    machine::read_logs(&mut facts, logs);
    network::networks(&mut facts);
    facts.holders = network::holders();
    facts
}
