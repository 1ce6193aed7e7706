//! Virtqueues, device side and driver side.
//!
//! [`DeviceRing`] is the side that carries frames: chains are taken in batches, their bytes become slices of guest memory, and they are
//! returned in order with one publication. [`DriverRing`] is the guest's side, for tests, benches and connections to other back-ends.
//!
//! The driver is hostile to the device side. Every word that it can write is read once into a local, every index is checked or masked,
//! every walk is bounded by the size of the ring or table, and whatever breaks a rule is a [`RingFault`], never a panic.

#![warn(missing_docs)]

mod batch;
mod descriptor;
mod device;
mod driver;
mod error;
#[cfg(test)]
mod explore;
mod gather;
mod journal;
mod layout;
mod log;
mod packed;
mod segment;
mod shared;
mod split;

pub use batch::{Batch, Chain, MAX_BATCH, MAX_SEGMENTS, ReadBatch, WriteBatch};
pub use device::DeviceRing;
pub use driver::{
    AddError, DriverFault, DriverOptions, DriverRing, PackedDriver, SplitDriver, Used,
};
pub use error::{RingError, RingFault, Stale};
pub use journal::JOURNAL_WORDS;
pub use layout::{MAX_SIZE, RingBase, RingFeatures, RingLayout, Wraps};
pub use log::RingLog;
pub use packed::PackedRing;
pub use split::SplitRing;
