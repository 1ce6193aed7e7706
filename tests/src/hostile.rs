//! Guests and front-ends that keep no rule, and a pair that keeps all of them beside them.
//!
//! - [`crooked`]: a guest whose rings are written by hand, so that it can lie in every way, at any position
//! - [`ring_lies`]: each lie in a ring, with what the switch has to make of it
//! - [`messages`]: each lie in a message
//! - [`floods`]: too much of everything, memory that goes away, bytes that change
//! - [`honest`]: two guests in a VLAN of their own that must not lose a frame
//! - [`soak`]: all of them at once, and what is left of the switch afterwards

pub mod crooked;
pub mod floods;
pub mod honest;
mod message_lies;
pub mod messages;
mod packed_lies;
pub mod ring_lies;
pub mod soak;
mod split_lies;
