//! Time, read as seldom as the work allows.

use std::time::Instant;

/// A worker's clock: read on demand, kept until the worker says that time has passed.
pub(crate) struct Clock {
    start: Instant,
    now: Option<Instant>,
    seconds: u32,
}

impl Clock {
    pub(crate) fn new(start: Instant) -> Self {
        Self {
            start,
            now: None,
            seconds: 0,
        }
    }

    /// Forgets the reading.
    pub(crate) fn pass(&mut self) {
        self.now = None;
    }

    /// The time of this round.
    pub(crate) fn instant(&mut self) -> Instant {
        let now = *self.now.get_or_insert_with(Instant::now);
        self.seconds = u32::try_from((now - self.start).as_secs()).unwrap_or(u32::MAX);
        now
    }

    /// Seconds since the switch started, as of the last reading.
    pub(crate) fn seconds(&self) -> u32 {
        self.seconds
    }
}
