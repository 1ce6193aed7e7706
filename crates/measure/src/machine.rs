//! What is said of a machine beside figures.

use std::fs;

use serde::{Deserialize, Serialize};

/// The machine on which was measured.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    /// Of its processors, as the kernel calls it.
    pub model: String,
    /// Those that this process may run on.
    pub processors: usize,
    /// Megahertz of the first processor, when it was asked.
    pub mhz: f64,
    /// The kernel's release.
    pub kernel: String,
}

impl Machine {
    /// This one.
    pub fn here() -> Self {
        let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let field = |name: &str| {
            let line = text.lines().find(|line| line.starts_with(name))?;
            Some(line.split_once(':')?.1.trim().to_owned())
        };
        let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        Self {
            model: field("model name").unwrap_or_else(|| "unknown".into()),
            processors: std::thread::available_parallelism().map_or(0, usize::from),
            mhz: field("cpu MHz")
                .and_then(|mhz| mhz.parse().ok())
                .unwrap_or(0.0),
            kernel: release.trim().to_owned(),
        }
    }
}
