//! Firewalls of others. A packet passes the chains of every table, so what ours accepts another one may drop: Docker's, ufw's,
//! firewalld's, or one that somebody wrote. They are read to say so, and on request rules of ours are put into them; nothing else
//! of theirs is touched.

use std::fmt::Write as _;

use ringway_api::v1::Kind;
use ringway_host::nft::{
    self, NftError,
    rules::{self, Chain, Judge},
};
use ringway_network::{Firewall, State, firewall::TABLE};

/// What rules of ours in chains of others begin their comment with; the interface follows.
const MARK: &str = "ringway ";
/// Whether bridges show their IPv4 packets to the chains of the host: the module br_netfilter, which Docker loads.
const BRIDGED: &str = "/proc/sys/net/bridge/bridge-nf-call-iptables";
/// Chains of others that judge what crosses the host or is for it, as they are now.
#[derive(Debug, Default)]
pub(crate) struct Foreign {
    chains: Vec<Judge>,
    /// Whether frames within a bridge pass them, too.
    bridged: bool,
}

impl Foreign {
    /// Reads them. Where there is no nft there is no firewall of ours, either, and others say so.
    pub(crate) fn read() -> Result<Self, NftError> {
        let chains = rules::judges(TABLE)?;
        let bridged = std::fs::read_to_string(BRIDGED).is_ok_and(|value| value.trim() == "1");
        Ok(Self { chains, bridged })
    }

    /// What they drop of these networks, with the way out.
    pub(crate) fn warnings(&self, state: &State) -> Vec<String> {
        let mut said = Vec::new();
        for network in state.networks.values() {
            let interface = network.interface.as_str();
            let crosses = matches!(network.spec.kind, Kind::Nat | Kind::Routed);
            let bridge = network.spec.bridge.as_ref().filter(|_| self.bridged);
            for judge in self.chains.iter().filter(|judge| judge.closed) {
                let named = |key, name| judge.rules.iter().any(|rule| rule.lets_pass(key, name));
                let passes = |key| named(key, interface);
                let dropped = match judge.chain.hook.as_deref() {
                    Some("forward") if crosses => !passes("iifname") || !passes("oifname"),
                    Some("input") if network.spec.dns.enabled && network.spec.subnet.is_some() => {
                        !passes("iifname")
                    }
                    Some("forward") => {
                        if let Some(bridge) = bridge
                            && !named("iifname", bridge.as_str())
                        {
                            said.push(bridged(judge, interface, bridge.as_str()));
                        }
                        false
                    }
                    _ => false,
                };
                if dropped {
                    said.push(sentence(judge, interface));
                }
            }
        }
        said
    }

    /// Transactions, one for each chain, after which our rules are there for exactly these interfaces, where they are needed.
    fn opening(&self, interfaces: &[&str]) -> Vec<String> {
        let crossed = |judge: &&Judge| judge.chain.hook.as_deref() == Some("forward");
        let texts = self.chains.iter().filter(crossed);
        let texts = texts.map(|judge| opening(judge, if judge.closed { interfaces } else { &[] }));
        texts.filter(|text| !text.is_empty()).collect()
    }
}

/// Makes other firewalls let our networks pass, or, without `open`, takes away what did.
pub(crate) fn set(open: bool, firewall: Option<&Firewall>) -> Result<(), NftError> {
    let networks = firewall.into_iter().flat_map(|f| f.networks.values());
    let crossing = networks.filter(|n| open && matches!(n.kind, Kind::Nat | Kind::Routed));
    let interfaces: Vec<&str> = crossing.map(|n| n.interface.as_str()).collect();
    for text in Foreign::read()?.opening(&interfaces) {
        nft::load(&text)?;
    }
    Ok(())
}

fn opening(judge: &Judge, interfaces: &[&str]) -> String {
    let place = judge.place();
    let mut text = String::new();
    let mut there = Vec::new();
    for rule in &judge.rules {
        let Some(interface) = rule.comment.strip_prefix(MARK) else {
            continue;
        };
        let known = (interface, rule.side());
        if rule.chain == place.name && interfaces.contains(&interface) && !there.contains(&known) {
            there.push(known);
        } else {
            let Chain { family, table, .. } = place;
            let (chain, handle) = (&rule.chain, rule.handle);
            let _ = writeln!(text, "delete rule {family} {table} {chain} handle {handle}");
        }
    }
    for interface in interfaces {
        for side in ["iifname", "oifname"] {
            if !there.contains(&(*interface, Some(side))) {
                // As iptables-nft writes its own: it refuses tables with anything it could not have written.
                let _ = writeln!(
                    text,
                    "insert rule {place} {side} \"{interface}\" counter accept comment \"{MARK}{interface}\""
                );
            }
        }
    }
    text
}

fn bridged(judge: &Judge, interface: &str, bridge: &str) -> String {
    let place = judge.place();
    format!(
        "another firewall drops what {interface} sends within the bridge {bridge} (chain {} of table {} {}, which bridges show their \
         packets to): let it pass with `nft insert rule {place} iifname {bridge} oifname {bridge} counter accept`, or spare \
         bridges with `sysctl net.bridge.bridge-nf-call-iptables=0`",
        judge.chain.name, judge.chain.family, judge.chain.table
    )
}

fn sentence(judge: &Judge, interface: &str) -> String {
    let Chain {
        family,
        table,
        name,
        ..
    } = &judge.chain;
    let forward = judge.chain.hook.as_deref() == Some("forward");
    let what = if forward {
        "what crosses the host"
    } else {
        "what asks the host for names"
    };
    let owner = judge.owner.as_ref().map_or("", |chain| chain.name.as_str());
    let way = match (owner, table.as_str(), forward) {
        ("ufw-user-forward", ..) => {
            format!("`ufw route allow in on {interface}; ufw route allow out on {interface}`")
        }
        ("ufw-user-input", ..) => format!("`ufw allow in on {interface}`"),
        (_, "firewalld", _) => format!(
            "`firewall-cmd --permanent --zone=trusted --add-interface={interface}; firewall-cmd --reload`"
        ),
        (_, "filter", true) if family == "ip" => {
            let chain = if owner.is_empty() { name } else { owner };
            format!(
                "`iptables -I {chain} -i {interface} -j ACCEPT; iptables -I {chain} -o {interface} -j ACCEPT`"
            )
        }
        (_, "filter", false) if family == "ip" => {
            format!("`iptables -I {name} -i {interface} -j ACCEPT`")
        }
        (_, _, true) => format!(
            "`nft insert rule {family} {table} {name} iifname {interface} accept; \
             nft insert rule {family} {table} {name} oifname {interface} accept`"
        ),
        (_, _, false) => {
            format!("`nft insert rule {family} {table} {name} iifname {interface} accept`")
        }
    };
    let ours = if forward {
        ", or foreign_firewall = \"open\" in the daemon's settings, which does so"
    } else {
        ""
    };
    format!(
        "another firewall drops {what} from {interface} (chain {name} of table {family} {table}, none of whose rules names it): \
         let it pass with {way}{ours}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::spec;

    fn closed(chain: &str, owner: Option<&str>, hook: &str, rules: &str) -> Judge {
        let make = |name: &str| Chain {
            family: "ip".into(),
            table: "filter".into(),
            name: name.into(),
            hook: Some(hook.into()),
            policy: Some("drop".into()),
        };
        Judge {
            closed: true,
            chain: make(chain),
            owner: owner.map(make),
            rules: rules::rules(&format!("{{\"nftables\": [{rules}]}}")),
            further: Vec::new(),
        }
    }

    fn rule(chain: &str, handle: u64, side: &str, interface: &str, comment: &str) -> String {
        format!(
            r#"{{"rule": {{"family": "ip", "table": "filter", "chain": "{chain}", "handle": {handle}, "comment": "{comment}",
            "expr": [{{"match": {{"op": "==", "left": {{"meta": {{"key": "{side}"}}}}, "right": "{interface}"}}}},
            {{"counter": {{"packets": 0, "bytes": 0}}}}, {{"accept": null}}]}}}}"#
        )
    }

    fn foreign(chains: Vec<Judge>) -> Foreign {
        Foreign {
            chains,
            bridged: true,
        }
    }

    fn lan() -> State {
        let mut state = State::default();
        let site = ringway_network::Site::default();
        state.create(spec("lan"), &site).unwrap();
        state
    }

    #[test]
    fn what_would_be_dropped_is_told_with_the_way_out() {
        for (chain, owner, hook, way) in [
            (
                "FORWARD",
                None,
                "forward",
                "iptables -I FORWARD -i rw-lan -j ACCEPT; ",
            ),
            (
                "FORWARD",
                Some("DOCKER-USER"),
                "forward",
                "iptables -I DOCKER-USER -i rw-lan",
            ),
            (
                "FORWARD",
                Some("ufw-user-forward"),
                "forward",
                "ufw route allow in on rw-lan; ",
            ),
            (
                "INPUT",
                Some("ufw-user-input"),
                "input",
                "`ufw allow in on rw-lan`",
            ),
        ] {
            let chains = vec![closed(chain, owner, hook, "")];
            let said = foreign(chains).warnings(&lan());
            assert!(said.len() == 1 && said[0].contains(way), "{said:?}");
        }
        let accepts = [
            rule("FORWARD", 1, "iifname", "rw-*", ""),
            rule("FORWARD", 2, "oifname", "rw-lan", ""),
        ];
        let half = vec![closed("FORWARD", None, "forward", &accepts[0])];
        assert_eq!(foreign(half).warnings(&lan()).len(), 1);
        let whole = vec![closed("FORWARD", None, "forward", &accepts.join(","))];
        assert_eq!(foreign(whole).warnings(&lan()).len(), 0);
    }

    #[test]
    fn bridges_that_show_their_packets_are_told_of() {
        let mut state = State::default();
        let office = ringway_api::v1::NetworkSpec {
            kind: Kind::Bridge,
            bridge: Some("br0".parse().unwrap()),
            ..spec("office")
        };
        let site = ringway_network::Site::default();
        state.create(office, &site).unwrap();
        let docker = || closed("FORWARD", Some("DOCKER-USER"), "forward", "");
        let said = foreign(vec![docker()]).warnings(&state);
        let way = "nft insert rule ip filter DOCKER-USER iifname br0 oifname br0 counter accept";
        assert!(said.len() == 1 && said[0].contains(way), "{said:?}");
        assert!(said[0].contains(" rw-office "), "{said:?}");
        let spared = Foreign {
            bridged: false,
            ..foreign(vec![docker()])
        };
        assert_eq!(spared.warnings(&state).len(), 0);
    }

    #[test]
    fn our_rules_are_put_in_once_and_taken_away_with_their_network() {
        let docker = |rules: &[String]| {
            let owner = Some("DOCKER-USER");
            foreign(vec![closed("FORWARD", owner, "forward", &rules.join(","))])
        };
        let insert = |side| {
            format!(
                "insert rule ip filter DOCKER-USER {side} \"rw-lan\" counter accept comment \"ringway rw-lan\"\n"
            )
        };
        let both = insert("iifname") + &insert("oifname");
        assert_eq!(docker(&[]).opening(&["rw-lan"]), [both.as_str()]);
        let there = [
            rule("DOCKER-USER", 7, "iifname", "rw-lan", "ringway rw-lan"),
            rule("DOCKER-USER", 8, "oifname", "rw-lan", "ringway rw-lan"),
        ];
        assert!(docker(&there).opening(&["rw-lan"]).is_empty());
        assert_eq!(
            docker(&there[..1]).opening(&["rw-lan"]),
            [insert("oifname")]
        );
        let gone = "delete rule ip filter DOCKER-USER handle 7\ndelete rule ip filter DOCKER-USER handle 8\n";
        assert_eq!(docker(&there).opening(&[]), [gone]);
        let mut accepts = docker(&there);
        accepts.chains[0].closed = false;
        assert_eq!(accepts.opening(&["rw-lan"]), [gone]);
        // Of before there was a DOCKER-USER; and somebody else's.
        let moved = [
            rule("FORWARD", 3, "iifname", "rw-lan", "ringway rw-lan"),
            rule("FORWARD", 4, "iifname", "rw-lan", "mine"),
        ];
        let text = docker(&moved).opening(&["rw-lan"]);
        assert_eq!(
            text,
            [format!("delete rule ip filter FORWARD handle 3\n{both}")]
        );
    }
}
