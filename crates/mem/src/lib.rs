//! Guest memory: regions, address table, volatile copies, dirty log, SIGBUS guard; and words that outlive the process.
//!
//! A guest's memory is a [`GuestMemory`]: an immutable table of mapped regions, made from the files that a vhost-user front-end sends
//! ([`GuestMemory::map`]) or of our own ([`GuestMemory::heap`]). Guest physical addresses become bounded slices ([`ReadSlice`],
//! [`WriteSlice`]); ring addresses, which are the front-end's virtual addresses, become an [`Area`] of words.
//!
//! Three rules hold everywhere in this crate:
//!
//! - No Rust reference ever points into shared memory. The guest may write any byte at any time, so bytes cross by routines that
//!   are opaque to the compiler, and words by volatile or atomic accesses.
//! - A slice lives no longer than the memory it lies in, so nothing is unmapped under a reader.
//! - The front-end may shrink a file that we have mapped. Touching the missing pages raises SIGBUS: [`sigbus`] puts zeroed pages in
//!   place and marks the memory as poisoned, which [`GuestMemory::is_poisoned`] tells before anything is published.

#![warn(missing_docs)]

mod area;
mod copy;
mod error;
pub mod io;
mod log;
mod region;
pub mod sigbus;
mod slice;
mod table;
mod words;

pub use area::{Area, fence};
pub use error::MemoryError;
pub use log::DirtyLog;
pub use region::{MappedFile, RegionInfo, RegionRequest};
pub use slice::{ReadSlice, WriteSlice};
pub use table::{GuestMemory, LastHit, MAX_REGIONS};
pub use words::{WordFile, Words};
