//! UDP (RFC 768).

use std::net::IpAddr;

use crate::Truncated;
use crate::bytes::{set_u16, u16_at};
use crate::checksum::Sum;
use crate::ipv4::protocol;

/// Bytes of the header.
pub const HEADER_LEN: usize = 8;
/// Offset of the checksum in the header.
pub const CHECKSUM_OFFSET: u16 = 6;

/// View of a datagram, or of its first bytes.
#[derive(Clone, Copy, Debug)]
pub struct Datagram<T>(T);

impl<T: AsRef<[u8]>> Datagram<T> {
    /// Takes bytes that hold at least the header.
    pub fn new_checked(bytes: T) -> Result<Self, Truncated> {
        Truncated::check("UDP", HEADER_LEN, bytes.as_ref().len())?;
        Ok(Self(bytes))
    }

    fn bytes(&self) -> &[u8] {
        self.0.as_ref()
    }

    /// Source port.
    pub fn source_port(&self) -> u16 {
        u16_at(self.bytes(), 0)
    }

    /// Destination port.
    pub fn destination_port(&self) -> u16 {
        u16_at(self.bytes(), 2)
    }

    /// Bytes of header and payload, as the header says.
    pub fn len(&self) -> u16 {
        u16_at(self.bytes(), 4)
    }

    /// No payload, as the header says.
    pub fn is_empty(&self) -> bool {
        usize::from(self.len()) <= HEADER_LEN
    }

    /// The checksum as it stands there; 0 says that there is none.
    pub fn checksum(&self) -> u16 {
        u16_at(self.bytes(), 6)
    }

    /// The checksum over the whole datagram is right, or there is none (IPv4 only; RFC 8200, 8.1).
    /// False as well if the addresses are not of one kind.
    pub fn checksum_ok(&self, source: IpAddr, destination: IpAddr) -> bool {
        if self.checksum() == 0 {
            return source.is_ipv4();
        }
        let covered = self.bytes().get(..self.len().into()).unwrap_or(&[]);
        pseudo(source, destination, covered.len()).is_some_and(|mut sum| {
            sum.add(covered);
            sum.checksum() == 0 && covered.len() >= HEADER_LEN
        })
    }

    /// What follows the header, to the end that the header says or the bytes have.
    pub fn payload(&self) -> &[u8] {
        let end = usize::from(self.len()).min(self.bytes().len());
        self.bytes().get(HEADER_LEN..end).unwrap_or(&[])
    }
}

fn pseudo(source: IpAddr, destination: IpAddr, len: usize) -> Option<Sum> {
    let mut sum = Sum::new();
    match (source, destination) {
        (IpAddr::V4(from), IpAddr::V4(to)) => sum.add_pseudo_v4(from, to, protocol::UDP, len),
        (IpAddr::V6(from), IpAddr::V6(to)) => sum.add_pseudo_v6(from, to, protocol::UDP, len),
        _ => return None,
    }
    Some(sum)
}

impl<T: AsRef<[u8]> + AsMut<[u8]>> Datagram<T> {
    /// Writes the source port.
    pub fn set_source_port(&mut self, port: u16) {
        set_u16(self.0.as_mut(), 0, port);
    }

    /// Writes the destination port.
    pub fn set_destination_port(&mut self, port: u16) {
        set_u16(self.0.as_mut(), 2, port);
    }

    /// Writes the length of header and payload.
    pub fn set_len(&mut self, len: u16) {
        set_u16(self.0.as_mut(), 4, len);
    }

    /// Computes the checksum over all bytes of the view, which must be the whole datagram.
    /// Addresses of different kinds leave 0, no checksum.
    pub fn fill_checksum(&mut self, source: IpAddr, destination: IpAddr) {
        let bytes = self.0.as_mut();
        set_u16(bytes, 6, 0);
        if let Some(mut sum) = pseudo(source, destination, bytes.len()) {
            sum.add(bytes);
            set_u16(bytes, 6, sum.checksum_nonzero());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksum_is_what_others_compute() {
        let (from, to) = ([10, 0, 0, 1], [10, 0, 0, 2]);
        let mut bytes = vec![0; HEADER_LEN];
        bytes.extend(b"odd");
        let mut datagram = Datagram::new_checked(&mut bytes).unwrap();
        datagram.set_source_port(68);
        datagram.set_destination_port(67);
        datagram.set_len(11);
        datagram.fill_checksum(from.into(), to.into());
        assert!(datagram.checksum_ok(from.into(), to.into()));
        assert!(!datagram.checksum_ok(from.into(), [10, 0, 0, 3].into()));
        assert!(!datagram.checksum_ok(from.into(), [0u16; 8].into()));
        assert_eq!(datagram.payload(), b"odd");
        assert_eq!(
            (datagram.source_port(), datagram.destination_port()),
            (68, 67)
        );
        let (header, payload) = etherparse::UdpHeader::from_slice(&bytes).unwrap();
        let expected = header.calc_checksum_ipv4_raw(from, to, payload).unwrap();
        assert_eq!(header.checksum, expected);
    }

    #[test]
    fn absent_checksums_and_lengths_that_lie() {
        let mut bytes = [0; 12];
        let (v4, v6) = (IpAddr::from([0; 4]), IpAddr::from([0u16; 8]));
        assert!(Datagram::new_checked(&bytes[..7]).is_err());
        let view = Datagram::new_checked(&bytes).unwrap();
        assert!(view.checksum_ok(v4, v4) && !view.checksum_ok(v6, v6));
        assert!(view.is_empty() && view.payload().is_empty());
        set_u16(&mut bytes, 4, 500);
        set_u16(&mut bytes, 6, 1);
        let view = Datagram::new_checked(&bytes).unwrap();
        assert!(!view.checksum_ok(v4, v4));
        assert_eq!(view.payload().len(), 4);
    }
}
