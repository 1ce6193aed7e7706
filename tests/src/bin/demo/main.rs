//! `make demo`: two virtual machines on a network of `ringway daemon`, shown, measured, and removed again.

#![forbid(unsafe_code)]

mod house;
mod report;
mod screen;
mod supervise;

use std::{panic, process::ExitCode};

use anyhow::{Context, Result, ensure};
use ringway_tests::{
    Guest, Lab,
    daemon::Daemon,
    iperf::Iperf,
    pair::boot_both,
    qemu::{self, Accel},
};

use house::{
    Ground, HOST, OUTSIDE, Socket, ask_for_address, create_port, fetch, leave, statistics,
};
use report::{Report, Rtt};
use screen::Screen;

/// Queue pairs of each guest's NIC, and processors of each guest.
const QUEUES: u16 = 2;
const PINGS: u32 = 100;
/// Several, because one stream stays on one queue pair.
const STREAMS: u16 = 4;
const SECONDS: u32 = 5;

fn main() -> ExitCode {
    if !supervise::is_inside() {
        return supervise::run();
    }
    // What goes wrong is said in one place and in one form; a panic carries what a process said at its end.
    panic::set_hook(Box::new(|info| {
        Screen::new().failure(info.payload_as_str().unwrap_or("the demo panicked"));
    }));
    let screen = Screen::new();
    match show(&screen) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            screen.failure(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn show(screen: &Screen) -> Result<()> {
    screen
        .title("Ringway: two virtual machines on a network with addresses, names and the way out");
    let lab = screen.step("wait until no test runs in this checkout", || {
        Ok((Lab::new("demo")?, String::new()))
    })?;
    let accel = screen.step("find out whether KVM boots a guest here", || {
        let accel = qemu::accel(&lab)?;
        let said = match accel {
            Accel::Kvm => "it does",
            Accel::Tcg => "it does not: they are emulated (TCG)",
        };
        Ok((accel, said.into()))
    })?;
    let ground = screen.step("make a host and an outside for it", || {
        let said = "two namespaces; yours stays as it is";
        Ok((Ground::new()?, said.into()))
    })?;
    let before = ground.picture()?;
    let daemon = screen.step("$ ringway daemon", || {
        let daemon = Daemon::start(&lab, &ground.host)?;
        let said = format!("switch {}, network `default`", daemon.switch_id()?);
        Ok((daemon, said))
    })?;
    let ports = screen.step("$ ringway port create default a  (and b)", || {
        let ports = [
            create_port(&daemon, "a", QUEUES)?,
            create_port(&daemon, "b", QUEUES)?,
        ];
        Ok((ports, "two vhost-user sockets".into()))
    })?;
    let (a, b) = screen.step("boot two guests", || {
        let guest = |name, port: &Socket| {
            let nic = port.nic(QUEUES);
            lab.guest(name).processors(QUEUES).nic(nic)
        };
        let (a, b) = boot_both(guest("a", &ports[0]), guest("b", &ports[1]))?;
        let kernel = a.sh("uname -r")?;
        Ok(((a, b), format!("Linux {}", kernel.trim())))
    })?;
    show_network(screen, &ground, &daemon, &a, &b)?;
    let report = measure(screen, &daemon, accel, &a, &b)?;
    report.print(screen)?;
    screen.step("$ ringway net delete default --force", || {
        drop((a, b));
        leave(&ground, daemon, &before)?;
        Ok(((), "the host is as it was before".into()))
    })?;
    screen.blank();
    screen.note(
        "By hand, as root: `ringway daemon`, then `ringway port create default vm1`, which prints",
    );
    screen.note("the QEMU command line. Without a daemon: `ringway switch --help`.");
    Ok(())
}

/// Addresses, names, the way out and the way in.
fn show_network(
    screen: &Screen,
    ground: &Ground,
    daemon: &Daemon<'_>,
    a: &Guest,
    b: &Guest,
) -> Result<()> {
    let address_of_b = screen.step("ask for addresses by DHCP, in the guests", || {
        let [first, second] = [ask_for_address(a)?, ask_for_address(b)?];
        let said = format!("{first} and {second}");
        Ok((second, said))
    })?;
    screen.picture(&[&address(a)?, &address(b)?]);
    screen.step("ping b by its name, in a", || {
        let said = a.sh("ping -c 3 -i 0.2 -W 5 b")?;
        let line = said.lines().next().unwrap_or_default();
        let wanted = format!("PING b.default.ringway ({address_of_b})");
        ensure!(line.starts_with(&wanted), "another b: {line}");
        Ok(((), format!("b.default.ringway is {address_of_b}")))
    })?;
    screen.step("fetch a page from outside, in a", || {
        let page = fetch(a, OUTSIDE)?;
        // The outside sees the host.
        ensure!(page == format!("hello, {HOST}"), "another page: {page}");
        Ok(((), format!("{page:?}: through NAT")))
    })?;
    let forward = format!("$ ringway forward add default 8080 {address_of_b}:80");
    screen.step(&forward, || {
        b.sh("mkdir -p /tmp/www && echo 'hello from b' >/tmp/www/index.html && busybox httpd -p 80 -h /tmp/www")?;
        daemon.ringway(forward.strip_prefix("$ ringway ").unwrap_or(&forward))?;
        let page = ground.fetch(8080)?;
        ensure!(page == "hello from b", "another page: {page}");
        Ok(((), format!("fetched from outside: {page:?}")))
    })?;
    screen.blank();
    screen.note("$ ringway lease list");
    for line in daemon.ringway("lease list")?.lines() {
        screen.note(line);
    }
    screen.blank();
    Ok(())
}

fn measure(
    screen: &Screen,
    daemon: &Daemon<'_>,
    accel: Accel,
    a: &Guest,
    b: &Guest,
) -> Result<Report> {
    let pairs = screen.step("look at the queue pairs", || {
        let pairs = [active_pairs(a)?, active_pairs(b)?];
        let said = format!("`ethtool -l`: {} in a, {} in b", pairs[0], pairs[1]);
        Ok((pairs, said))
    })?;
    ensure!(
        pairs == [QUEUES; 2],
        "{QUEUES} queue pairs were set up, the guests use {pairs:?}"
    );
    let rtt = screen.step(&format!("ping {PINGS} times"), || {
        // BusyBox waits a second for an answer, iputils some milliseconds.
        let command = format!("busybox ping -q -A -c {PINGS} -W 5 b");
        let rtt = Rtt::parse(&a.sh(&command)?)?;
        ensure!(rtt.lost == 0, "{} pings were lost", rtt.lost);
        Ok((rtt, "every one was answered".into()))
    })?;
    let tcp = |name: &str, from: &Guest, to: &Guest| {
        screen.step(name, || {
            let run = Iperf::new(from, to, to.name());
            let measured = run.seconds(SECONDS).streams(STREAMS).run()?;
            Ok((measured, format!("{:.0} Mbit/s", measured.megabits)))
        })
    };
    let forth = tcp("iperf3, TCP from a to b", a, b)?;
    let back = tcp("iperf3, TCP from b to a", b, a)?;
    let statistics = screen.step("$ ringway stats", || {
        let said = "attempted = delivered + dropped".into();
        Ok((statistics(daemon)?, said))
    })?;
    ensure!(
        statistics.attempted == statistics.delivered + statistics.dropped,
        "counters disagree: {statistics:?}"
    );
    Ok(Report {
        accel,
        rtt,
        tcp: [forth, back],
        statistics,
    })
}

/// The guest's own view of its card.
fn address(guest: &Guest) -> Result<String> {
    let text = guest.sh("ip -brief link show eth0; ip -brief address show eth0")?;
    let words: Vec<&str> = text.split_whitespace().collect();
    let mac = words.get(2).context("no MAC address")?;
    let address = words.last().context("no address")?;
    Ok(format!("guest {}  eth0  {mac}  {address}", guest.name()))
}

/// What `ethtool -l` shows as current.
fn active_pairs(guest: &Guest) -> Result<u16> {
    let text = guest.sh("ethtool -l eth0")?;
    let current = text.lines().rev().find(|line| line.contains("Combined:"));
    let number = current.and_then(|line| line.split_whitespace().last());
    number
        .with_context(|| format!("no queue pairs in {text:?}"))?
        .parse()
        .with_context(|| format!("no number in {text:?}"))
}
