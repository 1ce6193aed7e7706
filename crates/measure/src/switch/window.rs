//! One row once: a switch of its own, guests that send as fast as they can, then at half that rate to see how long frames are under way.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use ringway_api::stats::Statistics;
use serde::{Deserialize, Serialize};

use super::generator::{Count, Generator};
use super::placement::Placement;
use super::process::{Folder, Switch};
use super::traffic::Traffic;
use crate::processors::{Pinned, Times, context_switches, longest_wait, own, threads};
use crate::statistics::percentile;

/// Million frames per second at most while it is measured how long they are under way.
const TIMED_RATE: f64 = 1.0;
/// How long the last frames may take.
const SETTLE: Duration = Duration::from_secs(1);
/// What a switch has to come to rest.
const REST: Duration = Duration::from_millis(100);
/// Frames under way at most where they take several buffers each, or receivers would run out of buffers.
const WINDOW: u64 = 96;

/// What is measured in one row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// Bytes of a frame.
    pub frame: usize,
    /// Packed rings.
    pub packed: bool,
    /// Threads of the switch.
    pub workers: usize,
    /// Pairs of guests; in each, one sends to the other.
    pub pairs: usize,
}

/// How long the parts of it take.
#[derive(Clone, Copy, Debug)]
pub struct Lengths {
    /// As fast as it goes, before it counts.
    pub warm: Duration,
    /// As fast as it goes.
    pub full: Duration,
    /// At half that rate.
    pub timed: Duration,
}

/// What was measured.
#[derive(Clone, Debug)]
pub struct Sample {
    /// Frames per second that arrived, in millions.
    pub mpps: f64,
    /// Their bits per second, in thousand millions.
    pub gbps: f64,
    /// Microseconds under way, median and 99th percentile, at which rate.
    pub latency: Latency,
    /// Seconds that the switch's threads ran.
    pub cpu_seconds: f64,
    /// How often they left their processors.
    pub switches: u64,
    /// Share of time that the busiest worker spent on frames.
    pub worker_busy: f64,
    /// Share of time in which the busiest guests had something to do.
    pub guests_busy: f64,
    /// Longest time that a worker or guests were ready and had no processor, as a share.
    pub waited: f64,
    /// What both sides counted.
    pub counters: Counters,
    /// Whether guests' memory was made of huge pages.
    pub huge_pages: bool,
}

/// How long frames are under way.
#[derive(Clone, Copy, Debug, Default)]
pub struct Latency {
    /// Microseconds, median.
    pub p50: f64,
    /// Microseconds that 99 of 100 do not take.
    pub p99: f64,
    /// Million frames per second meanwhile.
    pub mpps: f64,
}

/// What was counted from the first frame of a window to the last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// Frames that guests sent, as they count.
    pub sent: u64,
    /// Frames that guests received, as they count.
    pub received: u64,
    /// Frames of a wrong length.
    pub wrong: u64,
    /// Frames from guests, as the switch counts.
    pub from_guests: u64,
    /// Frames to guests, as the switch counts.
    pub to_guests: u64,
    /// Deliveries begun by the switch.
    pub attempted: u64,
    /// Deliveries done.
    pub delivered: u64,
    /// Deliveries given up.
    pub dropped: u64,
    /// Bytes copied from guest to guest.
    pub copied_bytes: u64,
    /// Times a worker was woken.
    pub wakeups: u64,
}

impl Counters {
    /// Whether what guests counted is what the switch counted.
    pub fn agree(&self) -> bool {
        self.sent == self.from_guests
            && self.received == self.to_guests
            && self.delivered == self.to_guests
            && self.attempted == self.delivered + self.dropped
    }

    /// What `after` has more than `self` among what the switch counts.
    fn until(&self, after: &Self) -> Self {
        Self {
            from_guests: after.from_guests - self.from_guests,
            to_guests: after.to_guests - self.to_guests,
            attempted: after.attempted - self.attempted,
            delivered: after.delivered - self.delivered,
            dropped: after.dropped - self.dropped,
            copied_bytes: after.copied_bytes - self.copied_bytes,
            wakeups: after.wakeups - self.wakeups,
            ..*after
        }
    }

    /// Adds what was counted in another window.
    pub fn add(&mut self, more: &Self) {
        self.sent += more.sent;
        self.received += more.received;
        self.wrong += more.wrong;
        self.from_guests += more.from_guests;
        self.to_guests += more.to_guests;
        self.attempted += more.attempted;
        self.delivered += more.delivered;
        self.dropped += more.dropped;
        self.copied_bytes += more.copied_bytes;
        self.wakeups += more.wakeups;
    }
}

impl From<&Statistics> for Counters {
    fn from(statistics: &Statistics) -> Self {
        let queues = || statistics.ports.iter().flat_map(|port| &port.queues);
        Self {
            from_guests: queues().map(|queue| queue.rx_frames).sum(),
            to_guests: queues().map(|queue| queue.tx_frames).sum(),
            attempted: statistics.attempted,
            delivered: statistics.delivered,
            dropped: statistics.dropped,
            copied_bytes: statistics.copied_bytes,
            wakeups: queues().map(|queue| queue.kicks).sum(),
            ..Self::default()
        }
    }
}

impl Row {
    /// What the guests of each pair do.
    pub fn traffic(&self) -> Traffic {
        let plain = Traffic {
            size: self.frame,
            packed: self.packed,
            ..Traffic::default()
        };
        Traffic {
            window: (plain.buffers_per_frame() > 1).then_some(WINDOW),
            ..plain
        }
    }
}

/// A switch with its guests.
pub struct Lab<'p> {
    switch: Switch,
    pairs: Vec<Generator>,
    placement: &'p Placement,
    traffic: Traffic,
    stop: &'p AtomicBool,
}

impl<'p> Lab<'p> {
    /// Starts both.
    pub fn start(
        program: &Path,
        folder: &Folder,
        row: &Row,
        placement: &'p Placement,
        stop: &'p AtomicBool,
    ) -> Result<Self> {
        let cpus = &placement.switch;
        let (switch, fronts) = Switch::start(program, folder, row.workers, cpus, row.pairs)?;
        let traffic = row.traffic();
        let guests = fronts.into_iter().zip(&placement.guests);
        // Memory lies where it is touched first.
        let pairs = guests.map(|(fronts, &cpu)| {
            let _pinned = Pinned::to(cpu)?;
            Generator::start(fronts, &traffic, stop)
        });
        Ok(Self {
            pairs: pairs.collect::<Result<_>>()?,
            switch,
            placement,
            traffic,
            stop,
        })
    }

    /// Seconds of processor time a second, and times a second that a thread left its processor, while all guests are silent for so long.
    pub fn idle(&self, length: Duration) -> Result<[f64; 2]> {
        let pid = self.switch.pid();
        pause(REST, self.stop)?;
        let (ran, switches, start) = (ran(pid), context_switches(pid), Instant::now());
        pause(length, self.stop)?;
        let seconds = start.elapsed().as_secs_f64();
        let switches = context_switches(pid).saturating_sub(switches);
        Ok([self::ran(pid) - ran, switches as f64].map(|figure| figure / seconds))
    }

    /// Measures.
    pub fn measure(&mut self, lengths: &Lengths) -> Result<Sample> {
        self.run(lengths.warm)?;
        let before = self.switch.statistics()?;
        let pid = self.switch.pid();
        let (cpu, switches, times) = (ran(pid), context_switches(pid), threads(pid));
        let counts = self.run(lengths.full)?;
        let (cpu, switches) = (ran(pid) - cpu, context_switches(pid) - switches);
        let elapsed = counts.iter().map(|(count, _)| count.elapsed).max();
        let elapsed = elapsed.unwrap_or_default();
        let nanoseconds = u64::try_from(elapsed.as_nanos())?;
        let waits = counts.iter().map(|(_, times)| times.waited);
        let waited = waits.fold(longest_wait(&times, &threads(pid), nanoseconds), u64::max);
        let (after, counters) = self.settle(&before, &counts)?;
        let rate = |count: &Count| count.received as f64 / count.elapsed.as_secs_f64();
        let mpps: f64 = counts.iter().map(|(count, _)| rate(count) / 1e6).sum();
        if counters.received == 0 {
            bail!("none of {} frames came through", counters.sent);
        }
        if counters.wrong > 0 {
            bail!("{} frames came changed", counters.wrong);
        }
        let busy = |count: &Count| 1.0 - count.idle.as_secs_f64() / count.elapsed.as_secs_f64();
        Ok(Sample {
            mpps,
            gbps: mpps * 8e-3 * self.traffic.size as f64,
            latency: self.latency(mpps / 2.0, lengths.timed)?,
            cpu_seconds: cpu,
            switches,
            worker_busy: worker_busy(&before, &after, elapsed),
            guests_busy: counts
                .iter()
                .map(|(count, _)| busy(count))
                .fold(0.0, f64::max),
            waited: waited as f64 / elapsed.as_nanos() as f64,
            counters,
            huge_pages: self
                .pairs
                .iter()
                .all(|pair| pair.guests.iter().all(|guest| guest.huge)),
        })
    }

    /// All guests at once, each pair in a thread of its own; what they did, and how long each thread ran and waited.
    fn run(&mut self, length: Duration) -> Result<Vec<(Count, Times)>> {
        let stop = self.stop;
        let results: Vec<Result<_>> = std::thread::scope(|scope| {
            let pairs = self.pairs.iter_mut().zip(&self.placement.guests);
            let threads = pairs.map(|(pair, &cpu)| {
                scope.spawn(move || {
                    let _pinned = Pinned::to(cpu)?;
                    let before = own();
                    let count = pair.run(length, stop)?;
                    let after = own();
                    let times = Times {
                        ran: after.ran - before.ran,
                        waited: after.waited - before.waited,
                    };
                    Ok((count, times))
                })
            });
            let threads: Vec<_> = threads.collect();
            let joined = threads.into_iter().map(|thread| thread.join());
            joined
                .map(|result| result.unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
                .collect()
        });
        interrupted(stop)?;
        results.into_iter().collect()
    }

    /// Waits until the last frame has come, and adds up.
    fn settle(
        &mut self,
        before: &Statistics,
        counts: &[(Count, Times)],
    ) -> Result<(Statistics, Counters)> {
        let sum = |of: fn(&Count) -> u64| counts.iter().map(|(count, _)| of(count)).sum::<u64>();
        let mut received = sum(|count| count.received + count.late);
        let end = Instant::now() + SETTLE;
        loop {
            let statistics = self.switch.statistics()?;
            let counters = Counters {
                sent: sum(|count| count.sent),
                received,
                wrong: sum(|count| count.wrong),
                ..Counters::from(before).until(&Counters::from(&statistics))
            };
            if counters.agree() || Instant::now() > end {
                return Ok((statistics, counters));
            }
            for pair in &mut self.pairs {
                received += pair.drain(Duration::from_millis(2))?;
            }
        }
    }

    /// At so many million frames per second in all.
    fn latency(&mut self, rate: f64, length: Duration) -> Result<Latency> {
        let rate = rate.min(TIMED_RATE) / self.pairs.len() as f64;
        for pair in &mut self.pairs {
            pair.pace(&self.traffic, Some(rate));
        }
        let counts = self.run(length)?;
        for pair in &mut self.pairs {
            pair.pace(&self.traffic, None);
        }
        let mut all = Vec::new();
        let mut mpps = 0.0;
        for (count, _) in &counts {
            all.extend_from_slice(&count.latencies);
            mpps += count.received as f64 / count.elapsed.as_secs_f64() / 1e6;
        }
        let [p50, p99] = [50, 99].map(|share| f64::from(percentile(&all, share)) / 1e3);
        Ok(Latency { p50, p99, mpps })
    }
}

/// Share of `elapsed` that the busiest worker spent on bursts.
fn worker_busy(before: &Statistics, after: &Statistics, elapsed: Duration) -> f64 {
    let pairs = before.workers.iter().zip(&after.workers);
    let busy = pairs.map(|(before, after)| after.busy_ns.saturating_sub(before.busy_ns));
    let busy = busy.max().unwrap_or_default() as f64;
    (busy / elapsed.as_nanos() as f64).min(1.0)
}

/// Seconds that all threads of a process ran.
fn ran(pid: u32) -> f64 {
    let sum: u64 = threads(pid).values().map(|times| times.ran).sum();
    sum as f64 / 1e9
}

/// Sleeps, unless somebody wants to end.
fn pause(length: Duration, stop: &AtomicBool) -> Result<()> {
    let end = Instant::now() + length;
    loop {
        interrupted(stop)?;
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        std::thread::sleep(left.min(Duration::from_millis(50)));
    }
}

/// Fails when somebody wants to end.
pub fn interrupted(stop: &AtomicBool) -> Result<()> {
    let asked = stop.load(Ordering::Relaxed);
    (!asked).then_some(()).context("interrupted")
}
