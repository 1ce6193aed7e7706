//! Connections that the kernel tracks: those that were translated stay so after the rule is gone, until they are forgotten.
//!
//! Messages are those of `linux/netfilter/nfnetlink_conntrack.h`, over the netlink of netfilter. Needs CAP_NET_ADMIN.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, OwnedFd};

use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, recv, send, socket_with,
};

/// `NFNL_SUBSYS_CTNETLINK` in the upper byte of a message's type.
const CONNTRACK: u16 = 1 << 8;
const GET: u16 = CONNTRACK | 1;
const DELETE: u16 = CONNTRACK | 2;
const REQUEST: u16 = 1;
const ACK: u16 = 4;
const DUMP: u16 = 0x300;
const ERROR: u16 = 2;
const DONE: u16 = 3;
/// `AF_INET`, in a byte as netfilter has it.
const IPV4: u8 = 2;
/// A message's header, and that of netfilter behind it.
const HEADERS: usize = 16 + 4;
/// `NLA_TYPE_MASK`.
const TYPE: u16 = 0x3fff;
/// `IPS_DST_NAT`.
const TRANSLATED: u32 = 1 << 5;
/// More than the kernel puts into one answer.
const ANSWER: usize = 64 * 1024;

/// A connection whose destination was translated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connection {
    /// Number of the transport protocol: 6 for TCP, 17 for UDP.
    pub protocol: u8,
    /// Where its first packet was sent to.
    pub asked: (Ipv4Addr, u16),
    /// Who answers.
    pub answers: (Ipv4Addr, u16),
    /// What the kernel knows it by: its `CTA_TUPLE_ORIG`, whole.
    tuple: Vec<u8>,
}

/// Forgets the connections with a translated destination for which `which` holds: their next packet is a new connection's. Gives
/// how many there were.
pub fn forget(which: impl Fn(&Connection) -> bool) -> io::Result<usize> {
    let socket = socket_with(
        AddressFamily::NETLINK,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        Some(netlink::NETFILTER),
    )?;
    ask(&socket, GET, DUMP, &[])?;
    let mut found = Vec::new();
    answers(&socket, |body| {
        found.extend(connection(body).filter(&which));
    })?;
    for connection in &found {
        ask(&socket, DELETE, ACK, &connection.tuple)?;
        match answers(&socket, |_| ()) {
            // It ended meanwhile.
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {}
            done => done?,
        }
    }
    Ok(found.len())
}

fn ask(socket: &OwnedFd, kind: u16, flags: u16, attributes: &[u8]) -> io::Result<()> {
    let len = HEADERS + attributes.len();
    let mut message = Vec::with_capacity(len);
    message.extend(u32::try_from(len).unwrap_or(u32::MAX).to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend((REQUEST | flags).to_ne_bytes());
    // Sequence number and port are the kernel's to fill in.
    message.extend([0; 8]);
    // The family, and version 0 for no resource.
    message.extend([IPV4, 0, 0, 0]);
    message.extend(attributes);
    send(socket.as_fd(), &message, SendFlags::empty())?;
    Ok(())
}

/// Reads answers to one question to their end.
fn answers(socket: &OwnedFd, mut each: impl FnMut(&[u8])) -> io::Result<()> {
    let mut buffer = vec![0; ANSWER];
    loop {
        let (len, _) = recv(socket.as_fd(), &mut buffer[..], RecvFlags::empty())?;
        let mut rest = &buffer[..len];
        while let Some((kind, body, next)) = message(rest) {
            rest = next;
            match kind {
                DONE => return Ok(()),
                ERROR => {
                    let code = body
                        .first_chunk()
                        .map_or(-libc::EIO, |b| i32::from_ne_bytes(*b));
                    return match code {
                        0 => Ok(()),
                        code => Err(io::Error::from_raw_os_error(-code)),
                    };
                }
                _ => each(body.get(4..).unwrap_or_default()),
            }
        }
    }
}

/// The first message: its type, what follows its header, and the messages behind it.
fn message(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let len = u32::from_ne_bytes(*bytes.first_chunk()?) as usize;
    let kind = u16::from_ne_bytes(bytes.get(4..6)?.try_into().ok()?);
    let body = bytes.get(16..len)?;
    Some((
        kind,
        body,
        bytes.get(len.next_multiple_of(4)..).unwrap_or_default(),
    ))
}

/// What attributes hold, by their types.
fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8], &[u8])> {
    std::iter::from_fn(move || {
        let len = usize::from(u16::from_ne_bytes(*bytes.first_chunk()?));
        let kind = u16::from_ne_bytes(bytes.get(2..4)?.try_into().ok()?) & TYPE;
        let (whole, value) = (bytes.get(..len)?, bytes.get(4..len)?);
        bytes = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value, whole))
    })
}

fn find(bytes: &[u8], wanted: u16) -> Option<&[u8]> {
    attributes(bytes)
        .find(|(kind, _, _)| *kind == wanted)
        .map(|(_, value, _)| value)
}

/// An entry of the table, if it is IPv4 with ports and its destination was translated.
fn connection(body: &[u8]) -> Option<Connection> {
    let (_, original, tuple) = attributes(body).find(|(kind, _, _)| *kind == 1)?;
    let status = u32::from_be_bytes(*find(body, 3)?.first_chunk()?);
    if status & TRANSLATED == 0 {
        return None;
    }
    let address = |tuple, which| {
        Some(Ipv4Addr::from(
            *find(find(tuple, 1)?, which)?.first_chunk::<4>()?,
        ))
    };
    let port = |tuple, which| {
        Some(u16::from_be_bytes(
            *find(find(tuple, 2)?, which)?.first_chunk()?,
        ))
    };
    let reply = find(body, 2)?;
    Some(Connection {
        protocol: *find(find(original, 2)?, 1)?.first()?,
        asked: (address(original, 2)?, port(original, 3)?),
        answers: (address(reply, 1)?, port(reply, 2)?),
        tuple: tuple.to_vec(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend(u16::try_from(4 + value.len()).unwrap().to_ne_bytes());
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn tuple(kind: u16, from: ([u8; 4], u16), to: ([u8; 4], u16)) -> Vec<u8> {
        let ip = [attribute(1, &from.0), attribute(2, &to.0)].concat();
        let ports = [
            attribute(1, &[17]),
            attribute(2, &from.1.to_be_bytes()),
            attribute(3, &to.1.to_be_bytes()),
        ]
        .concat();
        let nested = 0x8000;
        attribute(
            kind | nested,
            &[attribute(1 | nested, &ip), attribute(2 | nested, &ports)].concat(),
        )
    }

    #[test]
    fn a_translated_connection_is_read_and_no_other() {
        let (client, host, guest) = ([203, 0, 113, 2], [203, 0, 113, 1], [10, 0, 0, 5]);
        let original = tuple(1, (client, 4000), (host, 5353));
        let entry = |status: u32| {
            let reply = tuple(2, (guest, 53), (client, 4000));
            [original.clone(), reply, attribute(3, &status.to_be_bytes())].concat()
        };
        let read = connection(&entry(TRANSLATED | 1)).unwrap();
        assert_eq!((read.protocol, read.asked), (17, (host.into(), 5353)));
        assert_eq!(read.answers, (guest.into(), 53));
        assert_eq!(read.tuple, original);
        assert_eq!(connection(&entry(1)), None);
        let whole = entry(TRANSLATED);
        for len in 0..whole.len() {
            assert_eq!(connection(&whole[..len]), None, "{len}");
        }
    }
}
