//! What a network itself answers: addresses (DHCP) and names (DNS).
//!
//! Nothing here reads a clock or a socket, or writes a file. Time, messages and what was committed come in as arguments, answers
//! go out as values; who calls decides when they are sent.

#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod dhcp4;
pub mod dns;
pub mod leases;
