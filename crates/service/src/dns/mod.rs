//! The DNS of a network: its own names, and a way to ask others.
//!
//! [`Resolver::query`] answers what it can at once; for the rest it says what to ask another resolver. Whoever holds the sockets
//! sends that, and puts what comes back into [`Resolver::response`]. A response is believed if it answers the question that was
//! asked, with the number that was chosen for it; choosing unforeseeable numbers and ports is up to the holder of the sockets.

mod cache;
pub mod message;
mod name;
mod zone;

use std::collections::BTreeMap;

use cache::Cache;
use message::{
    CLASS_IN, Name, Query, Rcode, Reply, Unfit, fit, flag, refuse, rtype, skip_name, without_edns,
};
use zone::Found;

pub use zone::{Data, Hosts, Zone};

/// Responses kept for a network.
const CACHED: usize = 10_000;

/// How a query came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// In a datagram: the answer has to fit into what the client takes.
    Udp,
    /// On a stream.
    Tcp,
}

/// What to do with a query.
#[derive(Debug)]
pub enum Decision {
    /// Send this back.
    Answer(Vec<u8>),
    /// Ask another resolver; see [`Pending::ask`].
    Forward(Pending),
    /// Say nothing.
    Ignore,
}

/// A query that another resolver is asked.
#[derive(Clone, Debug)]
pub struct Pending {
    query: Query,
    transport: Transport,
}

impl Pending {
    /// What to send, under the number `id`.
    pub fn ask(&self, id: u16) -> Vec<u8> {
        self.query.ask(id)
    }

    /// Whether `response` answers what was asked under `id`.
    pub fn is_answered_by(&self, id: u16, response: &[u8]) -> bool {
        let Some(end) = skip_name(response, message::HEADER).map(|end| end + 4) else {
            return false;
        };
        let question = response.get(message::HEADER..end);
        response[..2] == id.to_be_bytes()
            && response[2] & (flag::RESPONSE >> 8) as u8 != 0
            && response[4..6] == [0, 1]
            && question.is_some_and(|question| {
                let (name, kind) = question.split_at(question.len() - 4);
                let (own, asked) = self.query.echo.split_at(self.query.echo.len() - 4);
                name.eq_ignore_ascii_case(own) && kind == asked
            })
    }

    /// Whether a resolver says that it cannot or will not say, so that another may be asked.
    pub fn is_no_help(response: &[u8]) -> bool {
        let code = response.get(3).map(|byte| u16::from(*byte) & flag::RCODE);
        !matches!(code, Some(0 | 3))
    }

    /// Whether the resolver says that there is more than fits into a datagram.
    pub fn wants_tcp(response: &[u8]) -> bool {
        response
            .get(2)
            .is_some_and(|byte| byte & (flag::TRUNCATED >> 8) as u8 != 0)
    }

    /// What to say when no resolver answered.
    pub fn give_up(&self) -> Vec<u8> {
        self.short(Rcode::ServFail)
    }

    /// A refusal to ask anybody else.
    pub fn refuse(&self) -> Vec<u8> {
        self.short(Rcode::Refused)
    }

    fn short(&self, rcode: Rcode) -> Vec<u8> {
        let reply = Reply::new(&self.query, rcode, false).finish();
        fit(reply, &self.query, rcode, self.limit())
    }

    fn fit(&self, answer: Vec<u8>) -> Vec<u8> {
        fit(answer, &self.query, Rcode::NoError, self.limit())
    }

    fn limit(&self) -> usize {
        match self.transport {
            Transport::Udp => self.query.udp_limit(),
            Transport::Tcp => usize::from(u16::MAX),
        }
    }
}

/// The DNS of one network.
#[derive(Debug)]
pub struct Resolver {
    zone: Zone,
    cache: Cache,
    counters: BTreeMap<&'static str, u64>,
}

impl Resolver {
    /// For the names of `zone`.
    pub fn new(zone: Zone) -> Self {
        Self {
            zone,
            cache: Cache::new(CACHED),
            counters: BTreeMap::new(),
        }
    }

    /// Answers with other names from now on.
    pub fn set_zone(&mut self, zone: Zone) {
        self.zone = zone;
    }

    /// Forgets what others said, for when there are other resolvers to ask.
    pub fn forget(&mut self) {
        self.cache.clear();
    }

    /// What became of how many queries, and how many responses are kept.
    pub fn counters(&self) -> BTreeMap<&'static str, u64> {
        let mut counters = self.counters.clone();
        counters.insert("dns_cached", self.cache.len() as u64);
        counters
    }

    /// What to do with a query at `now` seconds since any moment.
    pub fn query(
        &mut self,
        bytes: &[u8],
        transport: Transport,
        hosts: &dyn Hosts,
        now: u64,
    ) -> Decision {
        let (event, decision) = self.decide(bytes, transport, hosts, now);
        self.count(event);
        decision
    }

    fn decide(
        &self,
        bytes: &[u8],
        transport: Transport,
        hosts: &dyn Hosts,
        now: u64,
    ) -> (&'static str, Decision) {
        let query = match Query::parse(bytes) {
            Ok(query) => query,
            Err(Unfit::Nothing) => return ("dns_ignored", Decision::Ignore),
            Err(Unfit::Code(id, flags, rcode)) => {
                return ("dns_malformed", Decision::Answer(refuse(id, flags, rcode)));
            }
        };
        let pending = Pending { query, transport };
        let query = &pending.query;
        if query.edns.is_some_and(|edns| edns.version != 0) {
            return (
                "dns_refused",
                Decision::Answer(pending.short(Rcode::BadVers)),
            );
        }
        if query.question.class != CLASS_IN || rtype::is_meta(query.question.rtype) {
            return ("dns_refused", Decision::Answer(pending.refuse()));
        }
        if let Found::Answer(answer) = self.zone.answer(query, hosts) {
            return ("dns_local", Decision::Answer(pending.fit(answer)));
        }
        if let Some(answer) = self.cache.get(query, now) {
            return ("dns_hits", Decision::Answer(pending.fit(answer)));
        }
        // Who does not want recursion gets nothing from others.
        if query.flags & flag::RECURSION_DESIRED == 0 {
            return ("dns_refused", Decision::Answer(pending.refuse()));
        }
        ("dns_forwarded", Decision::Forward(pending))
    }

    /// What to send the client, of what another resolver answered; see [`Pending::is_answered_by`].
    pub fn response(&mut self, pending: &Pending, response: &[u8], now: u64) -> Vec<u8> {
        let Some(mut answer) = without_edns(response) else {
            return pending.give_up();
        };
        self.cache.put(&pending.query, &answer, now);
        address_to(&mut answer, &pending.query);
        pending.fit(answer)
    }

    /// Counts something that became of a query outside.
    pub fn count(&mut self, event: &'static str) {
        *self.counters.entry(event).or_default() += 1;
    }
}

/// Makes a response one to `query`: its number, its bits, its spelling of the name.
fn address_to(bytes: &mut [u8], query: &Query) {
    let Some(&[_, _, high, low]) = bytes.first_chunk() else {
        return;
    };
    bytes[..2].copy_from_slice(&query.id.to_be_bytes());
    let own = u16::from_be_bytes([high, low]);
    let asked = flag::RECURSION_DESIRED | flag::CHECKING_DISABLED;
    let flags =
        own & !(asked | flag::AUTHORITATIVE) | query.flags & asked | flag::RECURSION_AVAILABLE;
    bytes[2..4].copy_from_slice(&flags.to_be_bytes());
    if let Some(question) = bytes.get_mut(message::HEADER..message::HEADER + query.echo.len()) {
        question.copy_from_slice(&query.echo);
    }
}

impl Zone {
    /// A zone for the network `name` under `domain`; `None` if these make no name.
    pub fn new(
        name: &str,
        domain: &str,
        subnet: ipnet::Ipv4Net,
        gateway: std::net::Ipv4Addr,
    ) -> Option<Self> {
        let domain = Name::parse(domain)?;
        let origin = Name::parse(name)?.within(&domain)?;
        Some(Self {
            origin,
            domain,
            subnet,
            gateway,
            records: Default::default(),
        })
    }
}

#[cfg(test)]
mod tests;
