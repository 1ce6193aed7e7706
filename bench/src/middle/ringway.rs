//! `ringway switch` with one worker.

use std::process::Stdio;

use anyhow::Result;
use ringway_tests::Process;
use ringway_vhost::user::frontend::Frontend;

use super::{Place, command, connect_both, log, sockets};

pub(super) fn start(
    place: &Place,
    name: &str,
    options: &[&str],
) -> Result<(Vec<Process>, [Frontend; 2])> {
    let paths = sockets(place, name);
    let mut switch = command(&place.ringway);
    switch.arg("switch").args(["--workers", "1"]);
    switch
        .args(["--cpus", &place.cpu.to_string()])
        .args(options);
    for path in &paths {
        let port = format!("vhost-user,path={}", path.display());
        switch.args(["--port", &port]);
    }
    switch
        .stdin(Stdio::null())
        .stdout(log(&place.folder, name)?)
        .stderr(log(&place.folder, &format!("{name}.messages"))?);
    let process = Process::spawn("ringway switch", &mut switch)?;
    Ok((vec![process], connect_both(&paths)?))
}
