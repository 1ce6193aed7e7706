//! The firewall as nftables reads it: one table of ours, replaced as a whole in one transaction.
//!
//! Chains of other tables see every packet too, so what we accept here may still be dropped there; whoever runs a firewall of
//! their own stays master of it.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::net::IpAddr;

use ringway_api::port_spec::Mac;
use ringway_api::v1::{Forward, Kind};

use crate::things::{Firewall, FirewallNetwork};

/// The table that is ours.
pub const TABLE: &str = "inet ringway";

/// Where images look for what a cloud tells them; nobody is there, and saying so at once saves them the wait.
const METADATA: &str = "169.254.169.254";
const REJECT: &str = "reject with icmpx type admin-prohibited";

/// The table in which taps on bridges are held to their addresses; it is there as long as there are such taps.
pub const BRIDGE_TABLE: &str = "bridge ringway";

/// Text for `nft -f` that removes [`BRIDGE_TABLE`], which has to be there.
pub fn without_taps() -> String {
    format!("delete table {BRIDGE_TABLE}\n")
}

/// Text for `nft -f`: the table is made anew, or only removed if there is no network.
pub fn ruleset(firewall: Option<&Firewall>) -> String {
    // Adding first makes the deletion succeed whether the table was there or not.
    let mut text = format!("add table {TABLE}\ndelete table {TABLE}\n");
    if let Some(firewall) = firewall {
        let _ = writeln!(text, "table {TABLE} {{\n{firewall}}}");
        if !firewall.taps.is_empty() {
            let _ = write!(
                text,
                "add table {BRIDGE_TABLE}\ndelete table {BRIDGE_TABLE}\n"
            );
            let taps = Taps(&firewall.taps);
            let _ = writeln!(text, "table {BRIDGE_TABLE} {{\n{taps}}}");
        }
    }
    text
}

impl fmt::Display for Firewall {
    /// Rules are the same however many networks there are; what differs between networks is elements of sets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.sets(f)?;
        let forwards = || self.networks.values().flat_map(|n| &n.forwards);
        let translated = |f: &mut fmt::Formatter<'_>| {
            // Names are asked of us there, whatever is forwarded.
            rule(
                f,
                "ip daddr @addresses meta l4proto { tcp, udp } th dport 53 return",
            )?;
            forwards().try_for_each(|to| translate(f, to))
        };
        chain(
            f,
            "prerouting",
            "type nat hook prerouting priority dstnat; policy accept;",
            translated,
        )?;
        chain(
            f,
            "output",
            "type nat hook output priority -100; policy accept;",
            translated,
        )?;
        chain(
            f,
            "postrouting",
            "type nat hook postrouting priority srcnat; policy accept;",
            |f| {
                rule(f, "ip saddr @hidden ip daddr 224.0.0.0/4 return")?;
                // Guests that use a forward into their own network themselves.
                rule(f, "oifname . ip saddr @subnets ct status dnat masquerade")?;
                rule(f, "oifname . ip saddr @subnets return")?;
                // What the host asks its own addresses stays as it is.
                rule(f, "oifname \"lo\" return")?;
                rule(f, "ip saddr @hidden masquerade")
            },
        )?;
        chain(
            f,
            "input",
            "type filter hook input priority filter; policy accept;",
            |f| {
                // DHCP is answered from the frames themselves; the host's stack has nothing to say to it.
                rule(f, "iifname @networks udp dport 67 drop")?;
                // A host answers at all of its addresses wherever it is asked; those of another network's gateway are not for all.
                rule(f, "iifname . ip daddr @gateways accept")?;
                rule(
                    f,
                    format_args!("iifname @networks ip daddr @addresses {REJECT}"),
                )
            },
        )?;
        chain(f, "leave", "", |f| {
            rule(
                f,
                format_args!("ip daddr {METADATA} tcp dport 80 reject with tcp reset"),
            )?;
            rule(f, format_args!("ip daddr 169.254.0.0/16 {REJECT}"))?;
            // Nobody borrows an address to get out.
            rule(f, "iifname . ip saddr != @subnets drop")?;
            rule(f, format_args!("iifname @isolated {REJECT}"))
        })?;
        chain(f, "enter", "", |f| {
            rule(f, format_args!("oifname @isolated {REJECT}"))?;
            rule(f, "ct state established,related accept")?;
            rule(f, "ct status dnat accept")?;
            rule(f, format_args!("iifname @networks {REJECT}"))?;
            rule(f, "oifname . ip daddr @routed accept")?;
            rule(f, REJECT)
        })?;
        chain(
            f,
            "forward",
            "type filter hook forward priority filter; policy accept;",
            |f| {
                // Where br_netfilter is loaded, what one port of a bridge sends to another comes by here.
                rule(f, "iifname . oifname @bridged accept")?;
                rule(f, "iifname @networks jump leave")?;
                rule(f, "oifname @networks jump enter")
            },
        )
    }
}

/// Rules of [`BRIDGE_TABLE`]: a tap's virtual machine sends from its own address alone.
struct Taps<'a>(&'a BTreeMap<String, Mac>);

impl fmt::Display for Taps<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        chain(
            f,
            "prerouting",
            "type filter hook prerouting priority filter; policy accept;",
            |f| {
                self.0.iter().try_for_each(|(tap, mac)| {
                    rule(
                        f,
                        format_args!("iifname {tap:?} ether saddr != {mac} counter drop"),
                    )
                })
            },
        )
    }
}

impl Firewall {
    fn sets(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let interface = |n: &FirewallNetwork| format!("{:?}", n.interface.as_str());
        let with = |n: &FirewallNetwork, what: String| format!("{} . {what}", interface(n));
        let all = || self.networks.values();
        let of = |kind| all().filter(move |network| network.kind == kind);
        let within = |n: &FirewallNetwork| with(n, n.subnet.to_string());
        let subnets = "type ifname . ipv4_addr; flags interval;";
        set(f, "networks", "type ifname;", all().map(interface))?;
        set(
            f,
            "isolated",
            "type ifname;",
            of(Kind::Isolated).map(interface),
        )?;
        let bridged = all().filter(|network| network.bridged);
        let bridged = bridged.map(|n| with(n, interface(n)));
        set(f, "bridged", "type ifname . ifname;", bridged)?;
        set(f, "subnets", subnets, all().map(within))?;
        set(f, "routed", subnets, of(Kind::Routed).map(within))?;
        let hidden = of(Kind::Nat).map(|n| n.subnet.to_string());
        set(f, "hidden", "type ipv4_addr; flags interval;", hidden)?;
        let gateways = all().map(|n| with(n, n.gateway().to_string()));
        set(f, "gateways", "type ifname . ipv4_addr;", gateways)?;
        let addresses = all().map(|n| n.gateway().to_string());
        set(f, "addresses", "type ipv4_addr;", addresses)
    }
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

fn rule(f: &mut fmt::Formatter<'_>, text: impl fmt::Display) -> fmt::Result {
    writeln!(f, "\t\t{text}")
}

/// A set; nft takes no empty list of elements.
fn set(
    f: &mut fmt::Formatter<'_>,
    name: &str,
    of: &str,
    elements: impl Iterator<Item = String>,
) -> fmt::Result {
    let elements: Vec<String> = elements.collect();
    writeln!(f, "\tset {name} {{\n\t\t{of}")?;
    if !elements.is_empty() {
        writeln!(f, "\t\telements = {{ {} }}", elements.join(", "))?;
    }
    writeln!(f, "\t}}")
}
