//! The names of a network itself.

use std::collections::HashMap;
use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::Ipv4Net;

use super::message::{Name, Query, Rcode, Reply, Section, rtype};

/// Seconds that an answer about the network itself may be kept: addresses come and go.
const TTL: u32 = 10;
/// Aliases followed within the zone.
const MOST_ALIASES: usize = 8;

/// A record that a person put in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Data {
    /// An IPv4 address.
    A(Ipv4Addr),
    /// An IPv6 address.
    Aaaa(Ipv6Addr),
    /// Another name.
    Cname(Name),
    /// Text of at most 255 bytes.
    Txt(String),
}

impl Data {
    fn rtype(&self) -> u16 {
        match self {
            Self::A(_) => rtype::A,
            Self::Aaaa(_) => rtype::AAAA,
            Self::Cname(_) => rtype::CNAME,
            Self::Txt(_) => rtype::TXT,
        }
    }

    fn wire(&self) -> Vec<u8> {
        match self {
            Self::A(address) => address.octets().to_vec(),
            Self::Aaaa(address) => address.octets().to_vec(),
            Self::Cname(name) => name.wire().to_vec(),
            Self::Txt(text) => {
                let text = &text.as_bytes()[..text.len().min(255)];
                let mut wire = vec![u8::try_from(text.len()).unwrap_or(u8::MAX)];
                wire.extend(text);
                wire
            }
        }
    }
}

/// Who has which address in the network: leases and bindings.
pub trait Hosts {
    /// The address of the host with this one-label name.
    fn address_of(&self, name: &str) -> Option<Ipv4Addr>;
    /// The name of the host with this address.
    fn name_of(&self, address: Ipv4Addr) -> Option<String>;
}

/// What a zone says to a question.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// This.
    Answer(Vec<u8>),
    /// It is not the zone's to say.
    Elsewhere,
}

/// The names of a network: `NAME.NETWORK.DOMAIN`, their reverses, and records that people put in.
#[derive(Clone, Debug)]
pub struct Zone {
    /// `NETWORK.DOMAIN`
    pub origin: Name,
    /// `DOMAIN`: what is in it and not in the zone is nowhere.
    pub domain: Name,
    /// Addresses whose reverse names are the zone's.
    pub subnet: Ipv4Net,
    /// The gateway, which goes by the name `gateway`.
    pub gateway: Ipv4Addr,
    /// What people put in, by full name.
    pub records: HashMap<Name, Vec<Data>>,
}

impl Zone {
    pub(super) fn answer(&self, query: &Query, hosts: &dyn Hosts) -> Found {
        let question = &query.question;
        let own = question.name.is_in(&self.origin) || self.records.contains_key(&question.name);
        let reverse = question
            .name
            .reversed()
            .filter(|address| self.subnet.contains(address));
        // Asked without domain, as by who has no search list.
        let short = question.name.labels() == 1 && matches!(question.rtype, rtype::A | rtype::AAAA);
        let answer = if let Some(address) = reverse {
            let records = self.reverse(address, hosts);
            let exists = !records.is_empty();
            let asked = matches!(question.rtype, rtype::PTR | rtype::ANY);
            self.reply(query, if asked { &records } else { &[] }, exists)
        } else if own || short {
            self.forward(query, hosts)
        } else if question.name.is_in(&self.domain) {
            self.reply(query, &[], self.is_above(&question.name))
        } else {
            return Found::Elsewhere;
        };
        Found::Answer(answer)
    }

    /// Whether there is something below a name, which then exists (RFC 8020).
    fn is_above(&self, name: &Name) -> bool {
        self.origin.is_in(name) || self.records.keys().any(|own| own.is_in(name))
    }

    fn forward(&self, query: &Query, hosts: &dyn Hosts) -> Vec<u8> {
        let mut owner = query.question.name.clone();
        let mut records = Vec::new();
        let mut exists = false;
        for _ in 0..MOST_ALIASES {
            let data = self.records_of(&owner, hosts);
            exists = exists || !data.is_empty() || self.is_above(&owner);
            let alias = data.iter().find_map(|data| match data {
                Data::Cname(target) => Some(target.clone()),
                _ => None,
            });
            let wanted = |data: &&Data| {
                let asked = query.question.rtype;
                data.rtype() == asked || asked == rtype::ANY || data.rtype() == rtype::CNAME
            };
            records.extend(
                data.iter()
                    .filter(wanted)
                    .map(|data| (owner.clone(), data.rtype(), data.wire())),
            );
            match alias {
                Some(target) if query.question.rtype != rtype::CNAME => owner = target,
                _ => break,
            }
        }
        if query.question.name == self.origin
            && matches!(query.question.rtype, rtype::SOA | rtype::ANY)
        {
            records.push((self.origin.clone(), rtype::SOA, self.soa()));
        }
        if query.question.name == self.origin
            && matches!(query.question.rtype, rtype::NS | rtype::ANY)
        {
            records.push((
                self.origin.clone(),
                rtype::NS,
                self.server().wire().to_vec(),
            ));
        }
        self.reply(query, &records, exists)
    }

    fn records_of(&self, name: &Name, hosts: &dyn Hosts) -> Vec<Data> {
        let mut data = self.records.get(name).cloned().unwrap_or_default();
        // A host's name has one label.
        let root = Name::default();
        let label = name.host_in(&self.origin).or_else(|| name.host_in(&root));
        if let Some(label) = label {
            let address = if label == "gateway" {
                Some(self.gateway)
            } else {
                hosts.address_of(label)
            };
            data.extend(address.map(Data::A));
        }
        data
    }

    fn reverse(&self, address: Ipv4Addr, hosts: &dyn Hosts) -> Vec<(Name, u16, Vec<u8>)> {
        let label = if address == self.gateway {
            Some("gateway".to_owned())
        } else {
            hosts.name_of(address)
        };
        let name = label.and_then(|label| Name::parse(&label)?.within(&self.origin));
        name.map(|name| (Name::reverse(address), rtype::PTR, name.wire().to_vec()))
            .into_iter()
            .collect()
    }

    fn reply(&self, query: &Query, records: &[(Name, u16, Vec<u8>)], exists: bool) -> Vec<u8> {
        let rcode = if exists || !records.is_empty() {
            Rcode::NoError
        } else {
            Rcode::NxDomain
        };
        let mut reply = Reply::new(query, rcode, true);
        for (owner, rtype, data) in records {
            reply.add(Section::Answer, owner, *rtype, TTL, data);
        }
        // Not for an alias that leads out of the zone: whoever asks goes on from there.
        if records.is_empty() {
            let apex = self.apex(&query.question.name);
            reply.add(Section::Authority, &apex, rtype::SOA, TTL, &self.soa());
        }
        reply.finish()
    }

    /// The zone that says there is nothing at `name`; who is told believes it of names below the zone's (RFC 2308 section 2).
    fn apex(&self, name: &Name) -> Name {
        if name.is_in(&self.origin) {
            self.origin.clone()
        } else if name.is_in(&self.domain) {
            self.domain.clone()
        } else {
            let parent = name.reversed().map(|_| name.parent());
            parent.unwrap_or_else(|| name.clone())
        }
    }

    fn server(&self) -> Name {
        Name::parse("gateway")
            .and_then(|name| name.within(&self.origin))
            .unwrap_or_else(|| self.origin.clone())
    }

    /// Nobody transfers the zone: of these numbers only the last, for answers that there is nothing, means anything.
    fn soa(&self) -> Vec<u8> {
        let mut data = self.server().wire().to_vec();
        data.extend(
            Name::parse("hostmaster")
                .and_then(|name| name.within(&self.origin))
                .unwrap_or_else(|| self.origin.clone())
                .wire(),
        );
        for number in [1, 3600, 600, 86_400, TTL] {
            data.extend(number.to_be_bytes());
        }
        data
    }
}
