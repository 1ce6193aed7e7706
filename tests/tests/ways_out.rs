//! How networks meet the world and each other, with programs that know nothing of Ringway: iperf3, socat, ping, busybox's DHCP.

use std::{os::fd::OwnedFd, thread, time::Duration};

use anyhow::{Context, Result, ensure};
use ringway_tests::{
    Daemon, Endpoint, Lab, Need,
    house::{HOST, House, Member, OUTSIDE, ask, run, serve},
    iperf::Iperf,
};

const LIMIT: Duration = Duration::from_secs(60);
const NO_DEFAULT: &str = "default_network = false";

const NEEDS: [Need; 7] = [
    Need::Root,
    Need::Namespaces,
    Need::Program("nft"),
    Need::Program("busybox"),
    Need::Program("dig"),
    Need::Program("iperf3"),
    Need::Program("socat"),
];

fn tap(name: &str) -> Result<Vec<OwnedFd>> {
    ringway_host::tap::create_persistent(name, false, None)?;
    Ok(ringway_host::tap::open(name, 1)?.queues)
}

#[test]
fn segments_cross_whole_and_connections_outlive_the_daemon() -> Result<()> {
    let Some(lab) = Lab::with("ways-out-nat", &NEEDS)? else {
        return Ok(());
    };
    let house = House::new()?;
    let mut daemon = Daemon::configured(&lab, &house.host, NO_DEFAULT)?;
    daemon.ringway("net create lan")?;
    let guest = Member::settled(&daemon, "lan", "guest0", 10, tap)?;
    // What the gateway carries, counted by the host's own kernel.
    house.host.sh("nft add table inet watch && \
         nft 'add chain inet watch in { type filter hook prerouting priority raw; }' && \
         nft 'add rule inet watch in iifname rw-lan meta length > 1600 counter'")?;
    let measured = Iperf::new(&guest.place, &house.outside, OUTSIDE)
        .seconds(3)
        .start()?;
    daemon.kill();
    daemon.start_again()?;
    let measured = measured.finish()?;
    ensure!(measured.bytes > 1 << 20, "{measured:?}");
    let long = house.host.sh("nft list chain inet watch in")?;
    ensure!(
        !long.contains("packets 0 "),
        "no segment crossed whole: {long}"
    );
    let back = Iperf::new(&guest.place, &house.outside, OUTSIDE)
        .reverse()
        .seconds(1);
    let back = back.start()?.finish()?;
    lab.report(&format!(
        "{:.0} Mbit/s out over a restart of the daemon, {:.0} Mbit/s in",
        measured.megabits, back.megabits
    ));
    Ok(())
}

#[test]
fn no_frame_is_lost_while_the_daemon_is_killed_and_another_one_starts() -> Result<()> {
    let Some(lab) = Lab::with("ways-out-kill", &NEEDS)? else {
        return Ok(());
    };
    let house = House::new()?;
    let mut daemon = Daemon::configured(&lab, &house.host, NO_DEFAULT)?;
    daemon.ringway("net create lan")?;
    let a = Member::settled(&daemon, "lan", "guest0", 10, tap)?;
    let b = Member::settled(&daemon, "lan", "guest1", 11, tap)?;
    for to in [OUTSIDE, &b.address] {
        run(&a.place, &format!("ping -c 1 -W 5 {to}"))?;
    }
    let ping = |to: &str| {
        a.place
            .start(&format!("ping -q -i 0.002 -c 1500 -W 2 {to}"))
    };
    let pings = [ping(OUTSIDE)?, ping(&b.address)?];
    let switch = daemon.switch_id()?;
    // Ctrl-C at the daemon's terminal is for the daemon's process group alone.
    let group = run(&house.host, &format!("ps -o pgid= -p {switch}"))?;
    ensure!(group.trim() == switch.to_string(), "{group}");
    for _ in 0..2 {
        daemon.kill();
        daemon.start_again()?;
    }
    for ping in pings {
        let said = ping.success(LIMIT)?;
        ensure!(said.contains("1500 received"), "{said}");
        let summary = said.lines().find(|line| line.contains("received"));
        lab.report(summary.unwrap_or_default());
    }
    ensure!(daemon.switch_id()? == switch, "the switch was not adopted");
    Ok(())
}

#[test]
fn forwards_lead_to_a_guest_from_everywhere_and_end() -> Result<()> {
    let Some(lab) = Lab::with("ways-out-forward", &NEEDS)? else {
        return Ok(());
    };
    let house = House::new()?;
    house.host.sh("ip address add 203.0.113.9/24 dev out0")?;
    let daemon = Daemon::configured(&lab, &house.host, NO_DEFAULT)?;
    daemon.ringway("net create lan")?;
    let web = Member::settled(&daemon, "lan", "guest0", 10, tap)?;
    let other = Member::settled(&daemon, "lan", "guest1", 11, tap)?;
    let mut servers = Vec::new();
    for (protocol, port) in [("TCP", 80), ("TCP", 7001), ("TCP", 9012), ("UDP", 53)] {
        servers.push(serve(&web.place, protocol, port, &format!("web{port}"))?);
    }
    let to = &web.address;
    let mut ids = Vec::new();
    for line in [
        format!("8080 {to}:80"),
        format!("7000-7002 {to}"),
        format!("9000-9019 {to}:9010"),
        format!("5353 {to}:53 --protocol udp"),
        format!("53 {to} --protocol udp"),
        format!("8081 {to}:80 --listen 203.0.113.9"),
    ] {
        let made = daemon.json(&format!("forward add lan {line}"))?;
        ids.push(made["id"].as_u64().context("no id")?);
    }
    for (protocol, at, said) in [
        ("TCP", "203.0.113.1:8080", "web80"),
        ("TCP", "203.0.113.1:7001", "web7001"),
        ("TCP", "203.0.113.1:9002", "web9012"),
        ("UDP", "203.0.113.1:5353", "web53"),
        ("UDP", "203.0.113.1:53", "web53"),
        ("TCP", "203.0.113.9:8081", "web80"),
    ] {
        // Whoever comes from outside is seen as who it is.
        let answer = ask(&house.outside, protocol, at)?;
        ensure!(answer == format!("{said} {OUTSIDE}"), "{at}: {answer}");
        for from in [&house.host, &web.place, &other.place] {
            let answer = ask(from, protocol, at)?;
            ensure!(answer.starts_with(said), "{at}: {answer}");
        }
    }
    // The network's own resolver is none of what is forwarded.
    let gateway = daemon.json("net show lan")?["gateway"].clone();
    let gateway = gateway.as_str().context("no gateway")?;
    for from in [&house.host, &web.place, &other.place] {
        let line = format!("dig +short +timeout=2 @{gateway} gateway.lan.ringway");
        ensure!(run(from, &line)?.trim() == gateway, "{line}");
    }
    for (protocol, at) in [
        ("TCP", "203.0.113.1:8081"),
        ("TCP", "203.0.113.1:7003"),
        ("UDP", "203.0.113.1:8080"),
    ] {
        let answer = ask(&house.outside, protocol, at);
        ensure!(answer.is_err(), "{at}: {answer:?}");
    }

    // A client that keeps its port: what was translated once is no way in afterwards.
    let same = "203.0.113.1:5353,sourceport=4000,reuseaddr";
    ask(&house.outside, "UDP", same)?;
    for id in &ids {
        daemon.ringway(&format!("forward delete lan {id}"))?;
    }
    for (protocol, at) in [
        ("TCP", "203.0.113.1:8080"),
        ("UDP", "203.0.113.1:5353"),
        ("UDP", same),
    ] {
        let answer = ask(&house.outside, protocol, at);
        ensure!(answer.is_err(), "{at} goes on: {answer:?}");
    }
    ensure!(
        !house
            .host
            .sh("nft list table inet ringway")?
            .contains("dnat ip")
    );
    drop(servers);
    Ok(())
}

#[test]
fn networks_are_apart_and_each_kind_meets_the_world_in_its_way() -> Result<()> {
    let Some(lab) = Lab::with("ways-out-kinds", &NEEDS)? else {
        return Ok(());
    };
    let house = House::new()?;
    let daemon = Daemon::configured(&lab, &house.host, NO_DEFAULT)?;
    daemon.ringway("net create lan --subnet 10.66.1.0/24")?;
    daemon.ringway("net create dmz --subnet 10.66.2.0/24")?;
    daemon.ringway("net create quiet --subnet 10.66.3.0/24 --kind isolated")?;
    daemon.ringway("net create open --subnet 10.66.4.0/24 --kind routed")?;
    let lan = Member::settled(&daemon, "lan", "lan0", 10, tap)?;
    let dmz = Member::settled(&daemon, "dmz", "dmz0", 10, tap)?;
    let open = Member::settled(&daemon, "open", "open0", 10, tap)?;
    let mut quiet = Member::bare(&daemon, "quiet", "quiet0", tap)?;
    let mut calm = Member::bare(&daemon, "quiet", "quiet1", tap)?;

    // An isolated network gives addresses and names, no router, and its guests reach each other.
    let [address, dns, router] = quiet.lease(&lab)?;
    calm.lease(&lab)?;
    ensure!(
        dns == "10.66.3.1" && router.is_empty(),
        "{address} {dns} {router}"
    );
    let named = run(
        &quiet.place,
        "dig +short +timeout=2 @10.66.3.1 gateway.quiet.ringway",
    )?;
    ensure!(named.trim() == "10.66.3.1", "{named}");
    reaches(&quiet, &calm.address)?;
    // Even who sets a route of its own.
    quiet.place.sh("ip route add default via 10.66.3.1")?;

    house
        .outside
        .sh(&format!("ip route add 10.66.0.0/16 via {HOST}"))?;
    let mut servers = vec![serve(&house.outside, "TCP", 80, "outside")?];
    for guest in [&lan, &dmz, &open, &quiet] {
        servers.push(serve(&guest.place, "TCP", 80, "guest")?);
    }
    servers.push(serve(&house.host, "TCP", 81, "host")?);

    // Outwards: as the host, as oneself, not at all.
    for (guest, seen) in [(&lan, HOST), (&dmz, HOST), (&open, &open.address)] {
        let answer = ask(&guest.place, "TCP", &format!("{OUTSIDE}:80"))?;
        ensure!(answer == format!("outside {seen}"), "{answer}");
    }
    // Inwards: where there is a route, only to the network that is routed; the host reaches all.
    let answer = ask(&house.outside, "TCP", "10.66.4.10:80")?;
    ensure!(answer == format!("guest {OUTSIDE}"), "{answer}");
    for guest in [&lan, &dmz, &open, &quiet] {
        ask(&house.host, "TCP", &format!("{}:80", guest.address))?;
    }
    for guest in [&lan, &dmz, &quiet] {
        let answer = ask(&house.outside, "TCP", &format!("{}:80", guest.address));
        ensure!(
            answer.is_err(),
            "{} from outside: {answer:?}",
            guest.address
        );
    }
    let answer = ask(&quiet.place, "TCP", &format!("{OUTSIDE}:80"));
    ensure!(answer.is_err(), "isolated, but {answer:?}");

    // From one to another: neither guests nor what the host has there, but at the own gateway it answers.
    let all = [(&lan, 1), (&dmz, 2), (&quiet, 3), (&open, 4)];
    thread::scope(|scope| {
        let apart = all.map(|(guest, own)| scope.spawn(move || apart(guest, own, &all)));
        apart
            .into_iter()
            .try_for_each(|task| task.join().ok().context("it panicked")?)
    })?;
    // Nor as somebody else.
    lan.place.sh("ip address add 10.99.0.1/32 dev lo")?;
    let borrowed = run(
        &lan.place,
        &format!("ping -c 1 -W 1 -I 10.99.0.1 {OUTSIDE}"),
    );
    ensure!(borrowed.is_err(), "a borrowed address got out");
    drop(servers);
    Ok(())
}

/// Whether `guest` of network `own` reaches the host in its own network and nothing in those of the others.
fn apart(guest: &Member, own: u8, all: &[(&Member, u8)]) -> Result<()> {
    ask(&guest.place, "TCP", &format!("10.66.{own}.1:81"))?;
    reaches(guest, &format!("10.66.{own}.1"))?;
    for (other, number) in all.iter().filter(|(_, number)| *number != own) {
        for address in [other.address.clone(), format!("10.66.{number}.1")] {
            let ping = run(&guest.place, &format!("ping -c 1 -W 1 {address}"));
            ensure!(ping.is_err(), "{} reaches {address}", guest.address);
            for port in [80, 81] {
                let answer = ask(&guest.place, "TCP", &format!("{address}:{port}"));
                ensure!(
                    answer.is_err(),
                    "{} {address}:{port} {answer:?}",
                    guest.address
                );
            }
        }
        let name = format!("dig +short +timeout=1 +tries=1 @10.66.{number}.1 gateway.lan.ringway");
        ensure!(
            run(&guest.place, &name).is_err(),
            "{} {name}",
            guest.address
        );
    }
    Ok(())
}

fn reaches(guest: &Member, address: &str) -> Result<()> {
    run(&guest.place, &format!("ping -c 1 -W 5 {address}")).map(drop)
}

#[test]
fn a_bridge_network_is_the_bridges_own() -> Result<()> {
    let Some(lab) = Lab::with("ways-out-bridge", &NEEDS)? else {
        return Ok(());
    };
    let house = House::new()?;
    let daemon = Daemon::configured(&lab, &house.host, NO_DEFAULT)?;
    house
        .host
        .sh("ip link add br0 type bridge && ip link set br0 up")?;
    // Somebody on the bridge who gives addresses.
    house.outside.sh(&format!(
        "ip link add port1 type veth peer name port0 netns {} && \
         ip address add 10.77.0.1/24 dev port1 && ip link set port1 up",
        house.host.id()
    ))?;
    house.host.sh("ip link set port0 master br0 up")?;
    std::fs::write(
        lab.path("udhcpd.conf"),
        format!(
            "start 10.77.0.50\nend 10.77.0.60\ninterface port1\nlease_file {0}\npidfile {0}.pid\n\
             option subnet 255.255.255.0\noption router 10.77.0.1\noption dns 10.77.0.1\n",
            lab.path("udhcpd.leases").display()
        ),
    )?;
    std::fs::write(lab.path("udhcpd.leases"), "")?;
    let server = house.outside.keep(
        "udhcpd",
        &format!(
            "exec busybox udhcpd -f {}",
            lab.path("udhcpd.conf").display()
        ),
    )?;
    daemon.ringway("net create office --kind bridge --bridge br0")?;
    let mut guest = Member::bare(&daemon, "office", "guest0", tap)?;
    let [address, dns, router] = guest.lease(&lab)?;
    ensure!(
        address.starts_with("10.77.0.5") && dns == "10.77.0.1" && router == "10.77.0.1",
        "{address} {dns} {router}"
    );
    reaches(&guest, "10.77.0.1")?;
    let ours = house
        .host
        .sh("ip -4 -o address show rw-office; ss -Hlnu; ss -Hln0; nft list tables")?;
    ensure!(ours.trim().is_empty(), "{ours}");
    let lists = daemon.ringway("net show office")?;
    ensure!(lists.contains("left to the bridge's network"), "{lists}");
    daemon.ringway("net delete office")?;
    let left = house.host.sh("ip -o link show master br0")?;
    ensure!(
        !left.contains("rw-office") && left.contains("port0"),
        "{left}"
    );
    drop(server);
    Ok(())
}
