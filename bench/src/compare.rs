//! One row: all middles connected at once, one running at a time, in short windows that take turns.
//!
//! A machine drifts within seconds, so each round measures every middle once and only ratios within a round count. A round in which the
//! generator or a thread that carries frames had to wait for its processor is thrown away, and so is one in which the two processors
//! were further apart than in the best: a host moves virtual ones about, and every switch is half as fast then.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use crate::generator::{Count, Generator};
use crate::middle::{Kind, Middle, Place};
use crate::processors::{Pinned, handover, longest_wait, own, threads};
use crate::rows::Row;
use ringway_measure::statistics::{Spread, percentile, spread};

/// How it is measured.
#[derive(Clone, Debug)]
pub struct Plan {
    pub kinds: Vec<Kind>,
    /// Rounds that count, and how long they may be tried for.
    pub rounds: usize,
    pub limit: Duration,
    pub window: Duration,
    /// Share of a window that may be spent waiting for a processor.
    pub waiting: f64,
    /// The generator's processor.
    pub cpu: usize,
    /// How much longer than in the best round a line may take between the processors.
    pub apart: f64,
    /// Nanoseconds of the shortest hand-over that is known from other rows; infinite when none is.
    pub nearest: f64,
}

/// What came out.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Outcome {
    pub row: String,
    pub title: String,
    pub rounds: usize,
    pub tried: usize,
    /// Whether the guests' memory was made of huge pages.
    pub huge_pages: bool,
    /// Nanoseconds that a line takes from processor to processor: the best round, and the worst that counted.
    #[serde(default)]
    pub handover: [f64; 2],
    pub middles: Vec<Figures>,
    /// The first middle against each of the others.
    pub ratios: Vec<Ratio>,
}

/// Of one middle.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Figures {
    pub name: String,
    /// Million frames per second that arrived.
    pub mpps: Spread,
    /// Their bytes, median.
    pub gbps: f64,
    /// Share of time in which the generator had something to do, median: near 1 it may be the limit itself.
    pub generator_busy: f64,
    /// Share of the sent frames that did not arrive, of all rounds.
    pub lost: f64,
    /// Frames of a wrong length or content, of all rounds.
    pub wrong: u64,
    /// Microseconds under way, median and 99th percentile, where that was measured.
    pub latency: Option<[f64; 2]>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Ratio {
    pub against: String,
    /// Of the rounds; for latencies, of the medians.
    pub paired: Spread,
}

struct Side {
    kind: Kind,
    middle: Middle,
    generator: Generator,
    /// Windows that were thrown away, and the longest wait among them as a share of the window.
    disturbed: usize,
    worst: f64,
    /// Windows in which nothing arrived.
    silent: usize,
}

/// Measures one row.
pub fn compare(row: &Row, plan: &Plan, place: &Place, stop: &AtomicBool) -> Result<Outcome> {
    let mut sides = Vec::new();
    for &kind in &plan.kinds {
        if stop.load(Ordering::Relaxed) {
            bail!("interrupted");
        }
        let (mut middle, fronts) = Middle::start(kind, place, &row.traffic)?;
        let _pinned = Pinned::to(plan.cpu)?;
        let mut generator = Generator::start(fronts, &row.traffic, stop)
            .with_context(|| format!("{}: {}", row.name, kind.name()))?;
        // Caches of addresses and flows fill, pages are touched.
        generator.run(Duration::from_millis(300), stop)?;
        middle.pause()?;
        sides.push(Side {
            kind,
            middle,
            generator,
            disturbed: 0,
            worst: 0.0,
            silent: 0,
        });
    }
    let _pinned = Pinned::to(plan.cpu)?;
    let (mut rounds, mut tried) = (Vec::new(), 0);
    let mut nearness = Nearness::new(place.cpu, plan);
    let begin = Instant::now();
    while nearness.of(&rounds).count() < plan.rounds && begin.elapsed() < plan.limit {
        if stop.load(Ordering::Relaxed) {
            bail!("interrupted");
        }
        if nearness.look().is_none() {
            // It passes, or it stays until the time is over.
            std::thread::sleep(Duration::from_millis(20));
            continue;
        }
        tried += 1;
        if let Some(round) = round(&mut sides, tried, plan, &mut nearness, stop)? {
            rounds.push(round);
        }
    }
    let far = nearness.far;
    let rounds: Vec<&Round> = nearness.of(&rounds).collect();
    if rounds.is_empty() {
        let sides = sides.iter().filter(|side| side.disturbed > 0);
        let disturbed = sides.map(|side| {
            let (name, share) = (side.kind.name(), 100.0 * side.worst);
            format!(
                "{name} in {} windows, up to {share:.0} %, {} of them silent",
                side.disturbed, side.silent
            )
        });
        bail!(
            "{}: in each of {tried} rounds somebody waited for a processor ({}), and {far} times the \
             processors were far from each other: is the machine busy otherwise?",
            row.name,
            disturbed.collect::<Vec<_>>().join("; ")
        );
    }
    Ok(outcome(row, &sides, &rounds, tried))
}

/// One window of every side.
struct Round {
    counts: Vec<Count>,
    /// The longest hand-over before, between and after them.
    handover: f64,
}

/// `None` when somebody had to wait for a processor, or the processors were far from each other.
fn round(
    sides: &mut [Side],
    number: usize,
    plan: &Plan,
    nearness: &mut Nearness,
    stop: &AtomicBool,
) -> Result<Option<Round>> {
    let mut longest = 0.0f64;
    let mut counts: Vec<Count> = Vec::new();
    counts.resize_with(sides.len(), Count::default);
    // Nobody is always the first after a pause.
    for turn in 0..sides.len() {
        let index = (turn + number) % sides.len();
        let Some(count) = sides[index].window(plan, stop)? else {
            return Ok(None);
        };
        counts[index] = count;
        let Some(after) = nearness.look() else {
            return Ok(None);
        };
        longest = longest.max(after);
    }
    Ok(Some(Round {
        counts,
        handover: longest,
    }))
}

/// How far the two processors are from each other, as seen so far.
struct Nearness {
    cpu: usize,
    apart: f64,
    best: f64,
    /// How often they were too far.
    far: usize,
}

impl Nearness {
    fn new(cpu: usize, plan: &Plan) -> Self {
        Self {
            cpu,
            apart: plan.apart,
            best: plan.nearest,
            far: 0,
        }
    }

    /// Nanoseconds of a hand-over now, unless it takes much longer than it can.
    fn look(&mut self) -> Option<f64> {
        let now = handover(self.cpu).unwrap_or(f64::INFINITY);
        self.best = self.best.min(now);
        let is_near = now.is_finite() && now <= self.best * self.apart;
        self.far += usize::from(!is_near);
        is_near.then_some(now)
    }

    /// Rounds that were near by what is known now.
    fn of<'r>(&self, rounds: &'r [Round]) -> impl Iterator<Item = &'r Round> + use<'r> {
        let limit = self.best * self.apart;
        rounds.iter().filter(move |round| round.handover <= limit)
    }
}

impl Side {
    /// One window; `None` when somebody had to wait for a processor.
    fn window(&mut self, plan: &Plan, stop: &AtomicBool) -> Result<Option<Count>> {
        self.middle.go_on()?;
        self.generator.run(plan.window / 5, stop)?;
        let pid = self.middle.pid();
        let (theirs, ours) = (threads(pid), own());
        let count = self.generator.run(plan.window, stop)?;
        if stop.load(Ordering::Relaxed) {
            bail!("interrupted");
        }
        let nanoseconds = u64::try_from(count.elapsed.as_nanos())?;
        let waited = longest_wait(&theirs, &threads(pid), nanoseconds);
        let waited = waited.max(own().waited.saturating_sub(ours.waited));
        self.middle.pause()?;
        let share = waited as f64 / nanoseconds as f64;
        // Nothing at all comes only when a worker never got its processor, which it then did not wait for by the rule above, or when
        // the switch is broken: then no round is left, and that is said.
        self.silent += usize::from(count.received == 0);
        if share > plan.waiting || count.received == 0 {
            self.disturbed += 1;
            self.worst = self.worst.max(share);
            return Ok(None);
        }
        Ok(Some(count))
    }
}

fn outcome(row: &Row, sides: &[Side], rounds: &[&Round], tried: usize) -> Outcome {
    let rate = |count: &Count| count.received as f64 / count.elapsed.as_secs_f64() / 1e6;
    let counts = |side: usize| rounds.iter().map(move |round| &round.counts[side]);
    let figures = sides.iter().enumerate().map(|(index, side)| {
        let all = |of: fn(&Count) -> u64| counts(index).map(of).sum::<u64>();
        let median = |of: &dyn Fn(&Count) -> f64| spread(counts(index).map(of)).median;
        Figures {
            name: side.kind.name().into(),
            mpps: spread(counts(index).map(rate)),
            gbps: median(&|count| count.bytes as f64 * 8e-9 / count.elapsed.as_secs_f64()),
            generator_busy: median(&|count| {
                1.0 - count.idle.as_secs_f64() / count.elapsed.as_secs_f64()
            }),
            lost: (1.0 - all(|count| count.received) as f64 / all(|count| count.sent) as f64)
                .max(0.0),
            wrong: all(|count| count.wrong),
            latency: latency(counts(index)),
        }
    });
    let ratios = sides.iter().enumerate().skip(1).map(|(index, side)| {
        let pairs = counts(0).zip(counts(index));
        let paired = if row.traffic.latency {
            let middle = |count: &Count| f64::from(percentile(&count.latencies, 50));
            spread(pairs.map(|(ours, theirs)| middle(ours) / middle(theirs)))
        } else {
            spread(pairs.map(|(ours, theirs)| rate(ours) / rate(theirs)))
        };
        Ratio {
            against: side.kind.name().into(),
            paired,
        }
    });
    Outcome {
        row: row.name.clone(),
        title: row.title.clone(),
        rounds: rounds.len(),
        tried,
        huge_pages: sides
            .iter()
            .all(|side| side.generator.guests.iter().all(|guest| guest.huge)),
        handover: [f64::min, f64::max].map(|of: fn(f64, f64) -> f64| {
            let all = rounds.iter().map(|round| round.handover);
            all.reduce(of).unwrap_or(f64::NAN)
        }),
        middles: figures.collect(),
        ratios: ratios.collect(),
    }
}

fn latency<'c>(counts: impl Iterator<Item = &'c Count>) -> Option<[f64; 2]> {
    let all: Vec<u32> = counts
        .flat_map(|count| count.latencies.iter().copied())
        .collect();
    (!all.is_empty()).then(|| [50, 99].map(|share| f64::from(percentile(&all, share)) / 1e3))
}

/// Kinds that can be measured here; says on stderr what is missing.
pub fn available(wanted: &[Kind]) -> Vec<Kind> {
    let mut said = BTreeMap::new();
    let mut found = Vec::new();
    for &kind in wanted {
        match kind.missing() {
            Some(why) => {
                said.insert(kind.name(), why);
            }
            None => found.push(kind),
        }
    }
    for why in said.values() {
        eprintln!("bench: without this peer: {why}");
    }
    found
}
