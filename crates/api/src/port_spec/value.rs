//! The values in a specification that have a form of their own.

use std::{fmt, ops::RangeInclusive, str::FromStr};

use serde::{Deserialize, Serialize};

use super::MAX_NAME;

/// A value that has not its key's form; says what is allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("give {0}")]
pub struct ValueError(pub(super) &'static str);

/// What a port or anti-spoofing address may be.
pub(super) const MAC: &str = "a unicast address of six hexadecimal pairs such as 02:00:00:00:00:01";
pub(super) const RATE: &str =
    "bits per second from 1, with k, M or G for thousands, millions or billions, such as 100M";
pub(super) const VLAN: &str = "a VLAN from 1 to 4094";
pub(super) const TRUNK: &str =
    "VLANs from 1 to 4094 joined by +, with - for ranges, such as 10+20-29";
pub(super) const INTERFACE: &str =
    "an interface name of 1 to 15 bytes without space, '/', ':' or '%'";
pub(super) const NAME: &str = "a name of 1 to 64 bytes without spaces or control characters";

/// An Ethernet address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(try_from = "String", into = "String")]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// Whether a NIC can have the address: not a group address and not all zero.
    pub fn is_unicast(self) -> bool {
        self.0[0] & 1 == 0 && self.0 != [0; 6]
    }
}

impl FromStr for Mac {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let wrong = ValueError("six hexadecimal pairs such as 02:00:00:00:00:01");
        let mut octets = [0; 6];
        let mut pairs = text.split(':');
        for octet in &mut octets {
            let pair = pairs.next().ok_or(wrong)?;
            if pair.len() != 2 || !pair.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                return Err(wrong);
            }
            *octet = u8::from_str_radix(pair, 16).map_err(|_| wrong)?;
        }
        if pairs.next().is_some() {
            Err(wrong)
        } else {
            Ok(Self(octets))
        }
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// A rate in bits per second, at least 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(try_from = "String", into = "String")]
pub struct Rate {
    bits_per_second: u64,
}

impl Rate {
    /// `None` for 0: a port that may send nothing is one to remove.
    pub fn new(bits_per_second: u64) -> Option<Self> {
        (bits_per_second > 0).then_some(Self { bits_per_second })
    }

    /// Bits per second.
    pub fn bits_per_second(self) -> u64 {
        self.bits_per_second
    }
}

const SUFFIXES: [(char, u64); 3] = [('G', 1_000_000_000), ('M', 1_000_000), ('k', 1_000)];

impl FromStr for Rate {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let (digits, unit) = SUFFIXES
            .iter()
            .find_map(|&(suffix, unit)| Some((text.strip_suffix(suffix)?, unit)))
            .unwrap_or((text, 1));
        number::<u64>(digits)
            .and_then(|count| count.checked_mul(unit))
            .and_then(Self::new)
            .ok_or(ValueError(RATE))
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match SUFFIXES
            .iter()
            .find(|&&(_, unit)| self.bits_per_second.is_multiple_of(unit))
        {
            Some((suffix, unit)) => write!(f, "{}{suffix}", self.bits_per_second / unit),
            None => write!(f, "{}", self.bits_per_second),
        }
    }
}

/// A non-empty set of VLANs from 1 to 4094, kept as ascending ranges that do not touch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct VlanSet {
    ranges: Vec<RangeInclusive<u16>>,
}

impl VlanSet {
    /// From ranges in any order; `None` if there is none, one is empty or one leaves 1..=4094.
    pub fn new(mut ranges: Vec<RangeInclusive<u16>>) -> Option<Self> {
        if ranges.is_empty()
            || ranges
                .iter()
                .any(|r| r.is_empty() || *r.start() < 1 || *r.end() > 4094)
        {
            return None;
        }
        ranges.sort_by_key(|range| *range.start());
        let mut merged: Vec<RangeInclusive<u16>> = Vec::with_capacity(ranges.len());
        for range in ranges {
            match merged.last_mut() {
                Some(last) if *range.start() <= last.end() + 1 => {
                    *last = *last.start()..=*last.end().max(range.end())
                }
                _ => merged.push(range),
            }
        }
        Some(Self { ranges: merged })
    }

    /// Whether the VLAN is in the set.
    pub fn contains(&self, vlan: u16) -> bool {
        self.ranges.iter().any(|range| range.contains(&vlan))
    }

    /// The ranges, ascending, none touching the next.
    pub fn ranges(&self) -> &[RangeInclusive<u16>] {
        &self.ranges
    }
}

impl FromStr for VlanSet {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let range = |item: &str| {
            let (first, last) = item.split_once('-').unwrap_or((item, item));
            Some(number(first)?..=number(last)?)
        };
        text.split('+')
            .map(range)
            .collect::<Option<Vec<_>>>()
            .and_then(Self::new)
            .ok_or(ValueError(TRUNK))
    }
}

impl fmt::Display for VlanSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, range) in self.ranges.iter().enumerate() {
            let plus = if index > 0 { "+" } else { "" };
            match (range.start(), range.end()) {
                (first, last) if first == last => write!(f, "{plus}{first}")?,
                (first, last) => write!(f, "{plus}{first}-{last}")?,
            }
        }
        Ok(())
    }
}

/// The name of a network interface as the kernel accepts it: 1 to 15 bytes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(try_from = "String", into = "String")]
pub struct InterfaceName(String);

impl InterfaceName {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for InterfaceName {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        // As dev_valid_name() in the kernel's net/core/dev.c; '%' besides, which makes the kernel choose a number.
        let forbidden =
            |c: char| matches!(c, '/' | ':' | '%') || c.is_whitespace() || c.is_control();
        if !(1..=15).contains(&text.len()) || matches!(text, "." | "..") || text.contains(forbidden)
        {
            return Err(ValueError(INTERFACE));
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for InterfaceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

pub(super) fn check_name(text: &str) -> Result<(), ValueError> {
    let forbidden = |c: char| c.is_whitespace() || c.is_control();
    if (1..=MAX_NAME).contains(&text.len()) && !text.contains(forbidden) {
        Ok(())
    } else {
        Err(ValueError(NAME))
    }
}

/// Digits only: `FromStr` of integers takes a sign too.
pub(super) fn number<T: FromStr>(text: &str) -> Option<T> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    text.parse().ok()
}

macro_rules! text_form {
    ($($kind:ty),*) => {$(
        impl TryFrom<String> for $kind {
            type Error = <$kind as FromStr>::Err;

            fn try_from(text: String) -> Result<Self, Self::Error> {
                text.parse()
            }
        }

        impl From<$kind> for String {
            fn from(value: $kind) -> String {
                value.to_string()
            }
        }
    )*};
}

text_form!(
    Mac,
    Rate,
    VlanSet,
    super::Storm,
    super::PortSpec,
    InterfaceName
);
