//! The switch alone, between guests that this process plays: a [`generator::Generator`] plays two in one thread.
//!
//! [`sizing::Plan`] is what `ringway bench switch` does: rows of frames, rings and workers, measured in turn.

pub mod frames;
pub mod generator;
pub mod guest;
mod meaning;
pub mod placement;
pub mod plot;
pub mod process;
pub mod queue;
pub mod ring;
pub mod sizing;
pub mod traffic;
pub mod window;

pub use meaning::figure;
