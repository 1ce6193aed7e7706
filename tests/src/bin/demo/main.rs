//! `make demo`: two virtual machines on one `ringway switch`, measured, and removed again.

#![forbid(unsafe_code)]

mod report;
mod screen;
mod supervise;

use std::{panic, process::ExitCode};

use anyhow::{Context, Result, ensure};
use ringway_tests::{
    Guest, Lab,
    iperf::Iperf,
    pair::{A, B, Pair},
    qemu::{self, Accel},
    switch::Statistics,
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
    screen.title("Ringway: two virtual machines on one switch");
    let lab = screen.step("wait until no test runs in this checkout", || {
        Ok((Lab::new("demo")?, String::new()))
    })?;
    let accel = screen.step("find out whether KVM boots a guest here", || {
        let accel = qemu::accel(&lab)?;
        let said = match accel {
            Accel::Kvm => "it does",
            Accel::Tcg => "it does not: the guests are emulated (TCG)",
        };
        Ok((accel, said.into()))
    })?;
    let switch = screen.step("start the switch", || {
        let ports = lab.switch().vhost_user("a", QUEUES);
        let switch = ports.vhost_user("b", QUEUES).start()?;
        let said = format!("process {}, two vhost-user ports", switch.id());
        Ok((switch, said))
    })?;
    let mut pair = screen.step("boot two guests", || {
        let guest = |name| {
            let nic = lab.nic(name).queues(QUEUES);
            lab.guest(name).processors(QUEUES).nic(nic)
        };
        let pair = Pair::boot(switch, guest("a"), guest("b"))?;
        let kernel = pair.a.sh("uname -r")?;
        Ok((pair, format!("Linux {}", kernel.trim())))
    })?;
    screen.picture(&[&address(&pair.a)?, &address(&pair.b)?]);

    let pairs = screen.step("look at the queue pairs", || {
        let pairs = [active_pairs(&pair.a)?, active_pairs(&pair.b)?];
        let said = format!("`ethtool -l`: {} in a, {} in b", pairs[0], pairs[1]);
        Ok((pairs, said))
    })?;
    ensure!(
        pairs == [QUEUES; 2],
        "{QUEUES} queue pairs were set up, the guests use {pairs:?}"
    );
    let rtt = screen.step(&format!("ping {PINGS} times"), || {
        let command = format!("ping -q -A -c {PINGS} -W 5 {B}");
        let rtt = Rtt::parse(&pair.a.sh(&command)?)?;
        ensure!(rtt.lost == 0, "{} pings were lost", rtt.lost);
        Ok((rtt, "every one was answered".into()))
    })?;
    let tcp = |name: &str, from: &Guest, to: &Guest, address: &str| {
        screen.step(name, || {
            let run = Iperf::new(from, to, address);
            let measured = run.seconds(SECONDS).streams(STREAMS).run()?;
            Ok((measured, format!("{:.0} Mbit/s", measured.megabits)))
        })
    };
    let forth = tcp("iperf3, TCP from a to b", &pair.a, &pair.b, B)?;
    let back = tcp("iperf3, TCP from b to a", &pair.b, &pair.a, A)?;
    let statistics = screen.step("read the switch's counters", || {
        // The last frames may still be crossing.
        let agree = |statistics: &Statistics| statistics.check().is_ok();
        let statistics = pair.switch.await_statistics("counters that agree", agree)?;
        let said = "attempted = delivered + dropped".into();
        Ok((statistics, said))
    })?;
    let report = Report {
        accel,
        rtt,
        tcp: [forth, back],
        statistics,
    };
    report.print(screen)?;
    screen.step("shut down", || {
        let Pair { a, b, switch } = pair;
        drop((a, b));
        switch.stop()?;
        Ok(((), "the switch ended with status 0".into()))
    })?;
    screen.blank();
    screen.note("By hand, with one QEMU for each port; the switch prints their command lines:");
    screen.note(
        "  ringway switch --port vhost-user,path=/tmp/a.sock --port vhost-user,path=/tmp/b.sock",
    );
    Ok(())
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
