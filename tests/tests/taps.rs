//! A network with virtual machines on taps of the kernel and on sockets of the switch: one bridge, one DHCP, one way out.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ringway_tests::{Daemon, Endpoint, Guest, Lab, Need, Netns, guest::Nic};

const LIMIT: Duration = Duration::from_secs(60);
const NO_DEFAULT: &str = "default_network = false";
const NEEDS: [Need; 5] = [
    Need::Guests,
    Need::Root,
    Need::Namespaces,
    Need::Program("nft"),
    Need::Program("socat"),
];
const OUTSIDE: &str = "203.0.113.2";
const GATEWAY: &str = "10.66.0.1";

/// What a network might leave on a host.
const PICTURE: &str = "ip -br link | awk '{print $1}' | sort; nft list ruleset";

/// Runs a command line to its end, which has to come.
fn run(place: &Netns, line: &str) -> Result<String> {
    place.start(line)?.success(LIMIT)
}

/// The guest's address, once DHCP has given it one.
fn leased(guest: &Guest) -> Result<String> {
    let line = "until ip -4 -o address show eth0 | grep -q inet; do sleep 0.1; done; ip -4 -o address show eth0";
    let printed = guest.sh_for(line, LIMIT)?;
    let address = printed.split_whitespace().nth(3).context("no address")?;
    Ok(address.split('/').next().unwrap_or_default().to_owned())
}

fn ping(guest: &Guest, to: &str) -> Result<()> {
    guest.sh_for(&format!("ping -c 3 -i 0.2 -W 5 {to}"), LIMIT)?;
    Ok(())
}

#[test]
fn machines_on_taps_and_on_sockets_share_a_network() -> Result<()> {
    let Some(lab) = Lab::with("taps", &NEEDS)? else {
        return Ok(());
    };
    let (host, outside) = (Netns::new()?, Netns::new()?);
    host.sh(&format!(
        "ip link add out0 type veth peer name out1 netns {} && \
         ip address add 203.0.113.1/24 dev out0 && ip link set out0 up",
        outside.id()
    ))?;
    outside.sh(&format!(
        "ip address add {OUTSIDE}/24 dev out1 && ip link set out1 up"
    ))?;
    let before = host.sh(PICTURE)?;
    let mut daemon = Daemon::configured(&lab, &host, NO_DEFAULT)?;
    daemon.ringway(&format!("net create lan --subnet {GATEWAY}/24"))?;
    let port = daemon.json("port create lan one")?;
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let one = lab
        .guest("one")
        .nic(Nic::vhost_user(text(&port["socket"])).mac(&text(&port["mac"])))
        .append("ringway.dhcp=eth0")
        .boot()?;
    let first = leased(&one)?;

    // A connection to the outside, before there is a bridge, while there is one, and after.
    let heard = lab.path("heard");
    let listener = outside.start(&format!(
        "exec timeout 150 socat -u TCP-LISTEN:7000 OPEN:{},creat",
        heard.display()
    ))?;
    run(
        &outside,
        "until ss -tln | grep -q :7000; do sleep 0.1; done",
    )?;
    let talk = one.start(&format!(
        "(for word in before between after; do echo $word; until [ -e /tmp/$word ]; do sleep 0.1; done; done) | nc {OUTSIDE} 7000"
    ))?;
    let said = |word: &str| {
        let line = format!(
            "until grep -q {word} {}; do sleep 0.1; done",
            heard.display()
        );
        run(&outside, &line)
    };
    said("before")?;

    let port = daemon.json("port create lan two --path tap --queues 2 --address 10.66.0.22")?;
    let tap = text(&port["tap"]);
    ensure!(
        tap.starts_with("rt-two-") && port["socket"].is_null() && port["queues"] == 2,
        "{port}"
    );
    let shown = daemon.ringway("port show lan two")?;
    ensure!(
        shown.contains(&format!(
            "-netdev tap,id=n0,ifname={tap},script=no,downscript=no,queues=2"
        )),
        "{shown}"
    );
    one.sh("touch /tmp/before")?;
    said("between")?;
    let connected = |daemon: &Daemon<'_>| -> Result<bool> {
        Ok(daemon.json("port show lan two")?["connected"] == true)
    };
    ensure!(!connected(&daemon)?);

    let two = lab
        .guest("two")
        .nic(Nic::tap(&tap).queues(2).mac(&text(&port["mac"])))
        .append("ringway.dhcp=eth0")
        .within(&host)
        .boot()?;
    ensure!(leased(&two)? == "10.66.0.22");
    ensure!(connected(&daemon)?);
    let leases = daemon.json("lease list")?;
    for address in [&first[..], "10.66.0.22"] {
        ensure!(leases.to_string().contains(address), "{address}: {leases}");
    }
    ping(&one, "10.66.0.22")?;
    ping(&two, &first)?;
    for guest in [&one, &two] {
        ping(guest, GATEWAY)?;
        ping(guest, OUTSIDE)?;
    }

    // Whoever takes another address is heard by nobody.
    two.sh("ip link set eth0 address 52:54:00:66:66:66")?;
    ensure!(two.run(&format!("ping -c 2 -W 1 {GATEWAY}"))?.status != 0);
    two.sh(&format!("ip link set eth0 address {}", text(&port["mac"])))?;
    ping(&two, GATEWAY)?;

    // The next daemon finds everything as it shall be.
    daemon.start_again()?;
    ping(&two, &first)?;
    ping(&one, OUTSIDE)?;

    // With the last tap the bridge goes, and the gateway is where it was.
    drop(two);
    daemon.ringway("port delete lan two")?;
    one.sh("touch /tmp/between")?;
    said("after")?;
    one.sh("touch /tmp/after")?;
    talk.success(LIMIT)?;
    listener.success(LIMIT)?;
    ping(&one, GATEWAY)?;
    let links = host.sh("ip -br address")?;
    ensure!(
        !links.contains("rwb-lan") && !links.contains(&tap),
        "{links}"
    );
    daemon.ringway("net delete lan --force")?;
    let after = host.sh(PICTURE)?;
    ensure!(after == before, "before:\n{before}\nafter:\n{after}");
    Ok(())
}

#[test]
fn a_macvtap_leads_to_an_interface_without_a_bridge() -> Result<()> {
    let Some(lab) = Lab::with("macvtap", &NEEDS[1..])? else {
        return Ok(());
    };
    let (host, outside) = (Netns::new()?, Netns::new()?);
    host.sh(&format!(
        "ip link add nic0 type veth peer name out1 netns {} && ip link set nic0 up",
        outside.id()
    ))?;
    outside.sh(&format!(
        "ip address add {OUTSIDE}/24 dev out1 && ip link set out1 up"
    ))?;
    let before = host.sh(PICTURE)?;
    let daemon = Daemon::configured(&lab, &host, NO_DEFAULT)?;
    let refused = |line: &str, parts: &[&str]| -> Result<()> {
        let socket = daemon.socket();
        let words: Vec<_> = line.split(' ').chain(["--socket", &socket]).collect();
        lab.attempt(&words).refused()?.says(1, parts)
    };
    daemon.ringway("net create phys --kind bridge --bridge nic0")?;
    refused("port create phys a", &["nic0 is no bridge", "macvtap"])?;
    let printed = daemon.ringway("port create phys b --path macvtap --queues 2 --owner 1000")?;
    for part in ["the host itself is not reached", "fds=10:11", "vectors=6"] {
        ensure!(printed.contains(part), "{printed}");
    }
    let port = daemon.json("port show phys b")?;
    let tap = port["tap"].as_str().context("no tap")?.to_owned();
    let link = host.sh(&format!("ip -d link show {tap}"))?;
    for part in [
        "macvtap mode bridge",
        port["mac"].as_str().unwrap_or("-"),
        "UP",
    ] {
        ensure!(link.contains(part), "{link}");
    }
    // Both queues, as a VMM is handed them; what is written to them gets out.
    let (pid, name) = (host.id(), tap.clone());
    let opened = std::thread::spawn(move || -> Result<_> {
        use std::os::fd::AsFd;
        let namespace = std::fs::File::open(format!("/proc/{pid}/ns/net"))?;
        let kind = rustix::thread::LinkNameSpaceType::Network;
        rustix::thread::move_into_link_name_space(namespace.as_fd(), Some(kind))?;
        Ok(ringway_host::tap::open_for_vm(&name, 2)?)
    });
    let queues = opened.join().ok().context("the thread panicked")??;
    ensure!(queues.len() == 2);
    let count = "ip -s link show out1 | awk '/RX:/ { getline; print $2 }'";
    let counted: u64 = run(&outside, count)?.trim().parse()?;
    // The header of virtio-net, 10 bytes unless more is asked for, and a frame for everybody.
    let frame = [&[0; 10][..], &[0xff; 6], &[2; 6], &[0x88, 0xb5], &[0; 46]].concat();
    rustix::io::write(&queues[1], &frame)?;
    run(
        &outside,
        &format!("until [ $({count}) -gt {counted} ]; do sleep 0.05; done"),
    )?;
    drop(queues);
    daemon.ringway("net create lan")?;
    refused(
        "port create lan c --path macvtap",
        &["network lan is on no interface"],
    )?;
    let rate = "port create lan d --path tap --rate 10M";
    refused(rate, &["a rate limit", "--path vhost-user"])?;
    daemon.ringway("net delete lan")?;
    daemon.ringway("net delete phys --force")?;
    let after = host.sh(PICTURE)?;
    ensure!(after == before, "before:\n{before}\nafter:\n{after}");
    Ok(())
}
