//! `ringway vm run` with taps of the kernel: QEMU is handed their queues, every model and several queues carry, and nothing stays.

use std::{fs, os::unix::fs::PermissionsExt, time::Duration};

use anyhow::{Context, Result, ensure};
use ringway_tests::{
    Daemon, Endpoint, Guest, Lab, Need, Netns,
    emulator::again_if_the_emulator_failed,
    iperf::{Iperf, flows},
    machine::Machines,
    pair::{boot_both, ping},
    stream::BLOCK,
};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(60);
const NO_DEFAULT: &str = "default_network = false";
const NEEDS: [Need; 5] = [
    Need::FullGuest,
    Need::Root,
    Need::Namespaces,
    Need::Program("nft"),
    Need::Program("iperf3"),
];
const GATEWAY: &str = "10.66.0.1";
const HOST: &str = "203.0.113.1";
const MACVTAP: &str = "203.0.113.7";
const OUTSIDE: &str = "203.0.113.2";
/// As many queue pairs has a NIC on a tap that none were asked for.
const PROCESSORS: u16 = 8;

/// What a network might leave on a host.
const PICTURE: &str = "ip -br link | awk '{print $1}' | sort; nft list ruleset";

fn text(value: &Value) -> Result<String> {
    Ok(value.as_str().context("no text")?.to_owned())
}

/// The guest's interface with this address of Ethernet.
fn interface(guest: &Guest, mac: &Value) -> Result<String> {
    let line = format!("basename $(dirname $(grep -il {mac} /sys/class/net/*/address))");
    Ok(guest.sh(&line)?.trim().to_owned())
}

/// Asks for an address, and has it as the only one of the guest's.
fn lease(guest: &Guest, interface: &str) -> Result<String> {
    let printed = guest.sh_for(
        &format!(
            "ip link set {interface} up && udhcpc -i {interface} -s /etc/udhcpc-script -n -q -t 20 -T 1 >&2 && \
             ip -4 -o address show {interface}"
        ),
        LIMIT,
    )?;
    let address = printed.split_whitespace().nth(3).context("no address")?;
    Ok(address.split('/').next().unwrap_or_default().to_owned())
}

fn give_back(guest: &Guest, interface: &str) -> Result<()> {
    guest.sh(&format!(
        "ip address flush dev {interface}; ip link set {interface} down"
    ))?;
    Ok(())
}

/// The processes that have a queue of the tap open.
fn holders(tap: &str) -> Result<Vec<u64>> {
    let line = format!("iff:\t{tap}");
    let mut holders = Vec::new();
    for process in fs::read_dir("/proc")?.flatten() {
        let Ok(id) = process.file_name().to_string_lossy().parse() else {
            continue;
        };
        let descriptors = fs::read_dir(process.path().join("fdinfo"));
        let has_it = descriptors.into_iter().flatten().flatten().any(|entry| {
            fs::read_to_string(entry.path()).is_ok_and(|text| text.lines().any(|it| it == line))
        });
        if has_it {
            holders.push(id);
        }
    }
    Ok(holders)
}

/// Connections both ways until every pair of the NIC has had interrupts both ways.
fn every_pair_carries(
    lab: &Lab,
    one: &Guest,
    nic: &str,
    queues: u16,
    two: &dyn Endpoint,
    addresses: [&str; 2],
) -> Result<()> {
    const ROUNDS: u32 = 8;
    let channels = one.sh(&format!("ethtool -l {nic}"))?;
    let combined = channels.matches(&format!("Combined:\t{queues}\n")).count();
    ensure!(combined == 2, "not {queues} pairs: {channels}");
    for round in 1..=ROUNDS {
        // Processors next to each other send on the same pair if there are fewer of those.
        for processor in (0..PROCESSORS).step_by(usize::from(PROCESSORS / queues)) {
            Iperf::new(one, two, addresses[1])
                .processor(processor)
                .streams(8)
                .bytes(BLOCK)
                .run()?;
        }
        Iperf::new(two, one, addresses[0])
            .streams(16)
            .bytes(BLOCK)
            .run()?;
        let counts = one.interrupts_of(nic, queues)?;
        if counts.iter().flatten().all(|&count| count > 0) {
            lab.report(&format!(
                "all {queues} queue pairs of {nic} carry both ways (round {round})"
            ));
            return Ok(());
        }
        ensure!(round < ROUNDS, "after {ROUNDS} rounds: {counts:?}");
    }
    Ok(())
}

#[test]
fn machines_of_every_model_run_on_taps_and_leave_nothing() -> Result<()> {
    again_if_the_emulator_failed(machines_on_taps)
}

fn machines_on_taps() -> Result<()> {
    let Some(lab) = Lab::with("vm-taps", &NEEDS)? else {
        return Ok(());
    };
    let (host, outside) = (Netns::new()?, Netns::new()?);
    host.sh(&format!(
        "ip link add nic0 type veth peer name out1 netns {} && \
         ip address add {HOST}/24 dev nic0 && ip link set nic0 up",
        outside.id()
    ))?;
    outside.sh(&format!(
        "ip address add {OUTSIDE}/24 dev out1 && ip link set out1 up"
    ))?;
    let before = host.sh(PICTURE)?;
    let daemon = Daemon::configured(&lab, &host, NO_DEFAULT)?;
    daemon.ringway(&format!("net create lan --subnet {GATEWAY}/24"))?;
    daemon.ringway("net create phys --kind bridge --bridge nic0")?;
    let machines = Machines::new(&lab);
    let nets = format!(
        "--cpus {PROCESSORS} --timeout 1 --net lan,path=tap --net lan,model=e1000 --net lan,model=e1000e \
         --net lan,model=igb --net lan,path=tap,queues=2 --net lan,path=tap,queues=1 --net phys,path=macvtap,queues=2"
    );
    let one = machines.guest("one", "full", &nets)?.within(&host);
    let two = machines.guest("two", "cloud", "--timeout 1 --net lan")?;
    let (mut one, mut two) = boot_both(one, two.within(&host))?;

    let shown = machines.json("show one")?;
    let nics = shown["machine"]["nics"].as_array().context("no NICs")?;
    let qemu = shown["pid"].as_u64().context("no process")?;
    for name in ["one", "one-2", "one-5"] {
        let port = daemon.json(&format!("port show lan {name}"))?;
        ensure!(port["connected"] == true, "{port}");
        let holders = holders(&text(&port["tap"])?)?;
        ensure!(holders == [qemu], "{holders:?} hold the tap of {qemu}");
    }
    let peer = lease(&two, "eth0")?;
    for (nic, driver) in nics.iter().zip([
        "virtio_net",
        "e1000",
        "e1000e",
        "igb",
        "virtio_net",
        "virtio_net",
    ]) {
        let name = interface(&one, &nic["mac"])?;
        let found = one.sh(&format!(
            "basename $(readlink /sys/class/net/{name}/device/driver)"
        ))?;
        ensure!(found.trim() == driver, "{name} is {found}, not {driver}");
        let address = lease(&one, &name)?;
        let leases = daemon.ringway("lease list")?;
        ensure!(
            leases.contains(&address) && leases.contains(&peer),
            "{leases}"
        );
        ping(&one, GATEWAY, 20)?;
        ping(&one, &peer, 20)?;
        ping(&two, &address, 20)?;
        for (client, server, to) in [(&one, &two, &peer), (&two, &one, &address)] {
            let measured = Iperf::new(client, server, to).bytes(8 << 20).run()?;
            ensure!(flows(&measured), "{driver}: {measured:?}");
            lab.report(&format!(
                "{driver} on a tap, {} to vhost-user {}: {:.0} Mbit/s",
                client.name(),
                server.name(),
                measured.megabits
            ));
        }
        let queues = u16::try_from(nic["queues"].as_u64().context("no queues")?)?;
        if queues > 1 {
            every_pair_carries(&lab, &one, &name, queues, &two, [&address, &peer])?;
        }
        give_back(&one, &name)?;
    }

    // The macvtap: everything on that network but the host.
    let name = interface(&one, &nics[6]["mac"])?;
    one.configure(&name, &format!("{MACVTAP}/24"))?;
    ping(&one, OUTSIDE, 20)?;
    every_pair_carries(&lab, &one, &name, 2, &outside, [MACVTAP, OUTSIDE])?;
    ensure!(one.run(&format!("busybox ping -c 2 -W 1 {HOST}"))?.status != 0);

    // A QEMU that somebody else starts is told the name; a macvtap has none that it would know.
    let arguments = |net: &str| {
        daemon.ringway(&format!(
            "vm args --kernel /dev/null --name five --net {net}"
        ))
    };
    let printed = arguments("lan,path=tap,queues=2")?;
    for part in [
        "-netdev tap,id=n0,ifname=rt-five-",
        ",queues=2 ",
        "vectors=6",
    ] {
        ensure!(printed.contains(part), "{part} is not in {printed}");
    }
    daemon.ringway("port delete lan five")?;
    let refused = arguments("phys,path=macvtap").unwrap_err().to_string();
    ensure!(
        refused.contains("`ringway vm run` hands it over"),
        "{refused}"
    );

    daemon.ringway("port create lan five --path tap --queues 2")?;
    let refused = arguments("lan,model=igb").unwrap_err().to_string();
    ensure!(
        refused.contains("with 2 queues, and model=igb has one"),
        "{refused}"
    );
    daemon.ringway("port delete lan five")?;

    // QEMU is killed: what was made for it goes, and the other machine stays.
    let supervisor = machines.supervisor("one")?;
    let qemu = Pid::from_raw(i32::try_from(qemu)?).context("no process")?;
    kill_process(qemu, Signal::KILL)?;
    machines.await_end(&supervisor)?;
    ensure!(!one.process().wait(LIMIT)?.success());
    let said = fs::read_to_string(lab.log("one.qemu"))?;
    ensure!(
        said.contains("one: QEMU ended (signal: 9 (SIGKILL))"),
        "{said}"
    );
    let ports = daemon.json("port list")?;
    ensure!(
        ports.as_array().is_some_and(|ports| ports.len() == 1),
        "{ports}"
    );
    let links = host.sh("ip -br link")?;
    ensure!(!links.contains("rt-") && !links.contains("rwb-"), "{links}");
    ping(&two, GATEWAY, 5)?;

    // Stopped by a command, and by Ctrl-C.
    let gone = || -> Result<()> {
        let links = host.sh("ip -br link")?;
        ensure!(!links.contains("rt-") && !links.contains("rwb-"), "{links}");
        Ok(())
    };
    let detached = |options: &str| -> Result<String> {
        let words = machines.boot("three", &format!("--detach {options}"))?;
        let quoted: Vec<String> = words.iter().map(|word| format!("'{word}'")).collect();
        daemon.ringway(&quoted.join(" "))
    };
    // A QEMU without any right.
    let powerless = lab.path("powerless");
    fs::write(
        &powerless,
        "#!/bin/sh\nexec setpriv --bounding-set=-all --inh-caps=-all -- ${QEMU:-qemu-system-x86_64} \"$@\"\n",
    )?;
    fs::set_permissions(&powerless, fs::Permissions::from_mode(0o700))?;
    detached(&format!(
        "--qemu {} --net lan,path=tap,queues=2 --net phys,path=macvtap",
        powerless.display()
    ))?;
    ensure!(host.sh("ip -br link")?.contains("rt-three-"));
    let shown = machines.json("show three")?;
    let status = fs::read_to_string(format!("/proc/{}/status", shown["pid"]))?;
    ensure!(status.contains("CapEff:\t0000000000000000\n"), "{status}");
    machines.ringway(&machines.words("stop three --force"))?;
    gone()?;
    // Where the kernel has no vhost-net, that is said, and nothing stays either.
    let outcome = detached("--net lan,path=vhost-net");
    if fs::exists("/dev/vhost-net")? {
        outcome?;
        machines.ringway(&machines.words("stop three --force"))?;
    } else {
        let refused = outcome.unwrap_err().to_string();
        ensure!(refused.contains("modprobe vhost_net"), "{refused}");
    }
    gone()?;
    let mut four = machines
        .guest("four", "cloud", "--timeout 1 --net lan,path=tap")?
        .within(&host)
        .start()?;
    let supervisor = machines.supervisor("four")?;
    four.process().signal(Signal::INT)?;
    machines.await_end(&supervisor)?;
    ensure!(four.process().wait(LIMIT)?.success());
    gone()?;
    let supervisor = machines.supervisor("two")?;
    two.process().signal(Signal::INT)?;
    machines.await_end(&supervisor)?;
    ensure!(daemon.json("port list")? == json!([]), "a port stayed");
    ensure!(machines.left()? == [""; 0], "{:?}", machines.left()?);
    daemon.ringway("net delete phys")?;
    daemon.ringway("net delete lan --force")?;
    let after = host.sh(PICTURE)?;
    ensure!(after == before, "before:\n{before}\nafter:\n{after}");
    Ok(())
}
