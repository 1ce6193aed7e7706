//! An Open vSwitch with ports that are vhost-user clients, because only those pass segmentation offload on: we listen.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use ringway_tests::{Process, ovs::Ovs};
use ringway_vhost::user::frontend::Frontend;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::{LIMIT, Place, sockets};
use crate::guest::PATIENCE;
use crate::traffic::Traffic;

pub(super) fn missing() -> Option<String> {
    ringway_tests::ovs::missing()
}

pub(super) fn start(place: &Place, traffic: &Traffic) -> Result<(Vec<Process>, [Frontend; 2])> {
    let mask = format!("pmd-cpu-mask={:#x}", 1u64 << place.cpu);
    let segmentation = format!("userspace-tso-enable={}", traffic.tso);
    let paths = sockets(place, "ovs");
    let listeners = listen(&paths)?;
    let ovs = Ovs::start(
        place.folder.join("ovs"),
        &[
            "dpdk-init=true",
            "dpdk-socket-mem=1024",
            "dpdk-extra=--no-pci --no-telemetry --in-memory --single-file-segments",
            "n-handler-threads=1",
            "n-revalidator-threads=1",
            &mask,
            &segmentation,
        ],
    )?;
    let mtu = if traffic.size > 1518 && !traffic.tso {
        9000
    } else {
        1500
    };
    let mtu = format!("mtu_request={mtu}");
    for (name, path) in ["p0", "p1"].into_iter().zip(&paths) {
        ovs.add_client(name, path, &[&mtu])?;
    }
    let [first, second] = listeners;
    let fronts = [accept(&first)?, accept(&second)?];
    Ok((ovs.into_processes().into(), fronts))
}

fn listen(paths: &[PathBuf; 2]) -> Result<[UnixListener; 2]> {
    let bind = |path: &PathBuf| {
        let _ = std::fs::remove_file(path);
        UnixListener::bind(path).with_context(|| format!("cannot listen at {}", path.display()))
    };
    Ok([bind(&paths[0])?, bind(&paths[1])?])
}

fn accept(listener: &UnixListener) -> Result<Frontend> {
    let limit = Timespec::try_from(LIMIT)?;
    let mut waiting = [PollFd::new(listener, PollFlags::IN)];
    if poll(&mut waiting, Some(&limit))? == 0 {
        bail!("OVS did not connect within {LIMIT:?}");
    }
    let (stream, _) = listener.accept()?;
    Ok(Frontend::new(OwnedFd::from(stream), PATIENCE)?)
}
