//! The device side of a ring, whatever its format.

use std::sync::Arc;

use ringway_mem::{DirtyLog, GuestMemory, Words};

use crate::batch::{Chain, ReadBatch, WriteBatch};
use crate::error::{RingError, RingFault, Stale};
use crate::layout::{RingBase, RingFeatures, RingLayout};
use crate::log::RingLog;
use crate::packed::PackedRing;
use crate::split::SplitRing;

/// A ring as the device works on it. Users take chains, use their bytes, complete them in the order they were taken, and publish:
///
/// ```
/// # use std::sync::Arc;
/// # use ringway_mem::{DirtyLog, GuestMemory};
/// # use ringway_ring::{DeviceRing, DriverOptions, DriverRing, ReadBatch, RingFeatures};
/// # let memory = Arc::new(GuestMemory::heap(&[(0, 1 << 20)]));
/// # let options = DriverOptions { size: 256, ..DriverOptions::default() };
/// # let mut driver = DriverRing::new(&memory, 0, options).unwrap();
/// # driver.add(&[(0x8_0000, 64)], &[], false).unwrap();
/// # driver.publish();
/// # let mut device =
/// #     DeviceRing::new(&memory, &driver.layout(), RingFeatures::default(), driver.base()).unwrap();
/// let mut batch = ReadBatch::new();
/// device.take_readable(&memory, &mut batch, 32)?;
/// for chain in &batch.chains {
///     let mut frame = [0; 64];
///     batch.slices(chain)[0].copy_to(&mut frame);
/// }
/// device.complete(&batch.chains);
/// if device.publish() {
///     // signal the call eventfd
/// }
/// # Ok::<_, ringway_ring::RingFault>(())
/// ```
///
/// Until `publish` nothing is visible to the driver. Chains that were taken and not completed are not consumed: [`untake`] gives them
/// back, and [`base`] does not count them.
///
/// [`untake`]: Self::untake
/// [`base`]: Self::base
pub enum DeviceRing {
    /// The split virtqueue (virtio 1.2, 2.7).
    Split(SplitRing),
    /// The packed virtqueue (virtio 1.2, 2.8).
    Packed(PackedRing),
}

impl DeviceRing {
    /// Takes up a ring that lies in `memory` where it stands. All that is not completed at `base` is processed again, and a split
    /// ring stands where its used index says.
    pub fn new(
        memory: &Arc<GuestMemory>,
        layout: &RingLayout,
        features: RingFeatures,
        base: RingBase,
    ) -> Result<Self, RingError> {
        if features.packed {
            PackedRing::new(memory, layout, features, base).map(Self::Packed)
        } else {
            SplitRing::new(memory, layout, features, base).map(Self::Split)
        }
    }

    /// Takes up a packed ring whose device was killed, where the journal that it kept in `words` says; it is kept on. Chains that the
    /// killed device had taken and not returned are taken again; those whose return the driver has not seen are to be published.
    pub fn recover(
        memory: &Arc<GuestMemory>,
        layout: &RingLayout,
        features: RingFeatures,
        words: Words,
    ) -> Result<Result<Self, Stale>, RingError> {
        let recovered = PackedRing::recover(memory, layout, features, words)?;
        Ok(recovered.map(Self::Packed))
    }

    /// Keeps a journal from now on: [`JOURNAL_WORDS`](crate::JOURNAL_WORDS) words that are the ring's alone. A split ring has no need of
    /// one, since its used index is in memory.
    pub fn keep_journal(&mut self, words: Words) {
        match self {
            Self::Split(_) => {}
            Self::Packed(ring) => ring.keep_journal(words),
        }
    }

    /// Shows from now on where the ring stands in one word, for whoever serves it later: that of the region that vhost-user tracks
    /// descriptors in flight in, which holds the used index. What is in flight follows from it, since chains are returned in the order they
    /// were taken. To be called after [`keep_journal`](Self::keep_journal), if at all.
    pub fn show_position(&mut self, word: Words) {
        match self {
            Self::Split(ring) => ring.show_position(word),
            Self::Packed(ring) => ring.show_position(word),
        }
    }

    /// Says in the word of [`show_position`](Self::show_position) that nothing is being published any more.
    pub fn conclude(&self) {
        match self {
            // It says so after every publication.
            Self::Split(_) => {}
            Self::Packed(ring) => ring.conclude(),
        }
    }

    /// Appends up to `max` chains of device-readable bytes to `batch` and returns how many: fewer when no more are available or the
    /// batch is full. `memory` must be the one the ring was made with; it is passed so that the slices live as long as it does.
    ///
    /// On a fault the batch is as it was. Chains before a faulty one are returned first, the fault with the next take.
    pub fn take_readable<'m>(
        &mut self,
        memory: &'m GuestMemory,
        batch: &mut ReadBatch<'m>,
        max: usize,
    ) -> Result<usize, RingFault> {
        match self {
            Self::Split(ring) => ring.take(memory, batch, max),
            Self::Packed(ring) => ring.take(memory, batch, max),
        }
    }

    /// As [`take_readable`](Self::take_readable), for device-writable bytes.
    pub fn take_writable<'m>(
        &mut self,
        memory: &'m GuestMemory,
        batch: &mut WriteBatch<'m>,
        max: usize,
    ) -> Result<usize, RingFault> {
        match self {
            Self::Split(ring) => ring.take(memory, batch, max),
            Self::Packed(ring) => ring.take(memory, batch, max),
        }
    }

    /// Gives back chains, which must be the last ones taken. The driver sees nothing of it; the next take finds them again.
    #[inline]
    pub fn untake(&mut self, chains: &[Chain]) {
        match self {
            Self::Split(ring) => ring.untake(chains),
            Self::Packed(ring) => ring.untake(chains),
        }
    }

    /// Stages the return of chains, which must be the oldest ones taken and not yet completed, in the order they were taken. Where
    /// VIRTIO_F_IN_ORDER was negotiated and nothing was written to any, one element stands for all.
    pub fn complete(&mut self, chains: &[Chain]) {
        match self {
            Self::Split(ring) => ring.complete(chains),
            Self::Packed(ring) => ring.complete(chains),
        }
    }

    /// Makes what was completed visible to the driver. True when the driver wants a call for it; always for the first time where
    /// event indices are used, since nobody knows what the driver was told before.
    #[inline]
    pub fn publish(&mut self) -> bool {
        match self {
            Self::Split(ring) => ring.publish(),
            Self::Packed(ring) => ring.publish(),
        }
    }

    /// As [`publish`](Self::publish), for chains whose return nobody waits for. Where the driver polls, the newest may stay unseen
    /// until others follow or until `publish`; who uses this calls `publish` when nothing follows.
    #[inline]
    pub fn publish_older(&mut self) -> bool {
        match self {
            Self::Split(ring) => ring.publish_older(),
            // Packed drivers look at one descriptor at a time, and free what they need.
            Self::Packed(ring) => ring.publish(),
        }
    }

    /// Instead of [`publish`](Self::publish), when memory turned out to be poisoned: forgets what was completed, and what was taken.
    pub fn discard_staged(&mut self) {
        match self {
            Self::Split(ring) => ring.discard_staged(),
            Self::Packed(ring) => ring.discard_staged(),
        }
    }

    /// Asks the driver not to kick. It may still do so now and then.
    #[inline]
    pub fn disable_kicks(&mut self) {
        match self {
            Self::Split(ring) => ring.disable_kicks(),
            Self::Packed(ring) => ring.disable_kicks(),
        }
    }

    /// Asks the driver to kick for the next chain. True when one is there already: then no kick may come for it.
    pub fn enable_kicks(&mut self) -> bool {
        match self {
            Self::Split(ring) => ring.enable_kicks(),
            Self::Packed(ring) => ring.enable_kicks(),
        }
    }

    /// Looks whether a take would find something, be it a fault.
    #[inline]
    pub fn has_available(&self) -> bool {
        match self {
            Self::Split(ring) => ring.has_available(),
            Self::Packed(ring) => ring.has_available(),
        }
    }

    /// Marks what is written from now on in this log, or in none.
    pub fn set_log(&mut self, log: Option<RingLog>) {
        match self {
            Self::Split(ring) => ring.set_log(log),
            Self::Packed(ring) => ring.set_log(log),
        }
    }

    /// The log in which who writes buffers has to mark them, before they are published.
    #[inline]
    pub fn log(&self) -> Option<&DirtyLog> {
        match self {
            Self::Split(ring) => ring.log(),
            Self::Packed(ring) => ring.log(),
        }
    }

    /// Where the ring stands for the driver: what was published. Chains taken or staged do not count.
    pub fn base(&self) -> RingBase {
        match self {
            Self::Split(ring) => ring.base(),
            Self::Packed(ring) => ring.base(),
        }
    }

    /// Descriptors in the ring.
    #[inline]
    pub fn size(&self) -> u16 {
        match self {
            Self::Split(ring) => ring.size(),
            Self::Packed(ring) => ring.size(),
        }
    }
}

/// What the driver was last told about kicks.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kicks {
    /// By somebody before us.
    Unknown,
    Wanted,
    Unwanted,
}
