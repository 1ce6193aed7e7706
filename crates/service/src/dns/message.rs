//! DNS messages as bytes (RFC 1035 section 4, EDNS RFC 6891), as far as a forwarder of names has to know them.

pub use super::name::Name;

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

    /// Whether it asks for something other than records of the name: keys of a transaction, transfers of a zone (RFC 6895
    /// section 3.1).
    pub(in super::super) fn is_meta(rtype: u16) -> bool {
        matches!(rtype, OPT | 249..=252)
    }
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
    /// Only with EDNS, where its upper bits stand.
    BadVers = 16,
}

/// Bits of the second 16-bit word.
pub(super) mod flag {
    pub(in super::super) const RESPONSE: u16 = 0x8000;
    pub(in super::super) const OPCODE: u16 = 0x7800;
    pub(in super::super) const AUTHORITATIVE: u16 = 0x0400;
    pub(in super::super) const TRUNCATED: u16 = 0x0200;
    pub(in super::super) const RECURSION_DESIRED: u16 = 0x0100;
    pub(in super::super) const RECURSION_AVAILABLE: u16 = 0x0080;
    pub(in super::super) const AUTHENTIC_DATA: u16 = 0x0020;
    pub(in super::super) const CHECKING_DISABLED: u16 = 0x0010;
    pub(in super::super) const RCODE: u16 = 0x000f;
}

pub(super) const HEADER: usize = 12;
/// What every client takes over UDP.
pub const UDP_LIMIT: usize = 512;
/// What passes without fragments nearly everywhere; more goes over TCP (DNS flag day 2020).
pub const EDNS_LIMIT: usize = 1232;
/// Bit of an OPT record's TTL: DNSSEC records are welcome.
const DNSSEC_OK: u32 = 0x8000;
/// An OPT record without options.
pub(super) const OPT_LEN: usize = 11;

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
    /// Of EDNS: there is none but 0.
    pub version: u8,
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
    /// Replied to with this code, to a query with this number and these flags.
    Code(u16, u16, Rcode),
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
            return Err(Unfit::Code(id, flags, Rcode::NotImp));
        }
        let malformed = Unfit::Code(id, flags, Rcode::FormErr);
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
                let [_, version, ..] = record.ttl.to_be_bytes();
                edns = Some(Edns {
                    udp_size: record.class.max(512),
                    dnssec: record.ttl & DNSSEC_OK != 0,
                    version,
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

    /// As another resolver is asked it: only what concerns that one, which is not the client's number, nor its options.
    pub(super) fn ask(&self, id: u16) -> Vec<u8> {
        let kept = flag::RECURSION_DESIRED | flag::CHECKING_DISABLED | flag::AUTHENTIC_DATA;
        let mut bytes = Vec::with_capacity(HEADER + self.echo.len() + OPT_LEN);
        let edns = u16::from(self.edns.is_some());
        for word in [id, self.flags & kept, 1, 0, 0, edns] {
            bytes.extend(word.to_be_bytes());
        }
        bytes.extend(&self.echo);
        if let Some(edns) = self.edns {
            bytes.extend(opt(0, edns.dnssec));
        }
        bytes
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

/// An OPT record of ours: what we take, and the upper bits of a code.
fn opt(code: u8, dnssec: bool) -> [u8; OPT_LEN] {
    let [_, rtype] = rtype::OPT.to_be_bytes();
    let [high, low] = u16::try_from(EDNS_LIMIT).unwrap_or(u16::MAX).to_be_bytes();
    let [_, _, dnssec_ok, _] = if dnssec { DNSSEC_OK } else { 0 }.to_be_bytes();
    [0, 0, rtype, high, low, code, 0, dnssec_ok, 0, 0, 0]
}

/// An answer under construction: the records of a section follow those of the one before.
#[derive(Debug)]
pub(super) struct Reply {
    bytes: Vec<u8>,
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
        let flags = flag::RESPONSE
            | flag::RECURSION_AVAILABLE
            | asked
            | authority
            | u16::from(rcode as u8) & flag::RCODE;
        let mut bytes = Vec::with_capacity(UDP_LIMIT);
        for word in [query.id, flags, 1, 0, 0, 0] {
            bytes.extend(word.to_be_bytes());
        }
        bytes.extend(&query.echo);
        Self { bytes }
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
        // The question's name stands right behind the header.
        let question = self.bytes.get(HEADER..HEADER + owner.wire().len());
        let same = question.is_some_and(|question| question.eq_ignore_ascii_case(owner.wire()));
        let owner: &[u8] = if same { &[0xc0, 12] } else { owner.wire() };
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

    /// The message, to be [`fit`].
    pub(super) fn finish(self) -> Vec<u8> {
        self.bytes
    }
}

fn count(bytes: &mut [u8], word: usize) {
    let at = 2 * word;
    let number = u16::from_be_bytes([bytes[at], bytes[at + 1]]).saturating_add(1);
    bytes[at..at + 2].copy_from_slice(&number.to_be_bytes());
}

/// Makes `answer`, a response to `query` without EDNS, one that the client takes: cut to the question if it is longer than
/// `limit`, which says to come again over TCP, and with EDNS if the client has it.
pub(super) fn fit(mut answer: Vec<u8>, query: &Query, rcode: Rcode, limit: usize) -> Vec<u8> {
    let more = if query.edns.is_some() { OPT_LEN } else { 0 };
    if answer.len() + more > limit {
        answer.truncate(HEADER + query.echo.len());
        answer[2] |= (flag::TRUNCATED >> 8) as u8;
        answer[6..HEADER].fill(0);
    }
    if let Some(edns) = query.edns {
        answer.extend(opt(rcode as u8 >> 4, edns.dnssec));
        count(&mut answer, 5);
    }
    answer
}

/// Takes the OPT record out of a response, and with it whatever else follows: what it says is between us and who sent it. `None`
/// if the response is malformed, or has a code that only EDNS has.
pub(super) fn without_edns(bytes: &[u8]) -> Option<Vec<u8>> {
    let header = bytes.first_chunk::<HEADER>()?;
    let number = |word: usize| u16::from_be_bytes([header[2 * word], header[2 * word + 1]]);
    let mut at = skip_name(bytes, HEADER)? + 4;
    for _ in 0..u32::from(number(3)) + u32::from(number(4)) {
        at = Record::read(bytes, at)?.end;
    }
    let mut additional = 0u16;
    while additional < number(5) {
        let record = Record::read(bytes, at)?;
        if record.rtype == rtype::OPT {
            let [code, ..] = record.ttl.to_be_bytes();
            if code != 0 {
                return None;
            }
            break;
        }
        at = record.end;
        additional += 1;
    }
    let mut bytes = bytes.get(..at)?.to_vec();
    bytes[10..HEADER].copy_from_slice(&additional.to_be_bytes());
    Some(bytes)
}

/// A reply to what is no proper query: a header alone.
pub fn refuse(id: u16, flags: u16, rcode: Rcode) -> Vec<u8> {
    let mut bytes = vec![0; HEADER];
    bytes[..2].copy_from_slice(&id.to_be_bytes());
    let kept = flags & (flag::OPCODE | flag::RECURSION_DESIRED);
    let flags = flag::RESPONSE | kept | u16::from(rcode as u8) & flag::RCODE;
    bytes[2..4].copy_from_slice(&flags.to_be_bytes());
    bytes
}
