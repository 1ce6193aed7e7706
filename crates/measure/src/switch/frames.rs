//! What the frames carry.
//!
//! Bytes of each frame depend on its buffer and their place, so that a frame that was mixed up with another is found.

use std::net::Ipv4Addr;

use ringway_wire::build::{FrameBuilder, TcpFields};
use ringway_wire::{MacAddress, VnetHeader};

use super::traffic::Traffic;

/// Where the pattern begins: after the longest headers, aligned for a word.
pub const PATTERN: usize = 56;
/// Where a frame carries its time of departure: between the UDP header and the pattern.
pub const STAMP: usize = 48;
/// Bytes of a TCP segment that bulk frames are to be cut into where they leave.
const SEGMENT: u16 = 1448;

/// The word of frame `number` at `offset`.
#[inline]
pub fn word(number: u32, offset: usize) -> u64 {
    let place = u64::try_from(offset).unwrap_or(u64::MAX);
    (u64::from(number) << 32 | 0x5a00_0000) ^ place
}

/// The number of the frame that begins with these bytes.
pub fn number(frame: &[u8]) -> Option<u32> {
    let bytes = frame.get(PATTERN + 4..PATTERN + 8)?;
    Some(u32::from_le_bytes(bytes.try_into().ok()?))
}

/// The address of station `index` behind guest `side`.
fn mac(side: usize, index: usize) -> MacAddress {
    let [.., high, low] = index.to_be_bytes();
    MacAddress([0x52, 0x54, 0, u8::try_from(side).unwrap_or(0), high, low])
}

/// Frame `number` that guest `side` sends, with its virtio-net header.
pub fn frame(traffic: &Traffic, side: usize, number: usize) -> (VnetHeader, Vec<u8>) {
    let pair = number % traffic.pairs;
    let builder = FrameBuilder::ipv4(address(side), address(1 - side))
        .macs(mac(side, pair), mac(1 - side, pair));
    let (mut bytes, header) = if traffic.tso {
        let fields = TcpFields {
            source_port: 1000,
            destination_port: 2000,
            flags: 0x10,
            window: 1024,
            ..TcpFields::default()
        };
        builder
            .tcp(fields, &[])
            .build_gso(&vec![0; traffic.size - 54], SEGMENT)
    } else {
        let bytes = builder.udp(1000, 2000).build(&vec![0; traffic.size - 42]);
        (bytes, VnetHeader::default())
    };
    // No checksum, which the pattern would make wrong.
    if !traffic.tso {
        bytes[40..42].fill(0);
    }
    let number = u32::try_from(number).unwrap_or(u32::MAX);
    let mut offset = PATTERN;
    while offset + 8 <= bytes.len() {
        bytes[offset..offset + 8].copy_from_slice(&word(number, offset).to_le_bytes());
        offset += 8;
    }
    (header, bytes)
}

/// A short frame to everybody that tells where station `number` is.
pub fn announcement(traffic: &Traffic, side: usize, number: usize) -> Vec<u8> {
    FrameBuilder::ipv4(address(side), Ipv4Addr::BROADCAST)
        .macs(mac(side, number % traffic.pairs), MacAddress([0xff; 6]))
        .udp(68, 67)
        .build(&[0; 22])
}

/// A short frame to everybody from one of many stations, which are neither guest's.
pub fn station(number: usize) -> Vec<u8> {
    let [.., a, b, c, d] = number.to_be_bytes();
    FrameBuilder::ipv4(Ipv4Addr::new(10, b, c, d), Ipv4Addr::BROADCAST)
        .macs(MacAddress([0x52, 0x55, a, b, c, d]), MacAddress([0xff; 6]))
        .udp(68, 67)
        .build(&[0; 22])
}

fn address(side: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 0, if side == 0 { 1 } else { 2 })
}
