//! What ports and addresses cost that carry nothing at the moment: processor, memory, and time of those that do.

use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::compare::{Outcome, Plan, compare};
use crate::cycles::cost;
use crate::middle::{IDLE, Kind, LEARNED, Middle, Place};
use crate::processors::threads;
use crate::rows::Row;
use crate::traffic::Traffic;
use ringway_measure::statistics::Spread;

/// Connected front-ends in the figures of an idle switch.
const PORTS: usize = 64;
/// How long an idle switch is watched.
const WATCHED: Duration = Duration::from_secs(8);
/// What a port has to come to rest.
const REST: Duration = Duration::from_secs(2);

/// One figure.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Line {
    pub what: String,
    pub figure: String,
    /// The bound that the project gives itself, and whether it is kept.
    pub wanted: String,
    pub kept: bool,
}

/// All figures.
pub fn state(place: &Place, plan: &Plan, stop: &AtomicBool) -> Result<Vec<Line>> {
    let mut lines = vec![idle(place)?];
    lines.extend(memory(place)?);
    lines.extend(busy(place, plan, stop)?);
    lines.push(learned(place, plan.cpu, stop)?);
    Ok(lines)
}

/// Processor time of a switch whose guests are silent.
fn idle(place: &Place) -> Result<Line> {
    let middle = Middle::ports(place, PORTS)?;
    std::thread::sleep(REST);
    let ran = || threads(middle.pid()).values().map(|times| times.ran).sum();
    let (before, start): (u64, _) = (ran(), Instant::now());
    std::thread::sleep(WATCHED);
    let share = (ran() - before) as f64 / start.elapsed().as_nanos() as f64;
    Ok(Line {
        what: format!("processor time with {PORTS} connected front-ends and no traffic"),
        figure: format!("{:.3} % of a core", 100.0 * share),
        wanted: "< 0.5 %".into(),
        kept: share < 0.005,
    })
}

/// Memory of its own: guests' memory and what is not written to in files is not.
fn memory(place: &Place) -> Result<[Line; 2]> {
    let one = resident(&Middle::ports(place, 1)?)?;
    let all = resident(&Middle::ports(place, PORTS)?)?;
    let port = (all.anonymous.saturating_sub(one.anonymous)) / (PORTS as u64 - 1);
    let whole = all.anonymous + all.files;
    let mebibytes = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    Ok([
        Line {
            what: "memory of an idle port with two pairs of queues".into(),
            figure: format!("{:.0} KiB", port as f64 / 1024.0),
            wanted: "< 1 MiB".into(),
            kept: port < 1 << 20,
        },
        Line {
            what: format!("memory of a switch with {PORTS} such ports"),
            figure: format!(
                "{:.1} MiB, {:.1} of them the program's file",
                mebibytes(whole),
                mebibytes(all.files)
            ),
            wanted: "< 30 MiB".into(),
            kept: whole < 30 << 20,
        },
    ])
}

/// Resident bytes of a process, without shared memory.
struct Resident {
    anonymous: u64,
    files: u64,
}

fn resident(middle: &Middle) -> Result<Resident> {
    std::thread::sleep(REST);
    let text = std::fs::read_to_string(format!("/proc/{}/status", middle.pid()))?;
    let field = |name: &str| {
        let line = text.lines().find(|line| line.starts_with(name));
        let number = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
        Ok::<_, anyhow::Error>(1024 * number.with_context(|| format!("no {name} in its status"))?)
    };
    Ok(Resident {
        anonymous: field("RssAnon")?,
        files: field("RssFile")?,
    })
}

/// A busy pair beside ports and addresses that are silent, against a switch without.
fn busy(place: &Place, plan: &Plan, stop: &AtomicBool) -> Result<[Line; 2]> {
    let row = Row {
        name: "state".into(),
        title: "64 B, split".into(),
        traffic: Traffic::default(),
    };
    let plan = Plan {
        kinds: vec![Kind::Adaptive, Kind::Crowded, Kind::Learned],
        rounds: plan.rounds.max(11),
        ..plan.clone()
    };
    let outcome = compare(&row, &plan, place, stop)?;
    let slower = |kind: Kind| {
        let paired = paired(&outcome, kind)?;
        let text = format!(
            "{:+.1} % [{:+.1}..{:+.1}] time per frame",
            100.0 * (paired.median - 1.0),
            100.0 * (paired.min - 1.0),
            100.0 * (paired.max - 1.0)
        );
        Ok::<_, anyhow::Error>((text, paired.median))
    };
    let (beside, idle) = slower(Kind::Crowded)?;
    let (after, known) = slower(Kind::Learned)?;
    Ok([
        Line {
            what: format!("a busy pair, 64 B, beside {IDLE} connected silent ports"),
            figure: beside,
            wanted: "< +3 %".into(),
            kept: idle < 1.03,
        },
        Line {
            what: format!("a busy pair, 64 B, after {LEARNED} addresses were learned"),
            figure: after,
            wanted: "< +10 %".into(),
            kept: known < 1.10,
        },
    ])
}

fn paired(outcome: &Outcome, kind: Kind) -> Result<Spread> {
    let mut ratios = outcome.ratios.iter();
    let found = ratios.find(|ratio| ratio.against == kind.name());
    Ok(found.context("a side was not measured")?.paired)
}

/// Frames that go from everybody to everybody, against as many from one to one: both out of as many buffers.
fn learned(place: &Place, cpu: usize, stop: &AtomicBool) -> Result<Line> {
    let traffic = |pairs| Traffic {
        pairs,
        buffers: LEARNED / 2,
        ..Traffic::default()
    };
    let one = cost(place, cpu, &traffic(1), stop)?.nanoseconds;
    let all = cost(place, cpu, &traffic(LEARNED / 2), stop)?.nanoseconds;
    let ratio = all.median / one.median;
    Ok(Line {
        what: format!("{LEARNED} addresses that all speak in turn, against two"),
        figure: format!(
            "{:.1} ns of the worker per frame against {:.1}, {:+.0} %",
            all.median,
            one.median,
            100.0 * (ratio - 1.0)
        ),
        wanted: "< +10 %".into(),
        kept: ratio < 1.10,
    })
}
