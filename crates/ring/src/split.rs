//! The device side of the split virtqueue (virtio 1.2, 2.7).
//!
//! Four positions, free-running and modulo 2^16, in this order:
//!
//! ```text
//! published <= staged <= next <= known
//!    |           |        |       `- available index as last loaded
//!    |           |        `--------- next available entry to take
//!    |           `------------------ next used element to write
//!    `------------------------------ used index as the driver sees it
//! ```
//!
//! Chains are returned in the order they were taken, so "staged" counts them in both rings. `known` is at most the ring's size ahead of
//! `published`: that is checked when it is loaded, and bounds all the rest. The used index is ours alone and never read back.

mod areas;
mod aside;
mod take;

use std::sync::Arc;

use ringway_mem::{DirtyLog, GuestMemory, LastHit, Words};

pub(crate) use self::areas::{Areas, NO_EVENT, split_lengths};
use self::aside::Aside;
use crate::batch::Chain;
use crate::descriptor::need_event;
use crate::device::Kicks;
use crate::error::RingError;
use crate::gather::{Table, empty_table};
use crate::layout::{RingBase, RingFeatures, RingLayout};
use crate::log::RingLog;
use crate::shared::fence;

/// Most chains that [`publish_older`](SplitRing::publish_older) keeps back. DPDK's drivers look at the used ring when they transmit,
/// and if no more than 31 descriptors (`DEFAULT_TX_FREE_THRESH`) are with the device, they free the buffers of the whole ring at
/// once: more than a mempool cache holds, so the next buffers come from the far end of the pool, out of everybody's caches. With 32
/// kept back they free what they need, and use again what they have just freed.
const KEPT: u16 = 32;

/// A split ring as the device works on it.
pub struct SplitRing {
    areas: Areas,
    known: u16,
    next: u16,
    staged: u16,
    published: u16,
    event_idx: bool,
    in_order: bool,
    /// Whether a call was considered since the start; before that, nobody knows what the driver was told.
    signalled: bool,
    kicks: Kicks,
    /// Where the last batch ends that one used element stands for: no publication may end inside it.
    batch_end: u16,
    hit: LastHit,
    /// Present when indirect descriptors were negotiated.
    table: Option<Box<Table>>,
    /// What is written besides the ring, if anything.
    aside: Option<Box<Aside>>,
}

impl SplitRing {
    /// Everything before `used->idx` counts as done, whatever the base says: it is what the driver has seen. They differ when DPDK's
    /// virtio-user takes up a ring that it has used before and sends 0.
    pub(crate) fn new(
        memory: &Arc<GuestMemory>,
        layout: &RingLayout,
        features: RingFeatures,
        base: RingBase,
    ) -> Result<Self, RingError> {
        if features.packed || base.wraps.is_some() {
            let packed = features.packed;
            return Err(RingError::Format { packed });
        }
        let areas = Areas::new(memory, layout)?;
        let start = areas.used_index();
        Ok(Self {
            areas,
            known: start,
            next: start,
            staged: start,
            published: start,
            event_idx: features.event_idx,
            in_order: features.in_order,
            signalled: false,
            kicks: Kicks::Unknown,
            batch_end: start,
            hit: LastHit::default(),
            table: features.indirect.then(empty_table),
            aside: None,
        })
    }

    pub(crate) fn set_log(&mut self, log: Option<RingLog>) {
        let position = self.aside.take().and_then(|aside| aside.position);
        self.aside = Aside::new(log, position);
    }

    /// Shows from now on where the ring stands in `word`.
    pub(crate) fn show_position(&mut self, word: Words) {
        let log = self.aside.take().and_then(|aside| aside.log);
        self.aside = Aside::new(log, Some(word));
        if let Some(aside) = &self.aside {
            aside.stand(self.published);
        }
    }

    #[inline]
    pub(crate) fn log(&self) -> Option<&DirtyLog> {
        let log = self.aside.as_ref()?.log.as_ref()?;
        Some(&log.log)
    }

    #[inline]
    pub(crate) fn untake(&mut self, chains: &[Chain]) {
        self.next = self.next.wrapping_sub(self.at_most_taken(chains.len()));
    }

    #[inline]
    pub(crate) fn complete(&mut self, chains: &[Chain]) {
        let count = self.at_most_taken(chains.len());
        let chains = &chains[..usize::from(count)];
        if self.in_order
            && count > 1
            && chains.iter().all(|chain| chain.written == 0)
            && !self.driver_polls()
        {
            // One element stands for all, at the place of the first (virtio 1.2, 2.7.8.1). Skipped chains count as wholly used, so
            // this is right only where nothing was written; and all become visible at once, so not where some may be kept back.
            let last = chains[chains.len() - 1];
            self.areas.set_used_element(self.staged, last.id, 0);
            self.staged = self.staged.wrapping_add(count);
            self.batch_end = self.staged;
            return;
        }
        let mut staged = self.staged;
        for chain in chains {
            self.areas.set_used_element(staged, chain.id, chain.written);
            staged = staged.wrapping_add(1);
        }
        self.staged = staged;
    }

    #[inline]
    pub(crate) fn publish(&mut self) -> bool {
        self.publish_to(self.staged)
    }

    /// All but the last [`KEPT`], where the driver polls.
    #[inline]
    pub(crate) fn publish_older(&mut self) -> bool {
        let staged = self.staged.wrapping_sub(self.published);
        let kept = if self.driver_polls() {
            let apart = self.staged.wrapping_sub(self.batch_end);
            KEPT.min(self.size() / 8).min(apart)
        } else {
            0
        };
        self.publish_to(self.published.wrapping_add(staged.saturating_sub(kept)))
    }

    #[inline]
    fn driver_polls(&self) -> bool {
        !self.event_idx && self.areas.available_flags() & NO_EVENT != 0
    }

    #[inline]
    fn publish_to(&mut self, new: u16) -> bool {
        let old = self.published;
        if old == new {
            return false;
        }
        match &self.aside {
            None => self.areas.set_used_index(new),
            Some(aside) => self.show_aside(aside, old, new),
        }
        self.published = new;
        // The driver stores what it wants and then looks at the index; we do the reverse (virtio 1.2, 2.7.7.2).
        fence();
        if !self.event_idx {
            return self.areas.available_flags() & NO_EVENT == 0;
        }
        if !self.signalled {
            self.signalled = true;
            return true;
        }
        need_event(self.areas.used_event(), new, old)
    }

    pub(crate) fn discard_staged(&mut self) {
        self.staged = self.published;
        self.next = self.published;
    }

    #[inline]
    pub(crate) fn disable_kicks(&mut self) {
        if self.kicks == Kicks::Unwanted {
            return;
        }
        // With event indices, the one last written falls behind and does no harm (virtio 1.2, 2.7.10.1 keeps the flags 0).
        if !self.event_idx {
            self.areas.set_used_flags(NO_EVENT);
            if let Some(aside) = &self.aside {
                self.mark_suppression(aside);
            }
        }
        self.kicks = Kicks::Unwanted;
    }

    pub(crate) fn enable_kicks(&mut self) -> bool {
        if self.event_idx {
            self.areas.set_available_event(self.next);
        }
        if self.kicks != Kicks::Wanted && !self.event_idx || self.kicks == Kicks::Unknown {
            self.areas.set_used_flags(0);
        }
        if let Some(aside) = &self.aside {
            self.mark_suppression(aside);
        }
        self.kicks = Kicks::Wanted;
        fence();
        self.has_available()
    }

    #[inline]
    pub(crate) fn has_available(&self) -> bool {
        self.known != self.next || self.areas.available_index() != self.next
    }

    pub(crate) fn base(&self) -> RingBase {
        RingBase::split(self.published)
    }

    #[inline]
    pub(crate) fn size(&self) -> u16 {
        self.areas.size()
    }

    /// `count`, or the chains that are taken and not yet staged when they are fewer.
    #[inline(always)]
    fn at_most_taken(&self, count: usize) -> u16 {
        let taken = self.next.wrapping_sub(self.staged);
        debug_assert!(count <= usize::from(taken), "{count} of {taken} chains");
        u16::try_from(count).map_or(taken, |count| count.min(taken))
    }
}
