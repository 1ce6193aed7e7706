//! Frames and headers that ask for what cannot be done.

use super::*;

#[test]
fn what_is_refused() {
    let builder = v4().tcp(tcp_fields(flag::ACK), &[]);
    let (frame, header) = builder.build_gso(&payload(3000), 1000);
    let refused = |frame: &[u8], header: VnetHeader| {
        Segmenter::new(frame, &header, Checksums::Complete)
            .err()
            .unwrap()
    };
    assert_eq!(
        refused(
            &frame,
            VnetHeader {
                gso_size: 0,
                ..header
            }
        ),
        OffloadFault::SizeZero
    );
    assert_eq!(
        refused(&frame, VnetHeader { flags: 0, ..header }),
        OffloadFault::WithoutChecksum {
            gso_type: GSO_TCPV4
        }
    );
    for gso_type in [0, 3, 0x80, GSO_UDP_L4 | GSO_ECN] {
        assert_eq!(
            refused(&frame, VnetHeader { gso_type, ..header }),
            OffloadFault::UnknownType { gso_type }
        );
    }
    for gso_type in [GSO_TCPV6, GSO_UDP_L4] {
        assert_eq!(
            refused(&frame, VnetHeader { gso_type, ..header }),
            OffloadFault::HeadersMissing {
                gso_type,
                len: frame.len()
            }
        );
    }
    assert!(matches!(
        refused(
            &frame,
            VnetHeader {
                csum_start: 33,
                ..header
            }
        ),
        OffloadFault::ChecksumMisplaced {
            start: 33,
            right_start: 34,
            right_offset: 16,
            ..
        }
    ));
    assert_eq!(
        refused(
            &frame,
            VnetHeader {
                gso_size: 1,
                ..header
            }
        ),
        OffloadFault::TooManySegments {
            payload: 3000,
            size: 1
        }
    );
    let (piece, header) = builder
        .fragment(1, ipv4::MORE_FRAGMENTS)
        .build_gso(&[0; 64], 8);
    assert!(matches!(
        refused(&piece, header),
        OffloadFault::HeadersMissing { .. }
    ));

    for (kind, body) in [
        (extension::FRAGMENT, &[0; 6][..]),
        (extension::AUTHENTICATION, &[0; 22]),
    ] {
        let builder = v6().extension(extension::DESTINATION, &[1, 4]);
        let (frame, header) = builder
            .extension(kind, body)
            .udp(1, 2)
            .build_gso(&[0; 64], 8);
        assert!(matches!(
            refused(&frame, header),
            OffloadFault::HeadersMissing { .. }
        ));
    }

    let long = v6().extension(extension::DESTINATION, &[0; 460]).udp(1, 2);
    let (frame, header) = long.build_gso(&[0; 64], 8);
    assert!(matches!(
        refused(&frame, header),
        OffloadFault::HeadersTooLong { len: 526 }
    ));
    // IPv6 says 0 for "until the end", which may be more than a segment's length field takes.
    let (mut frame, header) = v6().udp(1, 2).build_gso(&vec![0; 66_000], u16::MAX);
    frame[18..20].fill(0);
    assert_eq!(
        refused(&frame, header),
        OffloadFault::SegmentTooLong { len: 65_583 }
    );
}

#[test]
fn a_short_head_makes_no_segment() {
    let (frame, header) = v4().udp(1, 2).build_gso(&payload(30), 10);
    let mut segmenter = Segmenter::new(&frame, &header, Checksums::Complete).unwrap();
    assert_eq!(segmenter.next(&mut [0; 41]), None);
    assert_eq!(segmenter.remaining(), 3);
    assert_eq!(segmenter.next(&mut [0; 42]).unwrap().body, 42..52);
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(
        kind in 0usize..18,
        noise in proptest::collection::vec((0usize..160, any::<u8>()), 0..12),
        cut in 0usize..400,
        header in any::<[u8; 12]>(),
        mix in 0u8..8,
        plain in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        let (mut frame, right) = builders()[kind].build_gso(&payload(200), 64);
        for (at, byte) in noise {
            if let Some(target) = frame.get_mut(at) {
                *target = byte;
            }
        }
        frame.truncate(cut);
        let wild = VnetHeader::from_bytes(&header);
        // Most of the time only a part of the header is wild: else nothing gets far.
        let header = match mix {
            0 => wild,
            1 => VnetHeader { gso_size: wild.gso_size, ..right },
            2 => VnetHeader { gso_type: wild.gso_type, ..right },
            3 => VnetHeader { csum_start: wild.csum_start & 0x7f, ..right },
            4 => VnetHeader { csum_offset: wild.csum_offset & 0x1f, ..right },
            _ => VnetHeader { hdr_len: wild.hdr_len, ..right },
        };
        let frame = if mix == 7 { &plain } else { &frame };
        for checksums in [Checksums::Complete, Checksums::Partial] {
            let Ok(mut segmenter) = Segmenter::new(frame, &header, checksums) else { continue };
            let (mut head, mut body) = ([0; MAX_HEAD_LEN], segmenter.head_len());
            let count = segmenter.remaining();
            prop_assert!(count <= MAX_SEGMENTS);
            for _ in 0..count {
                let segment = segmenter.next(&mut head).unwrap();
                prop_assert_eq!(segment.body.start, body);
                body = segment.body.end;
                prop_assert!(body <= frame.len());
            }
            prop_assert_eq!(segmenter.next(&mut head), None);
        }
    }
}
