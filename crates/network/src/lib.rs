//! Networks as a model: what a person asked for, checked and completed, and the steps that lead from one state to another.
//!
//! Nothing here touches the host; steps are carried out, and undone, by the daemon.

#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod choose;
mod error;
pub mod firewall;
mod members;
mod model;
mod near;
mod networks;
mod plan;
#[cfg(test)]
mod tests;
mod things;

pub use error::Invalid;
pub use model::{Network, Port, Site, State};
pub use plan::{Change, Plan, Step};
pub use things::{Firewall, FirewallNetwork, Link, LinkKind, Service, SwitchPort, TapKind, Things};
