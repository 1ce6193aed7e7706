//! Everything at once: an honest pair, and everybody else.

use std::collections::BTreeMap;
use std::fmt;
use std::panic;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use ringway_api::control::Client;

use super::crooked::{File, PATIENCE};
use super::floods::Flooder;
use super::honest::{Direction, Pair};
use super::messages::Liar;
use super::ring_lies::Stage;
use crate::Lab;
use crate::switch::{Footprint, Statistics, Switch};

/// Lines that a port may have said at once, and those that follow in a second (as the switch limits them).
const LINES: u64 = 200;
const LINES_PER_SECOND: u64 = 4;

/// Ports: the honest pair's, the liar's and its witness's, the wrong messages', the floods'.
const PORTS: [(&str, u16); 7] = [
    ("a", 10),
    ("b", 10),
    ("liar", 20),
    ("witness", 20),
    ("messages", 20),
    ("flood", 30),
    ("flooded", 30),
];

/// Resident memory that a switch may have gained: allocators keep some.
const GAIN_KIB: u64 = 16 << 10;

/// What came of it.
#[derive(Debug)]
pub struct Report {
    seconds: u64,
    played: BTreeMap<&'static str, u64>,
    honest: [Direction; 2],
    before: Footprint,
    after: Footprint,
    lines: u64,
    statistics: Statistics,
}

/// Runs for so many seconds, or until `stop` is set, and tells what came of it.
///
/// # Errors
///
/// Whatever an honest guest lost, a lie that went through, anything left behind.
pub fn run(lab: &Lab, seconds: u64, stop: &Arc<AtomicBool>) -> Result<Report> {
    let mut switch = start(lab)?;
    let begin = Instant::now();
    let pair = Pair::start([&lab.path("a"), &lab.path("b")]);
    // Once everybody has been there, so that what is made once is made.
    let played = Arc::new(Mutex::new(BTreeMap::new()));
    let acts = |until: Instant, once: bool| Acts {
        until,
        once,
        stop: stop.clone(),
        played: played.clone(),
    };
    let warm = acts(begin, true);
    warm.flood(&mut flooder(lab)?, 20)?;
    let before = idle(&mut switch)?;

    let until = begin + Duration::from_secs(seconds);
    let threads = cast(lab, &acts(until, false))?;
    let mut failed = None;
    while !threads.iter().all(JoinHandle::is_finished) {
        if pair.has_ended() {
            stop.store(true, Ordering::Relaxed);
        }
        thread::sleep(Duration::from_millis(100));
    }
    for thread in threads {
        let ended = thread.join().unwrap_or_else(|panic| Err(told(&*panic)));
        failed = failed.or(ended.err());
    }
    // As before, with the honest pair there.
    let after = idle(&mut switch);
    let honest = pair.end()?;
    if let Some(error) = failed {
        return Err(error.context(format!("honest guests: {honest:?}")));
    }
    let after = after?;
    let statistics = switch.statistics()?;
    let lines = switch.messages().len() as u64;
    switch.stop()?;
    let report = Report {
        seconds: begin.elapsed().as_secs(),
        played: played
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone(),
        honest,
        before,
        after,
        lines,
        statistics,
    };
    report.check().with_context(|| report.to_string())?;
    Ok(report)
}

fn start(lab: &Lab) -> Result<Switch> {
    let control = lab.path("control").display().to_string();
    let mut switch = lab
        .switch()
        .arguments(&["--workers", "2", "--control", &control]);
    for (name, vlan) in PORTS {
        let path = lab.path(name);
        switch = switch.port(&format!(
            "vhost-user,path={},name={name},vlan={vlan}",
            path.display()
        ));
    }
    switch.start()
}

/// What the switch holds when nobody but the honest pair is there.
fn idle(switch: &mut Switch) -> Result<Footprint> {
    switch.await_statistics("the end of hostile sessions", |statistics| {
        let mut others = statistics.ports.iter().skip(2);
        others.all(|port| !port.connected)
    })?;
    switch.footprint()
}

fn client(lab: &Lab) -> Result<Client> {
    Ok(Client::connect(&lab.path("control"), PATIENCE)?)
}

fn flooder(lab: &Lab) -> Result<Flooder> {
    Flooder::new(
        lab.path("flood"),
        "flood",
        lab.path("flooded"),
        client(lab)?,
    )
}

/// Everybody who is hostile, each on a thread.
fn cast(lab: &Lab, acts: &Acts) -> Result<Vec<JoinHandle<Result<()>>>> {
    let mut threads = Vec::new();
    let (liar, witness) = (lab.path("liar"), lab.path("witness"));
    let (ours, connection) = (acts.clone(), client(lab)?);
    let stop = &acts.stop;
    threads.push(spawn("lies", stop, move || {
        ours.lie(liar, witness, connection)
    })?);
    let (ours, path) = (acts.clone(), lab.path("messages"));
    threads.push(spawn("messages", stop, move || ours.speak(path))?);
    let (ours, mut flooder) = (acts.clone(), flooder(lab)?);
    threads.push(spawn("floods", stop, move || {
        ours.flood(&mut flooder, 400)
    })?);
    Ok(threads)
}

/// When one fails the others need not go on: what is wrong is told as soon as they have come to their end.
fn spawn(
    name: &str,
    stop: &Arc<AtomicBool>,
    act: impl FnOnce() -> Result<()> + Send + 'static,
) -> Result<JoinHandle<Result<()>>> {
    let stop = stop.clone();
    let act = move || {
        let ended = panic::catch_unwind(panic::AssertUnwindSafe(act));
        let ended = ended.unwrap_or_else(|panic| Err(told(&*panic)));
        if ended.is_err() {
            stop.store(true, Ordering::Relaxed);
        }
        ended
    };
    Ok(thread::Builder::new().name(name.to_owned()).spawn(act)?)
}

fn told(panic: &(dyn std::any::Any + Send)) -> anyhow::Error {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
    anyhow!("{}", text.unwrap_or("a panic"))
}

/// What is played, for how long, and how often each was.
#[derive(Clone)]
struct Acts {
    until: Instant,
    once: bool,
    stop: Arc<AtomicBool>,
    played: Arc<Mutex<BTreeMap<&'static str, u64>>>,
}

impl Acts {
    /// The first round is always played to its end, however little time there is.
    fn ends(&self, round: u64) -> bool {
        self.stop.load(Ordering::Relaxed)
            || round > 0 && (self.once || Instant::now() >= self.until)
    }

    fn count(&self, kind: &'static str, cases: u64) {
        let mut played = self.played.lock().unwrap_or_else(PoisonError::into_inner);
        *played.entry(kind).or_default() += cases;
    }

    fn lie(&self, liar: PathBuf, witness: PathBuf, client: Client) -> Result<()> {
        let mut stage = Stage::new(liar, "liar", &witness, client);
        for round in 0.. {
            if self.ends(round) {
                break;
            }
            let played = stage.round(round, || self.ends(round))?;
            self.count("lies in rings", played.cases);
            self.count("of which stopped a ring", played.faults);
        }
        Ok(())
    }

    fn speak(&self, path: PathBuf) -> Result<()> {
        let mut liar = Liar::new(path);
        for round in 0.. {
            if self.ends(round) {
                break;
            }
            self.count("wrong messages", liar.wrong_messages(&|| self.ends(round))?);
            if !self.ends(round) {
                self.count("half messages", liar.half_messages()?);
                self.count("unread answers", liar.unread_answers()?);
                self.count("message floods", liar.message_floods(800)?);
                self.count("descriptor floods", liar.descriptor_floods(400)?);
                self.count("connection floods", liar.connection_floods(400)?);
            }
        }
        Ok(())
    }

    fn flood(&self, flooder: &mut Flooder, scale: u32) -> Result<()> {
        for round in 0.. {
            if self.ends(round) {
                break;
            }
            self.count("kick floods", flooder.kicks(scale * 50).context("kicks")?);
            self.count(
                "address floods",
                flooder.addresses(scale * 10).context("addresses")?,
            );
            self.count(
                "broadcast storms",
                flooder.broadcasts(scale * 10).context("broadcasts")?,
            );
            self.count(
                "slow readers",
                flooder.slow_readers(scale * 2).context("slow readers")?,
            );
            self.count(
                "departures",
                flooder
                    .leave_in_the_middle(scale / 20)
                    .context("departures")?,
            );
            for (name, kind) in [
                ("memfds truncated", File::Memfd),
                ("plain files truncated", File::Plain),
                ("huge pages truncated", File::Huge),
            ] {
                self.count(name, flooder.truncate(kind)?);
            }
            let time = Duration::from_millis(scale.into()) / 4;
            self.count(
                "changing bytes",
                flooder.changing_bytes(time).context("changing bytes")?,
            );
        }
        Ok(())
    }
}

impl Report {
    fn check(&self) -> Result<()> {
        for direction in &self.honest {
            ensure!(direction.sent > 0, "the honest pair sent nothing");
            ensure!(
                direction.lost() == 0,
                "{} honest frames lost",
                direction.lost()
            );
            ensure!(
                direction.corrupted == 0,
                "{} honest frames corrupted",
                direction.corrupted
            );
            ensure!(
                direction.received == direction.sent,
                "honest frames out of nowhere"
            );
        }
        let ports = &self.statistics.ports;
        // The two by which they got to know each other were none of the numbered ones.
        let sent = [0, 1].map(|n| self.honest[n].sent + 1);
        for (port, (out, back)) in ports.iter().zip([(sent[0], sent[1]), (sent[1], sent[0])]) {
            let sum = port.sum();
            ensure!(
                (sum.rx_frames, sum.tx_frames) == (out, back),
                "the switch counted {sum:?}"
            );
            ensure!(
                port.drops.is_empty(),
                "honest frames dropped: {:?}",
                port.drops
            );
        }
        self.statistics.check()?;
        ensure!(
            self.after.files == self.before.files,
            "files were left open"
        );
        ensure!(
            self.after.threads == self.before.threads,
            "threads were left"
        );
        ensure!(
            self.after.resident_kib <= self.before.resident_kib + GAIN_KIB,
            "memory was kept"
        );
        let ports = PORTS.len() as u64;
        let allowed = ports * (LINES + LINES_PER_SECOND * (self.seconds + 1));
        ensure!(
            self.lines <= allowed,
            "{} lines in the log, at most {allowed}",
            self.lines
        );
        Ok(())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} seconds", self.seconds)?;
        for (kind, cases) in &self.played {
            writeln!(f, "{cases:>10}  {kind}")?;
        }
        for (way, direction) in ["split to packed", "packed to split"]
            .iter()
            .zip(&self.honest)
        {
            let Direction {
                sent,
                received,
                corrupted,
                ..
            } = direction;
            writeln!(
                f,
                "honest {way}: {sent} sent, {received} received, {} lost, {corrupted} corrupted; \
                 latency below {:?} for half, {:?} for 99 %, {:?} for all",
                direction.lost(),
                direction.quantile(500),
                direction.quantile(990),
                direction.quantile(1000),
            )?;
        }
        let Statistics {
            attempted,
            delivered,
            dropped,
            ..
        } = self.statistics;
        writeln!(
            f,
            "switch: attempted {attempted} = delivered {delivered} + dropped {dropped}"
        )?;
        for port in &self.statistics.ports[2..] {
            writeln!(
                f,
                "port {}: dropped {:?}, faults {:?}",
                port.name, port.drops, port.faults
            )?;
        }
        let (before, after) = (self.before, self.after);
        write!(
            f,
            "before and after: {} and {} KiB resident, {} and {} files, {} and {} threads; {} lines in the log",
            before.resident_kib,
            after.resident_kib,
            before.files,
            after.files,
            before.threads,
            after.threads,
            self.lines,
        )
    }
}
