//! The daemon that decides: it serves the API, keeps the state, makes networks on the host, and starts and adopts the switch.

#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod config;
mod daemon;
mod failure;
mod report;

pub use config::Config;
pub use daemon::Daemon;
