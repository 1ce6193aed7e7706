//! Partial checksums between guests, and DHCP, whose checksum is always whole.

mod mock;

use mock::features::{TAKES_CSUM, TAKES_TSO};
use mock::frames::{BROADCAST, mac};
use mock::offload::{PLAIN, pair, payload, tag, v4, v6, verify};
use mock::{Lab, Received};
use ringway_wire::VnetHeader;
use ringway_wire::build::{FrameBuilder, TcpFields};
use ringway_wire::ipv6::extension;
use ringway_wire::tcp::flag;

/// Frames with every kind of partial checksum; the last ones have it behind the private head.
fn partial() -> Vec<FrameBuilder> {
    let fields = TcpFields {
        source_port: 1,
        destination_port: 2,
        flags: flag::ACK,
        ..TcpFields::default()
    };
    let long =
        |builder: FrameBuilder| builder.extension(extension::HOP_BY_HOP, &[5, 126].repeat(60));
    let networks = [
        v4(),
        v4().tag(tag()),
        v4().options(&[1; 40]),
        v6(),
        v6().tag(tag()),
        long(v6()),
    ];
    networks
        .into_iter()
        .map(|network| network.macs(mac(1), mac(2)))
        .flat_map(|network| [network.clone().udp(7, 9), network.tcp(fields, &[])])
        .collect()
}

#[test]
fn partial_checksums_are_completed_for_who_does_not_take_them() {
    let lab = Lab::start(&["a", "b"]);
    let (mut a, mut b) = pair(&lab, 0);
    let mut count = 2;
    for builder in partial() {
        for len in [0, 1, 2, 60, 1400, 1401, 9000] {
            let data = payload(len);
            let (sent, header) = builder.build_partial(&data);
            let expected = builder.build(&data);
            a.send_with(header, &sent);
            let Received { header, frame, .. } = b.receive();
            assert!(frame == expected, "{builder:?} {len}");
            assert_eq!(
                VnetHeader {
                    num_buffers: 1,
                    ..header
                },
                PLAIN
            );
            count += 1;
        }
        verify(&builder.build(&payload(60)), &payload(60));
    }
    assert_eq!(lab.settled(count).dropped, 0);
}

#[test]
fn partial_checksums_cross_as_they_are_to_who_takes_them() {
    let lab = Lab::start(&["a", "b"]);
    let (mut a, mut b) = pair(&lab, TAKES_CSUM);
    for builder in partial() {
        for len in [0, 60, 1401] {
            let (sent, header) = builder.build_partial(&payload(len));
            a.send_with(header, &sent);
            let received = b.receive();
            assert!(received.frame == sent, "{builder:?} {len}");
            let expected = VnetHeader {
                hdr_len: 0,
                num_buffers: 1,
                ..header
            };
            assert_eq!(received.header, expected);
        }
    }
}

/// Clients of DHCP read raw sockets, and see what the sender's stack left to the device.
#[test]
fn dhcp_has_a_whole_checksum_whoever_receives_it() {
    for takes in [0, TAKES_CSUM, TAKES_CSUM | TAKES_TSO] {
        let lab = Lab::start(&["a", "b"]);
        let (mut a, mut b) = pair(&lab, takes);
        for network in [v4(), v4().options(&[1; 8]), v4().tag(tag()), v6()] {
            for to in [mac(2), BROADCAST] {
                for (from, at) in [(68, 67), (67, 68), (67, 67)] {
                    let builder = network.clone().macs(mac(1), to).udp(from, at);
                    let (sent, header) = builder.build_partial(&payload(300));
                    a.send_with(header, &sent);
                    let received = b.receive();
                    assert!(received.frame == builder.build(&payload(300)));
                    assert_eq!(received.header, PLAIN);
                }
            }
        }
        // Its neighbours are none: not these ports, not this protocol.
        let fields = TcpFields {
            source_port: 68,
            destination_port: 67,
            ..TcpFields::default()
        };
        for builder in [v4().udp(66, 69), v4().tcp(fields, &[])] {
            let builder = builder.macs(mac(1), mac(2));
            let (sent, header) = builder.build_partial(&payload(300));
            a.send_with(header, &sent);
            assert_eq!(b.receive().header.needs_csum(), takes != 0);
        }
    }
}
