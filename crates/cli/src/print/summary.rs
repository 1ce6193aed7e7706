//! What a frame is, in one line. Every length is checked: the frame comes from a guest.

use std::{
    fmt,
    net::{IpAddr, Ipv6Addr},
};

use ringway_wire::{
    EtherType, MacAddress, arp, eth, icmpv6,
    icmpv6::kind as icmp6,
    ipv4, ipv6,
    layers::{self, Fragment, Layers, Network, Transport, TransportKind, Version},
    tcp,
};

use super::dhcp;

/// Displays a frame's addresses, type, length and, for what is known, its meaning.
pub(super) struct Summary<'a>(pub(super) &'a [u8]);

impl fmt::Display for Summary<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Ok(frame) = eth::Frame::new_checked(self.0) else {
            return write!(f, "truncated, length {}", self.0.len());
        };
        let layers = layers::dissect(self.0, self.0.len());
        write!(
            f,
            "{} > {}",
            frame.source(),
            destination(frame.destination())
        )?;
        for tag in layers.tags() {
            write!(
                f,
                ", {} vlan {} priority {}",
                tag.tpid,
                tag.vid(),
                tag.priority()
            )?;
        }
        // Below 0x600 the field is a length (IEEE 802.3, 3.2.6).
        match layers.ether_type {
            EtherType(length) if length < 0x600 => write!(f, ", 802.3, length {}", self.0.len())?,
            kind => write!(f, ", {}, length {}", TypeName(kind), self.0.len())?,
        }
        let start = eth::HEADER_LEN + layers.tags().len() * 4;
        match layers.ether_type {
            EtherType::ARP | EtherType::RARP => {
                match arp::Packet::parse(self.0.get(start..).unwrap_or_default()) {
                    Ok(packet) => write!(f, ": {}", Arp(packet)),
                    Err(fault) => write!(f, ": {fault}"),
                }
            }
            EtherType::IPV4 | EtherType::IPV6 => match layers.network.present() {
                Some(network) => self.internet(f, &layers, network),
                None => f.write_str(": header cut short or malformed"),
            },
            _ => Ok(()),
        }
    }
}

fn destination(mac: MacAddress) -> impl fmt::Display {
    mac
}

struct TypeName(EtherType);

impl fmt::Display for TypeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let EtherType(number) = self.0;
        let name = self.0.to_string();
        if name.starts_with("0x") {
            write!(f, "ethertype {name}")
        } else {
            write!(f, "ethertype {name} (0x{number:04x})")
        }
    }
}

struct Arp(arp::Packet);

impl fmt::Display for Arp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let packet = &self.0;
        match packet.operation {
            arp::REQUEST => write!(
                f,
                "Request who-has {} tell {}",
                packet.target, packet.sender
            ),
            arp::REPLY => write!(f, "Reply {} is-at {}", packet.sender, packet.sender_mac),
            arp::REVERSE_REQUEST => write!(
                f,
                "Reverse request who-is {} tell {}",
                packet.target_mac, packet.sender_mac
            ),
            other => write!(f, "operation {other}"),
        }
    }
}

impl Summary<'_> {
    fn internet(
        &self,
        f: &mut fmt::Formatter<'_>,
        layers: &Layers,
        network: Network,
    ) -> fmt::Result {
        let header = self.0.get(network.offset..).unwrap_or_default();
        let addresses: Option<(IpAddr, IpAddr)> = match network.version {
            Version::V4 => ipv4::Packet::new_checked(header)
                .ok()
                .map(|packet| (packet.source().into(), packet.destination().into())),
            Version::V6 => ipv6::Packet::new_checked(header)
                .ok()
                .map(|packet| (packet.source().into(), packet.destination().into())),
        };
        let Some((source, destination)) = addresses else {
            return f.write_str(": header malformed");
        };
        let Some(transport) = layers.transport.present() else {
            return match network.fragment {
                Fragment::Later => write!(f, ": {source} > {destination}: later fragment"),
                _ => write!(
                    f,
                    ": {source} > {destination}: protocol {}",
                    network.protocol
                ),
            };
        };
        match transport.ports(self.0) {
            Some((from, to)) => write!(
                f,
                ": {} > {}: ",
                Endpoint(source, from),
                Endpoint(destination, to)
            )?,
            None => write!(f, ": {source} > {destination}: ")?,
        }
        // The packet's own end: what follows in the frame is padding.
        let bytes = self
            .0
            .get(transport.offset..network.end.min(self.0.len()))
            .unwrap_or_default();
        let length = bytes.len().saturating_sub(transport.header_len);
        let payload = bytes.get(transport.header_len..).unwrap_or_default();
        match transport.kind {
            TransportKind::Tcp => tcp_summary(f, bytes, length),
            TransportKind::Udp => udp_summary(f, transport, self.0, payload),
            TransportKind::Icmp => icmp_summary(f, bytes),
            TransportKind::Icmpv6 => icmpv6_summary(f, bytes),
        }?;
        if network.fragment == Fragment::First {
            f.write_str(", first fragment")
        } else {
            Ok(())
        }
    }
}

struct Endpoint(IpAddr, u16);

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0, self.1)
    }
}

fn tcp_summary(f: &mut fmt::Formatter<'_>, bytes: &[u8], length: usize) -> fmt::Result {
    let Ok(segment) = tcp::Segment::new_checked(bytes) else {
        return f.write_str("TCP header malformed");
    };
    const NAMES: [(u8, char); 6] = [
        (tcp::flag::SYN, 'S'),
        (tcp::flag::FIN, 'F'),
        (tcp::flag::RST, 'R'),
        (tcp::flag::PSH, 'P'),
        (tcp::flag::ACK, '.'),
        (tcp::flag::URG, 'U'),
    ];
    let flags: String = NAMES
        .iter()
        .filter(|(bit, _)| segment.flags() & bit != 0)
        .map(|&(_, name)| name)
        .collect();
    write!(f, "TCP flags [{flags}], seq {}", segment.sequence())?;
    if segment.flags() & tcp::flag::ACK != 0 {
        write!(f, ", ack {}", segment.acknowledgement())?;
    }
    write!(f, ", win {}, length {length}", segment.window())
}

fn udp_summary(
    f: &mut fmt::Formatter<'_>,
    transport: Transport,
    frame: &[u8],
    payload: &[u8],
) -> fmt::Result {
    let length = payload.len();
    let meaning = transport
        .ports(frame)
        .and_then(|ports| dhcp::summary(ports, payload));
    match meaning {
        Some(meaning) => write!(f, "{meaning}, length {length}"),
        None => write!(f, "UDP, length {length}"),
    }
}

fn icmp_summary(f: &mut fmt::Formatter<'_>, bytes: &[u8]) -> fmt::Result {
    match bytes {
        [kind @ (0 | 8), _, _, _, rest @ ..] => echo(f, "ICMP", *kind == 8, rest, bytes.len()),
        [3, code, ..] => write!(
            f,
            "ICMP destination unreachable, code {code}, length {}",
            bytes.len()
        ),
        [11, code, ..] => write!(f, "ICMP time exceeded, code {code}, length {}", bytes.len()),
        [kind, code, ..] => write!(f, "ICMP type {kind}, code {code}, length {}", bytes.len()),
        _ => f.write_str("ICMP cut short"),
    }
}

fn icmpv6_summary(f: &mut fmt::Formatter<'_>, bytes: &[u8]) -> fmt::Result {
    let Ok(message) = icmpv6::Message::new_checked(bytes) else {
        return f.write_str("ICMPv6 cut short");
    };
    // Neighbour messages: four reserved bytes, then the target (RFC 4861, 4.3 and 4.4).
    let target = || {
        message
            .body()
            .get(4..)?
            .first_chunk::<16>()
            .copied()
            .map(Ipv6Addr::from)
    };
    match message.kind() {
        kind @ (icmp6::ECHO_REQUEST | icmp6::ECHO_REPLY) => {
            return echo(
                f,
                "ICMPv6",
                kind == icmp6::ECHO_REQUEST,
                message.body(),
                bytes.len(),
            );
        }
        icmp6::ROUTER_SOLICITATION => f.write_str("ICMPv6 router solicitation")?,
        icmp6::ROUTER_ADVERTISEMENT => f.write_str("ICMPv6 router advertisement")?,
        icmp6::NEIGHBOUR_SOLICITATION => {
            f.write_str("ICMPv6 neighbour solicitation")?;
            target().map_or(Ok(()), |target| write!(f, ", who has {target}"))?;
        }
        icmp6::NEIGHBOUR_ADVERTISEMENT => {
            f.write_str("ICMPv6 neighbour advertisement")?;
            target().map_or(Ok(()), |target| write!(f, ", target is {target}"))?;
        }
        icmp6::MLD_QUERY => f.write_str("ICMPv6 multicast listener query")?,
        icmp6::MLD_REPORT | icmp6::MLD2_REPORT => {
            f.write_str("ICMPv6 multicast listener report")?
        }
        kind => write!(f, "ICMPv6 type {kind}, code {}", message.code())?,
    }
    write!(f, ", length {}", bytes.len())
}

fn echo(
    f: &mut fmt::Formatter<'_>,
    name: &str,
    request: bool,
    rest: &[u8],
    length: usize,
) -> fmt::Result {
    let what = if request { "request" } else { "reply" };
    match rest {
        &[a, b, c, d, ..] => {
            let (id, number) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
            write!(
                f,
                "{name} echo {what}, id {id}, seq {number}, length {length}"
            )
        }
        _ => write!(f, "{name} echo {what}, cut short"),
    }
}
