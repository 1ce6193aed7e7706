//! Clients of DNS that ask for anything, and resolvers that answer anything: whatever they say, an answer is one to the question, within
//! what the client takes, and can be read.
//!
//! An input is a series of queries. Each begins with how it is asked (bit 0: bytes as they are, without a header before; bit 1: over TCP;
//! bit 2: a resolver says bytes as they are; bits 3 to 5: how many records are said to follow), the seconds since the last, and its
//! length. What is forwarded takes its response from what follows, after a length.

#![no_main]

use std::net::Ipv4Addr;

use libfuzzer_sys::fuzz_target;
use ringway_service::dns::message::Name;
use ringway_service::dns::{Data, Decision, Hosts, Resolver, Transport, Zone};

const HEADER: usize = 12;

struct Web;

impl Hosts for Web {
    fn address_of(&self, name: &str) -> Option<Ipv4Addr> {
        (name == "web").then_some(Ipv4Addr::new(10, 0, 0, 5))
    }

    fn name_of(&self, address: Ipv4Addr) -> Option<String> {
        (address == Ipv4Addr::new(10, 0, 0, 5)).then(|| "web".into())
    }
}

fuzz_target!(|input: &[u8]| {
    let mut resolver = Resolver::new(zone());
    let mut now = 0;
    let mut rest = input;
    while let [how, passed, more @ ..] = rest {
        now += u64::from(*passed);
        let (message, after) = chunk(more);
        rest = after;
        let mut query = message.to_vec();
        if how & 1 == 0 {
            query = vec![0xab, 0xcd, 1, 0, 0, 1, 0, 0, 0, 0, 0, how >> 3 & 3];
            query.extend(message);
        }
        let transport = if how & 2 == 0 {
            Transport::Udp
        } else {
            Transport::Tcp
        };
        match resolver.query(&query, transport, &Web, now) {
            Decision::Answer(answer) => check(&query, &answer, transport),
            Decision::Ignore => assert!(query.len() < HEADER || query[2] & 0x80 != 0),
            Decision::Forward(pending) => {
                let (said, after) = chunk(rest);
                rest = after;
                let asked = pending.ask(7);
                assert!(!pending.is_answered_by(7, &asked), "a query is no answer");
                let mut response = said.to_vec();
                if how & 4 == 0 {
                    let end = skip_name(&asked, HEADER).unwrap() + 4;
                    response = asked[..end].to_vec();
                    response[2] |= 0x80;
                    (response[7], response[11]) = (how >> 3 & 3, how >> 5 & 1);
                    response.extend(said);
                }
                let answer = if pending.is_answered_by(7, &response) {
                    resolver.response(&pending, &response, now)
                } else {
                    pending.give_up()
                };
                check(&query, &answer, transport);
            }
        }
    }
});

fn zone() -> Zone {
    let mut zone = Zone::new(
        "lan",
        "ringway",
        "10.0.0.0/24".parse().unwrap(),
        Ipv4Addr::new(10, 0, 0, 1),
    )
    .unwrap();
    let name = |text: &str| Name::parse(text).unwrap();
    let records = [
        ("www.lan.ringway", Data::Cname(name("web.lan.ringway"))),
        ("loop.lan.ringway", Data::Cname(name("loop.lan.ringway"))),
        ("a.b.lan.ringway", Data::Txt("text".repeat(60))),
    ];
    for (owner, data) in records {
        zone.records.entry(name(owner)).or_default().push(data);
    }
    let texts = (0..9).map(|n| Data::Txt(format!("{n:0200}")));
    zone.records
        .insert(name("big.lan.ringway"), texts.collect());
    zone
}

/// A length and as many bytes, and what follows.
fn chunk(bytes: &[u8]) -> (&[u8], &[u8]) {
    match bytes {
        [len, more @ ..] => more.split_at(usize::from(*len).min(more.len())),
        [] => (&[], &[]),
    }
}

fn check(query: &[u8], answer: &[u8], transport: Transport) {
    assert!(answer.len() >= HEADER);
    assert_eq!(answer[..2], query[..2], "another number");
    assert!(answer[2] & 0x80 != 0, "no response");
    let limit = match transport {
        Transport::Tcp => usize::from(u16::MAX),
        Transport::Udp if query[10..HEADER] == [0, 0] => 512,
        Transport::Udp => 1232,
    };
    assert!(answer.len() <= limit, "{} bytes", answer.len());
    let count = |section: usize| u16::from_be_bytes([answer[2 * section], answer[2 * section + 1]]);
    let mut at = HEADER;
    assert!(count(2) <= 1);
    if count(2) == 1 {
        at = skip_name(answer, at).expect("a question") + 4;
        assert_eq!(answer[HEADER..at], query[HEADER..at], "another question");
    }
    for _ in 0..u32::from(count(3)) + u32::from(count(4)) + u32::from(count(5)) {
        at = skip_name(answer, at).expect("an owner") + 10;
        let len = [answer[at - 2], answer[at - 1]];
        at += usize::from(u16::from_be_bytes(len));
        assert!(at <= answer.len(), "a record beyond the end");
    }
    assert_eq!(at, answer.len(), "something behind the end");
}

/// Where a name ends, compressed or not.
fn skip_name(bytes: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match *bytes.get(at)? {
            0 => return Some(at + 1),
            0xc0.. => return Some(at + 2),
            len => at += usize::from(len) + 1,
        }
    }
}
