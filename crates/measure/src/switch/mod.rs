//! The switch alone, between guests that this process plays: a [`generator::Generator`] plays two in one thread.

pub mod frames;
pub mod generator;
pub mod guest;
pub mod queue;
pub mod ring;
pub mod traffic;
