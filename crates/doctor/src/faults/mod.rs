//! The table of faults: what a person sees, why it is so, how it is told from facts, and what cures it.
//!
//! A chapter is a file. A fault that is in the table is in docs/TROUBLESHOOTING.md, and the other way round.

mod device;
mod driver;
mod firewall;
mod guest;
mod host;
mod offload;
mod passthrough;
mod path;
mod qemu;
mod queues;
mod resources;
mod scene;
mod socket;
mod tap;
mod user;

use crate::Facts;

/// All faults, by chapter.
pub const TABLE: &[Chapter] = &[
    tap::CHAPTER,
    path::CHAPTER,
    firewall::CHAPTER,
    offload::CHAPTER,
    socket::CHAPTER,
    device::CHAPTER,
    queues::CHAPTER,
    driver::CHAPTER,
    guest::CHAPTER,
    qemu::CHAPTER,
    host::CHAPTER,
    resources::CHAPTER,
    passthrough::CHAPTER,
];

/// Faults of one kind of thing.
#[derive(Debug)]
pub struct Chapter {
    /// Its heading.
    pub title: &'static str,
    /// What is in it.
    pub faults: &'static [Fault],
}

/// Something that can be wrong.
#[derive(Debug)]
pub struct Fault {
    /// Its name, as findings and `--ignore` have it.
    pub name: &'static str,
    /// What a person sees: messages and behaviour.
    pub seen: &'static [&'static str],
    /// Why it happens.
    pub cause: &'static str,
    /// Why it matters, in one clause.
    pub why: &'static str,
    /// The cure in general, with placeholders in capitals.
    pub cure: &'static [&'static str],
    /// Whether it is there.
    pub judge: fn(&Facts) -> Vec<Sign>,
}

/// One place where a fault is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sign {
    /// The machine, if it concerns one.
    pub machine: Option<String>,
    /// The thing.
    pub subject: String,
    /// What is wrong with it.
    pub what: String,
    /// The exact commands.
    pub cure: Vec<String>,
}
