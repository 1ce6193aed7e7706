//! Responses of other resolvers, kept as long as they say.

use std::collections::{HashMap, VecDeque};

use super::message::{HEADER, OPT_LEN, Query, Question, Rcode, Record, flag, rtype, skip_name};

/// Longest time in seconds that anything is kept.
const LONGEST: u32 = 86_400;
/// Bytes of responses kept for a network: a guest that asks for long ones shall not have them all.
const MOST: usize = 16 << 20;

/// What a response depends on besides the question.
type Key = (Question, bool, bool);

fn key(query: &Query) -> Key {
    (
        query.question.clone(),
        query.edns.is_some_and(|edns| edns.dnssec),
        query.flags & flag::CHECKING_DISABLED != 0,
    )
}

#[derive(Debug)]
struct Entry {
    bytes: Vec<u8>,
    /// Where the times to live stand.
    ttls: Vec<usize>,
    since: u64,
    until: u64,
}

/// Responses by question. The oldest go first when it is full.
#[derive(Debug)]
pub(super) struct Cache {
    limit: usize,
    entries: HashMap<Key, Entry>,
    order: VecDeque<Key>,
    /// Of all responses.
    bytes: usize,
}

impl Cache {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            limit,
            entries: HashMap::new(),
            order: VecDeque::new(),
            bytes: 0,
        }
    }

    /// The response to `query` at `now`, with times to live as they are by now.
    pub(super) fn get(&self, query: &Query, now: u64) -> Option<Vec<u8>> {
        let entry = self
            .entries
            .get(&key(query))
            .filter(|entry| now < entry.until)?;
        let age = u32::try_from(now.saturating_sub(entry.since)).unwrap_or(u32::MAX);
        let mut bytes = Vec::with_capacity(entry.bytes.len() + OPT_LEN);
        bytes.extend(&entry.bytes);
        for &at in &entry.ttls {
            let Some(field) = bytes.get_mut(at..at + 4) else {
                continue;
            };
            let ttl = u32::from_be_bytes([field[0], field[1], field[2], field[3]]);
            field.copy_from_slice(&ttl.saturating_sub(age).to_be_bytes());
        }
        super::address_to(&mut bytes, query);
        Some(bytes)
    }

    /// Keeps a response, if it is one to keep.
    pub(super) fn put(&mut self, query: &Query, bytes: &[u8], now: u64) {
        let Some((ttl, ttls)) = lifetime(bytes) else {
            return;
        };
        if ttl == 0 || self.limit == 0 {
            return;
        }
        let key = key(query);
        let entry = Entry {
            bytes: bytes.to_vec(),
            ttls,
            since: now,
            until: now + u64::from(ttl.min(LONGEST)),
        };
        self.bytes += bytes.len();
        match self.entries.insert(key.clone(), entry) {
            Some(old) => self.bytes -= old.bytes.len(),
            None => self.order.push_back(key),
        }
        while (self.entries.len() > self.limit || self.bytes > MOST)
            && let Some(oldest) = self.order.pop_front()
        {
            let old = self.entries.remove(&oldest);
            self.bytes -= old.map_or(0, |old| old.bytes.len());
        }
    }

    pub(super) fn clear(&mut self) {
        self.entries.clear();
        self.order.clear();
        self.bytes = 0;
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }
}

/// How long a response may be kept and where its times to live stand; `None` if it is not to be kept (RFC 2308 for those that
/// say that there is nothing).
fn lifetime(bytes: &[u8]) -> Option<(u32, Vec<usize>)> {
    let header = bytes.first_chunk::<HEADER>()?;
    let word = |index: usize| u16::from_be_bytes([header[2 * index], header[2 * index + 1]]);
    let rcode = word(1) & flag::RCODE;
    let there_is_none = rcode == Rcode::NxDomain as u16;
    if word(1) & flag::TRUNCATED != 0
        || (rcode != Rcode::NoError as u16 && !there_is_none)
        || word(2) != 1
    {
        return None;
    }
    let mut at = skip_name(bytes, HEADER)? + 4;
    let (mut shortest, mut negative) = (None::<u32>, None);
    let mut ttls = Vec::new();
    for section in [3, 4, 5] {
        for _ in 0..word(section) {
            let record = Record::read(bytes, at)?;
            at = record.end;
            if record.rtype == rtype::OPT {
                continue;
            }
            ttls.push(record.ttl_at);
            // The top bit means 0 (RFC 2181 section 8).
            let ttl = if record.ttl >> 31 == 1 { 0 } else { record.ttl };
            shortest = Some(shortest.map_or(ttl, |shortest| shortest.min(ttl)));
            if section == 4 && record.rtype == rtype::SOA {
                let minimum = bytes.get(record.data..record.end)?.last_chunk::<4>()?;
                negative = Some(ttl.min(u32::from_be_bytes(*minimum)));
            }
        }
    }
    let nothing = there_is_none || word(3) == 0;
    let ttl = if nothing {
        negative?.min(shortest?)
    } else {
        shortest?
    };
    Some((ttl, ttls))
}
