//! What is kept of a run: JSON for programs, a table for the terminal and the documentation.

mod svg;

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::compare::{Figures, Outcome};
use crate::cycles::Cost;
use crate::rows::rows;
use crate::state::Line;
use ringway_measure::machine::Machine;
use ringway_measure::statistics::Spread;

pub use svg::plot;

/// Everything that was measured on one machine.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Report {
    pub machine: Machine,
    #[serde(default)]
    pub outcomes: Vec<Outcome>,
    #[serde(default)]
    pub costs: Vec<Cost>,
    #[serde(default)]
    pub state: Vec<Line>,
    #[serde(default)]
    pub parts: Vec<Parts>,
}

/// What the parts of a turn cost, in nanoseconds per frame.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Parts {
    pub size: usize,
    pub packed: bool,
    pub pop: f64,
    pub copy: f64,
    pub publish: f64,
    /// All that a worker does for a frame from guest to guest.
    pub turn: f64,
    /// Allocations per frame in the whole process.
    pub allocations: f64,
}

impl Report {
    /// What an earlier run left in `folder`, or nothing.
    pub fn load(folder: &Path) -> Result<Self> {
        let path = folder.join("bench.json");
        let text = match std::fs::read_to_string(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Ok(Self::default());
            }
            read => read.with_context(|| format!("cannot read {}", path.display()))?,
        };
        serde_json::from_str(&text).with_context(|| format!("{} is not ours", path.display()))
    }

    /// The shortest hand-over between the processors in any row; infinite without rows.
    pub fn nearest(&self) -> f64 {
        nearest(&self.outcomes)
    }

    /// Puts an outcome in the place of the same row's.
    pub fn insert(&mut self, outcome: Outcome) {
        match self.outcomes.iter_mut().find(|old| old.row == outcome.row) {
            Some(old) => *old = outcome,
            None => self.outcomes.push(outcome),
        }
        let rows = rows();
        self.outcomes
            .sort_by_key(|outcome| rows.iter().position(|row| row.name == outcome.row));
    }

    /// Writes JSON, table and plot.
    pub fn save(&self, folder: &Path) -> Result<()> {
        std::fs::create_dir_all(folder)?;
        let write = |name: &str, text: &str| {
            let path = folder.join(name);
            std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
        };
        write("bench.json", &serde_json::to_string_pretty(self)?)?;
        write("bench.md", &self.markdown())?;
        write("bench.svg", &plot(&self.outcomes))
    }

    pub fn markdown(&self) -> String {
        let machine = &self.machine;
        let mut text = format!(
            "{}, {} processors, Linux {}.\n",
            machine.model, machine.processors, machine.kernel
        );
        if !self.outcomes.is_empty() {
            table(&mut text, &self.outcomes);
        }
        if !self.costs.is_empty() {
            costs(&mut text, &self.costs, machine.mhz);
        }
        if !self.parts.is_empty() {
            text.push_str(&parts(&self.parts));
        }
        if !self.state.is_empty() {
            state(&mut text, &self.state);
        }
        text
    }
}

/// The columns after the first, by name as in `Kind`.
const MIDDLES: [&str; 4] = [
    "ringway again",
    "ringway adaptive",
    "testpmd io",
    "OVS-DPDK NORMAL",
];

fn table(text: &mut String, outcomes: &[Outcome]) {
    text.push_str("\n| Traffic | Ringway | generator busy | A/A | adaptive / always | testpmd io | ratio | OVS NORMAL | ratio | rounds |\n");
    text.push_str("|---|---|---|---|---|---|---|---|---|---|\n");
    for outcome in outcomes {
        let figures = |name: &str| outcome.middles.iter().find(|found| found.name == name);
        let paired = |name: &str| {
            let found = outcome.ratios.iter().find(|found| found.against == name);
            found.map(|found| found.paired)
        };
        let is_latency = figures("ringway").is_some_and(|found| found.latency.is_some());
        let ratio = |name: &str| paired(name).map_or("–".into(), |of| show(of, is_latency));
        // The other way round: what the adaptive mode reaches of the rate of the other.
        let reached = |name: &str| {
            let inverse = paired(name).map(|of| Spread {
                median: 1.0 / of.median,
                min: 1.0 / of.max,
                max: 1.0 / of.min,
            });
            inverse.map_or("–".into(), |of| show(of, is_latency))
        };
        let rate = |name: &str| figures(name).map_or("–".into(), rate);
        let busy = figures("ringway").map_or(0.0, |found| found.generator_busy);
        // The first rows of a run know of no better time.
        let far = if outcome.handover[1] > 2.0 * nearest(outcomes) {
            ", processors far from each other"
        } else {
            ""
        };
        let [again, adaptive, testpmd, ovs] = MIDDLES;
        let _ = writeln!(
            text,
            "| {} | {} | {busy:.2} | {} | {} | {} | {} | {} | {} | {} of {}{far} |",
            outcome.title,
            rate("ringway"),
            ratio(again),
            reached(adaptive),
            rate(testpmd),
            ratio(testpmd),
            rate(ovs),
            ratio(ovs),
            outcome.rounds,
            outcome.tried
        );
    }
    if outcomes.iter().any(|outcome| !outcome.huge_pages) {
        text.push_str("\nThere were no huge pages for the guests' memory: figures of small frames are lower than with them.\n");
    }
}

fn nearest(outcomes: &[Outcome]) -> f64 {
    let all = outcomes.iter().map(|outcome| outcome.handover[0]);
    // Rows of old say nothing of it.
    all.filter(|&found| found > 0.0)
        .fold(f64::INFINITY, f64::min)
}

fn show(of: Spread, is_latency: bool) -> String {
    let what = if is_latency { " of p50" } else { "" };
    format!("{:.2}{what} [{:.2}..{:.2}]", of.median, of.min, of.max)
}

/// What arrives, in the unit that fits.
fn rate(figures: &Figures) -> String {
    let mut text = match figures.latency {
        Some([median, high]) => format!("{median:.2} / {high:.2} us"),
        None if figures.gbps > 60.0 || figures.mpps.median < 1.0 => {
            format!(
                "{:.2} Mpps, {:.0} Gbit/s",
                figures.mpps.median, figures.gbps
            )
        }
        None => format!("{:.1} Mpps", figures.mpps.median),
    };
    if figures.lost > 0.02 {
        let _ = write!(text, ", {:.0} % lost", 100.0 * figures.lost);
    }
    if figures.wrong > 0 {
        let _ = write!(text, ", {} wrong", figures.wrong);
    }
    text
}

fn costs(text: &mut String, costs: &[Cost], mhz: f64) {
    let _ = writeln!(
        text,
        "\n| Frame | Ring | Lines | ns of the worker per frame | cycles at {mhz:.0} MHz |\n|---|---|---|---|---|"
    );
    for cost in costs {
        let ring = if cost.packed { "packed" } else { "split" };
        let lines = if cost.touched { "touched" } else { "untouched" };
        let Cost { nanoseconds, .. } = cost;
        let _ = writeln!(
            text,
            "| {} B | {ring} | {lines} | {:.1} [{:.1}..{:.1}] | {:.0} |",
            cost.size,
            nanoseconds.median,
            nanoseconds.min,
            nanoseconds.max,
            nanoseconds.median * mhz / 1e3
        );
    }
}

/// As a table.
pub fn parts(parts: &[Parts]) -> String {
    let mut text = String::from(
        "\n| Frame | Ring | pop, ns | copy, ns | publish, ns | whole turn, ns | allocations per frame |\n\
         |---|---|---|---|---|---|---|\n",
    );
    for part in parts {
        let ring = if part.packed { "packed" } else { "split" };
        let Parts {
            size,
            pop,
            copy,
            publish,
            turn,
            allocations,
            ..
        } = part;
        let _ = writeln!(
            text,
            "| {size} B | {ring} | {pop:.1} | {copy:.1} | {publish:.1} | {turn:.1} | {allocations} |"
        );
    }
    text
}

fn state(text: &mut String, lines: &[Line]) {
    text.push_str("\n| What is there and silent | Figure | Bound | |\n|---|---|---|---|\n");
    for line in lines {
        let kept = if line.kept { "kept" } else { "**missed**" };
        let Line {
            what,
            figure,
            wanted,
            ..
        } = line;
        let _ = writeln!(text, "| {what} | {figure} | {wanted} | {kept} |");
    }
}

/// Replaces what stands between the marks of the generated section.
pub fn refresh(document: &str, section: &str) -> Result<String> {
    let (before, rest) = document.split_once(BEGIN).context("no beginning mark")?;
    let (_, after) = rest.split_once(END).context("no end mark")?;
    Ok(format!("{before}{BEGIN}\n{section}\n{END}{after}"))
}

const BEGIN: &str = "<!-- generated by `make bench-doc` -->";
const END: &str = "<!-- end of the generated section -->";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_generated_section_of_a_document_changes() {
        let document = format!("a\n{BEGIN}\nold\n{END}\nz\n");
        let expected = format!("a\n{BEGIN}\nnew\n{END}\nz\n");
        assert_eq!(refresh(&document, "new").unwrap(), expected);
        assert!(refresh("no marks", "new").is_err());
    }
}
