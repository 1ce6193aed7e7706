use std::collections::HashMap;
use std::net::Ipv4Addr;

use proptest::prelude::*;

use super::message::{CLASS_IN, HEADER, Record, rtype};
use super::*;

const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);

/// `web` at 10.0.0.5.
struct Web;

impl Hosts for Web {
    fn address_of(&self, name: &str) -> Option<Ipv4Addr> {
        (name == "web").then_some(Ipv4Addr::new(10, 0, 0, 5))
    }

    fn name_of(&self, address: Ipv4Addr) -> Option<String> {
        (address == Ipv4Addr::new(10, 0, 0, 5)).then(|| "web".into())
    }
}

fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}

fn resolver() -> Resolver {
    let mut zone = Zone::new("lan", "ringway", "10.0.0.0/24".parse().unwrap(), GATEWAY).unwrap();
    zone.records = HashMap::from([
        (
            name("www.lan.ringway"),
            vec![Data::Cname(name("web.lan.ringway"))],
        ),
        (
            name("out.lan.ringway"),
            vec![Data::Cname(name("example.org"))],
        ),
        (
            name("loop.lan.ringway"),
            vec![Data::Cname(name("loop.lan.ringway"))],
        ),
        (
            name("text.lan.ringway"),
            vec![
                Data::Txt("hello".into()),
                Data::Aaaa("fd00::5".parse().unwrap()),
            ],
        ),
        (
            name("big.lan.ringway"),
            (0..20).map(|n| Data::Txt(format!("{n:0100}"))).collect(),
        ),
        (
            name("corp.example"),
            vec![Data::A(Ipv4Addr::new(192, 0, 2, 7))],
        ),
    ]);
    Resolver::new(zone)
}

/// A query as clients send it; `edns` is the size they take.
fn ask(text: &str, rtype: u16, edns: Option<u16>) -> Vec<u8> {
    let mut bytes = vec![
        0xab,
        0xcd,
        1,
        0,
        0,
        1,
        0,
        0,
        0,
        0,
        0,
        u8::from(edns.is_some()),
    ];
    bytes.extend(name(text).wire());
    bytes.extend(rtype.to_be_bytes());
    bytes.extend(CLASS_IN.to_be_bytes());
    if let Some(size) = edns {
        bytes.extend([0, 0, 41]);
        bytes.extend(size.to_be_bytes());
        bytes.extend([0; 6]);
    }
    bytes
}

/// Code, answers and types of authorities.
type Read = (u8, Vec<(u16, Vec<u8>)>, Vec<u16>);

/// A response's code, the types and data of its answers, and the types of its authorities.
fn read(bytes: &[u8]) -> Read {
    let mut at = skip_name(bytes, HEADER).unwrap() + 4;
    let mut section = |count: u8| {
        let mut records = Vec::new();
        for _ in 0..count {
            let record = Record::read(bytes, at).unwrap();
            at = record.end;
            records.push((record.rtype, bytes[record.data..record.end].to_vec()));
        }
        records
    };
    let answers = section(bytes[7]);
    let authorities = section(bytes[9])
        .into_iter()
        .map(|(rtype, _)| rtype)
        .collect();
    let additional: Vec<u16> = section(bytes[11])
        .into_iter()
        .map(|(rtype, _)| rtype)
        .collect();
    assert!(additional.is_empty() || additional == [rtype::OPT]);
    assert_eq!(at, bytes.len());
    (bytes[3] & 15, answers, authorities)
}

fn answered(decision: Decision) -> Vec<u8> {
    match decision {
        Decision::Answer(bytes) => bytes,
        other => panic!("{other:?}"),
    }
}

fn forwarded(decision: Decision) -> Pending {
    match decision {
        Decision::Forward(pending) => pending,
        other => panic!("{other:?}"),
    }
}

fn local(text: &str, kind: u16) -> Read {
    read(&answered(resolver().query(
        &ask(text, kind, None),
        Transport::Udp,
        &Web,
        0,
    )))
}

#[test]
fn names_of_the_network_are_answered() {
    let web = vec![(rtype::A, vec![10, 0, 0, 5])];
    let alias = (rtype::CNAME, name("web.lan.ringway").wire().to_vec());
    let soa = vec![rtype::SOA];
    for (text, kind, code, answers, authorities) in [
        ("web.lan.ringway", rtype::A, 0, web.clone(), vec![]),
        ("WEB.lan.Ringway", rtype::A, 0, web.clone(), vec![]),
        ("web", rtype::A, 0, web.clone(), vec![]),
        ("web.lan.ringway", rtype::AAAA, 0, vec![], soa.clone()),
        (
            "www.lan.ringway",
            rtype::A,
            0,
            vec![alias.clone(), web[0].clone()],
            vec![],
        ),
        (
            "www.lan.ringway",
            rtype::CNAME,
            0,
            vec![alias.clone()],
            vec![],
        ),
        (
            "gateway.lan.ringway",
            rtype::A,
            0,
            vec![(rtype::A, vec![10, 0, 0, 1])],
            vec![],
        ),
        (
            "text.lan.ringway",
            rtype::TXT,
            0,
            vec![(rtype::TXT, b"\x05hello".to_vec())],
            vec![],
        ),
        (
            "corp.example",
            rtype::A,
            0,
            vec![(rtype::A, vec![192, 0, 2, 7])],
            vec![],
        ),
        ("lan.ringway", rtype::A, 0, vec![], soa.clone()),
        ("nobody.lan.ringway", rtype::A, 3, vec![], soa.clone()),
        ("a.web.lan.ringway", rtype::A, 3, vec![], soa.clone()),
        ("web.other.ringway", rtype::A, 3, vec![], soa.clone()),
        ("nobody", rtype::AAAA, 3, vec![], soa.clone()),
        (
            "5.0.0.10.in-addr.arpa",
            rtype::PTR,
            0,
            vec![(rtype::PTR, name("web.lan.ringway").wire().to_vec())],
            vec![],
        ),
        (
            "1.0.0.10.in-addr.arpa",
            rtype::PTR,
            0,
            vec![(rtype::PTR, name("gateway.lan.ringway").wire().to_vec())],
            vec![],
        ),
        ("6.0.0.10.in-addr.arpa", rtype::PTR, 3, vec![], soa.clone()),
    ] {
        assert_eq!(
            local(text, kind),
            (code, answers, authorities),
            "{text} {kind}"
        );
    }
    assert_eq!(
        local("out.lan.ringway", rtype::A).1.len(),
        1,
        "the alias alone"
    );
    assert!(local("loop.lan.ringway", rtype::A).1.len() <= 8);
    assert_eq!(local("text.lan.ringway", rtype::ANY).1.len(), 2);
    assert_eq!(local("lan.ringway", rtype::SOA).1[0].0, rtype::SOA);
}

#[test]
fn what_does_not_fit_is_asked_for_again_over_tcp() {
    let mut resolver = resolver();
    for (transport, edns, fits) in [
        (Transport::Udp, None, false),
        (Transport::Udp, Some(4096), false),
        (Transport::Tcp, None, true),
    ] {
        let bytes = answered(resolver.query(
            &ask("big.lan.ringway", rtype::TXT, edns),
            transport,
            &Web,
            0,
        ));
        assert_eq!(bytes[2] & 2 == 0, fits);
        assert_eq!(read(&bytes).1.len(), if fits { 20 } else { 0 });
    }
    let bytes = answered(resolver.query(
        &ask("web.lan.ringway", rtype::A, Some(600)),
        Transport::Udp,
        &Web,
        0,
    ));
    assert_eq!(bytes[11], 1, "EDNS is answered with EDNS");
}

/// What another resolver says: one address with this time to live, or that there is none.
fn response(query: &[u8], code: u8, ttl: u32) -> Vec<u8> {
    let mut bytes = query.to_vec();
    (bytes[2], bytes[3]) = (0x81, 0x80 | code);
    let (section, kind, data) = if code == 0 {
        (7, rtype::A, vec![192, 0, 2, 1])
    } else {
        let mut soa = vec![0, 0];
        soa.extend([0; 16]);
        soa.extend(ttl.to_be_bytes());
        (9, rtype::SOA, soa)
    };
    bytes[section] = 1;
    bytes.extend([0xc0, 12]);
    bytes.extend(kind.to_be_bytes());
    bytes.extend([0, 1]);
    bytes.extend(ttl.to_be_bytes());
    bytes.extend([0, u8::try_from(data.len()).unwrap()]);
    bytes.extend(data);
    bytes
}

#[test]
fn other_names_are_asked_of_others_and_kept_as_long_as_they_say() {
    let mut resolver = resolver();
    let query = ask("example.org", rtype::A, None);
    let pending = forwarded(resolver.query(&query, Transport::Udp, &Web, 100));
    let asked = pending.ask(7);
    assert_eq!((&asked[..2], &asked[2..]), (&[0, 7][..], &query[2..]));
    let said = response(&asked, 0, 60);
    assert!(
        pending.is_answered_by(7, &said)
            && !pending.is_answered_by(8, &said)
            && !pending.is_answered_by(7, &asked)
    );
    assert!(!pending.is_answered_by(7, &response(&ask("example.com", rtype::A, None), 0, 60)));
    assert_eq!(resolver.response(&pending, &said, 100)[..2], [0xab, 0xcd]);
    // As it was spelled this time, with what is left of its time.
    let mut shouted = ask("example.org", rtype::A, None);
    shouted[13..20].make_ascii_uppercase();
    let hit = answered(resolver.query(&shouted, Transport::Udp, &Web, 130));
    assert_eq!(hit[HEADER..HEADER + 13], shouted[HEADER..HEADER + 13]);
    assert_eq!(Record::read(&hit, shouted.len()).unwrap().ttl, 30);
    forwarded(resolver.query(&query, Transport::Udp, &Web, 160));
    // Who has EDNS gets it, from us; who wants signatures too gets another response.
    let mut edns = ask("example.org", rtype::A, Some(1232));
    let hit = answered(resolver.query(&edns, Transport::Udp, &Web, 130));
    assert_eq!(hit[hit.len() - 11..], [0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0]);
    let at = edns.len() - 4;
    edns[at] = 0x80;
    forwarded(resolver.query(&edns, Transport::Udp, &Web, 130));
    assert_eq!(
        (
            resolver.counters()["dns_hits"],
            resolver.counters()["dns_forwarded"]
        ),
        (2, 3)
    );
    resolver.forget();
    forwarded(resolver.query(&query, Transport::Udp, &Web, 130));
}

#[test]
fn that_there_is_nothing_is_kept_too_and_failures_are_not_rfc_2308() {
    let mut resolver = resolver();
    for (text, code, kept) in [("no.example.org", 3, true), ("bad.example.org", 2, false)] {
        let query = ask(text, rtype::A, None);
        let pending = forwarded(resolver.query(&query, Transport::Udp, &Web, 0));
        resolver.response(&pending, &response(&query, code, 60), 0);
        let again = resolver.query(&query, Transport::Udp, &Web, 59);
        assert_eq!(matches!(again, Decision::Answer(_)), kept, "{text}");
    }
}

#[test]
fn a_long_answer_from_others_is_cut_for_who_takes_little() {
    let mut resolver = resolver();
    let query = ask("example.org", rtype::TXT, None);
    let pending = forwarded(resolver.query(&query, Transport::Udp, &Web, 0));
    let mut said = response(&query, 0, 60);
    let record = said[query.len()..].to_vec();
    said.extend(record.repeat(40));
    said[7] += 40;
    let cut = resolver.response(&pending, &said, 0);
    assert_eq!((cut.len(), cut[2] & 2), (query.len(), 2));
    assert!(Pending::wants_tcp(&cut));
}

#[test]
fn what_concerns_two_ends_alone_does_not_go_further_rfc_6891() {
    let mut resolver = resolver();
    // A client with a cookie, and a resolver that answers it.
    let mut query = ask("example.org", rtype::A, Some(4096));
    let options = query.len() - 2;
    let cookie = [0, 12, 0, 10, 0, 8, 1, 2, 3, 4, 5, 6, 7, 8];
    query.splice(options.., cookie);
    let pending = forwarded(resolver.query(&query, Transport::Udp, &Web, 0));
    let asked = pending.ask(7);
    assert_eq!(asked[asked.len() - 11..asked.len() - 8], [0, 0, 41]);
    assert!(asked.ends_with(&[4, 208, 0, 0, 0, 0, 0, 0]), "our size");
    let mut said = response(&ask("example.org", rtype::A, None), 0, 60);
    said[11] = 1;
    said.extend(&query[options - 9..]);
    let answer = resolver.response(&pending, &said, 0);
    assert!(answer.ends_with(&[0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0]));
    let plain =
        answered(resolver.query(&ask("example.org", rtype::A, None), Transport::Udp, &Web, 0));
    assert_eq!((plain[11], plain.len()), (0, answer.len() - 11));
    // A code that needs EDNS to be said is none that we pass on.
    let end = said.len() - 18;
    said[end] = 1;
    assert_eq!(resolver.response(&pending, &said, 0)[3] & 15, 2);
}

#[test]
fn what_is_above_a_name_exists_rfc_8020() {
    for (text, code, apex) in [
        ("ringway", 0, "ringway"),
        ("other.ringway", 3, "ringway"),
        ("c.lan.ringway", 0, "lan.ringway"),
        ("x.c.lan.ringway", 3, "lan.ringway"),
        ("nobody", 3, "nobody"),
        ("9.0.0.10.in-addr.arpa", 3, "0.0.10.in-addr.arpa"),
    ] {
        let query = ask(text, rtype::A, None);
        let mut resolver = resolver();
        let deep = vec![Data::A(GATEWAY)];
        resolver.zone.records.insert(name("b.c.lan.ringway"), deep);
        let bytes = answered(resolver.query(&query, Transport::Udp, &Web, 0));
        assert_eq!(bytes[3] & 15, code, "{text}");
        let owner = if apex == text {
            vec![0xc0, 12]
        } else {
            name(apex).wire().to_vec()
        };
        assert!(bytes[query.len()..].starts_with(&owner), "{text}");
    }
}

#[test]
fn long_responses_do_not_fill_the_memory() {
    let mut resolver = resolver();
    for n in 0..400 {
        let query = ask(&format!("n{n}.example.org"), rtype::TXT, None);
        let pending = forwarded(resolver.query(&query, Transport::Tcp, &Web, 0));
        let mut said = response(&query, 0, 60);
        let record = said[query.len()..].to_vec();
        said.extend(record.repeat(4000));
        said[6..8].copy_from_slice(&4001u16.to_be_bytes());
        resolver.response(&pending, &said, 0);
    }
    let kept = resolver.counters()["dns_cached"];
    assert!((200..300).contains(&kept), "{kept}");
}

#[test]
fn what_is_no_query_is_refused_or_ignored() {
    let mut resolver = resolver();
    let good = ask("web.lan.ringway", rtype::A, Some(1232));
    let mut with = |change: fn(&mut Vec<u8>)| {
        let mut bytes = good.clone();
        change(&mut bytes);
        match resolver.query(&bytes, Transport::Udp, &Web, 0) {
            Decision::Answer(answer) => Some(answer[3] & 15),
            Decision::Ignore => None,
            Decision::Forward(_) => panic!("forwarded"),
        }
    };
    assert_eq!(with(|_| {}), Some(0));
    assert_eq!(with(|b| b.truncate(11)), None, "too short");
    assert_eq!(with(|b| b[2] |= 0x80), None, "a response");
    assert_eq!(with(|b| b[2] |= 0x10), Some(4), "another operation");
    assert_eq!(with(|b| b[5] = 2), Some(1), "two questions");
    assert_eq!(with(|b| b[39] = 1), Some(0), "another EDNS: BADVERS is 16");
    assert_eq!(with(|b| b[32] = 3), Some(5), "another class");
    assert_eq!(with(|b| b[30] = 252), Some(5), "the whole zone");
    assert_eq!(with(|b| b[12] = 0xc0), Some(1), "a pointer");
    assert_eq!(with(|b| b[12] = 63), Some(1), "a label beyond the end");
    assert_eq!(with(|b| b.truncate(30)), Some(1), "half a question");
    assert_eq!(
        with(|b| b[11] = 2),
        Some(1),
        "an additional record that is not there"
    );
    let mut iterative = ask("example.org", rtype::A, None);
    iterative[2] = 0;
    assert_eq!(
        answered(resolver.query(&iterative, Transport::Udp, &Web, 0))[3] & 15,
        5
    );
    let pending =
        forwarded(resolver.query(&ask("example.org", rtype::A, None), Transport::Udp, &Web, 0));
    assert_eq!(read(&pending.give_up()).0, 2);
}

#[test]
fn names_are_read_and_printed() {
    assert_eq!(name("Web.Lan.").to_string(), "web.lan");
    assert_eq!(name("").labels(), 0);
    assert_eq!(Name::reverse(GATEWAY).reversed(), Some(GATEWAY));
    for text in ["a..b", ".", ".a", &"a".repeat(64), &"a.".repeat(128)] {
        assert_eq!(Name::parse(text).is_none(), text != ".", "{text}");
    }
    for text in [
        "256.0.0.10.in-addr.arpa",
        "01.0.0.10.in-addr.arpa",
        "0.0.10.in-addr.arpa",
        "1.1.0.0.10.in-addr.arpa",
    ] {
        assert_eq!(name(text).reversed(), None, "{text}");
    }
}

proptest! {
    #[test]
    fn no_bytes_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..100), other in proptest::collection::vec(any::<u8>(), 0..200)) {
        let mut resolver = resolver();
        let _ = resolver.query(&bytes, Transport::Udp, &Web, 0);
        if bytes.len() >= 12 {
            bytes[2..12].copy_from_slice(&[1, 0, 0, 1, 0, 0, 0, 0, 0, 1]);
            if let Decision::Forward(pending) = resolver.query(&bytes, Transport::Udp, &Web, 0) {
                pending.is_answered_by(0, &other);
                resolver.response(&pending, &other, 0);
                let _ = resolver.query(&bytes, Transport::Udp, &Web, 1);
            }
        }
        let pending = forwarded(resolver.query(&ask("example.org", rtype::A, None), Transport::Udp, &Web, 0));
        let mut said = response(&pending.ask(1), 0, 60);
        let at = other.first().map_or(0, |at| usize::from(*at)) % said.len();
        said[at] ^= other.get(1).copied().unwrap_or(1);
        if pending.is_answered_by(1, &said) {
            resolver.response(&pending, &said, 0);
            let _ = resolver.query(&ask("example.org", rtype::A, None), Transport::Udp, &Web, 1);
        }
    }
}
