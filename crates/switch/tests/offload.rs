//! Large frames between guests that negotiated different things: who takes segmentation offload gets
//! the frame as it was sent, who does not gets what the sender's own stack would have sent.

mod mock;

use mock::features::{ASKS, TAKES_CSUM, TAKES_TSO};
use mock::frames::mac;
use mock::offload::{Original, PLAIN, introduce, options, pair, payload, reference, tag, v4, v6};
use mock::{Lab, Options, Received};
use ringway_wire::VnetHeader;
use ringway_wire::ipv6::extension;
use ringway_wire::tcp::flag;
use ringway_wire::vnet_hdr::{F_NEEDS_CSUM, GSO_TCPV6};

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
