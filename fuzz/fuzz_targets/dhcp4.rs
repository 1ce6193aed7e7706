//! Clients of DHCP that ask for anything: whatever they say, no address is lent twice, none that is not ours to lend, and what is sent
//! is a whole frame.
//!
//! An input is a series of messages. Each begins with its type, its client, what is asked (bit 0: a relay, bit 1: an address of its own,
//! bit 2: bytes as they are, without a frame around), the seconds since the last, and the length of its options.

#![no_main]

use std::collections::HashSet;
use std::net::Ipv4Addr;

use libfuzzer_sys::fuzz_target;
use ringway_service::dhcp4::{Config, Server};
use ringway_wire::MacAddress;
use ringway_wire::build::FrameBuilder;

const SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const NOW: u64 = 1_000_000;
const COOKIE: [u8; 4] = [99, 130, 83, 99];

fuzz_target!(|input: &[u8]| {
    let config = Config {
        subnet: "10.0.0.0/24".parse().unwrap(),
        server: SERVER,
        mac: MacAddress([0x52, 0, 0, 0, 0, 1]),
        range: Ipv4Addr::new(10, 0, 0, 2)..=Ipv4Addr::new(10, 0, 0, 9),
        lease_seconds: 3600,
        router: Some(SERVER),
        routes: vec![("192.0.2.0/24".parse().unwrap(), SERVER)],
        dns: vec![SERVER],
        domain: Some("lan.ringway".into()),
        ntp: vec![SERVER],
        mtu: Some(1500),
    };
    let subnet = config.subnet;
    let mut server = Server::new(config);
    let mut now = NOW;
    let mut rest = input;
    while let [kind, client, asked, passed, len, more @ ..] = rest {
        now += u64::from(*passed) * 60;
        let (options, after) = more.split_at(usize::from(*len).min(more.len()));
        rest = after;
        let frame = if asked & 4 == 0 {
            frame(*kind, *client, *asked, options)
        } else {
            options.to_vec()
        };
        let outcome = server.handle(&frame, now);
        assert!(!outcome.event.is_empty());
        for frame in &outcome.frames {
            assert!((42..=14 + 1500).contains(&frame.len()), "a whole frame");
            check(frame);
        }
        let mut taken = HashSet::new();
        for lease in server.pool.leases().filter(|lease| lease.is_active(now)) {
            assert!(taken.insert(lease.address), "an address lent twice");
            assert!(subnet.contains(&lease.address) && lease.address != SERVER);
        }
    }
});

/// A frame that is sent is a probe, or a datagram with complete checksums that gives an address of the network, or none.
fn check(frame: &[u8]) {
    if frame[12..14] == [8, 6] {
        return;
    }
    assert_eq!(frame[12..15], [8, 0, 0x45], "another protocol");
    let total = usize::from(u16::from_be_bytes([frame[16], frame[17]]));
    let (header, datagram) = frame[14..14 + total].split_at(20);
    assert_eq!(sum(header, 0), 0xffff, "the header's checksum");
    if datagram[6..8] != [0, 0] {
        let pseudo = sum(&header[12..20], 17 + u32::try_from(datagram.len()).unwrap());
        assert_eq!(sum(datagram, pseudo), 0xffff, "the datagram's checksum");
    }
    let given = Ipv4Addr::new(datagram[24], datagram[25], datagram[26], datagram[27]);
    assert!(given.is_unspecified() || given.octets()[..3] == SERVER.octets()[..3]);
}

/// RFC 1071.
fn sum(bytes: &[u8], start: u32) -> u32 {
    let words = bytes.chunks(2);
    let mut sum = words.fold(start, |sum, word| {
        let low = word.get(1).copied().unwrap_or(0);
        sum + u32::from(u16::from_be_bytes([word[0], low]))
    });
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum
}

/// A message of a client in a frame.
fn frame(kind: u8, client: u8, asked: u8, options: &[u8]) -> Vec<u8> {
    let mac = MacAddress([2, 0, 0, 0, 0, client % 16]);
    let own = if asked & 2 == 0 {
        Ipv4Addr::UNSPECIFIED
    } else {
        Ipv4Addr::new(10, 0, 0, asked >> 3)
    };
    let relay = if asked & 1 == 0 {
        Ipv4Addr::UNSPECIFIED
    } else {
        Ipv4Addr::new(10, 0, 0, 200)
    };
    let mut message = vec![1, 1, 6, 0, 0, 0, 0, 77, 0, 0, 0, 0];
    message.extend(own.octets());
    message.extend([0; 8]);
    message.extend(relay.octets());
    message.extend(mac.0);
    message.resize(236, 0);
    message.extend(COOKIE);
    message.extend([53, 1, kind % 10]);
    message.extend(options);
    message.push(255);
    FrameBuilder::ipv4(own, Ipv4Addr::BROADCAST)
        .macs(mac, MacAddress([0xff; 6]))
        .udp(if asked & 1 == 0 { 68 } else { 67 }, 67)
        .build(&message)
}
