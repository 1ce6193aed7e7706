//! Networks as a model: what a person asked for, checked and completed, and the steps that lead from one state to another.
//!
//! Nothing here touches the host; steps are carried out, and undone, by the daemon.

#![forbid(unsafe_code)]
#![warn(missing_docs)]
