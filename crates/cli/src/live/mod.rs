//! What moves right now: counters and threads, read twice, and the rates between.
//!
//! [`Source::sample`] reads the switch (through the daemon or its control socket), the kernel's taps and /proc; [`Rates::between`] is
//! arithmetic on two samples and nothing else.

mod links;
mod rates;
mod source;
mod target;
mod threads;

use std::time::Duration;

use ringway_api::stats::PortStatistics;
use serde::Serialize;

pub(crate) use rates::{Flow, PortRates, QueueRates, Rates, ThreadRates};
pub(crate) use source::{Source, Whom, machines};
pub(crate) use target::Target;

/// Everything that was counted, at one moment.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sample {
    /// When, after a moment that all samples of a source share.
    pub(crate) at: Duration,
    /// The switch's process, where that is known.
    pub(crate) switch: Option<i32>,
    /// Whether there are counters of a switch in `ports`.
    pub(crate) counted: bool,
    /// Deliveries done and not done.
    pub(crate) delivered: u64,
    pub(crate) dropped: u64,
    /// The switch's ports.
    pub(crate) ports: Vec<PortStatistics>,
    /// Ports of the daemon that the kernel carries.
    pub(crate) taps: Vec<PortStatistics>,
    /// Every interface of the host, where they are wanted; rx is what the host received. Those in other network namespaces are named
    /// `NAMESPACE/INTERFACE`.
    pub(crate) links: Vec<PortStatistics>,
    pub(crate) threads: Vec<Thread>,
    /// Why something is missing, in a sentence.
    pub(crate) trouble: Option<String>,
}

/// A thread that carries frames, or runs what sends them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Thread {
    /// Its process.
    pub(crate) process: i32,
    pub(crate) id: i32,
    /// `switch`, the machine's name, or `qemu PID`.
    pub(crate) owner: String,
    pub(crate) role: Role,
    pub(crate) name: String,
    /// CPU time it has used, in nanoseconds.
    pub(crate) used: u64,
    /// The CPU it runs on, or ran on last.
    pub(crate) cpu: Option<u32>,
}

/// What a thread does for frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Role {
    /// Of the switch: carries frames.
    Worker,
    /// Of the kernel: carries frames between a tap and a guest.
    Vhost,
    /// Of QEMU: runs the guest.
    Vcpu,
    /// Of QEMU: disks, and NICs that were given to it.
    Io,
    /// Of QEMU: everything else, NICs in QEMU among it.
    Main,
    /// Of the switch: what is asked of it.
    Control,
    /// Helpers.
    Other,
}

impl Role {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Worker => "worker",
            Self::Vhost => "vhost",
            Self::Vcpu => "vcpu",
            Self::Io => "io",
            Self::Main => "main loop",
            Self::Control => "control",
            Self::Other => "helper",
        }
    }
}
