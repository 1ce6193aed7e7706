//! A switch in this process, and guests that are our own front-end and driver side.

#![allow(
    dead_code,
    unreachable_pub,
    unused_imports,
    reason = "every file of tests uses a part of it"
)]

pub mod frames;
mod guest;
mod kernel;
mod lab;
pub mod namespace;
mod nic;
pub mod offload;
pub mod queue;
mod traffic;

pub use guest::{Guest, RingSetup, Setup, features};
pub use kernel::Kernel;
pub use lab::{Lab, agree};
pub use nic::{Nic, Options, Received, sleep};
pub use queue::Shape;
pub use traffic::{Checker, Stream, Talk};

use std::time::Duration;

/// Longest wait for anything. What takes longer is lost.
pub const PATIENCE: Duration = Duration::from_secs(10);
