//! Marking what a device writes to its ring, for a front-end that moves the guest to another host (`VHOST_F_LOG_ALL`).
//!
//! What is written is marked after it was written, and what the driver is shown is marked before it is shown. The word that shows it
//! is itself marked right after.

use std::sync::Arc;

use ringway_mem::DirtyLog;

/// Where a device marks the pages that it writes.
#[derive(Clone, Debug)]
pub struct RingLog {
    /// The log. Pages of buffers are marked by who writes them.
    pub log: Arc<DirtyLog>,
    /// The guest address under which a split ring's used ring is marked (`log_guest_addr`). A packed ring marks what it writes where
    /// that lies in the guest. `None` = the ring is not marked (no `VHOST_VRING_F_LOG`).
    pub used: Option<u64>,
}

/// The same log, not one that has the same marks.
impl PartialEq for RingLog {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.log, &other.log) && self.used == other.used
    }
}

impl RingLog {
    /// Marks bytes that lie at an offset from a guest address. What goes beyond the last address is in no log.
    #[inline]
    pub(crate) fn mark(&self, base: Option<u64>, offset: usize, len: usize) {
        if let Some(base) = base {
            self.log
                .mark(base.saturating_add(offset as u64), len as u64);
        }
    }
}
