//! A switch of ours.

use std::{collections::BTreeMap, path::PathBuf};

use serde::{Deserialize, Serialize};

/// A `ringway switch` that runs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Switch {
    /// Its process.
    pub pid: i32,
    /// Its control socket, if it has one.
    pub control: Option<PathBuf>,
    /// Its ports.
    pub ports: Vec<SwitchPort>,
}

/// A port of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SwitchPort {
    /// Its name.
    pub name: String,
    /// What it was asked to be, as `--port` has it.
    pub spec: String,
    /// Its vhost-user socket.
    pub socket: Option<PathBuf>,
    /// It connects to that socket; the virtual machine listens.
    pub connects: bool,
    /// Queue pairs that it offers.
    pub queues: u16,
    /// The only source address that it accepts.
    pub mac: Option<String>,
    /// A front-end is there; `None` = the switch could not be asked.
    pub connected: Option<bool>,
    /// The features that were negotiated.
    pub features: Option<u64>,
    /// Frames that were dropped, by reason.
    pub drops: BTreeMap<String, u64>,
    /// Rings that were stopped, by reason.
    pub faults: BTreeMap<String, u64>,
}
