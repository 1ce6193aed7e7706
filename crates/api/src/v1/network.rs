//! Networks.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};

use super::Name;
use crate::port_spec::InterfaceName;

/// How a network meets the world.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Behind the host's address: guests reach the outside, the outside reaches forwards.
    #[default]
    Nat,
    /// With addresses that the outside knows a route to.
    Routed,
    /// Guests and host among themselves.
    Isolated,
    /// On a Linux bridge that exists already; addresses and names are that network's business, none of ours.
    Bridge,
}

/// A network as asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct NetworkSpec {
    /// Its name, a label of its guests' names in DNS.
    pub name: Name,
    /// How it meets the world.
    #[serde(default)]
    pub kind: Kind,
    /// IPv4 subnet, `/8` to `/29`; chosen so that it clashes with no route of the host if absent. Not for [`Kind::Bridge`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schemars(with = "Option<String>"))]
    pub subnet: Option<Ipv4Net>,
    /// IPv6 subnet, `/64`. None if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schemars(with = "Option<String>"))]
    pub subnet6: Option<Ipv6Net>,
    /// The bridge to join, or an interface without one, to which only ports with a macvtap lead; for [`Kind::Bridge`] alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bridge: Option<InterfaceName>,
    /// Largest IP packet in bytes, 576 to 65521; 1500 if absent, that of the bridge with [`Kind::Bridge`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u16>,
    /// DHCP settings.
    #[serde(default)]
    pub dhcp: DhcpOptions,
    /// DNS settings.
    #[serde(default)]
    pub dns: DnsOptions,
}

/// What DHCPv4 says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct DhcpOptions {
    /// Whether addresses are handed out.
    pub enabled: bool,
    /// First and last address handed out to whom no address is bound; all but the gateway's if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub range: Option<(Ipv4Addr, Ipv4Addr)>,
    /// How long an address is lent, in seconds, 20 to 4294967294.
    pub lease_seconds: u32,
    /// NTP servers (option 42).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ntp: Vec<Ipv4Addr>,
    /// Routes besides the default one (option 121, RFC 3442).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<Route>,
}

impl Default for DhcpOptions {
    fn default() -> Self {
        Self {
            enabled: true,
            range: None,
            lease_seconds: 3600,
            ntp: Vec::new(),
            routes: Vec::new(),
        }
    }
}

/// A route that guests are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// Where to.
    #[cfg_attr(feature = "openapi", schemars(with = "String"))]
    pub to: Ipv4Net,
    /// By which router of the subnet.
    pub via: Ipv4Addr,
}

/// What DNS says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct DnsOptions {
    /// Whether the gateway answers DNS.
    pub enabled: bool,
    /// The zone above the network's name: guests are `NAME.NETWORK.DOMAIN`.
    pub domain: String,
    /// Resolvers that other names are asked of; the host's if empty.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub upstream: Vec<IpAddr>,
    /// Further records.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub records: Vec<Record>,
}

impl Default for DnsOptions {
    fn default() -> Self {
        Self {
            enabled: true,
            domain: "ringway".into(),
            upstream: Vec::new(),
            records: Vec::new(),
        }
    }
}

/// A record that the network's DNS answers with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// Owner: within the network's zone if it has no dot at its end.
    pub name: String,
    /// What it is.
    pub data: RecordData,
}

/// Type and value of a record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum RecordData {
    /// An IPv4 address.
    A(Ipv4Addr),
    /// An IPv6 address.
    Aaaa(Ipv6Addr),
    /// Another name.
    Cname(String),
    /// Text, at most 255 bytes.
    Txt(String),
}

/// A network as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct NetworkInfo {
    /// As asked for, with what was chosen filled in (subnet, MTU).
    #[serde(flatten)]
    pub spec: NetworkSpec,
    /// The gateway's address, the first of the subnet; none with [`Kind::Bridge`].
    pub gateway: Option<Ipv4Addr>,
    /// The host's interface into the network.
    pub interface: InterfaceName,
    /// VLAN that the network is inside the switch, 1 to 4094.
    pub vlan: u16,
    /// How many ports it has.
    pub ports: usize,
    /// How many addresses are lent or bound.
    pub leases: usize,
    /// How many addresses DHCP has left to lend; none if it lends none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub free: Option<usize>,
}
