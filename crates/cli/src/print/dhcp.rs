//! What a DHCP message wants, as far as one line needs it.

use std::net::Ipv4Addr;

use ringway_wire::MacAddress;

/// Names of message types from 1 on (RFC 2132, 9.6).
const V4_TYPES: [&str; 8] = [
    "Discover", "Offer", "Request", "Decline", "ACK", "NAK", "Release", "Inform",
];
/// Names of message types from 1 on (RFC 8415, 7.3).
const V6_TYPES: [&str; 13] = [
    "Solicit",
    "Advertise",
    "Request",
    "Confirm",
    "Renew",
    "Rebind",
    "Reply",
    "Release",
    "Decline",
    "Reconfigure",
    "Information-request",
    "Relay-forward",
    "Relay-reply",
];
const COOKIE: [u8; 4] = [99, 130, 83, 99];
/// Options of RFC 2132: 9.1, 3.14 and 9.6.
const REQUESTED_ADDRESS: u8 = 50;
const HOST_NAME: u8 = 12;
const MESSAGE_TYPE: u8 = 53;

/// The meaning of a UDP payload between these ports, if they are DHCP's.
pub(super) fn summary(ports: (u16, u16), payload: &[u8]) -> Option<String> {
    match ports {
        (67 | 68, 67 | 68) => v4(payload),
        (546 | 547, 546 | 547) => v6(payload),
        _ => None,
    }
}

/// RFC 2131, 2: fixed fields of 236 bytes, the cookie, options.
fn v4(payload: &[u8]) -> Option<String> {
    let (fixed, rest) = payload.split_at_checked(236)?;
    let client = MacAddress::from_first(fixed.get(28..)?)?;
    let yours = Ipv4Addr::from(*fixed.get(16..)?.first_chunk::<4>()?);
    let Some(options) = rest.strip_prefix(&COOKIE) else {
        return Some(format!("BOOTP from {client}"));
    };
    let number = option(options, MESSAGE_TYPE)
        .and_then(|value| value.first().copied())
        .unwrap_or_default();
    let mut text = match V4_TYPES.get(usize::from(number).wrapping_sub(1)) {
        Some(name) => format!("DHCP {name}"),
        None => format!("DHCP type {number}"),
    };
    // BOOTREPLY is what the server says to the client.
    text += if fixed.first() == Some(&2) {
        " to "
    } else {
        " from "
    };
    text += &client.to_string();
    if !yours.is_unspecified() {
        text += &format!(", address {yours}");
    }
    if let Some(wanted) =
        option(options, REQUESTED_ADDRESS).and_then(|value| <[u8; 4]>::try_from(value).ok())
    {
        text += &format!(", wants {}", Ipv4Addr::from(wanted));
    }
    if let Some(name) = option(options, HOST_NAME) {
        text += &format!(", host name {:?}", String::from_utf8_lossy(name));
    }
    Some(text)
}

fn v6(payload: &[u8]) -> Option<String> {
    let &[number, a, b, c, ..] = payload else {
        return None;
    };
    Some(match V6_TYPES.get(usize::from(number).wrapping_sub(1)) {
        Some(name) => format!("DHCPv6 {name}, transaction {a:02x}{b:02x}{c:02x}"),
        None => format!("DHCPv6 type {number}"),
    })
}

/// The first option of this code; each step takes at least one byte, so the end is reached.
fn option(mut options: &[u8], wanted: u8) -> Option<&[u8]> {
    loop {
        match options {
            [0, rest @ ..] => options = rest,
            [] | [255, ..] | [_] => return None,
            [code, length, rest @ ..] => {
                let (value, next) = rest.split_at_checked(usize::from(*length))?;
                if *code == wanted {
                    return Some(value);
                }
                options = next;
            }
        }
    }
}
