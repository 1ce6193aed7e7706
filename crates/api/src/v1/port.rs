//! Ports of networks.

use std::{net::Ipv4Addr, path::PathBuf};

use serde::{Deserialize, Serialize};

use super::Name;
use crate::{
    control::Setting,
    port_spec::{InterfaceName, Mac, Rate},
};

/// How a virtual machine's NIC reaches the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum PortPath {
    /// A vhost-user socket of the switch.
    #[default]
    VhostUser,
    /// A tap of the kernel that the VMM opens, on a bridge with the network.
    Tap,
    /// A tap as above, with the kernel's vhost-net.
    VhostNet,
    /// A macvtap over the interface that a network of kind `bridge` joins; the host itself is not reached from there.
    Macvtap,
}

/// A port as asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct PortRequest {
    /// Its name within the network, and the guest's in DNS.
    pub name: Name,
    /// How the NIC reaches the network.
    #[serde(default)]
    pub path: PortPath,
    /// The NIC's address; made from the names of network and port if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<Mac>,
    /// Address that the guest is bound to; DHCP chooses one if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<Ipv4Addr>,
    /// Queue pairs, 1 to 128.
    #[serde(default = "one")]
    pub queues: u16,
    /// Limit in each direction.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<Rate>,
    /// User who may open the tap, by number; root if absent. Not for vhost-user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<u32>,
    /// Group that may open the tap, by number. Not for vhost-user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<u32>,
}

fn one() -> u16 {
    1
}

/// Changes to a port; what is not named stays.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct PortPatch {
    /// Address that the guest is bound to.
    #[serde(skip_serializing_if = "Setting::is_keep")]
    pub address: Setting<Ipv4Addr>,
    /// Limit in each direction.
    #[serde(skip_serializing_if = "Setting::is_keep")]
    pub rate: Setting<Rate>,
}

/// A port as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct PortInfo {
    /// The network it is in.
    pub network: Name,
    /// Its name there.
    pub name: Name,
    /// How the NIC reaches the network.
    pub path: PortPath,
    /// The vhost-user socket.
    pub socket: Option<PathBuf>,
    /// The tap.
    pub tap: Option<InterfaceName>,
    /// The NIC's address.
    pub mac: Mac,
    /// Address bound to the port, or else lent to its MAC at present.
    pub address: Option<Ipv4Addr>,
    /// Queue pairs.
    pub queues: u16,
    /// Limit in each direction.
    pub rate: Option<Rate>,
    /// Whether a virtual machine is there; `None` where that cannot be known.
    pub connected: Option<bool>,
}
