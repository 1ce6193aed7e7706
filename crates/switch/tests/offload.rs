//! Checksums and segmentation between guests that negotiated different things: who takes an offload
//! gets the frame as it was sent, who does not gets what the sender's own stack would have sent.

mod mock;

use std::net::Ipv4Addr;

use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use mock::features::{ASKS, TAKES_CSUM, TAKES_TSO, USUAL};
use mock::frames::{BROADCAST, frame, mac};
use mock::{Guest, Lab, Options, Received};
use ringway_vhost::user::features::{self as bits, mask};
use ringway_wire::build::{FrameBuilder, TcpFields};
use ringway_wire::ipv6::extension;
use ringway_wire::tcp::flag;
use ringway_wire::vlan::{Tag, VlanId};
use ringway_wire::vnet_hdr::{
    F_NEEDS_CSUM, GSO_ECN, GSO_NONE, GSO_TCPV4, GSO_TCPV6, GSO_UDP, GSO_UDP_L4,
};
use ringway_wire::{MacAddress, VnetHeader};

const PLAIN: VnetHeader = VnetHeader {
    flags: 0,
    gso_type: GSO_NONE,
    hdr_len: 0,
    gso_size: 0,
    csum_start: 0,
    csum_offset: 0,
    num_buffers: 1,
};

fn v4() -> FrameBuilder {
    FrameBuilder::ipv4(Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2))
}

fn v6() -> FrameBuilder {
    FrameBuilder::ipv6("fd00::1".parse().unwrap(), "fd00::2".parse().unwrap())
}

fn tag() -> Tag {
    Tag::new(VlanId::new(42).unwrap())
}

fn payload(len: usize) -> Vec<u8> {
    (0..len)
        .map(|i| u8::try_from(i * 31 % 251).unwrap())
        .collect()
}

fn options(features: u64) -> Options {
    Options {
        features: USUAL | features,
        size: 1024,
        ..Options::default()
    }
}

/// A sender that asks for everything, at port `a`, and a receiver with these features at port `b`.
fn pair(lab: &Lab, takes: u64) -> (Guest, Guest) {
    let mut a = lab.guest("a", options(ASKS));
    let mut b = lab.guest("b", options(takes));
    introduce(&mut a, mac(1), &mut b);
    introduce(&mut b, mac(2), &mut a);
    (a, b)
}

fn introduce(from: &mut Guest, address: MacAddress, to: &mut Guest) {
    from.send(&frame(address, BROADCAST, 60, 0));
    to.receive();
}

/// What the sender's own stack would have sent: one complete frame per `size` bytes.
fn reference(original: &Original, data: &[u8], size: usize) -> Vec<Vec<u8>> {
    let chunks: Vec<_> = data.chunks(size).collect();
    let last = chunks.len() - 1;
    let frames = chunks.iter().enumerate().map(|(n, chunk)| {
        let mut fields = original.tcp;
        let passed = u32::try_from(n * size).unwrap();
        fields.sequence = fields.sequence.wrapping_add(passed);
        if n != 0 {
            fields.flags &= !flag::CWR;
        }
        if n != last {
            fields.flags &= !(flag::FIN | flag::PSH);
        }
        let ident = original.ident.wrapping_add(u16::try_from(n).unwrap());
        let builder = original.network.clone().fragment(ident, 0x4000);
        let frame = builder.tcp(fields, &original.options).build(chunk);
        verify(&frame, chunk);
        frame
    });
    frames.collect()
}

/// A TCP frame to be segmented.
struct Original {
    network: FrameBuilder,
    ident: u16,
    tcp: TcpFields,
    options: Vec<u8>,
}

impl Original {
    fn new(network: FrameBuilder, flags: u8) -> Self {
        Self {
            network: network.macs(mac(1), mac(2)),
            ident: 0xfffe,
            tcp: TcpFields {
                source_port: 40_000,
                destination_port: 5201,
                sequence: 0xffff_f000,
                acknowledgement: 7,
                flags,
                window: 512,
            },
            options: vec![1, 1, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8],
        }
    }

    fn build(&self, data: &[u8], size: u16) -> (Vec<u8>, VnetHeader) {
        let builder = self.network.clone().fragment(self.ident, 0x4000);
        builder.tcp(self.tcp, &self.options).build_gso(data, size)
    }
}

/// Another parser finds nothing wrong with a complete frame.
fn verify(frame: &[u8], data: &[u8]) {
    let packet = SlicedPacket::from_ethernet(frame).unwrap();
    let right = match (packet.net.unwrap(), packet.transport.unwrap()) {
        (NetSlice::Ipv4(network), TransportSlice::Tcp(tcp)) => {
            let header = network.header().to_header();
            assert_eq!(header.header_checksum, header.calc_header_checksum());
            let right = tcp.calc_checksum_ipv4(header.source, header.destination);
            assert_eq!(tcp.payload(), data);
            (tcp.checksum(), right.unwrap())
        }
        (NetSlice::Ipv6(network), TransportSlice::Tcp(tcp)) => {
            let header = network.header();
            let right = tcp.calc_checksum_ipv6(header.source(), header.destination());
            assert_eq!(tcp.payload(), data);
            (tcp.checksum(), right.unwrap())
        }
        (NetSlice::Ipv4(network), TransportSlice::Udp(udp)) => {
            let (header, ip) = (udp.to_header(), network.header());
            let right = header.calc_checksum_ipv4_raw(ip.source(), ip.destination(), data);
            (header.checksum, right.unwrap())
        }
        (NetSlice::Ipv6(network), TransportSlice::Udp(udp)) => {
            let (header, ip) = (udp.to_header(), network.header());
            let right = header.calc_checksum_ipv6_raw(ip.source(), ip.destination(), data);
            (header.checksum, right.unwrap())
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(right.0, right.1);
}

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

/// Frames to be segmented: every family, tags, options, flags that belong to one end.
fn originals() -> Vec<Original> {
    let ends = flag::ACK | flag::PSH | flag::FIN;
    let congested = ends | flag::CWR | flag::ECE;
    vec![
        Original::new(v4(), flag::ACK),
        Original::new(v4().options(&[1; 8]), ends),
        Original::new(v4().tag(tag()), congested),
        Original::new(v6(), flag::ACK),
        Original::new(v6().extension(extension::DESTINATION, &[1, 4]), ends),
        Original::new(v6().tag(tag()), congested),
    ]
}

#[test]
fn large_frames_are_segmented_for_who_does_not_take_them() {
    let lab = Lab::start(&["a", "b"]);
    let (mut a, mut b) = pair(&lab, 0);
    for original in originals() {
        for (len, size) in [
            (1, 1448),
            (1448, 1448),
            (1449, 1448),
            (20_000, 1448),
            (65_000, 1448),
            (9000, 100),
            (64_000, 8948),
        ] {
            let data = payload(len);
            let (sent, header) = original.build(&data, size);
            let expected = reference(&original, &data, size.into());
            a.send_with(header, &sent);
            for (n, expected) in expected.iter().enumerate() {
                let Received { header, frame, .. } = b.receive();
                assert!(frame == *expected, "segment {n} of {len} bytes by {size}");
                assert_eq!(
                    VnetHeader {
                        num_buffers: 1,
                        ..header
                    },
                    PLAIN
                );
            }
        }
    }
    let statistics = lab.statistics();
    assert_eq!(statistics.dropped, 0, "{statistics:#?}");
    assert_eq!(statistics.copied_bytes, b.received_bytes + a.received_bytes);
}

#[test]
fn segments_keep_partial_checksums_for_who_takes_those_alone() {
    let lab = Lab::start(&["a", "b"]);
    let (mut a, mut b) = pair(&lab, TAKES_CSUM);
    for original in originals() {
        let data = payload(10_000);
        let (sent, header) = original.build(&data, 1448);
        let expected = reference(&original, &data, 1448);
        a.send_with(header, &sent);
        for mut expected in expected {
            let received = b.receive();
            let asks = VnetHeader {
                flags: F_NEEDS_CSUM,
                csum_start: header.csum_start,
                csum_offset: header.csum_offset,
                ..PLAIN
            };
            assert_eq!(received.header, asks);
            // Equal but for the field, which holds what completes to the right sum.
            let at = usize::from(header.csum_start + header.csum_offset);
            let mut whole = received.frame.clone();
            ringway_switch::offload::complete_checksum(&mut whole, &asks).unwrap();
            assert!(whole == expected);
            expected[at..at + 2].copy_from_slice(&received.frame[at..at + 2]);
            assert!(received.frame == expected);
        }
    }
}

#[test]
fn who_takes_large_frames_gets_them_whole_with_the_header_that_was_sent() {
    let lab = Lab::start(&["a", "b"]);
    let (mut a, mut b) = pair(&lab, TAKES_CSUM | TAKES_TSO);
    for original in originals() {
        let (sent, header) = original.build(&payload(60_000), 1448);
        // What the sender says of its headers' length, and of buffers, is not believed.
        for hdr_len in [header.hdr_len, 0, 20, u16::MAX] {
            let said = VnetHeader {
                hdr_len,
                num_buffers: 7,
                flags: header.flags | 0xf0,
                ..header
            };
            a.send_with(said, &sent);
            let received = b.receive();
            assert!(received.frame == sent);
            let expected = VnetHeader {
                num_buffers: received.header.num_buffers,
                ..header
            };
            assert_eq!(received.header, expected);
        }
    }
}

#[test]
fn every_receiver_of_a_flooded_frame_gets_the_form_it_takes() {
    let lab = Lab::start(&["a", "b", "c", "d"]);
    let mut a = lab.guest("a", options(ASKS));
    let mut takers = [("b", 0), ("c", TAKES_CSUM), ("d", TAKES_CSUM | TAKES_TSO)]
        .map(|(name, takes)| lab.guest(name, options(takes)));
    for original in originals() {
        let data = payload(5000);
        let (sent, header) = original.build(&data, 1448);
        let expected = reference(&original, &data, 1448);
        a.send_with(header, &sent);
        for guest in &mut takers[..2] {
            for expected in &expected {
                let received = guest.receive();
                let mut frame = received.frame;
                if received.header.needs_csum() {
                    ringway_switch::offload::complete_checksum(&mut frame, &received.header)
                        .unwrap();
                }
                assert!(frame == *expected);
            }
        }
        let whole = takers[2].receive();
        assert!(whole.frame == sent);
        assert_eq!(whole.header.gso_type, header.gso_type);
    }
    // A flooded frame counts once for each receiver, however many segments it became.
    assert_eq!(lab.settled(3 * 6).dropped, 0);
}

#[test]
fn a_frame_whose_segments_do_not_all_fit_counts_as_one_drop() {
    let lab = Lab::start(&["a", "b"]);
    let mut a = lab.guest("a", options(ASKS));
    let few = Options {
        buffers: 4,
        ..options(0)
    };
    let mut b = lab.guest("b", few);
    introduce(&mut a, mac(1), &mut b);
    introduce(&mut b, mac(2), &mut a);
    let original = Original::new(v4(), flag::ACK);
    let data = payload(10_000);
    let (sent, header) = original.build(&data, 1448);
    a.send_with(header, &sent);
    a.drain();
    // TCP repairs this; what arrived is right.
    for expected in &reference(&original, &data, 1448)[..4] {
        assert!(b.take().unwrap().frame == *expected);
    }
    assert_eq!(b.take(), None);
    let statistics = lab.settled(3);
    assert_eq!((statistics.delivered, statistics.dropped), (2, 1));
    assert_eq!(statistics.ports[1].drops["no_buffers"], 1);
}

#[test]
fn tags_move_what_the_header_points_at() {
    let lab = Lab::start(&["a,vlan=42", "b,trunk=42"]);
    let mut a = lab.guest("a", options(ASKS | TAKES_CSUM | TAKES_TSO));
    let mut b = lab.guest("b", options(ASKS | TAKES_CSUM | TAKES_TSO));
    for network in [v4(), v6()] {
        let untagged = Original::new(network.clone(), flag::ACK);
        let tagged = Original::new(network.tag(tag()), flag::ACK);
        let data = payload(30_000);
        let forms = [&untagged, &tagged].map(|original| original.build(&data, 1448));
        let [(untagged, plain_header), (tagged, tagged_header)] = forms;
        a.send_with(plain_header, &untagged);
        let received = b.receive();
        assert!(received.frame == tagged);
        let num_buffers = received.header.num_buffers;
        assert_eq!(
            received.header,
            VnetHeader {
                num_buffers,
                ..tagged_header
            }
        );
        b.send_with(tagged_header, &tagged);
        let received = a.receive();
        assert!(received.frame == untagged);
        assert_eq!(
            received.header,
            VnetHeader {
                num_buffers,
                ..plain_header
            }
        );
    }
}

#[test]
fn dhcp_has_a_whole_checksum_whoever_receives_it() {
    let lab = Lab::start(&["a", "b"]);
    let (mut a, mut b) = pair(&lab, TAKES_CSUM | TAKES_TSO);
    for (from, to) in [(68, 67), (67, 68)] {
        let builder = v4().macs(mac(1), mac(2)).udp(from, to);
        let (sent, header) = builder.build_partial(&payload(300));
        a.send_with(header, &sent);
        let received = b.receive();
        assert!(received.frame == builder.build(&payload(300)));
        assert_eq!(received.header, PLAIN);
    }
}

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
    let all = ASKS | TAKES_CSUM | TAKES_TSO;
    for (name, expected) in [("a", 0), ("b", csum), ("c", all), ("d", all)] {
        let mut guest = lab.guest(name, options(0));
        assert_eq!(
            guest.front.get_features().unwrap() & all,
            expected,
            "{name}"
        );
    }
}

#[test]
fn gso_types_of_the_wrong_family_are_delivered_to_nobody_who_needs_segments() {
    let lab = Lab::start(&["a", "b"]);
    let (mut a, mut b) = pair(&lab, 0);
    let (sent, header) = Original::new(v4(), flag::ACK).build(&payload(3000), 1448);
    let wrong = [
        VnetHeader {
            gso_type: GSO_TCPV6,
            ..header
        },
        VnetHeader {
            csum_start: header.csum_start + 2,
            ..header
        },
        VnetHeader {
            csum_offset: 6,
            ..header
        },
    ];
    for wrong in wrong {
        a.send_with(wrong, &sent);
    }
    a.drain();
    assert_eq!(b.try_receive(), None);
    let statistics = lab.settled(2 + 3);
    assert_eq!(statistics.ports[1].drops["offload_failed"], 3);
}
