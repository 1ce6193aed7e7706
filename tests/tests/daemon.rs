//! The daemon with what it finds on a host, and a client that is none of ours: busybox's udhcpc in a namespace of its own, at a tap of
//! the network; dig; ping to an outside that knows nothing of the network.

use std::{fs, os::unix::fs::PermissionsExt, time::Duration};

use anyhow::{Context, Result, ensure};
use ringway_tests::{Endpoint, Lab, Need, Netns, daemon::Daemon};

const LIMIT: Duration = Duration::from_secs(60);
const OUTSIDE: &str = "203.0.113.2";
/// The default network is the first one.
const VLAN: u16 = 1;
const INTERFACE: &str = "rw-default";

const NEEDS: [Need; 5] = [
    Need::Root,
    Need::Namespaces,
    Need::Program("nft"),
    Need::Program("busybox"),
    Need::Program("dig"),
];

/// What udhcpc runs: the lease is put on the interface and printed.
const SCRIPT: &str = r#"#!/bin/sh
[ "$1" = bound ] || exit 0
ip address replace "$ip/$mask" dev "$interface"
ip route replace default via "$router"
echo "bound $ip $dns $domain $lease"
"#;

/// A host with a daemon, a guest and an outside.
struct House {
    host: Netns,
    guest: Netns,
    outside: Netns,
}

impl House {
    fn new() -> Result<Self> {
        let house = Self {
            host: Netns::new()?,
            guest: Netns::new()?,
            outside: Netns::new()?,
        };
        house.host.sh(&format!(
            "ip link add out0 type veth peer name out1 netns {} && \
             ip address add 203.0.113.1/24 dev out0 && ip link set out0 up",
            house.outside.id()
        ))?;
        house.outside.sh(&format!(
            "ip address add {OUTSIDE}/24 dev out1 && ip link set out1 up"
        ))?;
        Ok(house)
    }

    /// The gateway's address.
    fn gateway(&self) -> Result<String> {
        let line = self
            .host
            .sh(&format!("ip -4 -o address show {INTERFACE}"))?;
        let network = line.split_whitespace().nth(3).context("no address")?;
        Ok(network.split('/').next().unwrap_or_default().to_owned())
    }

    fn dig(&self, from: &Netns, gateway: &str, what: &str) -> Result<String> {
        let answer = run(
            from,
            &format!("dig +short +timeout=2 +tries=3 @{gateway} {what}"),
        )?;
        Ok(answer.trim().to_owned())
    }
}

/// Runs a command line to its end, which has to come.
fn run(place: &Netns, line: &str) -> Result<String> {
    place.start(line)?.success(LIMIT)
}

/// An address by DHCP; gives it.
fn lease(lab: &Lab, guest: &Netns) -> Result<String> {
    let script = lab.path("script");
    fs::write(&script, SCRIPT)?;
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755))?;
    let said = run(
        guest,
        &format!(
            "busybox udhcpc -i guest0 -f -q -n -t 10 -T 1 -x hostname:web -s {}",
            script.display()
        ),
    )?;
    let line = said
        .lines()
        .find_map(|line| line.strip_prefix("bound "))
        .with_context(|| format!("no lease: {said}"))?;
    let words: Vec<&str> = line.split(' ').collect();
    ensure!(words[2..] == ["default.ringway", "3600"], "{line}");
    Ok(words[0].to_owned())
}

fn new_tap(name: &str) -> Result<Vec<std::os::fd::OwnedFd>> {
    ringway_host::tap::create_persistent(name, false, None)?;
    old_tap(name)
}

fn old_tap(name: &str) -> Result<Vec<std::os::fd::OwnedFd>> {
    Ok(ringway_host::tap::open(name, 1)?.queues)
}

fn ping(from: &Netns, count: u32) -> Result<()> {
    run(from, &format!("ping -c {count} -i 0.2 -W 5 {OUTSIDE}")).map(drop)
}

#[test]
fn a_client_gets_an_address_names_and_the_way_out() -> Result<()> {
    let Some(lab) = Lab::with("daemon", &NEEDS)? else {
        return Ok(());
    };
    let house = House::new()?;
    let daemon = Daemon::start(&lab, &house.host)?;
    daemon.add_tap(&house.guest, "guest0", VLAN, new_tap)?;
    let gateway = house.gateway()?;
    let address = lease(&lab, &house.guest)?;
    for (what, expected) in [
        ("web.default.ringway", address.as_str()),
        ("web", &address),
        ("+tcp web.default.ringway", &address),
        ("gateway.default.ringway", &gateway),
        (&format!("-x {address}"), "web.default.ringway."),
        ("nobody.default.ringway", ""),
    ] {
        let answer = house.dig(&house.guest, &gateway, what)?;
        ensure!(answer == expected, "{what}: {answer:?}, not {expected:?}");
    }
    ping(&house.guest, 3)?;
    // Nobody outside is answered, even one who knows the way.
    house
        .outside
        .sh(&format!("ip route add {gateway}/32 via 203.0.113.1"))?;
    let asked = house.dig(&house.outside, &gateway, "web.default.ringway");
    ensure!(asked.is_err(), "an open resolver: {asked:?}");
    let list = daemon.ringway("lease list --json")?;
    ensure!(
        list.contains(&address) && list.contains("\"web\""),
        "{list}"
    );
    Ok(())
}

#[test]
fn who_dies_is_followed_and_guests_keep_what_they_have() -> Result<()> {
    let Some(lab) = Lab::with("daemon", &NEEDS)? else {
        return Ok(());
    };
    let house = House::new()?;
    let mut daemon = Daemon::start(&lab, &house.host)?;
    daemon.add_tap(&house.guest, "guest0", VLAN, new_tap)?;
    let gateway = house.gateway()?;
    let address = lease(&lab, &house.guest)?;
    let switch = daemon.switch_id()?;

    // Frames cross while there is no daemon, and while the next one starts.
    let pings = house
        .guest
        .start(&format!("ping -c 30 -i 0.1 -W 5 {OUTSIDE}"))?;
    daemon.kill();
    ping(&house.guest, 3)?;
    daemon.start_again()?;
    pings.success(LIMIT)?;
    ensure!(daemon.switch_id()? == switch, "the switch was not adopted");
    let answer = house.dig(&house.guest, &gateway, "web.default.ringway")?;
    ensure!(answer == address, "the lease is forgotten: {answer:?}");
    ensure!(lease(&lab, &house.guest)? == address, "another address");

    // The switch comes back with its ports; the tap that the test put in is not one of the daemon's.
    house.host.sh(&format!("kill -KILL {switch}"))?;
    daemon.await_message("that the switch is back", |line| {
        line.contains("the switch runs again")
    })?;
    ensure!(daemon.switch_id()? != switch);
    daemon.add_tap(&house.guest, "guest0", VLAN, old_tap)?;
    ping(&house.guest, 3)?;
    ensure!(lease(&lab, &house.guest)? == address, "another address");
    Ok(())
}

#[test]
fn a_flushed_firewall_comes_back_and_what_is_deleted_is_gone() -> Result<()> {
    let Some(lab) = Lab::with("daemon", &NEEDS)? else {
        return Ok(());
    };
    let house = House::new()?;
    let picture =
        "ip -br link | awk '{print $1}' | sort; nft list ruleset; sysctl net.ipv4.ip_forward";
    let before = house.host.sh(picture)?;
    let daemon = Daemon::start(&lab, &house.host)?;
    daemon.add_tap(&house.guest, "guest0", VLAN, new_tap)?;
    lease(&lab, &house.guest)?;
    house.host.sh("nft flush ruleset")?;
    run(
        &house.host,
        "until nft list tables | grep -q 'inet ringway'; do sleep 0.1; done",
    )?;
    ping(&house.guest, 3)?;
    daemon.ringway("net delete default --force")?;
    let after = house.host.sh(picture)?;
    ensure!(after == before, "before:\n{before}\nafter:\n{after}");
    Ok(())
}
