//! `ringway dump`: what a guest sends as it boots, on the screen and in a file for other programs.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};
use ringway_tests::{Lab, Need, dump::Dump};

#[test]
fn a_booting_guest_is_seen_asking_for_an_address() -> Result<()> {
    let needs = [Need::Guests, Need::Program("tcpdump")];
    let Some(lab) = Lab::with("dump", &needs)? else {
        return Ok(());
    };
    let socket = lab.path("a");
    let pcap = lab.log("dump.pcap");
    let mac = "52:00:00:00:00:0a";
    let mut dump = Dump::start(&lab, &socket, &["--pcap", &pcap.display().to_string()])?;
    let guest = lab
        .guest("a")
        .nic(lab.nic("a").mac(mac))
        .append("ringway.dhcp=eth0")
        .start()?;

    let line = dump.await_line("a DHCP discover", |line| line.contains("DHCP Discover"))?;
    for part in [
        format!(" {mac} > ff:ff:ff:ff:ff:ff, "),
        ": 0.0.0.0.68 > 255.255.255.255.67: ".into(),
        format!("DHCP Discover from {mac}"),
    ] {
        ensure!(line.contains(&part), "no {part:?} in {line}");
    }
    lab.report(&line);
    let first = dump.await_line("bytes", |line| line.starts_with("\t0x0000:"))?;
    ensure!(
        first.starts_with("\t0x0000:  ffff ffff ffff 5200 0000 000a 0800 45"),
        "{first}"
    );
    drop(guest);
    dump.await_message("that the guest left", |line| line.contains("disconnected"))?;
    dump.stop()?;
    ensure!(!socket.exists(), "the socket stayed");
    discovers_in(&pcap, mac, 1)
}

#[test]
fn a_dump_ends_after_so_many_frames() -> Result<()> {
    let Some(lab) = Lab::with("dump-count", &[Need::Guests, Need::Program("tcpdump")])? else {
        return Ok(());
    };
    let socket = lab.path("a");
    let pcap = lab.log("dump.pcap");
    let options = ["--count", "2", "--pcap", &pcap.display().to_string()];
    let dump = Dump::start(&lab, &socket, &options)?;
    let mac = "52:00:00:00:00:0b";
    let _guest = lab
        .guest("a")
        .nic(lab.nic("a").mac(mac).packed())
        .append("ringway.dhcp=eth0")
        .start()?;
    let printed = dump.finished()?;
    let frames = printed.iter().filter(|line| line.contains(" > ")).count();
    ensure!(frames == 2, "{printed:?}");
    ensure!(!socket.exists(), "the socket stayed");
    discovers_in(&pcap, mac, 2)
}

/// tcpdump opens the file and finds `count` frames or more, every one whole.
fn discovers_in(pcap: &Path, mac: &str, count: usize) -> Result<()> {
    let output = Command::new("tcpdump")
        .args(["-n", "-e", "-v", "-r"])
        .arg(pcap)
        .stdin(Stdio::null())
        .output()
        .context("cannot start tcpdump")?;
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let discovers = text
        .matches("DHCP-Message (53), length 1: Discover")
        .count();
    ensure!(discovers >= count, "{discovers} of {count}: {text}");
    ensure!(
        text.contains(mac) && !text.contains("bad udp cksum"),
        "{text}"
    );
    ensure!(fs::metadata(pcap)?.len() > 0);
    Ok(())
}
