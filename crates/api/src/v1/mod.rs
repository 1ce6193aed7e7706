//! What clients and the daemon say to each other: JSON over HTTP on a unix socket, under `/v1`.
//!
//! | Method and path | Body | Answer |
//! |---|---|---|
//! | `GET /v1/info` | | [`DaemonInfo`] |
//! | `GET /v1/networks` | | array of [`NetworkInfo`] |
//! | `POST /v1/networks` | [`NetworkSpec`] | [`NetworkInfo`] |
//! | `GET /v1/networks/{network}` | | [`NetworkInfo`] |
//! | `DELETE /v1/networks/{network}?force=BOOL` | | nothing |
//! | `POST /v1/apply?dry_run=BOOL` | [`Document`] | [`Applied`] |
//! | `GET /v1/ports?network=NAME` | | array of [`PortInfo`] |
//! | `POST /v1/networks/{network}/ports` | [`PortRequest`] | [`PortInfo`] |
//! | `GET`, `PATCH`, `DELETE /v1/networks/{network}/ports/{port}` | [`PortPatch`] for PATCH | [`PortInfo`], nothing for DELETE |
//! | `GET /v1/leases?network=NAME` | | array of [`Lease`] |
//! | `GET /v1/leases/resolve?name=NAME` | | array of [`Lease`] |
//! | `POST /v1/networks/{network}/leases` | [`StaticLease`] | [`Lease`] |
//! | `DELETE /v1/networks/{network}/leases/{address}` | | nothing |
//! | `GET /v1/forwards?network=NAME` | | array of [`Forward`] |
//! | `POST /v1/networks/{network}/forwards` | [`ForwardSpec`] | [`Forward`] |
//! | `DELETE /v1/networks/{network}/forwards/{id}` | | nothing |
//! | `GET /v1/stats` | | [`Stats`] |
//! | `GET /v1/addresses?port=NAME` | | [`Addresses`] |
//! | `POST /v1/capture` | [`CaptureRequest`] | pcapng, until the client or the port goes |
//! | `GET /v1/openapi.json` | | the OpenAPI document |
//!
//! What is not done is answered with a status of 400 or more and a [`Failure`]. Reading is for whoever may open the socket,
//! writing for root and for the user the daemon runs as, by the peer credentials of the socket. Unknown fields are refused.

pub mod client;
mod document;
mod failure;
mod forward;
mod lease;
mod name;
mod network;
#[cfg(feature = "openapi")]
pub mod openapi;
mod port;

pub use document::{Applied, Document, DocumentNetwork};
pub use failure::{Code, Failure};
pub use forward::{Forward, ForwardSpec, PortRange, Protocol};
pub use lease::{Binding, Lease, StaticLease};
pub use name::{Name, NameError};
pub use network::{
    DhcpOptions, DnsOptions, Kind, NetworkInfo, NetworkSpec, Record, RecordData, Route,
};
pub use port::{PortInfo, PortPatch, PortPath, PortRequest};

use serde::{Deserialize, Serialize};

use crate::{control::Address, stats::Statistics};

/// The daemon and its switch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct DaemonInfo {
    /// Version of the program.
    pub version: String,
    /// Process id of the daemon.
    pub pid: u32,
    /// Process id of the switch, `None` while there is none.
    pub switch_pid: Option<u32>,
    /// How often the switch had to be started again.
    pub switch_restarts: u64,
    /// What the person should know, one sentence each: a firewall that would drop frames, a resolver that does not answer.
    pub warnings: Vec<String>,
}

/// What the switch learned.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct Addresses {
    /// Addresses by port; only the newest, if there are thousands. A network's VLAN is said with the network.
    pub addresses: Vec<Address>,
    /// How many there are in all.
    pub learned: usize,
}

/// Which port to capture at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct CaptureRequest {
    /// `NETWORK/PORT`, or the port's name if only one network has it, or a network's interface.
    pub port: String,
}

/// What was counted, by the switch and by the services.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct Stats {
    /// The switch's counters; `None` while it does not run.
    pub switch: Option<Statistics>,
    /// Of each network's services, by network and then by counter, such as `dhcp_offers` or `dns_cached`.
    pub services: std::collections::BTreeMap<String, std::collections::BTreeMap<String, u64>>,
}
