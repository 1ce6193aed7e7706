//! What ports may send to each other: VLANs, isolation, source addresses, rates, and where
//! addresses are.

mod mock;

use std::time::{Duration, Instant};

use mock::frames::{BROADCAST, frame, mac, tagged};
use mock::{Guest, Lab, Options, PATIENCE, agree, features};
use ringway_vhost::user::features::{VIRTIO_NET_F_MTU, mask};
use ringway_vhost::user::frontend::{Frontend, FrontendError};
use ringway_wire::arp;
use ringway_wire::build::{FrameBuilder, TcpFields};

fn guests<const N: usize>(lab: &Lab, names: [&str; N]) -> [Guest; N] {
    names.map(|name| lab.guest(name, Options::default()))
}

/// Nothing is there, once so many deliveries were attempted.
fn silent(lab: &Lab, attempted: u64, guests: &mut [&mut Guest]) {
    lab.settled(attempted);
    for (n, guest) in guests.iter_mut().enumerate() {
        assert_eq!(guest.try_receive(), None, "guest {n}");
    }
}

#[test]
fn frames_stay_in_their_vlan_and_trunks_carry_tags() {
    let ports = [
        "a,vlan=10",
        "b,vlan=10",
        "c,vlan=20",
        "d",
        "t,trunk=10-20",
        "u,trunk=20+30",
    ];
    let lab = Lab::start(&ports);
    let [mut a, mut b, mut c, mut d, mut t, mut u] = guests(&lab, ["a", "b", "c", "d", "t", "u"]);

    let hello = frame(mac(1), BROADCAST, 60, 1);
    a.send(&hello);
    assert_eq!(b.receive().frame, hello);
    assert_eq!(t.receive().frame, tagged(&hello, 10));
    silent(&lab, 2, &mut [&mut c, &mut d, &mut u]);

    // A trunk hands frames of a VLAN to another with everything in the tag.
    let hello = frame(mac(5), BROADCAST, 60, 2);
    let urgent = tagged(&hello, 7 << 13 | 20);
    t.send(&urgent);
    assert_eq!(c.receive().frame, hello);
    assert_eq!(u.receive().frame, urgent);
    silent(&lab, 4, &mut [&mut a, &mut b, &mut d]);

    // The same address in two VLANs is two addresses.
    t.send(&tagged(&frame(mac(5), mac(1), 60, 3), 10));
    assert_eq!(a.receive().frame, frame(mac(5), mac(1), 60, 3));
    t.send(&tagged(&frame(mac(5), mac(1), 60, 4), 20));
    assert_eq!(
        c.receive().frame,
        frame(mac(5), mac(1), 60, 4),
        "unknown there"
    );
    assert_eq!(u.receive().frame, tagged(&frame(mac(5), mac(1), 60, 4), 20));

    // What does not belong on a port: tags on an access port, none or others on a trunk.
    a.send(&tagged(&hello, 10));
    a.send(&tagged(&hello, 0));
    t.send(&hello);
    t.send(&tagged(&hello, 30));
    t.send(&tagged(&hello, 0));
    silent(
        &lab,
        4 + 3 + 5,
        &mut [&mut a, &mut b, &mut c, &mut d, &mut t, &mut u],
    );
    let drops = |port| lab.port(port).drops["vlan_mismatch"];
    assert_eq!((drops("a"), drops("t")), (2, 3));

    // Ports without VLANs are among themselves, and carry tags as they are.
    d.send(&tagged(&frame(mac(4), BROADCAST, 60, 5), 10));
    d.drain();
    let statistics = lab.settled(4 + 3 + 5 + 1);
    assert_eq!(statistics.ports[3].drops["no_destination"], 1);
}

#[test]
fn tags_come_and_go_on_frames_of_every_length() {
    let lab = Lab::start(&["a,vlan=7", "t,trunk=7"]);
    let [mut a, mut t] = guests(&lab, ["a", "t"]);
    for len in (14..140).chain([1514, 9014, 65_549]) {
        let plain = frame(mac(1), mac(2), len, 9);
        a.send(&plain);
        assert!(t.receive().frame == tagged(&plain, 7), "{len}");
        let back = frame(mac(2), mac(1), len, 10);
        t.send(&tagged(&back, 7));
        assert!(a.receive().frame == back, "{len}");
    }
}

#[test]
fn isolated_ports_reach_all_but_each_other() {
    let lab = Lab::start(&["a,isolated", "b,isolated", "c"]);
    let [mut a, mut b, mut c] = guests(&lab, ["a", "b", "c"]);
    a.send(&frame(mac(1), BROADCAST, 60, 1));
    b.send(&frame(mac(2), BROADCAST, 60, 2));
    c.receive_all(2);
    c.send(&frame(mac(3), BROADCAST, 60, 3));
    a.receive();
    b.receive();
    a.send(&frame(mac(1), mac(2), 60, 4));
    a.send(&frame(mac(1), mac(3), 60, 5));
    b.send(&frame(mac(2), mac(3), 60, 6));
    c.receive_all(2);
    c.send(&frame(mac(3), mac(2), 60, 7));
    assert_eq!(b.receive().frame, frame(mac(3), mac(2), 60, 7));
    silent(&lab, 2 + 2 + 4, &mut [&mut a, &mut b, &mut c]);
    let drops = lab.statistics().ports.into_iter().map(|port| port.drops);
    let isolated: u64 = drops
        .filter_map(|drops| drops.get("isolated").copied())
        .sum();
    assert_eq!(isolated, 1);
}

#[test]
fn only_the_configured_address_is_accepted_and_nothing_is_learned_of_others() {
    let lab = Lab::start(&["a,mac=02:00:00:00:00:01", "b", "c"]);
    let [mut a, mut b, mut c] = guests(&lab, ["a", "b", "c"]);
    b.send(&frame(mac(2), BROADCAST, 60, 1));
    a.receive();
    c.receive();
    a.send(&frame(mac(1), mac(2), 60, 2));
    assert_eq!(b.receive().frame, frame(mac(1), mac(2), 60, 2));
    for stolen in [mac(2), mac(3), BROADCAST] {
        a.send(&frame(stolen, BROADCAST, 60, 3));
    }
    silent(&lab, 3 + 3, &mut [&mut b, &mut c]);
    let drops = lab.port("a").drops;
    assert_eq!((drops["spoofed_mac"], drops["bad_source"]), (2, 1));
    c.send(&frame(mac(3), mac(2), 60, 4));
    assert_eq!(
        b.receive().frame,
        frame(mac(3), mac(2), 60, 4),
        "still at b"
    );
}

#[test]
fn a_limit_delays_what_the_guest_sends_and_loses_none_of_it() {
    let lab = Lab::start(&["a,rate=200M", "b"]);
    let [mut a, mut b] = guests(&lab, ["a", "b"]);
    let (frames, len) = (2000, 1250); // 20 Mbit
    let start = Instant::now();
    let mut received = 0;
    for number in 0..frames {
        a.send(&frame(mac(1), mac(2), len, number));
        while b.try_receive().is_some() {
            received += 1;
        }
    }
    a.drain();
    while b.try_receive().is_some() {
        received += 1;
    }
    let elapsed = start.elapsed();
    assert_eq!(received, frames);
    // 100 ms, less 5 ms that are granted at once.
    assert!(elapsed > Duration::from_millis(90), "{elapsed:?}");
    assert_eq!(lab.settled(frames).dropped, 0);
}

#[test]
fn a_limit_towards_the_guest_drops_and_counts_the_surplus() {
    let lab = Lab::start(&["a", "b,rate=20M"]);
    let [mut a, mut b] = guests(&lab, ["a", "b"]);
    let (frames, len) = (2000, 1250); // 20 Mbit
    let start = Instant::now();
    for number in 0..frames {
        a.send(&frame(mac(1), mac(2), len, number));
        while b.try_receive().is_some() {}
    }
    a.drain();
    let statistics = lab.settled(frames);
    while b.try_receive().is_some() {}
    let drops = &statistics.ports[1].drops;
    assert_eq!(b.received + drops["rate_limited"], frames);
    // What the rate allows in that time, and the depth of the bucket: the longest frame.
    let allowed = 20e6 / 8.0 * start.elapsed().as_secs_f64() + 65_557.0;
    assert!(b.received_bytes as f64 <= allowed + len as f64, "{allowed}");
    assert!(b.received_bytes >= 65_557);
}

#[test]
fn an_address_is_looked_for_where_it_was_seen_last() {
    let lab = Lab::start(&["a", "b", "c"]);
    let [mut a, mut b, mut c] = guests(&lab, ["a", "b", "c"]);
    let to_nine = |number| frame(mac(1), mac(9), 60, number);
    a.send(&to_nine(1));
    assert_eq!(
        [b.receive().frame, c.receive().frame],
        [to_nine(1), to_nine(1)]
    );
    for (number, now) in [(2, 1), (3, 2), (4, 1)] {
        let [there, other] = if now == 1 {
            [&mut b, &mut c]
        } else {
            [&mut c, &mut b]
        };
        there.send(&frame(mac(9), BROADCAST, 60, 0));
        a.receive();
        other.receive();
        a.send(&to_nine(number));
        assert_eq!(there.receive().frame, to_nine(number));
        assert_eq!(other.try_receive(), None);
    }
    // It is behind the port that sends: nobody else needs to hear of it.
    b.send(&frame(mac(2), mac(9), 60, 5));
    silent(&lab, 2 + 9 + 1, &mut [&mut a, &mut b, &mut c]);
    assert_eq!(lab.port("b").drops["same_port"], 1);
    // The front-end leaves: its addresses are forgotten, frames for them flooded.
    drop(b);
    lab.until("the end of the session", |statistics| {
        !statistics.ports[1].connected
    });
    a.send(&to_nine(6));
    assert_eq!(c.receive().frame, to_nine(6));
}

#[test]
fn an_announcement_for_a_guest_reaches_everybody_and_is_learned() {
    let lab = Lab::start(&["a", "b", "c"]);
    let [mut a, mut b, mut c] = guests(&lab, ["a", "b", "c"]);
    a.front.send_rarp(mac(1).0).unwrap();
    let expected = arp::rarp_announce(mac(1));
    assert_eq!(b.receive().frame, expected);
    assert_eq!(c.receive().frame, expected);
    b.send(&frame(mac(2), mac(1), 60, 1));
    assert_eq!(a.receive().frame, frame(mac(2), mac(1), 60, 1));
    silent(&lab, 3, &mut [&mut a, &mut b, &mut c]);
}

/// Its front-end may ask for it while the guest has not gone on yet.
#[test]
fn an_announcement_asked_for_before_the_rings_start_waits_for_them() {
    let lab = Lab::start(&["a", "b", "c"]);
    let [mut b, mut c] = guests(&lab, ["b", "c"]);
    let mut front = Frontend::connect(&lab.path("a"), PATIENCE).unwrap();
    let protocol = front.get_protocol_features().unwrap();
    front.set_protocol_features(protocol).unwrap();
    front.send_rarp(mac(1).0).unwrap();
    silent(&lab, 0, &mut [&mut b, &mut c]);
    let mut a = Guest::over(front, Options::default());
    for other in [&mut b, &mut c] {
        assert_eq!(other.receive().frame, arp::rarp_announce(mac(1)));
    }
    b.send(&frame(mac(2), mac(1), 60, 1));
    assert_eq!(a.receive().frame, frame(mac(2), mac(1), 60, 1));
    silent(&lab, 3, &mut [&mut a, &mut b, &mut c]);
}

#[test]
fn an_mtu_is_taken_unless_it_is_none() {
    let lab = Lab::start(&["a"]);
    let mut a = lab.guest("a", Options::default());
    for mtu in [68, 1500, 9000, u16::MAX] {
        a.front.set_mtu(mtu).unwrap();
    }
    let refused = a.front.set_mtu(67);
    assert!(
        matches!(refused, Err(FrontendError::Refused { .. })),
        "{refused:?}"
    );
    a.front.set_mtu(1500).unwrap();
}

/// virtio 1.2, 5.1.4.1: what is longer than the MTU a driver was told, and is not to be segmented, is
/// not for it.
#[test]
fn frames_beyond_the_mtu_of_a_guest_are_dropped_and_counted() {
    let lab = Lab::start(&["a", "c"]);
    let options = |more| Options {
        features: features::USUAL | features::ASKS | more,
        ..Options::default()
    };
    let mtu_features = mask(&[VIRTIO_NET_F_MTU]) | features::TAKES_CSUM | features::TAKES_TSO;
    let mut a = lab.guest("a", options(0));
    let mut front = Frontend::connect(&lab.path("c"), PATIENCE).unwrap();
    let protocol = front.get_protocol_features().unwrap();
    front.set_protocol_features(protocol).unwrap();
    front.set_mtu(1500).unwrap();
    let mut c = Guest::over(front, options(mtu_features));
    c.send(&frame(mac(3), BROADCAST, 60, 0));
    a.receive();
    let tcp = FrameBuilder::ipv4([10, 0, 0, 1].into(), [10, 0, 0, 2].into())
        .macs(mac(1), mac(3))
        .tcp(TcpFields::default(), &[]);
    // Whole and to be segmented: what counts is the segment.
    for (len, size) in [(9000, 1460), (1460, 1460)] {
        let (sent, header) = tcp.build_gso(&vec![1; len], size);
        a.send_with(header, &sent);
        assert!(c.receive().frame == sent);
    }
    let (sent, header) = tcp.build_gso(&[1; 9000], 1461);
    a.send_with(header, &sent);
    for (len, passes) in [(1514, true), (1515, false), (9014, false)] {
        let sent = frame(mac(1), mac(3), len, 1);
        a.send(&sent);
        if passes {
            assert!(c.receive().frame == sent);
        }
    }
    a.drain();
    let statistics = lab.until("three drops", |statistics| statistics.dropped >= 3);
    agree(&statistics);
    assert_eq!(statistics.ports[1].drops["mtu_exceeded"], 3);
    assert_eq!(c.try_receive(), None);
}
