//! The vhost protocol: the vhost-user back-end session, and a small front-end.
//!
//! The session does no data path work of its own. It reads messages, keeps the device's state and says what changed; the caller brings
//! the rings in line and lets the session answer.

#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod user;
