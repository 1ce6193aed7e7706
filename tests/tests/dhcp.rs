//! DHCP as the clients that people have see it, none of which is ours.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::fd::OwnedFd,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use ringway_tests::{
    Daemon, Endpoint, Lab, Need, Netns, Nic,
    dhcp::{Client, Event, KINDS, Kind},
    lab,
};

const LIMIT: Duration = Duration::from_secs(30);
/// The only network is the first one.
const VLAN: u16 = 1;

const NEEDS: [Need; 5] = [
    Need::Root,
    Need::Namespaces,
    Need::Program("busybox"),
    Need::Program("dhclient"),
    Need::Program("dhcpcd"),
];

fn new_tap(name: &str) -> Result<Vec<OwnedFd>> {
    ringway_host::tap::create_persistent(name, false, None)?;
    old_tap(name)
}

fn old_tap(name: &str) -> Result<Vec<OwnedFd>> {
    Ok(ringway_host::tap::open(name, 1)?.queues)
}

/// A daemon with one network, `lan`, of this description (TOML).
fn daemon<'a>(lab: &'a Lab, host: &'a Netns, network: &str) -> Result<Daemon<'a>> {
    let daemon = Daemon::configured(lab, host, "default_network = false")?;
    let file = lab.path("lan.toml");
    fs::write(&file, format!("[[network]]\nname = 'lan'\n{network}"))?;
    daemon.ringway(&format!("net apply {}", file.display()))?;
    Ok(daemon)
}

/// Who has which address, by name, as the daemon tells.
fn leases(daemon: &Daemon<'_>) -> Result<Vec<(String, String, u64)>> {
    let list = daemon.json("lease list")?;
    let list = list.as_array().context("no list")?.iter();
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let leases = list.map(|lease| {
        (
            text(&lease["name"]),
            text(&lease["address"]),
            lease["expires"].as_u64().unwrap_or(0),
        )
    });
    Ok(leases.collect())
}

/// Waits for something that only asking again can tell.
fn until(what: &str, so: impl Fn() -> Result<bool>) -> Result<()> {
    let end = Instant::now() + LIMIT;
    while !so()? {
        ensure!(Instant::now() < end, "{what}: not within {LIMIT:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

/// What a client has to be told.
fn check(kind: Kind, event: &Event) -> Result<()> {
    let routes = match kind {
        Kind::Dhclient => "25 192 0 2 128 10 66 0 7 0 10 66 0 1",
        _ => "192.0.2.128/25 10.66.0.7 0.0.0.0/0 10.66.0.1",
    };
    for (key, expected) in [
        ("router", "10.66.0.1"),
        ("dns", "10.66.0.1"),
        ("domain", "lan.ringway"),
        ("search", "lan.ringway"),
        ("routes", routes),
        ("mtu", "1400"),
        ("host", kind.name()),
        ("seconds", "20"),
    ] {
        let value = event.get(key).map(|value| value.trim_end_matches(". "));
        ensure!(
            value.map(|value| value.trim_end_matches('.')) == Some(expected),
            "{key} of {}: {event:?}",
            kind.name()
        );
    }
    Ok(())
}

#[test]
fn clients_get_everything_and_keep_it_over_restarts() -> Result<()> {
    let Some(lab) = Lab::with("dhcp-clients", &NEEDS)? else {
        return Ok(());
    };
    let host = Netns::new()?;
    let mut daemon = daemon(
        &lab,
        &host,
        "subnet = '10.66.0.0/24'\nmtu = 1400\n[network.dhcp]\nlease_seconds = 20\n\
         routes = [{ to = '192.0.2.128/25', via = '10.66.0.7' }]\n",
    )?;
    let places = KINDS.map(|_| Netns::new());
    let mut clients = Vec::new();
    for (kind, place) in KINDS.into_iter().zip(places) {
        let place = place?;
        daemon.add_tap(&place, "guest0", VLAN, new_tap)?;
        clients.push((Client::start(&lab, &place, kind)?, place, String::new()));
    }

    for (client, place, address) in &mut clients {
        let event = client.await_event(&["bound"], LIMIT)?;
        check(client.kind(), &event)?;
        event["address"].clone_into(address);
        let there = place.sh("ip -4 -br address show guest0")?;
        ensure!(there.contains(&format!("{address}/24")), "{there}");
        if client.kind() == Kind::Dhcpcd {
            let routes = place.sh("ip -4 route")?;
            ensure!(
                routes.contains("default via 10.66.0.1")
                    && routes.contains("192.0.2.128/25 via 10.66.0.7"),
                "{routes}"
            );
        }
    }
    let addresses: BTreeSet<_> = clients.iter().map(|(.., address)| address).collect();
    ensure!(addresses.len() == clients.len(), "{addresses:?}");
    let first = leases(&daemon)?;
    for (client, _, address) in &clients {
        let name = client.kind().name();
        ensure!(
            first.iter().any(|(n, a, _)| n == name && a == address),
            "{name}: {first:?}"
        );
    }

    // Both die; the address stays, and is renewed by who comes after them.
    daemon.kill();
    daemon.start_again()?;
    host.sh(&format!("kill -KILL {}", daemon.switch_id()?))?;
    daemon.await_message("that the switch is back", |line| {
        line.contains("the switch runs again")
    })?;
    for (_, place, _) in &clients {
        daemon.add_tap(place, "guest0", VLAN, old_tap)?;
    }
    for (client, _, address) in &mut clients {
        // The tap had no carrier while there was no switch; dhcpcd minds, and asks whether its address holds (INIT-REBOOT).
        let event = match client.kind() {
            Kind::Dhcpcd => "bound",
            _ => "renewed",
        };
        let event = client.await_event(&[event], LIMIT)?;
        check(client.kind(), &event)?;
        ensure!(event["address"] == *address, "{event:?}");
    }
    let second = leases(&daemon)?;
    for ((name, address, before), (.., after)) in first.iter().zip(&second) {
        ensure!(
            after > before,
            "{name} at {address} did not renew: {second:?}"
        );
    }

    for (client, ..) in &mut clients {
        client.release()?;
        client.await_event(&["released"], LIMIT)?;
    }
    // Clients tell their script first.
    until("that all are released", || Ok(leases(&daemon)?.is_empty()))
}

/// What the services of `lan` counted.
fn counters(daemon: &Daemon<'_>) -> Result<BTreeMap<String, u64>> {
    let stats = daemon.json("stats")?;
    let counters = stats["services"]["lan"].as_object().cloned();
    Ok(counters
        .unwrap_or_default()
        .into_iter()
        .filter_map(|(name, value)| Some((name, value.as_u64()?)))
        .collect())
}

#[test]
fn bad_frames_are_counted_and_good_clients_served() -> Result<()> {
    let needs = [Need::Root, Need::Namespaces, Need::Program("scapy3")];
    let Some(lab) = Lab::with("dhcp-bad", &needs)? else {
        return Ok(());
    };
    let (host, guest) = (Netns::new()?, Netns::new()?);
    let daemon = daemon(&lab, &host, "subnet = '10.66.0.0/24'\n")?;
    daemon.add_tap(&guest, "guest0", VLAN, new_tap)?;
    let before = counters(&daemon)?;
    let script = lab::checkout().join("tests/peers/bad_dhcp.py");
    let said = guest.start(&format!(
        "/usr/bin/python3 {} guest0 10.66.0.1 10.66.0.200 192.0.2.9",
        script.display()
    ))?;
    let said: serde_json::Value = serde_json::from_str(&said.success(LIMIT)?)?;
    let mut after = counters(&daemon)?;
    for (name, count) in before {
        *after.entry(name).or_default() -= count;
    }
    let dhcp = |name: &String| name.starts_with("dhcp_") || name.starts_with("arp_");
    after.retain(|name, count| dhcp(name) && *count > 0);
    let expected: BTreeMap<String, u64> = serde_json::from_value(said["expected"].clone())?;
    ensure!(after == expected, "counted {after:?}, not {expected:?}");
    let list = leases(&daemon)?;
    ensure!(
        list.iter()
            .any(|(_, address, _)| said["address"] == *address),
        "{list:?}"
    );
    Ok(())
}

/// Runs perfdhcp in `guest` for clients of its own; what it reported.
fn perfdhcp(guest: &Netns, arguments: &str) -> Result<String> {
    let job = guest.start(&format!(
        "exec perfdhcp -4 -l guest0 -L 67 -u -W 1000000 {arguments}"
    ))?;
    let output = job.wait(LIMIT)?;
    Ok(output.stdout + &output.stderr)
}

/// The figures of this name in perfdhcp's report: of DISCOVER and OFFER, then of REQUEST and ACK.
fn figures(report: &str, name: &str) -> Result<Vec<u64>> {
    let lines = report.lines().filter_map(|line| line.strip_prefix(name));
    lines
        .map(|value| {
            let number = value.trim_start_matches(':').trim();
            number.parse().with_context(|| format!("{name}: {report}"))
        })
        .collect()
}

#[test]
fn a_thousand_clients_a_second_get_addresses() -> Result<()> {
    let needs = [Need::Root, Need::Namespaces, Need::Program("perfdhcp")];
    let Some(lab) = Lab::with("dhcp-load", &needs)? else {
        return Ok(());
    };
    let (host, guest) = (Netns::new()?, Netns::new()?);
    let daemon = daemon(&lab, &host, "subnet = '10.66.0.0/16'\n")?;
    daemon.add_tap(&guest, "guest0", VLAN, new_tap)?;
    guest.sh("ip address add 10.66.255.254/16 dev guest0")?;
    let seconds: u64 = std::env::var("DHCP_SECONDS").map_or(Ok(3), |text| text.parse())?;
    let report = perfdhcp(
        &guest,
        &format!("-r 1000 -R {} -p {seconds}", seconds * 1100),
    )?;
    fs::write(lab.log("perfdhcp"), &report)?;
    let sent = figures(&report, "sent packets")?;
    let received = figures(&report, "received packets")?;
    let summary = format!("sent {sent:?}, received {received:?} in {seconds} s\n{report}");
    ensure!(sent.len() == 2 && received.len() == 2, "{summary}");
    for wrong in ["rejected leases", "non unique addresses", "orphans"] {
        ensure!(
            figures(&report, wrong)?.iter().sum::<u64>() == 0,
            "{wrong}: {summary}"
        );
    }
    // What perfdhcp itself was too slow to read, its kernel counted; everything else is ours.
    let unread = guest.sh("awk '$1 == \"Udp:\" { n = $6 } END { print n }' /proc/net/snmp")?;
    let lost: u64 = sent
        .iter()
        .zip(&received)
        .map(|(sent, received)| sent - received)
        .sum();
    let summary = format!("unread {unread}, {summary}");
    ensure!(lost <= unread.trim().parse()?, "{summary}");
    // Less than it wanted to send says something about this machine, not about the daemon.
    ensure!(received[1] >= seconds * 500, "{summary}");
    lab.report(&format!("{} exchanges in {seconds} s", received[1]));
    let count = u64::try_from(leases(&daemon)?.len())?;
    ensure!(
        (received[1]..=sent[1]).contains(&count),
        "{count} leases: {summary}"
    );
    Ok(())
}

#[test]
fn a_full_network_says_so_and_lends_again_what_is_given_back() -> Result<()> {
    let needs = [NEEDS.as_slice(), &[Need::Program("perfdhcp")]].concat();
    let Some(lab) = Lab::with("dhcp-full", &needs)? else {
        return Ok(());
    };
    let host = Netns::new()?;
    let mut daemon = daemon(
        &lab,
        &host,
        "subnet = '10.66.0.0/24'\n[network.dhcp]\nrange = ['10.66.0.2', '10.66.0.253']\n",
    )?;
    let (first, crowd, last) = (Netns::new()?, Netns::new()?, Netns::new()?);
    for place in [&first, &crowd, &last] {
        daemon.add_tap(place, "guest0", VLAN, new_tap)?;
    }
    let mut holder = Client::start(&lab, &first, Kind::Udhcpc)?;
    let address = holder.await_event(&["bound"], LIMIT)?["address"].clone();
    crowd.sh("ip address add 10.66.0.254/24 dev guest0")?;
    perfdhcp(&crowd, "-r 500 -R 400 -n 400")?;
    ensure!(leases(&daemon)?.len() == 252, "{:?}", leases(&daemon)?);
    ensure!(daemon.json("net show lan")?["free"] == 0);
    let shown = daemon.ringway("net show lan")?;
    ensure!(
        shown.contains("0: the next client gets no address"),
        "{shown}"
    );
    daemon.await_message("that no address is left", |line| {
        line.contains("network lan: a client got no address") && line.contains("lease list lan")
    })?;
    // Once, however many were refused.
    ensure!(counters(&daemon)?["dhcp_exhausted"] > 100);
    let said = fs::read_to_string(lab.log("daemon.stderr"))?;
    ensure!(said.matches("no address").count() == 1, "{said}");
    let refused = last.start("busybox udhcpc -i guest0 -n -q -f -t 2 -T 1 -s /bin/true")?;
    ensure!(refused.wait(LIMIT)?.status != 0, "a client too many");

    // udhcpc takes its address away at once: what still waits for the gateway's hardware address is never sent.
    first.sh("ping -c 1 -W 5 10.66.0.1")?;
    holder.release()?;
    until("that the address is free", || {
        Ok(daemon.json("net show lan")?["free"] == 1)
    })?;
    let mut next = Client::start(&lab, &last, Kind::Dhclient)?;
    let event = next.await_event(&["bound"], LIMIT)?;
    ensure!(event["address"] == address, "{event:?}");
    ensure!(daemon.json("net show lan")?["free"] == 0);
    Ok(())
}

#[test]
fn systemd_in_a_virtual_machine_gets_everything() -> Result<()> {
    let needs = [Need::Root, Need::Namespaces, Need::Debian];
    let Some(lab) = Lab::with("dhcp-networkd", &needs)? else {
        return Ok(());
    };
    let host = Netns::new()?;
    let mut daemon = daemon(
        &lab,
        &host,
        "subnet = '10.66.0.0/24'\nmtu = 1400\n[network.dhcp]\nlease_seconds = 20\n\
         routes = [{ to = '192.0.2.128/25', via = '10.66.0.7' }]\n",
    )?;
    let port = daemon.json("port create lan vm")?;
    let text = |key: &str| port[key].as_str().context("no port");
    let nic = Nic::vhost_user(text("socket")?).mac(text("mac")?);
    let guest = lab
        .guest("debian")
        .nic(nic)
        .variant("debian")
        .append("net.ifnames=0 systemd.hostname=web")
        .boot()?;
    let said = guest.sh(
        "/lib/systemd/systemd-networkd-wait-online --ipv4 --interface=eth0:routable --timeout=50 && \
         networkctl --no-pager status eth0; ip -4 -br address show eth0; ip -4 route",
    )?;
    let address = daemon.json("lease list")?[0]["address"].clone();
    let address = address.as_str().context("no lease")?;
    for part in [
        &format!("{address}/24"),
        &format!("default via 10.66.0.1 dev eth0 proto dhcp src {address}"),
        "192.0.2.128/25 via 10.66.0.7",
        "DNS: 10.66.0.1",
        "Search Domains: lan.ringway",
        "MTU: 1400",
    ] {
        ensure!(said.contains(part), "no {part} in:\n{said}");
    }
    for name in ["web.lan.ringway", "web"] {
        let found = guest.sh(&format!("resolvectl --no-pager query -4 {name}"))?;
        ensure!(found.contains(address), "{name}: {found}");
    }
    ensure!(
        host.sh(&format!("ping -c 1 -W 5 {address}"))?
            .contains("1 received")
    );

    let expires = |daemon: &Daemon<'_>| -> Result<u64> {
        daemon.json("lease list")?[0]["expires"]
            .as_u64()
            .context("no lease")
    };
    daemon.kill();
    daemon.start_again()?;
    host.sh(&format!("kill -KILL {}", daemon.switch_id()?))?;
    daemon.await_message("that the switch is back", |line| {
        line.contains("the switch runs again")
    })?;
    let before = expires(&daemon)?;
    until("that the lease is renewed", || {
        Ok(expires(&daemon)? > before)
    })?;
    ensure!(leases(&daemon)?[0].1 == address, "another address");
    ensure!(guest.sh("ip -4 -br address show eth0")?.contains(address));
    Ok(())
}
