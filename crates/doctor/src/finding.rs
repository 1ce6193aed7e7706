//! What is wrong.

use serde::Serialize;

/// One thing that is wrong, in sentences for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Which fault of the table: its name.
    pub fault: &'static str,
    /// The machine it concerns; `None` = the host.
    pub machine: Option<String>,
    /// The thing: a NIC, a tap, a bridge, a file.
    pub subject: String,
    /// What is wrong with it.
    pub what: String,
    /// Why that matters: what a person sees of it.
    pub why: &'static str,
    /// What to run, or to change, to have it gone: shell commands, each complete. Those that begin with `#` say what to do by hand.
    pub cure: Vec<String>,
}
