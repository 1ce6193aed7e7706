//! The checks of what is sent and of its virtio-net header, a test for each.

use super::*;

const ALL: Offloads = Offloads {
    csum: true,
    tso4: true,
    tso6: true,
    ecn: true,
    uso: true,
};

/// A TCP frame to be segmented with which nothing is wrong.
const GOOD: VnetHeader = VnetHeader {
    flags: vnet_hdr::F_NEEDS_CSUM,
    gso_type: vnet_hdr::GSO_TCPV4,
    hdr_len: 54,
    gso_size: 100,
    csum_start: 34,
    csum_offset: 16,
    num_buffers: 0,
};

/// The header as it is handed on, or why the frame is not.
fn judged(asks: Offloads, header: VnetHeader, frame: &[u8]) -> Result<VnetHeader, DropReason> {
    let mut guest = heap(MODERN);
    guest.link.asks = asks;
    guest.send(&header.to_bytes(), frame, []);
    let mut heads = Heads::new();
    let mut burst = Burst::new(&mut heads);
    assert_eq!(guest.link.receive(0, 32, &mut burst), Ok(1));
    match burst.frames.len() {
        1 => Ok(VnetHeader::from_bytes(burst.heads[0].vnet())),
        _ => Err(guest.drops()[0].0),
    }
}

fn frame(len: usize) -> Vec<u8> {
    let mut frame = pattern(len);
    // Five words of TCP header.
    frame[34 + 12] = 0x50;
    frame
}

#[test]
fn header_is_gathered_across_descriptors_and_short_chains_are_rejected_cve_2022_2132() {
    for kind in [MODERN, LEGACY] {
        let header = vec![0; kind.header_len];
        for len in 0..kind.header_len + MIN_FRAME {
            let bytes = vec![0; len];
            for cut in [0, 1, 5, 9, 10, 11, 12, 13] {
                let mut guest = heap(kind);
                guest.send(&bytes, &[], [cut, 1]);
                let mut heads = Heads::new();
                let mut burst = Burst::new(&mut heads);
                assert_eq!(guest.link.receive(0, 32, &mut burst), Ok(1));
                assert_eq!(burst.frames.len(), 0);
                assert_eq!(guest.drops(), [(DropReason::TooShort, 1)]);
            }
        }
        // A byte in each.
        let mut guest = heap(kind);
        guest.send(&header, &pattern(60), [1; 30]);
        let mut heads = Heads::new();
        let mut burst = Burst::new(&mut heads);
        assert_eq!(guest.link.receive(0, 32, &mut burst), Ok(1));
        assert_eq!(burst.heads[0].frame()[..60], pattern(60));
    }
}

#[test]
fn csum_start_plus_offset_plus_2_is_at_most_the_frame_cve_2024_11614() {
    for (csum_start, csum_offset, good) in [
        (34, 16, true),
        (98, 0, true),
        (0, 98, true),
        (99, 0, false),
        (0, 99, false),
        (98, 1, false),
        (u16::MAX, 0, false),
        (0, u16::MAX, false),
        (u16::MAX, u16::MAX, false),
        // As 16 bits they add up to something inside.
        (u16::MAX, 40, false),
    ] {
        let header = VnetHeader {
            flags: vnet_hdr::F_NEEDS_CSUM,
            csum_start,
            csum_offset,
            ..VnetHeader::default()
        };
        let judged = judged(ALL, header, &frame(100));
        assert_eq!(judged.is_ok(), good, "{csum_start} + {csum_offset}");
        assert!(good || judged == Err(DropReason::BadHeader));
    }
}

#[test]
fn csum_is_negotiated() {
    let header = VnetHeader {
        gso_type: 0,
        gso_size: 0,
        ..GOOD
    };
    assert!(judged(ALL, header, &frame(100)).is_ok());
    let none = Offloads::default();
    assert_eq!(
        judged(none, header, &frame(100)),
        Err(DropReason::BadHeader)
    );
}

#[test]
fn gso_size_is_not_zero() {
    for gso_type in [
        vnet_hdr::GSO_TCPV4,
        vnet_hdr::GSO_TCPV6,
        vnet_hdr::GSO_UDP_L4,
    ] {
        for gso_size in [0, 1, 100, u16::MAX] {
            let header = VnetHeader {
                gso_type,
                gso_size,
                ..GOOD
            };
            let judged = judged(ALL, header, &frame(400));
            assert_eq!(judged.is_ok(), gso_size > 0);
        }
    }
}

#[test]
fn gso_type_is_in_the_negotiated_set() {
    for gso_type in 0..=u8::MAX {
        let header = VnetHeader { gso_type, ..GOOD };
        let known = [
            (vnet_hdr::GSO_TCPV4, Offloads { tso4: false, ..ALL }),
            (vnet_hdr::GSO_TCPV6, Offloads { tso6: false, ..ALL }),
            (vnet_hdr::GSO_UDP_L4, Offloads { uso: false, ..ALL }),
            (
                vnet_hdr::GSO_TCPV4 | vnet_hdr::GSO_ECN,
                Offloads { ecn: false, ..ALL },
            ),
            (
                vnet_hdr::GSO_TCPV6 | vnet_hdr::GSO_ECN,
                Offloads { ecn: false, ..ALL },
            ),
        ];
        let without = known.iter().find(|(known, _)| *known == gso_type);
        let good = judged(ALL, header, &frame(400));
        assert_eq!(
            good.is_ok(),
            gso_type == 0 || without.is_some(),
            "{gso_type:#x}"
        );
        if let Some((_, without)) = without {
            let refused = judged(*without, header, &frame(400));
            assert_eq!(refused, Err(DropReason::BadHeader), "{gso_type:#x}");
        }
    }
}

#[test]
fn gso_needs_csum() {
    for flags in [0, vnet_hdr::F_DATA_VALID, !vnet_hdr::F_NEEDS_CSUM] {
        let header = VnetHeader { flags, ..GOOD };
        assert_eq!(judged(ALL, header, &frame(400)), Err(DropReason::BadHeader));
    }
    assert!(judged(ALL, GOOD, &frame(400)).is_ok());
}

#[test]
fn hdr_len_is_a_hint_and_recomputed() {
    for hdr_len in [0, 1, 54, 399, 400, u16::MAX] {
        let header = VnetHeader { hdr_len, ..GOOD };
        let judged = judged(ALL, header, &frame(400));
        assert_eq!(judged.map(|header| header.hdr_len), Ok(54));
    }
}

#[test]
fn num_buffers_of_what_is_sent_is_ignored() {
    for num_buffers in [0, 1, 2, u16::MAX] {
        for header in [GOOD, VnetHeader::default()] {
            let header = VnetHeader {
                num_buffers,
                ..header
            };
            let judged = judged(ALL, header, &frame(400));
            assert_eq!(judged.map(|header| header.num_buffers), Ok(1));
        }
    }
}

#[test]
fn frames_have_14_bytes_up_to_the_cap_cve_2024_41090() {
    for (len, reason) in [
        (0, Some(DropReason::TooShort)),
        (13, Some(DropReason::TooShort)),
        (14, None),
        (65_535 + 14 + 8, None),
        (65_535 + 14 + 8 + 1, Some(DropReason::TooLong)),
        (0x3_0000, Some(DropReason::TooLong)),
    ] {
        let judged = judged(ALL, VnetHeader::default(), &vec![0; len]);
        assert_eq!(judged.err(), reason, "{len} bytes");
    }
}
