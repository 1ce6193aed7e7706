//! A DHCPv4 server for one network (RFC 2131), over Ethernet frames.
//!
//! The server is authoritative: it is the only one in its network, so who asks for an address that it cannot have is told so.
//! It answers at once. Whether an address is in use by somebody else is asked with an ARP probe beside the offer; should an
//! answer come, the client's request is refused and it starts over.
//!
//! [`Server::handle`] takes a frame and gives an [`Outcome`]. Its changes have to be committed before its frames are sent.

pub mod message;
mod options;

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::ops::RangeInclusive;

use ipnet::Ipv4Net;
use ringway_wire::arp;
use ringway_wire::build::FrameBuilder;
use ringway_wire::layers::{TransportKind, Version, dissect};
use ringway_wire::{EtherType, MacAddress, ipv4, udp};

use crate::leases::{Change, Client, Pool, Refusal};
use message::{Fault, Message, Type, code};

/// UDP ports (RFC 2131 section 4.1).
const SERVER_PORT: u16 = 67;
const CLIENT_PORT: u16 = 68;
/// Shortest lease that a client may ask for, in seconds.
const SHORTEST_LEASE: u32 = 60;

/// Counter of clients that got nothing because no address is left.
pub const EXHAUSTED: &str = "dhcp_exhausted";

/// What a server says.
#[derive(Clone, Debug)]
pub struct Config {
    /// The network.
    pub subnet: Ipv4Net,
    /// The server's identifier: the gateway's address.
    pub server: Ipv4Addr,
    /// Address that answers and probes come from.
    pub mac: MacAddress,
    /// Addresses lent to whom none is bound.
    pub range: RangeInclusive<Ipv4Addr>,
    /// How long, in seconds.
    pub lease_seconds: u32,
    /// The default router, if there is one.
    pub router: Option<Ipv4Addr>,
    /// Routes besides.
    pub routes: Vec<(Ipv4Net, Ipv4Addr)>,
    /// Resolvers.
    pub dns: Vec<Ipv4Addr>,
    /// Domain of the clients' names, and the list to search.
    pub domain: Option<String>,
    /// Time servers.
    pub ntp: Vec<Ipv4Addr>,
    /// Largest IP packet.
    pub mtu: Option<u16>,
}

/// What came of a frame.
#[derive(Debug, Default)]
pub struct Outcome {
    /// To be committed before any frame is sent.
    pub changes: Vec<Change>,
    /// To be sent, whole and with complete checksums.
    pub frames: Vec<Vec<u8>>,
    /// What it was, for counters; names as in [`Server::counters`].
    pub event: &'static str,
}

/// A DHCPv4 server.
#[derive(Debug)]
pub struct Server {
    config: Config,
    /// Whose address is whose.
    pub pool: Pool,
    counters: BTreeMap<&'static str, u64>,
}

/// A message and how it came.
struct Heard<'a> {
    message: &'a Message,
    /// Ethernet address that it came from: the client's or the relay's.
    from: MacAddress,
    mac: MacAddress,
    clients: Vec<Client>,
    now: u64,
}

/// Why a request is not granted: the client is told, or nothing is said.
enum Denial {
    Nak(&'static str),
    Silence(&'static str),
}

impl Server {
    /// A server that has lent nothing yet.
    pub fn new(config: Config) -> Self {
        let edges = [
            config.subnet.network(),
            config.subnet.broadcast(),
            config.server,
        ];
        let pool = Pool::new(config.range.clone(), edges.to_vec());
        Self {
            config,
            pool,
            counters: BTreeMap::new(),
        }
    }

    /// How many frames of each kind of outcome there were: `dhcp_` and what was answered, or why nothing was.
    pub fn counters(&self) -> &BTreeMap<&'static str, u64> {
        &self.counters
    }

    /// Answers a frame without VLAN tag, at `now` seconds since 1970-01-01 UTC.
    pub fn handle(&mut self, frame: &[u8], now: u64) -> Outcome {
        let layers = dissect(frame, frame.len());
        let outcome = if layers.ether_type == EtherType::ARP {
            self.heard_arp(frame, now)
        } else {
            match self.datagram(frame) {
                Ok((from, payload)) => self.message(from, payload, now),
                Err(event) => Outcome {
                    event,
                    ..Outcome::default()
                },
            }
        };
        *self.counters.entry(outcome.event).or_default() += 1;
        outcome
    }

    fn message(&mut self, from: MacAddress, payload: &[u8], now: u64) -> Outcome {
        let silent = |event| Outcome {
            event,
            ..Outcome::default()
        };
        let message = match Message::parse(payload) {
            Ok(message) => message,
            Err(fault) => return silent(fault.event()),
        };
        let relay = message.giaddr;
        if !relay.is_unspecified() && (!self.config.subnet.contains(&relay) || self.is_edge(relay))
        {
            return silent("dhcp_foreign_relay");
        }
        let mac = MacAddress(message.chaddr);
        if !mac.is_unicast() || mac == MacAddress([0; 6]) {
            return silent("dhcp_bad_address");
        }
        let mut clients = vec![Client::Mac(mac)];
        if let Some(id) = message.client_id() {
            clients.insert(0, Client::Id(id.to_vec()));
        }
        let heard = Heard {
            message: &message,
            from,
            mac,
            clients,
            now,
        };
        match message.kind {
            Type::Discover if message.options.contains_key(&code::RAPID_COMMIT) => {
                self.rapid(&heard)
            }
            Type::Discover => self.discover(&heard),
            Type::Request => self.request(&heard),
            Type::Decline => self.decline(&heard),
            Type::Release => self.release(&heard),
            Type::Inform => self.inform(&heard),
            Type::Offer | Type::Ack | Type::Nak => silent(Fault::Type.event()),
        }
    }

    fn discover(&mut self, heard: &Heard) -> Outcome {
        match self.pool.offer(
            &heard.clients,
            heard.message.address(code::REQUESTED_ADDRESS),
            heard.now,
        ) {
            Ok((address, new)) => {
                let mut frames =
                    vec![self.answer(heard, Type::Offer, address, self.lease_seconds(heard), None)];
                if new {
                    frames.push(self.probe(address));
                }
                Outcome {
                    frames,
                    event: "dhcp_offers",
                    ..Outcome::default()
                }
            }
            Err(_) => Outcome {
                event: EXHAUSTED,
                ..Outcome::default()
            },
        }
    }

    /// An address in two messages (RFC 4039).
    fn rapid(&mut self, heard: &Heard) -> Outcome {
        let wish = heard.message.address(code::REQUESTED_ADDRESS);
        let granted = self
            .pool
            .offer(&heard.clients, wish, heard.now)
            .and_then(|(address, _)| self.grant(heard, address));
        granted.unwrap_or(Outcome {
            event: EXHAUSTED,
            ..Outcome::default()
        })
    }

    fn request(&mut self, heard: &Heard) -> Outcome {
        match self.judge(heard) {
            Ok(address) => match self.grant(heard, address) {
                Ok(outcome) => outcome,
                Err(Refusal::Exhausted) => self.nak(heard, "no address is left"),
                Err(Refusal::NotYours) => self.nak(heard, "the address is not yours"),
            },
            Err(Denial::Nak(reason)) => self.nak(heard, reason),
            Err(Denial::Silence(event)) => Outcome {
                event,
                ..Outcome::default()
            },
        }
    }

    /// What the client asks for, by the state it is in (RFC 2131 section 4.3.2).
    fn judge(&mut self, heard: &Heard) -> Result<Ipv4Addr, Denial> {
        let message = heard.message;
        let requested = message.address(code::REQUESTED_ADDRESS);
        let has = (!message.ciaddr.is_unspecified()).then_some(message.ciaddr);
        let mut unknown = false;
        let address = match (message.address(code::SERVER), requested, has) {
            // SELECTING
            (Some(server), Some(address), _) if server == self.config.server => address,
            (Some(server), ..) if server != self.config.server => {
                self.pool.forget_offer(&heard.clients);
                return Err(Denial::Silence("dhcp_other_server"));
            }
            // INIT-REBOOT
            (None, Some(address), None) => {
                unknown = !self.pool.remembers(&heard.clients, address);
                address
            }
            // RENEWING, REBINDING; some say twice which address.
            (None, requested, Some(address)) if requested.is_none_or(|r| r == address) => address,
            _ => return Err(Denial::Silence("dhcp_contradictory")),
        };
        if !self.config.subnet.contains(&address) {
            return Err(Denial::Nak("the address is of another network"));
        }
        if unknown {
            // Of a client that has another address, it is wrong; so is what somebody has, or nobody may.
            let wrong = self.pool.knows(&heard.clients)
                || !self.pool.may_have(address, &heard.clients, heard.now);
            return Err(if wrong {
                Denial::Nak("the address is not yours")
            } else {
                Denial::Silence("dhcp_unknown_client")
            });
        }
        Ok(address)
    }

    fn grant(&mut self, heard: &Heard, address: Ipv4Addr) -> Result<Outcome, Refusal> {
        let seconds = self.lease_seconds(heard);
        let name = options::client_name(heard.message);
        let expires = heard.now + u64::from(seconds);
        let changes =
            self.pool
                .lend(&heard.clients, heard.mac, address, name, heard.now, expires)?;
        let frames = vec![self.answer(heard, Type::Ack, address, seconds, None)];
        Ok(Outcome {
            changes,
            frames,
            event: "dhcp_acks",
        })
    }

    fn nak(&self, heard: &Heard, reason: &'static str) -> Outcome {
        let frames = vec![self.answer(heard, Type::Nak, Ipv4Addr::UNSPECIFIED, 0, Some(reason))];
        Outcome {
            frames,
            event: "dhcp_naks",
            ..Outcome::default()
        }
    }

    fn decline(&mut self, heard: &Heard) -> Outcome {
        let address = self
            .addressed(heard)
            .and_then(|()| heard.message.address(code::REQUESTED_ADDRESS));
        let change = address.and_then(|address| {
            self.pool
                .decline(&heard.clients, heard.mac, address, heard.now)
        });
        let event = change.as_ref().map_or("dhcp_ignored", |_| "dhcp_declines");
        Outcome {
            changes: change.into_iter().collect(),
            event,
            ..Outcome::default()
        }
    }

    fn release(&mut self, heard: &Heard) -> Outcome {
        let change = self.addressed(heard).and_then(|()| {
            self.pool
                .release(&heard.clients, heard.message.ciaddr, heard.now)
        });
        let event = change.as_ref().map_or("dhcp_ignored", |_| "dhcp_releases");
        Outcome {
            changes: change.into_iter().collect(),
            event,
            ..Outcome::default()
        }
    }

    /// Settings for a client that has an address (RFC 2131 section 4.3.5).
    fn inform(&mut self, heard: &Heard) -> Outcome {
        let address = heard.message.ciaddr;
        if !self.config.subnet.contains(&address) || self.is_edge(address) {
            return Outcome {
                event: "dhcp_contradictory",
                ..Outcome::default()
            };
        }
        let frames = vec![self.answer(heard, Type::Ack, Ipv4Addr::UNSPECIFIED, 0, None)];
        Outcome {
            frames,
            event: "dhcp_informs",
            ..Outcome::default()
        }
    }

    /// Whether an address of the subnet is nobody's but its own or ours.
    fn is_edge(&self, address: Ipv4Addr) -> bool {
        let Config { subnet, server, .. } = &self.config;
        [subnet.network(), subnet.broadcast(), *server].contains(&address)
    }

    /// Whether the message is for this server.
    fn addressed(&self, heard: &Heard) -> Option<()> {
        (heard.message.address(code::SERVER) == Some(self.config.server)).then_some(())
    }

    fn lease_seconds(&self, heard: &Heard) -> u32 {
        let asked = heard.message.u32(code::LEASE_TIME).unwrap_or(u32::MAX);
        asked.clamp(
            SHORTEST_LEASE.min(self.config.lease_seconds),
            self.config.lease_seconds,
        )
    }

    /// The frame that tells the client (RFC 2131 sections 4.1 and 4.3.1, table 3).
    fn answer(
        &self,
        heard: &Heard,
        kind: Type,
        address: Ipv4Addr,
        seconds: u32,
        reason: Option<&str>,
    ) -> Vec<u8> {
        let asked = heard.message;
        let message = Message {
            kind,
            hops: 0,
            xid: asked.xid,
            secs: 0,
            broadcast: asked.broadcast || (kind == Type::Nak && !asked.giaddr.is_unspecified()),
            ciaddr: if kind == Type::Ack {
                asked.ciaddr
            } else {
                Ipv4Addr::UNSPECIFIED
            },
            yiaddr: address,
            giaddr: asked.giaddr,
            chaddr: asked.chaddr,
            options: BTreeMap::new(),
        };
        let named = if address.is_unspecified() {
            asked.ciaddr
        } else {
            address
        };
        let name = self.pool.name_of(named, heard.now);
        let options = match kind {
            Type::Nak => options::refusal(&self.config, asked, reason.unwrap_or_default()),
            _ => options::settings(&self.config, asked, seconds, name),
        };
        // Nothing here cuts packets into fragments.
        let mtu = usize::from(self.config.mtu.unwrap_or(1500).max(576));
        let payload = message.write(&options, asked.max_len().min(mtu - 28));
        let (to_mac, to, port) = if !asked.giaddr.is_unspecified() {
            (heard.from, asked.giaddr, SERVER_PORT)
        } else if kind == Type::Nak {
            (MacAddress([0xff; 6]), Ipv4Addr::BROADCAST, CLIENT_PORT)
        } else if !asked.ciaddr.is_unspecified() {
            (heard.mac, asked.ciaddr, CLIENT_PORT)
        } else if asked.broadcast {
            (MacAddress([0xff; 6]), Ipv4Addr::BROADCAST, CLIENT_PORT)
        } else {
            (heard.mac, address, CLIENT_PORT)
        };
        FrameBuilder::ipv4(self.config.server, to)
            .macs(self.config.mac, to_mac)
            .udp(SERVER_PORT, port)
            .build(&payload)
    }

    /// Asks whether somebody has the address (RFC 5227 section 2.1.1).
    fn probe(&self, address: Ipv4Addr) -> Vec<u8> {
        let packet = arp::Packet {
            operation: arp::REQUEST,
            sender_mac: self.config.mac,
            sender: Ipv4Addr::UNSPECIFIED,
            target_mac: MacAddress([0; 6]),
            target: address,
        };
        packet.to_frame(MacAddress([0xff; 6])).to_vec()
    }

    /// Somebody has an address; perhaps one that was just offered to another.
    fn heard_arp(&mut self, frame: &[u8], now: u64) -> Outcome {
        let outcome = |event, change: Option<Change>| Outcome {
            changes: change.into_iter().collect(),
            event,
            ..Outcome::default()
        };
        let Ok(packet) = arp::Packet::parse(frame.get(14..).unwrap_or_default()) else {
            return outcome("arp_malformed", None);
        };
        if !packet.sender_mac.is_unicast() || packet.sender_mac == MacAddress([0; 6]) {
            return outcome("arp_bad_address", None);
        }
        // Who tests an address before use has none yet (RFC 5227).
        if packet.sender.is_unspecified() || packet.sender_mac == self.config.mac {
            return outcome("arp_heard", None);
        }
        let conflict = self.pool.hear(packet.sender_mac, packet.sender, now);
        let event = conflict.as_ref().map_or("arp_heard", |_| "dhcp_conflicts");
        outcome(event, conflict)
    }

    /// Where a frame to a DHCP server came from, and its payload; or why it is none for us.
    fn datagram<'a>(&self, frame: &'a [u8]) -> Result<(MacAddress, &'a [u8]), &'static str> {
        let layers = dissect(frame, frame.len());
        let network = layers.network.present().ok_or("dhcp_bad_packet")?;
        if network.version != Version::V4 {
            return Err("not_dhcp");
        }
        let packet = ipv4::Packet::new_checked(&frame[network.offset..network.end])
            .map_err(|_| "dhcp_bad_packet")?;
        if packet.is_fragment() {
            return Err("dhcp_fragment");
        }
        let transport = layers.transport.present().ok_or("dhcp_bad_packet")?;
        let to = transport.ports(frame).map(|(_, to)| to);
        if transport.kind != TransportKind::Udp || to != Some(SERVER_PORT) {
            return Err("not_dhcp");
        }
        let datagram =
            udp::Datagram::new_checked(packet.payload()).map_err(|_| "dhcp_bad_packet")?;
        let (len, all) = (usize::from(datagram.len()), packet.payload().len());
        let missing = usize::from(packet.total_len()) > frame.len() - network.offset;
        if missing || !(udp::HEADER_LEN..=all).contains(&len) {
            return Err("dhcp_bad_packet");
        }
        let (source, to) = (packet.source(), packet.destination());
        if !packet.checksum_ok() || !datagram.checksum_ok(source.into(), to.into()) {
            return Err("dhcp_bad_checksum");
        }
        // The switch floods what it knows no way for, so what others are asked is heard here, too.
        let subnet = self.config.subnet;
        if ![self.config.server, Ipv4Addr::BROADCAST, subnet.broadcast()].contains(&to) {
            return Err("dhcp_elsewhere");
        }
        let from = MacAddress::from_first(&frame[6..]).ok_or("dhcp_bad_packet")?;
        let payload = transport.offset + udp::HEADER_LEN;
        let end = payload + datagram.payload().len();
        Ok((from, frame.get(payload..end).ok_or("dhcp_bad_packet")?))
    }
}

#[cfg(test)]
mod tests;
