//! `ringway bench paths` as a person runs it: what it measures was really carried, and nothing stays, however it ends.

use std::{
    collections::BTreeSet,
    fs,
    io::{BufRead, BufReader, Read},
    os::fd::OwnedFd,
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use ringway_tests::{Lab, Need, Process, qemu, switch::binary};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, Signal, pidfd_open},
};
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(60);
const NEEDS: [Need; 3] = [Need::Guests, Need::Namespaces, Need::Program("setpriv")];

/// The command, with the lab for its temporary files.
fn bench(lab: &Lab, line: &str) -> Result<Command> {
    let [kernel, initramfs] = qemu::image("cloud")?;
    let folder = lab.path("tmp");
    fs::create_dir_all(&folder)?;
    let mut command = Command::new(binary()?);
    command
        .args(["bench", "paths", "--queues", "1", "--kernel"])
        .arg(kernel)
        .arg("--initrd")
        .arg(initramfs)
        .args(line.split(' '))
        .env("TMPDIR", folder)
        .stdin(Stdio::null());
    Ok(command)
}

/// Processes that have the lab in their command line, ours excepted.
fn processes(lab: &Lab) -> Result<Vec<OwnedFd>> {
    let folder = lab.path("tmp").display().to_string();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")?.flatten() {
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let id = entry.file_name().to_string_lossy().parse().ok();
        if let Some(id) = id.and_then(Pid::from_raw)
            && String::from_utf8_lossy(&line).contains(&folder)
        {
            found.extend(pidfd_open(id, PidfdFlags::empty()));
        }
    }
    Ok(found)
}

fn links() -> Result<BTreeSet<String>> {
    let entries = fs::read_dir("/sys/class/net")?.flatten();
    Ok(entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect())
}

fn temporary(lab: &Lab) -> Result<Vec<String>> {
    let entries = fs::read_dir(lab.path("tmp"))?.flatten();
    Ok(entries
        .map(|entry| entry.path().display().to_string())
        .collect())
}

#[test]
fn every_row_was_carried_and_what_is_missing_has_a_reason() -> Result<()> {
    let Some(lab) = Lab::with("bench-paths", &NEEDS)? else {
        return Ok(());
    };
    let before = links()?;
    let svg = lab.path("plot.svg");
    let line = format!(
        "--paths vhost-user,tap,macvtap,e1000,vfio,user --quick --seconds 0.3 --json --svg {}",
        svg.display()
    );
    let output = bench(&lab, &line)?.stderr(Stdio::inherit()).output()?;
    ensure!(output.status.success(), "{}", output.status);
    let report: Value = serde_json::from_slice(&output.stdout)?;

    let mut rows = BTreeSet::new();
    for row in report["rows"].as_array().context("no rows")? {
        let text = |field: &str| row[field].as_str().unwrap_or_default().to_owned();
        let median = |figure: &str| row["figures"][figure]["median"].as_f64().unwrap_or(0.0);
        let main = match text("load").as_str() {
            "tcp1" => "gigabits",
            "udp64" => "kiloframes",
            _ => "median",
        };
        for figure in [main, "seconds-per-megaframe", "switches", "wakeups"] {
            ensure!(median(figure) > 0.0, "no {figure} in {row}");
        }
        let sample = &row["samples"][0];
        let count = |field: &str| sample[field].as_u64().unwrap_or(0);
        let payload = match text("load").as_str() {
            "exchange" => count("exchanges"),
            _ => count("bytes"),
        };
        ensure!(count("frames") > 100 && payload > 0, "{row}");
        // Data crosses in frames of at most 64 KiB.
        ensure!(count("bytes") <= count("frames") * 65536, "{row}");
        rows.insert((text("path"), text("load")));
    }
    for path in ["vhost-user", "tap"] {
        for load in ["tcp1", "udp64", "exchange"] {
            ensure!(
                rows.contains(&(path.into(), load.into())),
                "no {load} of {path}: {rows:?}"
            );
        }
    }
    let missing = report["missing"].as_array().context("nothing is missing")?;
    let reason = |path: &str| {
        let found = missing.iter().find(|it| it["path"] == path)?;
        found["reason"].as_str()
    };
    // Not every kernel has macvtaps, nor every container their devices.
    let is_carried = rows.contains(&("macvtap".into(), "udp64".into()));
    let why_not = reason("macvtap").filter(|why| why.contains("macvtap"));
    ensure!(is_carried != why_not.is_some(), "{rows:?}, {missing:?}");
    // The guest has no driver for the one, nobody gives devices to the other, and the third joins no guests.
    for (path, part) in [
        ("e1000", "no driver"),
        ("vfio", "IOMMU"),
        ("user", "not to another guest"),
    ] {
        let reason = reason(path).unwrap_or_default();
        let known = reason.contains(part) || reason.contains("no device is taken");
        ensure!(known, "{path}: {reason:?}");
    }
    let plot = fs::read_to_string(&svg)?;
    ensure!(
        plot.starts_with("<svg") && plot.contains("vhost-user"),
        "{plot}"
    );

    ensure!(temporary(&lab)?.is_empty(), "{:?}", temporary(&lab)?);
    ensure!(processes(&lab)?.is_empty(), "processes are left");
    ensure!(links()? == before, "{:?} were {before:?}", links()?);
    Ok(())
}

#[test]
fn interrupted_or_killed_it_takes_its_guests_along() -> Result<()> {
    let Some(lab) = Lab::with("bench-paths-end", &NEEDS)? else {
        return Ok(());
    };
    for (signal, path) in [(Signal::INT, "tap"), (Signal::KILL, "vhost-user")] {
        let files = ["out.json", "plot.svg"].map(|name| lab.path(name));
        let [out, svg] = files.each_ref().map(|file| file.display());
        let line = format!("--paths {path} --seconds 600 -v --out {out} --svg {svg}");
        let mut bench = Process::spawn("bench", bench(&lab, &line)?.stderr(Stdio::piped()))?;
        let mut said = BufReader::new(bench.child().stderr.take().context("no pipe")?);
        let mut line = String::new();
        while !line.contains("TCP, 1 stream") {
            line.clear();
            ensure!(
                said.read_line(&mut line)? > 0,
                "it ended before it measured"
            );
        }
        let children = processes(&lab)?;
        ensure!(children.len() >= 2, "{} processes", children.len());
        bench.signal(signal)?;
        let status = bench.wait(LIMIT)?;
        for child in children {
            let limit = Timespec::try_from(LIMIT)?;
            let ended = poll(&mut [PollFd::new(&child, PollFlags::IN)], Some(&limit))?;
            ensure!(ended == 1, "{signal:?}: a child goes on");
        }
        if signal == Signal::INT {
            let mut rest = String::new();
            said.read_to_string(&mut rest)?;
            ensure!(
                status.code() == Some(1) && rest.contains("interrupted"),
                "{status}: {rest}"
            );
            ensure!(temporary(&lab)?.is_empty(), "{:?}", temporary(&lab)?);
        }
        // What was not measured to its end leaves no file, not even an empty one.
        ensure!(files.iter().all(|file| !file.exists()), "{files:?}");
    }
    // What the killed one left is removed by the next, whatever comes of that.
    ensure!(temporary(&lab)?.len() == 1, "{:?}", temporary(&lab)?);
    let mut next = bench(&lab, "--paths vfio")?;
    ensure!(next.stderr(Stdio::null()).status()?.code() == Some(1));
    ensure!(temporary(&lab)?.is_empty(), "{:?}", temporary(&lab)?);
    Ok(())
}
