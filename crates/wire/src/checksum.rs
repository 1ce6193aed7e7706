//! The Internet checksum (RFC 1071), its pseudo headers and its incremental update (RFC 1624).
//!
//! The ones-complement sum does not care about byte order as long as it is swapped at the end, so
//! sums are kept in the machine's own order and words are added as they lie in memory. A piece
//! that begins at an odd offset contributes its sum with both bytes swapped.

use std::net::{Ipv4Addr, Ipv6Addr};

/// A ones-complement sum over pieces of any length.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sum {
    /// Folded now and then, so that it never overflows; machine order.
    total: u64,
    /// An odd number of bytes came so far: the next byte is the low half of a word.
    odd: bool,
}

impl Sum {
    /// The sum over nothing.
    #[inline]
    pub fn new() -> Self {
        Self::default()
    }

    /// A sum that begins with what stands in a checksum field, such as a pseudo header's sum.
    #[inline]
    pub fn from_field(field: u16) -> Self {
        Self {
            total: field.to_be().into(),
            odd: false,
        }
    }

    /// Appends bytes.
    #[inline]
    pub fn add(&mut self, bytes: &[u8]) {
        let piece = fold(sum_words(bytes));
        self.append_folded(piece, bytes.len() & 1 != 0);
    }

    /// Appends what another sum covers, as if its bytes followed here.
    #[inline]
    pub fn append(&mut self, other: Self) {
        self.append_folded(fold(other.total), other.odd);
    }

    /// Adds a word in the value it has on the wire, without regard to the bytes so far.
    #[inline]
    pub fn add_u16(&mut self, value: u16) {
        self.total = u64::from(fold(self.total)) + u64::from(value.to_be());
    }

    /// Adds the complement of a word, that is: takes it out of the sum.
    #[inline]
    pub fn subtract_u16(&mut self, value: u16) {
        self.add_u16(!value);
    }

    /// Adds the IPv4 pseudo header (RFC 9293, 3.1; RFC 768). `len`: bytes of transport header and data.
    pub fn add_pseudo_v4(
        &mut self,
        source: Ipv4Addr,
        destination: Ipv4Addr,
        protocol: u8,
        len: usize,
    ) {
        self.add_pseudo(&source.octets(), &destination.octets(), protocol, len);
    }

    /// Adds the IPv6 pseudo header (RFC 8200, 8.1). `len`: bytes of transport header and data.
    pub fn add_pseudo_v6(
        &mut self,
        source: Ipv6Addr,
        destination: Ipv6Addr,
        protocol: u8,
        len: usize,
    ) {
        self.add_pseudo(&source.octets(), &destination.octets(), protocol, len);
    }

    fn add_pseudo(&mut self, source: &[u8], destination: &[u8], protocol: u8, len: usize) {
        let rest = sum_words(source) + sum_words(destination) + sum_words(&len.to_be_bytes());
        self.total = u64::from(fold(self.total)) + u64::from(fold(rest));
        self.add_u16(protocol.into());
    }

    /// The sum in 16 bits, not complemented, in the value it has on the wire.
    #[inline]
    pub fn folded(self) -> u16 {
        u16::from_be(fold(self.total))
    }

    /// The checksum: the complement of the sum.
    #[inline]
    pub fn checksum(self) -> u16 {
        !self.folded()
    }

    /// The checksum with 0 replaced by its equal 0xffff: a UDP checksum of 0 says that there is none
    /// (RFC 768), to every other protocol both are the same.
    #[inline]
    pub fn checksum_nonzero(self) -> u16 {
        match self.checksum() {
            0 => 0xffff,
            other => other,
        }
    }

    #[inline]
    fn append_folded(&mut self, piece: u16, odd: bool) {
        let piece = if self.odd { piece.swap_bytes() } else { piece };
        self.total = u64::from(fold(self.total)) + u64::from(piece);
        self.odd ^= odd;
    }
}

/// The checksum over bytes.
pub fn checksum(bytes: &[u8]) -> u16 {
    let mut sum = Sum::new();
    sum.add(bytes);
    sum.checksum()
}

/// The checksum after one word it covers has changed (RFC 1624, equation 3).
#[inline]
pub fn update_u16(checksum: u16, old: u16, new: u16) -> u16 {
    let mut sum = Sum::from_field(!checksum);
    sum.subtract_u16(old);
    sum.add_u16(new);
    sum.checksum()
}

/// The checksum after two words it covers, at an even offset, have changed.
#[inline]
pub fn update_u32(checksum: u16, old: u32, new: u32) -> u16 {
    update_bytes(checksum, &old.to_be_bytes(), &new.to_be_bytes())
}

/// The checksum after bytes it covers, at an even offset, were replaced by as many others.
/// A piece of odd length counts as filled up with a zero, so it must be the end.
pub fn update_bytes(checksum: u16, old: &[u8], new: &[u8]) -> u16 {
    let mut sum = Sum::from_field(!checksum);
    let (mut out, mut into) = (Sum::new(), Sum::new());
    out.add(old);
    into.add(new);
    sum.subtract_u16(out.folded());
    sum.add_u16(into.folded());
    sum.checksum()
}

/// Words in machine order, an odd last byte as the first half of one. Every addend is below 2^32:
/// no sum overflows before 2^34 bytes.
#[inline]
fn sum_words(bytes: &[u8]) -> u64 {
    // Four-byte words in independent eight-byte lanes: no carry to wait for, and the compiler
    // makes vectors of them.
    let mut lanes = [0u64; 4];
    let (blocks, rest) = bytes.as_chunks::<16>();
    for block in blocks {
        let (words, _) = block.as_chunks::<4>();
        for (lane, word) in lanes.iter_mut().zip(words) {
            *lane += u64::from(u32::from_ne_bytes(*word));
        }
    }
    let mut total: u64 = lanes.iter().sum();
    let (pairs, last) = rest.as_chunks::<2>();
    for pair in pairs {
        total += u64::from(u16::from_ne_bytes(*pair));
    }
    if let &[byte] = last {
        total += u64::from(u16::from_ne_bytes([byte, 0]));
    }
    total
}

/// 2^16 is 1 modulo 0xffff: the halves may be added. 0 stays 0, nothing else becomes 0.
#[inline]
fn fold(total: u64) -> u16 {
    let total = (total >> 32) + (total & 0xffff_ffff);
    let total = (total >> 16) + (total & 0xffff);
    let total = (total >> 16) + (total & 0xffff);
    let total = (total >> 16) + (total & 0xffff);
    #[expect(clippy::cast_possible_truncation, reason = "folded above")]
    let folded = total as u16;
    folded
}

#[cfg(test)]
mod tests;
