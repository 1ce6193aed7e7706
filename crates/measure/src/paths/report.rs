//! What is kept of a run: every sample, so that whoever reads it can count again.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Kind, Load, Machine, Missing, Plan, account::Used};
use crate::statistics::{Spread, spread};

/// Everything that was measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Where.
    pub machine: Machine,
    /// Seconds of each sample.
    pub seconds: f64,
    /// Samples of each row.
    pub rounds: usize,
    /// What ran where, by queue pairs.
    pub places: BTreeMap<u16, String>,
    /// Paths and loads.
    pub rows: Vec<Row>,
    /// Paths that were not measured.
    pub missing: Vec<Missing>,
}

/// One load on one path.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// The path.
    pub path: Kind,
    /// Its queue pairs.
    pub queues: u16,
    /// The load.
    pub load: Load,
    /// Medians, smallest and largest, by figure.
    pub figures: BTreeMap<Figure, Spread>,
    /// One of each round.
    pub samples: Vec<Sample>,
}

/// What was counted in one round.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// By the receiver's clock.
    pub seconds: f64,
    /// Payload that arrived.
    pub bytes: u64,
    /// Frames that either guest received from its device; one may be a segment of up to 64 KiB.
    pub frames: u64,
    /// Datagrams sent.
    pub sent: u64,
    /// Datagrams that arrived.
    pub datagrams: u64,
    /// Requests answered.
    pub exchanges: u64,
    /// Microseconds of a request, the median.
    pub p50: f64,
    /// The 99th percentile.
    pub p99: f64,
    /// What it cost the host.
    pub used: Used,
}

/// What is told of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Figure {
    /// Payload that arrived, Gbit/s.
    Gigabits,
    /// Datagrams that arrived, thousands a second.
    Kilodatagrams,
    /// Of datagrams sent, the share that arrived.
    Arrived,
    /// Microseconds of a request, the median.
    Median,
    /// Microseconds of a request, the 99th percentile.
    Slow,
    /// Seconds of the host's processors per Gbit of payload.
    SecondsPerGigabit,
    /// Of them, those not spent in guests.
    PathSecondsPerGigabit,
    /// Seconds of the host's processors per million frames.
    SecondsPerMegaframe,
    /// Of them, those not spent in guests.
    PathSecondsPerMegaframe,
    /// Changes of context per 1,000 frames.
    Switches,
    /// Wake-ups per 1,000 frames.
    Wakeups,
}

impl Figure {
    /// All.
    pub const ALL: [Self; 11] = [
        Self::Gigabits,
        Self::Kilodatagrams,
        Self::Arrived,
        Self::Median,
        Self::Slow,
        Self::SecondsPerGigabit,
        Self::PathSecondsPerGigabit,
        Self::SecondsPerMegaframe,
        Self::PathSecondsPerMegaframe,
        Self::Switches,
        Self::Wakeups,
    ];

    /// Which one stands for the load.
    pub fn main_of(load: Load) -> Self {
        match load {
            Load::Udp64 => Self::Kilodatagrams,
            Load::Exchange => Self::Median,
            _ => Self::Gigabits,
        }
    }

    /// Of one sample; `None` if the load has no such figure.
    pub fn of(self, load: Load, sample: &Sample) -> Option<f64> {
        let is_udp = matches!(load, Load::Udp64 | Load::Udp1472);
        let is_exchange = load == Load::Exchange;
        let gigabits = sample.bytes as f64 * 8.0 / 1e9;
        let frames = sample.frames as f64;
        let path = sample.used.path_seconds;
        let all = path + sample.used.guest_seconds;
        let (applies, value) = match self {
            Self::Gigabits => (!is_exchange, gigabits / sample.seconds),
            Self::Kilodatagrams => (is_udp, sample.datagrams as f64 / 1e3 / sample.seconds),
            // The two counts are not of one moment.
            Self::Arrived => (
                is_udp && sample.sent > 0,
                (sample.datagrams as f64 / sample.sent as f64).min(1.0),
            ),
            Self::Median => (is_exchange, sample.p50),
            Self::Slow => (is_exchange, sample.p99),
            Self::SecondsPerGigabit => (!is_exchange, all / gigabits),
            Self::PathSecondsPerGigabit => (!is_exchange, path / gigabits),
            Self::SecondsPerMegaframe => (true, all / frames * 1e6),
            Self::PathSecondsPerMegaframe => (true, path / frames * 1e6),
            Self::Switches => (true, sample.used.switches as f64 / frames * 1e3),
            Self::Wakeups => (true, sample.used.wakeups as f64 / frames * 1e3),
        };
        (applies && value.is_finite()).then_some(value)
    }
}

impl Report {
    pub(super) fn new(machine: Machine, plan: &Plan, missing: Vec<Missing>) -> Self {
        Self {
            machine,
            seconds: plan.seconds,
            rounds: plan.rounds,
            places: BTreeMap::new(),
            rows: Vec::new(),
            missing,
        }
    }

    pub(super) fn placed(&mut self, queues: u16, words: Option<&str>) {
        let words = words.unwrap_or("nothing is pinned: there is one CPU");
        self.places.insert(queues, words.to_owned());
    }

    pub(super) fn add(&mut self, path: Kind, queues: u16, load: Load, sample: Sample) {
        let is_it = |row: &&mut Row| (row.path, row.queues, row.load) == (path, queues, load);
        match self.rows.iter_mut().find(is_it) {
            Some(row) => row.samples.push(sample),
            None => self.rows.push(Row {
                path,
                queues,
                load,
                figures: BTreeMap::new(),
                samples: vec![sample],
            }),
        }
    }

    pub(super) fn give_up(&mut self, path: Kind, queues: u16, reason: String) {
        self.rows
            .retain(|row| (row.path, row.queues) != (path, queues));
        let reason = match queues {
            1 => reason,
            queues => format!("with {queues} queue pairs: {reason}"),
        };
        self.missing.push(Missing { path, reason });
    }

    /// Puts rows in the order of loads and paths, and counts their figures.
    pub(super) fn count(&mut self) {
        let place = |kind| Kind::ALL.iter().position(|it| *it == kind);
        self.rows
            .sort_by_key(|row| (row.load, place(row.path), row.queues));
        for row in &mut self.rows {
            row.count();
        }
    }

    /// The row of another path.
    pub fn row(&self, path: Kind, queues: u16, load: Load) -> Option<&Row> {
        let is_it = |row: &&Row| (row.path, row.queues, row.load) == (path, queues, load);
        self.rows.iter().find(is_it)
    }

    /// What a row's main figure is against that of virtio over a plain tap with as many queues, or with one: of each round, then the
    /// median.
    pub fn ratio(&self, row: &Row) -> Option<Spread> {
        let base = self.row(Kind::Tap, row.queues, row.load);
        let base = base.or_else(|| self.row(Kind::Tap, 1, row.load))?;
        let figure = Figure::main_of(row.load);
        let pairs = row.samples.iter().zip(&base.samples);
        let ratios: Option<Vec<f64>> = pairs
            .map(|(sample, base)| Some(figure.of(row.load, sample)? / figure.of(row.load, base)?))
            .collect();
        ratios.map(|ratios| spread(ratios.into_iter()))
    }
}

impl Row {
    fn count(&mut self) {
        for figure in Figure::ALL {
            let values: Option<Vec<f64>> = self
                .samples
                .iter()
                .map(|sample| figure.of(self.load, sample))
                .collect();
            if let Some(values) = values {
                self.figures.insert(figure, spread(values.into_iter()));
            }
        }
    }
}
