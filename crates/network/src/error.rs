//! Why a network cannot be as asked for.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use ringway_api::port_spec::{InterfaceName, MAX_NAME, MAX_SOCKET_PATH, Mac};
use ringway_api::v1::{Kind, Name, PortRange, Protocol};

/// Why a network, port, lease or forward cannot be as asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// There is one of that name.
    #[error("there is a network {0} already")]
    NetworkExists(Name),
    /// There is none.
    #[error("there is no network {name}{} `ringway net list` shows those there are", meant(.near))]
    NoNetwork {
        /// The name.
        name: Name,
        /// One that is nearly called so.
        near: Option<Name>,
    },
    /// It has ports.
    #[error(
        "network {network} has {count} port{}: delete them first (`ringway port list {network}` shows them), or take them along with --force",
        plural(*.count)
    )]
    HasPorts {
        /// The network.
        network: Name,
        /// How many.
        count: usize,
    },
    /// Every VLAN is a network.
    #[error("there are 4094 networks already, no more fit into one switch")]
    TooManyNetworks,
    /// A bridge network without bridge.
    #[error("network {0} of kind bridge needs the bridge to join: --bridge IF")]
    NoBridge(Name),
    /// Something that goes with other kinds alone.
    #[error("{what} does not go with a network of kind {kind}")]
    NotForKind {
        /// The option.
        what: &'static str,
        /// The kind, as written.
        kind: &'static str,
    },
    /// A subnet that no network can have.
    #[error(
        "{0} cannot be a network's subnet: give a private one or one of yours from /8 to /29, such as 192.168.40.0/24"
    )]
    Subnet(Ipv4Net),
    /// A subnet that is somewhere else.
    #[error("subnet {subnet} overlaps {with}: take another, or none to have one chosen")]
    Overlap {
        /// The subnet.
        subnet: Ipv4Net,
        /// What it overlaps, such as `network lan (192.168.40.0/24)` or `a route of the host (10.0.0.0/8)`.
        with: String,
    },
    /// None is left to choose.
    #[error("every private subnet overlaps a route of the host: give one with --subnet")]
    NoSubnetLeft,
    /// An MTU that does not work.
    #[error("an MTU of {0} does not work: give 576 to 65521")]
    Mtu(u16),
    /// Numbers that DHCP cannot say.
    #[error("a lease of {0} seconds is not possible: give 20 to 4294967294")]
    LeaseSeconds(u32),
    /// An address outside of the subnet, or its first or last.
    #[error("{what} {address} is not an address for guests of {subnet}")]
    Outside {
        /// What it is for.
        what: &'static str,
        /// The address.
        address: Ipv4Addr,
        /// The subnet.
        subnet: Ipv4Net,
    },
    /// A range that is none.
    #[error("the range {first}-{last} has no address in it: give the lower one first")]
    Range {
        /// Its first address.
        first: Ipv4Addr,
        /// Its last.
        last: Ipv4Addr,
    },
    /// A name or a text for DNS that DNS does not take.
    #[error("{0:?} cannot be in DNS: labels have 1 to 63 bytes and a name 255 at most, a text 255")]
    Dns(String),
    /// There is one of that name.
    #[error("there is a port {port} in network {network} already")]
    PortExists {
        /// The network.
        network: Name,
        /// The port.
        port: Name,
    },
    /// There is none.
    #[error(
        "there is no port {port} in network {network}: `ringway port list` shows those there are"
    )]
    NoPort {
        /// The network.
        network: Name,
        /// The port.
        port: Name,
    },
    /// A number of queues that does not work.
    #[error("{0} queue pairs are not possible: give 1 to 128")]
    Queues(u16),
    /// A group address.
    #[error("{0} is not the address of a NIC: give a unicast address")]
    Mac(Mac),
    /// Somebody else's.
    #[error("{address} is {holder}'s already")]
    AddressTaken {
        /// The MAC or IP address.
        address: String,
        /// Whose, such as `port web`.
        holder: String,
    },
    /// Addresses are that network's business.
    #[error("network {0} hands out no addresses: none can be bound")]
    NoAddresses(Name),
    /// Too long for a socket.
    #[error(
        "the socket's path {0} is longer than {MAX_SOCKET_PATH} bytes: take shorter names, or another --run directory"
    )]
    SocketPath(String),
    /// A name that the switch does not take.
    #[error(
        "the port's name in the switch, {0}, is longer than {MAX_NAME} bytes: take a shorter name for the port or its network"
    )]
    LongName(String),
    /// A macvtap needs an interface of the host.
    #[error(
        "network {0} is on no interface of the host, a macvtap lies over one: take --path tap, or a network of kind bridge"
    )]
    Macvtap(Name),
    /// Taps need a bridge.
    #[error("{0} is no bridge: only --path macvtap leads there")]
    NoBridgeThere(InterfaceName),
    /// What the kernel carries the switch does not see.
    #[error(
        "{0} does not go with a tap of the kernel: its frames do not cross the switch; take --path vhost-user"
    )]
    NotOnTap(&'static str),
    /// The socket has other means.
    #[error("owner and group go with --path tap, vhost-net or macvtap")]
    NoTap,
    /// Neither or both.
    #[error("a bound address needs either a MAC or a client identifier")]
    LeaseClient,
    /// No hexadecimal digits.
    #[error("{0:?} is no client identifier: give 2 to 255 bytes as pairs of hexadecimal digits")]
    ClientId(String),
    /// There is no such binding.
    #[error("{address} is not bound in network {network}")]
    NoLease {
        /// The network.
        network: Name,
        /// The address.
        address: Ipv4Addr,
    },
    /// A port of the host that leads elsewhere already.
    #[error("{protocol} {ports} of the host is forwarded already, by forward {id}")]
    ForwardOverlap {
        /// The protocol.
        protocol: Protocol,
        /// The ports.
        ports: PortRange,
        /// The other one.
        id: u64,
    },
    /// Ports that there are not.
    #[error("a range of {count} ports from {first} goes beyond 65535")]
    ForwardRange {
        /// Its first port.
        first: u16,
        /// How many.
        count: u32,
    },
    /// There is none.
    #[error(
        "there is no forward {id} in network {network}: `ringway forward list` shows those there are"
    )]
    NoForward {
        /// The network.
        network: Name,
        /// Its number.
        id: u64,
    },
    /// Named twice.
    #[error("{0} is in the document twice")]
    Twice(String),
    /// What cannot change while the network stands.
    #[error("{what} of network {network} cannot change while it stands: delete it first")]
    Fixed {
        /// The network.
        network: Name,
        /// What would change.
        what: &'static str,
    },
    /// Somebody is there.
    #[error("the virtual machine at port {port} of network {network} is running: stop it first")]
    InUse {
        /// The network.
        network: Name,
        /// The port.
        port: Name,
    },
    /// An interface of that name that is not ours.
    #[error(
        "the host has an interface {0} that is not ours: rename it, or take another name for the network"
    )]
    InterfaceTaken(InterfaceName),
}

fn meant(near: &Option<Name>) -> String {
    near.as_ref()
        .map_or_else(|| ":".to_owned(), |near| format!(", did you mean {near}?"))
}

/// What follows a thing of which there are so many.
pub(crate) fn plural(count: usize) -> &'static str {
    if count == 1 { "" } else { "s" }
}

/// The kind as people write it.
pub(crate) fn label(kind: Kind) -> &'static str {
    match kind {
        Kind::Nat => "nat",
        Kind::Routed => "routed",
        Kind::Isolated => "isolated",
        Kind::Bridge => "bridge",
    }
}
