//! `ringway switch` with one worker.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use ringway_tests::Process;
use ringway_vhost::user::frontend::Frontend;

use super::{IDLE, LEARNED, LIMIT, Place, command, connect_both, log, sockets};
use crate::frames::station;
use crate::guest::{Guest, connect};
use crate::traffic::Traffic;

type Started = (Vec<Process>, [Frontend; 2]);

/// Two ports and these options.
pub(super) fn start(place: &Place, name: &str, options: &[&str]) -> Result<Started> {
    let paths = sockets(place, name);
    let process = spawn(place, name, options, &ports_at(&paths, 1))?;
    Ok((vec![process], connect_both(&paths)?))
}

/// Two ports for traffic, and many with guests that are silent.
pub(super) fn crowded(place: &Place, idle: &mut Vec<Guest>) -> Result<Started> {
    let paths = sockets(place, "rwc");
    let others = numbered(place, "i", IDLE);
    let ports = [ports_at(&paths, 1), ports_at(&others, 1)].concat();
    let process = spawn(place, "rwc", &["--poll", "adaptive"], &ports)?;
    for path in &others {
        idle.push(Guest::start(connect(path, LIMIT)?, &Traffic::idle())?);
    }
    Ok((vec![process], connect_both(&paths)?))
}

/// Two ports for traffic, and one behind which there are many addresses.
pub(super) fn learned(place: &Place, idle: &mut Vec<Guest>) -> Result<Started> {
    let paths = sockets(place, "rwl");
    let crowd = numbered(place, "l", 1);
    let ports = [ports_at(&paths, 1), ports_at(&crowd, 1)].concat();
    let process = spawn(place, "rwl", &["--poll", "adaptive"], &ports)?;
    let mut guest = Guest::start(connect(&crowd[0], LIMIT)?, &Traffic::idle())?;
    let end = Instant::now() + LIMIT;
    let mut frames = (0..LEARNED).map(station).peekable();
    while frames.peek().is_some() {
        // Nobody else is there yet, so that none of them goes anywhere.
        for buffer in 0..usize::from(Traffic::idle().ring) {
            let Some(frame) = frames.next() else { break };
            guest.tx.fill(buffer, &[0; 12], &frame)?;
            guest.tx.send(1, frame.len(), false, None)?;
        }
        while !guest.tx.reclaim_all()? {
            if Instant::now() > end {
                bail!("the switch takes too long to learn {LEARNED} addresses");
            }
            std::thread::sleep(Duration::from_micros(50));
        }
    }
    idle.push(guest);
    Ok((vec![process], connect_both(&paths)?))
}

/// Many ports of two pairs of queues with silent guests.
pub(super) fn ports(place: &Place, count: usize) -> Result<(Process, Vec<Guest>)> {
    let paths = numbered(place, "p", count);
    let process = spawn(place, "rwp", &["--poll", "adaptive"], &ports_at(&paths, 2))?;
    let traffic = Traffic {
        queue_pairs: 2,
        ..Traffic::idle()
    };
    let guests = paths
        .iter()
        .map(|path| Guest::start(connect(path, LIMIT)?, &traffic));
    Ok((process, guests.collect::<Result<_>>()?))
}

fn numbered(place: &Place, name: &str, count: usize) -> Vec<PathBuf> {
    let path = |number| place.folder.join(format!("{name}{number}"));
    (0..count).map(path).collect()
}

fn ports_at(paths: &[PathBuf], pairs: u16) -> Vec<String> {
    let port = |path: &PathBuf| format!("vhost-user,path={},queues={pairs}", path.display());
    paths.iter().map(port).collect()
}

fn spawn(place: &Place, name: &str, options: &[&str], ports: &[String]) -> Result<Process> {
    let mut switch = command(&place.ringway);
    switch.arg("switch").args(["--workers", "1"]);
    switch
        .args(["--cpus", &place.cpu.to_string()])
        .args(options);
    for port in ports {
        switch.args(["--port", port]);
    }
    switch
        .stdin(Stdio::null())
        .stdout(log(&place.folder, name)?)
        .stderr(log(&place.folder, &format!("{name}.messages"))?);
    Process::spawn("ringway switch", &mut switch)
}
