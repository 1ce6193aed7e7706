//! What a host and a switch are: two pictures are equal if a daemon left the one as another left the other.

use std::{fs, path::Path, time::Duration};

use anyhow::{Context, Result, ensure};
use ringway_api::control::Client;
use serde_json::Value;

use crate::{Daemon, Netns};

/// What the kernel says of a network namespace: links, addresses, routes, rules, settings, sockets.
pub fn host(netns: &Netns) -> Result<String> {
    let mut lines = links(&netns.sh("ip -j address")?)?;
    lines.push(netns.sh(
        "ip route; nft -s list ruleset; sysctl net.ipv4.ip_forward; \
         for f in /proc/sys/net/ipv6/conf/*/disable_ipv6; do echo $f $(cat $f); done; \
         (ss -Hanu4; ss -Hlnt4; ss -Han0) | awk '{ print $1, $2, $5, $6 }' | sort",
    )?);
    Ok(lines.join("\n"))
}

/// All of it: the host, what the daemon says, what its switch has, and the files beside their sockets.
pub fn all(netns: &Netns, daemon: &Daemon<'_>) -> Result<String> {
    let mut text = host(netns)?;
    for what in ["net list", "port list", "lease list", "forward list"] {
        text.push_str(&format!("{what}: {}\n", daemon.json(what)?));
    }
    let control = daemon.control();
    let mut ports: Vec<String> = Client::connect(&control, Duration::from_secs(10))?
        .ports()?
        .into_iter()
        .map(|port| port.spec.to_string())
        .collect();
    ports.sort();
    let run = control.parent().context("no directory")?;
    let mut files = Vec::new();
    list(run, &mut files)?;
    files.sort();
    Ok(format!(
        "{text}{}\n{}\n",
        ports.join("\n"),
        files.join("\n")
    ))
}

/// Compares two; says the lines that differ.
pub fn same(expected: &str, found: &str) -> Result<()> {
    let missing = |from: &str, other: &str| -> Vec<String> {
        let there: Vec<&str> = other.lines().collect();
        let lines = from.lines().filter(|line| !there.contains(line));
        lines.map(str::to_owned).collect()
    };
    let (lost, added) = (missing(expected, found), missing(found, expected));
    ensure!(
        expected == found,
        "missing:\n{}\ntoo much:\n{}",
        lost.join("\n"),
        added.join("\n")
    );
    Ok(())
}

/// Every interface without its number, and without what the kernel changes by itself.
fn links(json: &str) -> Result<Vec<String>> {
    let links: Vec<Value> = serde_json::from_str(json)?;
    let mut lines: Vec<String> = links
        .iter()
        .map(|link| {
            let up = link["flags"]
                .as_array()
                .is_some_and(|f| f.contains(&"UP".into()));
            let addresses = link["addr_info"].as_array().into_iter().flatten();
            let addresses: Vec<String> = addresses
                .filter(|address| address["scope"] != "link")
                .map(|address| format!("{}/{}", address["local"], address["prefixlen"]))
                .collect();
            format!(
                "{} {} mtu {} master {} up {up} {addresses:?}",
                link["ifname"], link["address"], link["mtu"], link["master"]
            )
        })
        .collect();
    lines.sort();
    Ok(lines)
}

fn list(folder: &Path, files: &mut Vec<String>) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        files.push(path.display().to_string());
        if path.is_dir() {
            list(&path, files)?;
        }
    }
    Ok(())
}
