//! `ringway trace` as people use it: each decision of a switch, and the setting that made it.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use ringway_tests::{
    Lab, Process, Switch,
    mock::{
        Guest, Options,
        frames::{BROADCAST, frame, mac, tagged},
    },
    switch::binary,
};
use ringway_wire::build::FrameBuilder;
use rustix::process::Signal;
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(30);

/// A trace that runs, and what it prints and says.
struct Trace {
    process: Process,
    printed: PathBuf,
    said: PathBuf,
}

impl Trace {
    /// Begins one; frames from now on are in it.
    fn begin(lab: &Lab, name: &str, arguments: &[&str]) -> Result<Self> {
        let (printed, said) = (lab.log(name), lab.log(&format!("{name}.messages")));
        let mut command = Command::new(binary()?);
        command.arg("trace").args(arguments);
        command.arg("--control").arg(lab.path("control"));
        command.stdin(Stdio::null()).stdout(File::create(&printed)?);
        command.stderr(File::create(&said)?);
        let trace = Self {
            process: Process::spawn("ringway trace", &mut command)?,
            printed,
            said,
        };
        until("it traces", || Ok(trace.messages()?.contains("tracing at")))
            .with_context(|| trace.messages().unwrap_or_default())?;
        Ok(trace)
    }

    fn messages(&self) -> Result<String> {
        Ok(fs::read_to_string(&self.said)?)
    }

    fn lines(&self) -> Result<Vec<String>> {
        let text = fs::read_to_string(&self.printed)?;
        Ok(text.lines().map(str::to_owned).collect())
    }

    /// Ctrl-C, once so many lines are there; all lines, and what was said.
    fn end(mut self, lines: usize) -> Result<(Vec<String>, String)> {
        until("lines", || Ok(self.lines()?.len() >= lines))
            .with_context(|| format!("{:#?}", self.lines()))?;
        self.process.signal(Signal::INT)?;
        let status = self.process.wait(LIMIT)?;
        ensure!(status.success(), "{status}: {}", self.messages()?);
        Ok((self.lines()?, self.messages()?))
    }
}

fn until(what: &str, mut is: impl FnMut() -> Result<bool>) -> Result<()> {
    let end = Instant::now() + LIMIT;
    while !is()? {
        ensure!(Instant::now() < end, "{what} did not come");
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

fn start(lab: &Lab, ports: &[&str]) -> Result<Switch> {
    let control = lab.path("control").display().to_string();
    let mut switch = lab.switch().arguments(&["--control", &control]);
    for port in ports {
        let name = port.split(',').next().unwrap_or_default();
        let path = lab.path(name).display().to_string();
        switch = switch.port(&format!("vhost-user,path={path},name={port}"));
    }
    switch.start()
}

fn guest(lab: &Lab, name: &str) -> Guest {
    Guest::start(&lab.path(name), Options::default())
}

/// Sends a frame and waits until the switch is done with it.
fn send(guest: &mut Guest, frame: &[u8]) {
    guest.nic.send(frame);
    guest.nic.drain();
}

/// Each of `lines` has the parts that are expected of it.
fn check(lines: &[String], expected: &[&[&str]]) -> Result<()> {
    ensure!(lines.len() == expected.len(), "{lines:#?}");
    for (line, parts) in lines.iter().zip(expected) {
        for part in *parts {
            ensure!(line.contains(part), "no {part:?} in {line}");
        }
    }
    Ok(())
}

#[test]
fn each_frame_is_told_with_the_decision_and_the_setting_that_made_it() -> Result<()> {
    let lab = Lab::new("trace")?;
    let _switch = start(
        &lab,
        &[
            "a,mac=02:00:00:00:00:01",
            "b",
            "c,isolated",
            "d,isolated",
            "r,rate=8k,burst=2000",
            "v,vlan=7",
        ],
    )?;
    let names = ["a", "b", "c", "d", "r", "v"];
    let [mut a, mut b, mut c, mut d, mut r, mut v] = names.map(|name| guest(&lab, name));
    let begin = |port: &str| Trace::begin(&lab, port, &[port]);
    let (at_a, at_b, at_c, at_v) = (begin("a")?, begin("b")?, begin("c")?, begin("v")?);
    let at_r = Trace::begin(&lab, "r", &["r", "--drops"])?;

    send(&mut a, &frame(mac(1), BROADCAST, 60, 1));
    send(&mut a, &frame(mac(1), mac(9), 61, 2));
    send(&mut b, &frame(mac(2), mac(1), 62, 3));
    send(&mut a, &frame(mac(1), mac(2), 63, 4));
    send(&mut a, &frame(mac(8), mac(2), 64, 5));
    send(&mut d, &frame(mac(4), mac(1), 65, 6));
    send(&mut c, &frame(mac(3), mac(4), 66, 7));
    send(&mut v, &tagged(&frame(mac(6), BROADCAST, 60, 8), 9));
    send(&mut v, &frame(mac(6), BROADCAST, 67, 9));
    send(&mut r, &frame(mac(5), mac(1), 68, 10));
    send(&mut a, &frame(mac(1), mac(5), 1500, 11));
    // The first beyond what may pass at once still passes.
    send(&mut a, &frame(mac(1), mac(5), 1501, 12));
    send(&mut a, &frame(mac(1), mac(5), 1502, 13));

    let (lines, said) = at_a.end(10)?;
    check(
        &lines,
        &[
            &[
                " a in ",
                "ff:ff:ff:ff:ff:ff",
                "length 60",
                "-> flooded to 4 ports (broadcast)",
            ],
            &["length 61", "-> flooded to 4 ports (unknown unicast"],
            &[" a out ", "length 62", "<- b"],
            &[
                "length 63",
                "-> b (02:00:00:00:00:02 was learned behind b, last heard ",
            ],
            &[
                "length 64",
                "-> dropped: spoofed_mac (port a has mac=02:00:00:00:00:01 and may not send as 02:00:00:00:00:08)",
            ],
            &["length 65", "<- d"],
            &["length 68", "<- r"],
            &[
                "length 1500",
                "-> r (02:00:00:00:00:05 was learned behind r, last heard ",
                " s ago)",
            ],
            &["length 1501", "-> r ("],
            &[
                "length 1502",
                "-> r, dropped: rate_limited (more than rate=8k of port r)",
            ],
        ],
    )?;
    ensure!(
        said.contains("10 frames seen, 10 shown, none missed"),
        "{said}"
    );
    let (lines, _) = at_b.end(4)?;
    check(
        &lines,
        &[
            &["<- a"],
            &["<- a"],
            &[" in ", "-> a"],
            &["length 63", "<- a"],
        ],
    )?;
    let (lines, _) = at_c.end(3)?;
    check(
        &lines,
        &[
            &["length 60", "<- a"],
            &["length 61", "<- a"],
            &[
                "length 66",
                "-> d, dropped: isolated (ports c and d are both isolated)",
            ],
        ],
    )?;
    let (lines, _) = at_v.end(2)?;
    check(
        &lines,
        &[
            &[
                "vlan 9",
                "-> dropped: vlan_mismatch (port v has vlan=7 and does not carry a frame of VLAN 9)",
            ],
            &[
                "length 67",
                "-> dropped: no_destination",
                "alone in its VLAN",
            ],
        ],
    )?;
    let (lines, said) = at_r.end(1)?;
    check(
        &lines,
        &[&[
            " r out ",
            "length 1502",
            "<- a, dropped: rate_limited",
            "rate=8k",
        ]],
    )?;
    ensure!(said.contains(" 1 shown, none missed"), "{said}");
    Ok(())
}

#[test]
fn filters_choose_and_programs_get_json() -> Result<()> {
    let lab = Lab::new("trace-json")?;
    let _switch = start(&lab, &["a", "b"])?;
    let [mut a, mut b] = ["a", "b"].map(|name| guest(&lab, name));
    let ours = [
        "a", "--json", "--count", "1", "host", "10.0.0.2", "udp", "port", "53",
    ];
    let mut counted = Trace::begin(&lab, "counted", &ours)?;
    let dropped = Trace::begin(&lab, "dropped", &["a", "--json", "--drops", "not arp"])?;
    let builder =
        || FrameBuilder::ipv4([10, 0, 0, 1].into(), [10, 0, 0, 2].into()).macs(mac(1), mac(2));
    send(&mut b, &frame(mac(2), BROADCAST, 60, 1));
    send(&mut a, &builder().udp(1000, 80).build(b"no"));
    send(&mut a, &frame(mac(1), mac(1), 60, 2));
    send(&mut a, &builder().udp(1000, 53).build(b"yes"));
    send(&mut a, &builder().udp(1000, 53).build(b"too late"));
    ensure!(
        counted.process.wait(LIMIT)?.success(),
        "{}",
        counted.messages()?
    );
    let lines = counted.lines()?;
    ensure!(lines.len() == 1, "{lines:#?}");
    let line: Value = serde_json::from_str(&lines[0])?;
    ensure!(
        line["decision"] == "forwarded" && line["to"] == "b" && line["direction"] == "in",
        "{line}"
    );
    ensure!(line["heard_seconds_ago"].is_u64(), "{line}");
    ensure!(
        line["protocol"] == "udp" && line["addresses"][1] == "10.0.0.2" && line["ports"][1] == 53,
        "{line}"
    );
    let (lines, _) = dropped.end(1)?;
    let line: Value = serde_json::from_str(&lines[0])?;
    ensure!(
        lines.len() == 1 && line["decision"] == "dropped" && line["reason"] == "same_port",
        "{lines:#?}"
    );
    ensure!(
        line["why"] == "02:00:00:00:00:01 is behind a itself",
        "{line}"
    );
    Ok(())
}

#[test]
fn it_ends_with_its_reader_and_its_port_and_refuses_what_cannot_be_meant() -> Result<()> {
    let lab = Lab::new("trace-ends")?;
    let switch = start(&lab, &["a", "b"])?;
    let mut a = guest(&lab, "a");
    let control = lab.path("control").display().to_string();

    // Nobody reads on.
    let mut command = Command::new(binary()?);
    command.args(["trace", "a", "--control", &control]);
    let said = lab.log("unread.messages");
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    command.stderr(File::create(&said)?);
    let mut unread = Process::spawn("ringway trace", &mut command)?;
    until("it traces", || {
        Ok(fs::read_to_string(&said)?.contains("tracing at"))
    })?;
    drop(unread.child().stdout.take());
    send(&mut a, &frame(mac(1), BROADCAST, 60, 1));
    ensure!(unread.wait(LIMIT)?.success());

    for (words, parts) in [
        (&["a", "host", "x"][..], &["host `x`", "10.0.0.5"][..]),
        (&["a", "smtp"], &["`smtp` is not known", "dhcp, dns"]),
    ] {
        let words = [&["trace", "--control", &control], words].concat();
        lab.attempt(&words).refused()?.says(2, parts)?;
    }
    let none = lab.path("none").display().to_string();
    let refusal = lab.attempt(&["trace", "a", "--control", &none]).refused()?;
    refusal.says(1, &[&none])?;
    ensure!(!Path::new(&none).exists());

    // Its switch goes.
    let mut cut = Trace::begin(&lab, "cut", &["a"])?;
    switch.stop()?;
    let status = cut.process.wait(LIMIT)?;
    let said = cut.messages()?;
    ensure!(
        status.code() == Some(1) && said.contains("the trace was cut off"),
        "{said}"
    );
    Ok(())
}
