//! The run itself: rounds of pairs of guests, with all loads each.

use std::{
    os::fd::OwnedFd,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use ringway_vmm::{Accel, Qemu, qemu::Version};

use super::{
    Folder, Image, Kind, Load, Machine, Missing, Report, Sample,
    guest::{Maker, Refused},
    machine::{Means, iommu_groups},
    pair::{Pair, WARM},
    place::place,
};

/// What is to be measured.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Which paths.
    pub kinds: Vec<Kind>,
    /// Numbers of queue pairs, for those paths that have a choice.
    pub queues: Vec<u16>,
    /// Which loads.
    pub loads: Vec<Load>,
    /// How long each.
    pub seconds: f64,
    /// How often.
    pub rounds: usize,
    /// Whether one path is measured once before all others, to no account.
    pub warm_up: bool,
    /// The host's CPUs that may be used.
    pub cpus: Vec<u16>,
}

/// How long all paths take, unless somebody wants it otherwise.
const USUAL: Duration = Duration::from_secs(600);

/// Where taps come from: the host's kernel is for others to speak with.
pub trait Wiring {
    /// Makes a tap in a network namespace of our own, on a bridge with those made before; its queues.
    fn tap(&mut self, name: &str, queues: u16) -> Result<Vec<OwnedFd>>;
    /// Why there are no macvtaps, if so.
    fn lacks_macvtap(&self) -> Option<String>;
    /// Makes a macvtap with this address there, beside those made before; its queues.
    fn macvtap(&mut self, name: &str, mac: [u8; 6], queues: u16) -> Result<Vec<OwnedFd>>;
    /// Removes a tap or macvtap.
    fn remove(&mut self, name: &str) -> Result<()>;
    /// Opens /dev/vhost-net so often.
    fn vhost_net(&self, queues: u16) -> Result<Vec<OwnedFd>>;
}

/// How far it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// Steps done.
    pub done: usize,
    /// Of so many.
    pub all: usize,
    /// What is done now.
    pub now: String,
}

/// Somebody wants it to end.
#[derive(Debug)]
pub struct Interrupted;

impl std::fmt::Display for Interrupted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("interrupted: nothing is left running, and nothing was kept")
    }
}

impl std::error::Error for Interrupted {}

/// Whether somebody wants it to end; set by a signal.
#[derive(Debug, Clone, Copy)]
pub(super) struct Interrupt<'a>(&'a AtomicBool);

impl Interrupt<'_> {
    pub(super) fn check(&self) -> Result<()> {
        match self.0.load(Relaxed) {
            true => Err(Interrupted.into()),
            false => Ok(()),
        }
    }

    pub(super) fn sleep(&self, time: Duration) -> Result<()> {
        const LOOK: Duration = Duration::from_millis(50);
        let end = Instant::now() + time;
        loop {
            self.check()?;
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            thread::sleep(left.min(LOOK));
        }
    }
}

/// Everything a run needs.
pub struct Bench<'a> {
    /// The QEMU.
    pub qemu: Qemu,
    /// How it executes guests.
    pub accel: Accel,
    /// Of what the report shall be.
    pub machine: Machine,
    /// What guests boot.
    pub image: Image,
    /// Where taps come from, or why there are none.
    pub wiring: Result<Box<dyn Wiring + 'a>, String>,
    /// For sockets and files.
    pub folder: Folder,
    /// Set when somebody wants it to end.
    pub interrupt: &'a AtomicBool,
    /// Told how far it is.
    pub progress: &'a mut dyn FnMut(&Progress),
}

impl<'a> Bench<'a> {
    /// The paths of the plan that can be measured here, each with its queue pairs, and the others.
    pub fn paths(&self, plan: &Plan) -> (Vec<(Kind, u16)>, Vec<Missing>) {
        let vhost_net = match &self.wiring {
            Ok(wiring) => wiring.vhost_net(1).map_err(|error| error.to_string()),
            Err(reason) => Err(reason.clone()),
        };
        let version = self.qemu.version;
        let means = Means {
            accel: self.accel,
            old_qemu: (version < Version(8, 0)).then(|| version.to_string()),
            taps: self.wiring.as_ref().map(drop).map_err(Clone::clone),
            macvtap: match self.wiring.as_ref().map(|it| it.lacks_macvtap()) {
                Ok(Some(reason)) => Err(reason),
                _ => Ok(()),
            },
            vhost_net: vhost_net.map(drop),
            iommu_groups: iommu_groups(),
        };
        let (mut paths, mut missing) = (Vec::new(), Vec::new());
        for &path in &plan.kinds {
            let queues: &[u16] = if path.has_queues() {
                &plan.queues
            } else {
                &[1]
            };
            match means.lacks(path) {
                Some(reason) => missing.push(Missing { path, reason }),
                None => paths.extend(queues.iter().map(|&queues| (path, queues))),
            }
        }
        (paths, missing)
    }

    /// How long so many paths take, about.
    pub fn time(&self, plan: &Plan, paths: usize) -> Duration {
        let boot = match (&self.image, self.accel) {
            (Image::Built { .. }, Accel::Kvm) => 3.0,
            (Image::Built { .. }, Accel::Tcg) => 7.0,
            (Image::Disk { .. }, Accel::Kvm) => 30.0,
            (Image::Disk { .. }, Accel::Tcg) => 120.0,
        };
        let load = plan.seconds + WARM.as_secs_f64() + 0.1;
        let path = boot + load * plan.loads.len() as f64;
        let warm_up = if plan.warm_up { boot + load } else { 0.0 };
        Duration::from_secs_f64(path * paths as f64 * plan.rounds as f64 + warm_up)
    }

    /// How many rounds of so many paths go into [`USUAL`], within sense: fewer than three say little, and more than ten hardly more.
    pub fn usual_rounds(&self, plan: &Plan, paths: usize) -> usize {
        let fits = |&rounds: &usize| {
            let plan = Plan {
                rounds,
                ..plan.clone()
            };
            self.time(&plan, paths) <= USUAL
        };
        (4..=10).take_while(fits).last().unwrap_or(3)
    }

    /// Measures.
    pub fn run(&mut self, plan: &Plan) -> Result<Report> {
        let (paths, missing) = self.paths(plan);
        ensure!(
            !paths.is_empty(),
            "nothing can be measured: {}",
            reasons(&missing)
        );
        let maker = Maker::new(
            self.qemu.clone(),
            self.accel,
            self.image.clone(),
            &self.folder,
        )?;
        let report = Report::new(self.machine.clone(), plan, missing);
        let mut rounds = Rounds {
            bench: self,
            plan,
            maker,
            report,
            paths,
            done: 0,
        };
        rounds.run()?;
        Ok(rounds.report)
    }

    pub(super) fn interrupt(&self) -> Interrupt<'a> {
        Interrupt(self.interrupt)
    }
}

/// A run under way.
struct Rounds<'r, 'a> {
    bench: &'r mut Bench<'a>,
    plan: &'r Plan,
    maker: Maker,
    report: Report,
    /// Those that still take part.
    paths: Vec<(Kind, u16)>,
    /// Steps done.
    done: usize,
}

impl Rounds<'_, '_> {
    fn run(&mut self) -> Result<()> {
        if let (true, Some(&path)) = (self.plan.warm_up, self.paths.first()) {
            self.warm_up(path)?;
        }
        for round in 1..=self.plan.rounds {
            for path in self.paths.clone() {
                match self.path(round, path) {
                    Ok(samples) => {
                        for (load, sample) in samples {
                            self.report.add(path.0, path.1, load, sample);
                        }
                    }
                    Err(error) if error.is::<Interrupted>() => return Err(error),
                    // What was measured of it before is of fewer rounds than the others: better none.
                    Err(error) => {
                        self.report.give_up(path.0, path.1, format!("{error:#}"));
                        self.paths.retain(|&it| it != path);
                    }
                }
            }
            // Each begins with another path.
            let len = self.paths.len().max(1);
            self.paths.rotate_left(1 % len);
        }
        ensure!(
            !self.report.rows.is_empty(),
            "nothing could be measured: {}",
            reasons(&self.report.missing)
        );
        self.report.count();
        Ok(())
    }

    /// Brings what all paths need into the host's memory, and its processors to their speed.
    fn warm_up(&mut self, path: (Kind, u16)) -> Result<()> {
        let some = self.plan.loads.len().min(1);
        match self.turn("to warm up", path, &self.plan.loads[..some]) {
            Err(error) if error.is::<Interrupted>() => Err(error),
            // What is wrong with it shows when it counts.
            _ => {
                self.done = 0;
                Ok(())
            }
        }
    }

    /// A sample of each load; an emulated guest hangs now and then, so what it did not say itself is tried once more.
    fn path(&mut self, round: usize, path: (Kind, u16)) -> Result<Vec<(Load, Sample)>> {
        let title = format!("round {round} of {}", self.plan.rounds);
        let done = self.done;
        let measured = match self.turn(&title, path, &self.plan.loads) {
            Err(error) if !error.is::<Interrupted>() && !error.is::<Refused>() => {
                self.done = done;
                self.turn(&format!("{title} once more"), path, &self.plan.loads)
            }
            measured => measured,
        };
        self.done = done + 1 + self.plan.loads.len();
        measured
    }

    /// Boots a pair, measures loads, ends it.
    fn turn(
        &mut self,
        title: &str,
        (kind, queues): (Kind, u16),
        loads: &[Load],
    ) -> Result<Vec<(Load, Sample)>> {
        let mut title = format!("{title}, {}", kind.name());
        if queues > 1 {
            title += &format!(" with {queues} queue pairs");
        }
        self.step(&title, "two guests boot");
        let placed = place(&self.plan.cpus, queues);
        let mut pair = Pair::boot(self.bench, &self.maker, kind, queues, placed.as_ref())?;
        self.report
            .placed(queues, placed.as_ref().map(|placed| placed.words.as_str()));
        self.report.machine.guest_kernel.clone_from(&pair.kernel);
        let interrupt = self.bench.interrupt();
        let mut measure = |&load: &Load| {
            self.step(&title, load.title());
            let sample = pair.measure(load, self.plan.seconds, &interrupt);
            Ok((load, sample.with_context(|| load.title())?))
        };
        let samples = loads.iter().map(&mut measure).collect();
        // Also if it failed: whoever comes next needs the names of its taps.
        pair.end(self.bench)?;
        samples
    }

    fn step(&mut self, title: &str, what: &str) {
        let all = self.paths.len() * self.plan.rounds * (1 + self.plan.loads.len());
        let now = format!("{title}: {what}");
        (self.bench.progress)(&Progress {
            done: self.done,
            all: all.max(self.done),
            now,
        });
        self.done += 1;
    }
}

fn reasons(missing: &[Missing]) -> String {
    let reasons = missing
        .iter()
        .map(|it| format!("{}: {}", it.path.name(), it.reason));
    reasons.collect::<Vec<_>>().join("; ")
}
