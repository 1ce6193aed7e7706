//! Guests that drive a switch as fast as one processor can, and what is needed to compare switches with them.
//!
//! A [`generator::Generator`] of `ringway-measure` plays two guests in one thread. [`compare`] puts it in front of several switches, which run in turns;
//! [`cycles`] asks the kernel how long our worker ran for a frame.

#![forbid(unsafe_code)]

pub mod compare;
pub mod cycles;
pub mod middle;
pub mod report;
pub mod rows;
pub mod state;

pub use ringway_measure::processors;
pub use ringway_measure::switch::{frames, generator, guest, queue, ring, traffic};
