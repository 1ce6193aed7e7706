//! `ringway top` and `ringway show`: what stands on a terminal while a switch carries frames, what is drawn, and that a terminal is
//! given back as it was. Structure is compared; numbers are not.

use std::{fs, path::Path, process::Command};

use anyhow::{Context, Result, ensure};
use ringway_tests::{
    Lab, Need, Netns, Switch,
    machine::Machines,
    screen::Screen,
    switch::{Statistics, binary, ringway},
};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

const TMUX: Need = Need::Program("tmux");

/// What `gen` sends goes to all others; what `mad` sends, nowhere.
fn switch(lab: &Lab, name: &str) -> Result<Switch> {
    let generator = |name: &str, to: &str, pps: u32| {
        format!(
            "generator,name={name},pps={pps},size=200,destination={to},source=02:00:00:00:00:04"
        )
    };
    lab.switch()
        .named(name)
        .port(&generator("gen", "ff:ff:ff:ff:ff:ff", 500))
        .port(&generator("mad", "02:00:00:00:00:04", 100))
        .port("sink,name=sink")
        .vhost_user("web", 2)
        .arguments(&["--workers", "1", "--control", &control(lab)])
        .start()
}

fn control(lab: &Lab) -> String {
    lab.path("control").display().to_string()
}

/// A line with `#` for every number, whatever its unit, and one space between words.
fn shape(line: &str) -> String {
    let words = line.split_whitespace().map(|word| {
        let number = word.trim_end_matches(',');
        let digits = number.trim_end_matches(['k', 'M', 'G', 'T']);
        let is_number = digits.chars().all(|c| c.is_ascii_digit() || c == '.');
        match is_number && !digits.is_empty() {
            true => format!("#{}", &word[number.len()..]),
            false => word.to_owned(),
        }
    });
    words.collect::<Vec<_>>().join(" ")
}

/// What a rate is, `812k` for example.
fn number(text: &str) -> Option<f64> {
    let unit = match text.chars().last()? {
        'k' => 1e3,
        'M' => 1e6,
        'G' => 1e9,
        'T' => 1e12,
        _ => 1.0,
    };
    Some(
        text.trim_end_matches(['k', 'M', 'G', 'T'])
            .parse::<f64>()
            .ok()?
            * unit,
    )
}

#[test]
fn top_shows_what_a_switch_carries_and_gives_the_terminal_back() -> Result<()> {
    let Some(lab) = Lab::with("screens-top", &[TMUX])? else {
        return Ok(());
    };
    let first = switch(&lab, "first")?;
    let pid = lab.path("pid");
    // Its process is in a file; when it has ended, the terminal is as it was.
    let line = format!(
        "sh -c 'echo $$ >{}; exec {} top --control {} --interval 0.3'; echo left $?; stty -a | grep -o '.icanon'; exec cat",
        pid.display(),
        binary()?.display(),
        control(&lab)
    );
    let screen = Screen::open(&lab, "tmux", (100, 60), &line)?;
    screen.await_text("rates", |text| text.contains("same_port"))?;
    screen.press(&["s", "s"])?;
    let text = screen.await_text("another order", |text| {
        text.contains("by name") && text.contains("same_port")
    })?;
    let known = ["PORT", "OWNER", "gen", "mad", "sink", "web", "switch"];
    let rows = text.lines().map(shape);
    // Helpers come and go; other machines may run here.
    let rows: Vec<String> = rows
        .filter(|row| {
            known
                .iter()
                .any(|name| row.starts_with(&format!("{name} ")))
        })
        .filter(|row| !row.contains(" helper "))
        .collect();
    let expected = [
        "PORT KIND LINK RX-F/S RX-BIT/S TX-F/S TX-BIT/S DROPS/S WHY",
        "gen generator up # # # # #",
        "mad generator up # # # # # same_port",
        "sink sink up # # # # #",
        "web vhost-user down # # # # #",
        "PORT Q SERVED-BY RX-F/S RX-BIT/S TX-F/S TX-BIT/S KICKS/S CALLS/S",
        "gen # worker-0 # # # # # #",
        "mad # worker-0 # # # # # #",
        "sink # - # # # # # #",
        "web # - # # # # # #",
        "web # - # # # # # #",
        "OWNER ROLE THREAD TID CPU %CPU",
        "switch worker worker-0 # # #",
        "switch control ringway # # #",
    ];
    ensure!(rows == expected, "{rows:#?}\n{text}");
    ensure!(text.starts_with("ringway top "), "{text}");

    // The switch goes, and another one comes: no rate is of both.
    first.stop()?;
    screen.await_text("that nobody answers", |text| {
        text.contains("no switch answers at")
    })?;
    let second = switch(&lab, "second")?;
    let text = screen.await_text("rates again", |text| text.contains("same_port"))?;
    for row in text.lines().filter(|row| row.starts_with("gen ")) {
        let frames = row.split_whitespace().nth(3).and_then(number);
        ensure!(frames.is_some_and(|frames| frames < 5_000.0), "{text}");
    }

    // A small terminal has the table that is looked at.
    screen.resize(40, 10)?;
    let narrow = |text: &str| text.contains("q leave") && !text.contains("LINK");
    let text = screen.await_text("less of it", narrow)?;
    ensure!(
        text.contains("PORT") && text.contains("DROPS/S") && !text.contains("OWNER"),
        "{text}"
    );
    screen.press(&["3"])?;
    screen.await_text("threads", |text| text.contains("worker-0"))?;
    screen.press(&["?"])?;
    screen.await_text("help", |text| text.contains("q Esc Ctrl-C"))?;
    screen.press(&["x", "q"])?;
    let given_back = |text: &str| text.contains("left 0\n icanon") && !text.contains("ringway top");
    screen.await_text("the shell's terminal", given_back)?;
    drop(screen);

    // The same by a signal.
    let screen = Screen::open(&lab, "tmux2", (80, 24), &line)?;
    screen.await_text("rates", |text| text.contains("same_port"))?;
    let id: i32 = fs::read_to_string(&pid)?.trim().parse()?;
    kill_process(Pid::from_raw(id).context("no process")?, Signal::TERM)?;
    screen.await_text("the shell's terminal", given_back)?;
    second.stop()
}

#[test]
fn top_prints_one_sample_where_nobody_looks() -> Result<()> {
    let Some(lab) = Lab::with("screens-once", &[])? else {
        return Ok(());
    };
    let nobody = control(&lab);
    let refused = ringway(&["top", "--json", "--control", &nobody])?;
    // Machines may run here, whose threads are shown all the same.
    let said = String::from_utf8_lossy(&refused.stderr);
    ensure!(said.contains("no switch answers at"), "{said}");
    let switch = switch(&lab, "switch")?;
    let words = ["top", "--interval", "0.5", "--control", &nobody];
    let printed = ringway(&words)?;
    let text = String::from_utf8_lossy(&printed.stdout);
    let row = text.lines().map(shape).find(|row| row.starts_with("mad "));
    let expected = "mad generator up # # # # # same_port";
    ensure!(
        printed.status.success() && row.as_deref() == Some(expected),
        "{text}"
    );
    let sample: Value =
        serde_json::from_slice(&ringway(&[&words[..], &["--json"]].concat())?.stdout)?;
    ensure!(sample["switch"] == switch.id(), "{sample}");
    let port = &sample["ports"][1];
    ensure!(
        port["name"] == "mad" && port["drops"]["same_port"].as_f64() > Some(0.0),
        "{port}"
    );
    switch.stop()
}

/// The lines of a drawing, without what boxes are made of.
fn inside(text: &str) -> Vec<String> {
    let line = |line: &str| shape(line.trim_matches(['┌', '┐', '└', '┘', '─', '│', ' ']));
    text.lines().map(line).collect()
}

#[test]
fn show_draws_ports_in_a_terminal_and_as_a_picture() -> Result<()> {
    let needs = [TMUX, Need::Program("rsvg-convert")];
    let Some(lab) = Lab::with("screens-show", &needs)? else {
        return Ok(());
    };
    let switch = switch(&lab, "switch")?;
    let line = format!(
        "{} show --control {}; echo drawn $?; exec cat",
        binary()?.display(),
        control(&lab)
    );
    let screen = Screen::open(&lab, "tmux", (100, 80), &line)?;
    let text = screen.await_text("all of it", |text| text.contains("drawn 0"))?;
    let lines = inside(&text);
    let both = "▼ # frames/s # bit/s ▲ # frames/s # bit/s";
    let path = |name: &str, about: &str, lost: &[&str]| -> Vec<String> {
        let titled = format!("{name} port of kind generator");
        let worker = [
            "",
            both,
            "switch workers",
            "worker-0 on CPU #, # %",
            "",
            both,
        ];
        let last = ["switch", &format!("port {name}"), "# other ports", "", ""];
        let lines = [
            &[titled.as_str(), "generator", about][..],
            &worker,
            lost,
            &last,
        ]
        .concat();
        lines.into_iter().map(str::to_owned).collect()
    };
    let mut expected = path("gen", "makes frames", &[]);
    expected.extend(path("mad", "makes frames", &["# drops/s: same_port"]));
    ensure!(lines[..expected.len()] == expected, "{lines:#?}");
    for name in [
        "sink port of kind sink",
        "web port of kind vhost-user",
        "waits for a machine",
    ] {
        ensure!(lines.iter().any(|line| line == name), "{lines:#?}");
    }
    let painted = screen.painted()?;
    let lost = painted.lines().find(|line| line.contains("drops/s"));
    ensure!(
        lost.is_some_and(|line| line.contains("\x1b[31m")),
        "{painted}"
    );

    let svg = lab.log("show.svg");
    let words = ["show", "--control", &control(&lab), "--svg"];
    let file = svg.display().to_string();
    // A machine could be called so.
    lab.attempt(&[&words[..], &[&file]].concat())
        .refused()?
        .says(2, &[&format!("write --svg={file}")])?;
    let to_file = format!("--svg={file}");
    let written = ringway(&[&words[..3], &[&to_file]].concat())?;
    ensure!(written.status.success(), "{written:?}");
    let picture = fs::read_to_string(&svg)?;
    // The same without what is drawn on it.
    let head = picture.split_inclusive("fill=\"#ffffff\"/>\n").next();
    let blank = lab.log("blank.svg");
    fs::write(&blank, format!("{}</svg>", head.context("no background")?))?;
    let (drawn, blank) = (converted(&svg)?, converted(&blank)?);
    ensure!(
        drawn.size == blank.size && drawn.size[0] > 500,
        "{:?}",
        drawn.size
    );
    ensure!(
        drawn.bytes > 5 * blank.bytes,
        "{} bytes drawn, {} blank",
        drawn.bytes,
        blank.bytes
    );
    // To standard output, where nobody reads on.
    let piped = ringway(&words)?;
    ensure!(piped.stdout.starts_with(b"<svg ") && piped.status.success());
    switch.stop()
}

/// A picture of pixels.
struct Png {
    size: [u32; 2],
    bytes: usize,
}

fn converted(svg: &Path) -> Result<Png> {
    let path = svg.with_extension("png");
    let mut convert = Command::new("rsvg-convert");
    let status = convert.arg(svg).arg("-o").arg(&path).status()?;
    ensure!(status.success(), "rsvg-convert: {status}");
    let png = fs::read(&path)?;
    // Signature, then the header's chunk: width and height first.
    ensure!(png.starts_with(b"\x89PNG\r\n\x1a\n") && &png[12..16] == b"IHDR");
    let number = |at: usize| png[at..at + 4].try_into().map(u32::from_be_bytes);
    Ok(Png {
        size: [number(16)?, number(20)?],
        bytes: png.len(),
    })
}

/// Kinds and titles of a way's stages.
fn stages(path: &Value) -> Vec<String> {
    let stages = path["stages"].as_array().into_iter().flatten();
    let named =
        stages.map(|stage| format!("{} {}", stage["kind"], stage["title"]).replace('"', ""));
    named.collect()
}

#[test]
fn show_draws_the_way_of_a_running_machine() -> Result<()> {
    let needs = [Need::Guests, Need::Program("qemu-img")];
    let Some(lab) = Lab::with("screens-machine", &needs)? else {
        return Ok(());
    };
    let mut switch = switch(&lab, "switch")?;
    let machines = Machines::new(&lab);
    let net = format!("--net socket={},queues=2", lab.path("web").display());
    machines.ringway(&machines.boot(
        "web",
        &format!("--cpus 2 --detach --disk-size 32M --password p {net}"),
    )?)?;
    // An emulated guest takes its time where others work, too.
    let frames = |statistics: &Statistics| {
        let port = statistics.port("web");
        port.is_ok_and(|port| port.sum().tx_frames > 0)
    };
    for patience in (0..4).rev() {
        match switch.await_statistics("frames into the guest", frames) {
            Err(error) if patience == 0 => return Err(error),
            Err(_) => (),
            Ok(_) => break,
        }
    }
    let run = lab.path("machines").display().to_string();
    let show = |words: &[&str]| -> Result<Value> {
        let control = control(&lab);
        let all = ["show", "--json", "--run", &run, "--control", &control];
        let output = ringway(&[&all[..], words].concat())?;
        let said = String::from_utf8_lossy(&output.stderr);
        serde_json::from_slice(&output.stdout).with_context(|| said.into_owned())
    };
    let map = show(&["web"])?;
    let path = &map["paths"][0];
    ensure!(
        stages(path)
            == [
                "guest guest web",
                "device virtio-net-pci",
                "data-plane switch workers",
                "segment switch"
            ],
        "{map}"
    );
    let [guest, device, plane] = [0, 1, 2].map(|index| &path["stages"][index]);
    let vcpus = guest["threads"].as_array().context("no threads")?;
    ensure!(vcpus.len() == 2 && vcpus[0]["role"] == "vcpu", "{guest}");
    ensure!(
        device["details"][0] == "2 queue pairs, 6 vectors",
        "{device}"
    );
    ensure!(plane["threads"][0]["name"] == "worker-0", "{plane}");
    ensure!(
        path["arrows"][0]["to_guest"]["frames"].as_f64() > Some(0.0),
        "{path}"
    );

    // By its process, and among all: then with the ports that belong to none.
    let pid = path["pid"].to_string();
    ensure!(stages(&show(&["--pid", &pid])?["paths"][0]) == stages(path));
    let all = show(&[])?;
    let names = all["paths"].as_array().into_iter().flatten();
    let names: Vec<&str> = names.filter_map(|path| path["name"].as_str()).collect();
    ensure!(names == ["web", "gen", "mad", "sink"], "{names:?}");
    machines.ringway(&machines.words("stop web --force"))?;
    let gone = show(&["web"]).unwrap_err().to_string();
    ensure!(gone.contains("no QEMU runs with the name web"), "{gone}");
    switch.stop()
}

#[test]
fn show_follows_a_tap_over_its_bridge_and_a_macvtap_to_its_nic() -> Result<()> {
    let Some(lab) = Lab::with("screens-tap", &[Need::Guests, Need::Namespaces])? else {
        return Ok(());
    };
    let netns = Netns::new()?;
    netns.sh(
        "ip link add b0 type bridge && ip tuntap add t0 mode tap && ip link add out0 type veth peer name out1 && \
         ip link add link out1 name m0 type macvtap mode bridge && \
         for l in t0 out0; do ip link set $l master b0; done && for l in b0 t0 out0 out1 m0; do ip link set $l up; done",
    )?;
    // It does not run, which its NICs do not need.
    let qemu = std::env::var("QEMU").unwrap_or_else(|_| "qemu-system-x86_64".into());
    let _qemu = netns.keep(
        "QEMU",
        &format!(
            "exec 5<>/dev/tap$(ip -o link show m0 | cut -d: -f1); exec {qemu} -S -name kern -display none -nodefaults \
             -netdev tap,id=n0,ifname=t0,script=no,downscript=no -device virtio-net-pci,netdev=n0,romfile= \
             -netdev user,id=n1 -device e1000,netdev=n1,romfile= \
             -netdev tap,id=n2,fd=5 -device virtio-net-pci,netdev=n2,romfile="
        ),
    )?;
    netns.sh("until ip -o link show t0 | grep -q LOWER_UP; do sleep 0.05; done")?;
    let nobody = lab.path("nobody").display().to_string();
    let show = format!(
        "{} show kern --interval 0.5 --json --socket {nobody}",
        binary()?.display()
    );
    let map: Value = serde_json::from_str(&netns.sh(&show)?)?;
    ensure!(
        stages(&map["paths"][0])
            == [
                "guest guest kern",
                "device virtio-net-pci",
                "data-plane QEMU's main loop",
                "segment bridge b0",
                "uplink out0"
            ],
        "{map}"
    );
    // Counted, though nothing need have come.
    ensure!(
        map["paths"][0]["arrows"][2]["from_guest"]["frames"].is_number(),
        "{map}"
    );
    ensure!(
        map["paths"][0]["arrows"][3]["to_guest"]["frames"].is_number(),
        "{map}"
    );
    ensure!(
        stages(&map["paths"][1])[3] == "segment network within QEMU",
        "{map}"
    );
    ensure!(
        stages(&map["paths"][2])[2..]
            == [
                "data-plane QEMU's main loop",
                "segment macvtap m0",
                "uplink out1"
            ],
        "{map}"
    );
    let device = &map["paths"][2]["arrows"][0];
    ensure!(device["from_guest"]["frames"].is_number(), "{map}");
    let trouble = map["trouble"].as_str().unwrap_or_default();
    ensure!(trouble.contains("no daemon answers"), "{map}");
    Ok(())
}
