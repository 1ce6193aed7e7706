//! vhost-user: the protocol over a unix socket, as QEMU's `docs/interop/vhost-user.rst` describes it and as real front-ends speak it.
//!
//! - [`Session`] is the back-end's end of one connection.
//! - [`frontend::Frontend`] is the other end, for tests, benches and uplinks.
//! - [`message`] and [`socket`] are the wire both share.

pub mod features;
pub mod frontend;
pub mod fuzz;
pub mod message;
pub mod session;
pub mod socket;

pub use session::{
    DeviceState, Event, InflightRegion, Offer, ResumeError, RingAddresses, Session, SessionError,
    Vring,
};
