//! Two guests that keep every rule and must not lose a frame, whatever others do.
//!
//! Each sends numbered frames to the other. It never has more under way than the other has receive buffers for, so there is no reason
//! to lose one.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use ringway_vhost::user::frontend::Frontend;

use crate::mock::frames::{BROADCAST, frame, mac};
use crate::mock::{Guest, Nic, Options, features, sleep};

/// Frames under way at most: each takes up to five of the other's 256 buffers.
const WINDOW: u64 = 32;

/// Time between two windows at least: others need the processors, too.
const PACE: Duration = Duration::from_millis(1);

/// Without a frame for so long, one is lost.
const LOST: Duration = Duration::from_secs(10);

/// What one direction came to.
#[derive(Clone, Debug, Default)]
pub struct Direction {
    /// Frames sent.
    pub sent: u64,
    /// Frames received.
    pub received: u64,
    /// Received, and not what was sent, or out of turn.
    pub corrupted: u64,
    /// Nanoseconds from the sender's publication to the receiver's look, in powers of two.
    latency: Vec<u64>,
}

impl Direction {
    /// Frames that never came.
    pub fn lost(&self) -> u64 {
        self.sent - self.received.min(self.sent)
    }

    /// What so many of a thousand frames did not exceed.
    pub fn quantile(&self, per_mille: u64) -> Duration {
        let wanted = (self.latency.iter().sum::<u64>() * per_mille).div_ceil(1000);
        let mut seen = 0;
        for (power, count) in (0..).zip(&self.latency) {
            seen += count;
            if seen >= wanted {
                return Duration::from_nanos(1 << power);
            }
        }
        Duration::ZERO
    }
}

/// What both ends know of one direction.
struct Account {
    received: AtomicU64,
    /// Frames there are in all, once the sender has stopped.
    total: AtomicU64,
    /// When each frame of the window was sent, in nanoseconds.
    sent_at: [AtomicU64; 32],
}

const _: () = assert!(WINDOW == 32);

impl Account {
    fn slot(&self, number: u64) -> Result<&AtomicU64> {
        Ok(&self.sent_at[usize::try_from(number % WINDOW)?])
    }
}

/// The pair while it talks.
pub struct Pair {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Result<(u64, Direction)>>>,
    _fronts: [Frontend; 2],
}

impl Pair {
    /// Two guests at these sockets begin, one with split rings, the other with packed ones.
    pub fn start(paths: [&Path; 2]) -> Self {
        let formats = [0, features::PACKED | features::IN_ORDER];
        let mut guests = [0, 1].map(|number| {
            let options = Options {
                features: features::USUAL | formats[number],
                ..Options::default()
            };
            Guest::start(paths[number], options)
        });
        // Both are known before it begins, so nothing is flooded.
        for (from, to, number) in [(0, 1, 1), (1, 0, 2)] {
            guests[from].send(&frame(mac(number), BROADCAST, 60, 0));
            guests[to].receive();
        }
        let stop = Arc::new(AtomicBool::new(false));
        let start = Instant::now();
        let accounts = [0, 1].map(|_| {
            Arc::new(Account {
                received: AtomicU64::new(0),
                total: AtomicU64::new(u64::MAX),
                sent_at: Default::default(),
            })
        });
        let [first, second] = guests;
        let mut fronts = Vec::new();
        let mut threads = Vec::new();
        for (number, guest) in [first, second].into_iter().enumerate() {
            let end = End {
                nic: guest.nic,
                number,
                start,
                out: accounts[number].clone(),
                into: accounts[1 - number].clone(),
            };
            let stopped = stop.clone();
            fronts.push(guest.front);
            threads.push(std::thread::spawn(move || end.run(&stopped)));
        }
        let mut fronts = fronts.into_iter();
        let _fronts = [(); 2].map(|()| fronts.next().unwrap_or_else(|| unreachable!()));
        Self {
            stop,
            threads,
            _fronts,
        }
    }

    /// Whether one of them has given up.
    pub fn has_ended(&self) -> bool {
        self.threads.iter().any(JoinHandle::is_finished)
    }

    /// They stop sending and wait for what is under way. From the first to the second, and back.
    pub fn end(self) -> Result<[Direction; 2]> {
        self.stop.store(true, Ordering::Relaxed);
        let mut ends = Vec::new();
        for thread in self.threads {
            let end = thread
                .join()
                .map_err(|_| anyhow!("an honest guest met a device that breaks a rule"))?;
            ends.push(end?);
        }
        let [(sent_there, back), (sent_back, there)] =
            <[_; 2]>::try_from(ends).ok().context("two ends")?;
        let with = |sent, direction| Direction { sent, ..direction };
        Ok([with(sent_there, there), with(sent_back, back)])
    }
}

/// One guest.
struct End {
    nic: Nic,
    number: usize,
    start: Instant,
    out: Arc<Account>,
    into: Arc<Account>,
}

impl End {
    /// Until it is stopped and both have everything, or nothing comes any more. What it sent, and what it received.
    fn run(mut self, stop: &AtomicBool) -> Result<(u64, Direction)> {
        let [mine, theirs] = if self.number == 0 { [1, 2] } else { [2, 1] }.map(mac);
        let mut sent = 0;
        let mut got = Direction {
            latency: vec![0; 64],
            ..Direction::default()
        };
        let mut progress = Instant::now();
        let mut burst = Instant::now();
        loop {
            let stopped = stop.load(Ordering::Relaxed);
            let now = Instant::now();
            let under_way = sent - self.out.received.load(Ordering::Acquire);
            if !stopped && now >= burst && under_way < WINDOW {
                burst = now + PACE;
                for number in (sent..).take(usize::try_from(WINDOW - under_way)?) {
                    let slot = self.out.slot(number)?;
                    slot.store(self.nanoseconds()?, Ordering::Relaxed);
                    self.nic.send(&frame(mine, theirs, length(number), number));
                    sent += 1;
                }
            }
            self.nic.reclaim();
            let mut came = false;
            while let Some(received) = self.nic.try_receive() {
                let number = got.received;
                let slot = self.into.slot(number)?;
                let took = self
                    .nanoseconds()?
                    .saturating_sub(slot.load(Ordering::Relaxed));
                let power = 64 - took.leading_zeros();
                got.latency[usize::try_from(power.min(63))?] += 1;
                if received.frame != frame(theirs, mine, length(number), number) {
                    got.corrupted += 1;
                }
                got.received += 1;
                // Its buffers are back.
                self.into.received.store(got.received, Ordering::Release);
                came = true;
            }
            if came {
                progress = Instant::now();
            } else if progress.elapsed() > LOST {
                return Ok((sent, got));
            }
            if stopped {
                self.out.total.store(sent, Ordering::Release);
                let all_there = self.out.received.load(Ordering::Acquire) == sent;
                if all_there && self.into.total.load(Ordering::Acquire) == got.received {
                    self.nic.drain();
                    return Ok((sent, got));
                }
            }
            if !came && !self.nic.queues[0].ring.enable_calls() {
                sleep(&[self.nic.queues[0].call()], Instant::now() + PACE);
                self.nic.queues[0].hear();
            }
        }
    }

    fn nanoseconds(&self) -> Result<u64> {
        Ok(u64::try_from(self.start.elapsed().as_nanos())?)
    }
}

/// Mostly small and common ones, some that take several buffers.
fn length(number: u64) -> usize {
    match number % 32 {
        0 => 9014,
        1 => 1514,
        n => 60 + 40 * usize::try_from(n).unwrap_or(0),
    }
}
