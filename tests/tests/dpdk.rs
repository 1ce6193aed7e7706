//! DPDK's virtio-user as a driver that is not ours: every byte arrives, and drivers may come and go.

use anyhow::{Context, Result, ensure};
use ringway_tests::{Lab, Need, crossing::Crossing, switch::Footprint};

const NEEDS: [Need; 1] = [Need::Program("dpdk-testpmd")];
/// Virtio feature bits (virtio 6 and 5.1.3).
const MRG_RXBUF: u64 = 1 << 15;
const RING_PACKED: u64 = 1 << 34;
const IN_ORDER: u64 = 1 << 35;

#[test]
fn every_byte_arrives_with_every_ring_layout() -> Result<()> {
    let Some(lab) = Lab::with("dpdk", &NEEDS)? else {
        return Ok(());
    };
    let both = [true, false];
    for packed in both {
        for queues in [1, 2] {
            for mergeable in both {
                for in_order in both {
                    let crossing = Crossing {
                        ports: ["a", "b"],
                        queues,
                        mergeable,
                        in_order,
                        packed,
                        vectorized: false,
                        frames: 20_000,
                    };
                    crosses(&lab, crossing)?;
                    // Where DPDK has vectors for it; on processors without them it does as before.
                    if packed && in_order && !mergeable {
                        let vectorized = true;
                        crosses(
                            &lab,
                            Crossing {
                                vectorized,
                                ..crossing
                            },
                        )?;
                    }
                }
            }
        }
    }
    Ok(())
}

fn crosses(lab: &Lab, crossing: Crossing<'_>) -> Result<()> {
    let mut switch = lab
        .switch()
        .vhost_user("a", crossing.queues)
        .vhost_user("b", crossing.queues)
        .start()?;
    let run = crossing.start(lab)?;
    let total = 2 * crossing.frames as u64;
    let statistics =
        switch.await_statistics("all frames", |statistics| statistics.attempted >= total)?;
    for port in ["a", "b"] {
        let features = statistics.port(port)?.features()?;
        let wanted = [crossing.mergeable, crossing.in_order, crossing.packed];
        let negotiated = [MRG_RXBUF, IN_ORDER, RING_PACKED].map(|bit| features & bit != 0);
        ensure!(negotiated == wanted, "{features:#x} for {crossing:?}");
    }
    let bytes = run.finish(&mut switch)?;

    let statistics = switch.statistics()?;
    statistics.check()?;
    ensure!(statistics.delivered == total, "{statistics:?}");
    ensure!(statistics.copied_bytes == bytes, "{statistics:?}");
    for port in &statistics.ports {
        let idle = port
            .queues
            .iter()
            .any(|queue| queue.rx_frames == 0 || queue.tx_frames == 0);
        ensure!(!idle, "an idle queue: {port:?}");
    }
    let Crossing {
        queues,
        mergeable,
        in_order,
        packed,
        vectorized,
        ..
    } = crossing;
    lab.report(&format!(
        "queues={queues} mrg_rxbuf={mergeable} in_order={in_order} packed={packed} vectorized={vectorized}: {total} frames, {bytes} bytes, all as sent"
    ));
    Ok(())
}

#[test]
fn fifty_drivers_come_and_go_and_leave_nothing() -> Result<()> {
    const ROUNDS: u32 = 50;
    let Some(lab) = Lab::with("dpdk-reconnect", &NEEDS)? else {
        return Ok(());
    };
    let mut switch = lab.switch().vhost_user("a", 1).vhost_user("b", 1).start()?;
    let mut settled = None;
    for round in 1..=ROUNDS {
        let crossing = Crossing {
            ports: ["a", "b"],
            queues: 1,
            mergeable: true,
            in_order: true,
            packed: round % 2 == 0,
            vectorized: false,
            frames: 500,
        };
        let run = crossing.start(&lab)?;
        if round % 5 == 0 {
            run.kill(&mut switch)?;
        } else {
            run.finish(&mut switch)?;
        }
        switch.statistics()?.check()?;
        // What is allocated once and kept, is by now.
        if round == 5 {
            settled = Some(switch.footprint()?);
        }
    }
    let settled = settled.context("no footprint")?;
    let now = switch.footprint()?;
    lab.report(&format!(
        "after 5 drivers the switch held {settled:?}, after {ROUNDS} {now:?}"
    ));
    let held = |footprint: Footprint| (footprint.files, footprint.mappings, footprint.threads);
    ensure!(held(now) == held(settled));
    // Less than 8 KiB per driver; a forgotten ring would be more.
    ensure!(now.resident_kib < settled.resident_kib + 8 * u64::from(ROUNDS - 5));
    Ok(())
}
