//! Firewalls of others, through which frames of machines pass.

use ringway_host::nft::rules::{Chain, Judge};

use super::{
    Chapter, Fault,
    scene::{Place, places},
};
use crate::command::quoted;

pub(super) const CHAPTER: Chapter = Chapter {
    title: "Firewalls",
    faults: &[CROSSING, BRIDGED],
};

const CROSSING: Fault = Fault {
    name: "forward-dropped",
    seen: &["The guest reaches its gateway, which is the host, and nothing beyond."],
    cause: "A firewall (Docker's, ufw's, firewalld's, somebody's own) drops what crosses the host, and no rule of it lets the machines' \
        network pass. A packet has to pass all tables: what one accepts another may drop.",
    why: "the guest reaches its host and nothing beyond",
    cure: &[
        "nft insert rule ip filter FORWARD iifname LINK counter accept",
        "nft insert rule ip filter FORWARD oifname LINK counter accept",
    ],
    judge: |facts| {
        let mut signs = Vec::new();
        for place in places(facts) {
            let Some(outside) = place.outside() else {
                continue;
            };
            if place.network.forwarding != Some(true) {
                continue;
            }
            let name = &place.link.name;
            for judge in closed(&place) {
                let shut = |key| !judge.may_pass(key, name);
                if shut("iifname") || shut("oifname") {
                    let what = format!(
                        "{} drops what goes between {name} and {}, as none of its rules names {name}",
                        chain(judge),
                        outside.name
                    );
                    signs.push(place.sign(place.link, what, opening(judge, name)));
                }
            }
        }
        signs
    },
};

const BRIDGED: Fault = Fault {
    name: "bridge-filtered",
    seen: &[
        "Machines of one bridge get addresses and do not reach each other, though nothing lies between them.",
    ],
    cause: "Bridges show their IPv4 packets to the host's firewall (`bridge-nf-call-iptables`, which Docker switches on), and that drops \
        what it takes for crossing the host.",
    why: "machines of the same bridge do not reach each other",
    cure: &[
        "sysctl -w net.bridge.bridge-nf-call-iptables=0",
        "# or: nft insert rule ip filter FORWARD iifname BRIDGE oifname BRIDGE counter accept",
    ],
    judge: |facts| {
        let mut signs = Vec::new();
        for place in places(facts) {
            let Some(bridge) = place.bridge() else {
                continue;
            };
            // Where the host is to pass it on besides, one cure is for both.
            let crosses = place.outside().is_some() && place.network.forwarding == Some(true);
            let everywhere = place.network.bridges_filtered == Some(true);
            if crosses || !(everywhere || bridge.nf_call_iptables) {
                continue;
            }
            let name = &place.link.name;
            // The cure is the same for all such chains.
            let shut = |judge: &&Judge| !judge.may_pass("iifname", name);
            if let Some(judge) = closed(&place).find(shut) {
                let what = format!(
                    "{} drops what goes from one port of {name} to another, as bridges show it their packets",
                    chain(judge)
                );
                let mut cure = Vec::new();
                if everywhere {
                    let setting = "net.bridge.bridge-nf-call-iptables=0";
                    cure.push(format!("sysctl -w {setting}"));
                    cure.push(format!(
                        "# to keep it: echo {setting} > /etc/sysctl.d/50-bridges.conf"
                    ));
                }
                if bridge.nf_call_iptables {
                    cure.push(format!(
                        "ip link set {} type bridge nf_call_iptables 0",
                        quoted(name)
                    ));
                }
                let (chain, link) = (written(judge.place()), quoted(name));
                cure.push(format!(
                    "# or, where bridges shall be filtered: nft insert rule {chain} iifname {link} oifname {link} counter accept"
                ));
                signs.push(place.sign(place.link, what, cure));
            }
        }
        signs
    },
};

/// Chains that drop what crosses the host, if no rule says otherwise.
fn closed<'a>(place: &Place<'a>) -> impl Iterator<Item = &'a Judge> {
    let judges = place.network.firewall.iter().flatten();
    judges.filter(|it| it.closed && it.chain.hook.as_deref() == Some("forward"))
}

fn chain(judge: &Judge) -> String {
    let chain = &judge.chain;
    format!(
        "chain {} of table {} {}",
        chain.name, chain.family, chain.table
    )
}

/// Commands that let a link's packets pass both ways, in the words of whose firewall it is, where that would put back its own.
fn opening(judge: &Judge, link: &str) -> Vec<String> {
    let (place, link) = (judge.place(), quoted(link));
    if place.name == "ufw-user-forward" {
        return vec![
            format!("ufw route allow in on {link}"),
            format!("ufw route allow out on {link}"),
        ];
    }
    if place.table == "firewalld" {
        return vec![
            format!("firewall-cmd --permanent --zone=trusted --add-interface={link}"),
            "firewall-cmd --reload".into(),
        ];
    }
    let place = written(place);
    let rule = |side: &str| format!("nft insert rule {place} {side} {link} counter accept");
    vec![
        rule("iifname"),
        rule("oifname"),
        "# to keep it, tell it to what made this chain; networks of Ringway's daemon: foreign_firewall = \"open\" in its settings".into(),
    ]
}

/// A chain as a shell takes it.
fn written(chain: &Chain) -> String {
    [&chain.family, &chain.table, &chain.name]
        .map(|word| quoted(word))
        .join(" ")
}
