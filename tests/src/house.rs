//! A host with an outside, and guests without virtual machines: namespaces at taps of a daemon's networks.

use std::{fs, net::Ipv4Addr, os::fd::OwnedFd, os::unix::fs::PermissionsExt, time::Duration};

use anyhow::{Context, Result, ensure};

use crate::{Daemon, Endpoint, Lab, Netns, Process};

/// The outside's address.
pub const OUTSIDE: &str = "203.0.113.2";
/// The host's, towards the outside.
pub const HOST: &str = "203.0.113.1";
const LIMIT: Duration = Duration::from_secs(60);

/// What udhcpc runs: the lease is put on the interface and printed.
const SCRIPT: &str = r#"#!/bin/sh
[ "$1" = bound ] || exit 0
ip address replace "$ip/$mask" dev "$interface"
[ -z "$router" ] || ip route replace default via "$router"
echo "bound $ip $dns $router"
"#;

/// A host, and an outside that knows nothing of networks behind it.
#[derive(Debug)]
pub struct House {
    /// Where the daemon runs.
    pub host: Netns,
    /// Behind the host's interface `out0`.
    pub outside: Netns,
}

/// A guest.
#[derive(Debug)]
pub struct Member {
    /// Where it is.
    pub place: Netns,
    /// Its interface.
    pub interface: String,
    /// Its address, if it was given one.
    pub address: String,
}

impl House {
    /// Builds one.
    pub fn new() -> Result<Self> {
        let house = Self {
            host: Netns::new()?,
            outside: Netns::new()?,
        };
        house.host.sh(&format!(
            "ip link add out0 type veth peer name out1 netns {} && \
             ip address add {HOST}/24 dev out0 && ip link set out0 up",
            house.outside.id()
        ))?;
        house.outside.sh(&format!(
            "ip address add {OUTSIDE}/24 dev out1 && ip link set out1 up"
        ))?;
        Ok(house)
    }
}

impl Member {
    /// A guest of `network` without an address. `make` makes a tap of that name.
    pub fn bare(
        daemon: &Daemon<'_>,
        network: &str,
        name: &str,
        make: impl FnOnce(&str) -> Result<Vec<OwnedFd>> + Send + 'static,
    ) -> Result<Self> {
        let place = Netns::new()?;
        let shown = daemon.json(&format!("net show {network}"))?;
        let vlan = shown["vlan"].as_u64().context("no VLAN")?;
        daemon.add_tap(&place, name, u16::try_from(vlan)?, make)?;
        Ok(Self {
            place,
            interface: name.to_owned(),
            address: String::new(),
        })
    }

    /// A guest whose address is the network's with `last` at its end, and whose router is the gateway.
    pub fn settled(
        daemon: &Daemon<'_>,
        network: &str,
        name: &str,
        last: u8,
        make: impl FnOnce(&str) -> Result<Vec<OwnedFd>> + Send + 'static,
    ) -> Result<Self> {
        let mut guest = Self::bare(daemon, network, name, make)?;
        let shown = daemon.json(&format!("net show {network}"))?;
        let gateway = shown["gateway"].as_str().context("no gateway")?;
        let [a, b, c, _] = gateway.parse::<Ipv4Addr>()?.octets();
        guest.address = Ipv4Addr::new(a, b, c, last).to_string();
        guest.place.sh(&format!(
            "ip address add {}/24 dev {name} && ip route add default via {gateway}",
            guest.address
        ))?;
        Ok(guest)
    }

    /// Asks for an address with busybox's udhcpc; what it got: address, DNS server, router.
    pub fn lease(&mut self, lab: &Lab) -> Result<[String; 3]> {
        let script = lab.path("script");
        fs::write(&script, SCRIPT)?;
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755))?;
        let said = run(
            &self.place,
            &format!(
                "busybox udhcpc -i {} -f -q -n -t 10 -T 1 -s {}",
                self.interface,
                script.display()
            ),
        )?;
        let line = said.lines().find_map(|line| line.strip_prefix("bound "));
        let line = line.with_context(|| format!("no lease: {said}"))?;
        let mut words = line.split(' ').map(str::to_owned);
        let mut word = || words.next().unwrap_or_default();
        let got = [word(), word(), word()];
        self.address.clone_from(&got[0]);
        Ok(got)
    }
}

/// Runs a command line to its end, which has to come.
pub fn run(place: &Netns, line: &str) -> Result<String> {
    place.start(line)?.success(LIMIT)
}

/// Starts a server in `place`: `protocol` is `TCP` or `UDP`. It says `name` and who asked.
pub fn serve(place: &Netns, protocol: &str, port: u16, name: &str) -> Result<Process> {
    let listen = match protocol {
        "UDP" => format!("UDP-RECVFROM:{port},fork"),
        _ => format!("TCP-LISTEN:{port},fork,reuseaddr"),
    };
    let answer = format!("SYSTEM:'read -r _; echo {name} \\$SOCAT_PEERADDR'");
    let line = format!("exec socat {listen} \"{answer}\"");
    let server = place.keep(name, &line)?;
    let flag = if protocol == "UDP" { "u" } else { "t" };
    run(
        place,
        &format!("until ss -Hln{flag} 'sport = {port}' | grep -q .; do sleep 0.02; done"),
    )?;
    Ok(server)
}

/// What the server at `address` says; fails when nobody answers within two seconds.
pub fn ask(from: &Netns, protocol: &str, address: &str) -> Result<String> {
    let line = match protocol {
        "UDP" => format!("echo hello | socat -t 2 -T 2 - UDP:{address}"),
        _ => format!("socat -T 2 - TCP:{address},connect-timeout=2 </dev/null"),
    };
    let said = run(from, &line)?;
    ensure!(!said.is_empty(), "{protocol} {address} does not answer");
    Ok(said.trim().to_owned())
}
