//! Front-ends that lie. Each loses its connection, with one sentence about why; the other ports never notice.

use std::{
    io::{Read, Write},
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use ringway_tests::{Lab, Need, Switch, crossing::Crossing};

/// Message numbers (vhost-user, "Front-end message types").
const SET_FEATURES: u32 = 2;
const SET_OWNER: u32 = 3;
const SET_MEM_TABLE: u32 = 5;
const SET_VRING_NUM: u32 = 8;
const SET_VRING_KICK: u32 = 12;
const SET_VRING_ENABLE: u32 = 18;

#[test]
fn a_lying_front_end_loses_its_connection_and_others_go_on() -> Result<()> {
    let Some(lab) = Lab::with("hostile", &[Need::Program("dpdk-testpmd")])? else {
        return Ok(());
    };
    let mut switch = ["a", "b", "c", "d"]
        .into_iter()
        .fold(lab.switch(), |switch, name| switch.vhost_user(name, 1))
        .start()?;
    let crossing = |ports, packed| Crossing {
        ports,
        queues: 1,
        mergeable: true,
        in_order: true,
        packed,
        vectorized: false,
        frames: 20_000,
    };
    let path = lab.path("a");
    let before = switch.footprint()?;

    let honest = crossing(["c", "d"], true).start(&lab)?;
    for (what, bytes) in lies() {
        let sentence = lie(&mut switch, &path, &bytes).with_context(|| what)?;
        lab.report(&format!("{what}: {sentence}"));
    }
    // Half a message and then nothing.
    let mut slow = UnixStream::connect(&path)?;
    slow.write_all(&message(SET_OWNER, 1, 0, &[])[..7])?;
    let sentence = ends(&mut switch, &mut slow)?;
    ensure!(sentence.contains("middle of a message"), "{sentence}");

    // One at a time.
    let first = UnixStream::connect(&path)?;
    switch.await_message("the connection", |line| {
        line.contains("port a: front-end connected")
    })?;
    let mut second = UnixStream::connect(&path)?;
    let sentence = ends(&mut switch, &mut second)?;
    ensure!(
        sentence.contains("another front-end is connected"),
        "{sentence}"
    );
    drop(first);
    switch.await_message("its end", |line| {
        line.contains("port a: front-end disconnected")
    })?;

    honest.finish(&mut switch)?;
    ensure!(switch.footprint()?.files == before.files);
    // The port that was lied to serves honest drivers as before.
    crossing(["a", "b"], false)
        .start(&lab)?
        .finish(&mut switch)?;
    let statistics = switch.statistics()?;
    statistics.check()?;
    ensure!(statistics.delivered == 80_000, "{statistics:?}");
    Ok(())
}

/// What is wrong with a message, and the bytes.
fn lies() -> Vec<(&'static str, Vec<u8>)> {
    let word = |value: u64| value.to_le_bytes().to_vec();
    let state = |index: u32, number: u32| [index.to_le_bytes(), number.to_le_bytes()].concat();
    // One region of 4 GiB at 0, for which no memory comes along.
    let region = [word(1), word(0), word(4 << 30), word(0), word(0)].concat();
    vec![
        (
            "no vhost-user at all",
            b"GET / HTTP/1.1\r\nHost: ringway\r\n\r\n".to_vec(),
        ),
        ("zeros", vec![0; 4096]),
        ("ones", vec![0xff; 4096]),
        ("another version", message(SET_OWNER, 2, 0, &[])),
        ("a message of 4 GiB", message(SET_OWNER, 1, u32::MAX, &[])),
        (
            "a message that is too short",
            message(SET_FEATURES, 1, 4, &[0; 4]),
        ),
        ("an unknown message", message(9999, 1, 0, &[])),
        (
            "features that were not offered",
            message(SET_FEATURES, 1, 8, &word(u64::MAX)),
        ),
        (
            "a memory table without memory",
            message(SET_MEM_TABLE, 1, 40, &region),
        ),
        (
            "a ring that is not there",
            message(SET_VRING_NUM, 1, 8, &state(77, 256)),
        ),
        (
            "a ring of 3 descriptors",
            message(SET_VRING_NUM, 1, 8, &state(0, 3)),
        ),
        (
            "a kick without a descriptor",
            message(SET_VRING_KICK, 1, 8, &word(0)),
        ),
        (
            "a ring enabled a little",
            message(SET_VRING_ENABLE, 1, 8, &state(0, 2)),
        ),
    ]
}

fn message(request: u32, flags: u32, size: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for word in [request, flags, size] {
        bytes.extend(word.to_le_bytes());
    }
    bytes.extend(payload);
    bytes
}

/// Connects and says `bytes`; the sentence with which the switch ends the connection.
fn lie(switch: &mut Switch, path: &Path, bytes: &[u8]) -> Result<String> {
    let mut stream = UnixStream::connect(path)?;
    // The connection may end before all is said.
    let _ = stream.write_all(bytes);
    ends(switch, &mut stream)
}

/// Waits for the end of a connection; what the switch says about it.
fn ends(switch: &mut Switch, stream: &mut UnixStream) -> Result<String> {
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    let mut answers = Vec::new();
    match stream.read_to_end(&mut answers) {
        Ok(_) => {}
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => {}
        Err(error) => return Err(error).context("the connection goes on"),
    }
    switch.await_message("why", |line| {
        line.contains("port a: ") && line.contains("warning")
    })
}
