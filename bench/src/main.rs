//! Measures `ringway switch` from outside, as the guests see it, side by side with other vhost-user switches.

#![forbid(unsafe_code)]

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::{Args, Parser, Subcommand};
use signal_hook::consts::{SIGINT, SIGTERM};

use ringway_bench::compare::{Plan, available, compare};
use ringway_bench::middle::{Kind, Place};
use ringway_bench::report::{Report, refresh};
use ringway_bench::rows::{QUICK, Row, rows};
use ringway_bench::traffic::Traffic;
use ringway_measure::machine::Machine;

/// Measures `ringway switch` as guests see it, side by side with testpmd and OVS-DPDK
#[derive(Parser)]
#[command(name = "ringway-bench")]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
    #[command(flatten)]
    common: Common,
}

#[derive(Subcommand)]
enum Verb {
    /// Rows of the table, side by side
    Switch {
        /// Only these rows, separated by commas
        #[arg(long, value_delimiter = ',')]
        rows: Vec<String>,
        /// A few rows, in about a minute
        #[arg(long)]
        quick: bool,
    },
    /// One row of your own
    One {
        #[command(flatten)]
        traffic: Traffic,
    },
    /// Processor time of the worker per frame, by frame size and ring
    Cycles {
        /// Every line is written before it is sent and read after it came
        #[arg(long)]
        touched: bool,
    },
    /// What silent ports and known addresses cost
    State,
    /// Brings the generated section of a document, and the plot beside it, up to date with the last run
    Doc {
        /// The document
        #[arg(default_value = "docs/PERFORMANCE.md")]
        document: PathBuf,
    },
}

#[derive(Args)]
struct Common {
    /// The binary to be measured
    #[arg(
        long,
        global = true,
        env = "RINGWAY",
        default_value = "target/release/ringway"
    )]
    ringway: PathBuf,
    /// Where results go; rows that are not measured anew are kept
    #[arg(long, global = true, default_value = "target/bench")]
    out: PathBuf,
    /// Whom to measure: ringway, copy, adaptive, testpmd, ovs
    #[arg(long, global = true, value_delimiter = ',')]
    middles: Vec<String>,
    /// Rounds that count
    #[arg(long, global = true, default_value_t = 7)]
    rounds: usize,
    /// Seconds that the rounds of a row may take
    #[arg(long, global = true, default_value_t = 30)]
    seconds: u64,
    /// Milliseconds of a window
    #[arg(long, global = true, default_value_t = 200)]
    milliseconds: u64,
    /// Share of a window that may be spent waiting for a processor
    #[arg(long, global = true, default_value_t = 0.03)]
    waiting: f64,
    /// How much longer than in the best round a line may take between the processors
    #[arg(long, global = true, default_value_t = 1.3)]
    apart: f64,
    /// The generator's processor
    #[arg(long, global = true, default_value_t = 0)]
    generator_cpu: usize,
    /// The switch's processor
    #[arg(long, global = true, default_value_t = 1)]
    switch_cpu: usize,
}

fn main() -> Result<()> {
    let cli = Cli::parse();
    // Whoever is interrupted ends what it started; a second time it ends at once.
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register_conditional_shutdown(signal, 130, Arc::clone(&stop))?;
        signal_hook::flag::register(signal, Arc::clone(&stop))?;
    }
    let common = &cli.common;
    let mut report = Report::load(&common.out)?;
    if let Verb::Doc { document } = &cli.verb {
        let text = std::fs::read_to_string(document)
            .with_context(|| format!("cannot read {}", document.display()))?;
        let mut section = report.markdown();
        if !report.outcomes.is_empty() {
            let plot = document.with_file_name("performance.svg");
            std::fs::write(&plot, ringway_bench::report::plot(&report.outcomes))
                .with_context(|| format!("cannot write {}", plot.display()))?;
            section.insert_str(
                0,
                "![Rates of all rows, a bar for each switch](performance.svg)\n\n",
            );
        }
        let text = refresh(&text, &section)?;
        return std::fs::write(document, text).context("cannot write the document");
    }
    let machine = Machine::here();
    if machine.processors < 2 {
        bail!("generator and switch need a processor each; this machine has one");
    }
    if machine.processors < 4 {
        eprintln!(
            "bench: {} processors: one worker is measured, scaling over workers needs four",
            machine.processors
        );
    }
    report.machine = machine;
    let folder = Folder::new()?;
    let result = run(cli.verb, common, &folder, &stop, &mut report);
    if result.is_err() && !stop.load(Ordering::Relaxed) {
        folder.keep();
    }
    result
}

fn run(
    verb: Verb,
    common: &Common,
    folder: &Folder,
    stop: &AtomicBool,
    report: &mut Report,
) -> Result<()> {
    let place = Place {
        folder: folder.path.clone(),
        ringway: common.ringway.clone(),
        cpu: common.switch_cpu,
    };
    if !place.ringway.is_file() {
        bail!("no {}: `make build` makes it", place.ringway.display());
    }
    let chosen = match verb {
        Verb::Cycles { touched } => {
            let found = ringway_bench::cycles::costs(&place, common.generator_cpu, touched, stop)?;
            report.costs.retain(|cost| cost.touched != touched);
            report.costs.extend(found);
            Vec::new()
        }
        Verb::State => {
            let plan = plan(common, vec![]);
            report.state = ringway_bench::state::state(&place, &plan, stop)?;
            Vec::new()
        }
        Verb::Switch { rows, quick } => choose(&rows, quick)?,
        Verb::One { traffic } => vec![Row {
            name: "one".into(),
            title: format!("{} B, as asked for", traffic.size),
            traffic,
        }],
        Verb::Doc { .. } => Vec::new(),
    };
    let measured = match chosen[..] {
        [] => Ok(()),
        _ => measure(&chosen, common, &place, stop, report),
    };
    report.save(&common.out)?;
    println!("{}", report.markdown());
    println!("{}/bench.{{json,md,svg}}", common.out.display());
    measured
}

fn measure(
    chosen: &[Row],
    common: &Common,
    place: &Place,
    stop: &AtomicBool,
    report: &mut Report,
) -> Result<()> {
    let mut plan = plan(common, available(&kinds(&common.middles)?));
    if plan.kinds.is_empty() {
        bail!("nothing is left to be measured");
    }
    let mut failed = Vec::new();
    for row in chosen {
        row.traffic.check()?;
        plan.nearest = report.nearest();
        let outcome = match compare(row, &plan, place, stop) {
            Ok(outcome) => outcome,
            Err(error) if stop.load(Ordering::Relaxed) => return Err(error),
            Err(error) => {
                eprintln!("bench: {error:#}");
                failed.push(row.name.as_str());
                continue;
            }
        };
        for figures in &outcome.middles {
            eprintln!(
                "{:26} {:17} {:7.2} Mpps [{:.2}..{:.2}] {:6.1} Gbit/s  generator busy {:.2}  lost {:.1} %{}",
                outcome.title,
                figures.name,
                figures.mpps.median,
                figures.mpps.min,
                figures.mpps.max,
                figures.gbps,
                figures.generator_busy,
                100.0 * figures.lost,
                figures
                    .latency
                    .map_or_else(String::new, |[median, high]| format!(
                        "  p50 {median:.2} us, p99 {high:.2} us"
                    ))
            );
        }
        for ratio in &outcome.ratios {
            let paired = ratio.paired;
            eprintln!(
                "{:26} against {:17} {:.3} [{:.3}..{:.3}]",
                "", ratio.against, paired.median, paired.min, paired.max
            );
        }
        let [best, worst] = outcome.handover;
        eprintln!(
            "{:26} {} of {} rounds, a line takes {best:.0} to {worst:.0} ns between the processors",
            "", outcome.rounds, outcome.tried
        );
        report.insert(outcome);
        report.save(&common.out)?;
    }
    if !failed.is_empty() {
        bail!("not measured: {}", failed.join(", "));
    }
    Ok(())
}

fn plan(common: &Common, kinds: Vec<Kind>) -> Plan {
    Plan {
        kinds,
        rounds: common.rounds,
        limit: Duration::from_secs(common.seconds),
        window: Duration::from_millis(common.milliseconds),
        waiting: common.waiting,
        apart: common.apart,
        nearest: f64::INFINITY,
        cpu: common.generator_cpu,
    }
}

fn choose(names: &[String], quick: bool) -> Result<Vec<Row>> {
    let all = rows();
    let names: Vec<&str> = match (names.is_empty(), quick) {
        (true, true) => QUICK.to_vec(),
        (true, false) => return Ok(all),
        (false, _) => names.iter().map(String::as_str).collect(),
    };
    let find = |name: &str| {
        let found = all.iter().find(|row| row.name == name).cloned();
        let known = || all.iter().map(|row| row.name.as_str()).collect::<Vec<_>>();
        found.with_context(|| format!("no row {name:?}; there are {}", known().join(", ")))
    };
    names.into_iter().map(find).collect()
}

fn kinds(names: &[String]) -> Result<Vec<Kind>> {
    if names.is_empty() {
        return Ok(Kind::ALL.to_vec());
    }
    let parse = |name: &String| match name.as_str() {
        "ringway" => Ok(Kind::Ringway),
        "copy" => Ok(Kind::Copy),
        "adaptive" => Ok(Kind::Adaptive),
        "testpmd" => Ok(Kind::Testpmd),
        "ovs" => Ok(Kind::Ovs),
        other => {
            bail!("no middle {other:?}; there are ringway, copy, adaptive, testpmd and ovs")
        }
    };
    names.iter().map(parse).collect()
}

/// A folder for sockets and logs that goes when we do. Its path is short: a socket's may have 107 bytes.
struct Folder {
    path: PathBuf,
    kept: Cell<bool>,
}

impl Folder {
    fn new() -> Result<Self> {
        let path = std::env::temp_dir().join(format!("ringway-bench-{}", std::process::id()));
        std::fs::create_dir(&path).with_context(|| format!("cannot make {}", path.display()))?;
        let kept = Cell::new(false);
        Ok(Self { path, kept })
    }

    /// It stays, for the logs in it.
    fn keep(&self) {
        eprintln!("bench: logs are in {}", self.path.display());
        self.kept.set(true);
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if !self.kept.get() {
            remove(&self.path);
        }
    }
}

fn remove(path: &Path) {
    if let Err(error) = std::fs::remove_dir_all(path) {
        eprintln!("bench: {} stays: {error}", path.display());
    }
}
