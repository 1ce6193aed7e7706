//! A network with all that belongs to it, as a person writes it down: `ringway net apply FILE`.

use ipnet::{Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};

use super::{
    DhcpOptions, DnsOptions, ForwardSpec, Kind, Name, NetworkSpec, PortRequest, StaticLease,
};
use crate::port_spec::InterfaceName;

/// Networks as they shall be. Networks that are not named stay as they are; within one that is named, ports, leases and
/// forwards that are not named go, except for ports whose virtual machine runs: those are refused.
///
/// ```toml
/// [[network]]
/// name = "lan"
/// subnet = "192.168.40.0/24"
///
/// [[network.port]]
/// name = "web"
/// address = "192.168.40.10"
///
/// [[network.forward]]
/// ports = "8080"
/// to = "192.168.40.10"
/// to_port = 80
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Document {
    /// The networks.
    #[serde(rename = "network", default)]
    pub networks: Vec<DocumentNetwork>,
}

/// A network and what is in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(from = "Written", into = "Written")]
pub struct DocumentNetwork {
    /// The network itself; in the document its fields stand beside the lists.
    pub spec: NetworkSpec,
    /// Its ports.
    pub ports: Vec<PortRequest>,
    /// Addresses bound to others than ports.
    pub leases: Vec<StaticLease>,
    /// Its forwards.
    pub forwards: Vec<ForwardSpec>,
}

/// The form of [`DocumentNetwork`] in a document. Every field is named, because serde refuses no unknown ones beside flattened ones.
#[derive(Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
struct Written {
    name: Name,
    #[serde(default)]
    kind: Kind,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schemars(with = "Option<String>"))]
    subnet: Option<Ipv4Net>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schemars(with = "Option<String>"))]
    subnet6: Option<Ipv6Net>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bridge: Option<InterfaceName>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mtu: Option<u16>,
    #[serde(default)]
    dhcp: DhcpOptions,
    #[serde(default)]
    dns: DnsOptions,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    port: Vec<PortRequest>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    lease: Vec<StaticLease>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    forward: Vec<ForwardSpec>,
}

impl From<Written> for DocumentNetwork {
    fn from(written: Written) -> Self {
        let Written {
            name,
            kind,
            subnet,
            subnet6,
            bridge,
            mtu,
            dhcp,
            dns,
            port,
            lease,
            forward,
        } = written;
        let spec = NetworkSpec {
            name,
            kind,
            subnet,
            subnet6,
            bridge,
            mtu,
            dhcp,
            dns,
        };
        Self {
            spec,
            ports: port,
            leases: lease,
            forwards: forward,
        }
    }
}

impl From<DocumentNetwork> for Written {
    fn from(network: DocumentNetwork) -> Self {
        let DocumentNetwork {
            spec,
            ports,
            leases,
            forwards,
        } = network;
        let NetworkSpec {
            name,
            kind,
            subnet,
            subnet6,
            bridge,
            mtu,
            dhcp,
            dns,
        } = spec;
        Self {
            name,
            kind,
            subnet,
            subnet6,
            bridge,
            mtu,
            dhcp,
            dns,
            port: ports,
            lease: leases,
            forward: forwards,
        }
    }
}

/// What was done, or would be.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct Applied {
    /// The steps in their order, one sentence each; empty if everything was so already.
    pub steps: Vec<String>,
    /// Whether they were done; false after a dry run.
    pub done: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    const LAN: &str = r#"
        [[network]]
        name = "lan"
        subnet = "192.168.40.0/24"
        dns = { records = [{ name = "www", data = { cname = "web" } }] }

        [[network.port]]
        name = "web"
        address = "192.168.40.10"
        rate = "100M"

        [[network.forward]]
        ports = "8080-8081"
        to = "192.168.40.10"
        to_port = 80
    "#;

    #[test]
    fn a_document_is_read_and_written_back() {
        let document: Document = toml::from_str(LAN).unwrap();
        let lan = &document.networks[0];
        assert_eq!(lan.spec.subnet, Some("192.168.40.0/24".parse().unwrap()));
        assert_eq!(lan.ports[0].queues, 1);
        assert_eq!(lan.forwards[0].ports.last(), 8081);
        let again = toml::from_str(&toml::to_string(&document).unwrap());
        assert_eq!(again, Ok(document.clone()));
        let json = serde_json::to_string(&document).unwrap();
        assert_eq!(serde_json::from_str::<Document>(&json).unwrap(), document);
    }

    #[test]
    fn what_is_not_known_is_refused_at_every_level() {
        for (known, unknown) in [
            ("[[network]]", "[[networks]]"),
            ("subnet =", "sub-net ="),
            ("records =", "record ="),
            ("rate =", "speed ="),
            ("to_port =", "target ="),
        ] {
            let text = LAN.replacen(known, unknown, 1);
            assert_ne!(text, LAN);
            let read = toml::from_str::<Document>(&text);
            assert!(read.is_err(), "{unknown} {read:?}");
        }
    }
}
