//! `ringway bench paths`: what the ways between two guests carry here, and what they cost.

use std::{
    fs,
    path::{Path, PathBuf},
    str::FromStr,
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use anyhow::Context;
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use ringway_measure::paths::{
    Bench, Folder, Kind, Load, Machine, Plan, Progress, Report, Wiring, refresh,
};
use ringway_vmm::{CpuList, Qemu, accel};
use rustix::thread::sched_getaffinity;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use super::{guest::GuestArguments, isolate, output::Output, wiring::Bridge};
use crate::{Failure, print};

/// Boot two guests for each path and measure what crosses between them, and what that costs the host
#[derive(Args)]
pub(crate) struct Arguments {
    /// Paths to measure: vhost-user, vhost-net, tap, macvtap, igb, e1000e, e1000, vfio [default: all that this machine has]
    #[arg(long, value_name = "LIST", value_parser = list::<Kind>)]
    paths: Option<List<Kind>>,
    /// Numbers of queue pairs; guests have as many processors [default: 1, 2, 4 and so on, up to half of the CPUs]
    #[arg(long, value_name = "LIST", value_parser = queues)]
    queues: Option<List<u16>>,
    /// Seconds each load is measured [default: 0.5]
    #[arg(long, value_name = "S", value_parser = seconds)]
    seconds: Option<f64>,
    /// Rounds: medians are taken over so many [default: 3 to 10, what ten minutes permit; with --quick 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1000))]
    rounds: Option<u16>,
    /// Only three loads, and short
    #[arg(long)]
    quick: bool,
    #[command(flatten)]
    guest: GuestArguments,
    /// CPUs of the host to use [default: all]
    #[arg(long, value_name = "LIST")]
    cpus: Option<CpuList>,
    /// The QEMU to use [default: $QEMU or qemu-system-x86_64]
    #[arg(long, value_name = "PROGRAM")]
    qemu: Option<PathBuf>,
    /// Print JSON, every sample included
    #[arg(long)]
    json: bool,
    /// Write JSON to FILE, too
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Draw a plot to FILE, as SVG
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// Put the tables into the Markdown document FILE, between its marks
    #[arg(long, value_name = "FILE")]
    doc: Option<PathBuf>,
    /// Say which rows agree with an earlier run, whose JSON is in FILE; both need two rounds or more
    #[arg(long, value_name = "FILE")]
    against: Option<PathBuf>,
    /// Measure nothing: show the run whose JSON is in FILE
    #[arg(long, value_name = "FILE", conflicts_with_all = ["paths", "queues", "seconds", "rounds", "quick", "guest", "kernel", "initrd", "append", "cpus", "qemu"])]
    from: Option<PathBuf>,
    /// Within a network namespace already
    #[arg(long, hide = true)]
    inside: bool,
}

pub(super) fn run(arguments: Arguments) -> Result<(), Failure> {
    // Before minutes of measuring.
    let earlier = arguments.against.as_deref().map(read).transpose()?;
    let document = arguments.doc.as_deref().map(|path| {
        let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
        refresh(&text, "").with_context(|| path.display().to_string())
    });
    let document = document.transpose()?;
    let check = |option, path: &Option<PathBuf>| {
        let output = path.as_deref().map(|path| Output::check(option, path));
        output.transpose()
    };
    let out = check("--out", &arguments.out)?;
    let svg = check("--svg", &arguments.svg)?;
    let doc = check("--doc", &arguments.doc)?;
    let report = match &arguments.from {
        Some(path) => read(path)?,
        None => measure(&arguments)?,
    };
    if let Some(out) = out {
        out.write(&format!("{}\n", serde_json::to_string_pretty(&report)?))?;
    }
    if let Some(svg) = svg {
        svg.write(&report.svg()?)?;
    }
    if let (Some(doc), Some(text)) = (doc, document) {
        doc.write(&refresh(&text, &report.markdown())?)?;
    }
    print::answer(arguments.json, &report, Report::text)?;
    if let Some(earlier) = earlier {
        let agreement = report.agreement(&earlier);
        match arguments.json {
            true => print::hint(agreement.to_string().trim_end()),
            false => print::out(&format!("\n{agreement}"))?,
        }
    }
    Ok(())
}

fn read(path: &Path) -> Result<Report, Failure> {
    let text = fs::read(path).with_context(|| path.display().to_string())?;
    let report = Report::read(&text);
    Ok(report
        .with_context(|| format!("{} holds no run of `ringway bench paths`", path.display()))?)
}

fn measure(arguments: &Arguments) -> Result<Report, Failure> {
    let image = arguments.guest.image()?;
    let qemu = Qemu::find(arguments.qemu.as_deref())?;
    let mut plan = arguments.plan()?;
    let wiring: Result<Box<dyn Wiring>, String> = match arguments.inside {
        true if !isolate::is_empty() => {
            return Err(Failure::Usage(
                "--inside is for the command itself: leave it away".into(),
            ));
        }
        true => match Bridge::new() {
            Ok(bridge) => Ok(Box::new(bridge)),
            Err(error) => Err(format!("{error:#}")),
        },
        false => Err(isolate::enter()?),
    };
    let interrupt = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register(signal, interrupt.clone())?;
    }
    let choice = accel::choose(&qemu, image.kernel());
    let bar = bar();
    let mut bench = Bench {
        machine: Machine::here(&qemu, choice.to_string(), plan.cpus.len()),
        qemu,
        accel: choice.accel,
        image,
        wiring,
        folder: Folder::new()?,
        interrupt: &interrupt,
        progress: &mut |progress: &Progress| {
            bar.set_length(progress.all as u64);
            bar.set_position(progress.done as u64);
            bar.set_message(progress.now.clone());
            tracing::debug!("{}", progress.now);
        },
    };
    let paths = bench.paths(&plan).0.len();
    if arguments.rounds.is_none() && !arguments.quick {
        plan.rounds = bench.usual_rounds(&plan, paths);
    }
    let time = bench.time(&plan, paths).as_secs().div_ceil(60);
    if paths > 0 {
        let plural = if paths == 1 {
            "path takes"
        } else {
            "paths take"
        };
        let rounds = match plan.rounds {
            1 => "one round".into(),
            rounds => format!("{rounds} rounds"),
        };
        tracing::info!("{paths} {plural} about {time} min for {rounds}; Ctrl-C ends it");
    }
    let report = bench.run(&plan);
    bar.finish_and_clear();
    Ok(report?)
}

fn bar() -> ProgressBar {
    let bar = ProgressBar::new(0);
    let style = ProgressStyle::with_template(
        "{bar:20} {percent:>3} %  {elapsed} of about {duration}  {wide_msg}",
    );
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar.enable_steady_tick(Duration::from_millis(500));
    bar
}

impl Arguments {
    fn plan(&self) -> Result<Plan, Failure> {
        let cpus = cpus(self.cpus.as_ref())?;
        let most = (cpus.len() / 2).max(1);
        let powers = (0..).map(|power| 1u16 << power);
        let queues = powers.take_while(|&queues| queues == 1 || usize::from(queues) <= most.min(8));
        let loads = match self.quick {
            true => vec![Load::Tcp1, Load::Udp64, Load::Exchange],
            false => Load::ALL.to_vec(),
        };
        Ok(Plan {
            kinds: self
                .paths
                .clone()
                .map_or_else(|| Kind::ALL.to_vec(), |list| list.0),
            queues: self
                .queues
                .clone()
                .map_or_else(|| queues.collect(), |list| list.0),
            loads,
            seconds: self.seconds.unwrap_or(0.5),
            rounds: self.rounds.unwrap_or(1).into(),
            warm_up: !self.quick,
            cpus,
        })
    }
}

/// Those of this process, or of them the ones that were named.
fn cpus(named: Option<&CpuList>) -> Result<Vec<u16>, Failure> {
    let set = sched_getaffinity(None).context("the CPUs of this process")?;
    let may = |cpu: &u16| set.is_set((*cpu).into());
    match named {
        None => Ok((0..=ringway_vmm::cpus::MAX_CPU).filter(may).collect()),
        Some(list) => match list.iter().find(|cpu| !may(cpu)) {
            None => Ok(list.iter().collect()),
            Some(cpu) => Err(Failure::Usage(format!(
                "--cpus {list}: this process may not use CPU {cpu}, or the host has none (`nproc`, `lscpu -e`)"
            ))),
        },
    }
}

/// Several of something, each once.
#[derive(Clone)]
struct List<T>(Vec<T>);

fn list<T: FromStr<Err = String> + PartialEq>(text: &str) -> Result<List<T>, String> {
    let mut found = Vec::new();
    for part in text.split(',') {
        let item = part.trim().parse()?;
        if !found.contains(&item) {
            found.push(item);
        }
    }
    Ok(List(found))
}

fn queues(text: &str) -> Result<List<u16>, String> {
    let parts = text.split(',').map(|part| part.trim().parse::<u16>().ok());
    let parts = parts.map(|part| part.filter(|queues| (1..=128).contains(queues)));
    let found: Option<Vec<u16>> = parts.collect();
    found
        .map(List)
        .ok_or_else(|| "give numbers from 1 to 128 joined by commas, such as 1,2".into())
}

fn seconds(text: &str) -> Result<f64, String> {
    let seconds = text
        .parse()
        .ok()
        .filter(|seconds| (0.1..=3600.0).contains(seconds));
    seconds.ok_or_else(|| "give seconds from 0.1 to 3600, such as 2 or 0.5".into())
}
