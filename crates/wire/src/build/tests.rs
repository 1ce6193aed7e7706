use etherparse::{NetSlice, SlicedPacket, TransportSlice};

use super::*;
use crate::vlan::VlanId;

const A4: Ipv4Addr = Ipv4Addr::new(10, 1, 2, 3);
const B4: Ipv4Addr = Ipv4Addr::new(10, 4, 5, 6);

fn v6() -> FrameBuilder {
    FrameBuilder::ipv6("fd00::1".parse().unwrap(), "fd00::2".parse().unwrap())
}

#[test]
fn tagged_udp_over_ipv4_with_options() {
    let bytes = FrameBuilder::ipv4(A4, B4)
        .tag(Tag::new(VlanId::new(9).unwrap()))
        .options(&[1, 1, 1, 1, 1])
        .udp(1000, 2000)
        .build(b"hello");
    let packet = SlicedPacket::from_ethernet(&bytes).unwrap();
    let Some(NetSlice::Ipv4(network)) = packet.net else {
        panic!("{packet:?}")
    };
    let header = network.header().to_header();
    assert_eq!(header.options.len(), 8);
    assert_eq!(header.header_checksum, header.calc_header_checksum());
    let Some(TransportSlice::Udp(udp)) = packet.transport else {
        panic!("no UDP")
    };
    assert_eq!(udp.payload(), b"hello");
    let expected = udp
        .to_header()
        .calc_checksum_ipv4(&header, udp.payload())
        .unwrap();
    assert_eq!(udp.checksum(), expected);
    assert_eq!(packet.link_exts.len(), 1);
}

#[test]
fn tcp_over_ipv6_with_extension_headers() {
    let fields = TcpFields {
        source_port: 1,
        destination_port: 2,
        sequence: 3,
        flags: tcp::flag::ACK,
        ..TcpFields::default()
    };
    let bytes = v6()
        .extension(ipv6::extension::HOP_BY_HOP, &[1, 4, 0, 0, 0, 0])
        .extension(ipv6::extension::DESTINATION, &[1, 12])
        .tcp(fields, &[1, 1, 1])
        .build(b"data");
    let packet = SlicedPacket::from_ethernet(&bytes).unwrap();
    let Some(NetSlice::Ipv6(network)) = packet.net else {
        panic!("{packet:?}")
    };
    let Some(TransportSlice::Tcp(tcp)) = packet.transport else {
        panic!("no TCP")
    };
    assert_eq!((tcp.payload(), tcp.options().len()), (&b"data"[..], 4));
    let expected = tcp
        .calc_checksum_ipv6(network.header().source(), network.header().destination())
        .unwrap();
    assert_eq!(tcp.checksum(), expected);
}

#[test]
fn partial_and_segmentation_headers() {
    let (bytes, header) = v6().udp(5, 6).build_gso(&[7; 3000], 1000);
    assert_eq!(header.gso_type, GSO_UDP_L4);
    assert_eq!((header.csum_start, header.csum_offset), (54, 6));
    assert_eq!((header.hdr_len, header.gso_size), (62, 1000));
    assert_eq!(bytes.len(), 62 + 3000);
    let fields = TcpFields {
        flags: tcp::flag::CWR,
        ..TcpFields::default()
    };
    let (_, header) = FrameBuilder::ipv4(A4, B4)
        .tcp(fields, &[])
        .build_gso(&[], 1);
    assert_eq!(header.gso_type, GSO_TCPV4 | GSO_ECN);
}
