//! What is known about a host and its virtual machines. It says what is, not whether that is good.
//!
//! Facts are saved as JSON: fields are added with a default, never renamed. `None` means that nobody could look, and
//! [`Facts::unseen`] says why.

mod host;
mod machine;
mod network;
mod switch;
mod virtio;

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

use serde::{Deserialize, Serialize};

use crate::finding::visible;

pub use host::{Device, Host, HugePages};
pub use machine::{Descriptor, Folder, Machine, Origin, Passed, Socket, Thread};
pub use network::{Holder, Network};
pub use switch::{Switch, SwitchPort};
pub use virtio::{VirtioNic, VirtioQueue};

/// Bytes of a file that are read as facts: those of some hundred machines.
const LONGEST: u64 = 64 << 20;

/// Everything that was seen.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Facts {
    /// The version of the program that looked.
    pub version: String,
    /// The host.
    pub host: Host,
    /// Network namespaces: that of who looked first, then those in which machines live.
    pub networks: Vec<Network>,
    /// Who has taps open.
    pub holders: Vec<Holder>,
    /// Virtual machines that run, and commands that shall start one.
    pub machines: Vec<Machine>,
    /// Switches of ours that run.
    pub switches: Vec<Switch>,
    /// Processes of daemons of ours.
    pub daemons: Vec<i32>,
    /// What could not be seen, and why: one clause each.
    pub unseen: Vec<String>,
}

/// Why facts cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum FactsError {
    /// The file cannot be read.
    #[error("{0}: {1}")]
    Read(String, #[source] io::Error),
    /// It holds something else.
    #[error("{0} holds no facts that `ringway doctor --save` wrote: {1}")]
    Content(String, String),
    /// It is no file that was saved.
    #[error("{0} is longer than facts may be, which is 64 MiB")]
    Long(String),
}

impl Facts {
    /// Those that were saved in a file.
    pub fn load(path: &Path) -> Result<Self, FactsError> {
        let name = || path.display().to_string();
        let mut bytes = Vec::new();
        File::open(path)
            .and_then(|file| file.take(LONGEST + 1).read_to_end(&mut bytes))
            .map_err(|error| FactsError::Read(name(), error))?;
        if bytes.len() as u64 > LONGEST {
            return Err(FactsError::Long(name()));
        }
        // The error quotes what it found.
        serde_json::from_slice(&bytes)
            .map_err(|error| FactsError::Content(name(), visible(&error.to_string())))
    }

    /// The network namespace in which a machine lives, if it was seen.
    pub fn network(&self, machine: &Machine) -> Option<&Network> {
        self.networks
            .iter()
            .find(|network| network.id.is_some() && network.id == machine.namespace)
    }
}
