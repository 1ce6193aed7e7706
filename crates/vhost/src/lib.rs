//! The vhost protocol: vhost-user, the back-end's session and a front-end; and the front-end of the kernel's vhost-net.
//!
//! The session does no data path work of its own. It reads messages, keeps the device's state and says what changed; the caller brings
//! the rings in line and lets the session answer.

#![warn(missing_docs)]

pub mod kernel;
#[forbid(unsafe_code)]
pub mod user;
