//! Names of networks, ports and virtual machines. They become labels in DNS, so they have a label's form.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// 1 to 63 of `a-z`, `0-9` and `-`, with no `-` at either end (RFC 1123, section 2.1). Upper case is read as lower case.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(try_from = "String", into = "String")]
pub struct Name(String);

/// No name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no name: give 1 to 63 letters, digits and -, with a letter or digit at both ends"
)]
pub struct NameError(String);

impl Name {
    /// The name, in lower case.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Name {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let lower = text.to_ascii_lowercase();
        let inside = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        let fits = (1..=63).contains(&lower.len())
            && lower.bytes().all(inside)
            && !lower.starts_with('-')
            && !lower.ends_with('-');
        if fits {
            Ok(Self(lower))
        } else {
            Err(NameError(text.to_owned()))
        }
    }
}

impl TryFrom<String> for Name {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl From<Name> for String {
    fn from(name: Name) -> Self {
        name.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_labels_rfc_1123_2_1() {
        for text in ["a", "web-1", "0x", &"a".repeat(63)] {
            assert_eq!(text.parse::<Name>().unwrap().as_str(), text);
        }
        assert_eq!("Web".parse::<Name>().unwrap().as_str(), "web");
        for text in ["", "-a", "a-", "a.b", "a_b", "ä", "a b", &"a".repeat(64)] {
            assert_eq!(text.parse::<Name>(), Err(NameError(text.into())));
        }
    }
}
