//! How a worker divides its time: deficit round robin (Shreedhar and Varghese, 1995) over what bursts
//! cost, among ports rather than queues.
//!
//! Every round a port earns a quantum, which its queues that have frames share evenly. A queue is served
//! while it has credit. What a burst costs is known afterwards only, so it may leave a debt, which
//! is paid in the rounds that follow. Costs are counted in bytes to copy, so that a clock need not be read;
//! what comes with each burst, frame and piece is worth so many bytes.

use ringway_port::{Burst, MAX_BURST};

/// What a port earns per round; three bursts of the shortest frames, half a frame of the longest kind.
const QUANTUM: i64 = 32 * 1024;

/// A burst takes no further frame once it has so many bytes. 32 frames of 1514 bytes are fewer.
pub(super) const BURST_BYTES: u64 = 48 * 1024;

/// What comes with each burst, with each chain and with each piece of memory (bytes).
const PER_BURST: u64 = 1024;
const PER_CHAIN: u64 = 256;
const PER_PIECE: u64 = 64;

/// What a copy of a frame costs that goes to a further port, besides its bytes.
pub(crate) const PER_COPY: u64 = 256;

/// Frames per burst.
const BURST: usize = 32;

const _: () = assert!(BURST <= MAX_BURST);

/// The shares of the ports, by slot.
#[derive(Default)]
pub(super) struct Shares(Vec<Share>);

#[derive(Clone, Copy)]
struct Share {
    /// Queues of the port here that had frames when they were last looked at.
    busy: i64,
    /// What each of them earns per round.
    quantum: i64,
}

/// What a queue has earned and spent.
pub(super) struct Account {
    /// Below zero: a debt.
    credit: i64,
    busy: bool,
    /// Frames that the next burst may have.
    limit: usize,
}

impl Shares {
    /// Nobody is busy; there are `slots` ports.
    pub(super) fn reset(&mut self, slots: usize) {
        let idle = Share {
            busy: 0,
            quantum: QUANTUM,
        };
        self.0.clear();
        self.0.resize(slots, idle);
    }

    #[cold]
    fn count(&mut self, slot: u16, change: i64) {
        if let Some(share) = self.0.get_mut(usize::from(slot)) {
            share.busy += change;
            share.quantum = (QUANTUM / share.busy.max(1)).max(1);
        }
    }

    fn quantum(&self, slot: u16) -> i64 {
        let share = self.0.get(usize::from(slot));
        share.map_or(QUANTUM, |share| share.quantum)
    }
}

impl Account {
    pub(super) fn new() -> Self {
        Self {
            credit: 0,
            busy: false,
            limit: BURST,
        }
    }

    /// A round begins.
    #[inline]
    pub(super) fn earn(&mut self, shares: &Shares, slot: u16) {
        let quantum = shares.quantum(slot);
        self.credit = (self.credit + quantum).min(quantum);
    }

    /// May be served.
    #[inline]
    pub(super) fn has_credit(&self) -> bool {
        self.credit > 0
    }

    /// Has a debt: there may be frames all the same.
    #[inline]
    pub(super) fn is_owing(&self) -> bool {
        self.credit < 0
    }

    /// Frames that the next burst may have: fewer than usual where the last ones were dear, long or flooded
    /// to many. Bytes are limited besides.
    #[inline]
    pub(super) fn limit(&self) -> usize {
        self.limit
    }

    /// A burst of so many chains was served; `copies` is what flooding it added. Returns what it cost.
    #[inline]
    pub(super) fn spend(&mut self, burst: &Burst<'_>, chains: usize, copies: u64) -> u64 {
        let chains = chains as u64;
        let pieces = burst.batch.segments.len() as u64;
        let cost = PER_BURST + chains * PER_CHAIN + pieces * PER_PIECE + burst.bytes + copies;
        self.credit -= cost.cast_signed();
        self.limit = BURST;
        if cost > BURST_BYTES {
            let fit = 2 * chains * BURST_BYTES / cost;
            self.limit = usize::try_from(fit).map_or(BURST, |fit| fit.clamp(1, BURST));
        }
        cost
    }

    /// The queue had frames, or none. One without keeps no credit, but its debt.
    #[inline]
    pub(super) fn look(&mut self, busy: bool, shares: &mut Shares, slot: u16) {
        if !busy {
            self.credit = self.credit.min(0);
        }
        if busy != self.busy {
            self.busy = busy;
            shares.count(slot, if busy { 1 } else { -1 });
        }
    }

    /// Nobody was counted yet.
    pub(super) fn recount(&mut self) {
        self.busy = false;
    }
}
