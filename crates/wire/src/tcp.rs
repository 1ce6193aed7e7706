//! TCP (RFC 9293): the header.

use crate::Truncated;
use crate::bytes::{set_u16, set_u32, u16_at, u32_at};

/// Bytes of a header without options.
pub const HEADER_LEN: usize = 20;
/// Bytes of the longest header.
pub const MAX_HEADER_LEN: usize = 60;
/// Offset of the checksum in the header.
pub const CHECKSUM_OFFSET: u16 = 16;

/// Bits of the flag byte.
pub mod flag {
    /// No more data
    pub const FIN: u8 = 0x01;
    /// Synchronise
    pub const SYN: u8 = 0x02;
    /// Reset
    pub const RST: u8 = 0x04;
    /// Push
    pub const PSH: u8 = 0x08;
    /// The acknowledgement number counts
    pub const ACK: u8 = 0x10;
    /// The urgent pointer counts
    pub const URG: u8 = 0x20;
    /// ECN echo (RFC 3168)
    pub const ECE: u8 = 0x40;
    /// Congestion window reduced (RFC 3168)
    pub const CWR: u8 = 0x80;
}

/// View of a segment, or of its first bytes.
#[derive(Clone, Copy, Debug)]
pub struct Segment<T>(T);

impl<T: AsRef<[u8]>> Segment<T> {
    /// Takes bytes that hold at least the header with all its options.
    pub fn new_checked(bytes: T) -> Result<Self, Fault> {
        let have = bytes.as_ref();
        Truncated::check("TCP", HEADER_LEN, have.len())?;
        let header_len = usize::from(have[12] >> 4) * 4;
        if header_len < HEADER_LEN {
            return Err(Fault::HeaderLen { header_len });
        }
        Truncated::check("TCP", header_len, have.len())?;
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

    /// Sequence number of the first payload byte.
    pub fn sequence(&self) -> u32 {
        u32_at(self.bytes(), 4)
    }

    /// Acknowledgement number.
    pub fn acknowledgement(&self) -> u32 {
        u32_at(self.bytes(), 8)
    }

    /// Bytes of the header with its options.
    pub fn header_len(&self) -> usize {
        usize::from(self.bytes()[12] >> 4) * 4
    }

    /// The flag byte, see [`flag`].
    pub fn flags(&self) -> u8 {
        self.bytes()[13]
    }

    /// Window, not scaled.
    pub fn window(&self) -> u16 {
        u16_at(self.bytes(), 14)
    }

    /// The checksum as it stands there.
    pub fn checksum(&self) -> u16 {
        u16_at(self.bytes(), 16)
    }

    /// The options with their padding.
    pub fn options(&self) -> &[u8] {
        &self.bytes()[HEADER_LEN..self.header_len()]
    }

    /// What follows the header.
    pub fn payload(&self) -> &[u8] {
        &self.bytes()[self.header_len()..]
    }
}

impl<T: AsRef<[u8]> + AsMut<[u8]>> Segment<T> {
    /// Writes the sequence number.
    pub fn set_sequence(&mut self, number: u32) {
        set_u32(self.0.as_mut(), 4, number);
    }

    /// Writes the flag byte.
    pub fn set_flags(&mut self, flags: u8) {
        self.0.as_mut()[13] = flags;
    }

    /// Writes the checksum.
    pub fn set_checksum(&mut self, checksum: u16) {
        set_u16(self.0.as_mut(), 16, checksum);
    }
}

/// Why bytes are no TCP header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// They end too early.
    #[error(transparent)]
    Truncated(#[from] Truncated),
    /// The header says that it is shorter than 20 bytes.
    #[error("a TCP header says that it has {header_len} bytes")]
    HeaderLen {
        /// What stands there.
        header_len: usize,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_where_others_put_them() {
        let mut foreign = etherparse::TcpHeader::new(4000, 80, 0xdead_beef, 512);
        foreign.acknowledgment_number = 0x0102_0304;
        foreign.cwr = true;
        foreign.ack = true;
        foreign.checksum = 0xabcd;
        foreign.set_options_raw(&[1, 1, 1, 0]).unwrap();
        let mut bytes = foreign.to_bytes().to_vec();
        bytes.extend(b"data");
        let mut segment = Segment::new_checked(&mut bytes).unwrap();
        assert_eq!(
            (segment.source_port(), segment.destination_port()),
            (4000, 80)
        );
        assert_eq!(segment.sequence(), 0xdead_beef);
        assert_eq!(segment.acknowledgement(), 0x0102_0304);
        assert_eq!(segment.flags(), flag::CWR | flag::ACK);
        assert_eq!((segment.window(), segment.checksum()), (512, 0xabcd));
        assert_eq!(
            (segment.header_len(), segment.payload()),
            (24, &b"data"[..])
        );
        assert_eq!(segment.options(), [1, 1, 1, 0]);

        segment.set_sequence(1);
        segment.set_flags(flag::FIN);
        segment.set_checksum(2);
        let (changed, _) = etherparse::TcpHeader::from_slice(&bytes).unwrap();
        assert!(changed.fin && !changed.cwr && !changed.ack);
        assert_eq!((changed.sequence_number, changed.checksum), (1, 2));
    }

    #[test]
    fn headers_that_lie_are_refused() {
        let mut bytes = [0; 60];
        assert!(Segment::new_checked(&bytes[..19]).is_err());
        bytes[12] = 0x4f;
        assert_eq!(
            Segment::new_checked(&bytes).unwrap_err(),
            Fault::HeaderLen { header_len: 16 }
        );
        bytes[12] = 0xf0;
        assert!(Segment::new_checked(&bytes[..59]).is_err());
        assert!(Segment::new_checked(&bytes).is_ok());
    }
}
