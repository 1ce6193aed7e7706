//! The switch between two guests within this process: needs no peers, no huge pages, no privilege.
//!
//! `cargo bench -p ringway-bench --bench inside`. Unpaired: for a first look, and to see that everything passes.

#![forbid(unsafe_code)]

#[path = "../tests/common/mod.rs"]
mod common;

use std::sync::atomic::AtomicBool;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use common::Inside;
use ringway_bench::generator::Generator;
use ringway_bench::processors::Pinned;
use ringway_bench::rows::{Row, rows};
use ringway_measure::statistics::percentile;
use ringway_switch::Poll;

#[derive(Parser)]
struct Options {
    /// Only these rows, separated by commas
    #[arg(long, value_delimiter = ',')]
    rows: Vec<String>,
    /// Compares every byte; slow
    #[arg(long)]
    verify: bool,
    /// Said by cargo bench; without it every row runs for a moment only
    #[arg(long)]
    bench: bool,
}

fn main() -> Result<()> {
    let options = Options::parse();
    let milliseconds = if options.bench { 500 } else { 20 };
    for mut row in rows() {
        if !options.rows.is_empty() && !options.rows.contains(&row.name) {
            continue;
        }
        row.traffic.verify = options.verify && !row.traffic.latency;
        let line = pass(&row, Duration::from_millis(milliseconds));
        println!("{:26} {}", row.title, line.context(row.name)?);
    }
    Ok(())
}

fn pass(row: &Row, window: Duration) -> Result<String> {
    let stop = AtomicBool::new(false);
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let (switch, fronts) = Inside::start(Poll::Adaptive, vec![1 % cpus]);
    let _pinned = Pinned::to(0)?;
    let mut generator = Generator::start(fronts, &row.traffic, &stop)?;
    generator.run(window / 4, &stop)?;
    let count = generator.run(window, &stop)?;
    drop(generator);
    drop(switch);
    ensure!(count.received > 0, "nothing came");
    ensure!(count.wrong == 0, "{} frames came changed", count.wrong);
    let seconds = count.elapsed.as_secs_f64();
    let mut line = format!(
        "{:7.2} Mpps {:6.1} Gbit/s  {} frames sent, {} received",
        count.received as f64 / seconds / 1e6,
        count.bytes as f64 * 8e-9 / seconds,
        count.sent,
        count.received
    );
    if row.traffic.latency {
        let [median, high] =
            [50, 99].map(|share| f64::from(percentile(&count.latencies, share)) / 1e3);
        line += &format!("  p50 {median:.2} us, p99 {high:.2} us");
    }
    Ok(line)
}
