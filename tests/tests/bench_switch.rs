//! `ringway bench switch` as people use it: without privilege, to the end, and interrupted.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use ringway_tests::{Lab, Process, switch::binary};
use rustix::process::{Signal, geteuid};
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(60);

/// A command of `ringway bench switch` for a user who may do nothing in particular, and its folder for temporary files.
fn bench(lab: &Lab, arguments: &[&str]) -> Result<(Command, PathBuf)> {
    let folder = lab.path("tmp");
    fs::create_dir_all(&folder)?;
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o777))?;
    let program = lab.path("ringway");
    fs::copy(binary()?, &program)?;
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL"]);
    if geteuid().is_root() {
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
    }
    command.arg("--").arg(program).args(["bench", "switch"]);
    command.args(arguments).env("TMPDIR", &folder);
    command.stdin(Stdio::null());
    Ok((command, folder))
}

fn is_empty(folder: &Path) -> Result<bool> {
    Ok(fs::read_dir(folder)?.next().is_none())
}

#[test]
fn figures_come_in_a_few_seconds_and_agree_with_the_counters_of_the_switch() -> Result<()> {
    let lab = Lab::new("bench-switch")?;
    let plot = lab.path("tmp/plot.svg");
    let text = plot.display().to_string();
    let (mut command, folder) = bench(&lab, &["--quick", "--json", "--svg", &text])?;
    let output = command.output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{said}");
    let report: Value = serde_json::from_slice(&output.stdout)?;
    let rows = report["rows"].as_array().context("no rows")?;
    ensure!(rows.len() == 2, "{report}");
    for row in rows {
        let counters = &row["counters"];
        let count = |name: &str| counters[name].as_u64().context(format!("no {name}: {row}"));
        ensure!(count("sent")? > 1000, "{row}");
        ensure!(count("sent")? == count("from_guests")?, "{row}");
        ensure!(count("received")? == count("to_guests")?, "{row}");
        ensure!(count("received")? == count("delivered")?, "{row}");
        ensure!(
            count("attempted")? == count("delivered")? + count("dropped")?,
            "{row}"
        );
        let bytes = row["frame"].as_u64().context("no frame")?;
        ensure!(
            count("copied_bytes")? == bytes * count("delivered")?,
            "{row}"
        );
        for name in [
            "mpps",
            "gbps",
            "latency_p50_us",
            "latency_p99_us",
            "cpu_seconds_per_million_frames",
            "cpu_seconds_per_gbit",
        ] {
            let of = |which: &str| row[name][which].as_f64().unwrap_or(0.0);
            ensure!(
                0.0 < of("min") && of("min") <= of("median") && of("median") <= of("max"),
                "{name}: {row}"
            );
        }
    }
    let idle = report["idle"]["cpu_percent"]["median"].as_f64();
    ensure!(idle.is_some_and(|share| share < 20.0), "{report}");
    let meaning = report["meaning"].as_array().context("no meaning")?;
    ensure!(meaning[0].to_string().contains("One worker carries"));
    ensure!(fs::read_to_string(&plot)?.starts_with("<svg"));
    fs::remove_file(plot)?;
    ensure!(is_empty(&folder)?, "files were left");
    Ok(())
}

#[test]
fn who_interrupts_it_finds_nothing_left() -> Result<()> {
    let lab = Lab::new("bench-interrupted")?;
    let (mut command, folder) = bench(&lab, &["--seconds", "60"])?;
    let log = lab.log("said");
    command
        .stdout(Stdio::null())
        .stderr(fs::File::create(&log)?);
    let mut process = Process::spawn("ringway bench", &mut command)?;
    let children = format!("/proc/{0}/task/{0}/children", process.id());
    let end = Instant::now() + LIMIT;
    // Its own switch listens.
    let switch = loop {
        let socket = fs::read_dir(&folder)?.flatten().next();
        let listens = socket.is_some_and(|socket| socket.path().join("control").exists());
        let child = fs::read_to_string(&children)?;
        if listens && !child.is_empty() {
            break child.trim().to_owned();
        }
        ensure!(
            Instant::now() < end,
            "no switch: {}",
            fs::read_to_string(&log)?
        );
        std::thread::sleep(Duration::from_millis(10));
    };
    process.signal(Signal::INT)?;
    let status = process.wait(LIMIT)?;
    let said = fs::read_to_string(&log)?;
    ensure!(status.code() == Some(1), "{status}: {said}");
    ensure!(said.contains("ringway: interrupted"), "{said}");
    ensure!(!Path::new("/proc").join(switch).exists(), "the switch runs");
    ensure!(is_empty(&folder)?, "files were left");
    Ok(())
}

#[test]
fn what_cannot_be_measured_is_refused_with_the_way_out() -> Result<()> {
    let lab = Lab::new("bench-refused")?;
    for (arguments, parts) in [
        (["--frame", "63"], ["--frame 63", "from 64 to 65535"]),
        (["--seconds", "2"], ["2 seconds are too few", "give "]),
        (["--cpus", "1023"], ["CPU 1023 is not there", "there are"]),
        (["--workers", "0"], ["--workers 0", "from 1 to 64"]),
        (["--svg", "/nowhere/x"], ["--svg /nowhere/x", "that exists"]),
    ] {
        let words = [&["bench", "switch"][..], &arguments].concat();
        lab.attempt(&words).refused()?.says(2, &parts)?;
    }
    Ok(())
}
