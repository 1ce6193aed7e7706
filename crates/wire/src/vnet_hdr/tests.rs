use super::*;

const ALL: Allowed = Allowed {
    csum: true,
    tso4: true,
    tso6: true,
    ecn: true,
    uso: true,
};

fn tso4() -> VnetHeader {
    VnetHeader {
        flags: F_NEEDS_CSUM,
        gso_type: GSO_TCPV4,
        hdr_len: 54,
        gso_size: 1448,
        csum_start: 34,
        csum_offset: 16,
        num_buffers: 0,
    }
}

#[test]
fn bytes_are_little_endian_and_in_order() {
    let header = VnetHeader {
        flags: 1,
        gso_type: 2,
        hdr_len: 0x0403,
        gso_size: 0x0605,
        csum_start: 0x0807,
        csum_offset: 0x0a09,
        num_buffers: 0x0c0b,
    };
    let bytes = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12];
    assert_eq!(header.to_bytes(), bytes);
    assert_eq!(VnetHeader::from_bytes(&bytes), header);
    assert_eq!(VnetHeader::parse(&bytes), Some(header));
    let legacy = VnetHeader {
        num_buffers: 0,
        ..header
    };
    assert_eq!(VnetHeader::parse(&bytes[..11]), Some(legacy));
    assert_eq!(VnetHeader::parse(&bytes[..LEGACY_LEN]), Some(legacy));
    assert_eq!(VnetHeader::parse(&bytes[..9]), None);

    let mut out = [0xee; 14];
    header.write(&mut out[..LEGACY_LEN]);
    assert_eq!(out[..LEGACY_LEN], bytes[..LEGACY_LEN]);
    assert_eq!(out[LEGACY_LEN], 0xee);
    header.write(&mut out);
    assert_eq!(out[..LEN], bytes);
}

#[test]
fn plain_and_negotiated_headers_pass() {
    assert_eq!(
        VnetHeader::default().validate(0, Allowed::default()),
        Ok(())
    );
    assert_eq!(tso4().validate(4000, ALL), Ok(()));
    // The field may end with the frame.
    assert_eq!(tso4().validate(52, ALL), Ok(()));
    let foreign_flags = VnetHeader {
        flags: 0xfe,
        hdr_len: 0xffff,
        ..VnetHeader::default()
    };
    assert_eq!(foreign_flags.validate(60, Allowed::default()), Ok(()));
}

#[test]
fn each_rule_has_its_fault() {
    let with = |change: fn(&mut VnetHeader)| {
        let mut header = tso4();
        change(&mut header);
        header.validate(4000, ALL)
    };
    assert_eq!(
        tso4().validate(51, ALL),
        Err(HeaderFault::ChecksumOutside {
            start: 34,
            offset: 16,
            frame_len: 51
        })
    );
    assert!(with(|h| (h.csum_start, h.csum_offset) = (0xffff, 0xffff)).is_err());
    assert_eq!(
        with(|h| h.gso_size = 0),
        Err(HeaderFault::GsoSizeZero {
            gso_type: GSO_TCPV4
        })
    );
    assert_eq!(
        with(|h| h.flags = F_DATA_VALID),
        Err(HeaderFault::GsoWithoutChecksum {
            gso_type: GSO_TCPV4
        })
    );
    assert_eq!(
        with(|h| h.gso_type = GSO_UDP),
        Err(HeaderFault::GsoNotNegotiated { gso_type: GSO_UDP })
    );
    for gso_type in [2, 6, 7, 0x80, 0x83, 0x85, 0xff] {
        let header = VnetHeader { gso_type, ..tso4() };
        assert_eq!(
            header.validate(4000, ALL),
            Err(HeaderFault::UnknownGsoType { gso_type })
        );
    }
}

#[test]
fn only_negotiated_types_pass() {
    let types = [
        (GSO_TCPV4, Allowed { tso4: false, ..ALL }),
        (GSO_TCPV6, Allowed { tso6: false, ..ALL }),
        (GSO_TCPV4 | GSO_ECN, Allowed { ecn: false, ..ALL }),
        (GSO_TCPV6 | GSO_ECN, Allowed { ecn: false, ..ALL }),
        (GSO_UDP_L4, Allowed { uso: false, ..ALL }),
    ];
    for (gso_type, without) in types {
        let header = VnetHeader { gso_type, ..tso4() };
        assert_eq!(header.validate(4000, ALL), Ok(()));
        assert_eq!(
            header.validate(4000, without),
            Err(HeaderFault::GsoNotNegotiated { gso_type })
        );
    }
    assert_eq!(
        tso4().validate(4000, Allowed { csum: false, ..ALL }),
        Err(HeaderFault::ChecksumNotNegotiated)
    );
}

#[test]
fn normalized_keeps_only_what_has_meaning() {
    let odd = VnetHeader {
        flags: 0xff,
        hdr_len: 9000,
        num_buffers: 77,
        ..tso4()
    };
    let clean = odd.normalized(4000, F_NEEDS_CSUM);
    assert_eq!(
        clean,
        VnetHeader {
            hdr_len: 4000,
            num_buffers: 1,
            ..tso4()
        }
    );
    let plain = VnetHeader {
        flags: F_DATA_VALID | F_RSC_INFO,
        gso_type: GSO_NONE,
        ..odd
    };
    let one = VnetHeader {
        num_buffers: 1,
        ..VnetHeader::default()
    };
    assert_eq!(plain.normalized(60, F_NEEDS_CSUM), one);
    assert_eq!(
        plain.normalized(60, F_NEEDS_CSUM | F_DATA_VALID),
        VnetHeader {
            flags: F_DATA_VALID,
            ..one
        }
    );
}

#[test]
fn the_length_of_headers_is_measured_not_believed() {
    let mut frame = [0; 200];
    frame[34 + 12] = 0x80; // a TCP header of 8 words
    let measured =
        |header: VnetHeader, head: &[u8]| header.with_measured_hdr_len(head, 200).hdr_len;
    for hdr_len in [0, 54, 66, u16::MAX] {
        let header = VnetHeader { hdr_len, ..tso4() };
        assert_eq!(measured(header, &frame), 66);
        let ecn = GSO_TCPV4 | GSO_ECN;
        assert_eq!(
            measured(
                VnetHeader {
                    gso_type: ecn,
                    ..header
                },
                &frame
            ),
            66
        );
        let uso = VnetHeader {
            gso_type: GSO_UDP_L4,
            ..header
        };
        assert_eq!(measured(uso, &frame), 42);
        let none = VnetHeader {
            gso_type: GSO_NONE,
            ..header
        };
        assert_eq!(measured(none, &frame), hdr_len);
        // Behind the head, too short to be one, longer than the frame.
        assert_eq!(measured(header, &frame[..46]), 54);
        assert_eq!(measured(header, &[0; 200]), 54);
        assert_eq!(header.with_measured_hdr_len(&frame, 60).hdr_len, 60);
    }
}

#[test]
fn a_tag_moves_the_checksum_start() {
    let tagged = tso4().move_headers(4).unwrap();
    assert_eq!((tagged.csum_start, tagged.hdr_len), (38, 58));
    assert_eq!(tagged.move_headers(-4), Some(tso4()));
    assert_eq!(tso4().move_headers(-40), None);
    assert_eq!(
        VnetHeader::default().move_headers(-4),
        Some(VnetHeader::default())
    );
}
