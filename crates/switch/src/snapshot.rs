//! What workers read: an immutable snapshot behind a generation number, and how it is exchanged.
//!
//! The control thread publishes a new snapshot and waits until every worker has taken it up and
//! let go of the old one ([`Exchange`]). After that nothing the old one alone referred to is in use:
//! a ring can be read out, memory unmapped, a descriptor closed.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use ringway_port::{Fault, Port, Wakeup};
use rustix::event::{EventfdFlags, eventfd};

use crate::assign::Work;
use crate::exchange::Exchange;
use crate::policy::Policy;
use crate::table::Table;
use crate::totals::Totals;
use crate::watch::Watchers;

/// How long a worker may take to pass a quiescent point. It needs microseconds; a second means
/// that it is stuck in a system call.
const PATIENCE: Duration = Duration::from_secs(5);

/// The receive queues of `ports` that can give something, with their names.
pub(crate) fn receive_queues(ports: &[Option<Entry>]) -> Vec<(u64, QueueRef)> {
    let mut queues = Vec::new();
    for (slot, entry) in (0u16..).zip(ports) {
        let Some(Entry { port, .. }) = entry else {
            continue;
        };
        for queue in 0..u16::try_from(port.receive_queues()).unwrap_or(u16::MAX) {
            if let Wakeup::Memory { id, .. }
            | Wakeup::Descriptor { id, .. }
            | Wakeup::Timer { id, .. } = port.wakeup(usize::from(queue))
            {
                queues.push((id, QueueRef { slot, queue }));
            }
        }
    }
    queues
}

/// The ports as one generation of workers sees them.
pub(crate) struct Snapshot {
    /// By slot; a slot is a port's short number in the learning table.
    pub(crate) ports: Box<[Option<Entry>]>,
    /// Slots that take flooded frames.
    pub(crate) floods: Box<[u16]>,
    /// Slots of captures, which get a copy of every frame.
    pub(crate) captures: Box<[u16]>,
    /// Somebody captures at a port.
    pub(crate) watched: bool,
    /// Receive queues by worker.
    pub(crate) work: Box<[Vec<QueueRef>]>,
}

/// A port of a snapshot.
#[derive(Clone)]
pub(crate) struct Entry {
    pub(crate) port: Arc<dyn Port>,
    /// Never used twice, unlike the slot.
    pub(crate) number: u32,
    pub(crate) policy: Arc<Policy>,
    /// Who captures what crosses the port.
    pub(crate) watchers: Option<Watchers>,
}

/// A receive queue of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct QueueRef {
    pub(crate) slot: u16,
    pub(crate) queue: u16,
}

impl Snapshot {
    /// A snapshot of `ports`, served as `work` says.
    pub(crate) fn new(ports: Vec<Option<Entry>>, captures: &[u16], work: Work) -> Self {
        let floods = (0u16..).zip(&ports).filter_map(|(slot, entry)| {
            let takes = entry.as_ref()?.port.send_queues() > 0 && !captures.contains(&slot);
            takes.then_some(slot)
        });
        Self {
            floods: floods.collect(),
            watched: ports.iter().flatten().any(|entry| entry.watchers.is_some()),
            ports: ports.into(),
            captures: captures.into(),
            work: work.into(),
        }
    }

    pub(crate) fn entry(&self, slot: u16) -> Option<&Entry> {
        self.ports.get(usize::from(slot))?.as_ref()
    }
}

/// What the control thread and the workers share.
pub(crate) struct Shared {
    pub(crate) table: Table,
    pub(crate) start: Instant,
    pub(crate) totals: Box<[Totals]>,
    pub(crate) snapshots: Exchange<Snapshot>,
    /// Wakes worker `i`.
    bells: Vec<OwnedFd>,
    pub(crate) stopping: AtomicBool,
    /// A worker that ended although the switch was to go on.
    lost: OnceLock<usize>,
    /// The control thread looks at the load of the workers already, or need not.
    looking: AtomicBool,
    reports: Mutex<VecDeque<(u32, Fault)>>,
    /// Wakes the control thread for reports.
    report_bell: OwnedFd,
    injected: Mutex<VecDeque<Injected>>,
}

/// A frame that a port's control side sends in the name of its guest (an announcement).
pub(crate) struct Injected {
    pub(crate) number: u32,
    pub(crate) slot: u16,
    pub(crate) frame: Vec<u8>,
}

/// Frames waiting to be injected; more than this at once is nobody's announcement.
const MAX_INJECTED: usize = 1024;

impl Shared {
    pub(crate) fn new(workers: usize, table: Table) -> std::io::Result<Self> {
        let bell = || eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK);
        Ok(Self {
            table,
            start: Instant::now(),
            totals: (0..workers).map(|_| Totals::default()).collect(),
            snapshots: Exchange::new(
                Snapshot::new(Vec::new(), &[], vec![Vec::new(); workers]),
                workers,
            ),
            bells: (0..workers).map(|_| bell()).collect::<Result<_, _>>()?,
            stopping: AtomicBool::new(false),
            lost: OnceLock::new(),
            // Work of a single worker cannot go anywhere.
            looking: AtomicBool::new(workers == 1),
            reports: Mutex::default(),
            report_bell: bell()?,
            injected: Mutex::default(),
        })
    }

    /// As if the switch had started earlier, as far as the system's clock goes back: what another process
    /// learned was learned before now.
    pub(crate) fn backdated(mut self, by: Duration) -> Self {
        self.start = self.start.checked_sub(by).unwrap_or(self.start);
        self
    }

    /// Publishes `snapshot` and waits until every worker works with it. False = a worker did not
    /// come round in time; the old snapshot's parts stay alive as long as it holds them.
    #[must_use]
    pub(crate) fn publish(&self, snapshot: Snapshot) -> bool {
        let (_old, generation) = self.snapshots.show(snapshot);
        self.wake_all();
        self.snapshots.wait(generation, PATIENCE)
    }

    /// Worker `worker` has ended and holds nothing: nobody waits for it any more. If the switch was
    /// to go on, the control thread hears of it.
    pub(crate) fn leave(&self, worker: usize) {
        self.snapshots.leave(worker);
        if !self.stopping.load(Ordering::Acquire) {
            let _ = self.lost.set(worker);
            ring(&self.report_bell);
        }
    }

    /// The first worker that ended although the switch was to go on.
    pub(crate) fn lost_worker(&self) -> Option<usize> {
        self.lost.get().copied()
    }

    /// Has every worker look around; with `stopping` set they end.
    pub(crate) fn end(&self) {
        self.snapshots.advance();
        self.wake_all();
    }

    pub(crate) fn bell(&self, worker: usize) -> &OwnedFd {
        &self.bells[worker]
    }

    fn wake_all(&self) {
        self.bells.iter().for_each(ring);
    }

    /// A worker met a fault.
    pub(crate) fn report(&self, number: u32, fault: Fault) {
        lock(&self.reports).push_back((number, fault));
        ring(&self.report_bell);
    }

    /// A worker has so much to do that the control thread shall look whether others have less.
    pub(crate) fn ask_for_look(&self) {
        if !self.looking.load(Ordering::Relaxed) && !self.looking.swap(true, Ordering::Relaxed) {
            ring(&self.report_bell);
        }
    }

    /// Somebody asked for a look since the control thread last stopped looking.
    pub(crate) fn wants_look(&self) -> bool {
        self.looking.load(Ordering::Relaxed)
    }

    /// The control thread looks no more until it is asked.
    pub(crate) fn stop_looking(&self) {
        self.looking.store(false, Ordering::Relaxed);
    }

    pub(crate) fn report_bell(&self) -> &OwnedFd {
        &self.report_bell
    }

    pub(crate) fn take_reports(&self) -> VecDeque<(u32, Fault)> {
        std::mem::take(&mut *lock(&self.reports))
    }

    /// Has worker 0 send a frame as if it came from a port.
    pub(crate) fn inject(&self, injected: Injected) {
        let mut waiting = lock(&self.injected);
        if waiting.len() < MAX_INJECTED {
            waiting.push_back(injected);
            ring(&self.bells[0]);
        }
    }

    pub(crate) fn take_injected(&self) -> VecDeque<Injected> {
        std::mem::take(&mut *lock(&self.injected))
    }

    /// Seconds since the switch started, as the learning table counts them.
    pub(crate) fn now(&self) -> u32 {
        u32::try_from(self.start.elapsed().as_secs()).unwrap_or(u32::MAX)
    }
}

fn ring(bell: &OwnedFd) {
    // A bell that cannot count further has rung.
    let _ = rustix::io::write(bell, &1u64.to_ne_bytes());
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
