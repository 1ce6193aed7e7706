//! Two samples, and what was in between per second.
//!
//! Counters only grow. Where one went back, somebody counts from the beginning: another switch, or a port that was made again. What
//! happened in between is not known then, and no rate is better than a wrong one.

use std::collections::{BTreeMap, HashMap};

use ringway_api::stats::{PortStatistics, QueueStatistics};
use serde::Serialize;

use super::{Role, Sample};

/// What happened between two samples, per second.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(crate) struct Rates {
    /// How long the interval was.
    pub(crate) seconds: f64,
    /// The switch's process.
    pub(crate) switch: Option<i32>,
    /// Deliveries of the switch, and those it did not do; `None` where that is not known.
    pub(crate) delivered: Option<f64>,
    pub(crate) dropped: Option<f64>,
    pub(crate) ports: Vec<PortRates>,
    /// Interfaces of the host; rx is what it received.
    #[serde(skip)]
    pub(crate) links: Vec<PortRates>,
    pub(crate) threads: Vec<ThreadRates>,
    /// Why something is missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) trouble: Option<String>,
}

/// Frames and bits per second.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub(crate) struct Flow {
    pub(crate) frames: f64,
    /// Of the frames alone, without preamble, checksum and gap of a wire.
    pub(crate) bits: f64,
}

/// A port; rx is from the guest.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(crate) struct PortRates {
    pub(crate) name: String,
    pub(crate) kind: String,
    pub(crate) connected: bool,
    /// `None` while there are no two samples to compare.
    pub(crate) rx: Option<Flow>,
    pub(crate) tx: Option<Flow>,
    /// Drops by reason, those that happened.
    pub(crate) drops: BTreeMap<String, f64>,
    pub(crate) queues: Vec<QueueRates>,
}

/// A queue pair.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(crate) struct QueueRates {
    pub(crate) worker: Option<usize>,
    pub(crate) rx: Option<Flow>,
    pub(crate) tx: Option<Flow>,
    pub(crate) kicks: Option<f64>,
    pub(crate) calls: Option<f64>,
}

/// A thread.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct ThreadRates {
    pub(crate) owner: String,
    pub(crate) role: Role,
    pub(crate) name: String,
    pub(crate) process: i32,
    pub(crate) id: i32,
    /// The CPU it ran on last.
    pub(crate) cpu: Option<u32>,
    /// Part of one CPU, in percent.
    pub(crate) percent: Option<f64>,
}

impl Rates {
    /// What happened from `before` to `now`; with nothing before, everything but the rates.
    pub(crate) fn between(before: Option<&Sample>, now: &Sample) -> Self {
        let seconds = before.map_or(0.0, |before| now.at.saturating_sub(before.at).as_secs_f64());
        let before = before.filter(|_| seconds > 0.0);
        // The same switch, by all that can be seen of it.
        let same = before.filter(|before| {
            let same_process = before.switch == now.switch;
            let grew = before.delivered <= now.delivered && before.dropped <= now.dropped;
            before.counted && now.counted && same_process && grew
        });
        let ports = |samples: Option<&Sample>, of: fn(&Sample) -> &[PortStatistics]| {
            let rates = of(now).iter().map(|port| {
                let earlier = samples.and_then(|before| {
                    let mut ports = of(before).iter();
                    ports.find(|p| p.name == port.name && p.kind == port.kind)
                });
                of_port(earlier, port, seconds)
            });
            rates.collect::<Vec<_>>()
        };
        let mut all = ports(same, |sample| &sample.ports);
        all.extend(ports(before, |sample| &sample.taps));
        Self {
            seconds,
            switch: now.switch,
            delivered: same.map(|b| per_second(b.delivered, now.delivered, seconds)),
            dropped: same.map(|b| per_second(b.dropped, now.dropped, seconds)),
            ports: all,
            links: ports(before, |sample| &sample.links),
            threads: of_threads(before, now, seconds),
            trouble: now.trouble.clone(),
        }
    }
}

impl PortRates {
    /// All its drops.
    pub(crate) fn dropped(&self) -> Option<f64> {
        self.rx.map(|_| self.drops.values().sum())
    }

    /// The same from the other side.
    pub(crate) fn turned(self) -> Self {
        Self {
            rx: self.tx,
            tx: self.rx,
            ..self
        }
    }

    /// Both directions, to sort by.
    pub(crate) fn bits(&self) -> f64 {
        let bits = |flow: Option<Flow>| flow.map_or(0.0, |flow| flow.bits);
        bits(self.rx) + bits(self.tx)
    }
}

fn of_port(before: Option<&PortStatistics>, now: &PortStatistics, seconds: f64) -> PortRates {
    let before = before.filter(|before| !went_back(before, now));
    let queues: Vec<QueueRates> = now
        .queues
        .iter()
        .enumerate()
        .map(|(number, queue)| {
            // A queue that is new began at nothing.
            let begun = QueueStatistics::default();
            let before = before.map(|before| before.queues.get(number).unwrap_or(&begun));
            of_queue(before, queue, seconds)
        })
        .collect();
    let drops = before.map(|before| {
        let rates = now.drops.iter().map(|(reason, count)| {
            let earlier = before.drops.get(reason).copied().unwrap_or_default();
            (reason.clone(), per_second(earlier, *count, seconds))
        });
        rates.filter(|(_, rate)| *rate > 0.0).collect()
    });
    PortRates {
        name: now.name.clone(),
        kind: now.kind.clone(),
        connected: now.connected,
        rx: before.map(|_| sum(queues.iter().map(|queue| queue.rx))),
        tx: before.map(|_| sum(queues.iter().map(|queue| queue.tx))),
        drops: drops.unwrap_or_default(),
        queues,
    }
}

fn of_queue(before: Option<&QueueStatistics>, now: &QueueStatistics, seconds: f64) -> QueueRates {
    let flow = |frames: fn(&QueueStatistics) -> u64, bytes: fn(&QueueStatistics) -> u64| {
        before.map(|before| Flow {
            frames: per_second(frames(before), frames(now), seconds),
            bits: 8.0 * per_second(bytes(before), bytes(now), seconds),
        })
    };
    QueueRates {
        worker: now.worker,
        rx: flow(|queue| queue.rx_frames, |queue| queue.rx_bytes),
        tx: flow(|queue| queue.tx_frames, |queue| queue.tx_bytes),
        kicks: before.map(|before| per_second(before.kicks, now.kicks, seconds)),
        calls: before.map(|before| per_second(before.calls, now.calls, seconds)),
    }
}

fn went_back(before: &PortStatistics, now: &PortStatistics) -> bool {
    let fewer = |before: &QueueStatistics, now: &QueueStatistics| {
        now.rx_frames < before.rx_frames
            || now.rx_bytes < before.rx_bytes
            || now.tx_frames < before.tx_frames
            || now.tx_bytes < before.tx_bytes
    };
    now.queues.len() < before.queues.len()
        || before
            .queues
            .iter()
            .zip(&now.queues)
            .any(|(before, now)| fewer(before, now))
        || before
            .drops
            .iter()
            .any(|(reason, count)| now.drops.get(reason).copied().unwrap_or_default() < *count)
}

fn of_threads(before: Option<&Sample>, now: &Sample, seconds: f64) -> Vec<ThreadRates> {
    let earlier: HashMap<(i32, i32), u64> = before
        .into_iter()
        .flat_map(|before| &before.threads)
        .map(|thread| ((thread.process, thread.id), thread.used))
        .collect();
    let rates = now.threads.iter().map(|thread| {
        // A number that another thread had before comes with less than that one had used.
        let used = earlier
            .get(&(thread.process, thread.id))
            .and_then(|before| thread.used.checked_sub(*before));
        ThreadRates {
            owner: thread.owner.clone(),
            role: thread.role,
            name: thread.name.clone(),
            process: thread.process,
            id: thread.id,
            cpu: thread.cpu,
            percent: used.map(|used| 100.0 * per_second(0, used, seconds) / 1e9),
        }
    });
    rates.collect()
}

fn sum(flows: impl Iterator<Item = Option<Flow>>) -> Flow {
    flows.flatten().fold(Flow::default(), |sum, flow| Flow {
        frames: sum.frames + flow.frames,
        bits: sum.bits + flow.bits,
    })
}

// Beyond 2^53 a counter loses its last digits, which no rate shows.
fn per_second(before: u64, now: u64, seconds: f64) -> f64 {
    now.saturating_sub(before) as f64 / seconds
}

#[cfg(test)]
mod tests;
