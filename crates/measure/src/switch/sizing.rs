//! All rows, over several rounds: each round measures every row once, so that a machine that drifts does so for all of them.

use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use super::placement::{Placement, Sharing};
use super::process::Folder;
use super::window::{Counters, Lab, Lengths, Row, Sample, interrupted};
use crate::machine::Machine;
use crate::processors::allowed;
use crate::statistics::{Spread, spread};

/// What starting a switch and its guests takes.
const START: f64 = 0.25;
/// Seconds of a row below which figures mean nothing.
const SHORTEST: f64 = 0.1;
/// Share of its time in which a worker that is the limit has frames.
const BUSY: f64 = 0.9;
/// Share of time without a processor from which on that is the limit.
const WAITED: f64 = 0.1;

/// What is to be measured, and how.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The program whose switch is measured.
    pub program: PathBuf,
    /// What is measured.
    pub rows: Vec<Row>,
    /// The switch's processors; none = the last ones.
    pub cpus: Vec<usize>,
    /// How often each row is measured.
    pub rounds: usize,
    /// How long all of it takes, about.
    pub seconds: f64,
}

/// What came out.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    /// The program's version.
    pub version: String,
    /// Where it was measured.
    pub machine: Machine,
    /// Whether guests' memory was made of huge pages.
    pub huge_pages: bool,
    /// How often each row was measured.
    pub rounds: usize,
    /// How long each time, as fast as it went.
    pub window_seconds: f64,
    /// A row for each kind of frame, ring and count of workers.
    pub rows: Vec<Outcome>,
    /// A switch whose guests are silent.
    pub idle: Idle,
    /// What it means, in sentences.
    pub meaning: Vec<String>,
}

/// One row.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Outcome {
    /// What was sent, and over what.
    #[serde(flatten)]
    pub row: Row,
    /// Who ran where.
    pub placement: Placement,
    /// Million frames per second that arrived.
    pub mpps: Spread,
    /// Thousand million bits per second of these frames.
    pub gbps: Spread,
    /// Microseconds that half of the frames take at most, at `latency_mpps`.
    pub latency_p50_us: Spread,
    /// Microseconds that 99 of 100 frames take at most.
    pub latency_p99_us: Spread,
    /// Million frames per second while that was measured.
    pub latency_mpps: Spread,
    /// Seconds of processor time of the switch for a million frames.
    pub cpu_seconds_per_million_frames: Spread,
    /// The same for a thousand million bits.
    pub cpu_seconds_per_gbit: Spread,
    /// How often its threads left their processors, for 1,000 frames.
    pub context_switches_per_1000_frames: Spread,
    /// How often a worker was woken, for 1,000 frames.
    pub wakeups_per_1000_frames: Spread,
    /// Share of time that the busiest worker spent on frames.
    pub worker_busy: Spread,
    /// Share of time in which the busiest guests had something to do.
    pub guests_busy: Spread,
    /// Share of time that somebody was ready and had no processor.
    pub waited: Spread,
    /// Who could not do more.
    pub limit: Limit,
    /// What both sides counted, of all rounds.
    pub counters: Counters,
}

/// Who was the limit of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Limit {
    /// A worker had frames all the time.
    Switch,
    /// Workers had time left: whoever plays the guests could not do more.
    Guests,
    /// Both had to share processors, with each other or with somebody else.
    Processors,
}

/// A switch whose guests are connected and silent.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Idle {
    /// Per cent of one processor.
    pub cpu_percent: Spread,
    /// Times a second that a thread left its processor.
    pub context_switches_per_second: Spread,
}

impl Plan {
    /// Measures. `progress` hears how many of how many steps are done, and what is next.
    pub fn run(
        &self,
        stop: &AtomicBool,
        mut progress: impl FnMut(usize, usize, &str),
    ) -> Result<Report> {
        let lengths = self.lengths()?;
        let placements = self.placements()?;
        let folder = Folder::new()?;
        let steps = self.rounds * self.rows.len();
        let mut samples: Vec<Vec<Sample>> = vec![Vec::new(); self.rows.len()];
        let mut idle = Vec::new();
        for round in 0..self.rounds {
            // Nobody is always the first.
            for turn in 0..self.rows.len() {
                let index = (turn + round) % self.rows.len();
                let (row, placement) = (&self.rows[index], &placements[index]);
                progress(round * self.rows.len() + turn, steps, &row.to_string());
                interrupted(stop)?;
                let mut sample = || {
                    let mut lab = Lab::start(&self.program, &folder, row, placement, stop)?;
                    if index == 0 {
                        idle.push(lab.idle(lengths.full)?);
                    }
                    lab.measure(&lengths)
                };
                samples[index].push(sample().with_context(|| row.to_string())?);
            }
        }
        progress(steps, steps, "");
        let rows = self.rows.iter().zip(placements).zip(&samples);
        let rows = rows.map(|((&row, placement), samples)| outcome(row, placement, samples));
        let idle =
            |which: usize, times: f64| spread(idle.iter().map(|figures| figures[which] * times));
        let mut report = Report {
            version: env!("CARGO_PKG_VERSION").into(),
            machine: Machine::here(),
            huge_pages: samples.iter().flatten().all(|sample| sample.huge_pages),
            rounds: self.rounds,
            window_seconds: lengths.full.as_secs_f64(),
            rows: rows.collect(),
            idle: Idle {
                cpu_percent: idle(0, 100.0),
                context_switches_per_second: idle(1, 1.0),
            },
            meaning: Vec::new(),
        };
        report.meaning = super::meaning::sentences(&report);
        Ok(report)
    }

    /// Says what cannot be measured so.
    pub fn check(&self) -> Result<()> {
        self.lengths()?;
        self.placements().map(drop)
    }

    /// Who runs where in each row.
    fn placements(&self) -> Result<Vec<Placement>> {
        let allowed = allowed()?;
        let rows = self.rows.iter();
        rows.map(|row| Placement::new(&allowed, &self.cpus, row.workers, row.pairs))
            .collect()
    }

    /// Divides the time.
    fn lengths(&self) -> Result<Lengths> {
        let (rounds, rows) = (self.rounds as f64, self.rows.len() as f64);
        let part = self.seconds / rounds / (rows + 0.5) - START;
        if part < SHORTEST {
            let least = (rounds * (rows + 0.5) * (START + SHORTEST)).ceil();
            bail!(
                "{} seconds are too few for {rounds} rounds of {rows} rows: give {least} or more, or fewer rows or rounds",
                self.seconds
            );
        }
        let share = |share: f64| Duration::from_secs_f64(part * share);
        Ok(Lengths {
            warm: share(0.2),
            full: share(0.5),
            timed: share(0.3),
        })
    }
}

fn outcome(row: Row, placement: Placement, samples: &[Sample]) -> Outcome {
    let of = |figure: &dyn Fn(&Sample) -> f64| spread(samples.iter().map(figure));
    let received = |sample: &Sample| sample.counters.received as f64;
    let gbit = |sample: &Sample| received(sample) * row.frame as f64 * 8e-9;
    let mut counters = Counters::default();
    for sample in samples {
        counters.add(&sample.counters);
    }
    let worker_busy = of(&|sample| sample.worker_busy);
    let waited = of(&|sample| sample.waited);
    Outcome {
        row,
        mpps: of(&|sample| sample.mpps),
        gbps: of(&|sample| sample.gbps),
        latency_p50_us: of(&|sample| sample.latency.p50),
        latency_p99_us: of(&|sample| sample.latency.p99),
        latency_mpps: of(&|sample| sample.latency.mpps),
        cpu_seconds_per_million_frames: of(&|sample| sample.cpu_seconds * 1e6 / received(sample)),
        cpu_seconds_per_gbit: of(&|sample| sample.cpu_seconds / gbit(sample)),
        context_switches_per_1000_frames: of(&|s| s.switches as f64 * 1e3 / received(s)),
        wakeups_per_1000_frames: of(&|s| s.counters.wakeups as f64 * 1e3 / received(s)),
        worker_busy,
        guests_busy: of(&|sample| sample.guests_busy),
        waited,
        limit: match placement.sharing {
            Sharing::Processors => Limit::Processors,
            _ if waited.median >= WAITED => Limit::Processors,
            _ if worker_busy.median >= BUSY => Limit::Switch,
            _ => Limit::Guests,
        },
        placement,
        counters,
    }
}

impl std::fmt::Display for Row {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ring = if self.packed { "packed" } else { "split" };
        let s = if self.workers == 1 { "" } else { "s" };
        write!(f, "{} B, {ring}, {} worker{s}", self.frame, self.workers)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Of two rows.
    pub(in crate::switch) fn report(limit: Limit, sharing: Sharing, busy: f64) -> Report {
        let of = |figure: f64| spread([figure].into_iter());
        let row = |frame| Outcome {
            row: Row {
                frame,
                packed: false,
                workers: 1,
                pairs: 1,
            },
            placement: Placement {
                switch: vec![1],
                guests: vec![0],
                sharing,
            },
            mpps: of(10.0),
            gbps: of(5.12),
            latency_p50_us: of(2.0),
            latency_p99_us: of(4.0),
            latency_mpps: of(1.0),
            cpu_seconds_per_million_frames: of(0.1),
            cpu_seconds_per_gbit: of(0.2),
            context_switches_per_1000_frames: of(0.0),
            wakeups_per_1000_frames: of(0.0),
            worker_busy: of(busy),
            guests_busy: of(1.0),
            waited: of(0.0),
            limit,
            counters: Counters::default(),
        };
        Report {
            version: "0".into(),
            machine: Machine::default(),
            huge_pages: false,
            rounds: 1,
            window_seconds: 1.0,
            rows: vec![row(64), row(1518)],
            idle: Idle {
                cpu_percent: of(0.01),
                context_switches_per_second: of(0.0),
            },
            meaning: Vec::new(),
        }
    }

    #[test]
    fn too_short_a_time_is_refused_with_the_least_that_would_do() {
        let row = report(Limit::Switch, Sharing::Nothing, 1.0).rows[0].row;
        let mut plan = Plan {
            program: PathBuf::new(),
            rows: vec![row; 8],
            cpus: Vec::new(),
            rounds: 5,
            seconds: 2.0,
        };
        let error = plan.lengths().unwrap_err().to_string();
        assert!(error.contains("give 15 or more"), "{error}");
        plan.seconds = 15.0;
        assert!(plan.lengths().is_ok());
    }

    #[test]
    fn a_plot_has_a_bar_and_a_line_for_each_row() {
        let report = report(Limit::Processors, Sharing::Processors, 1.0);
        let svg = super::super::plot::svg(&report).unwrap();
        assert_eq!(svg.matches("10.0 Mpps, 5.12 Gbit/s").count(), 2);
        assert!(svg.starts_with("<svg") && svg.contains("Pale"), "{svg}");
    }
}
