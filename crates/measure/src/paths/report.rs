//! What is kept of a run: every sample, so that whoever reads it can count again.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Kind, Load, Machine, Missing, Plan, account::Used};
use crate::{confidence::factors, statistics::spread};

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
    /// By figure.
    pub figures: BTreeMap<Figure, Estimate>,
    /// The main figure against that of virtio over a plain tap with as many queues, or with one; none for that itself.
    #[serde(default)]
    pub to_tap: Option<Estimate>,
    /// One of each round.
    pub samples: Vec<Sample>,
}

/// What rounds say of a figure.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    /// Of the rounds.
    pub median: f64,
    /// The true median lies between `median / factor` and `median * factor`, 19 of 20 times; none of one round.
    #[serde(default)]
    pub factor: Option<f64>,
    /// The smallest.
    pub min: f64,
    /// The largest.
    pub max: f64,
}

impl Estimate {
    /// Where the true median begins to be likely.
    pub fn low(&self) -> f64 {
        self.median / self.factor.unwrap_or(1.0)
    }

    /// And where it ends to be.
    pub fn high(&self) -> f64 {
        self.median * self.factor.unwrap_or(1.0)
    }
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

    /// As it was written; what its samples say is counted anew.
    pub fn read(json: &[u8]) -> serde_json::Result<Self> {
        let mut report: Self = serde_json::from_slice(json)?;
        report.count();
        Ok(report)
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
                to_tap: None,
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
        for load in Load::ALL {
            for figure in Figure::ALL {
                let estimates = self.estimates(load, |row| row.values(figure));
                for (row, estimate) in self.rows_of(load).zip(estimates) {
                    match estimate {
                        Some(estimate) => row.figures.insert(figure, estimate),
                        None => row.figures.remove(&figure),
                    };
                }
            }
            let ratios = self.estimates(load, |row| self.ratios(row));
            for (row, ratio) in self.rows_of(load).zip(ratios) {
                row.to_tap = ratio;
            }
        }
    }

    /// Of each row of a load what these figures of its rounds say.
    fn estimates(
        &self,
        load: Load,
        of: impl Fn(&Row) -> Option<Vec<f64>>,
    ) -> Vec<Option<Estimate>> {
        let rows = self.rows.iter().filter(|row| row.load == load);
        let values: Vec<Vec<f64>> = rows.map(|row| of(row).unwrap_or_default()).collect();
        let both = values.iter().zip(factors(&values));
        both.map(|(values, factor)| {
            let spread = spread(values.iter().copied());
            (!values.is_empty()).then_some(Estimate {
                median: spread.median,
                factor,
                min: spread.min,
                max: spread.max,
            })
        })
        .collect()
    }

    fn rows_of(&mut self, load: Load) -> impl Iterator<Item = &mut Row> {
        self.rows.iter_mut().filter(move |row| row.load == load)
    }

    /// The row of another path.
    pub fn row(&self, path: Kind, queues: u16, load: Load) -> Option<&Row> {
        let is_it = |row: &&Row| (row.path, row.queues, row.load) == (path, queues, load);
        self.rows.iter().find(is_it)
    }

    /// Of each round, where machine and moment are nearly the same.
    fn ratios(&self, row: &Row) -> Option<Vec<f64>> {
        let base = self.row(Kind::Tap, row.queues, row.load);
        let base = base.or_else(|| self.row(Kind::Tap, 1, row.load))?;
        if std::ptr::eq(base, row) {
            return None;
        }
        let figure = Figure::main_of(row.load);
        let pairs = row.values(figure)?.into_iter().zip(base.values(figure)?);
        let ratios: Vec<f64> = pairs.map(|(value, base)| value / base).collect();
        ratios
            .iter()
            .all(|ratio| ratio.is_finite())
            .then_some(ratios)
    }
}

impl Row {
    /// A figure of each round; none if the load has no such figure.
    fn values(&self, figure: Figure) -> Option<Vec<f64>> {
        let samples = self.samples.iter();
        samples.map(|sample| figure.of(self.load, sample)).collect()
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
        let ratio = row.to_tap.unwrap();
        assert!((ratio.low() - 2.0).abs() < 1e-6 && (ratio.high() - 2.0).abs() < 1e-6);
        let rate = row.figures[&Figure::Gigabits];
        assert!(rate.max > 2.09 && rate.low() < 1.9 && rate.high() > 2.1);
        assert!(
            report
                .row(Kind::Tap, 1, Load::Tcp1)
                .unwrap()
                .to_tap
                .is_none()
        );
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
        assert_eq!(Report::read(text.as_bytes()).unwrap(), example());
        assert!(text.contains(r#""path-seconds-per-gigabit""#), "{text}");
    }
}
