//! Network namespaces.

use std::{fs, os::unix::fs::MetadataExt, path::Path};

use ringway_host::{netns, survey};

use crate::{
    Facts,
    facts::{Holder, Machine, Network},
};

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
    Network {
        links,
        ..Network::default()
    }
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
