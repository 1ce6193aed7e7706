//! Which processor a thread runs on, how long it ran and how long it had to wait for one.

use std::collections::BTreeMap;
use std::fs;
use std::hint::spin_loop;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// Keeps the calling thread on one processor until this is dropped.
pub struct Pinned(CpuSet);

impl Pinned {
    /// Pins the calling thread; fails when it may not run there.
    pub fn to(cpu: usize) -> Result<Self> {
        let before = sched_getaffinity(None)?;
        let mut only = CpuSet::new();
        only.set(cpu);
        sched_setaffinity(None, &only).with_context(|| format!("there is no processor {cpu}"))?;
        Ok(Self(before))
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        // What was allowed before is so again; if not, the next row pins anew.
        let _ = sched_setaffinity(None, &self.0);
    }
}

/// Nanoseconds that a thread ran and that it was ready but had to wait.
#[derive(Clone, Copy, Debug, Default)]
pub struct Times {
    /// On a processor.
    pub ran: u64,
    /// Ready, without a processor.
    pub waited: u64,
}

/// Of all threads of a process, by thread id.
pub fn threads(pid: u32) -> BTreeMap<u32, Times> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(format!("/proc/{pid}/task"))
        .into_iter()
        .flatten()
    {
        let Ok(entry) = entry else { continue };
        let id = entry.file_name().to_string_lossy().parse();
        let text = fs::read_to_string(entry.path().join("schedstat"));
        if let (Ok(id), Ok(text)) = (id, text) {
            found.insert(id, parse(&text));
        }
    }
    found
}

/// How often threads of a process left their processors, those that have ended left out: to wait for something, or because they had to.
pub fn context_switches(pid: u32) -> u64 {
    let mut sum = 0;
    for thread in threads(pid).into_keys() {
        let text = fs::read_to_string(format!("/proc/{pid}/task/{thread}/status"));
        let text = text.unwrap_or_default();
        let counts = text.lines().filter_map(|line| {
            let (_, count) = line.split_once("voluntary_ctxt_switches:")?;
            count.trim().parse::<u64>().ok()
        });
        sum += counts.sum::<u64>();
    }
    sum
}

/// The processors that the calling thread may run on.
pub fn allowed() -> Result<Vec<usize>> {
    let set = sched_getaffinity(None)?;
    Ok((0..CpuSet::MAX_CPU)
        .filter(|&cpu| set.is_set(cpu))
        .collect())
}

/// Of the calling thread.
pub fn own() -> Times {
    fs::read_to_string("/proc/thread-self/schedstat")
        .map_or_else(|_| Times::default(), |text| parse(&text))
}

/// The longest wait among the threads that ran for a tenth of `window` or more: those that carry frames, and nobody's housekeeping.
pub fn longest_wait(
    before: &BTreeMap<u32, Times>,
    after: &BTreeMap<u32, Times>,
    window: u64,
) -> u64 {
    let waits = after.iter().filter_map(|(id, after)| {
        let before = before.get(id).copied().unwrap_or_default();
        let ran = after.ran.saturating_sub(before.ran);
        let waited = after.waited.saturating_sub(before.waited);
        (ran >= window / 10).then_some(waited)
    });
    waits.max().unwrap_or(0)
}

/// The threads of a process with this beginning of their name.
pub fn named(pid: u32, prefix: &str) -> Vec<u32> {
    let is_named = |id: &u32| {
        fs::read_to_string(format!("/proc/{pid}/task/{id}/comm"))
            .is_ok_and(|name| name.starts_with(prefix))
    };
    threads(pid).into_keys().filter(is_named).collect()
}

/// Laps of a hand-over, and those of them that only warm up.
const LAPS: u64 = 3000;
const WARM: u64 = 500;
/// Turns of a loop between two looks at the clock.
const SPINS: u32 = 4096;

/// Nanoseconds that a line takes from this thread's processor to another. What a switch and its guests pay for every line that both
/// touch; where processors are virtual, it changes when a host moves them about. `None` when the other processor is taken.
pub fn handover(other: usize) -> Option<f64> {
    let (ours, theirs) = (Line::default(), Line::default());
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let Ok(_pinned) = Pinned::to(other) else {
                return;
            };
            for lap in 1..=LAPS {
                while ours.0.load(Ordering::Acquire) != lap {
                    if over.load(Ordering::Relaxed) {
                        return;
                    }
                    spin_loop();
                }
                theirs.0.store(lap, Ordering::Release);
            }
        });
        let begin = Instant::now();
        let (mut start, mut spins) = (begin, 0u32);
        for lap in 1..=LAPS {
            if lap == WARM {
                start = Instant::now();
            }
            ours.0.store(lap, Ordering::Release);
            while theirs.0.load(Ordering::Acquire) != lap {
                spins = spins.wrapping_add(1);
                if spins.is_multiple_of(SPINS) && begin.elapsed() > Duration::from_millis(100) {
                    over.store(true, Ordering::Relaxed);
                    return None;
                }
                spin_loop();
            }
        }
        let ways = 2 * (LAPS - WARM + 1);
        Some(start.elapsed().as_nanos() as f64 / ways as f64)
    })
}

/// A word with two lines to itself.
#[derive(Default)]
#[repr(align(128))]
struct Line(AtomicU64);

fn parse(text: &str) -> Times {
    let mut numbers = text
        .split_whitespace()
        .map(|word| word.parse().unwrap_or(0));
    Times {
        ran: numbers.next().unwrap_or(0),
        waited: numbers.next().unwrap_or(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_threads_that_carry_frames_are_asked_how_long_they_waited() {
        let times = |ran, waited| Times { ran, waited };
        let before = BTreeMap::from([(1, times(1_000, 50)), (2, times(0, 0))]);
        let after = BTreeMap::from([(1, times(1_900, 60)), (2, times(5, 900))]);
        assert_eq!(longest_wait(&before, &after, 1_000), 10);
        assert_eq!(parse("12 34 5\n").waited, 34);
    }
}
