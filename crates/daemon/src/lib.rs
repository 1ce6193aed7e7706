//! The daemon that decides: it serves the API, keeps the state, makes networks on the host, and starts and adopts the switch.

#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod apply;
mod config;
mod daemon;
mod failure;
mod find;
mod foreign;
mod inner;
mod report;
mod server;
mod services;
mod store;
mod switch_process;
#[cfg(test)]
mod testing;

pub use config::Config;
pub use daemon::Daemon;
pub use server::{Operations, Server};
