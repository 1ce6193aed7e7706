//! Lies in rings: what is told, and what the switch has to make of it.
//!
//! Every lie is told by a new guest at rings that begin anywhere, after one frame in good faith: so the device stands right before it.
//! A lie about what is sent is met when it is kicked, one about receive buffers when somebody sends.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use ringway_api::control::Client;
use ringway_api::stats::PortStatistics;

use super::crooked::{
    BODY, BORDER, Crooked, DESERT, Descriptor, END, NEXT, Outfit, PATIENCE, RECEIVE, Ring, SIZE,
    TABLE, TRANSMIT, WRITE, connect,
};
use super::{packed_lies, split_lies};
use crate::mock::frames::{BROADCAST, frame, mac};
use crate::mock::{self, Guest};

/// What becomes of a lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// The ring stops, for this reason.
    Fault(&'static str),
    /// The frame is dropped for this reason, and the ring goes on.
    Dropped(&'static str),
    /// It is none: the frame arrives.
    Arrives,
    /// There is nothing to be seen: what is offered in good faith afterwards, at the same place, arrives.
    Unseen,
}

/// One way to lie in a ring. `w` is the direction flag that is right there.
pub struct Lie {
    /// What is wrong.
    pub name: &'static str,
    /// Which ring it is told in, if not in either.
    pub only: Option<usize>,
    /// What becomes of it: in the receive ring, in the transmit ring.
    pub fate: [Fate; 2],
    /// Features without which it is told.
    pub without: u64,
    /// Tells it and kicks; returns the descriptors that the ring holds for it.
    pub tell: fn(&mut Ring, u16) -> Result<u16>,
}

impl Lie {
    /// A lie that stops either ring.
    pub const fn fault(
        name: &'static str,
        reason: &'static str,
        tell: fn(&mut Ring, u16) -> Result<u16>,
    ) -> Self {
        Self {
            name,
            only: None,
            fate: [Fate::Fault(reason); 2],
            without: 0,
            tell,
        }
    }

    /// Something wrong with what is sent.
    pub const fn sent(
        name: &'static str,
        fate: Fate,
        tell: fn(&mut Ring, u16) -> Result<u16>,
    ) -> Self {
        Self {
            name,
            only: Some(TRANSMIT),
            fate: [fate; 2],
            without: 0,
            tell,
        }
    }
}

/// Where the bytes of the frame under test lie: a virtio-net header and [`FRAME`] bytes.
pub const DATA: u64 = BODY + 0x1000;
/// Bytes of it.
pub const FRAME: usize = 100;
/// With the header.
pub const WHOLE: u32 = 112;
const _: () = assert!(FRAME + 12 == WHOLE as usize);

/// Addresses that are no memory, or not all of it.
pub const NOWHERE: [(u64, u32); 10] = [
    (1 << 40, 100),
    // Around the end of all addresses.
    (u64::MAX - 49, 100),
    (u64::MAX, 1),
    (1 << 63, u32::MAX),
    // Begins in memory and ends outside: after the last region, and in a gap.
    (END - 50, 100),
    ((2 << 20) - 50, 100),
    // Begins in a gap and ends in memory.
    (BODY - 50, 100),
    (END, 1),
    (DESERT + (1 << 30) - 1, 2),
    (DESERT, u32::MAX),
];

/// 1024 entries that span two regions each: more pieces than a batch holds.
pub fn splinters(ring: &Ring, w: u16, last: bool) -> Result<Descriptor> {
    let entry = |index: u16| {
        let more = if last || index < 1023 { NEXT } else { 0 };
        let tag = if ring.packed { 0 } else { index + 1 };
        (BORDER - 1, 2, w | more, tag)
    };
    let entries: Vec<_> = (0..1024).map(entry).collect();
    ring.table(&entries)
}

/// Counts what was played.
#[derive(Default, Debug, Clone, Copy)]
pub struct Played {
    /// Lies.
    pub cases: u64,
    /// Of them, those that stopped a ring.
    pub faults: u64,
}

/// A liar's port and a witness at another one of the same VLAN, which nobody else uses.
pub struct Stage {
    path: PathBuf,
    port: String,
    witness: Guest,
    client: Client,
    number: u64,
}

impl Stage {
    /// The witness begins to listen at the socket `witness`; the liar will speak at `liar`, which is the socket of the port `port`.
    pub fn new(liar: PathBuf, port: &str, witness: &std::path::Path, client: Client) -> Self {
        Self {
            path: liar,
            port: port.to_owned(),
            witness: Guest::start(witness, mock::Options::default()),
            client,
            number: 0,
        }
    }

    /// Every lie in every ring that it fits, once, until `enough` says so.
    pub fn round(&mut self, seed: u64, mut enough: impl FnMut() -> bool) -> Result<Played> {
        let mut played = Played::default();
        for (packed, lies) in [(false, split_lies::all()), (true, packed_lies::all())] {
            for lie in &lies {
                for ring in [TRANSMIT, RECEIVE] {
                    if lie.only.is_some_and(|only| only != ring) {
                        continue;
                    }
                    if enough() {
                        return Ok(played);
                    }
                    self.number += 1;
                    // Also where the index wraps, and where the lap ends with the frame in good faith or with the lie.
                    let near = (self.number * 7 + seed * 3) % 5;
                    let start = match (self.number + seed) % 3 {
                        0 => 0_u64.wrapping_sub(near),
                        1 => u64::from(SIZE).wrapping_sub(near),
                        _ => self.number.wrapping_mul(0x9e37_79b9) >> 8,
                    };
                    let start = u16::try_from(start & 0xffff)?;
                    let outfit = Outfit {
                        without: lie.without,
                        ..Outfit::new(packed, start)
                    };
                    let format = if packed { "packed" } else { "split" };
                    self.play(lie, ring, &outfit).with_context(|| {
                        format!("{format} ring {ring} from {start:#x}: {}", lie.name)
                    })?;
                    played.cases += 1;
                    played.faults += u64::from(matches!(lie.fate[ring], Fate::Fault(_)));
                }
            }
        }
        Ok(played)
    }

    fn play(&mut self, lie: &Lie, ring: usize, outfit: &Outfit) -> Result<()> {
        let mut liar = Crooked::start(&self.path, outfit)?;
        let before = self.statistics()?;
        if ring == TRANSMIT {
            self.send_in_good_faith(&mut liar)?;
            let bytes = self.bytes();
            liar.write(DATA, &bytes)?;
            let slots = (lie.tell)(&mut liar.rings[TRANSMIT], 0)?;
            match lie.fate[ring] {
                Fate::Fault(reason) => self.stops(&liar, &before, reason)?,
                Fate::Dropped(reason) => {
                    liar.rings[TRANSMIT].await_used(slots)?;
                    self.dropped(&before, reason)?;
                    self.send_in_good_faith(&mut liar)?;
                }
                Fate::Arrives => {
                    self.arrives(&bytes[12..])?;
                    liar.rings[TRANSMIT].await_used(slots)?;
                    self.send_in_good_faith(&mut liar)?;
                }
                Fate::Unseen => self.send_in_good_faith(&mut liar)?,
            }
        } else {
            // The witness learns where the liar is, then sends to it.
            self.send_in_good_faith(&mut liar)?;
            self.receive_in_good_faith(&mut liar)?;
            let slots = (lie.tell)(&mut liar.rings[RECEIVE], WRITE)?;
            match lie.fate[ring] {
                Fate::Unseen => self.receive_in_good_faith(&mut liar)?,
                fate => {
                    self.send_to_liar();
                    match fate {
                        Fate::Fault(reason) => self.stops(&liar, &before, reason)?,
                        Fate::Dropped(reason) => self.dropped(&before, reason)?,
                        _ => drop(liar.rings[RECEIVE].await_used(slots)?),
                    }
                }
            }
            // The other ring is as good as ever.
            self.send_in_good_faith(&mut liar)?;
        }
        // And so is the session.
        liar.front.get_features().context("the session has ended")?;
        Ok(())
    }

    /// The bytes of the next frame to the witness, behind a header.
    fn bytes(&mut self) -> Vec<u8> {
        self.number += 1;
        let mut bytes = vec![0; 12];
        bytes.extend(frame(mac(3), BROADCAST, FRAME, self.number));
        bytes
    }

    fn send_in_good_faith(&mut self, liar: &mut Crooked) -> Result<()> {
        let bytes = self.bytes();
        // Not where the lie's bytes are.
        let at = TABLE - 0x1000;
        liar.write(at, &bytes)?;
        let ring = &mut liar.rings[TRANSMIT];
        ring.offer(&[(at, WHOLE, 0, 7)])?;
        self.arrives(&bytes[12..])?;
        ring.await_used(1).context("in good faith")?;
        Ok(())
    }

    fn receive_in_good_faith(&mut self, liar: &mut Crooked) -> Result<()> {
        let at = TABLE - 0x2000;
        liar.rings[RECEIVE].offer(&[(at, 2048, WRITE, 7)])?;
        let sent = self.send_to_liar();
        let len = liar.rings[RECEIVE].await_used(1)?;
        ensure!(len == WHOLE, "{len} bytes received");
        let received = liar.read(at + 12, FRAME)?;
        ensure!(received == sent, "another frame was received");
        Ok(())
    }

    fn send_to_liar(&mut self) -> Vec<u8> {
        self.number += 1;
        let sent = frame(mac(4), mac(3), FRAME, self.number);
        self.witness.send(&sent);
        self.witness.drain();
        sent
    }

    /// The witness gets this frame and nothing before it.
    fn arrives(&mut self, expected: &[u8]) -> Result<()> {
        let received = self.witness.receive();
        ensure!(
            received.frame == expected,
            "the witness received {:02x?} instead of {expected:02x?}",
            received.frame
        );
        Ok(())
    }

    fn stops(&mut self, liar: &Crooked, before: &PortStatistics, reason: &str) -> Result<()> {
        liar.await_fault()?;
        let mut expected = before.faults.clone();
        *expected.entry(reason.to_owned()).or_default() += 1;
        let faults = self.statistics()?.faults;
        ensure!(
            faults == expected,
            "faults {faults:?} instead of {expected:?}"
        );
        ensure!(
            self.witness.try_receive().is_none(),
            "something of a broken ring was delivered"
        );
        Ok(())
    }

    /// What is counted at the end of a burst comes a moment after its buffers.
    fn dropped(&mut self, before: &PortStatistics, reason: &str) -> Result<()> {
        let mut expected = before.drops.clone();
        *expected.entry(reason.to_owned()).or_default() += 1;
        let deadline = Instant::now() + PATIENCE;
        loop {
            let drops = self.statistics()?.drops;
            if drops == expected {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!("drops {drops:?} instead of {expected:?}");
            }
        }
    }

    fn statistics(&mut self) -> Result<PortStatistics> {
        let all = self.client.statistics(Some(&self.port))?;
        all.ports.into_iter().next().context("no such port")
    }

    /// The port still lets people in.
    pub fn is_open(&self) -> Result<()> {
        connect(&self.path).map(drop)
    }
}
