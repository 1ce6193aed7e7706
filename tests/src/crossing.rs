//! Frames that cross the switch between two DPDK virtio-user devices, every byte compared.
//!
//! One testpmd has four ports: frames come from a capture file, go into the switch by one device, come out of it by the other and
//! go into another capture file; and the same the other way.

use std::path::PathBuf;

use anyhow::{Result, ensure};

use crate::{
    Lab, Switch, pcap,
    testpmd::{Testpmd, VirtioUser},
};

/// Room for a frame in a buffer of testpmd's; what is longer needs a driver that merges buffers.
pub const BUFFER: usize = 1514;

/// How the devices are set up, and what they exchange.
#[derive(Debug, Clone, Copy)]
pub struct Crossing<'a> {
    /// The switch's ports, at the lab's paths of these names.
    pub ports: [&'a str; 2],
    /// Queue pairs.
    pub queues: u16,
    /// Whether frames may go over several buffers.
    pub mergeable: bool,
    /// Whether buffers are used in order.
    pub in_order: bool,
    /// Whether the rings are packed.
    pub packed: bool,
    /// Whether DPDK may work on several descriptors at once.
    pub vectorized: bool,
    /// Frames in each direction.
    pub frames: usize,
}

/// A crossing under way.
#[derive(Debug)]
pub struct Run {
    testpmd: Testpmd,
    traffic: [Vec<Vec<u8>>; 2],
    outputs: [Vec<PathBuf>; 2],
    queues: u16,
    ports: [String; 2],
}

impl Crossing<'_> {
    /// Starts it. The switch must listen already.
    pub fn start(self, lab: &Lab) -> Result<Run> {
        let Self {
            ports: [a, b],
            queues,
            ..
        } = self;
        let longest = if self.mergeable { 9000 } else { BUFFER };
        let traffic = [1, 2].map(|side| frames(self.frames, longest, side));
        let files = |direction: &str, port: &str| -> Vec<PathBuf> {
            (0..queues)
                .map(|queue| lab.path(&format!("{port}.{direction}{queue}.pcap")))
                .collect()
        };
        for (port, frames) in self.ports.iter().zip(&traffic) {
            write(&files("in", port), frames)?;
        }
        let capture = |index: usize, port: &str| {
            let list = |key: &str, paths: &[PathBuf]| -> String {
                paths
                    .iter()
                    .map(|path| format!(",{key}={}", path.display()))
                    .collect()
            };
            let inputs = list("rx_pcap", &files("in", port));
            format!(
                "net_pcap{index}{inputs}{}",
                list("tx_pcap", &files("out", port))
            )
        };
        let devices = [
            capture(0, a),
            self.device(lab, a).device(0),
            self.device(lab, b).device(1),
            capture(1, b),
        ];
        // At its start testpmd would throw away what waits, which is the whole file. Then it sends and takes a burst in turns;
        // with few frames under way, those it has not taken yet always fit into the other device's ring.
        let options = ["--no-flush-rx", "--txd=64"];
        let name = format!("crossing-{a}-{b}");
        let mut testpmd = Testpmd::start_with(lab, &name, &devices, queues, &options)?;
        testpmd.command("set burst tx delay 10 retry 1000000")?;
        testpmd.command("set fwd io retry")?;
        testpmd.command("start")?;
        Ok(Run {
            testpmd,
            traffic,
            outputs: [files("out", b), files("out", a)],
            queues,
            ports: self.ports.map(str::to_owned),
        })
    }

    fn device(&self, lab: &Lab, port: &str) -> VirtioUser {
        let [mergeable, in_order, packed, vectorized] =
            [self.mergeable, self.in_order, self.packed, self.vectorized].map(u8::from);
        VirtioUser::new(&lab.path(port))
            .with(&format!("queues={},queue_size=1024", self.queues))
            .with(&format!(
                "mrg_rxbuf={mergeable},in_order={in_order},packed_vq={packed},vectorized={vectorized}"
            ))
    }
}

impl Run {
    /// Waits for the last frame, ends testpmd and compares what arrived; the bytes of all frames.
    pub fn finish(mut self, switch: &mut Switch) -> Result<u64> {
        for (index, sent) in [(3, &self.traffic[0]), (0, &self.traffic[1])] {
            let frames = sent.len() as u64;
            self.testpmd
                .await_counters(index, "all frames in the file", |counters| {
                    counters.tx >= frames
                })?;
        }
        self.testpmd.quit()?;
        await_gone(switch, &self.ports)?;
        for (sent, files) in self.traffic.iter().zip(&self.outputs) {
            let arrived = files.iter().map(|file| pcap::read(file));
            let arrived = arrived.collect::<Result<Vec<_>>>()?.concat();
            compare(sent, &arrived, self.queues == 1)?;
        }
        Ok(self.traffic.iter().flatten().map(|f| f.len() as u64).sum())
    }

    /// Ends testpmd without its consent, in the middle of whatever it does.
    pub fn kill(mut self, switch: &mut Switch) -> Result<()> {
        self.testpmd.process().kill();
        await_gone(switch, &self.ports)
    }
}

fn await_gone(switch: &mut Switch, ports: &[String; 2]) -> Result<()> {
    switch.await_statistics("both devices gone", |statistics| {
        ports
            .iter()
            .all(|name| statistics.port(name).is_ok_and(|port| !port.connected))
    })?;
    Ok(())
}

/// Every queue sends as fast as the others take: most frames go by one, so that what two queues send together does not meet in one.
fn write(files: &[PathBuf], frames: &[Vec<u8>]) -> Result<()> {
    let few = frames.len() / 50;
    let (most, few) = frames.split_at(frames.len() - few * (files.len() - 1));
    pcap::write(&files[0], most)?;
    if let Some(other) = files.get(1) {
        pcap::write(other, few)?;
    }
    Ok(())
}

/// Frames of all lengths and with bytes of their own: UDP of many flows, and something unknown in between.
///
/// Few are longer than a buffer: testpmd takes as many buffers as it sends frames.
fn frames(count: usize, longest: usize, side: u8) -> Vec<Vec<u8>> {
    let mut random = Random(0x9e37_79b9_7f4a_7c15 ^ u64::from(side));
    let shortest = 60;
    let mut frame = || {
        let length = match random.next() % 100 {
            0..25 => shortest,
            25..50 => BUFFER,
            50 => random.between(shortest, longest),
            _ => random.between(shortest, BUFFER),
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
        // IPv4 and UDP as far as a flow is told by them; addresses and ports are random.
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

/// Frames of several queues may overtake each other.
fn compare(sent: &[Vec<u8>], arrived: &[Vec<u8>], ordered: bool) -> Result<()> {
    ensure!(
        sent.len() == arrived.len(),
        "{} of {} frames arrived",
        arrived.len(),
        sent.len()
    );
    let order = |frames: &[Vec<u8>]| {
        let mut frames = frames.to_vec();
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_wrong_byte_is_found() {
        let sent = frames(100, 9000, 1);
        let mut arrived = sent.clone();
        compare(&sent, &arrived, true).unwrap();
        arrived.swap(3, 4);
        compare(&sent, &arrived, false).unwrap();
        compare(&sent, &arrived, true).unwrap_err();
        let last = arrived[70].last_mut().unwrap();
        *last ^= 1;
        compare(&sent, &arrived, false).unwrap_err();
        compare(&sent, &arrived[1..], false).unwrap_err();
    }
}
