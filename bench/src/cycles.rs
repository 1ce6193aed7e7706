//! What a frame costs the worker, from its own processor time.
//!
//! The switch sleeps until it is kicked (`--poll never`). It gets a batch of frames at once, carries them and sleeps again; the kernel says
//! to the nanosecond how long its worker ran. Batches of two sizes take turns: the difference of their times is that of the frames alone,
//! without waking up, falling asleep and looking around.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use crate::generator::Generator;
use crate::middle::{Middle, Place};
use crate::processors::{Pinned, named, threads};
use crate::traffic::Traffic;
use ringway_measure::statistics::{Spread, spread};

/// Bytes of the frames that are measured.
pub const SIZES: [usize; 5] = [64, 512, 1518, 9000, 65_226];
/// Groups of batches; each gives one figure.
const GROUPS: usize = 7;
/// Batches of each size in a group.
const BATCHES: usize = 40;

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Cost {
    pub size: usize,
    pub packed: bool,
    pub touched: bool,
    /// Nanoseconds of the worker for a frame.
    pub nanoseconds: Spread,
    /// Nanoseconds for waking up and falling asleep once.
    pub wake: f64,
    /// Frames of the two kinds of batches.
    pub batches: [usize; 2],
}

/// Of all sizes and ring formats.
pub fn costs(place: &Place, cpu: usize, touched: bool, stop: &AtomicBool) -> Result<Vec<Cost>> {
    let mut costs = Vec::new();
    for size in SIZES {
        for packed in [false, true] {
            let traffic = Traffic {
                size,
                packed,
                touched,
                tso: size > 9000,
                ..Traffic::default()
            };
            let found = cost(place, cpu, &traffic, stop);
            costs.push(found.with_context(|| format!("{size} B, packed: {packed}"))?);
        }
    }
    Ok(costs)
}

/// Of one kind of traffic.
pub fn cost(place: &Place, cpu: usize, traffic: &Traffic, stop: &AtomicBool) -> Result<Cost> {
    let (switch, fronts) = Middle::ringway(place, &["--poll", "never"])?;
    let _pinned = Pinned::to(cpu)?;
    let mut generator = Generator::start(fronts, traffic, stop)?;
    of_worker(switch.pid(), &mut generator, traffic, stop)
}

/// Of the one worker in process `pid`, which has to sleep when there is nothing to do.
pub fn of_worker(
    pid: u32,
    generator: &mut Generator,
    traffic: &Traffic,
    stop: &AtomicBool,
) -> Result<Cost> {
    let workers = named(pid, "worker");
    let [worker] = workers[..] else {
        bail!("one worker was expected, not {}", workers.len());
    };
    let fit = usize::from(traffic.ring) / traffic.buffers_per_frame();
    let large = fit * 3 / 4;
    let batches = [large / 4, large];
    for _ in 0..BATCHES {
        generator.batch(large)?;
    }
    let mut figures = Vec::new();
    let mut wakes = Vec::new();
    for _ in 0..GROUPS {
        let mut ran = [0.0; 2];
        for _ in 0..BATCHES {
            for (frames, ran) in batches.into_iter().zip(&mut ran) {
                if stop.load(Ordering::Relaxed) {
                    bail!("interrupted");
                }
                let before = asleep(pid, worker)?;
                generator.batch(frames)?;
                *ran += (asleep(pid, worker)? - before) as f64 / BATCHES as f64;
            }
        }
        let frame = (ran[1] - ran[0]) / (batches[1] - batches[0]) as f64;
        figures.push(frame);
        wakes.push(ran[0] - frame * batches[0] as f64);
    }
    Ok(Cost {
        size: traffic.size,
        packed: traffic.packed,
        touched: traffic.touched,
        nanoseconds: spread(figures.into_iter()),
        wake: spread(wakes.into_iter()).median,
        batches,
    })
}

/// Nanoseconds that the thread has run, once it sleeps: while it runs, the kernel's figure lags.
fn asleep(pid: u32, thread: u32) -> Result<u64> {
    let path = format!("/proc/{pid}/task/{thread}/stat");
    let end = Instant::now() + Duration::from_secs(2);
    loop {
        let text = std::fs::read_to_string(&path)?;
        let state = text.rsplit(") ").next().unwrap_or_default();
        if state.starts_with('S') {
            let times = threads(pid);
            return Ok(times.get(&thread).context("the worker is gone")?.ran);
        }
        if Instant::now() > end {
            bail!("the worker does not fall asleep");
        }
        sleep(Duration::from_micros(20));
    }
}
