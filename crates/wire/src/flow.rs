//! A hash that is the same for all frames of a flow, both ways, to choose one of a receiver's queues.
//!
//! Frames of one flow must stay in order, so all of them go to one queue. It spreads load and
//! protects nothing: a sender who wants its flows to meet in one queue can have that.

use crate::bytes::{array_at, u16_at};
use crate::eth::{self, EtherType, TYPE_OFFSET};
use crate::ipv4::{self, FRAGMENT_OFFSET, MORE_FRAGMENTS, protocol};
use crate::layers::{Fragment, Network, Version, dissect};

/// Hashes the 5-tuple of an IP packet found in the first bytes of a frame; without ports where they
/// cannot be read; only the addresses of a fragment; the MAC addresses of everything else.
#[inline]
pub fn hash(head: &[u8]) -> u32 {
    // What nearly every frame is: untagged IPv4 without options, TCP or UDP, no fragment.
    if let Some(front) = head.first_chunk::<{ eth::HEADER_LEN + ipv4::HEADER_LEN + 4 }>() {
        let fragment = u16_at(front, 20) & (MORE_FRAGMENTS | FRAGMENT_OFFSET);
        let protocol = front[23];
        if u16_at(front, TYPE_OFFSET) == EtherType::IPV4.0
            && front[14] == 0x45
            && fragment == 0
            && (protocol == protocol::TCP || protocol == protocol::UDP)
        {
            return finish(addresses_v4(front, 14), protocol, ports_at(front, 34));
        }
    }
    hash_any(head)
}

fn hash_any(head: &[u8]) -> u32 {
    // The frame may be longer than what is seen of it: nothing is malformed for its end.
    let layers = dissect(head, usize::MAX);
    let Some(network) = layers.network.present() else {
        return macs(head);
    };
    let addresses = match network.version {
        Version::V4 => addresses_v4(head, network.offset),
        Version::V6 => addresses_v6(head, network.offset),
    };
    if network.fragment != Fragment::No {
        // IPv6: the pieces need not name the same protocol (RFC 8200, 4.5).
        return finish(addresses, 0, [0; 2]);
    }
    finish(addresses, network.protocol, ports(head, &network))
}

/// Both ports, or 0.
fn ports(head: &[u8], network: &Network) -> [u16; 2] {
    let known = matches!(network.protocol, protocol::TCP | protocol::UDP);
    match head.get(network.payload..network.payload + 4) {
        Some(ports) if known => ports_at(ports, 0),
        _ => [0; 2],
    }
}

fn ports_at(bytes: &[u8], offset: usize) -> [u16; 2] {
    [u16_at(bytes, offset), u16_at(bytes, offset + 2)]
}

/// Source and destination.
fn addresses_v4(head: &[u8], offset: usize) -> [u64; 2] {
    [12, 16].map(|field| u64::from(u32::from_be_bytes(array_at(head, offset + field))))
}

fn addresses_v6(head: &[u8], offset: usize) -> [u64; 2] {
    let word = |at| u64::from_be_bytes(array_at(head, offset + at));
    [mix(word(8), word(16)), mix(word(24), word(32))]
}

fn macs(head: &[u8]) -> u32 {
    let Some(pair) = head.first_chunk::<12>() else {
        return 0;
    };
    let address = |at| u64::from_be_bytes(array_at(pair, at));
    finish([address(0) >> 16, address(4) & 0xffff_ffff_ffff], 0, [0; 2])
}

/// The same whichever end is the source.
#[inline]
fn finish([source, destination]: [u64; 2], protocol: u8, ports: [u16; 2]) -> u32 {
    let one = source.rotate_left(16) ^ u64::from(ports[0]);
    let other = destination.rotate_left(16) ^ u64::from(ports[1]);
    let ends = mix(one.min(other), one.max(other));
    let mixed = mix(ends, 0x9e37_79b9_7f4a_7c15 ^ u64::from(protocol));
    let [_, _, _, _, a, b, c, d] = mixed.to_be_bytes();
    u32::from_be_bytes([a, b, c, d])
}

/// Both halves of a 128-bit product, the constants keeping zeros from swallowing the other side.
#[inline]
fn mix(a: u64, b: u64) -> u64 {
    let product = u128::from(a ^ 0xa076_1d64_78bd_642f) * u128::from(b ^ 0xe703_7ed1_a0b4_28db);
    #[expect(clippy::cast_possible_truncation, reason = "the two halves are wanted")]
    let (high, low) = ((product >> 64) as u64, product as u64);
    high ^ low
}

#[cfg(test)]
mod tests;
