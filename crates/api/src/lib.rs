//! Types shared by control and data side: port specifications, statistics, the control protocol of `ringway switch`, and what
//! clients say to the daemon.
//!
//! Nothing here opens a port or moves a frame; the crate only says what is wanted and what was counted.

#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod control;
mod hex;
pub mod port_spec;
pub mod stats;
pub mod v1;

pub use port_spec::{PortKind, PortSpec, SpecError};
