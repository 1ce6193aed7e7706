//! Two guests driven by one thread: what one sends through the switch, the other receives.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use ringway_vhost::user::frontend::Frontend;

use super::frames::{self, STAMP};
use super::guest::Guest;
use super::queue::{HEADER, Piece};
use super::traffic::Traffic;

/// Passes of the loop between two looks at the clock, unless something has to be timed.
const PASSES: u32 = 8;
/// Frames in a closed loop that do not come for so long are lost.
const LOST_AFTER: Duration = Duration::from_millis(5);
/// Frames taken in one pass.
const RECEIVED: usize = 32;

/// Two guests and what passes between them.
pub struct Generator {
    /// The two.
    pub guests: [Guest; 2],
    receivers: [Receiver; 2],
    traffic: Traffic,
    /// Bytes of what is sent now.
    len: usize,
    /// Buffers that are taken at once from a receive ring.
    take: usize,
    born: Instant,
    /// What each guest sends, by number, to compare with.
    sent: [Vec<Vec<u8>>; 2],
}

/// What happened in a window.
#[derive(Debug, Default)]
pub struct Count {
    /// Frames given to the switch.
    pub sent: u64,
    /// Frames that came.
    pub received: u64,
    /// Bytes that came.
    pub bytes: u64,
    /// Frames that came when the window was over.
    pub late: u64,
    /// Frames of a wrong length or, when compared, of wrong bytes.
    pub wrong: u64,
    /// How long the window was.
    pub elapsed: Duration,
    /// Time in which nothing could be sent and nothing had come.
    pub idle: Duration,
    /// Nanoseconds under way, of the first frame of each burst.
    pub latencies: Vec<u32>,
}

/// The frame that a guest is about to have received.
#[derive(Debug, Default)]
struct Receiver {
    /// Buffers that are still to come.
    left: u16,
    len: usize,
    bytes: Vec<u8>,
}

impl Generator {
    /// Connects two guests and waits until the switch forwards between them.
    pub fn start(fronts: [Frontend; 2], traffic: &Traffic, stop: &AtomicBool) -> Result<Self> {
        let [first, second] = fronts;
        let guests = [
            Guest::start(first, traffic)?,
            Guest::start(second, traffic)?,
        ];
        let mut generator = Self {
            guests,
            receivers: Default::default(),
            traffic: traffic.clone(),
            len: 0,
            take: RECEIVED * traffic.buffers_per_frame(),
            born: Instant::now(),
            sent: Default::default(),
        };
        generator.announce(stop)?;
        for side in 0..2 {
            let frames = generator.guests[side].prepare(traffic, side)?;
            if traffic.verify {
                generator.sent[side] = frames;
            }
        }
        generator.len = traffic.size;
        Ok(generator)
    }

    /// Makes every address known to the switch: each guest speaks to everybody until the other has heard all of it three times.
    fn announce(&mut self, stop: &AtomicBool) -> Result<()> {
        for side in 0..2 {
            self.len = self.guests[side].prepare_announcements(&self.traffic, side)?;
            let wanted = 3 * self.traffic.pairs as u64;
            // Learning is slow in some switches; many addresses take their time elsewhere.
            let crowd = if self.traffic.pairs > 1000 { 16 } else { 1 };
            let end = Instant::now() + Duration::from_secs(20);
            let mut heard = 0;
            while heard < wanted {
                if stop.load(Ordering::Relaxed) {
                    bail!("interrupted");
                }
                if Instant::now() > end {
                    bail!("of {wanted} announcements of guest {side} only {heard} came through");
                }
                let len = self.len;
                self.guests[side].tx.send(crowd, len, false, None)?;
                let pause = Instant::now() + Duration::from_micros(100);
                while Instant::now() < pause {
                    heard += self.guests[1 - side].rx.receive(RECEIVED, |_| ())? as u64;
                    // A flood that comes back is nobody's.
                    self.guests[side].rx.receive(RECEIVED, |_| ())?;
                }
            }
            let end = Instant::now() + Duration::from_secs(5);
            while !self.guests[side].tx.reclaim_all()? {
                if Instant::now() > end {
                    bail!("the back-end keeps frames of guest {side}");
                }
            }
        }
        self.drain(Duration::from_millis(20))?;
        Ok(())
    }

    /// Sends and receives for so long.
    pub fn run(&mut self, duration: Duration, stop: &AtomicBool) -> Result<Count> {
        let traffic = self.traffic.clone();
        let mut count = Count::default();
        if traffic.latency {
            count.latencies.reserve_exact(4 << 20);
        }
        let timed = traffic.latency || traffic.rate.is_some();
        let ways: &[(usize, usize)] = if traffic.both_ways {
            &[(0, 1), (1, 0)]
        } else {
            &[(0, 1)]
        };
        let burst = traffic.burst as u64;
        let start = Instant::now();
        let (mut now, mut pass) = (start, 0u32);
        let mut idle_since = None;
        let mut heard = start;
        let mut out = 0u64;
        loop {
            pass = pass.wrapping_add(1);
            if timed || pass.is_multiple_of(PASSES) || idle_since.is_some() {
                now = Instant::now();
                if now - start >= duration || stop.load(Ordering::Relaxed) {
                    break;
                }
            }
            let mut worked = false;
            for &(from, to) in ways {
                let mut open = true;
                if let Some(rate) = traffic.rate {
                    let due = (now - start).as_secs_f64() * rate * 1e6;
                    open = (count.sent + burst) as f64 <= due;
                }
                if let Some(window) = traffic.window {
                    if out + burst > window && now - heard > LOST_AFTER {
                        (out, heard) = (0, now);
                    }
                    open &= out + burst <= window;
                }
                if open {
                    let stamp = traffic.latency.then(|| (STAMP, self.clock()));
                    let sent = self.guests[from].tx.send(
                        traffic.burst,
                        self.len,
                        traffic.touched,
                        stamp,
                    )?;
                    count.sent += sent as u64;
                    out += sent as u64;
                    worked |= sent > 0;
                }
                let got = self.receive(to, &mut count)?;
                if got > 0 {
                    (worked, heard) = (true, now);
                    out = out.saturating_sub(got);
                }
            }
            match (worked, idle_since) {
                (false, None) => idle_since = Some(Instant::now()),
                (true, Some(since)) => {
                    count.idle += now - since;
                    idle_since = None;
                }
                _ => {}
            }
        }
        if let Some(since) = idle_since {
            count.idle += now - since;
        }
        count.elapsed = now - start;
        count.late = self.drain(Duration::from_millis(2))?;
        Ok(count)
    }

    /// Whole frames that guest `to` got.
    #[inline]
    fn receive(&mut self, to: usize, count: &mut Count) -> Result<u64> {
        let traffic = &self.traffic;
        let (born, receiver) = (self.born, &mut self.receivers[to]);
        let sent = &self.sent[1 - to];
        let arrival = traffic.latency.then(|| nanoseconds(born));
        let mut frames = 0;
        let mut failure = None;
        self.guests[to].rx.receive(self.take, |piece| {
            if traffic.touched {
                piece.touch();
            }
            // What begins in the middle of a frame has none.
            if let Some(arrival) = arrival
                && receiver.left == 0
            {
                let departure = piece.word(STAMP);
                if departure != 0 && count.latencies.len() < count.latencies.capacity() {
                    let nanoseconds = arrival.saturating_sub(departure);
                    let nanoseconds = u32::try_from(nanoseconds).unwrap_or(u32::MAX);
                    count.latencies.push(nanoseconds);
                }
            }
            if traffic.verify
                && let Err(error) = piece.read(&mut receiver.bytes)
            {
                failure = Some(error);
            }
            if let Some(len) = receiver.add(piece, traffic.no_mergeable) {
                frames += 1;
                count.bytes += len as u64;
                let right = len == traffic.size && (!traffic.verify || same(&receiver.bytes, sent));
                count.wrong += u64::from(!right);
                receiver.bytes.clear();
            }
        })?;
        if let Some(error) = failure {
            return Err(error);
        }
        count.received += frames;
        Ok(frames)
    }

    /// Sends at another pace from now on: so many million frames per second, one at a time and timed, or without `rate` as it was told
    /// at first.
    pub fn pace(&mut self, traffic: &Traffic, rate: Option<f64>) {
        self.traffic = Traffic {
            rate: rate.or(traffic.rate),
            latency: rate.is_some() || traffic.latency,
            burst: if rate.is_some() { 1 } else { traffic.burst },
            ..traffic.clone()
        };
    }

    /// Receives until everything that was sent was taken and nothing more comes for `quiet`, for at most two seconds; how many frames came.
    pub fn drain(&mut self, quiet: Duration) -> Result<u64> {
        let (begin, mut count) = (Instant::now(), Count::default());
        let mut last = begin;
        loop {
            let mut taken = true;
            for side in 0..2 {
                taken &= self.guests[side].tx.reclaim_all()?;
                if self.receive(side, &mut count)? > 0 {
                    last = Instant::now();
                }
            }
            let quiet = taken && last.elapsed() >= quiet;
            if quiet || begin.elapsed() > Duration::from_secs(2) {
                self.receivers = Default::default();
                return Ok(count.received);
            }
        }
    }

    /// Gives the switch `frames` frames at once, waits for all of them, and returns how long that took.
    pub fn batch(&mut self, frames: usize) -> Result<Duration> {
        let len = self.len;
        let touched = self.traffic.touched;
        self.guests[0].tx.stage(frames, len, touched, None)?;
        let mut count = Count::default();
        let start = Instant::now();
        self.guests[0].tx.publish();
        while count.received < frames as u64 {
            self.receive(1, &mut count)?;
            if start.elapsed() > Duration::from_secs(2) {
                bail!("of {frames} frames only {} came", count.received);
            }
        }
        let took = start.elapsed();
        while !self.guests[0].tx.reclaim_all()? {
            if start.elapsed() > Duration::from_secs(2) {
                bail!("the switch keeps frames");
            }
        }
        if count.wrong > 0 {
            bail!("{} frames came changed", count.wrong);
        }
        Ok(took)
    }

    fn clock(&self) -> u64 {
        nanoseconds(self.born)
    }
}

impl Receiver {
    /// The length of the frame, without header, that this buffer completes.
    #[inline]
    fn add(&mut self, piece: &Piece<'_>, single: bool) -> Option<usize> {
        if self.left == 0 {
            self.left = if single { 1 } else { piece.buffers().max(1) };
            self.len = 0;
        }
        self.len += piece.len;
        self.left -= 1;
        (self.left == 0).then_some(self.len.saturating_sub(HEADER))
    }
}

fn nanoseconds(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

/// Whether header and frame are one of those that were sent.
fn same(bytes: &[u8], sent: &[Vec<u8>]) -> bool {
    let check = || {
        let frame = bytes.get(HEADER..).context("no header")?;
        let number = frames::number(frame).context("no number")?;
        let expected = sent.get(number as usize).context("no such frame")?;
        Ok::<_, anyhow::Error>(expected == frame)
    };
    check().unwrap_or(false)
}
