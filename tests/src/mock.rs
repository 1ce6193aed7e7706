//! The mock guests with which the switch is tested in one process, for tests that meet it from outside. They are our own front-end and
//! driver side, and panic where a device breaks a rule.

#![allow(
    dead_code,
    missing_docs,
    unreachable_pub,
    reason = "written for tests of which each uses a part"
)]

#[path = "../../crates/switch/tests/mock/frames.rs"]
pub mod frames;
#[path = "../../crates/switch/tests/mock/guest.rs"]
mod guest;
#[path = "../../crates/switch/tests/mock/nic.rs"]
mod nic;
#[path = "../../crates/switch/tests/mock/queue.rs"]
pub mod queue;

use std::time::Duration;

pub use guest::{Guest, RingSetup, Setup, features};
pub use nic::{Nic, Options, Received, sleep};
pub use queue::Shape;

/// Longest wait for anything. What takes longer is lost.
pub const PATIENCE: Duration = Duration::from_secs(10);
