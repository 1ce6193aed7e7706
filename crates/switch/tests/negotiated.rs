//! What a sender may ask for follows from what it negotiated; what contradicts that, or itself, is
//! dropped.

mod mock;

use mock::Lab;
use mock::features::{ASKS, ASKS_USO, TAKES_CSUM, TAKES_TSO, TAKES_USO};
use mock::frames::mac;
use mock::offload::{Original, options, pair, payload, v4, v6};
use ringway_vhost::user::features::{self as bits, mask};
use ringway_wire::VnetHeader;
use ringway_wire::tcp::flag;
use ringway_wire::vnet_hdr::{GSO_ECN, GSO_TCPV4, GSO_UDP, GSO_UDP_L4};

#[test]
fn headers_that_contradict_frame_or_features_are_dropped() {
    let lab = Lab::start(&["a", "b"]);
    let (mut a, mut b) = pair(&lab, TAKES_CSUM | TAKES_TSO);
    let (sent, header) = Original::new(v4(), flag::ACK).build(&payload(3000), 1448);
    let len = u16::try_from(sent.len()).unwrap();
    let bad = [
        VnetHeader {
            csum_start: len - 17,
            ..header
        },
        VnetHeader {
            csum_start: u16::MAX,
            ..header
        },
        VnetHeader {
            csum_offset: u16::MAX,
            ..header
        },
        VnetHeader { flags: 0, ..header },
        VnetHeader {
            gso_size: 0,
            ..header
        },
        VnetHeader {
            gso_type: GSO_UDP,
            ..header
        },
        VnetHeader {
            gso_type: GSO_UDP_L4,
            ..header
        },
        VnetHeader {
            gso_type: 2,
            ..header
        },
        VnetHeader {
            gso_type: GSO_ECN,
            ..header
        },
        VnetHeader {
            gso_type: 0x7f,
            ..header
        },
    ];
    for bad in bad {
        a.send_with(bad, &sent);
    }
    a.send_with(header, &sent);
    assert_eq!(b.receive().header.gso_type, GSO_TCPV4);
    let statistics = lab.settled(2 + 11);
    assert_eq!(statistics.ports[0].drops["bad_header"], 10);
    assert_eq!(statistics.dropped, 10);
}

#[test]
fn who_negotiated_no_offload_may_ask_for_none() {
    let lab = Lab::start(&["a", "b"]);
    let csum_only = mask(&[bits::VIRTIO_NET_F_CSUM]);
    let mut b = lab.guest("b", options(TAKES_CSUM | TAKES_TSO));
    for (features, refused) in [(0, 4), (csum_only, 3), (ASKS, 0)] {
        let mut a = lab.guest("a", options(features));
        let forms = [
            v4().macs(mac(1), mac(2))
                .udp(1, 2)
                .build_partial(&payload(20)),
            Original::new(v4(), flag::ACK).build(&payload(2000), 1448),
            Original::new(v6(), flag::ACK).build(&payload(2000), 1448),
            Original::new(v4(), flag::CWR).build(&payload(2000), 1448),
        ];
        let before = lab.port("a").drops.get("bad_header").copied();
        for (sent, header) in &forms {
            a.send_with(*header, sent);
        }
        a.drain();
        b.receive_all(4 - refused);
        assert_eq!(b.try_receive(), None);
        let after = lab.port("a").drops.get("bad_header").copied();
        let dropped = after.unwrap_or(0) - before.unwrap_or(0);
        assert_eq!(dropped, refused as u64);
        drop(a);
        lab.until("the end of the session", |statistics| {
            !statistics.ports[0].connected
        });
    }
}

#[test]
fn what_a_port_offers_is_what_its_offload_setting_says() {
    let lab = Lab::start(&["a,offload=off", "b,offload=csum", "c,offload=all", "d"]);
    let csum = mask(&[bits::VIRTIO_NET_F_CSUM, bits::VIRTIO_NET_F_GUEST_CSUM]);
    let all = ASKS | ASKS_USO | TAKES_CSUM | TAKES_TSO | TAKES_USO;
    for (name, expected) in [("a", 0), ("b", csum), ("c", all), ("d", all)] {
        let mut guest = lab.guest(name, options(0));
        assert_eq!(
            guest.front.get_features().unwrap() & all,
            expected,
            "{name}"
        );
    }
}
