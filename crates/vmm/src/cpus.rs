//! Lists of the host's CPUs, as `taskset`, cpusets and libvirt write them: `0,2-3`.

use std::{collections::BTreeSet, fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// CPUs beyond are not in a `cpu_set_t`.
pub const MAX_CPU: u16 = 1023;

/// At least one CPU.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct CpuList(BTreeSet<u16>);

/// No list of CPUs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("give CPUs from 0 to {MAX_CPU} joined by commas, with - for ranges, such as 0,2-3")]
pub struct CpuListError;

impl CpuList {
    /// `None` if there are none, or one beyond [`MAX_CPU`].
    pub fn new(cpus: impl IntoIterator<Item = u16>) -> Option<Self> {
        let cpus: BTreeSet<u16> = cpus.into_iter().collect();
        let fits = cpus.last().is_some_and(|&last| last <= MAX_CPU);
        fits.then_some(Self(cpus))
    }

    /// Ascending.
    pub fn iter(&self) -> impl Iterator<Item = u16> {
        self.0.iter().copied()
    }

    /// The CPU of virtual CPU `index` when each gets one: in order, from the beginning again when there are fewer.
    pub fn nth_wrapping(&self, index: usize) -> u16 {
        let chosen = self.0.iter().nth(index % self.0.len());
        chosen.copied().unwrap_or_default()
    }
}

impl FromStr for CpuList {
    type Err = CpuListError;

    fn from_str(text: &str) -> Result<Self, CpuListError> {
        let number = |text: &str| {
            let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            digits.then(|| text.parse::<u16>().ok()).flatten()
        };
        let mut cpus = BTreeSet::new();
        for part in text.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let range = number(first).zip(number(last)).ok_or(CpuListError)?;
            if range.0 > range.1 || range.1 > MAX_CPU {
                return Err(CpuListError);
            }
            cpus.extend(range.0..=range.1);
        }
        Self::new(cpus).ok_or(CpuListError)
    }
}

impl fmt::Display for CpuList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut ranges: Vec<(u16, u16)> = Vec::new();
        for cpu in self.iter() {
            match ranges.last_mut() {
                Some((_, last)) if *last + 1 == cpu => *last = cpu,
                _ => ranges.push((cpu, cpu)),
            }
        }
        for (index, (first, last)) in ranges.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            match first == last {
                true => write!(f, "{comma}{first}")?,
                false => write!(f, "{comma}{first}-{last}")?,
            }
        }
        Ok(())
    }
}

impl TryFrom<String> for CpuList {
    type Error = CpuListError;

    fn try_from(text: String) -> Result<Self, CpuListError> {
        text.parse()
    }
}

impl From<CpuList> for String {
    fn from(list: CpuList) -> Self {
        list.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_written_as_short_as_they_can_be() {
        for (given, written) in [
            ("0", "0"),
            ("3,1,2", "1-3"),
            ("0-1,4,6-7", "0-1,4,6-7"),
            ("5-5", "5"),
        ] {
            assert_eq!(given.parse::<CpuList>().unwrap().to_string(), written);
        }
        for wrong in ["", "a", "1,", "2-1", "1024", "-1", "+1", "1-", "1 2"] {
            assert!(wrong.parse::<CpuList>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn with_fewer_cpus_than_virtual_ones_it_begins_again() {
        let list: CpuList = "4,6".parse().unwrap();
        let chosen: Vec<_> = (0..5).map(|index| list.nth_wrapping(index)).collect();
        assert_eq!(chosen, [4, 6, 4, 6, 4]);
    }
}
