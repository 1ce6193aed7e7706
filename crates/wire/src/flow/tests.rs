use std::net::{Ipv4Addr, Ipv6Addr};

use super::*;
use crate::build::{FrameBuilder, TcpFields};
use crate::ipv6::extension;
use crate::vlan::{Tag, VlanId};
use crate::{MacAddress, arp};

fn v4(last: u8) -> FrameBuilder {
    FrameBuilder::ipv4(Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, last))
}

fn v6() -> FrameBuilder {
    FrameBuilder::ipv6(Ipv6Addr::LOCALHOST, Ipv6Addr::UNSPECIFIED)
}

fn tcp(source_port: u16) -> TcpFields {
    TcpFields {
        source_port,
        destination_port: 80,
        ..TcpFields::default()
    }
}

#[test]
fn the_short_way_and_the_long_way_agree() {
    for port in [0, 1, 80, 0xffff] {
        let frame = v4(2).tcp(tcp(port), &[]).build(b"abc");
        assert_eq!(hash(&frame), hash_any(&frame));
        let frame = v4(2).udp(port, 53).build(b"");
        assert_eq!(hash(&frame), hash_any(&frame));
    }
}

#[test]
fn a_flow_keeps_its_hash() {
    let plain = hash(&v4(2).tcp(tcp(1000), &[]).build(b"a"));
    let mut later = tcp(1000);
    later.sequence = 77;
    let tag = Tag::new(VlanId::new(3).unwrap());
    let others = [
        v4(2).tcp(later, &[1; 12]).build(&[0; 1000]),
        v4(2).options(&[1; 4]).tcp(later, &[]).build(b"b"),
        v4(2).tag(tag).tcp(later, &[]).build(b"c"),
    ];
    for frame in others {
        assert_eq!(hash(&frame), plain);
    }
    // However little behind the ports is seen.
    let frame = v4(2).tcp(tcp(1000), &[]).build(&[0; 64]);
    assert_eq!(hash(&frame[..38]), plain);

    let six = hash(&v6().tcp(tcp(1), &[]).build(b""));
    let extended = v6().extension(extension::DESTINATION, &[1, 4]);
    assert_eq!(hash(&extended.tcp(tcp(1), &[]).build(b"x")), six);
}

#[test]
fn answers_have_the_hash_of_what_they_answer() {
    let there = TcpFields {
        source_port: 40_000,
        destination_port: 80,
        ..TcpFields::default()
    };
    let back = TcpFields {
        source_port: 80,
        destination_port: 40_000,
        ..TcpFields::default()
    };
    let (one, two) = (Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2));
    let v4 = |from, to, tcp| hash(&FrameBuilder::ipv4(from, to).tcp(tcp, &[]).build(b""));
    assert_eq!(v4(one, two, there), v4(two, one, back));
    // Ends that changed only their ports are others.
    assert_ne!(v4(one, two, there), v4(two, one, there));
    let (one, two) = (Ipv6Addr::LOCALHOST, Ipv6Addr::UNSPECIFIED);
    let v6 = |from, to, tcp| hash(&FrameBuilder::ipv6(from, to).tcp(tcp, &[]).build(b""));
    assert_eq!(v6(one, two, there), v6(two, one, back));
    let fragment = |from, to| {
        FrameBuilder::ipv4(from, to)
            .fragment(9, 8)
            .udp(1, 2)
            .build(&[0; 64])
    };
    let (one, two) = (Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2));
    assert_eq!(hash(&fragment(one, two)), hash(&fragment(two, one)));
    let raw = |first: u8, second: u8| {
        let mut frame = [0; 60];
        frame[..6].fill(first);
        frame[6..12].fill(second);
        hash(&frame)
    };
    assert_eq!(raw(2, 4), raw(4, 2));
    assert_ne!(raw(2, 4), raw(2, 6));
}

#[test]
fn what_tells_flows_apart() {
    let base = hash(&v4(2).tcp(tcp(1000), &[]).build(b""));
    assert_ne!(base, hash(&v4(2).tcp(tcp(1001), &[]).build(b"")));
    assert_ne!(base, hash(&v4(3).tcp(tcp(1000), &[]).build(b"")));
    assert_ne!(base, hash(&v4(2).udp(1000, 80).build(b"")));
    let mac = |last| MacAddress([2, 0, 0, 0, 0, last]);
    assert_ne!(
        hash(&arp::rarp_announce(mac(1))),
        hash(&arp::rarp_announce(mac(2)))
    );
}

#[test]
fn fragments_hash_on_addresses() {
    let first = v4(2).fragment(9, MORE_FRAGMENTS).udp(1, 2).build(&[0; 64]);
    let later = v4(2).fragment(9, 8).udp(3, 4).build(&[7; 64]);
    assert_eq!(hash(&first), hash(&later));
    let piece = |word: u8, port| {
        let body = [0, word, 0, 0, 0, 1];
        let frame = v6().extension(extension::FRAGMENT, &body);
        hash(&frame.udp(port, port).build(&[0; 64]))
    };
    assert_eq!(piece(1, 5), piece(0x41, 6));
    // The first piece goes on with options, which the later ones do not show.
    let body = [0, 1, 0, 0, 0, 1];
    let frame = v6().extension(extension::FRAGMENT, &body);
    let frame = frame.extension(extension::DESTINATION, &[1, 4]);
    assert_eq!(hash(&frame.udp(5, 5).build(&[0; 64])), piece(0x41, 6));
}

#[test]
fn queues_are_filled_evenly() {
    let mut counts = [0u32; 8];
    for port in 0..8000u16 {
        let hash = hash(&v4(2).udp(port, 53).build(b""));
        counts[usize::try_from(hash % 8).unwrap()] += 1;
    }
    for count in counts {
        assert!((850..1150).contains(&count), "{counts:?}");
    }
}

#[test]
fn short_bytes_have_a_hash() {
    let frame = v4(2).udp(1, 2).build(&[]);
    for cut in 0..frame.len() {
        hash(&frame[..cut]);
    }
}
