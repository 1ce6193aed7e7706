//! Frames to send.

use ringway_wire::MacAddress;

/// The address of guest `n`.
pub fn mac(n: u8) -> MacAddress {
    MacAddress([0x02, 0, 0, 0, 0, n])
}

pub const BROADCAST: MacAddress = MacAddress([0xff; 6]);

/// EtherType for experiments (IEEE 802).
const EXPERIMENTAL: [u8; 2] = [0x88, 0xb5];

/// A frame of `len` bytes whose body is made of `seed`.
pub fn frame(from: MacAddress, to: MacAddress, len: usize, seed: u64) -> Vec<u8> {
    assert!(len >= 14);
    let mut frame = Vec::with_capacity(len + 8);
    frame.extend(to.0);
    frame.extend(from.0);
    frame.extend(EXPERIMENTAL);
    let mut word = seed;
    frame.extend(word.to_le_bytes());
    while frame.len() < len {
        word = word.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
        frame.extend((word >> 16).to_le_bytes());
    }
    frame.truncate(len);
    frame
}

/// The seed of a [`frame`] of at least 22 bytes.
pub fn seed(frame: &[u8]) -> u64 {
    u64::from_le_bytes(frame[14..22].try_into().unwrap())
}

/// The same with a tag.
pub fn tagged(frame: &[u8], vlan: u16) -> Vec<u8> {
    let [high, low] = vlan.to_be_bytes();
    [&frame[..12], &[0x81, 0, high, low], &frame[12..]].concat()
}
