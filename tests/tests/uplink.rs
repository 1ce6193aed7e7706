//! Guests and their host, over a tap with several queues: one guest with every offload, one with none and packed rings, and all three exchange
//! streams. So large segments and partial checksums meet a receiver that takes them, one that does not, and the kernel.

use anyhow::{Context, Result, ensure};
use ringway_tests::{
    Endpoint, Guest, Lab, Need, Netns, Switch,
    audit::{audit, checksum_errors},
    guest::Nic,
    iperf::{Iperf, flows},
    pair::{A, B, boot_both, ping, ping_sized},
    stream::Stream,
    switch::{PortStatistics, QueueStatistics},
};

const HOST: &str = "10.0.0.254";
const QUEUES: u16 = 2;
/// MiB per stream: 5 % of it tell a stream in large segments from one in frames.
const BLOCKS: u64 = 64;

/// CSUM, GUEST_CSUM, GUEST_TSO4/6 and ECN, HOST_TSO4/6 and ECN (virtio 5.1.3).
const OFFLOAD_FEATURES: u64 = 0b11 | 0b111 << 7 | 0b111 << 11;

#[test]
fn guests_and_host_with_and_without_offloads() -> Result<()> {
    let needs = [
        Need::Guests,
        Need::Namespaces,
        Need::Program("socat"),
        Need::Program("openssl"),
        Need::Program("iperf3"),
    ];
    let Some(lab) = Lab::with("uplink", &needs)? else {
        return Ok(());
    };
    let netns = Netns::new()?;
    netns.tap("rw0", QUEUES, &format!("{HOST}/24"))?;
    let mut switch = lab
        .switch()
        .vhost_user("a", QUEUES)
        .vhost_user("b", QUEUES)
        .port(&format!("tap,name=rw0,queues={QUEUES}"))
        .within(&netns)
        .start()?;
    let guest = |name, nic: Nic| lab.guest(name).processors(QUEUES).nic(nic.queues(QUEUES));
    let (a, b) = boot_both(
        guest("a", lab.nic("a")),
        guest("b", lab.nic("b").without_offloads().packed()),
    )?;
    a.configure("eth0", &format!("{A}/24"))?;
    b.configure("eth0", &format!("{B}/24"))?;

    for guest in [&a, &b] {
        ping(guest, HOST, 100)?;
    }
    ping_sized(&a, B, 100, 1472)?;
    features_are_as_asked(&mut switch)?;

    let ends: [(&str, &dyn Endpoint, &str); 3] =
        [("a", &a, A), ("b", &b, B), ("rw0", &netns, HOST)];
    for (key, (from, to)) in (10u8..).zip([(0, 1), (1, 0), (0, 2), (2, 0), (1, 2), (2, 1)]) {
        stream(&lab, &mut switch, key, ends[from], ends[to])?;
    }
    for (name, guest) in [("a", &a), ("b", &b)] {
        for (direction, reverse) in [("to", false), ("from", true)] {
            let run = Iperf::new(guest, &netns, HOST).streams(4);
            let run = if reverse { run.reverse() } else { run };
            let measured = run.until(flows)?;
            lab.report(&format!(
                "TCP {name} {direction} host: {:.0} Mbit/s",
                measured.megabits
            ));
        }
    }

    let statistics = audit(&mut switch, &[&a, &b])?;
    ensure!(checksum_errors(&netns)? == 0);
    let tap = statistics.port("rw0")?;
    lab.report(&format!("tap: {tap:?}"));
    every_tap_queue_carries(tap)?;
    agrees_with_the_kernel(&netns, &mut switch, [&a, &b])
}

fn features_are_as_asked(switch: &mut Switch) -> Result<()> {
    let statistics = switch.statistics()?;
    let offloads =
        |name| -> Result<u64> { Ok(statistics.port(name)?.features()? & OFFLOAD_FEATURES) };
    ensure!(offloads("a")? == OFFLOAD_FEATURES, "{statistics:?}");
    ensure!(offloads("b")? == 0, "{statistics:?}");
    Ok(())
}

/// Sends a stream and looks at the size of the frames it went in.
fn stream(
    lab: &Lab,
    switch: &mut Switch,
    key: u8,
    (from, sender, _): (&str, &dyn Endpoint, &str),
    (to, receiver, address): (&str, &dyn Endpoint, &str),
) -> Result<()> {
    let mut counted = || -> Result<[QueueStatistics; 2]> {
        let statistics = switch.statistics()?;
        statistics.check()?;
        Ok([statistics.port(from)?.sum(), statistics.port(to)?.sum()])
    };
    let before = counted()?;
    let stream = Stream {
        blocks: BLOCKS,
        key,
    };
    let arrived = stream.send(sender, receiver, address)?;
    let after = counted()?;
    let taken = after[0].rx_frames - before[0].rx_frames;
    let given = after[1].tx_frames - before[1].tx_frames;
    lab.report(&format!(
        "TCP stream {from} to {to}: {arrived}; {taken} frames taken, {given} given"
    ));
    // In frames of 1514 bytes at most, it takes this many.
    let frames = arrived.bytes / 1448;
    let [taken_large, given_large] = [taken, given].map(|count| count < frames / 2);
    ensure!(taken_large == (from != "b"), "{from} sent {taken} frames");
    // What comes in small frames goes out in small frames.
    let both = from != "b" && to != "b";
    ensure!(given_large == both, "{to} got {given} frames");
    Ok(())
}

fn every_tap_queue_carries(tap: &PortStatistics) -> Result<()> {
    ensure!(tap.queues.len() == usize::from(QUEUES), "{tap:?}");
    let idle = |queue: &QueueStatistics| queue.rx_frames == 0 || queue.tx_frames == 0;
    ensure!(!tap.queues.iter().any(idle), "an idle queue: {tap:?}");
    Ok(())
}

/// The kernel counted the same frames at its side of the tap.
fn agrees_with_the_kernel(netns: &Netns, switch: &mut Switch, guests: [&Guest; 2]) -> Result<()> {
    // Both are quiet now but for an ARP probe now and then.
    audit(switch, &guests)?;
    let text = netns.sh("ip -j -s link show rw0")?;
    let json: serde_json::Value = serde_json::from_str(&text)?;
    let count = |direction: &str| {
        json[0]["stats64"][direction]["packets"]
            .as_u64()
            .with_context(|| format!("no {direction} in {text}"))
    };
    let kernel = (count("rx")?, count("tx")?);
    let statistics = switch.await_statistics("the kernel's count of frames", |statistics| {
        statistics.port("rw0").is_ok_and(|tap| {
            let tap = tap.sum();
            tap.tx_frames >= kernel.0 && tap.rx_frames >= kernel.1
        })
    })?;
    let tap = statistics.port("rw0")?.sum();
    ensure!(
        tap.tx_frames - kernel.0 < 10 && tap.rx_frames - kernel.1 < 10,
        "the kernel counted {kernel:?}, the switch {tap:?}"
    );
    Ok(())
}
