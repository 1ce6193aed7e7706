//! `ringway bench switch`: the switch alone, between guests that this program plays.

use std::{
    io::{self, IsTerminal as _},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use anyhow::Context;
use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use ringway_measure::{
    processors::allowed,
    switch::{plot, sizing::Plan, window::Row},
};
use ringway_vmm::CpuList;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use super::output::Output;
use crate::{Failure, ask::Form, print};

/// Frames of every kind of traffic, from the shortest to jumbo frames.
const FRAMES: [usize; 4] = [64, 512, 1518, 9000];
const QUICK_FRAMES: [usize; 2] = [64, 1518];
/// Workers and pairs of guests at most: each pair is a thread here.
const MOST: usize = 64;

/// Measure the switch alone, to size a machine: no guest, no root, about a minute
///
/// Starts a switch of its own and plays virtual machines that send to each other in pairs as fast as they can, for each kind of frame
/// and ring. Says how many frames arrive, how long they take at half that rate (at most a million a second), and what processor time
/// the switch uses. Each pair and each worker of the switch should have a CPU for itself.
#[derive(Args)]
pub(crate) struct Arguments {
    /// Bytes of a frame, from 64 to 65535 [default: 64,512,1518,9000]
    #[arg(long = "frame", value_name = "LIST", value_delimiter = ',', value_parser = frame)]
    frames: Vec<usize>,
    /// Only rings of this format
    #[arg(long, value_enum, value_name = "FORMAT")]
    ring: Option<Format>,
    /// Threads of the switch, one row for each number [default: 1, and one per two CPUs]
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = count)]
    workers: Vec<usize>,
    /// Pairs of virtual machines [default: as many as threads]
    #[arg(long, value_name = "N", value_parser = count)]
    pairs: Option<usize>,
    /// CPUs of the switch's threads, such as 2-3; virtual machines get the others [default: the last ones]
    #[arg(long, value_name = "LIST")]
    cpus: Option<CpuList>,
    /// How long all of it takes, about [default: 60, with --quick 4]
    #[arg(long, value_name = "S", value_parser = seconds)]
    seconds: Option<f64>,
    /// How often each row is measured [default: 5, with --quick 2]
    #[arg(long, value_name = "N", value_parser = count)]
    rounds: Option<usize>,
    /// Only two kinds of frames on split rings, in a few seconds
    #[arg(long)]
    quick: bool,
    /// Draw a plot into FILE, too
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    #[command(flatten)]
    form: Form,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// As every driver has them
    Split,
    /// As newer drivers have them
    Packed,
}

pub(crate) fn run(arguments: Arguments) -> Result<(), Failure> {
    let svg = arguments.svg.as_deref();
    let svg = svg.map(|path| Output::check("--svg", path)).transpose()?;
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGHUP, SIGINT, SIGTERM] {
        // Who is interrupted ends what it started; a second time it ends at once.
        signal_hook::flag::register_conditional_shutdown(signal, 130, Arc::clone(&stop))?;
        signal_hook::flag::register(signal, Arc::clone(&stop))?;
    }
    let plan = plan(&arguments)?;
    let bar = bar();
    let report = plan.run(&stop, |done, of, next| {
        bar.set_length(of as u64);
        bar.set_position(done as u64);
        bar.set_message(next.to_owned());
    });
    bar.finish_and_clear();
    if stop.load(Ordering::Relaxed) {
        return Err(anyhow::anyhow!("interrupted before all rows were measured").into());
    }
    let report = report?;
    if cfg!(debug_assertions) {
        print::warning("this program was built for debugging: figures are too small");
    }
    print::answer(arguments.form.json, &report, print::sizes)?;
    if let Some(svg) = svg {
        svg.write(&plot::svg(&report)?)?;
    }
    Ok(())
}

fn plan(arguments: &Arguments) -> Result<Plan, Failure> {
    let cpus = allowed()?.len();
    let quick = arguments.quick;
    let frames = match (&arguments.frames[..], quick) {
        ([], true) => &QUICK_FRAMES[..],
        ([], false) => &FRAMES,
        (given, _) => given,
    };
    let workers = match (&arguments.workers[..], quick, cpus / 2) {
        ([], false, many @ 2..) => vec![1, many.min(MOST)],
        ([], ..) => vec![1],
        (given, ..) => given.to_vec(),
    };
    let formats = match (arguments.ring, quick) {
        (Some(format), _) => vec![format],
        (None, true) => vec![Format::Split],
        (None, false) => vec![Format::Split, Format::Packed],
    };
    let mut rows = Vec::new();
    for &workers in &workers {
        for &frame in frames {
            for &format in &formats {
                rows.push(Row {
                    frame,
                    packed: format == Format::Packed,
                    workers,
                    pairs: arguments.pairs.unwrap_or(workers),
                });
            }
        }
    }
    let (rounds, seconds) = if quick { (2, 4.0) } else { (5, 60.0) };
    let wanted = arguments.cpus.iter().flat_map(CpuList::iter);
    let plan = Plan {
        program: std::env::current_exe().context("this program has no file any more")?,
        rows,
        cpus: wanted.map(usize::from).collect(),
        rounds: arguments.rounds.unwrap_or(rounds),
        seconds: arguments.seconds.unwrap_or(seconds),
    };
    plan.check()
        .map_err(|error| Failure::Usage(error.to_string()))?;
    Ok(plan)
}

/// On a terminal; nothing elsewhere.
fn bar() -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len}  {elapsed}  {wide_msg}");
    bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

fn frame(text: &str) -> Result<usize, String> {
    let bytes = text.parse().ok();
    bytes
        .filter(|bytes| (64..=65_535).contains(bytes))
        .ok_or_else(|| "give bytes from 64 to 65535, such as 64,1518".into())
}

fn count(text: &str) -> Result<usize, String> {
    let count = text.parse().ok().filter(|count| (1..=MOST).contains(count));
    count.ok_or_else(|| format!("give a number from 1 to {MOST}"))
}

fn seconds(text: &str) -> Result<f64, String> {
    let seconds = text.parse().ok();
    seconds
        .filter(|seconds: &f64| (1.0..=86_400.0).contains(seconds))
        .ok_or_else(|| "give seconds from 1 to 86400".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_measured_has_bounds() {
        assert_eq!((frame("64"), frame("65535")), (Ok(64), Ok(65_535)));
        for text in ["63", "65536", "-1", "x", ""] {
            assert!(frame(text).is_err(), "{text}");
        }
        assert_eq!((count("1"), count("64")), (Ok(1), Ok(64)));
        assert!(count("0").is_err() && count("65").is_err());
        assert_eq!(seconds("1.5"), Ok(1.5));
        for text in ["0", "nan", "inf", "1e9"] {
            assert!(seconds(text).is_err(), "{text}");
        }
    }
}
