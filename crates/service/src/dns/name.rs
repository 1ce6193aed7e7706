//! Domain names (RFC 1035 section 3.1).

use std::fmt;

const LONGEST_NAME: usize = 255;

/// A domain name: labels in wire form, lower case, the root's empty one at the end.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(Vec<u8>);

impl Default for Name {
    /// The root.
    fn default() -> Self {
        Self(vec![0])
    }
}

impl Name {
    /// From text such as `web.lan.ringway`, with or without a dot at the end. `None` if a label is empty or longer than 63 bytes,
    /// or all longer than 255.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.strip_suffix('.').unwrap_or(text);
        let mut wire = Vec::with_capacity(text.len() + 2);
        for label in text.split('.').filter(|_| !text.is_empty()) {
            wire.push(
                u8::try_from(label.len())
                    .ok()
                    .filter(|len| (1..64).contains(len))?,
            );
            wire.extend(label.bytes().map(|byte| byte.to_ascii_lowercase()));
        }
        wire.push(0);
        (wire.len() <= LONGEST_NAME).then_some(Self(wire))
    }

    /// The name for the reverse look-up of an IPv4 address (RFC 1035 section 3.5).
    pub fn reverse(address: std::net::Ipv4Addr) -> Self {
        let [a, b, c, d] = address.octets();
        Self::parse(&format!("{d}.{c}.{b}.{a}.in-addr.arpa")).unwrap_or(Self(vec![0]))
    }

    /// The address whose reverse name this is.
    pub fn reversed(&self) -> Option<std::net::Ipv4Addr> {
        let mut rest = self.0.strip_suffix(b"\x07in-addr\x04arpa\0")?;
        let mut octets = [0u8; 4];
        for octet in octets.iter_mut().rev() {
            let (len, label) = rest.split_first()?;
            let (digits, after) = label.split_at_checked(usize::from(*len))?;
            rest = after;
            // 01 is no number here, nor is +1.
            if digits.first() == Some(&b'0') && digits.len() > 1
                || !digits.iter().all(u8::is_ascii_digit)
            {
                return None;
            }
            *octet = std::str::from_utf8(digits).ok()?.parse().ok()?;
        }
        rest.is_empty().then(|| octets.into())
    }

    /// This name followed by `domain`'s labels.
    pub fn within(&self, domain: &Self) -> Option<Self> {
        let mut wire = self.0[..self.0.len() - 1].to_vec();
        wire.extend(&domain.0);
        (wire.len() <= LONGEST_NAME).then_some(Self(wire))
    }

    /// Whether it is `domain`, or a name in it.
    pub fn is_in(&self, domain: &Self) -> bool {
        self.length_before(domain).is_some()
    }

    /// The label before `domain`, if there is exactly one.
    pub fn host_in(&self, domain: &Self) -> Option<&str> {
        let before = self.length_before(domain)?;
        let label = self.0[..before].get(1..)?;
        let one = usize::from(self.0[0]) == label.len();
        std::str::from_utf8(label).ok().filter(|_| one)
    }

    fn length_before(&self, domain: &Self) -> Option<usize> {
        let before = self.0.len().checked_sub(domain.0.len())?;
        let mut at = 0;
        while at < before {
            at += usize::from(self.0[at]) + 1;
        }
        (at == before && self.0[at..] == domain.0).then_some(at)
    }

    /// Without its first label; the root's is itself.
    pub fn parent(&self) -> Self {
        let first = usize::from(self.0[0]);
        let at = if first == 0 { 0 } else { first + 1 };
        Self(self.0[at..].to_vec())
    }

    /// How many labels it has, the root's not counted.
    pub fn labels(&self) -> usize {
        let (mut at, mut count) = (0, 0);
        while self.0[at] != 0 {
            at += usize::from(self.0[at]) + 1;
            count += 1;
        }
        count
    }

    /// Labels with their lengths, the root's at the end.
    pub fn wire(&self) -> &[u8] {
        &self.0
    }

    /// The name at `at`, without compression, and where it ends.
    pub(super) fn read(bytes: &[u8], mut at: usize) -> Option<(Self, usize)> {
        let begin = at;
        loop {
            let len = usize::from(*bytes.get(at)?);
            if len > 63 || at - begin + len + 1 > LONGEST_NAME {
                return None;
            }
            at += len + 1;
            if len == 0 {
                let wire = bytes.get(begin..at)?.to_ascii_lowercase();
                return Some((Self(wire), at));
            }
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut at = 0;
        while self.0[at] != 0 {
            if at > 0 {
                f.write_str(".")?;
            }
            let end = at + 1 + usize::from(self.0[at]);
            f.write_str(&String::from_utf8_lossy(&self.0[at + 1..end]))?;
            at = end;
        }
        Ok(())
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}.")
    }
}
