//! DHCP messages as bytes (RFC 2131 section 2, options RFC 2132).
//!
//! Written here because clients are hostile: one odd option must not cost the message, and no length is believed.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

/// Numbers of options.
pub mod code {
    #![allow(missing_docs)]
    pub const SUBNET_MASK: u8 = 1;
    pub const ROUTER: u8 = 3;
    pub const DNS: u8 = 6;
    pub const HOST_NAME: u8 = 12;
    pub const DOMAIN: u8 = 15;
    pub const MTU: u8 = 26;
    pub const BROADCAST: u8 = 28;
    pub const NTP: u8 = 42;
    pub const REQUESTED_ADDRESS: u8 = 50;
    pub const LEASE_TIME: u8 = 51;
    pub const OVERLOAD: u8 = 52;
    pub const TYPE: u8 = 53;
    pub const SERVER: u8 = 54;
    pub const REQUESTED_OPTIONS: u8 = 55;
    pub const MESSAGE: u8 = 56;
    pub const MAX_SIZE: u8 = 57;
    pub const RENEWAL: u8 = 58;
    pub const REBINDING: u8 = 59;
    pub const CLIENT_ID: u8 = 61;
    pub const RAPID_COMMIT: u8 = 80;
    pub const FQDN: u8 = 81;
    pub const RELAY_INFORMATION: u8 = 82;
    pub const SEARCH: u8 = 119;
    pub const ROUTES: u8 = 121;
    const PAD: u8 = 0;
    const END: u8 = 255;
    pub(super) const MARKS: (u8, u8) = (PAD, END);
}

/// Message types (option 53).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
#[allow(missing_docs)]
pub enum Type {
    Discover = 1,
    Offer = 2,
    Request = 3,
    Decline = 4,
    Ack = 5,
    Nak = 6,
    Release = 7,
    Inform = 8,
}

impl Type {
    fn from_number(number: u8) -> Option<Self> {
        use Type::*;
        [Discover, Offer, Request, Decline, Ack, Nak, Release, Inform]
            .into_iter()
            .find(|kind| *kind as u8 == number)
    }
}

/// Bytes before the options.
const FIXED: usize = 236;
const COOKIE: [u8; 4] = [99, 130, 83, 99];
/// Shortest message that BOOTP relays and old clients take (RFC 1542, section 2.1).
const SHORTEST: usize = 300;

/// Why bytes are no message of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// Shorter than the fixed part and the cookie.
    #[error("{0} bytes, at least 240 make a message")]
    Short(usize),
    /// BOOTP without DHCP.
    #[error("no DHCP cookie")]
    NoCookie,
    /// Not a request.
    #[error("operation {0} is not a client's")]
    Operation(u8),
    /// No Ethernet address.
    #[error("hardware type {0} with {1} bytes is not Ethernet")]
    Hardware(u8, u8),
    /// An option goes beyond the end.
    #[error("option {0} goes beyond the end")]
    Option(u8),
    /// No type, or one that clients do not send.
    #[error("no type that a client sends")]
    Type,
}

impl Fault {
    /// The counter that it counts in.
    pub fn event(self) -> &'static str {
        match self {
            Self::Short(_) => "dhcp_too_short",
            Self::NoCookie => "dhcp_no_cookie",
            Self::Operation(_) => "dhcp_not_a_request",
            Self::Hardware(..) => "dhcp_not_ethernet",
            Self::Option(_) => "dhcp_bad_option",
            Self::Type => "dhcp_bad_type",
        }
    }
}

/// A message. Addresses that are not set are 0.0.0.0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// What it is.
    pub kind: Type,
    /// Relays it came through.
    pub hops: u8,
    /// Transaction.
    pub xid: u32,
    /// Seconds since the client began.
    pub secs: u16,
    /// Whether the answer has to be broadcast.
    pub broadcast: bool,
    /// Address the client has and can be reached at.
    pub ciaddr: Ipv4Addr,
    /// Address the client gets.
    pub yiaddr: Ipv4Addr,
    /// Relay.
    pub giaddr: Ipv4Addr,
    /// The client's Ethernet address.
    pub chaddr: [u8; 6],
    /// Options by number; several of one number are one (RFC 3396).
    pub options: BTreeMap<u8, Vec<u8>>,
}

impl Message {
    /// A client's message.
    pub fn parse(bytes: &[u8]) -> Result<Self, Fault> {
        let (Some(fixed), Some(cookie)) =
            (bytes.first_chunk::<FIXED>(), bytes.get(FIXED..FIXED + 4))
        else {
            return Err(Fault::Short(bytes.len()));
        };
        if cookie != COOKIE {
            return Err(Fault::NoCookie);
        }
        if fixed[0] != 1 {
            return Err(Fault::Operation(fixed[0]));
        }
        if (fixed[1], fixed[2]) != (1, 6) {
            return Err(Fault::Hardware(fixed[1], fixed[2]));
        }
        let mut options = BTreeMap::new();
        read_options(&bytes[FIXED + 4..], &mut options)?;
        match options.get(&code::OVERLOAD).map(Vec::as_slice) {
            Some([1]) => read_options(&fixed[108..], &mut options)?,
            Some([2]) => read_options(&fixed[44..108], &mut options)?,
            Some([3]) => {
                read_options(&fixed[108..], &mut options)?;
                read_options(&fixed[44..108], &mut options)?;
            }
            _ => {}
        }
        let kind = match options.get(&code::TYPE).map(Vec::as_slice) {
            Some([number]) => Type::from_number(*number),
            _ => None,
        };
        let kind = kind.filter(|kind| !matches!(kind, Type::Offer | Type::Ack | Type::Nak));
        let address =
            |at: usize| Ipv4Addr::from([fixed[at], fixed[at + 1], fixed[at + 2], fixed[at + 3]]);
        let mut chaddr = [0; 6];
        chaddr.copy_from_slice(&fixed[28..34]);
        Ok(Self {
            kind: kind.ok_or(Fault::Type)?,
            hops: fixed[3],
            xid: u32::from_be_bytes([fixed[4], fixed[5], fixed[6], fixed[7]]),
            secs: u16::from_be_bytes([fixed[8], fixed[9]]),
            broadcast: fixed[10] & 0x80 != 0,
            ciaddr: address(12),
            yiaddr: address(16),
            giaddr: address(24),
            chaddr,
            options,
        })
    }

    /// The option, if its value is one IPv4 address.
    pub fn address(&self, code: u8) -> Option<Ipv4Addr> {
        let value = self.options.get(&code)?;
        <[u8; 4]>::try_from(value.as_slice())
            .ok()
            .map(Ipv4Addr::from)
    }

    /// The option, if its value is a number of 32 bits.
    pub fn u32(&self, code: u8) -> Option<u32> {
        let value = self.options.get(&code)?;
        <[u8; 4]>::try_from(value.as_slice())
            .ok()
            .map(u32::from_be_bytes)
    }

    /// The client's identifier, if it gave one that RFC 2132 section 9.14 allows.
    pub fn client_id(&self) -> Option<&[u8]> {
        let id = self.options.get(&code::CLIENT_ID)?;
        (2..=255).contains(&id.len()).then_some(id)
    }

    /// Bytes the client takes, of which the options may use all but the fixed part (option 57, at least 576 with IP and UDP
    /// headers).
    pub fn max_len(&self) -> usize {
        let asked = match self.options.get(&code::MAX_SIZE).map(Vec::as_slice) {
            Some(&[high, low]) => u16::from_be_bytes([high, low]),
            _ => 0,
        };
        usize::from(asked.clamp(576, 1500)) - 28
    }

    /// A server's message with `options` in their order. The first that does not fit into `limit` bytes, and those behind it,
    /// are left out, but not what a relay put in, which it wants back; an option of more than 255 bytes is cut into several
    /// (RFC 3396).
    pub fn write(&self, options: &[(u8, Vec<u8>)], limit: usize) -> Vec<u8> {
        let mut bytes = vec![0; FIXED];
        bytes[..4].copy_from_slice(&[2, 1, 6, self.hops]);
        bytes[4..8].copy_from_slice(&self.xid.to_be_bytes());
        bytes[8..10].copy_from_slice(&self.secs.to_be_bytes());
        bytes[10] = u8::from(self.broadcast) << 7;
        bytes[12..16].copy_from_slice(&self.ciaddr.octets());
        bytes[16..20].copy_from_slice(&self.yiaddr.octets());
        bytes[24..28].copy_from_slice(&self.giaddr.octets());
        bytes[28..34].copy_from_slice(&self.chaddr);
        bytes.extend(COOKIE);
        let kind = (code::TYPE, vec![self.kind as u8]);
        let size = |value: &Vec<u8>| value.len() + 2 * value.len().div_ceil(255).max(1);
        let relayed = |option: &&(u8, Vec<u8>)| option.0 == code::RELAY_INFORMATION;
        let reserved: usize = options.iter().filter(relayed).map(|(_, v)| size(v)).sum();
        let mut room = limit.saturating_sub(bytes.len() + reserved + 1);
        let fitting = std::iter::once(&kind)
            .chain(options.iter().filter(|option| !relayed(option)))
            .take_while(|(_, value)| match room.checked_sub(size(value)) {
                Some(left) => {
                    room = left;
                    true
                }
                None => false,
            });
        let fitting: Vec<_> = fitting.chain(options.iter().filter(relayed)).collect();
        for (number, value) in fitting {
            let pieces = value.len().div_ceil(255).max(1);
            let mut rest = value.as_slice();
            for _ in 0..pieces {
                let (piece, behind) = rest.split_at(rest.len().min(255));
                bytes.push(*number);
                bytes.push(u8::try_from(piece.len()).unwrap_or(u8::MAX));
                bytes.extend(piece);
                rest = behind;
            }
        }
        bytes.push(code::MARKS.1);
        bytes.resize(bytes.len().max(SHORTEST), code::MARKS.0);
        bytes
    }
}

fn read_options(mut bytes: &[u8], into: &mut BTreeMap<u8, Vec<u8>>) -> Result<(), Fault> {
    let (pad, end) = code::MARKS;
    while let Some((&number, rest)) = bytes.split_first() {
        if number == end {
            break;
        }
        if number == pad {
            bytes = rest;
            continue;
        }
        let (&len, rest) = rest.split_first().ok_or(Fault::Option(number))?;
        let (value, rest) = rest
            .split_at_checked(usize::from(len))
            .ok_or(Fault::Option(number))?;
        into.entry(number).or_default().extend(value);
        bytes = rest;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A client's message with these bytes as options.
    pub(crate) fn client(options: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; FIXED];
        bytes[..3].copy_from_slice(&[1, 1, 6]);
        bytes.extend(COOKIE);
        bytes.extend(options);
        bytes
    }

    #[test]
    fn options_of_one_number_are_one_rfc_3396() {
        let message = Message::parse(&client(&[
            53, 1, 1, 12, 2, b'a', b'b', 0, 12, 1, b'c', 255, 12,
        ]))
        .unwrap();
        assert_eq!(message.kind, Type::Discover);
        assert_eq!(message.options[&code::HOST_NAME], b"abc");
    }

    #[test]
    fn options_continue_in_file_and_sname_rfc_2132_9_3() {
        let mut bytes = client(&[53, 1, 3, 52, 1, 3, 255]);
        bytes[108..113].copy_from_slice(&[12, 2, b'f', b'i', 255]);
        bytes[44..48].copy_from_slice(&[12, 1, b's', 255]);
        assert_eq!(
            Message::parse(&bytes).unwrap().options[&code::HOST_NAME],
            b"fis"
        );
    }

    #[test]
    fn what_is_no_message_is_told_apart() {
        let mut bytes = client(&[53, 1, 1, 255]);
        assert_eq!(Message::parse(&bytes[..239]), Err(Fault::Short(239)));
        bytes[0] = 2;
        assert_eq!(Message::parse(&bytes), Err(Fault::Operation(2)));
        bytes[0] = 1;
        bytes[2] = 200;
        assert_eq!(Message::parse(&bytes), Err(Fault::Hardware(1, 200)));
        bytes[2] = 6;
        bytes[236] = 0;
        assert_eq!(Message::parse(&bytes), Err(Fault::NoCookie));
        for (options, fault) in [
            (&[53, 1][..], Fault::Option(53)),
            (&[12], Fault::Option(12)),
            (&[53, 1, 2], Fault::Type),
            (&[53, 2, 1, 1], Fault::Type),
            (&[53, 1, 99], Fault::Type),
            (&[255], Fault::Type),
        ] {
            assert_eq!(Message::parse(&client(options)), Err(fault), "{options:?}");
        }
    }

    #[test]
    fn long_options_are_cut_and_what_does_not_fit_is_left_out() {
        let mut message = Message::parse(&client(&[53, 1, 1])).unwrap();
        message.kind = Type::Offer;
        let options = [(121, vec![7; 300]), (12, vec![b'x'; 600]), (3, vec![1; 4])];
        let mut bytes = message.write(&options, 576);
        assert!(bytes.len() <= 576);
        // Read as a client's, for want of a client.
        bytes[0] = 1;
        bytes[242] = Type::Inform as u8;
        let read = Message::parse(&bytes).unwrap();
        assert_eq!(read.options[&121], [7; 300]);
        assert_eq!(read.options.len(), 2);
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            let _ = Message::parse(&bytes);
            let _ = Message::parse(&client(&bytes));
        }
    }
}
