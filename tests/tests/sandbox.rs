//! What a running switch may still do: nothing, in every thread.

use std::{collections::BTreeMap, fs, fs::File, time::Duration};

use anyhow::{Context, Result, ensure};
use ringway_api::{
    control::{Client, ClientError, Passed},
    port_spec::PortSpec,
};
use ringway_tests::{Lab, Switch};

const PATIENCE: Duration = Duration::from_secs(10);

#[test]
fn every_thread_of_a_switch_is_without_rights_also_those_that_start_later() -> Result<()> {
    let Some(lab) = Lab::with("sandbox", &[])? else {
        return Ok(());
    };
    let capture = format!("pcap,path={}", lab.path("all.pcapng").display());
    let control = lab.path("control");
    let mut switch = lab
        .switch()
        .vhost_user("a", 1)
        .port("generator,pps=1000")
        .port(&capture)
        .arguments(&[
            "--workers",
            "2",
            "--control",
            &control.display().to_string(),
        ])
        .start()?;
    let names = powerless(&switch, true)?;
    ensure!(
        names == ["pcap", "ringway", "signals", "worker-0", "worker-1"],
        "{names:?}"
    );

    // What comes later comes open.
    let mut client = Client::connect(&control, PATIENCE)?;
    let later = lab.path("later.pcapng");
    let spec: PortSpec = format!("pcap,path={},name=later", later.display()).parse()?;
    let refused = client.add_port(spec.clone(), Passed::Nothing, Vec::new());
    let Err(ClientError::Refused(sentence)) = refused else {
        anyhow::bail!("not refused: {refused:?}");
    };
    for part in ["port later", "a file open for writing", "--sandbox off"] {
        ensure!(sentence.contains(part), "no {part:?} in: {sentence}");
    }
    ensure!(!later.exists(), "the switch made a file");
    client.add_port(spec, Passed::File, vec![File::create(&later)?.into()])?;
    let names = powerless(&switch, true)?;
    ensure!(
        names.iter().filter(|name| *name == "pcap").count() == 2,
        "{names:?}"
    );
    switch.await_statistics("frames in the later capture", |statistics| {
        statistics
            .port("later")
            .is_ok_and(|port| port.sum().tx_frames > 10)
    })?;
    client.remove_port("later")?;
    ensure!(fs::metadata(&later)?.len() > 1000, "nothing was written");

    switch.stop()?;
    for name in ["a", "control"] {
        ensure!(!lab.path(name).exists(), "{name} was left behind");
    }
    Ok(())
}

#[test]
fn who_has_no_rights_gives_up_the_rest() -> Result<()> {
    let Some(lab) = Lab::with("sandbox-user", &[])? else {
        return Ok(());
    };
    let switch = lab
        .switch()
        .port("sink")
        .port("generator,pps=1000")
        .unprivileged()
        .start()?;
    // The bounding set is nothing to such a user, and shrinking it takes a right.
    powerless(&switch, false)?;
    switch.stop()
}

#[test]
fn without_a_sandbox_a_switch_says_what_that_means() -> Result<()> {
    let Some(lab) = Lab::with("sandbox-off", &[])? else {
        return Ok(());
    };
    let control = lab.path("control");
    let arguments = [
        "--sandbox",
        "off",
        "--control",
        &control.display().to_string(),
    ];
    let mut switch = lab.switch().port("sink").arguments(&arguments).start()?;
    switch.await_message("what is given up", |line| {
        [
            "no sandbox",
            "files",
            "network",
            "other processes",
            "start programs",
        ]
        .iter()
        .all(|part| line.contains(part))
    })?;
    for (name, status) in threads(&switch)? {
        ensure!(
            status["Seccomp"] == "0" && status["NoNewPrivs"] == "0",
            "{name}: {status:?}"
        );
    }
    // It opens what it is asked for.
    let mut client = Client::connect(&control, PATIENCE)?;
    let spec = format!("vhost-user,path={}", lab.path("late").display()).parse()?;
    client.add_port(spec, Passed::Nothing, Vec::new())?;
    ensure!(lab.path("late").exists());
    switch.stop()
}

/// The names of all threads, sorted, each of which is without rights.
fn powerless(switch: &Switch, bounded: bool) -> Result<Vec<String>> {
    let none = "0".repeat(16);
    let mut names = Vec::new();
    for (name, status) in threads(switch)? {
        let sets = ["CapInh", "CapPrm", "CapEff", "CapAmb", "CapBnd"];
        let sets = &sets[..if bounded { 5 } else { 4 }];
        let is_root = rustix::process::geteuid().is_root();
        for set in sets.iter().filter(|set| is_root || **set != "CapBnd") {
            ensure!(status[*set] == none, "{name}: {set}: {}", status[*set]);
        }
        ensure!(status["NoNewPrivs"] == "1", "{name}: may gain privileges");
        ensure!(
            status["Seccomp"] == "2",
            "{name}: no filter of system calls"
        );
        names.push(name);
    }
    names.sort();
    Ok(names)
}

/// Name and `/proc/PID/task/TID/status` of each thread.
fn threads(switch: &Switch) -> Result<Vec<(String, BTreeMap<String, String>)>> {
    let mut threads = Vec::new();
    for task in fs::read_dir(format!("/proc/{}/task", switch.id()))? {
        let status = fs::read_to_string(task?.path().join("status"))?;
        let fields = status.lines().filter_map(|line| line.split_once(':'));
        let mut fields: BTreeMap<String, String> = fields
            .map(|(key, value)| (key.into(), value.trim().into()))
            .collect();
        let name = fields.remove("Name").context("a thread without a name")?;
        threads.push((name, fields));
    }
    Ok(threads)
}
