//! DPDK's virtio-user as a driver that is not ours: every byte of every frame is compared, and it may come and go.
//!
//! One testpmd has four ports: frames come from a capture file, go into the switch by one virtio-user device, come out of it by
//! the other and into another capture file; and the same the other way.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use ringway_tests::{
    Lab, Need, Switch, pcap,
    testpmd::{Testpmd, VirtioUser},
};

const NEEDS: [Need; 1] = [Need::Program("dpdk-testpmd")];
/// Virtio feature bits (virtio 6 and 5.1.3).
const MRG_RXBUF: u64 = 1 << 15;
const IN_ORDER: u64 = 1 << 35;

#[test]
fn every_byte_arrives_with_every_ring_layout() -> Result<()> {
    let Some(lab) = Lab::with("dpdk", &NEEDS)? else {
        return Ok(());
    };
    for queues in [1, 2] {
        for mergeable in [true, false] {
            for in_order in [true, false] {
                let variant = Variant {
                    queues,
                    mergeable,
                    in_order,
                    frames: 20_000,
                };
                crosses(&lab, variant)?;
            }
        }
    }
    Ok(())
}

#[test]
fn fifty_drivers_come_and_go_and_leave_nothing() -> Result<()> {
    const ROUNDS: u32 = 50;
    let Some(lab) = Lab::with("dpdk-reconnect", &NEEDS)? else {
        return Ok(());
    };
    let mut switch = lab.switch().vhost_user("a", 1).vhost_user("b", 1).start()?;
    let traffic = [frames(500, 1514, 1), frames(500, 1514, 2)];
    let variant = Variant {
        queues: 1,
        mergeable: true,
        in_order: true,
        frames: 500,
    };
    let mut settled = None;
    for round in 1..=ROUNDS {
        let run = Run::start(&lab, variant, &traffic)?;
        // Every fifth one is killed, in the middle of whatever it does.
        if round % 5 == 0 {
            run.kill(&mut switch)?;
        } else {
            let arrived = run.finish(&mut switch, 500)?;
            for (sent, arrived) in traffic.iter().zip(&arrived) {
                compare(sent, arrived, true)?;
            }
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
        "after 5 drivers {settled:?}, after {ROUNDS} {now:?}"
    ));
    ensure!(
        (now.files, now.mappings, now.threads)
            == (settled.files, settled.mappings, settled.threads)
    );
    // Less than 8 KiB per driver; one page table or ring forgotten would be more.
    ensure!(now.resident_kib < settled.resident_kib + 8 * u64::from(ROUNDS - 5));
    Ok(())
}

#[derive(Debug, Clone, Copy)]
struct Variant {
    queues: u16,
    mergeable: bool,
    in_order: bool,
    frames: usize,
}

fn crosses(lab: &Lab, variant: Variant) -> Result<()> {
    let mut switch = lab
        .switch()
        .vhost_user("a", variant.queues)
        .vhost_user("b", variant.queues)
        .start()?;
    // Buffers of testpmd hold 2048 bytes: longer frames are for drivers that merge them.
    let longest = if variant.mergeable { 9000 } else { 1514 };
    let traffic = [
        frames(variant.frames, longest, 1),
        frames(variant.frames, longest, 2),
    ];
    let run = Run::start(lab, variant, &traffic)?;
    let total = 2 * variant.frames as u64;
    let statistics =
        switch.await_statistics("all frames", |statistics| statistics.attempted >= total)?;
    for port in ["a", "b"] {
        let features = statistics.port(port)?.features()?;
        ensure!(
            (features & MRG_RXBUF != 0) == variant.mergeable,
            "{features:#x}"
        );
        ensure!(
            (features & IN_ORDER != 0) == variant.in_order,
            "{features:#x}"
        );
    }
    let arrived = run.finish(&mut switch, variant.frames as u64)?;
    let statistics = switch.statistics()?;
    statistics.check()?;
    ensure!(statistics.dropped == 0, "{statistics:?}");
    for (sent, arrived) in traffic.iter().zip(&arrived) {
        compare(sent, arrived, variant.queues == 1)?;
    }
    let bytes: usize = traffic.iter().flatten().map(Vec::len).sum();
    ensure!(statistics.copied_bytes == bytes as u64, "{statistics:?}");
    let queues = &statistics.port("b")?.queues;
    ensure!(
        queues
            .iter()
            .all(|queue| queue.rx_frames > 0 && queue.tx_frames > 0),
        "{queues:?}"
    );
    lab.report(&format!(
        "{variant:?}: {total} frames, {bytes} bytes, all as sent"
    ));
    Ok(())
}

/// Two streams of frames that cross in a testpmd.
struct Run {
    testpmd: Testpmd,
    outputs: [Vec<PathBuf>; 2],
}

impl Run {
    fn start(lab: &Lab, variant: Variant, traffic: &[Vec<Vec<u8>>; 2]) -> Result<Self> {
        let Variant {
            queues,
            mergeable,
            in_order,
            ..
        } = variant;
        let files = |direction: &str, side: usize| -> Vec<PathBuf> {
            (0..queues)
                .map(|queue| lab.path(&format!("{direction}{side}.{queue}.pcap")))
                .collect()
        };
        for (side, frames) in traffic.iter().enumerate() {
            let inputs = files("in", side);
            // Every queue sends as fast as the others take: most frames go by one, so that what two queues send together never
            // meets in one.
            let few = frames.len() / 50;
            let (most, few) = frames.split_at(frames.len() - few * (inputs.len() - 1));
            pcap::write(&inputs[0], most)?;
            for input in &inputs[1..] {
                pcap::write(input, few)?;
            }
        }
        let device = |name| {
            VirtioUser::new(&lab.path(name))
                .with(&format!("queues={queues},queue_size=1024"))
                .with(&format!(
                    "mrg_rxbuf={},in_order={}",
                    u8::from(mergeable),
                    u8::from(in_order)
                ))
        };
        let capture = |side: usize| {
            let inputs = files("in", side);
            let outputs = files("out", side);
            let list = |key: &str, paths: &[PathBuf]| -> String {
                paths
                    .iter()
                    .map(|path| format!(",{key}={}", path.display()))
                    .collect()
            };
            format!(
                "net_pcap{side}{}{}",
                list("rx_pcap", &inputs),
                list("tx_pcap", &outputs)
            )
        };
        let devices = [
            capture(0),
            device("a").device(0),
            device("b").device(1),
            capture(1),
        ];
        // At its start testpmd would throw away what waits, which is the whole file. Then it sends and takes a burst in turns;
        // with few frames under way, those it has not taken yet always fit into the other device's ring.
        let options = ["--no-flush-rx", "--txd=64"];
        let mut testpmd = Testpmd::start_with(lab, "virtio-user", &devices, queues, &options)?;
        testpmd.command("set burst tx delay 10 retry 1000000")?;
        testpmd.command("set fwd io retry")?;
        testpmd.command("start")?;
        Ok(Self {
            testpmd,
            outputs: [files("out", 1), files("out", 0)],
        })
    }

    /// Ends testpmd without its consent.
    fn kill(mut self, switch: &mut Switch) -> Result<()> {
        self.testpmd.process().kill();
        await_both_gone(switch)
    }

    /// Waits for the last frame, ends testpmd and reads what arrived on each side.
    fn finish(mut self, switch: &mut Switch, frames: u64) -> Result<[Vec<Vec<u8>>; 2]> {
        for index in [0, 3] {
            self.testpmd
                .await_counters(index, "all frames in the file", |counters| {
                    counters.tx >= frames
                })?;
        }
        self.testpmd.quit()?;
        await_both_gone(switch)?;
        let read = |paths: &[PathBuf]| -> Result<Vec<Vec<u8>>> {
            let parts = paths
                .iter()
                .map(|path| pcap::read(path))
                .collect::<Result<Vec<_>>>()?;
            Ok(parts.concat())
        };
        Ok([read(&self.outputs[0])?, read(&self.outputs[1])?])
    }
}

fn await_both_gone(switch: &mut Switch) -> Result<()> {
    switch.await_statistics("both devices gone", |statistics| {
        statistics.ports.iter().all(|port| !port.connected)
    })?;
    Ok(())
}

/// Frames of all lengths and with bytes of their own: UDP of many flows, and something unknown in between.
///
/// Few are longer than a buffer of testpmd: it takes as many buffers as it sends frames.
fn frames(count: usize, longest: usize, side: u8) -> Vec<Vec<u8>> {
    let mut random = Random(0x9e37_79b9_7f4a_7c15 ^ u64::from(side));
    let shortest = 60;
    let mut frame = || {
        let length = match random.next() % 100 {
            0..25 => shortest,
            25..50 => 1514,
            50 => random.between(shortest, longest),
            _ => random.between(shortest, 1514),
        };
        let mut frame: Vec<u8> = std::iter::repeat_with(|| random.next().to_le_bytes())
            .flatten()
            .take(length)
            .collect();
        frame[..6].copy_from_slice(&[0x02, 0, 0, 0, 0, 3 - side]);
        frame[6..12].copy_from_slice(&[0x02, 0, 0, 0, 0, side]);
        if random.next().is_multiple_of(16) {
            frame[12..14].copy_from_slice(&[0x88, 0xb5]);
            return frame;
        }
        // IPv4 and UDP as far as a flow is told by them: version and length, no fragment, protocol, addresses, ports at random.
        frame[12..16].copy_from_slice(&[0x08, 0, 0x45, 0]);
        let total = u16::try_from(length - 14).unwrap_or(u16::MAX);
        frame[16..18].copy_from_slice(&total.to_be_bytes());
        frame[20..24].copy_from_slice(&[0, 0, 64, 17]);
        frame
    };
    (0..count).map(|_| frame()).collect()
}

/// Xorshift: the same frames in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn between(&mut self, least: usize, most: usize) -> usize {
        let range = (most - least + 1) as u64;
        least + usize::try_from(self.next() % range).unwrap_or(0)
    }
}

/// Several queues may overtake each other.
fn compare(sent: &[Vec<u8>], arrived: &[Vec<u8>], ordered: bool) -> Result<()> {
    ensure!(
        sent.len() == arrived.len(),
        "{} of {} arrived",
        arrived.len(),
        sent.len()
    );
    let order = |frames: &[Vec<u8>]| {
        let mut frames: Vec<Vec<u8>> = frames.to_vec();
        if !ordered {
            frames.sort_unstable();
        }
        frames
    };
    for (number, (sent, arrived)) in order(sent).iter().zip(&order(arrived)).enumerate() {
        ensure!(
            sent == arrived,
            "frame {number}: sent {sent:02x?}, arrived {arrived:02x?}"
        );
    }
    Ok(())
}
