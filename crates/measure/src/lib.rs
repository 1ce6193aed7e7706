//! Measures the paths a frame can take on this machine: runs, statistics, tables, plots.

#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod confidence;
pub mod machine;
pub mod paths;
pub mod processors;
pub mod statistics;
pub mod switch;
