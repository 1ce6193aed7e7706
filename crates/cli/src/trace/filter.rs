//! Which frames are shown: a small language of words.

use std::net::IpAddr;

use ringway_wire::MacAddress;

use super::frame::Frame;

/// An expression.
#[derive(Debug, PartialEq)]
pub(super) enum Filter {
    All,
    Address(IpAddr),
    Mac(MacAddress),
    Port(u16),
    Vlan(u16),
    Protocol(String),
    Broadcast,
    Multicast,
    Inbound(bool),
    Not(Box<Self>),
    And(Box<Self>, Box<Self>),
    Or(Box<Self>, Box<Self>),
}

const PROTOCOLS: [&str; 9] = [
    "arp", "ip", "ip6", "tcp", "udp", "icmp", "icmp6", "dhcp", "dns",
];
/// Parentheses and `not` within each other at most.
const DEEPEST: usize = 50;

impl Filter {
    /// Reads words; an argument may have several of them.
    pub(super) fn parse(arguments: &[String]) -> Result<Self, String> {
        let text = arguments.join(" ").replace('(', " ( ").replace(')', " ) ");
        let words: Vec<_> = text.split_whitespace().map(str::to_lowercase).collect();
        if words.is_empty() {
            return Ok(Self::All);
        }
        let mut parser = Parser {
            words: &words,
            at: 0,
            depth: 0,
        };
        let filter = parser.either()?;
        match parser.next() {
            None => Ok(filter),
            Some(word) => Err(format!("filter: `{word}` has no beginning: take it out")),
        }
    }

    pub(super) fn matches(&self, frame: &Frame, inbound: bool) -> bool {
        match self {
            Self::All => true,
            Self::Address(address) => {
                let found = frame.addresses;
                found.is_some_and(|(from, to)| from == *address || to == *address)
            }
            Self::Mac(mac) => frame.source == *mac || frame.destination == *mac,
            Self::Port(port) => {
                let found = frame.ports;
                found.is_some_and(|(from, to)| from == *port || to == *port)
            }
            Self::Vlan(vlan) => frame.vlan == Some(*vlan),
            Self::Protocol(name) => frame.is(name),
            Self::Broadcast => frame.destination.is_broadcast(),
            Self::Multicast => {
                frame.destination.is_multicast() && !frame.destination.is_broadcast()
            }
            Self::Inbound(wanted) => inbound == *wanted,
            Self::Not(filter) => !filter.matches(frame, inbound),
            Self::And(a, b) => a.matches(frame, inbound) && b.matches(frame, inbound),
            Self::Or(a, b) => a.matches(frame, inbound) || b.matches(frame, inbound),
        }
    }
}

struct Parser<'w> {
    words: &'w [String],
    at: usize,
    depth: usize,
}

impl<'w> Parser<'w> {
    fn next(&mut self) -> Option<&'w str> {
        let word = self.words.get(self.at)?;
        self.at += 1;
        Some(word)
    }

    fn is_next(&mut self, word: &str) -> bool {
        let is_next = self.words.get(self.at).is_some_and(|next| next == word);
        self.at += usize::from(is_next);
        is_next
    }

    fn either(&mut self) -> Result<Filter, String> {
        let mut filter = self.both()?;
        while self.is_next("or") {
            filter = Filter::Or(filter.into(), self.both()?.into());
        }
        Ok(filter)
    }

    fn both(&mut self) -> Result<Filter, String> {
        let mut filter = self.one()?;
        loop {
            let next = self.words.get(self.at).map(String::as_str);
            if matches!(next, None | Some("or" | ")")) {
                return Ok(filter);
            }
            self.is_next("and");
            filter = Filter::And(filter.into(), self.one()?.into());
        }
    }

    fn one(&mut self) -> Result<Filter, String> {
        let Some(word) = self.next() else {
            return Err("filter: something has to follow the last word".into());
        };
        Ok(match word {
            "not" | "!" => Filter::Not(self.deeper(Self::one)?.into()),
            "(" => {
                let filter = self.deeper(Self::either)?;
                if !self.is_next(")") {
                    return Err("filter: a `)` is missing".into());
                }
                filter
            }
            "host" | "ether" => self.host()?,
            "port" => Filter::Port(self.number("port", u16::MAX)?),
            "vlan" => Filter::Vlan(self.number("vlan", 4094)?),
            "broadcast" => Filter::Broadcast,
            "multicast" => Filter::Multicast,
            "in" => Filter::Inbound(true),
            "out" => Filter::Inbound(false),
            "proto" => {
                let name = self.next().unwrap_or_default();
                protocol(name).ok_or_else(|| {
                    format!("filter: proto `{name}` is not known: take one of {}", PROTOCOLS.join(", "))
                })?
            }
            other => protocol(other).ok_or_else(|| {
                format!(
                    "filter: `{other}` is not known: take host, port, vlan, broadcast, multicast, in, out, and, or, not, or one of {}",
                    PROTOCOLS.join(", ")
                )
            })?,
        })
    }

    fn deeper(&mut self, part: fn(&mut Self) -> Result<Filter, String>) -> Result<Filter, String> {
        self.depth += 1;
        if self.depth > DEEPEST {
            return Err(format!(
                "filter: more than {DEEPEST} `not` and `(` within each other"
            ));
        }
        let filter = part(self)?;
        self.depth -= 1;
        Ok(filter)
    }

    fn host(&mut self) -> Result<Filter, String> {
        let word = self.next().unwrap_or_default();
        if let Ok(address) = word.parse() {
            return Ok(Filter::Address(address));
        }
        let mac = word.parse().map(Filter::Mac);
        mac.map_err(|_| {
            format!("filter: host `{word}` is no address: give such as 10.0.0.5, fd00::5 or 52:54:00:12:34:56")
        })
    }

    fn number(&mut self, what: &str, most: u16) -> Result<u16, String> {
        let word = self.next().unwrap_or_default();
        let number = word.parse().ok().filter(|number| *number <= most);
        number.ok_or_else(|| format!("filter: {what} `{word}`: give a number from 0 to {most}"))
    }
}

fn protocol(name: &str) -> Option<Filter> {
    let known = PROTOCOLS.contains(&name);
    known.then(|| Filter::Protocol(name.to_owned()))
}

#[cfg(test)]
mod tests {
    use ringway_wire::build::FrameBuilder;

    use super::*;

    fn parse(text: &str) -> Result<Filter, String> {
        Filter::parse(&[text.to_owned()])
    }

    #[test]
    fn words_side_by_side_bind_more_than_or() {
        let bytes = FrameBuilder::ipv4([10, 0, 0, 1].into(), [10, 0, 0, 2].into())
            .macs(MacAddress([2; 6]), MacAddress([0xff; 6]))
            .udp(1000, 53)
            .build(b"name");
        let frame = Frame::new(&bytes);
        for (text, expected) in [
            ("", true),
            ("host 10.0.0.2 port 53", true),
            ("host 10.0.0.3 or proto dns", true),
            ("arp or tcp and port 53", false),
            ("(arp or udp) and port 53", true),
            ("not (arp or udp)", false),
            ("not not udp", true),
            ("HOST 02:02:02:02:02:02 in broadcast", true),
            ("out", false),
            ("multicast", false),
            ("vlan 5", false),
            ("host fd00::1", false),
        ] {
            let filter = parse(text).unwrap();
            assert_eq!(filter.matches(&frame, true), expected, "{text}");
        }
    }

    #[test]
    fn what_cannot_be_meant_is_told_with_the_way_out() {
        for (text, part) in [
            ("host", "host `` is no address"),
            ("host nobody", "10.0.0.5"),
            ("port 70000", "0 to 65535"),
            ("proto smtp", "dhcp, dns"),
            ("tcp and", "has to follow"),
            ("(tcp", "`)` is missing"),
            ("tcp)", "`)` has no beginning"),
            ("smtp", "`smtp` is not known"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
        assert!(parse(&"not ".repeat(1000)).is_err());
        assert!(parse(&"( ".repeat(1000)).is_err());
    }
}
