//! What is slow or broken between a virtual machine and its network, why, and the command that cures it.
//!
//! [`gather`] looks at a host and its machines and writes down [`facts`], which can be saved and sent. [`judge`] makes [`Finding`]s
//! of facts and of nothing else: the same facts give the same findings wherever they are judged. What it knows is one table,
//! [`faults::TABLE`], of which docs/TROUBLESHOOTING.md is made.

#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod at_once;
pub mod command;
pub mod facts;
pub mod faults;
pub mod finding;
pub mod gather;
mod judge;
pub mod troubleshooting;

pub use at_once::at_once;
pub use facts::Facts;
pub use finding::{Finding, visible};
pub use judge::judge;
