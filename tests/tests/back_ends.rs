//! Our front-end drives back-ends that are not ours, DPDK's net_vhost and Open vSwitch, and our own beside them: every byte arrives,
//! both ways, with every ring layout they offer; rings stop and go on; back-ends go and come back.

use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use ringway_tests::{Lab, Need, Process, ovs::Ovs, testpmd::Testpmd};
use ringway_vhost::user::features as bits;
use ringway_vhost::user::frontend::Frontend;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};

#[path = "back_ends/crossing.rs"]
mod crossing;
#[path = "back_ends/nic.rs"]
mod nic;

use crossing::{Crossing, mac};
use nic::{Nic, Options, speaks};

/// Longest wait for an answer, or for a back-end to connect.
const PATIENCE: Duration = Duration::from_secs(20);
/// Frames each way of one crossing.
const FRAMES: u32 = 500;
/// Queue pairs of a back-end's ports.
const PAIRS: u16 = 2;
const RARP: [u8; 2] = [0x80, 0x35];

#[test]
fn net_vhost_that_listens() -> Result<()> {
    let Some(lab) = Lab::with("net-vhost", &[Need::Program("dpdk-testpmd")])? else {
        return Ok(());
    };
    let mut testpmd = net_vhost(&lab, "")?;
    let connect = |side: usize| Ok(Frontend::connect(&paths(&lab)[side], PATIENCE)?);
    every_layout(&lab, connect)?;
    for packed in [false, true] {
        everything_in_a_life(&lab, packed, connect)?;
    }
    for packed in [false, true] {
        let mut crossing = start(usual(packed), connect)?;
        crossing.greet()?;
        crossing.exchange(FRAMES)?;
        testpmd.process().kill();
        for path in paths(&lab) {
            std::fs::remove_file(path)?;
        }
        testpmd = net_vhost(&lab, "")?;
        for side in 0..2 {
            crossing.nics[side].reconnect(connect(side)?)?;
        }
        crossing.greet()?;
        let carried = crossing.exchange(FRAMES)?;
        lab.report(&format!(
            "packed={packed}: killed and started anew, then {} frames, {} bytes, all as sent",
            carried.frames, carried.bytes
        ));
        leave(crossing)?;
    }
    testpmd.quit()
}

#[test]
fn net_vhost_that_connects() -> Result<()> {
    let Some(lab) = Lab::with("net-vhost-client", &[Need::Program("dpdk-testpmd")])? else {
        return Ok(());
    };
    let listeners = listen(&lab)?;
    let testpmd = net_vhost(&lab, ",client=1")?;
    every_layout(&lab, |side| accept(&listeners[side]))?;
    testpmd.quit()
}

#[test]
fn open_vswitch() -> Result<()> {
    let Some(lab) = Lab::with("ovs", &[Need::Root, Need::Ovs])? else {
        return Ok(());
    };
    let listeners = listen(&lab)?;
    let mask = format!("pmd-cpu-mask={:#x}", first_processor()?);
    let ovs = Ovs::start(
        lab.log("ovs"),
        &[
            "dpdk-init=true",
            "dpdk-extra=--no-huge --legacy-mem --no-pci --no-telemetry --no-shconf -m 512",
            // Else its pool of buffers is larger than that.
            "per-port-memory=true",
            "n-handler-threads=1",
            "n-revalidator-threads=1",
            &mask,
        ],
    )?;
    for (name, path) in ["p0", "p1"].into_iter().zip(paths(&lab)) {
        ovs.add_client(name, &path, &[])?;
    }
    let connect = |side: usize| accept(&listeners[side]);
    every_layout(&lab, connect)?;
    for packed in [false, true] {
        everything_in_a_life(&lab, packed, connect)?;
    }
    end(ovs)
}

#[test]
fn our_own_switch() -> Result<()> {
    let Some(lab) = Lab::with("own-back-end", &[])? else {
        return Ok(());
    };
    let switch = lab.switch().vhost_user("p0", PAIRS).vhost_user("p1", PAIRS);
    let switch = switch.start()?;
    let connect = |side: usize| Ok(Frontend::connect(&paths(&lab)[side], PATIENCE)?);
    every_layout(&lab, connect)?;
    for packed in [false, true] {
        everything_in_a_life(&lab, packed, connect)?;
    }
    switch.stop()
}

/// The file in which it kept where packed rings stand is gone, as with a host's `/run`; the front-end's region is not.
#[test]
fn our_own_switch_is_killed_and_goes_on_where_the_region_says() -> Result<()> {
    let Some(lab) = Lab::with("own-inflight", &[])? else {
        return Ok(());
    };
    let begin = || {
        let switch = lab.switch().vhost_user("p0", PAIRS);
        switch.vhost_user("p1", PAIRS).start()
    };
    let connect = |side: usize| Ok(Frontend::connect(&paths(&lab)[side], PATIENCE)?);
    let mut switch = begin()?;
    for packed in [false, true] {
        let mut crossing = start(usual(packed), connect)?;
        for nic in &mut crossing.nics {
            nic.track_inflight()?;
        }
        crossing.greet()?;
        for round in 0..6 {
            let carried = crossing.exchange(FRAMES)?;
            lab.report(&format!(
                "packed={packed}, killed {round} times: {} frames, {} bytes, all as sent",
                carried.frames, carried.bytes
            ));
            switch.kill();
            for path in paths(&lab) {
                // There is none of rings that have a region.
                let _ = std::fs::remove_file(path.with_extension("journal"));
            }
            switch = begin()?;
            for side in 0..2 {
                crossing.nics[side].reconnect_as_told(connect(side)?)?;
            }
            crossing.greet()?;
        }
        leave(crossing)?;
    }
    switch.stop()
}

/// Frames cross with every combination of what is negotiated.
fn every_layout(lab: &Lab, connect: impl Fn(usize) -> Result<Frontend>) -> Result<()> {
    for packed in [false, true] {
        for pairs in [1, PAIRS] {
            for (mergeable, indirect) in [(true, true), (true, false), (false, true)] {
                let options = Options {
                    packed,
                    mergeable,
                    indirect,
                    pairs,
                };
                let mut crossing =
                    start(options, &connect).with_context(|| format!("{options:?}"))?;
                crossing.greet().with_context(|| format!("{options:?}"))?;
                let carried = crossing
                    .exchange(FRAMES)
                    .with_context(|| format!("{options:?}"))?;
                lab.report(&format!(
                    "packed={packed} pairs={pairs} mergeable={mergeable} indirect={indirect}: {} frames, {} bytes over {} of {} receive rings, all as sent",
                    carried.frames,
                    carried.bytes,
                    carried.pairs.len(),
                    2 * pairs
                ));
                leave(crossing)?;
            }
        }
    }
    Ok(())
}

/// Stop and go on, fewer pairs and all again, an announcement, a dirty log, a connection made anew.
fn everything_in_a_life(
    lab: &Lab,
    packed: bool,
    connect: impl Fn(usize) -> Result<Frontend>,
) -> Result<()> {
    let mut crossing = start(usual(packed), &connect)?;
    crossing.greet()?;
    crossing.exchange(FRAMES)?;
    for nic in &mut crossing.nics {
        ensure!(speaks(nic, bits::VHOST_USER_PROTOCOL_F_REPLY_ACK));
        ensure!(nic.device.set_mtu(1500)?, "the MTU could not be told");
        nic.stop_and_go_on()?;
    }
    crossing.greet()?;
    crossing.exchange(FRAMES)?;

    for nic in &mut crossing.nics {
        nic.device.enable(1)?;
    }
    crossing.use_pairs(1);
    crossing.greet()?;
    let carried = crossing.exchange(FRAMES)?;
    ensure!(carried.pairs.iter().all(|&(_, pair)| pair == 0));
    for nic in &mut crossing.nics {
        nic.device.enable(PAIRS)?;
    }
    crossing.use_pairs(PAIRS);
    crossing.greet()?;
    crossing.exchange(FRAMES)?;

    ensure!(crossing.nics[0].device.announce(mac(0))?, "no RARP");
    crossing.await_foreign(1, |bytes| {
        bytes.get(6..12) == Some(&mac(0)) && bytes.get(12..14) == Some(&RARP)
    })?;

    let marked = logged(&mut crossing)?;
    if bits::has(
        crossing.nics[0].device.protocol_features(),
        bits::VHOST_USER_PROTOCOL_F_RESET_DEVICE,
    ) {
        crossing.nics[0].reset_and_go_on()?;
        crossing.greet()?;
        crossing.exchange(FRAMES)?;
    }

    for side in 0..2 {
        crossing.nics[side].device.frontend().leave()?;
        crossing.nics[side].reconnect(connect(side)?)?;
    }
    crossing.greet()?;
    let carried = crossing.exchange(FRAMES)?;
    lab.report(&format!(
        "packed={packed}: stopped, went on, {marked} pages marked, reconnected; then {} frames, {} bytes, all as sent",
        carried.frames, carried.bytes
    ));
    leave(crossing)
}

/// Pages that the back-end writes are marked while there is a log, and no longer than that. How many were.
fn logged(crossing: &mut Crossing) -> Result<u32> {
    let nic = &mut crossing.nics[1];
    let size = nic.log_size();
    let log = memfd_create("log", MemfdFlags::CLOEXEC)?;
    ftruncate(&log, size)?;
    nic.device.start_log(log.try_clone()?, size, 0)?;
    nic.written.clear();
    crossing.exchange(FRAMES)?;
    let read = || -> Result<Vec<u8>> {
        let mut bytes = vec![0; usize::try_from(size)?];
        ensure!(rustix::io::pread(&log, &mut bytes, 0)? == bytes.len());
        Ok(bytes)
    };
    let bytes = read()?;
    let nic = &mut crossing.nics[1];
    ensure!(!nic.written.is_empty());
    for &page in &nic.written {
        let byte = bytes[usize::try_from(page / 8)?];
        ensure!(byte >> (page % 8) & 1 == 1, "page {page:#x} is not marked");
    }
    let marked = bytes.iter().map(|byte| byte.count_ones()).sum();
    nic.device.stop_log()?;
    ftruncate(&log, 0)?;
    ftruncate(&log, size)?;
    crossing.exchange(FRAMES)?;
    ensure!(read()?.iter().all(|&byte| byte == 0), "marked without need");
    Ok(marked)
}

fn usual(packed: bool) -> Options {
    Options {
        packed,
        mergeable: true,
        indirect: true,
        pairs: PAIRS,
    }
}

fn start(options: Options, connect: impl Fn(usize) -> Result<Frontend>) -> Result<Crossing> {
    let nic = |side| Nic::start(connect(side)?, options);
    Ok(Crossing::new([nic(0)?, nic(1)?], options.pairs))
}

/// Both cards leave, and their back-end has noticed.
fn leave(mut crossing: Crossing) -> Result<()> {
    for nic in &mut crossing.nics {
        nic.device.stop()?;
        nic.device.frontend().leave()?;
    }
    Ok(())
}

fn paths(lab: &Lab) -> [PathBuf; 2] {
    ["p0", "p1"].map(|name| lab.path(name))
}

fn listen(lab: &Lab) -> Result<[UnixListener; 2]> {
    let [first, second] = paths(lab);
    Ok([UnixListener::bind(first)?, UnixListener::bind(second)?])
}

fn accept(listener: &UnixListener) -> Result<Frontend> {
    let limit = Timespec::try_from(PATIENCE)?;
    if poll(&mut [PollFd::new(listener, PollFlags::IN)], Some(&limit))? == 0 {
        bail!("nobody connected within {PATIENCE:?}");
    }
    Ok(Frontend::new(listener.accept()?.0.into(), PATIENCE)?)
}

/// A testpmd that sends what comes in at one back-end out at the other.
fn net_vhost(lab: &Lab, arguments: &str) -> Result<Testpmd> {
    let [first, second] = paths(lab).map(|path| path.display().to_string());
    let device = |index, path| format!("net_vhost{index},iface={path},queues={PAIRS}{arguments}");
    let devices = [device(0, first), device(1, second)];
    let mut testpmd = Testpmd::start(lab, "net_vhost", &devices, PAIRS)?;
    testpmd.command("set fwd io")?;
    testpmd.command("start")?;
    Ok(testpmd)
}

/// Both processes have to end in order.
fn end(ovs: Ovs) -> Result<()> {
    for mut process in ovs.into_processes() {
        stop(&mut process)?;
    }
    Ok(())
}

fn stop(process: &mut Process) -> Result<()> {
    process.signal(rustix::process::Signal::TERM)?;
    process.wait(PATIENCE).map(drop)
}

/// The first processor that we may use, as a mask.
fn first_processor() -> Result<u128> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("Cpus_allowed:"));
    let digits = line.context("no Cpus_allowed")?.trim().replace(',', "");
    let mask = u128::from_str_radix(
        digits.get(digits.len().saturating_sub(32)..).unwrap_or("0"),
        16,
    )?;
    Ok(mask & mask.wrapping_neg())
}
