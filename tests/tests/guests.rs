//! Two Linux guests at one switch. Each test boots once and then asks many things of the same pair.

use anyhow::{Result, ensure};
use ringway_tests::{
    Lab, Need, Pair,
    audit::audit,
    iperf::{Iperf, flows},
    pair::{A, B},
    stream::{BLOCK, Stream},
};

#[test]
fn one_queue_pair() -> Result<()> {
    let Some(lab) = Lab::with("guests-1", &[Need::Guests])? else {
        return Ok(());
    };
    let mut pair = Pair::new(&lab, 1)?;
    serves(&lab, &mut pair, 1)?;
    small_and_large_datagrams(&lab, &pair)?;
    jumbo_frames(&lab, &pair)?;
    report(&lab, &mut pair)
}

#[test]
fn two_queue_pairs_and_a_gigabyte() -> Result<()> {
    let Some(lab) = Lab::with("guests-2", &[Need::Guests])? else {
        return Ok(());
    };
    let mut pair = Pair::new(&lab, 2)?;
    serves(&lab, &mut pair, 2)?;

    let before = pair.statistics()?.copied_bytes;
    let gigabyte = Stream {
        blocks: 1 << 30 >> 20,
        key: 1,
    };
    let arrived = gigabyte.send(&pair.a, &pair.b, B)?;
    lab.report(&format!("TCP stream a to b: {arrived}"));
    let copied = pair.statistics()?.copied_bytes - before;
    ensure!(
        copied >= arrived.bytes && copied < arrived.bytes + arrived.bytes / 10,
        "{copied} bytes were copied for a stream of {}",
        arrived.bytes
    );
    report(&lab, &mut pair)
}

#[test]
fn eight_queue_pairs() -> Result<()> {
    let Some(lab) = Lab::with("guests-8", &[Need::Guests])? else {
        return Ok(());
    };
    // With the MTU told by the device, too.
    let nic = |name| lab.nic(name).queues(8).mtu(9000);
    let mut pair = Pair::with(&lab, 8, nic("a"), nic("b"))?;
    for guest in [&pair.a, &pair.b] {
        let link = guest.sh("ip link show eth0")?;
        ensure!(link.contains(" mtu 9000 "), "{link}");
    }
    pair.ping(50, 8972)?;
    serves(&lab, &mut pair, 8)?;
    report(&lab, &mut pair)
}

#[test]
fn packed_rings_between_guests() -> Result<()> {
    const RING_PACKED: usize = 34;
    let Some(lab) = Lab::with("guests-packed", &[Need::Guests])? else {
        return Ok(());
    };
    let nic = |name| lab.nic(name).queues(2);
    let mut pair = Pair::with(&lab, 2, nic("a").packed(), nic("b").packed())?;
    for port in pair.statistics()?.ports {
        ensure!(port.features()? & 1 << RING_PACKED != 0, "{port:?}");
    }
    for guest in [&pair.a, &pair.b] {
        ensure!(
            guest.negotiated("eth0", RING_PACKED)?,
            guest.name().to_owned()
        );
    }
    serves(&lab, &mut pair, 2)?;
    for (from, to, address) in [(&pair.a, &pair.b, B), (&pair.b, &pair.a, A)] {
        let arrived = Stream { blocks: 32, key: 3 }.send(from, to, address)?;
        lab.report(&format!("TCP stream, packed rings: {arrived}"));
    }
    report(&lab, &mut pair)
}

/// What every number of queue pairs must do.
fn serves(lab: &Lab, pair: &mut Pair, queues: u16) -> Result<()> {
    for guest in [&pair.a, &pair.b] {
        let channels = guest.sh("ethtool -l eth0")?;
        let combined = channels.matches(&format!("Combined:\t{queues}\n")).count();
        ensure!(
            combined == 2,
            "not {queues} of {queues} pairs in use: {channels}"
        );
    }
    pair.ping(200, 56)?;
    pair.ping(20, 1472)?;
    for (direction, run) in [
        ("a to b", Iperf::new(&pair.a, &pair.b, B)),
        ("b to a", Iperf::new(&pair.a, &pair.b, B).reverse()),
    ] {
        let streams = queues.min(4);
        let measured = run.streams(streams).until(flows)?;
        lab.report(&format!(
            "TCP {direction}, {streams} streams: {:.0} Mbit/s",
            measured.megabits
        ));
    }
    pair.every_queue_pair_carries(lab, queues)
}

fn small_and_large_datagrams(lab: &Lab, pair: &Pair) -> Result<()> {
    for (length, megabits) in [(64, 2), (1472, 40)] {
        for (direction, reverse) in [("a to b", false), ("b to a", true)] {
            let run = Iperf::new(&pair.a, &pair.b, B).udp(length, megabits);
            let run = if reverse { run.reverse() } else { run };
            // A guest that is late loses some at its socket.
            let measured = run.until(|got| got.sent > 1000 && got.lost * 100 <= got.sent)?;
            lab.report(&format!(
                "UDP {length} B {direction}: {:.1} Mbit/s, {} of {} lost",
                measured.megabits, measured.lost, measured.sent
            ));
        }
    }
    Ok(())
}

fn jumbo_frames(lab: &Lab, pair: &Pair) -> Result<()> {
    for guest in [&pair.a, &pair.b] {
        guest.sh("ip link set eth0 mtu 9000")?;
    }
    pair.ping(50, 8972)?;
    // Without segmentation offload every frame has the MTU's size.
    for guest in [&pair.a, &pair.b] {
        guest.sh("ethtool -K eth0 tso off gso off")?;
    }
    let measured = Iperf::new(&pair.a, &pair.b, B).until(flows)?;
    lab.report(&format!(
        "TCP a to b, MTU 9000, no TSO: {:.0} Mbit/s",
        measured.megabits
    ));
    let stream = Stream { blocks: 32, key: 2 };
    let arrived = stream.send(&pair.b, &pair.a, A)?;
    ensure!(arrived.bytes == 32 * BLOCK);
    lab.report(&format!("TCP stream b to a, MTU 9000, no TSO: {arrived}"));
    Ok(())
}

/// The counters of both guests and of the switch agree, to the byte.
fn report(lab: &Lab, pair: &mut Pair) -> Result<()> {
    let statistics = audit(&mut pair.switch, &[&pair.a, &pair.b])?;
    let ports = &statistics.ports;
    let sent: u64 = ports.iter().map(|port| port.sum().rx_bytes).sum();
    let missed: u64 = ports.iter().map(|port| port.sum().missed_kicks).sum();
    let copied = statistics.copied_bytes;
    lab.report(&format!(
        "guests and switch agree: {} frames attempted, {} delivered, {} dropped; {sent} bytes sent, {copied} copied; {missed} kicks late or lost",
        statistics.attempted, statistics.delivered, statistics.dropped
    ));
    // A guest that is slower than its peer may run out of buffers; nothing else may happen to a frame.
    for port in ports {
        ensure!(
            port.drops.keys().all(|reason| reason == "no_buffers"),
            "{port:?}"
        );
    }
    let lossless = statistics.dropped == 0;
    ensure!(copied == sent || !lossless && copied < sent);
    Ok(())
}
