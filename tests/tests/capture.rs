//! `ringway capture` as people use it, read by Wireshark's own programs.

use anyhow::{Result, ensure};
use ringway_tests::{Daemon, Endpoint, Lab, Need, Netns};
use std::{path::Path, time::Duration};

const LIMIT: Duration = Duration::from_secs(60);
const NEEDS: [Need; 5] = [
    Need::Root,
    Need::Namespaces,
    Need::Program("ping"),
    Need::Program("tshark"),
    Need::Program("capinfos"),
];
const GATEWAY: &str = "10.66.0.1";

fn tap(name: &str) -> Result<Vec<std::os::fd::OwnedFd>> {
    ringway_host::tap::create_persistent(name, false, None)?;
    Ok(ringway_host::tap::open(name, 1)?.queues)
}

/// Runs a command line to its end, which has to come.
fn run(place: &Netns, line: &str) -> Result<String> {
    place.start(line)?.success(LIMIT)
}

/// What tshark says of the pings in a file: interface, direction and comment of each.
fn pings(place: &Netns, file: &Path) -> Result<Vec<String>> {
    let fields = "-e frame.interface_name -e frame.packet_flags_direction -e frame.comment";
    let text = run(
        place,
        &format!(
            "tshark -r {} -Y icmp -T fields {fields} 2>/dev/null",
            file.display()
        ),
    )?;
    let directions = |line: &str| {
        line.replace("\t0x00000001\t", " in ")
            .replace("\t0x00000002\t", " out ")
    };
    Ok(text.lines().map(directions).collect())
}

#[test]
fn a_capture_shows_both_directions_and_leaves_nothing_behind() -> Result<()> {
    let Some(lab) = Lab::with("capture", &NEEDS)? else {
        return Ok(());
    };
    let (host, guest) = (Netns::new()?, Netns::new()?);
    let daemon = Daemon::configured(&lab, &host, "default_network = false")?;
    daemon.ringway(&format!("net create lan --subnet {GATEWAY}/24"))?;
    daemon.ringway("port create lan web")?;
    daemon.add_tap(&guest, "guest0", 1, tap)?;
    guest.sh("ip address add 10.66.0.9/24 dev guest0")?;
    let ringway = format!(
        "RINGWAY_SOCKET={} exec {}",
        daemon.socket(),
        ringway_tests::switch::binary()?.display()
    );
    // Its process id is in `log`.pid, and it captures once this returns.
    let begin = |arguments: &str, log: &str| {
        let log = lab.path(log).display().to_string();
        let job = host.start(&format!(
            "echo $$ >{log}.pid; {ringway} {arguments} 2>{log}"
        ))?;
        run(
            &host,
            &format!("until grep -qE 'capturing|tracing' {log}; do sleep 0.05; done"),
        )?;
        anyhow::Ok(job)
    };

    // Of the daemon, at the gateway until Ctrl-C; of the switch, at the guest's tap, into a pipe.
    let gateway = lab.path("gateway.pcapng");
    let first = begin(
        &format!("capture rw-lan --pcap {}", gateway.display()),
        "first",
    )?;
    let piped = lab.path("guest.pcapng");
    let control = daemon.control();
    let second = begin(
        &format!(
            "capture guest0 --control {} --seconds 5 --pcap - >{}",
            control.display(),
            piped.display()
        ),
        "second",
    )?;
    // The same as lines.
    let lines = lab.path("lines");
    let traced = begin(
        &format!("trace rw-lan --count 3 arp or icmp >{}", lines.display()),
        "traced",
    )?;
    run(&guest, &format!("ping -c 3 -i 0.2 {GATEWAY}"))?;
    traced.success(LIMIT)?;
    let lines = std::fs::read_to_string(lines)?;
    let mut parts = [
        ["rw-lan out", "Request who-has", "<- guest0, service arp"],
        ["rw-lan in ", "Reply 10.66.0.1", "-> guest0, service arp ("],
        ["rw-lan out", "ICMP echo request", "<- guest0"],
    ]
    .into_iter();
    ensure!(
        lines.lines().all(|line| {
            let mut parts = parts.next().into_iter().flatten();
            parts.all(|part| line.contains(part))
        }) && parts.next().is_none(),
        "{lines}"
    );
    let learned = daemon.ringway("stats --addresses")?;
    ensure!(
        learned.starts_with("PORT") && learned.contains("\nguest0 ") && learned.contains("rw-lan"),
        "{learned}"
    );
    let addresses = daemon.json("stats --addresses rw-lan")?;
    ensure!(
        addresses["learned"] == 1 && addresses["addresses"][0]["vlan"] == 1,
        "{addresses}"
    );
    run(
        &host,
        &format!("kill -INT $(cat {})", lab.path("first.pid").display()),
    )?;
    first.success(LIMIT)?;
    second.success(LIMIT)?;
    let three = |one: [&'static str; 2]| [one; 3].concat();
    let found = pings(&host, &gateway)?;
    ensure!(
        found == three(["rw-lan out from guest0", "rw-lan in to guest0"]),
        "{found:#?}"
    );
    let found = pings(&host, &piped)?;
    ensure!(
        found == three(["guest0 in to rw-lan", "guest0 out from rw-lan"]),
        "{found:#?}"
    );
    let about = run(&host, &format!("capinfos {}", gateway.display()))?;
    for part in ["Number of interfaces in file: 1", "Name = rw-lan"] {
        ensure!(about.contains(part), "{about}");
    }
    let said = std::fs::read_to_string(lab.path("first"))?;
    ensure!(said.contains("captured, none missed"), "{said}");

    // One that is killed is gone from the switch although nothing crosses the port.
    let switch = daemon.switch_id()?;
    let killed = begin(
        &format!("capture web --pcap {}", gateway.display()),
        "third",
    )?;
    let threads = format!("/proc/{switch}/task/*/comm");
    run(&host, &format!("grep -qx pcap {threads}"))?;
    run(
        &host,
        &format!("kill -KILL $(cat {})", lab.path("third.pid").display()),
    )?;
    ensure!(killed.wait(LIMIT)?.status != 0);
    run(
        &host,
        &format!("while grep -qx pcap {threads}; do sleep 0.05; done"),
    )?;

    // A port that goes ends its captures, and that is said.
    let cut = begin(
        &format!("capture lan/web --pcap {}", gateway.display()),
        "fourth",
    )?;
    daemon.ringway("port delete lan web")?;
    ensure!(cut.wait(LIMIT)?.status == 1);
    let said = std::fs::read_to_string(lab.path("fourth"))?;
    ensure!(said.contains("port lan/web was removed"), "{said}");

    let file = gateway.display().to_string();
    let capture = ["capture", "mail", "--pcap", &file, "--socket"];
    let socket = daemon.socket();
    let words = [&capture[..], &[&socket]].concat();
    lab.attempt(&words)
        .refused()?
        .says(1, &["no port mail", "ringway port list"])
}

#[test]
fn frames_are_for_those_who_may_change_things() -> Result<()> {
    let Some(lab) = Lab::with("capture-peers", &NEEDS)? else {
        return Ok(());
    };
    let host = Netns::new()?;
    let daemon = Daemon::configured(&lab, &host, "group = '65534'")?;
    let socket = daemon.socket();
    let words = ["capture", "rw-default", "--pcap", "-", "--socket", &socket];
    lab.attempt(&words)
        .unprivileged()
        .refused()?
        .says(1, &["user 65534", "only root"])
}
