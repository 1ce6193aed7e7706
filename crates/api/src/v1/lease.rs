//! Addresses that are lent or bound.

use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use super::Name;
use crate::port_spec::Mac;

/// An address bound by a person to a MAC, or to a DHCP client identifier.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct StaticLease {
    /// The client's hardware address. One of this and `client_id` is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<Mac>,
    /// The client's identifier (option 61) in hexadecimal digits, two per byte.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_id: Option<String>,
    /// The address.
    pub address: Ipv4Addr,
    /// The name that the address gets in DNS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<Name>,
}

/// How long an address is somebody's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Binding {
    /// Bound by a person.
    Static,
    /// Bound by the port it belongs to.
    Port,
    /// Lent by DHCP.
    Dynamic,
    /// Reported as in use by somebody else (DHCPDECLINE), and kept back for a while.
    Declined,
}

/// An address that is lent or bound.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct Lease {
    /// The network it is in.
    pub network: Name,
    /// The address.
    pub address: Ipv4Addr,
    /// Hardware address of its client, if known.
    pub mac: Option<Mac>,
    /// Identifier of its client (option 61) in hexadecimal digits, if it has one.
    pub client_id: Option<String>,
    /// Its name in DNS, without zone.
    pub name: Option<Name>,
    /// Why it is somebody's.
    pub binding: Binding,
    /// When it ends, in seconds since 1970-01-01 UTC; `None` = never, or not asked for yet.
    pub expires: Option<u64>,
}
