use std::net::{Ipv4Addr, Ipv6Addr};

use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use proptest::prelude::*;
use ringway_wire::EtherType;
use ringway_wire::build::{FrameBuilder, TcpFields};
use ringway_wire::ipv6::extension;
use ringway_wire::tcp::flag;
use ringway_wire::vlan::{Tag, VlanId};

use super::super::complete_checksum;
use super::*;

mod hostile;

fn v4() -> FrameBuilder {
    let (source, destination) = (Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2));
    FrameBuilder::ipv4(source, destination).fragment(0xfffe, ipv4::DONT_FRAGMENT)
}

fn v6() -> FrameBuilder {
    FrameBuilder::ipv6("fd00::1".parse().unwrap(), "fd00::2".parse().unwrap())
}

fn tcp_fields(flags: u8) -> TcpFields {
    TcpFields {
        source_port: 40_000,
        destination_port: 5201,
        // Wraps within the larger frames.
        sequence: 0xffff_f000,
        acknowledgement: 7,
        flags,
        window: 512,
    }
}

/// Every combination of headers that can be segmented.
fn builders() -> Vec<FrameBuilder> {
    let tag = Tag::new(VlanId::new(42).unwrap());
    let outer = Tag {
        tpid: EtherType::QINQ,
        tci: 0x6007,
    };
    let networks = [
        v4(),
        v4().tag(tag).options(&[0x94, 4, 0, 0]),
        v4().options(&[1; 40]),
        v6(),
        v6().tag(outer)
            .tag(tag)
            .extension(extension::HOP_BY_HOP, &[5, 2, 0, 0]),
        v6().extension(extension::ROUTING, &[4; 22])
            .extension(extension::DESTINATION, &[1, 4]),
    ];
    let flags = flag::ACK | flag::PSH | flag::FIN | flag::CWR | flag::ECE;
    let transports = |network: FrameBuilder| {
        [
            network.clone().udp(53, 4444),
            network.clone().tcp(tcp_fields(flag::ACK), &[]),
            network.tcp(tcp_fields(flags), &[1, 1, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8]),
        ]
    };
    networks.into_iter().flat_map(transports).collect()
}

fn payload(len: usize) -> Vec<u8> {
    (0..len)
        .map(|i| u8::try_from(i * 31 % 251).unwrap())
        .collect()
}

fn segments(frame: &[u8], header: &VnetHeader, checksums: Checksums) -> Vec<(Vec<u8>, VnetHeader)> {
    let mut segmenter = Segmenter::new(frame, header, checksums).unwrap();
    let mut head = [0; MAX_HEAD_LEN];
    let mut out = Vec::new();
    let count = segmenter.remaining();
    while let Some(segment) = segmenter.next(&mut head) {
        let mut bytes = head[..segmenter.head_len()].to_vec();
        bytes.extend(&frame[segment.body]);
        out.push((bytes, segment.header));
    }
    assert_eq!((out.len(), segmenter.remaining()), (count, 0));
    out
}

/// Checks all that another parser can say about a complete frame; returns its payload.
fn verified(frame: &[u8]) -> Vec<u8> {
    let packet = SlicedPacket::from_ethernet(frame).unwrap();
    let v6_ends = match packet.net.as_ref().unwrap() {
        NetSlice::Ipv4(network) => {
            let header = network.header();
            let full = header.to_header();
            assert_eq!(full.header_checksum, full.calc_header_checksum());
            let link_len = header.slice().as_ptr() as usize - frame.as_ptr() as usize;
            assert_eq!(usize::from(header.total_len()), frame.len() - link_len);
            None
        }
        NetSlice::Ipv6(network) => {
            let header = network.header();
            let link_len = header.slice().as_ptr() as usize - frame.as_ptr() as usize;
            assert_eq!(
                usize::from(header.payload_length()),
                frame.len() - link_len - 40
            );
            Some((header.source(), header.destination()))
        }
        other => panic!("{other:?}"),
    };
    let v4_ends = || match packet.net.as_ref().unwrap() {
        NetSlice::Ipv4(network) => (network.header().source(), network.header().destination()),
        _ => unreachable!(),
    };
    match packet.transport.unwrap() {
        TransportSlice::Tcp(tcp) => {
            let right = match v6_ends {
                Some((source, destination)) => tcp.calc_checksum_ipv6(source, destination),
                None => tcp.calc_checksum_ipv4(v4_ends().0, v4_ends().1),
            };
            // Both zeros are right for TCP.
            assert_eq!(tcp.checksum() % 0xffff, right.unwrap() % 0xffff);
            tcp.payload().to_vec()
        }
        TransportSlice::Udp(udp) => {
            let header = udp.to_header();
            let right = match v6_ends {
                Some((from, to)) => header.calc_checksum_ipv6_raw(from, to, udp.payload()),
                None => header.calc_checksum_ipv4_raw(v4_ends().0, v4_ends().1, udp.payload()),
            };
            assert_eq!(header.checksum, right.unwrap());
            assert_eq!(usize::from(header.length), 8 + udp.payload().len());
            udp.payload().to_vec()
        }
        other => panic!("{other:?}"),
    }
}

/// The rules for one original, whatever its headers.
fn check(builder: &FrameBuilder, len: usize, size: u16) {
    let data = payload(len);
    let (frame, header) = builder.build_gso(&data, size);
    let made = segments(&frame, &header, Checksums::Complete);
    assert_eq!(made.len(), len.div_ceil(size.into()).max(1));
    let original = dissect(&frame, frame.len());
    let at = original.transport.present().unwrap();
    let mut joined = Vec::new();
    for (i, (bytes, vnet)) in made.iter().enumerate() {
        assert_eq!(
            *vnet,
            VnetHeader {
                num_buffers: 1,
                ..VnetHeader::default()
            }
        );
        let layers = dissect(bytes, bytes.len());
        assert_eq!(
            (layers.tags(), layers.transport),
            (original.tags(), original.transport)
        );
        if at.kind == TransportKind::Tcp {
            let old = tcp::Segment::new_checked(&frame[at.offset..]).unwrap();
            let new = tcp::Segment::new_checked(&bytes[at.offset..]).unwrap();
            let passed = u32::try_from(joined.len()).unwrap();
            assert_eq!(new.sequence(), old.sequence().wrapping_add(passed));
            assert_eq!(new.acknowledgement(), 7);
            assert_eq!(new.options(), old.options());
            let last = flag::FIN | flag::PSH;
            let mut flags = old.flags();
            flags &= if i == 0 { 0xff } else { !flag::CWR };
            flags &= if i + 1 == made.len() { 0xff } else { !last };
            assert_eq!(new.flags(), flags);
        }
        if let Ok(packet) = ipv4::Packet::new_checked(&bytes[at.offset - 20..at.offset]) {
            let ident = 0xfffe_u16.wrapping_add(u16::try_from(i).unwrap());
            assert_eq!(
                (packet.ident(), packet.fragment_word()),
                (ident, ipv4::DONT_FRAGMENT)
            );
        }
        joined.extend(verified(bytes));
    }
    assert!(joined == data);

    // Partial checksums, once completed, are the complete ones.
    for ((mut bytes, vnet), (right, _)) in segments(&frame, &header, Checksums::Partial)
        .into_iter()
        .zip(&made)
    {
        assert_eq!(
            (vnet.flags, vnet.gso_type, vnet.num_buffers),
            (F_NEEDS_CSUM, 0, 1)
        );
        complete_checksum(&mut bytes, &vnet).unwrap();
        assert!(bytes == *right);
    }
}

#[test]
fn every_kind_of_frame_in_usual_sizes() {
    for builder in builders() {
        for (len, size) in [
            (0, 1),
            (1, 1),
            (1448, 1448),
            (1449, 1448),
            (4000, 1448),
            (9000, 536),
        ] {
            check(&builder, len, size);
        }
    }
}

#[test]
fn the_largest_frames() {
    // 65,535 bytes of IP, options or extension headers included.
    check(&v4().tcp(tcp_fields(flag::ACK), &[]), 65_535 - 40, 1460);
    check(
        &v4().options(&[1; 40]).tcp(tcp_fields(flag::ACK), &[1; 40]),
        65_535 - 120,
        1380,
    );
    check(&v4().udp(1, 2), 65_535 - 28, 1472);
    check(&v6().tcp(tcp_fields(flag::ACK), &[]), 65_535 - 20, 1440);
    // A segment size that never is reached.
    check(&v4().tcp(tcp_fields(flag::ACK), &[]), 65_535 - 40, u16::MAX);
    check(&v4().udp(1, 2), 1500, 1);
}

#[test]
fn a_sum_for_other_addresses_is_kept() {
    // As a sender does whose packet goes by a routing header: the checksum is for the last stop.
    let routed = v6().extension(extension::ROUTING, &[2; 22]).udp(1, 2);
    let last_stop: Ipv6Addr = "fd00::99".parse().unwrap();
    let (mut frame, header) = routed.build_gso(&payload(3000), 1000);
    let start = usize::from(header.csum_start);
    let mut sum = Sum::new();
    let source = "fd00::1".parse().unwrap();
    sum.add_pseudo_v6(source, last_stop, 17, frame.len() - start);
    frame[start + 6..start + 8].copy_from_slice(&sum.folded().to_be_bytes());
    for (bytes, _) in segments(&frame, &header, Checksums::Complete) {
        let mut sum = Sum::new();
        sum.add_pseudo_v6(source, last_stop, 17, bytes.len() - start);
        sum.add(&bytes[start..]);
        assert_eq!(sum.checksum(), 0);
    }
}

#[test]
fn padding_and_absent_lengths() {
    let (frame, header) = v4()
        .tcp(tcp_fields(flag::ACK), &[])
        .build_gso(&payload(3100), 1000);
    let right = segments(&frame, &header, Checksums::Complete);
    let mut padded = frame.clone();
    padded.extend([0xaa; 30]);
    assert_eq!(segments(&padded, &header, Checksums::Complete), right);
    // Some drivers leave the length of what is to be segmented to the device.
    let mut without = frame;
    without[16..18].fill(0);
    assert_eq!(segments(&without, &header, Checksums::Complete), right);
    // More than 16 bits of length, as the pseudo header of IPv6 can have.
    let fields = tcp_fields(flag::ACK);
    let data = payload(70_000);
    let (mut large, header) = v6().tcp(fields, &[]).build_gso(&data, 1440);
    large[18..20].fill(0);
    let made = segments(&large, &header, Checksums::Complete);
    let joined: Vec<u8> = made.iter().flat_map(|(bytes, _)| verified(bytes)).collect();
    assert!(joined == data);
}

#[test]
fn a_udp_checksum_of_zero_goes_out_as_all_ones() {
    let (mut frame, header) = v4().udp(1, 2).build_gso(&[0; 4], 2);
    let first = segments(&frame, &header, Checksums::Complete)[0].0.clone();
    // The checksum as data makes the sum 0xffff.
    frame[42..44].copy_from_slice(&first[40..42]);
    let first = segments(&frame, &header, Checksums::Complete)[0].0.clone();
    assert_eq!(first[40..42], [0xff, 0xff]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_size_of_payload_and_segment(
        kind in 0usize..18,
        len in prop_oneof![0usize..2000, 0usize..65_300],
        size in prop_oneof![1u16..2000, any::<u16>()],
    ) {
        let size = size.max(u16::try_from(len.div_ceil(MAX_SEGMENTS)).unwrap()).max(1);
        check(&builders()[kind], len, size);
    }
}
