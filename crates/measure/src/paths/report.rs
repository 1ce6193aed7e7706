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
    /// Those of them that the receiver of the load received.
    pub arrived: u64,
    /// Datagrams sent.
    pub sent: u64,
    /// Datagrams that the receiving program got.
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
    /// Frames that arrived at the receiving guest, thousands a second.
    Kiloframes,
    /// Of datagrams sent, the share that the receiving program got.
    Received,
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
        Self::Kiloframes,
        Self::Received,
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
            Load::Udp64 => Self::Kiloframes,
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
            Self::Kiloframes => (is_udp, sample.arrived as f64 / 1e3 / sample.seconds),
            // The two counts are not of one moment.
            Self::Received => (
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

/// Two paths, one load, three rounds of round figures: for the tests of tables and plots.
#[cfg(test)]
pub(super) fn example() -> Report {
    let machine = Machine {
        model: "a processor".into(),
        processors: 2,
        ..Machine::default()
    };
    let mut report = Report {
        machine,
        seconds: 1.0,
        rounds: 3,
        places: BTreeMap::from([(1, "A on CPU 0, B on 1".into())]),
        rows: Vec::new(),
        missing: vec![Missing {
            path: Kind::Vfio,
            reason: "there is no IOMMU".into(),
        }],
    };
    for (path, queues, factor) in [(Kind::VhostUser, 2, 2), (Kind::Tap, 1, 1)] {
        for drift in [100, 95, 105] {
            let bytes = factor * drift * 1_250_000;
            let sample = Sample {
                seconds: 1.0,
                bytes,
                frames: 10_000,
                arrived: 9_000,
                exchanges: 100,
                p50: 400.0 / factor as f64,
                p99: 800.0,
                used: Used {
                    guest_seconds: 1.5,
                    path_seconds: 0.25,
                    switches: 20_000,
                    wakeups: 10_000,
                },
                ..Sample::default()
            };
            for load in [Load::Tcp1, Load::Exchange] {
                report.add(path, queues, load, sample);
            }
        }
    }
    report.count();
    report
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_counted_from_samples() {
        let report = example();
        let row = report.row(Kind::Tap, 1, Load::Tcp1).unwrap();
        let median = |figure| row.figures[&figure].median;
        assert_eq!(median(Figure::Gigabits), 1.0);
        assert_eq!(median(Figure::SecondsPerGigabit), 1.75);
        assert_eq!(median(Figure::PathSecondsPerGigabit), 0.25);
        assert_eq!(median(Figure::PathSecondsPerMegaframe), 25.0);
        assert_eq!(
            (median(Figure::Switches), median(Figure::Wakeups)),
            (2000.0, 1000.0)
        );
        assert!(!row.figures.contains_key(&Figure::Median));
        let exchange = report.row(Kind::Tap, 1, Load::Exchange).unwrap();
        assert_eq!(exchange.figures[&Figure::Slow].median, 800.0);
        assert!(!exchange.figures.contains_key(&Figure::Gigabits));
    }

    #[test]
    fn ratios_are_of_one_round_and_so_free_of_drift() {
        let report = example();
        let row = report.row(Kind::VhostUser, 2, Load::Tcp1).unwrap();
        // Twice the tap in every round, though both drift by 5 %.
        let ratio = report.ratio(row).unwrap();
        assert!((ratio.min - 2.0).abs() < 1e-6 && (ratio.max - 2.0).abs() < 1e-6);
        assert!(row.figures[&Figure::Gigabits].max > 2.09);
    }

    #[test]
    fn who_fails_once_is_not_shown_at_all() {
        let mut report = example();
        report.give_up(Kind::VhostUser, 2, "it broke".into());
        assert!(report.rows.iter().all(|row| row.path == Kind::Tap));
        assert_eq!(report.missing[1].reason, "with 2 queue pairs: it broke");
    }

    #[test]
    fn a_report_is_read_as_it_was_written() {
        let text = serde_json::to_string(&example()).unwrap();
        let mut read: Report = serde_json::from_str(&text).unwrap();
        // Figures lose their last digit on the way; samples are of round numbers.
        read.count();
        assert_eq!(read, example());
        assert!(text.contains(r#""path-seconds-per-gigabit""#), "{text}");
    }
}
