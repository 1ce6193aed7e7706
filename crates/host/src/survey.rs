//! All links of this network namespace at once, with what makes each of them what it is.

use std::net::Ipv4Addr;

use futures_util::TryStreamExt;
use ipnet::{IpNet, Ipv4Net};
use rtnetlink::RouteMessageBuilder;
use rtnetlink::packet_core::Nla;
use rtnetlink::packet_route::address::AddressAttribute;
use rtnetlink::packet_route::link::{
    BridgePortState, BridgeStpState, InfoBridge, InfoBridgePort, InfoData, InfoKind, InfoMacVtap,
    InfoPortData, InfoTun, LinkAttribute, LinkFlags, LinkInfo, LinkMessage, MacVtapMode,
};
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute, RouteHeader, RouteType};
use serde::{Deserialize, Serialize};

use crate::link::{LinkError, Netlink, refused};

/// A link as the kernel describes it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Surveyed {
    /// Its number.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Largest packet in bytes.
    pub mtu: u32,
    /// Whether it is up.
    pub up: bool,
    /// Whether somebody is at its other end.
    pub carrier: bool,
    /// Its Ethernet address, as `52:54:00:12:34:56`.
    pub mac: Option<String>,
    /// The bridge, bond or other master it belongs to, by number.
    pub master: Option<u32>,
    /// The link it lies upon, by number: that of a macvtap or VLAN.
    pub lower: Option<u32>,
    /// As a port of a bridge, whether it forwards.
    pub port: Option<PortState>,
    /// What it is.
    pub kind: Kind,
    /// Its addresses.
    pub addresses: Vec<IpNet>,
}

/// What a link is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A NIC, or something else that nobody made by hand.
    #[default]
    Device,
    /// A tap.
    Tap(Tap),
    /// A tun: packets without Ethernet.
    Tun,
    /// A bridge.
    Bridge(Bridge),
    /// A macvtap, and how it talks to others upon the same link: `bridge`, `vepa`, `private`, `passthru`, `source`.
    Macvtap(String),
    /// Any other, by the kernel's name of it.
    Other(String),
}

/// What a tap is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Tap {
    /// It may be opened several times, once per queue.
    pub multi_queue: bool,
    /// It stays when nobody has it open.
    pub persistent: bool,
    /// Frames carry the virtio-net header.
    pub vnet_header: bool,
    /// Queues that are open and at work.
    pub queues: u32,
    /// Queues that are open and set aside: QEMU does that with those that the guest does not use.
    pub idle_queues: u32,
    /// The user that may open it.
    pub owner: Option<u32>,
    /// The group that may open it.
    pub group: Option<u32>,
}

/// What a bridge is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Bridge {
    /// It looks for loops, and ports wait before they forward.
    pub stp: bool,
    /// How long a port waits, twice, in hundredths of a second.
    pub forward_delay: u32,
    /// Its IPv4 packets pass the host's firewall, whatever the sysctl says.
    pub nf_call_iptables: bool,
    /// It looks at VLAN tags.
    pub vlan_filtering: bool,
}

/// What a port of a bridge does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PortState {
    /// Nothing.
    Disabled,
    /// Waits and listens.
    Listening,
    /// Waits and learns.
    Learning,
    /// Forwards.
    Forwarding,
    /// Kept shut, because of a loop.
    Blocking,
}

/// A route of the main table for IPv4.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// Where it leads to; `0.0.0.0/0` = everywhere.
    pub destination: Ipv4Net,
    /// Over which link, by number.
    pub link: u32,
    /// Over which neighbour.
    pub gateway: Option<Ipv4Addr>,
    /// The lower, the better.
    pub metric: u32,
}

/// All routes of the network namespace of the calling thread.
pub fn routes() -> Result<Vec<Route>, LinkError> {
    on_runtime(async { Netlink::open()?.survey_routes().await })
}

/// All links of the network namespace of the calling thread.
pub fn links() -> Result<Vec<Surveyed>, LinkError> {
    on_runtime(async { Netlink::open()?.survey().await })
}

fn on_runtime<T>(work: impl Future<Output = Result<T, LinkError>>) -> Result<T, LinkError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()
        .map_err(LinkError::Socket)?;
    runtime.block_on(work)
}

impl Netlink {
    /// All links, in the order of their numbers.
    pub async fn survey(&self) -> Result<Vec<Surveyed>, LinkError> {
        let failed = |error| refused("list links of", "the host", error);
        let mut messages = self.handle.link().get().execute();
        let mut links = Vec::new();
        while let Some(message) = messages.try_next().await.map_err(failed)? {
            links.push(surveyed(&message));
        }
        let mut messages = self.handle.address().get().execute();
        while let Some(message) = messages.try_next().await.map_err(failed)? {
            let link = links
                .iter_mut()
                .find(|link| link.index == message.header.index);
            // A peer's address comes first, then the link's own.
            let (mut address, mut local) = (None, None);
            for attribute in &message.attributes {
                match attribute {
                    AddressAttribute::Address(it) => address = Some(*it),
                    AddressAttribute::Local(it) => local = Some(*it),
                    _ => {}
                }
            }
            let address = local
                .or(address)
                .and_then(|it| IpNet::new(it, message.header.prefix_len).ok());
            if let (Some(link), Some(address)) = (link, address) {
                link.addresses.push(address);
            }
        }
        links.sort_by_key(|link| link.index);
        Ok(links)
    }
}

impl Netlink {
    /// Unicast routes of the main table for IPv4, in the kernel's order.
    pub async fn survey_routes(&self) -> Result<Vec<Route>, LinkError> {
        let filter = RouteMessageBuilder::<Ipv4Addr>::new().build();
        let mut messages = self.handle.route().get(filter).execute();
        let mut routes = Vec::new();
        while let Some(message) = messages
            .try_next()
            .await
            .map_err(|error| refused("list routes of", "the host", error))?
        {
            if message.header.kind != RouteType::Unicast
                || message.header.table != RouteHeader::RT_TABLE_MAIN
            {
                continue;
            }
            let mut route = Route {
                destination: Ipv4Net::default(),
                link: 0,
                gateway: None,
                metric: 0,
            };
            for attribute in &message.attributes {
                match attribute {
                    RouteAttribute::Destination(RouteAddress::Inet(address)) => {
                        let length = message.header.destination_prefix_length;
                        route.destination = Ipv4Net::new(*address, length).unwrap_or_default();
                    }
                    RouteAttribute::Oif(index) => route.link = *index,
                    RouteAttribute::Gateway(RouteAddress::Inet(it)) => route.gateway = Some(*it),
                    RouteAttribute::Priority(metric) => route.metric = *metric,
                    _ => {}
                }
            }
            routes.push(route);
        }
        Ok(routes)
    }
}

fn surveyed(message: &LinkMessage) -> Surveyed {
    let mut link = Surveyed {
        index: message.header.index,
        up: message.header.flags.contains(LinkFlags::Up),
        ..Surveyed::default()
    };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name.clone_from(name),
            LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
            // Of links that are down, too, which have no IFF_LOWER_UP.
            LinkAttribute::Carrier(carrier) => link.carrier = *carrier != 0,
            LinkAttribute::Controller(index) => link.master = Some(*index).filter(|it| *it != 0),
            LinkAttribute::Link(index) => link.lower = Some(*index).filter(|it| *it != 0),
            LinkAttribute::Address(bytes) if bytes.len() == 6 => {
                let bytes: Vec<String> = bytes.iter().map(|it| format!("{it:02x}")).collect();
                link.mac = Some(bytes.join(":"));
            }
            LinkAttribute::LinkInfo(infos) => describe(&mut link, infos),
            _ => {}
        }
    }
    link
}

fn describe(link: &mut Surveyed, infos: &[LinkInfo]) {
    for info in infos {
        match info {
            // Data comes after the kind, and knows better what that is.
            LinkInfo::Kind(kind) => link.kind = Kind::Other(named(kind)),
            LinkInfo::Data(InfoData::Bridge(about)) => link.kind = Kind::Bridge(bridge(about)),
            LinkInfo::Data(InfoData::Tun(about)) => link.kind = tun(about),
            LinkInfo::Data(InfoData::MacVtap(about)) => link.kind = Kind::Macvtap(mode(about)),
            LinkInfo::PortData(InfoPortData::BridgePort(about)) => {
                link.port = about.iter().find_map(|it| match it {
                    InfoBridgePort::State(state) => port(*state),
                    _ => None,
                });
            }
            _ => {}
        }
    }
}

fn named(kind: &InfoKind) -> String {
    kind.to_string()
}

fn bridge(about: &[InfoBridge]) -> Bridge {
    let mut bridge = Bridge::default();
    for it in about {
        match it {
            InfoBridge::StpState(state) => bridge.stp = *state != BridgeStpState::Disabled,
            InfoBridge::ForwardDelay(delay) => bridge.forward_delay = *delay,
            InfoBridge::NfCallIpTables(on) => bridge.nf_call_iptables = *on,
            InfoBridge::VlanFiltering(on) => bridge.vlan_filtering = *on,
            _ => {}
        }
    }
    bridge
}

/// Attributes IFLA_TUN_* of linux/if_link.h, in the host's byte order.
fn tun(about: &[InfoTun]) -> Kind {
    const OWNER: u16 = 1;
    const GROUP: u16 = 2;
    const TYPE: u16 = 3;
    const VNET_HEADER: u16 = 5;
    const PERSIST: u16 = 6;
    const MULTI_QUEUE: u16 = 7;
    const QUEUES: u16 = 8;
    const DISABLED_QUEUES: u16 = 9;
    const IFF_TAP: u32 = 2;
    let mut tap = Tap::default();
    let mut is_tap = false;
    for it in about {
        let InfoTun::Other(it) = it else { continue };
        let mut bytes = [0; 4];
        let value = match it.value_len() {
            1 => {
                it.emit_value(&mut bytes[..1]);
                u32::from(bytes[0])
            }
            4 => {
                it.emit_value(&mut bytes);
                u32::from_ne_bytes(bytes)
            }
            _ => continue,
        };
        match it.kind() {
            OWNER => tap.owner = Some(value),
            GROUP => tap.group = Some(value),
            TYPE => is_tap = value == IFF_TAP,
            VNET_HEADER => tap.vnet_header = value != 0,
            PERSIST => tap.persistent = value != 0,
            MULTI_QUEUE => tap.multi_queue = value != 0,
            QUEUES => tap.queues = value,
            DISABLED_QUEUES => tap.idle_queues = value,
            _ => {}
        }
    }
    if is_tap { Kind::Tap(tap) } else { Kind::Tun }
}

fn mode(about: &[InfoMacVtap]) -> String {
    let mode = about.iter().find_map(|it| match it {
        InfoMacVtap::Mode(mode) => Some(*mode),
        _ => None,
    });
    match mode {
        Some(MacVtapMode::Bridge) => "bridge",
        Some(MacVtapMode::Private) => "private",
        Some(MacVtapMode::Passthrough) => "passthru",
        Some(MacVtapMode::Source) => "source",
        _ => "vepa",
    }
    .into()
}

fn port(state: BridgePortState) -> Option<PortState> {
    match state {
        BridgePortState::Disabled => Some(PortState::Disabled),
        BridgePortState::Listening => Some(PortState::Listening),
        BridgePortState::Learning => Some(PortState::Learning),
        BridgePortState::Forwarding => Some(PortState::Forwarding),
        BridgePortState::Blocking => Some(PortState::Blocking),
        _ => None,
    }
}
