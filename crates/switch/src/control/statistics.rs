//! What is counted, put together for whoever asks.

use std::fs::File;
use std::os::unix::fs::FileExt;

use ringway_api::stats::{PortStatistics, QueueStatistics, Statistics, WorkerStatistics};
use ringway_port::Wakeup;

use super::Control;
use super::attached::Attached;
use crate::totals::Sums;

/// Says how much CPU a thread used. Opened by the thread itself; to read it needs no right later.
pub(crate) struct CpuClock(Option<File>);

impl CpuClock {
    /// That of the calling thread; it says nothing where the system does not.
    pub(crate) fn of_this_thread() -> Self {
        Self(File::open("/proc/thread-self/schedstat").ok())
    }

    /// Nanoseconds so far: the first word, see the kernel's sched-stats.rst.
    fn read(&self) -> Option<u64> {
        let mut text = [0; 64];
        let len = self.0.as_ref()?.read_at(&mut text, 0).ok()?;
        let text = str::from_utf8(&text[..len]).ok()?;
        text.split_whitespace().next()?.parse().ok()
    }
}

impl Control {
    pub(crate) fn statistics(&self, only: Option<&str>) -> Statistics {
        let each: Vec<Sums> = self.shared.totals.iter().map(|t| t.read()).collect();
        let mut sums = self.carried;
        each.iter().for_each(|other| sums.add(other));
        let ports = self
            .ports
            .values()
            .filter(|port| only.is_none_or(|name| port.name == name));
        Statistics {
            ports: ports.map(|port| self.port_statistics(port)).collect(),
            attempted: sums.attempted,
            delivered: sums.delivered,
            dropped: sums.dropped,
            copied_bytes: sums.copied_bytes,
            workers: (0..).zip(&each).map(|(n, s)| self.worker(n, s)).collect(),
        }
    }

    fn worker(&self, number: usize, sums: &Sums) -> WorkerStatistics {
        let (queues, moves) = self.assignment.counts(number);
        WorkerStatistics {
            name: format!("worker-{number}"),
            queues,
            attempted: sums.attempted,
            delivered: sums.delivered,
            busy_ns: self.shared.totals[number].busy(),
            cpu_ns: self.cpu_clocks.get(number).and_then(CpuClock::read),
            moves,
        }
    }

    fn port_statistics(&self, port: &Attached) -> PortStatistics {
        let drops = port
            .counters
            .drops()
            .map(|(reason, n)| (reason.name().to_owned(), n))
            .collect();
        let faults = port.counters.faults().into_iter();
        let queues = 0..port.counters.queues.len();
        PortStatistics {
            name: port.name.clone(),
            kind: port.spec.kind.label().to_owned(),
            connected: port.connected(),
            features: port.features(),
            queues: queues.map(|queue| self.queue(port, queue)).collect(),
            drops,
            faults: faults.map(|(name, n)| (name.to_owned(), n)).collect(),
            addresses: self.shared.table.count(port.slot).into(),
            unlearned: port.counters.unlearned(),
        }
    }

    fn queue(&self, port: &Attached, number: usize) -> QueueStatistics {
        let queue = &port.counters.queues[number];
        let view = port.view.as_ref();
        let view = view.filter(|view| number < view.receive_queues());
        let worker = view.and_then(|view| match view.wakeup(number) {
            Wakeup::Memory { id, .. }
            | Wakeup::Descriptor { id, .. }
            | Wakeup::Timer { id, .. } => self.assignment.worker(id),
            Wakeup::Never => None,
        });
        QueueStatistics {
            rx_frames: queue.received.frames(),
            rx_bytes: queue.received.bytes(),
            tx_frames: queue.sent.frames(),
            tx_bytes: queue.sent.bytes(),
            kicks: queue.received.kicks(),
            calls: queue.received.calls() + queue.sent.calls(),
            missed_kicks: queue.received.missed_kicks(),
            worker,
            busy_ns: queue.received.busy(),
            lock_waits: queue.sent.lock_waits(),
            rate_delays: queue.received.rate_delays(),
        }
    }
}
