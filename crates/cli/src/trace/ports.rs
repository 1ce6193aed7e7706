//! Why a decision was made, with the settings of ports that made it.

use std::{collections::HashMap, path::Path, time::Duration};

use ringway_api::{
    control,
    port_spec::PortSpec,
    v1::{self, client::Client},
};
use ringway_wire::MacAddress;

use super::{
    ages::{Ages, Teller},
    decision::{Decision, Outcome},
    frame::Frame,
};
use crate::Failure;

/// How long a switch may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Settings of ports as they were when the trace began, by the names that the switch has for them.
#[derive(Default)]
pub(super) struct Ports {
    ages: Ages,
    settings: HashMap<String, Settings>,
    /// Where the host itself is, and what answers in the network's name.
    gateways: Vec<String>,
}

/// What decides about frames at a port, as text where a person sees it.
#[derive(Default)]
struct Settings {
    mac: Option<MacAddress>,
    vlan: Option<u16>,
    trunk: Option<String>,
    rate: Option<String>,
    storm: Option<u64>,
}

impl Ports {
    pub(super) fn of_switch(path: &Path) -> Result<Self, Failure> {
        let mut switch = control::Client::connect(path, PATIENCE)?;
        let ports = switch.ports()?.into_iter();
        Ok(Self {
            ages: Ages::new(Teller::Switch(path.to_owned())),
            settings: ports
                .map(|port| (port.name, Settings::from(&port.spec)))
                .collect(),
            gateways: Vec::new(),
        })
    }

    /// The daemon's own settings of its ports: each network is a VLAN.
    pub(super) fn of_daemon(daemon: &Client) -> Result<Self, Failure> {
        let networks = daemon.networks()?;
        let ports = daemon.ports(None)?.into_iter().map(|port: v1::PortInfo| {
            let network = networks.iter().find(|of| of.spec.name == port.network);
            let settings = Settings {
                mac: Some(MacAddress(port.mac.0)),
                vlan: network.map(|network| network.vlan),
                rate: port.rate.map(|rate| rate.to_string()),
                ..Settings::default()
            };
            (format!("{}/{}", port.network, port.name), settings)
        });
        Ok(Self {
            ages: Ages::new(Teller::Daemon(daemon.clone())),
            settings: ports.collect(),
            gateways: networks
                .iter()
                .map(|network| network.interface.to_string())
                .collect(),
        })
    }

    /// Says why `decision` was made about a frame of the traced port.
    pub(super) fn explain(&mut self, port: &str, frame: &Frame, decision: Decision) -> Outcome {
        let heard = match &decision {
            Decision::Forwarded { to } => self.ages.of(to, frame.destination),
            _ => None,
        };
        let why = match &decision {
            Decision::Forwarded { to } => {
                let learned = format!("{} was learned behind {to}", frame.destination);
                Some(match heard {
                    Some(age) => format!("{learned}, last heard {age} s ago"),
                    None => learned,
                })
            }
            Decision::Flooded { reason, .. } => {
                let cause = flooded(frame);
                Some(match reason {
                    None => cause.to_owned(),
                    // To whom is not known; the setting may be anybody's.
                    Some(reason) => {
                        let why = self.reason(reason, port, None, frame);
                        format!("{cause}; not to all: {why}")
                    }
                })
            }
            Decision::Dropped { to, reason } => {
                Some(self.reason(reason, port, to.as_deref(), frame))
            }
            Decision::Missed { from, reason } => Some(self.reason(reason, from, Some(port), frame)),
            Decision::Received { .. } | Decision::Other { .. } => None,
        };
        Outcome {
            service: self.service(port, frame, &decision),
            heard_seconds_ago: heard,
            decision,
            why,
        }
    }

    /// What of the network meets the frame.
    fn service(&self, port: &str, frame: &Frame, decision: &Decision) -> Option<&'static str> {
        let is_gateway = |name: &String| self.gateways.contains(name);
        let meets = match decision {
            Decision::Forwarded { to } => is_gateway(to),
            Decision::Received { from } => is_gateway(from),
            // The host of the network is among those that get it.
            Decision::Flooded { to, .. } => *to > 0 && !self.gateways.is_empty(),
            _ => false,
        };
        let at_gateway = self.gateways.iter().any(|gateway| gateway == port);
        let arp = (frame.network == Some("arp")).then_some("arp");
        frame.service.or(arp).filter(|_| meets || at_gateway)
    }

    /// A reason in words. `to` is the port that was to get the frame, where one was found.
    fn reason(&self, reason: &str, from: &str, to: Option<&str>, frame: &Frame) -> String {
        let of = |name: Option<&str>| name.and_then(|name| self.settings.get(name));
        let (sender, receiver) = (of(Some(from)), of(to));
        let there = to.unwrap_or("the receiver");
        match reason {
            "spoofed_mac" => match sender.and_then(|port| port.mac) {
                Some(mac) if mac != frame.source => format!(
                    "port {from} has mac={mac} and may not send as {}",
                    frame.source
                ),
                _ => format!(
                    "{} is the mac= of another port, and {from} may not send as it",
                    frame.source
                ),
            },
            "vlan_mismatch" => match to {
                None => tag(from, sender, frame),
                Some(to) => tag(to, receiver, frame),
            },
            "isolated" => format!("ports {from} and {there} are both isolated"),
            "same_port" => format!("{} is behind {from} itself", frame.destination),
            "no_destination" => {
                format!(
                    "nobody may get it: {from} is alone in its VLAN, no virtual machine runs at the other ports, or they are isolated as it is"
                )
            }
            "not_connected" => {
                format!("no virtual machine is at {there}, or its driver does not receive yet")
            }
            "no_buffers" => {
                format!(
                    "the guest at {there} gave no buffers to receive into: it is slower than its senders, or its driver stands still"
                )
            }
            "buffer_too_small" => format!(
                "{} bytes do not fit into a buffer of {there}, whose driver does not merge them",
                frame.len
            ),
            "mtu_exceeded" => format!(
                "{} bytes are more than the MTU that {there} was told: give both ends the same",
                frame.len
            ),
            "queue_full" => format!("the host does not take frames from {there} fast enough"),
            "link_down" => format!("{there} is down: ip link set {there} up"),
            "rate_limited" => match receiver.and_then(|port| port.rate.as_ref()) {
                Some(rate) => format!("more than rate={rate} of port {there}"),
                None => format!("more than the rate= of {there}"),
            },
            "storm_limited" => match sender.and_then(|port| port.storm) {
                Some(storm) => format!(
                    "{from} sends more frames to everybody than storm={storm} lets pass in a second"
                ),
                None => format!(
                    "{from} sends more frames to everybody in a second than its storm= lets pass"
                ),
            },
            "bad_source" => format!(
                "{} is an address of a group and sends nothing",
                frame.source
            ),
            "bad_header" => "its virtio-net header asks for what does not fit the frame".into(),
            "too_short" => format!("{} bytes are no frame", frame.len),
            "too_long" => format!("{} bytes are more than any frame has", frame.len),
            "offload_failed" => {
                format!("{there} takes no such segments, and they could not be cut for it")
            }
            "fault" => format!("the rings of {there} broke while it was under way"),
            "ring_disabled" => format!("the driver at {from} disabled its ring"),
            other => format!("the switch calls it {other}"),
        }
    }
}

/// What a port does with the frame's tag, or without one.
fn tag(port: &str, settings: Option<&Settings>, frame: &Frame) -> String {
    let frame = match frame.vlan {
        Some(vlan) => format!("a frame of VLAN {vlan}"),
        None => "a frame without a tag".into(),
    };
    match settings {
        Some(Settings {
            trunk: Some(trunk), ..
        }) => format!("port {port} has trunk={trunk} and does not carry {frame}"),
        Some(Settings {
            vlan: Some(vlan), ..
        }) => format!("port {port} has vlan={vlan} and does not carry {frame}"),
        _ => format!("port {port} does not carry {frame}"),
    }
}

fn flooded(frame: &Frame) -> &'static str {
    if frame.destination.is_broadcast() {
        "broadcast"
    } else if frame.destination.is_multicast() {
        "multicast"
    } else {
        "unknown unicast: nothing came from its destination yet, or not for long"
    }
}

impl From<&PortSpec> for Settings {
    fn from(spec: &PortSpec) -> Self {
        Self {
            mac: spec.mac.map(|mac| MacAddress(mac.0)),
            vlan: spec.vlan,
            trunk: spec.trunk.as_ref().map(ToString::to_string),
            rate: spec.rate.map(|rate| rate.to_string()),
            storm: spec.storm_limit(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ports() -> Ports {
        let specs = [
            ("a", "sink,name=a,mac=02:00:00:00:00:01,vlan=7,storm=50"),
            ("b", "sink,name=b,rate=8M,vlan=7"),
            ("t", "sink,name=t,trunk=7+9"),
        ];
        let settings = specs.map(|(name, spec)| {
            let spec: PortSpec = spec.parse().unwrap();
            (name.to_owned(), Settings::from(&spec))
        });
        Ports {
            settings: settings.into(),
            gateways: vec!["rw-lan".into()],
            ..Ports::default()
        }
    }

    #[test]
    fn each_reason_names_the_setting_of_the_port_that_made_it() {
        let ports = ports();
        let frame = Frame {
            source: MacAddress([2, 0, 0, 0, 0, 9]),
            vlan: Some(9),
            len: 60,
            ..Frame::default()
        };
        for (reason, to, part) in [
            (
                "spoofed_mac",
                None,
                "a has mac=02:00:00:00:00:01 and may not send as 02:00:00:00:00:09",
            ),
            (
                "vlan_mismatch",
                None,
                "a has vlan=7 and does not carry a frame of VLAN 9",
            ),
            ("vlan_mismatch", Some("t"), "t has trunk=7+9"),
            ("isolated", Some("b"), "ports a and b are both isolated"),
            ("rate_limited", Some("b"), "more than rate=8M of port b"),
            ("storm_limited", None, "storm=50"),
            ("no_buffers", Some("b"), "the guest at b"),
            ("news", None, "the switch calls it news"),
        ] {
            let text = ports.reason(reason, "a", to, &frame);
            assert!(text.contains(part), "{reason}: {text}");
        }
    }

    #[test]
    fn services_are_those_of_the_network_itself() {
        let mut ports = ports();
        let dns = Frame {
            service: Some("dns"),
            ..Frame::default()
        };
        let to = |port: &str| Decision::Forwarded { to: port.into() };
        assert_eq!(ports.explain("a", &dns, to("rw-lan")).service, Some("dns"));
        assert_eq!(ports.explain("a", &dns, to("b")).service, None);
        let arp = Frame {
            network: Some("arp"),
            destination: MacAddress([0xff; 6]),
            ..Frame::default()
        };
        let flood = Decision::Flooded {
            to: 2,
            of: 2,
            reason: None,
        };
        let told = ports.explain("a", &arp, flood);
        assert_eq!(
            (told.service, told.why.as_deref()),
            (Some("arp"), Some("broadcast"))
        );
    }
}
