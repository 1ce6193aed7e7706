//! testpmd between two vhost-user back-ends of DPDK.

use std::process::Stdio;

use anyhow::Result;
use ringway_tests::Process;
use ringway_vhost::user::frontend::Frontend;

use super::{Place, command, connect_both, installed, log, sockets};
use crate::traffic::{BUFFER, Traffic};

pub(super) fn missing() -> Option<String> {
    (!installed("dpdk-testpmd"))
        .then(|| "dpdk-testpmd is not installed: `scripts/setup peers` brings it".into())
}

pub(super) fn start(place: &Place, traffic: &Traffic) -> Result<(Vec<Process>, [Frontend; 2])> {
    let paths = sockets(place, "tp");
    for path in &paths {
        // Of the row before, when it was killed.
        let _ = std::fs::remove_file(path);
    }
    let mut testpmd = command("dpdk-testpmd");
    let cpu = place.cpu;
    testpmd
        // The one that only waits shares the processor with the one that forwards.
        .args(["--lcores", &format!("0@{cpu},1@{cpu}"), "--main-lcore", "0"])
        .args(["-m", "512", "--single-file-segments", "--in-memory"])
        .args(["--no-pci", "--no-telemetry", "--log-level", "4"]);
    for (index, path) in paths.iter().enumerate() {
        let tso = if traffic.tso { ",tso=1" } else { "" };
        let device = format!("net_vhost{index},iface={},queues=1{tso}", path.display());
        testpmd.args(["--vdev", &device]);
    }
    testpmd
        .args(["--", "--auto-start", "--forward-mode=io", "--nb-cores=1"])
        .args(["--rxd=1024", "--txd=1024"])
        // Without a prompt it ends at once, unless it has statistics to print.
        .args(["--stats-period", "3600"]);
    if traffic.size > BUFFER || traffic.tso {
        testpmd.args(["--mbuf-size=2176", "--total-num-mbufs=32768"]);
    } else {
        testpmd.arg("--total-num-mbufs=16384");
    }
    testpmd
        .stdin(Stdio::null())
        .stdout(log(&place.folder, "testpmd")?)
        .stderr(log(&place.folder, "testpmd.messages")?);
    let process = Process::spawn("dpdk-testpmd", &mut testpmd)?;
    Ok((vec![process], connect_both(&paths)?))
}
