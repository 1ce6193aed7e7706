//! What a frame is, as far as filters and decisions ask.

use std::net::IpAddr;

use ringway_wire::{
    EtherType, MacAddress, arp, eth, ipv4, ipv6,
    layers::{Layers, Network, TransportKind, Version, dissect},
};

/// A frame's addresses and kind. What cannot be read is absent.
#[derive(Debug, Default)]
pub(crate) struct Frame {
    pub(crate) source: MacAddress,
    pub(crate) destination: MacAddress,
    /// Of the outermost tag.
    pub(crate) vlan: Option<u16>,
    /// `arp`, `ip` or `ip6`.
    pub(crate) network: Option<&'static str>,
    /// `tcp`, `udp`, `icmp` or `icmp6`.
    pub(crate) transport: Option<&'static str>,
    /// `dhcp` or `dns`.
    pub(crate) service: Option<&'static str>,
    /// Of the sender and the receiver, in ARP as well.
    pub(crate) addresses: Option<(IpAddr, IpAddr)>,
    pub(crate) ports: Option<(u16, u16)>,
    pub(crate) len: usize,
}

impl Frame {
    pub(super) fn new(bytes: &[u8]) -> Self {
        let Ok(frame) = eth::Frame::new_checked(bytes) else {
            return Self {
                len: bytes.len(),
                ..Self::default()
            };
        };
        let layers = dissect(bytes, bytes.len());
        let transport = layers.transport.present();
        let ports = transport.and_then(|transport| transport.ports(bytes));
        let network = match layers.ether_type {
            EtherType::ARP | EtherType::RARP => Some("arp"),
            EtherType::IPV4 => Some("ip"),
            EtherType::IPV6 => Some("ip6"),
            _ => None,
        };
        let transport = transport.map(|transport| match transport.kind {
            TransportKind::Tcp => "tcp",
            TransportKind::Udp => "udp",
            TransportKind::Icmp => "icmp",
            TransportKind::Icmpv6 => "icmp6",
        });
        Self {
            source: frame.source(),
            destination: frame.destination(),
            vlan: layers.tags().first().map(|tag| tag.vid()),
            network,
            transport,
            service: ports.and_then(|ports| service(transport, ports)),
            addresses: addresses(bytes, &layers),
            ports,
            len: bytes.len(),
        }
    }

    /// Whether it is of this protocol.
    pub(super) fn is(&self, protocol: &str) -> bool {
        [self.network, self.transport, self.service].contains(&Some(protocol))
    }
}

fn service(transport: Option<&str>, (from, to): (u16, u16)) -> Option<&'static str> {
    let has = |port| from == port || to == port;
    match transport {
        Some("udp") if has(67) || has(68) => Some("dhcp"),
        Some("udp" | "tcp") if has(53) => Some("dns"),
        _ => None,
    }
}

fn addresses(bytes: &[u8], layers: &Layers) -> Option<(IpAddr, IpAddr)> {
    if let EtherType::ARP | EtherType::RARP = layers.ether_type {
        let start = eth::HEADER_LEN + layers.tags().len() * 4;
        let packet = arp::Packet::parse(bytes.get(start..)?).ok()?;
        return Some((packet.sender.into(), packet.target.into()));
    }
    let Network {
        version, offset, ..
    } = layers.network.present()?;
    let header = bytes.get(offset..)?;
    Some(match version {
        Version::V4 => {
            let packet = ipv4::Packet::new_checked(header).ok()?;
            (packet.source().into(), packet.destination().into())
        }
        Version::V6 => {
            let packet = ipv6::Packet::new_checked(header).ok()?;
            (packet.source().into(), packet.destination().into())
        }
    })
}

#[cfg(test)]
mod tests {
    use ringway_wire::build::FrameBuilder;

    use super::*;

    #[test]
    fn a_question_for_a_name_is_known_by_its_port() {
        let bytes = FrameBuilder::ipv4([10, 0, 0, 1].into(), [10, 0, 0, 2].into())
            .udp(1000, 53)
            .build(b"name");
        let frame = Frame::new(&bytes);
        for protocol in ["ip", "udp", "dns"] {
            assert!(frame.is(protocol), "{frame:?}");
        }
        assert!(!frame.is("tcp") && !frame.is("dhcp") && frame.vlan.is_none());
        assert_eq!(frame.ports, Some((1000, 53)));
        for cut in 0..bytes.len() {
            assert_eq!(Frame::new(&bytes[..cut]).len, cut);
        }
    }
}
