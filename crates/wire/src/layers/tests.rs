use std::net::{Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;

use super::*;
use crate::MacAddress;
use crate::arp;
use crate::build::{FrameBuilder, TcpFields};
use crate::vlan::VlanId;

fn v4() -> FrameBuilder {
    FrameBuilder::ipv4(Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2))
}

fn v6() -> FrameBuilder {
    FrameBuilder::ipv6(Ipv6Addr::LOCALHOST, Ipv6Addr::LOCALHOST)
}

fn whole(frame: &[u8]) -> Layers {
    dissect(frame, frame.len())
}

#[test]
fn tcp_over_ipv4_with_options_and_two_tags() {
    let outer = Tag {
        tpid: EtherType::QINQ,
        tci: 5,
    };
    let inner = Tag::new(VlanId::new(6).unwrap());
    let frame = v4()
        .tag(outer)
        .tag(inner)
        .options(&[1; 4])
        .tcp(TcpFields::default(), &[1; 12])
        .build(b"data");
    let layers = whole(&frame);
    assert_eq!(layers.tags(), [outer, inner]);
    assert_eq!(layers.ether_type, EtherType::IPV4);
    let network = layers.network.present().unwrap();
    assert_eq!((network.version, network.offset), (Version::V4, 22));
    assert_eq!((network.payload, network.end), (46, frame.len()));
    assert!(network.has_options);
    let transport = layers.transport.present().unwrap();
    assert_eq!(transport.kind, TransportKind::Tcp);
    assert_eq!((transport.offset, transport.header_len), (46, 32));
    assert_eq!(layers.header_end, frame.len() - 4);
}

#[test]
fn a_third_tag_is_not_looked_through() {
    let tag = Tag::new(VlanId::new(1).unwrap());
    let layers = whole(&v4().tag(tag).tag(tag).tag(tag).build(&[]));
    assert_eq!(layers.tags().len(), 2);
    assert_eq!(layers.ether_type, EtherType::VLAN);
    assert_eq!(layers.network, Found::Absent);
    assert_eq!(layers.header_end, 22);
}

#[test]
fn udp_behind_all_extension_headers() {
    let frame = v6()
        .extension(extension::HOP_BY_HOP, &[1, 4])
        .extension(extension::ROUTING, &[4; 22])
        .extension(extension::AUTHENTICATION, &[0; 14])
        .extension(extension::DESTINATION, &[1, 4])
        .udp(53, 1234)
        .build(b"x");
    let layers = whole(&frame);
    let network = layers.network.present().unwrap();
    assert_eq!(
        (network.protocol, network.payload),
        (17, 54 + 8 + 24 + 16 + 8)
    );
    let transport = layers.transport.present().unwrap();
    assert_eq!(transport.ports(&frame), Some((53, 1234)));
    assert_eq!(transport.ports(&frame[..transport.offset + 3]), None);
    assert_eq!(layers.header_end, frame.len() - 1);
}

#[test]
fn extension_headers_are_bounded() {
    let chain = |count| {
        (0..count)
            .fold(v6(), |frame, _| {
                frame.extension(extension::DESTINATION, &[1, 4])
            })
            .build(&[])
    };
    assert!(whole(&chain(MAX_EXTENSIONS)).transport.present().is_some());
    assert_eq!(whole(&chain(MAX_EXTENSIONS + 1)).network, Found::Malformed);
}

#[test]
fn fragments() {
    let first = whole(&v4().fragment(1, MORE_FRAGMENTS).build(&[0; 32]));
    assert_eq!(first.network.present().unwrap().fragment, Fragment::First);
    assert!(first.transport.present().is_some());
    let later = whole(&v4().fragment(1, 4).build(&[0; 32]));
    assert_eq!(later.network.present().unwrap().fragment, Fragment::Later);
    assert_eq!(later.transport, Found::Absent);

    let v6_piece = |word: u16| {
        let mut body = [0; 6];
        body[..2].copy_from_slice(&word.to_be_bytes());
        whole(&v6().extension(extension::FRAGMENT, &body).build(&[0; 32]))
    };
    let kind = |layers: &Layers| layers.network.present().unwrap().fragment;
    assert_eq!(kind(&v6_piece(0)), Fragment::No);
    assert_eq!(kind(&v6_piece(1)), Fragment::First);
    let later = v6_piece(0x10);
    assert_eq!(
        (kind(&later), later.transport),
        (Fragment::Later, Found::Absent)
    );
}

#[test]
fn other_frames_have_no_network_header() {
    let announce = arp::rarp_announce(MacAddress([2, 0, 0, 0, 0, 1]));
    let layers = whole(&announce);
    assert_eq!(layers.ether_type, EtherType::RARP);
    assert_eq!(
        (layers.network, layers.transport),
        (Found::Absent, Found::Absent)
    );
    assert_eq!(layers.header_end, 14);
    assert_eq!(whole(&[]).network, Found::Malformed);
    assert_eq!(dissect(&[], 60).network, Found::Truncated);
}

#[test]
fn padding_is_not_part_of_the_packet() {
    let mut frame = v4().build(b"x");
    let end = frame.len();
    frame.resize(60, 0);
    assert_eq!(whole(&frame).network.present().unwrap().end, end);
    // A length field of 0: as large as the frame.
    frame[16..18].fill(0);
    assert_eq!(whole(&frame).network.present().unwrap().end, 60);
    // A transport header in the padding is none.
    frame[16..18].copy_from_slice(&27u16.to_be_bytes());
    assert_eq!(whole(&frame).transport, Found::Malformed);
    frame[16..18].copy_from_slice(&19u16.to_be_bytes());
    assert_eq!(whole(&frame).network, Found::Malformed);
}

#[test]
fn every_cut_is_truncated_and_every_short_frame_malformed() {
    let frames = [
        v4().options(&[1; 8])
            .tcp(TcpFields::default(), &[1; 8])
            .build(&[]),
        v6().extension(extension::ROUTING, &[0; 14])
            .udp(1, 2)
            .build(&[]),
    ];
    for frame in frames {
        for cut in 0..frame.len() {
            let seen = dissect(&frame[..cut], frame.len());
            let short = dissect(&frame, cut);
            match seen.network {
                Found::Present(_) => assert_eq!(seen.transport, Found::Truncated, "{cut}"),
                _ => assert_eq!(seen.network, Found::Truncated, "{cut}"),
            }
            match short.network {
                Found::Present(_) => assert_eq!(short.transport, Found::Malformed, "{cut}"),
                _ => assert_eq!(short.network, Found::Malformed, "{cut}"),
            }
        }
    }
}

proptest! {
    #[test]
    fn never_panics_and_offsets_lie_within(
        head in proptest::collection::vec(any::<u8>(), 0..160),
        kind in prop_oneof![Just(0x0800u16), Just(0x86dd), Just(0x8100), any::<u16>()],
        version in prop_oneof![Just(0x45u8), Just(0x46), Just(0x60), any::<u8>()],
        total_len in prop_oneof![0usize..200, Just(usize::MAX), Just(65_535)],
    ) {
        let mut head = head;
        if let Some(field) = head.get_mut(12..14) {
            field.copy_from_slice(&kind.to_be_bytes());
        }
        if let Some(byte) = head.get_mut(14) {
            *byte = version;
        }
        let layers = dissect(&head, total_len);
        prop_assert!(layers.header_end <= head.len().min(total_len));
        if let Found::Present(network) = layers.network {
            prop_assert!(network.offset < network.payload);
            prop_assert!(network.payload <= network.end && network.end <= total_len);
        }
        if let Found::Present(transport) = layers.transport {
            prop_assert_eq!(transport.offset + transport.header_len, layers.header_end);
        }
        crate::flow::hash(&head);
    }
}
