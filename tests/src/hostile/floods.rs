//! Too much of everything: kicks, addresses, broadcasts, frames nobody reads; memory that goes away; bytes that change while they
//! are read. Nothing of it has to arrive. The ports have to be as good as before.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use ringway_api::control::Client;
use ringway_mem::sigbus;
use rustix::fs::ftruncate;

use super::crooked::{
    BODY, Crooked, File, Outfit, PATIENCE, RECEIVE, SIZE, TRANSMIT, WRITE, connect,
};
use crate::mock::frames::{BROADCAST, frame, mac};
use crate::mock::{Guest, Options, features};
use ringway_wire::MacAddress;

/// Two ports of a VLAN, of which neither is looked after.
pub struct Flooder {
    path: PathBuf,
    port: String,
    other: PathBuf,
    client: Client,
    number: u64,
}

impl Flooder {
    /// It will flood from the socket `path`, which is that of `port`, towards `other`.
    pub fn new(path: PathBuf, port: &str, other: PathBuf, client: Client) -> Result<Self> {
        // We map what we truncate.
        sigbus::install()?;
        Ok(Self {
            path,
            port: port.to_owned(),
            other,
            client,
            number: 0,
        })
    }

    fn guest(&mut self, path: &Path) -> Guest {
        self.number += 1;
        let format = [0, features::PACKED][usize::from(self.number.is_multiple_of(2))];
        let options = Options {
            features: features::USUAL | format,
            ..Options::default()
        };
        // The front-end before may not be gone yet.
        let front = connect(path).unwrap_or_else(|error| panic!("{error:#}"));
        Guest::over(front, options)
    }

    fn pair(&mut self) -> (Guest, Guest) {
        let (path, other) = (self.path.clone(), self.other.clone());
        (self.guest(&path), self.guest(&other))
    }

    /// Kicks without end for a ring with nothing in it, and for one with frames.
    pub fn kicks(&mut self, count: u32) -> Result<u64> {
        let (mut from, mut to) = self.pair();
        for number in 0..count {
            for ring in 0..2 {
                from.queues[ring].kick();
            }
            if number % 64 == 0 {
                from.send(&frame(mac(7), mac(8), 60, number.into()));
                while to.try_receive().is_some() {}
            }
        }
        from.drain();
        Ok(2)
    }

    /// A new source address with every frame.
    pub fn addresses(&mut self, count: u32) -> Result<u64> {
        let (mut from, mut to) = self.pair();
        for number in 0..count {
            let [a, b, c, d] = number.to_be_bytes();
            let source = MacAddress([2, 0xee, a, b, c, d]);
            from.send(&frame(source, BROADCAST, 60, number.into()));
            while to.try_receive().is_some() {}
        }
        from.drain();
        Ok(1)
    }

    /// Broadcasts as fast as they are taken, from both sides.
    pub fn broadcasts(&mut self, count: u32) -> Result<u64> {
        let (mut from, mut to) = self.pair();
        for number in 0..count {
            from.send(&frame(mac(7), BROADCAST, 1514, number.into()));
            to.send(&frame(mac(8), BROADCAST, 60, number.into()));
            // Each looks now and then.
            if number % 256 == 0 {
                while from.try_receive().is_some() {}
                while to.try_receive().is_some() {}
            }
        }
        from.drain();
        to.drain();
        Ok(1)
    }

    /// A receiver that has no buffers, or never looks at those that were filled.
    pub fn slow_readers(&mut self, count: u32) -> Result<u64> {
        for buffers in [0, 16] {
            let other = self.other.clone();
            let path = self.path.clone();
            let mut from = self.guest(&path);
            let before = self.dropped("no_buffers", &other)?;
            let mut to = Guest::over(
                connect(&other)?,
                Options {
                    buffers,
                    ..Options::default()
                },
            );
            to.send(&frame(mac(8), BROADCAST, 60, 0));
            from.receive();
            for number in 0..count {
                from.send(&frame(mac(7), mac(8), 1514, number.into()));
            }
            from.drain();
            let all = u64::from(count) - buffers as u64;
            self.until_dropped("no_buffers", before + all)?;
        }
        Ok(2)
    }

    /// Drops at the other port.
    fn dropped(&mut self, reason: &str, other: &Path) -> Result<u64> {
        let name = other.file_name().and_then(|name| name.to_str());
        let all = self.client.statistics(Some(name.context("a name")?))?;
        let port = all.ports.first().context("the other port")?;
        Ok(port.drops.get(reason).copied().unwrap_or(0))
    }

    fn until_dropped(&mut self, reason: &str, wanted: u64) -> Result<()> {
        let other = self.other.clone();
        let deadline = Instant::now() + PATIENCE;
        loop {
            let found = self.dropped(reason, &other)?;
            if found == wanted {
                return Ok(());
            }
            ensure!(
                found < wanted && Instant::now() < deadline,
                "{found} frames dropped ({reason}) instead of {wanted}"
            );
        }
    }

    /// Front-ends that leave while frames cross.
    pub fn leave_in_the_middle(&mut self, count: u32) -> Result<u64> {
        for _ in 0..count {
            let (mut from, to) = self.pair();
            for number in 0..40 {
                from.stage(
                    0,
                    Default::default(),
                    &frame(mac(7), BROADCAST, 9000, number),
                    &Default::default(),
                );
            }
            from.queues[TRANSMIT].publish();
            from.queues[TRANSMIT].kick();
            drop(to);
        }
        Ok(u64::from(count))
    }

    /// Memory whose file shrinks: that of the rings, that of frames to be sent, that of receive buffers. Kinds that the machine lacks are
    /// left out.
    pub fn truncate(&mut self, kind: File) -> Result<u64> {
        if touch_huge(kind).is_err() {
            return Ok(0);
        }
        let mut played = 0;
        for packed in [false, true] {
            for region in [0, 1] {
                for ring in [TRANSMIT, RECEIVE] {
                    self.truncate_one(kind, packed, region, ring)
                        .with_context(|| {
                            format!("{kind:?}, packed {packed}, region {region}, ring {ring}")
                        })?;
                    played += 1;
                }
            }
        }
        Ok(played)
    }

    fn truncate_one(&mut self, kind: File, packed: bool, region: usize, ring: usize) -> Result<()> {
        let other = self.other.clone();
        let mut witness = self.guest(&other);
        let start = u16::try_from(self.number % 0x1_0000)?;
        let mut outfit = Outfit::new(packed, start);
        outfit.files[region] = kind;
        let mut guest = Crooked::start(&self.path, &outfit)?;
        // Pages that were never touched are not missed.
        let bytes = [vec![0; 12], frame(mac(7), BROADCAST, 60_000, 1)].concat();
        guest.write(BODY, &bytes)?;
        // A frame each way, so that both sides have looked at everything.
        let len = u32::try_from(bytes.len())?;
        guest.rings[RECEIVE].offer(&[(BODY + (1 << 20), 2048, WRITE, 1)])?;
        guest.rings[TRANSMIT].offer(&[(BODY, len, 0, 1)])?;
        guest.rings[TRANSMIT].await_used(1)?;
        witness.receive();
        witness.send(&frame(mac(8), mac(7), 60, 2));
        guest.rings[RECEIVE].await_used(1)?;
        let before = self.lost()?;
        // What is offered after that lies in memory that is not there; or the ring itself does.
        let sends = ring == TRANSMIT;
        if region == 0 && !sends {
            guest.rings[RECEIVE].offer(&[(BODY + (1 << 20), 2048, WRITE, 1)])?;
        }
        ftruncate(&guest.files[region], 0)?;
        if region == 1 {
            let chain = if sends {
                (BODY, len, 0, 1)
            } else {
                (BODY + (1 << 20), 2048, WRITE, 1)
            };
            guest.rings[ring].offer(&[chain])?;
        }
        guest.rings[ring].kick()?;
        if !sends {
            witness.send(&frame(mac(8), mac(7), 60, 3));
            witness.drain();
        }
        guest.await_fault()?;
        let deadline = Instant::now() + PATIENCE;
        while self.lost()? <= before {
            ensure!(Instant::now() < deadline, "the loss is not counted");
        }
        // Nothing half-read is delivered.
        while let Some(received) = witness.try_receive() {
            ensure!(
                received.frame == bytes[12..],
                "something else was delivered"
            );
        }
        Ok(())
    }

    fn lost(&mut self) -> Result<u64> {
        let all = self.client.statistics(Some(&self.port))?;
        let port = all.ports.first().context("the port")?;
        Ok(port.faults.get("memory_lost").copied().unwrap_or(0))
    }

    /// Headers, descriptors, indices and frames that change while they are read. What is delivered may be anything; the ring may stop.
    pub fn changing_bytes(&mut self, time: Duration) -> Result<u64> {
        let other = self.other.clone();
        let mut witness = self.guest(&other);
        let mut played = 0;
        for packed in [false, true] {
            for what in ["frames", "descriptors", "indices"] {
                let start = u16::try_from(self.number % 0x1_0000)?;
                let mut guest = Crooked::start(&self.path, &Outfit::new(packed, start))?;
                let stop = Arc::new(AtomicBool::new(false));
                let [descriptors, driver, _] = guest.rings[TRANSMIT].parts();
                let place = match what {
                    "frames" => (BODY, 64),
                    "descriptors" => (descriptors, 16 * u32::from(SIZE)),
                    _ => (driver, 4 + 2 * u32::from(SIZE)),
                };
                let changer = change(&guest, place, stop.clone());
                let deadline = Instant::now() + time;
                while Instant::now() < deadline {
                    let ring = &mut guest.rings[TRANSMIT];
                    ring.offer(&[(BODY, 1500, 0, 1)])?;
                    ring.advance(1);
                    while witness.try_receive().is_some() {}
                    // A lap at a time, then whatever came of it.
                    if ring.next.is_multiple_of(SIZE / 2) {
                        guest.front.get_features()?;
                    }
                }
                stop.store(true, Ordering::Relaxed);
                if changer.join().is_err() {
                    bail!("the changing thread panicked");
                }
                guest.front.get_features().context("the session ended")?;
                played += 1;
            }
        }
        // Who keeps the rules is served as ever.
        let path = self.path.clone();
        let mut honest = self.guest(&path);
        let sent = frame(mac(9), BROADCAST, 1500, 1);
        honest.send(&sent);
        let deadline = Instant::now() + PATIENCE;
        while witness.receive().frame != sent {
            ensure!(Instant::now() < deadline, "the witness is deaf");
        }
        Ok(played)
    }
}

/// Whether a huge page is to be had.
fn touch_huge(kind: File) -> Result<()> {
    if kind == File::Huge {
        let file = kind.make(2 << 20)?;
        rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, 2 << 20)?;
    }
    Ok(())
}

/// A thread that writes one thing and another over these bytes.
fn change(guest: &Crooked, (at, len): (u64, u32), stop: Arc<AtomicBool>) -> thread::JoinHandle<()> {
    let memory = guest.memory.clone();
    thread::spawn(move || {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        while !stop.load(Ordering::Relaxed) {
            for _ in 0..64 {
                state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
                let offset = (state >> 33) % u64::from(len);
                let byte = (state >> 24).to_le_bytes()[0];
                if let Some(slice) = memory.write_prefix(at + offset, 1) {
                    slice.copy_from(&[byte]);
                }
            }
            thread::yield_now();
        }
    })
}
