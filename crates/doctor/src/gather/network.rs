//! Network namespaces.

use std::{fs, os::unix::fs::MetadataExt, path::Path};

use ringway_host::{
    ethtool, netns,
    nft::{NftError, rules},
    survey,
};

use crate::{
    Facts,
    facts::{Holder, Machine, Network},
};

/// The table of networks of ours.
const OURS: &str = "inet ringway";

/// The number of the network namespace of a process, or of `self`.
pub(super) fn namespace(process: impl std::fmt::Display) -> Option<u64> {
    let link = fs::metadata(format!("/proc/{process}/ns/net"));
    link.ok().map(|it| it.ino())
}

/// The network namespace of who looks, and those of machines.
pub(super) fn networks(facts: &mut Facts) {
    let own = Network {
        id: namespace("thread-self"),
        ..look(&mut facts.unseen)
    };
    let mut networks = vec![own];
    for machine in &facts.machines {
        let Machine {
            pid: Some(pid),
            namespace: Some(id),
            ..
        } = machine
        else {
            continue;
        };
        if networks.iter().any(|known| known.id == Some(*id)) {
            continue;
        }
        let mut unseen = Vec::new();
        match netns::within(*pid, || look(&mut unseen)) {
            Ok(network) => networks.push(Network {
                id: Some(*id),
                entrance: Some(*pid),
                ..network
            }),
            Err(error) => unseen.push(format!(
                "the network namespace of {}: {error}; root may enter it",
                machine.name
            )),
        }
        facts.unseen.append(&mut unseen);
    }
    facts.networks = networks;
}

/// The namespace of the calling thread.
fn look(unseen: &mut Vec<String>) -> Network {
    let links = survey::links().unwrap_or_else(|error| {
        unseen.push(format!("links: {error}"));
        Vec::new()
    });
    let routes = survey::routes().unwrap_or_else(|error| {
        unseen.push(format!("routes: {error}"));
        Vec::new()
    });
    let firewall = rules::judges_in_full(OURS).map_err(|error| match error {
        NftError::Missing(_) => unseen.push("firewalls: nft is not installed".into()),
        other => unseen.push(format!("firewalls: {other}")),
    });
    let strict = |name: &str| number(&format!("ipv4/conf/{name}/rp_filter"));
    let everywhere = strict("all");
    let named = links.iter().map(|link| link.name.as_str());
    let switched_off = named.clone().filter_map(|name| {
        let off = ethtool::switched_off(name).ok()?;
        (!off.is_empty()).then(|| (name.to_owned(), off))
    });
    Network {
        forwarding: number("ipv4/ip_forward").map(|it| it != 0),
        // Where the module is not loaded nothing of the kind is done.
        bridges_filtered: Some(number("bridge/bridge-nf-call-iptables") == Some(1)),
        // The higher one counts (Documentation/networking/ip-sysctl.rst).
        strict: everywhere.map(|all| {
            let strict = named
                .clone()
                .filter(|name| strict(name).unwrap_or(0).max(all) == 1);
            strict.map(str::to_owned).collect()
        }),
        firewall: firewall.ok(),
        switched_off: switched_off.collect(),
        routes,
        links,
        ..Network::default()
    }
}

/// A number of `/proc/sys/net`, which shows the namespace of the thread that reads.
fn number(name: &str) -> Option<u32> {
    let text = fs::read_to_string(Path::new("/proc/sys/net").join(name)).ok()?;
    text.trim().parse().ok()
}

/// Who has taps open, as far as that may be seen.
pub(super) fn holders() -> Vec<Holder> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    let mut found = Vec::new();
    for entry in entries.flatten() {
        let Some(pid) = entry
            .file_name()
            .to_str()
            .and_then(|it| it.parse::<i32>().ok())
        else {
            continue;
        };
        let proc = entry.path();
        let mut taps: Vec<String> = queues(&proc)
            .filter_map(|number| tap(&proc, number))
            .collect();
        taps.sort();
        taps.dedup();
        found.extend(taps.into_iter().map(|tap| {
            Holder {
                tap,
                pid,
                name: fs::read_to_string(proc.join("comm"))
                    .unwrap_or_default()
                    .trim()
                    .to_owned(),
                namespace: namespace(pid),
            }
        }));
    }
    found.sort_by_key(|holder| holder.pid);
    found
}

/// Descriptors that are queues of taps.
fn queues(proc: &Path) -> impl Iterator<Item = i32> {
    let entries = fs::read_dir(proc.join("fd"));
    let entries = entries.into_iter().flatten().flatten();
    entries.filter_map(|entry| {
        let target = fs::read_link(entry.path()).ok()?;
        let number = entry.file_name().to_str()?.parse().ok()?;
        (target == Path::new("/dev/net/tun")).then_some(number)
    })
}

/// The tap whose queue a descriptor is (drivers/net/tun.c, tun_chr_show_fdinfo).
pub(super) fn tap(proc: &Path, number: i32) -> Option<String> {
    let info = fs::read_to_string(proc.join(format!("fdinfo/{number}"))).ok()?;
    let name = info
        .lines()
        .find_map(|line| line.strip_prefix("iff:"))?
        .trim();
    (!name.is_empty()).then(|| name.to_owned())
}
