//! Limits on what a port may do to the others.

use std::{fmt, str::FromStr};

use super::value::{ValueError, number};

pub(super) const STORM: &str =
    "off, or flooded frames per second from 1, with k or M for thousands or millions, such as 10k";
pub(super) const BURST: &str = "bytes from 1, with k or M for thousands or millions, such as 256k; the default is what passes in 5 ms, 65557 at least";
pub(super) const MACS: &str = "a number of addresses from 1 to 131072";

/// Most addresses that are learned behind one port.
pub const MAX_MACS: u32 = 131_072;

/// How many frames of a port may be flooded: broadcasts, multicasts, frames to addresses not learned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Storm {
    /// Any number.
    Off,
    /// So many per second, at least 1.
    FramesPerSecond(u64),
}

impl FromStr for Storm {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        match text {
            "off" => Ok(Self::Off),
            _ => count(text)
                .map(Self::FramesPerSecond)
                .ok_or(ValueError(STORM)),
        }
    }
}

impl fmt::Display for Storm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => f.write_str("off"),
            Self::FramesPerSecond(frames) => f.write_str(&short(*frames)),
        }
    }
}

const SUFFIXES: [(char, u64); 2] = [('M', 1_000_000), ('k', 1_000)];

/// A number from 1 that may end in `k` or `M`.
pub(super) fn count(text: &str) -> Option<u64> {
    let (digits, unit) = SUFFIXES
        .iter()
        .find_map(|&(suffix, unit)| Some((text.strip_suffix(suffix)?, unit)))
        .unwrap_or((text, 1));
    number::<u64>(digits)?
        .checked_mul(unit)
        .filter(|&count| count > 0)
}

/// The same number, written with the longest suffix that loses nothing.
pub(super) fn short(count: u64) -> String {
    let unit = SUFFIXES
        .iter()
        .find(|&&(_, unit)| count.is_multiple_of(unit));
    unit.map_or_else(
        || count.to_string(),
        |(suffix, unit)| format!("{}{suffix}", count / unit),
    )
}
