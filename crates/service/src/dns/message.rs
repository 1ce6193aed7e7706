//! DNS messages as bytes (RFC 1035 section 4, EDNS RFC 6891), as far as a forwarder of names has to know them.

use std::fmt;

/// Types of records.
pub mod rtype {
    #![allow(missing_docs)]
    pub const A: u16 = 1;
    pub const NS: u16 = 2;
    pub const CNAME: u16 = 5;
    pub const SOA: u16 = 6;
    pub const PTR: u16 = 12;
    pub const TXT: u16 = 16;
    pub const AAAA: u16 = 28;
    pub const OPT: u16 = 41;
    pub const ANY: u16 = 255;
}

/// The Internet's class.
pub const CLASS_IN: u16 = 1;

/// Response codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
#[allow(missing_docs)]
pub enum Rcode {
    NoError = 0,
    FormErr = 1,
    ServFail = 2,
    NxDomain = 3,
    NotImp = 4,
    Refused = 5,
}

/// Bits of the second 16-bit word.
pub(super) mod flag {
    pub(in super::super) const RESPONSE: u16 = 0x8000;
    pub(in super::super) const OPCODE: u16 = 0x7800;
    pub(in super::super) const AUTHORITATIVE: u16 = 0x0400;
    pub(in super::super) const TRUNCATED: u16 = 0x0200;
    pub(in super::super) const RECURSION_DESIRED: u16 = 0x0100;
    pub(in super::super) const RECURSION_AVAILABLE: u16 = 0x0080;
    pub(in super::super) const CHECKING_DISABLED: u16 = 0x0010;
    pub(in super::super) const RCODE: u16 = 0x000f;
}

pub(super) const HEADER: usize = 12;
/// What every client takes over UDP.
pub const UDP_LIMIT: usize = 512;
/// What passes without fragments nearly everywhere; more goes over TCP (DNS flag day 2020).
pub const EDNS_LIMIT: usize = 1232;
const LONGEST_NAME: usize = 255;
/// Bit of an OPT record's TTL: DNSSEC records are welcome.
const DNSSEC_OK: u32 = 0x8000;

/// A domain name: labels in wire form, lower case, the root's empty one at the end.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(Vec<u8>);

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
        let text = self.to_string();
        let mut numbers = text.strip_suffix(".in-addr.arpa")?.split('.').rev();
        let mut octets = [0u8; 4];
        for octet in &mut octets {
            let number = numbers.next()?;
            *octet = number
                .parse()
                .ok()
                .filter(|n: &u8| n.to_string() == number)?;
        }
        numbers.next().is_none().then(|| octets.into())
    }

    /// This name followed by `domain`'s labels.
    pub fn within(&self, domain: &Self) -> Option<Self> {
        let mut wire = self.0[..self.0.len() - 1].to_vec();
        wire.extend(&domain.0);
        (wire.len() <= LONGEST_NAME).then_some(Self(wire))
    }

    /// Labels before `domain`, as text; `None` if the name is not in it. The domain itself gives an empty text.
    pub fn before(&self, domain: &Self) -> Option<String> {
        let mut at = 0;
        while at < self.0.len() {
            if self.0[at..] == domain.0 {
                let mut wire = self.0[..at].to_vec();
                wire.push(0);
                return Some(Self(wire).to_string());
            }
            at += usize::from(self.0[at]) + 1;
        }
        None
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
    fn read(bytes: &[u8], mut at: usize) -> Option<(Self, usize)> {
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

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Question {
    /// About which name.
    pub name: Name,
    /// Which type of record.
    pub rtype: u16,
    /// Of which class.
    pub class: u16,
}

/// What a client says it can take (RFC 6891).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Edns {
    /// Bytes over UDP, at least 512.
    pub udp_size: u16,
    /// DNSSEC records too.
    pub dnssec: bool,
}

/// A query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    /// Its number.
    pub id: u16,
    /// The second word.
    pub(super) flags: u16,
    /// The question.
    pub question: Question,
    /// The question as it came: case and all.
    pub(super) echo: Vec<u8>,
    /// EDNS, if the client has it.
    pub edns: Option<Edns>,
}

/// Why bytes get no answer that answers, and the number and code to reply with, if any.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unfit {
    /// Nothing to reply to: too short, or itself a response.
    Nothing,
    /// Replied to with this code.
    Code(u16, Rcode),
}

impl Query {
    /// Reads a query.
    pub fn parse(bytes: &[u8]) -> Result<Self, Unfit> {
        let header = bytes.first_chunk::<HEADER>().ok_or(Unfit::Nothing)?;
        let word = |index: usize| u16::from_be_bytes([header[2 * index], header[2 * index + 1]]);
        let (id, flags) = (word(0), word(1));
        if flags & flag::RESPONSE != 0 {
            return Err(Unfit::Nothing);
        }
        if flags & flag::OPCODE != 0 {
            return Err(Unfit::Code(id, Rcode::NotImp));
        }
        let malformed = Unfit::Code(id, Rcode::FormErr);
        if (word(2), word(3), word(4)) != (1, 0, 0) || word(5) > 2 {
            return Err(malformed);
        }
        let (name, end) = Name::read(bytes, HEADER).ok_or(malformed)?;
        let rest = bytes.get(end..end + 4).ok_or(malformed)?;
        let question = Question {
            name,
            rtype: u16::from_be_bytes([rest[0], rest[1]]),
            class: u16::from_be_bytes([rest[2], rest[3]]),
        };
        let mut at = end + 4;
        let echo = bytes[HEADER..at].to_vec();
        let mut edns = None;
        for _ in 0..word(5) {
            let record = Record::read(bytes, at).ok_or(malformed)?;
            if record.rtype == rtype::OPT {
                if edns.is_some() {
                    return Err(malformed);
                }
                edns = Some(Edns {
                    udp_size: record.class.max(512),
                    dnssec: record.ttl & DNSSEC_OK != 0,
                });
            }
            at = record.end;
        }
        Ok(Self {
            id,
            flags,
            question,
            echo,
            edns,
        })
    }

    /// Bytes an answer over UDP may have.
    pub fn udp_limit(&self) -> usize {
        self.edns
            .map_or(UDP_LIMIT, |edns| usize::from(edns.udp_size).min(EDNS_LIMIT))
    }
}

/// Where a record lies in a message, and its fixed fields.
#[derive(Clone, Copy, Debug)]
pub(super) struct Record {
    pub(super) rtype: u16,
    pub(super) class: u16,
    pub(super) ttl: u32,
    /// Where the TTL is.
    pub(super) ttl_at: usize,
    /// Where the data begins.
    pub(super) data: usize,
    /// Where it ends.
    pub(super) end: usize,
}

impl Record {
    pub(super) fn read(bytes: &[u8], at: usize) -> Option<Self> {
        let at = skip_name(bytes, at)?;
        let fixed = bytes.get(at..at + 10)?;
        let end = at + 10 + usize::from(u16::from_be_bytes([fixed[8], fixed[9]]));
        (end <= bytes.len()).then_some(Self {
            rtype: u16::from_be_bytes([fixed[0], fixed[1]]),
            class: u16::from_be_bytes([fixed[2], fixed[3]]),
            ttl: u32::from_be_bytes([fixed[4], fixed[5], fixed[6], fixed[7]]),
            ttl_at: at + 4,
            data: at + 10,
            end,
        })
    }
}

/// Where a name ends that may be compressed: pointers are not followed.
pub(super) fn skip_name(bytes: &[u8], mut at: usize) -> Option<usize> {
    loop {
        let len = *bytes.get(at)?;
        match len {
            0 => return Some(at + 1),
            1..=63 => at += usize::from(len) + 1,
            0xc0.. => return Some(at + 2).filter(|end| *end <= bytes.len()),
            _ => return None,
        }
    }
}

/// An answer under construction: the records of a section follow those of the one before.
#[derive(Debug)]
pub(super) struct Reply {
    bytes: Vec<u8>,
    edns: bool,
}

/// Sections of records, by their place among the header's words.
#[derive(Clone, Copy)]
pub(super) enum Section {
    Answer = 3,
    Authority = 4,
}

impl Reply {
    /// To `query`, from who is the authority or is not.
    pub(super) fn new(query: &Query, rcode: Rcode, authoritative: bool) -> Self {
        let asked = query.flags & (flag::RECURSION_DESIRED | flag::CHECKING_DISABLED);
        let authority = if authoritative {
            flag::AUTHORITATIVE
        } else {
            0
        };
        let flags =
            flag::RESPONSE | flag::RECURSION_AVAILABLE | asked | authority | u16::from(rcode as u8);
        let mut bytes = Vec::with_capacity(UDP_LIMIT);
        for word in [query.id, flags, 1, 0, 0, 0] {
            bytes.extend(word.to_be_bytes());
        }
        bytes.extend(&query.echo);
        Self {
            bytes,
            edns: query.edns.is_some(),
        }
    }

    /// Adds a record; `data` without compression.
    pub(super) fn add(
        &mut self,
        section: Section,
        owner: &Name,
        rtype: u16,
        ttl: u32,
        data: &[u8],
    ) {
        let question = Name::read(&self.bytes, HEADER).is_some_and(|(name, _)| name == *owner);
        // The question's name stands right behind the header.
        let owner: &[u8] = if question { &[0xc0, 12] } else { owner.wire() };
        self.bytes.extend(owner);
        self.bytes.extend(rtype.to_be_bytes());
        self.bytes.extend(CLASS_IN.to_be_bytes());
        self.bytes.extend(ttl.to_be_bytes());
        self.bytes
            .extend(u16::try_from(data.len()).unwrap_or(u16::MAX).to_be_bytes());
        self.bytes
            .extend(&data[..data.len().min(usize::from(u16::MAX))]);
        count(&mut self.bytes, section as usize);
    }

    /// The message, cut to the question if it is longer than `limit`.
    pub(super) fn finish(mut self, limit: usize) -> Vec<u8> {
        if self.edns {
            self.bytes.push(0);
            self.bytes.extend(rtype::OPT.to_be_bytes());
            self.bytes
                .extend(u16::try_from(EDNS_LIMIT).unwrap_or(u16::MAX).to_be_bytes());
            self.bytes.extend([0; 6]);
            count(&mut self.bytes, 5);
        }
        if self.bytes.len() > limit {
            truncated(&self.bytes)
        } else {
            self.bytes
        }
    }
}

fn count(bytes: &mut [u8], word: usize) {
    let at = 2 * word;
    let number = u16::from_be_bytes([bytes[at], bytes[at + 1]]).saturating_add(1);
    bytes[at..at + 2].copy_from_slice(&number.to_be_bytes());
}

/// Header and question of a response, with the mark that says to come again over TCP.
pub(super) fn truncated(bytes: &[u8]) -> Vec<u8> {
    let end = Name::read(bytes, HEADER)
        .map_or(HEADER, |(_, end)| end + 4)
        .min(bytes.len());
    let mut cut = bytes[..end].to_vec();
    cut[2] |= (flag::TRUNCATED >> 8) as u8;
    cut[6..HEADER].fill(0);
    cut
}

/// A reply to what is no proper query: a header alone.
pub fn refuse(id: u16, rcode: Rcode) -> Vec<u8> {
    let mut bytes = vec![0; HEADER];
    bytes[..2].copy_from_slice(&id.to_be_bytes());
    bytes[2..4].copy_from_slice(&(flag::RESPONSE | u16::from(rcode as u8)).to_be_bytes());
    bytes
}
