//! The firewall as nftables reads it: one table of ours, replaced as a whole in one transaction.
//!
//! Chains of other tables see every packet too, so what we accept here may still be dropped there; whoever runs a firewall of
//! their own stays master of it.

use std::fmt::{self, Write as _};
use std::net::IpAddr;

use ringway_api::v1::{Forward, Kind, Name};

use crate::things::{Firewall, FirewallNetwork};

/// The table that is ours.
pub const TABLE: &str = "inet ringway";

/// Where images look for what a cloud tells them; nobody is there, and saying so at once saves them the wait.
const METADATA: &str = "169.254.169.254";
const REJECT: &str = "reject with icmpx type admin-prohibited";

/// Text for `nft -f`: the table is made anew, or only removed if there is no network.
pub fn ruleset(firewall: Option<&Firewall>) -> String {
    // Adding first makes the deletion succeed whether the table was there or not.
    let mut text = format!("add table {TABLE}\ndelete table {TABLE}\n");
    if let Some(firewall) = firewall {
        let _ = writeln!(text, "table {TABLE} {{\n{firewall}}}");
    }
    text
}

impl fmt::Display for Firewall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let forwards: Vec<&Forward> = self
            .networks
            .values()
            .flat_map(|network| &network.forwards)
            .collect();
        chain(
            f,
            "prerouting",
            "type nat hook prerouting priority dstnat; policy accept;",
            |f| {
                forwards
                    .iter()
                    .try_for_each(|forward| translate(f, forward))
            },
        )?;
        chain(
            f,
            "output",
            "type nat hook output priority -100; policy accept;",
            |f| {
                forwards
                    .iter()
                    .try_for_each(|forward| translate(f, forward))
            },
        )?;
        chain(
            f,
            "postrouting",
            "type nat hook postrouting priority srcnat; policy accept;",
            |f| {
                self.networks
                    .iter()
                    .filter(|(_, network)| network.kind == Kind::Nat)
                    .try_for_each(|(name, network)| hide(f, name, network))
            },
        )?;
        let enforced = self.networks.values();
        set(
            f,
            "set networks",
            "type ifname",
            enforced.clone().map(|network| quoted(network)),
        )?;
        set(
            f,
            "set gateways",
            "type ifname . ipv4_addr",
            enforced
                .clone()
                .map(|n| format!("{} . {}", quoted(n), n.gateway())),
        )?;
        set(
            f,
            "set addresses",
            "type ipv4_addr",
            enforced.clone().map(|n| n.gateway().to_string()),
        )?;
        chain(
            f,
            "input",
            "type filter hook input priority filter; policy accept;",
            |f| {
                // DHCP is answered from the frames themselves; the host's stack has nothing to say to it.
                rule(f, format_args!("iifname @networks udp dport 67 drop"))?;
                // A host answers at all of its addresses wherever it is asked; those of another network's gateway are not for all.
                rule(f, format_args!("iifname . ip daddr @gateways accept"))?;
                rule(
                    f,
                    format_args!("iifname @networks ip daddr @addresses {REJECT}"),
                )
            },
        )?;
        for network in self.networks.values() {
            chain(f, &format!("from-{}", network.interface), "", |f| {
                leave(f, network)
            })?;
            chain(f, &format!("to-{}", network.interface), "", |f| {
                enter(f, network)
            })?;
        }
        chain(
            f,
            "forward",
            "type filter hook forward priority filter; policy accept;",
            |f| {
                // One look-up each, however many networks there are.
                for (side, way) in [("iifname", "from"), ("oifname", "to")] {
                    let jumps: Vec<String> = enforced
                        .clone()
                        .map(|n| format!("{} : jump {way}-{}", quoted(n), n.interface))
                        .collect();
                    rule(f, format_args!("{side} vmap {{ {} }}", jumps.join(", ")))?;
                }
                Ok(())
            },
        )
    }
}

/// What may leave a network over the host.
fn leave(f: &mut fmt::Formatter<'_>, network: &FirewallNetwork) -> fmt::Result {
    rule(
        f,
        format_args!("ip daddr {METADATA} tcp dport 80 reject with tcp reset"),
    )?;
    rule(f, format_args!("ip daddr 169.254.0.0/16 {REJECT}"))?;
    // Nobody borrows an address to get out.
    rule(f, format_args!("ip saddr != {} drop", network.subnet))?;
    match network.kind {
        Kind::Isolated => rule(f, format_args!("{REJECT}")),
        _ => Ok(()),
    }
}

/// What may enter a network over the host.
fn enter(f: &mut fmt::Formatter<'_>, network: &FirewallNetwork) -> fmt::Result {
    if network.kind == Kind::Isolated {
        return rule(f, format_args!("{REJECT}"));
    }
    rule(f, format_args!("ct state established,related accept"))?;
    rule(f, format_args!("ct status dnat accept"))?;
    rule(
        f,
        format_args!("iifname != {} iifname @networks {REJECT}", quoted(network)),
    )?;
    match network.kind {
        Kind::Routed => rule(f, format_args!("ip daddr {} accept", network.subnet)),
        _ => rule(f, format_args!("{REJECT}")),
    }
}

fn quoted(network: &FirewallNetwork) -> String {
    format!("{:?}", network.interface.as_str())
}

/// A forward, for what is sent to the host itself.
fn translate(f: &mut fmt::Formatter<'_>, forward: &Forward) -> fmt::Result {
    let spec = &forward.spec;
    let to = match spec.listen {
        Some(IpAddr::V4(address)) => format!("ip daddr {address}"),
        Some(IpAddr::V6(address)) => format!("ip6 daddr {address}"),
        // Loopback addresses cannot leave the host.
        None => "fib daddr type local ip daddr != 127.0.0.0/8".to_owned(),
    };
    let (first, last) = (spec.ports.first(), spec.ports.last());
    let target = spec.to_port.unwrap_or(first);
    let ports = format!("{} dport {}", spec.protocol, spec.ports);
    let comment = format!("comment \"forward {}\"", forward.id);
    if target == first {
        rule(
            f,
            format_args!("{to} {ports} dnat ip to {} {comment}", spec.to),
        )
    } else if first == last {
        rule(
            f,
            format_args!("{to} {ports} dnat ip to {}:{target} {comment}", spec.to),
        )
    } else {
        let pairs: Vec<String> = (first..=last)
            .zip(target..)
            .map(|(from, to)| format!("{from} : {to}"))
            .collect();
        let protocol = spec.protocol;
        rule(
            f,
            format_args!(
                "{to} {ports} dnat ip to {} : {protocol} dport map {{ {} }} {comment}",
                spec.to,
                pairs.join(", ")
            ),
        )
    }
}

/// Masquerading: towards the outside, and back into the network for guests that use a forward themselves.
fn hide(f: &mut fmt::Formatter<'_>, name: &Name, network: &FirewallNetwork) -> fmt::Result {
    let FirewallNetwork {
        interface, subnet, ..
    } = network;
    let interface = format!("{:?}", interface.as_str());
    rule(
        f,
        format_args!("ip saddr {subnet} ip daddr 224.0.0.0/4 return"),
    )?;
    rule(
        f,
        format_args!(
            "ip saddr {subnet} oifname != {{ \"lo\", {interface} }} masquerade comment \"network {name}\""
        ),
    )?;
    rule(
        f,
        format_args!(
            "ip saddr {subnet} oifname {interface} ct status dnat masquerade comment \"hairpin {name}\""
        ),
    )
}

fn chain(
    f: &mut fmt::Formatter<'_>,
    name: &str,
    hook: &str,
    rules: impl FnOnce(&mut fmt::Formatter<'_>) -> fmt::Result,
) -> fmt::Result {
    writeln!(f, "\tchain {name} {{")?;
    if !hook.is_empty() {
        writeln!(f, "\t\t{hook}")?;
    }
    rules(f)?;
    writeln!(f, "\t}}")
}

fn set(
    f: &mut fmt::Formatter<'_>,
    name: &str,
    of: &str,
    elements: impl Iterator<Item = String>,
) -> fmt::Result {
    let elements: Vec<String> = elements.collect();
    writeln!(
        f,
        "\t{name} {{\n\t\t{of}; elements = {{ {} }}\n\t}}",
        elements.join(", ")
    )
}

fn rule(f: &mut fmt::Formatter<'_>, text: fmt::Arguments<'_>) -> fmt::Result {
    writeln!(f, "\t\t{text}")
}
