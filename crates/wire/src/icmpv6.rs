//! ICMPv6 (RFC 4443) and the message types of neighbour discovery (RFC 4861).

use std::net::Ipv6Addr;

use crate::Truncated;
use crate::bytes::{set_u16, u16_at};
use crate::checksum::Sum;
use crate::ipv4::protocol;

/// Bytes that every message begins with: type, code, checksum.
pub const HEADER_LEN: usize = 4;
/// Offset of the checksum in the header.
pub const CHECKSUM_OFFSET: u16 = 2;

/// Message types (IANA).
pub mod kind {
    /// Echo request
    pub const ECHO_REQUEST: u8 = 128;
    /// Echo reply
    pub const ECHO_REPLY: u8 = 129;
    /// Multicast listener query
    pub const MLD_QUERY: u8 = 130;
    /// Multicast listener report, version 1
    pub const MLD_REPORT: u8 = 131;
    /// Multicast listener done
    pub const MLD_DONE: u8 = 132;
    /// Router solicitation
    pub const ROUTER_SOLICITATION: u8 = 133;
    /// Router advertisement
    pub const ROUTER_ADVERTISEMENT: u8 = 134;
    /// Neighbour solicitation
    pub const NEIGHBOUR_SOLICITATION: u8 = 135;
    /// Neighbour advertisement
    pub const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
    /// Redirect
    pub const REDIRECT: u8 = 137;
    /// Multicast listener report, version 2
    pub const MLD2_REPORT: u8 = 143;
}

/// View of a message, or of its first bytes.
#[derive(Clone, Copy, Debug)]
pub struct Message<T>(T);

impl<T: AsRef<[u8]>> Message<T> {
    /// Takes bytes that hold at least type, code and checksum.
    pub fn new_checked(bytes: T) -> Result<Self, Truncated> {
        Truncated::check("ICMPv6", HEADER_LEN, bytes.as_ref().len())?;
        Ok(Self(bytes))
    }

    fn bytes(&self) -> &[u8] {
        self.0.as_ref()
    }

    /// Type, see [`kind`].
    pub fn kind(&self) -> u8 {
        self.bytes()[0]
    }

    /// Code.
    pub fn code(&self) -> u8 {
        self.bytes()[1]
    }

    /// The checksum as it stands there.
    pub fn checksum(&self) -> u16 {
        u16_at(self.bytes(), 2)
    }

    /// The checksum over all bytes of the view, which must be the whole message, is right.
    pub fn checksum_ok(&self, source: Ipv6Addr, destination: Ipv6Addr) -> bool {
        sum(self.bytes(), source, destination).checksum() == 0
    }

    /// What follows the checksum.
    pub fn body(&self) -> &[u8] {
        &self.bytes()[HEADER_LEN..]
    }
}

impl<T: AsRef<[u8]> + AsMut<[u8]>> Message<T> {
    /// Computes the checksum over all bytes of the view, which must be the whole message.
    pub fn fill_checksum(&mut self, source: Ipv6Addr, destination: Ipv6Addr) {
        let bytes = self.0.as_mut();
        set_u16(bytes, 2, 0);
        let checksum = sum(bytes, source, destination).checksum();
        set_u16(bytes, 2, checksum);
    }
}

fn sum(bytes: &[u8], source: Ipv6Addr, destination: Ipv6Addr) -> Sum {
    let mut sum = Sum::new();
    sum.add_pseudo_v6(source, destination, protocol::ICMPV6, bytes.len());
    sum.add(bytes);
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksum_is_what_others_compute() {
        let (from, to) = ("fe80::1".parse().unwrap(), "ff02::2".parse().unwrap());
        let mut bytes = [kind::ROUTER_SOLICITATION, 0, 0xff, 0xff, 0, 0, 0, 0, 1];
        let mut message = Message::new_checked(&mut bytes).unwrap();
        message.fill_checksum(from, to);
        assert!(message.checksum_ok(from, to) && !message.checksum_ok(to, to));
        assert_eq!((message.kind(), message.code()), (133, 0));
        assert_eq!(message.body(), [0, 0, 0, 0, 1]);
        let foreign = etherparse::Icmpv6Slice::from_slice(&bytes).unwrap();
        assert!(foreign.is_checksum_valid(from.octets(), to.octets()));
        assert!(Message::new_checked([0; 3]).is_err());
    }
}
