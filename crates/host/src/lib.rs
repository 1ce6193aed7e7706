//! Kernel verbs: taps.

#![warn(missing_docs)]

pub mod tap;
