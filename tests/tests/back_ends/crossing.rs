//! Frames between two cards through a back-end.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use rustix::event::{PollFd, Timespec, poll};

use super::nic::{Nic, WINDOW, frame, number_of};

/// How long all of it may take on a loaded machine.
const LIMIT: Duration = Duration::from_secs(60);
/// Time between two attempts to get a first frame across.
const RETRY: Duration = Duration::from_millis(250);
/// Frames that only ask whether anybody is there.
const HELLO: u32 = 0xffff_0000;

/// Two cards, and what comes of them.
pub(crate) struct Crossing {
    pub(crate) nics: [Nic; 2],
    /// The next number of either side.
    next: [u32; 2],
    pairs: usize,
}

/// What a crossing brought.
#[derive(Debug, Default)]
pub(crate) struct Carried {
    pub(crate) frames: usize,
    pub(crate) bytes: usize,
    /// Pairs by which frames arrived, of both sides.
    pub(crate) pairs: HashSet<(usize, usize)>,
}

impl Crossing {
    pub(crate) fn new(nics: [Nic; 2], pairs: u16) -> Self {
        Self {
            nics,
            next: [0; 2],
            pairs: pairs.into(),
        }
    }

    /// Sends over so many pairs from now on.
    pub(crate) fn use_pairs(&mut self, pairs: u16) {
        self.pairs = pairs.into();
    }

    /// Sends until something arrives on both sides: a back-end takes a device into use after it has answered.
    pub(crate) fn greet(&mut self) -> Result<()> {
        let end = Instant::now() + LIMIT;
        let mut heard = [false; 2];
        let mut attempt = 0;
        while heard != [true; 2] {
            if Instant::now() > end {
                bail!("nothing arrived within {LIMIT:?}: {heard:?}");
            }
            for side in 0..2 {
                let hello = frame(name(side), name(1 - side), HELLO + attempt % 0x1000);
                self.nics[side].send(0, &hello, 0)?;
                self.nics[side].publish(0)?;
            }
            attempt += 1;
            let until = Instant::now() + RETRY;
            while Instant::now() < until && heard != [true; 2] {
                self.wait(until)?;
                for (side, heard) in heard.iter_mut().enumerate() {
                    for (_, bytes) in self.nics[side].receive()? {
                        *heard |= number_of(&bytes, name(1 - side), name(side))?.is_some();
                    }
                }
            }
        }
        Ok(())
    }

    /// Sends `count` frames each way; every one arrives, once, with every byte.
    pub(crate) fn exchange(&mut self, count: u32) -> Result<Carried> {
        let end = Instant::now() + LIMIT;
        let first = self.next;
        let mut missing = first.map(|first| (first..first + count).collect::<HashSet<_>>());
        let mut carried = Carried::default();
        while missing.iter().any(|missing| !missing.is_empty()) {
            if Instant::now() > end {
                let left = missing.map(|missing| missing.len());
                bail!("of {count} frames each way {left:?} are missing after {LIMIT:?}");
            }
            for side in 0..2 {
                self.send(side, first[side] + count, &missing[side])?;
            }
            self.wait(end)?;
            for side in 0..2 {
                let (from, to) = (name(1 - side), name(side));
                for (pair, bytes) in self.nics[side].receive()? {
                    let Some(number) = number_of(&bytes, from, to)? else {
                        continue;
                    };
                    if number >= HELLO {
                        continue;
                    }
                    ensure!(
                        missing[1 - side].remove(&number),
                        "frame {number} of side {from} came twice"
                    );
                    carried.frames += 1;
                    carried.bytes += bytes.len();
                    carried.pairs.insert((side, pair));
                }
            }
        }
        Ok(carried)
    }

    /// What arrives at a side and is not one of ours.
    pub(crate) fn await_foreign(
        &mut self,
        side: usize,
        wanted: impl Fn(&[u8]) -> bool,
    ) -> Result<()> {
        let end = Instant::now() + LIMIT;
        while Instant::now() < end {
            self.wait(end)?;
            for (_, bytes) in self.nics[side].receive()? {
                if number_of(&bytes, name(1 - side), name(side))?.is_none() && wanted(&bytes) {
                    return Ok(());
                }
            }
        }
        bail!("not within {LIMIT:?}")
    }

    fn send(&mut self, side: usize, end: u32, missing: &HashSet<u32>) -> Result<()> {
        let next = self.next[side];
        let under_way = missing.iter().filter(|&&number| number < next).count();
        let room = u32::try_from(WINDOW.saturating_sub(under_way))?;
        let until = end.min(next + room);
        for number in next..until {
            let bytes = frame(name(side), name(1 - side), number);
            let pair = number as usize % self.pairs;
            self.nics[side].send(pair, &bytes, number as usize)?;
        }
        self.next[side] = until;
        for pair in 0..self.pairs {
            self.nics[side].publish(pair)?;
        }
        Ok(())
    }

    /// Until something has arrived, or `end`. Back-ends call once for it; nobody looks without a call.
    fn wait(&mut self, end: Instant) -> Result<()> {
        let [a, b] = &mut self.nics;
        if a.enable_calls() | b.enable_calls() {
            return Ok(());
        }
        let left = end.saturating_duration_since(Instant::now());
        let mut calls: Vec<PollFd<'_>> = a.calls().chain(b.calls()).collect();
        poll(&mut calls, Some(&Timespec::try_from(left)?))?;
        drop(calls);
        a.hear();
        b.hear();
        Ok(())
    }
}

/// The last byte of a side's address.
fn name(side: usize) -> u8 {
    if side == 0 { 0xa } else { 0xb }
}

/// The address of a side.
pub(crate) fn mac(side: usize) -> [u8; 6] {
    [2, 0, 0, 0, 0, name(side)]
}
