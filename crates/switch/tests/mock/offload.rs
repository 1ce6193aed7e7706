//! Frames that ask for offloads, and what a receiver without them is owed.

use std::net::Ipv4Addr;

use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use ringway_wire::build::{FrameBuilder, TcpFields};
use ringway_wire::tcp::flag;
use ringway_wire::vlan::{Tag, VlanId};
use ringway_wire::vnet_hdr::GSO_NONE;
use ringway_wire::{MacAddress, VnetHeader};

use super::features::{ASKS, USUAL};
use super::frames::{BROADCAST, frame, mac};
use super::{Guest, Lab, Options};

pub const PLAIN: VnetHeader = VnetHeader {
    flags: 0,
    gso_type: GSO_NONE,
    hdr_len: 0,
    gso_size: 0,
    csum_start: 0,
    csum_offset: 0,
    num_buffers: 1,
};

pub fn v4() -> FrameBuilder {
    FrameBuilder::ipv4(Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2))
}

pub fn v6() -> FrameBuilder {
    FrameBuilder::ipv6("fd00::1".parse().unwrap(), "fd00::2".parse().unwrap())
}

pub fn tag() -> Tag {
    Tag::new(VlanId::new(42).unwrap())
}

pub fn payload(len: usize) -> Vec<u8> {
    (0..len)
        .map(|i| u8::try_from(i * 31 % 251).unwrap())
        .collect()
}

pub fn options(features: u64) -> Options {
    Options {
        features: USUAL | features,
        size: 1024,
        ..Options::default()
    }
}

/// A sender that asks for everything, at port `a`, and a receiver with these features at port `b`.
pub fn pair(lab: &Lab, takes: u64) -> (Guest, Guest) {
    let mut a = lab.guest("a", options(ASKS));
    let mut b = lab.guest("b", options(takes));
    introduce(&mut a, mac(1), &mut b);
    introduce(&mut b, mac(2), &mut a);
    (a, b)
}

pub fn introduce(from: &mut Guest, address: MacAddress, to: &mut Guest) {
    from.send(&frame(address, BROADCAST, 60, 0));
    to.receive();
}

/// What the sender's own stack would have sent: one complete frame per `size` bytes.
pub fn reference(original: &Original, data: &[u8], size: usize) -> Vec<Vec<u8>> {
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
pub struct Original {
    network: FrameBuilder,
    ident: u16,
    tcp: TcpFields,
    options: Vec<u8>,
}

impl Original {
    pub fn new(network: FrameBuilder, flags: u8) -> Self {
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

    pub fn build(&self, data: &[u8], size: u16) -> (Vec<u8>, VnetHeader) {
        let builder = self.network.clone().fragment(self.ident, 0x4000);
        builder.tcp(self.tcp, &self.options).build_gso(data, size)
    }
}

/// Another parser finds nothing wrong with a complete frame.
pub fn verify(frame: &[u8], data: &[u8]) {
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
