//! What becomes of the frames of a burst, for whoever captures at a port.
//!
//! Nothing of this is touched while nobody captures: workers look at [`Snapshot::watched`](crate::snapshot::Snapshot) once per
//! turn, and at [`Watch::is_on`] once per group of frames.

use std::sync::Arc;

use ringway_port::burst::bits;
use ringway_port::capture::{Capture, Direction, Note};
use ringway_port::{Burst, DropReason, Head, Heads, MAX_BURST};

use crate::classify::Judged;
use crate::snapshot::Entry;

/// Captures at one port.
pub(crate) type Watchers = Arc<[Arc<Capture>]>;

/// A worker's notes about the burst under way.
#[derive(Default)]
pub(crate) struct Watch {
    on: bool,
    /// Number of the port that the burst came from.
    source: u32,
    /// Made when the first burst is watched.
    notes: Option<Box<Notes>>,
    /// The frames of a burst that was put together anew, by their places in the one they came from.
    origin: Option<[u8; MAX_BURST]>,
}

struct Notes {
    of: [Note; MAX_BURST],
    /// As received: delivering may complete checksums.
    heads: [Head; MAX_BURST],
}

impl Watch {
    /// Whether anybody captures anywhere during this burst.
    pub(crate) fn is_on(&self) -> bool {
        self.on
    }

    /// A burst begins.
    #[cold]
    pub(crate) fn begin(&mut self, entry: &Entry, burst: &Burst<'_>) {
        self.on = true;
        self.source = entry.number;
        let notes = self.notes.get_or_insert_with(|| {
            Box::new(Notes {
                of: [Note::default(); MAX_BURST],
                heads: [Heads::BLANK; MAX_BURST],
            })
        });
        if entry.watchers.is_some() {
            let count = burst.frames.len();
            notes.of[..count].fill(Note {
                direction: Some(Direction::Inbound),
                ..Note::default()
            });
            notes.heads[..count].copy_from_slice(&burst.heads[..count]);
        }
    }

    /// Frames of `burst` were sent to `to`; those of `delivered` arrived.
    #[cold]
    pub(crate) fn sent(
        &mut self,
        to: &Entry,
        burst: &Burst<'_>,
        frames: u64,
        delivered: u64,
        reason: Option<DropReason>,
    ) {
        if let Some(watchers) = &to.watchers {
            let note = |i: usize| {
                let arrived = delivered & 1 << i != 0;
                Note {
                    direction: Some(Direction::Outbound),
                    peer: self.source,
                    flooded: false,
                    delivered: arrived.into(),
                    dropped: (!arrived).into(),
                    reason: reason.filter(|_| !arrived),
                }
            };
            for watcher in watchers.iter() {
                note_missed(
                    watcher,
                    frames,
                    watcher.record(burst, frames, to.number, note),
                );
            }
        }
        let Some(notes) = &mut self.notes else { return };
        for i in bits(frames) {
            let origin = self.origin.map_or(i, |origin| usize::from(origin[i]));
            let note = &mut notes.of[origin];
            if delivered & 1 << i != 0 {
                note.delivered = note.delivered.saturating_add(1);
                note.peer = to.number;
            } else {
                note.dropped = note.dropped.saturating_add(1);
                note.reason = note.reason.or(reason);
                if note.delivered == 0 {
                    note.peer = to.number;
                }
            }
        }
    }

    /// Frames went nowhere.
    #[cold]
    pub(crate) fn lost(&mut self, frames: u64, reason: DropReason) {
        let Some(notes) = &mut self.notes else { return };
        for i in bits(frames) {
            notes.of[i].dropped = notes.of[i].dropped.saturating_add(1);
            notes.of[i].reason.get_or_insert(reason);
        }
    }

    /// What follows is about frames of another burst, of which the places are given.
    #[cold]
    pub(crate) fn follow(&mut self, origin: Option<[u8; MAX_BURST]>) {
        self.origin = origin;
    }

    /// Everything became of the burst that will: it is recorded where it came from.
    #[cold]
    pub(crate) fn end(&mut self, entry: &Entry, burst: &mut Burst<'_>, judged: &Judged) {
        self.on = false;
        for (reason, frames) in &judged.refusals {
            self.lost(*frames, *reason);
        }
        let (Some(watchers), Some(notes)) = (&entry.watchers, &mut self.notes) else {
            return;
        };
        let count = burst.frames.len();
        burst.heads[..count].swap_with_slice(&mut notes.heads[..count]);
        let all = burst.all();
        let note = |i: usize| Note {
            flooded: judged.flood & 1 << i != 0,
            ..notes.of[i]
        };
        for watcher in watchers.iter() {
            note_missed(watcher, all, watcher.record(burst, all, entry.number, note));
        }
        burst.heads[..count].swap_with_slice(&mut notes.heads[..count]);
    }
}

fn note_missed(watcher: &Capture, frames: u64, recorded: u64) {
    let missed = (frames & !recorded).count_ones();
    if missed != 0 {
        use ringway_port::Port;
        let counters = watcher.counters();
        counters.drop_frames(DropReason::CaptureFull, missed.into());
    }
}
