//! Guests that drive a switch as fast as one processor can, and what is needed to compare switches with them.
//!
//! A [`generator::Generator`] plays two guests in one thread. [`compare`] puts it in front of several switches, which run in turns;
//! [`cycles`] asks the kernel how long our worker ran for a frame.

#![forbid(unsafe_code)]

pub mod compare;
pub mod cycles;
pub mod frames;
pub mod generator;
pub mod guest;
pub mod middle;
pub mod processors;
pub mod queue;
pub mod report;
pub mod ring;
pub mod rows;
pub mod state;
pub mod traffic;
