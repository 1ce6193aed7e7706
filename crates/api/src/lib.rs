//! Types shared by control and data side: port specifications, statistics, the control protocol of `ringway switch`, and what
//! clients say to the daemon.
//!
//! Nothing here moves a frame; the crate says what is wanted and what was counted, and opens what travels to a switch along with
//! a request.

#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod control;
mod hex;
pub mod port_spec;
pub mod socket;
pub mod stats;
pub mod v1;

pub use port_spec::{PortKind, PortSpec, SpecError};
