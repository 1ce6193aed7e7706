//! The three parts of a split ring in memory (virtio 1.2, 2.7.5, 2.7.6, 2.7.8), as both sides see them.

use std::sync::Arc;

use ringway_mem::GuestMemory;

use crate::descriptor::BYTES;
use crate::error::RingError;
use crate::layout::{MAX_SIZE, RingLayout};
use crate::shared::{Area, area};

/// Available: ask for no calls. Used: ask for no kicks. Both are bit 0 of the flags.
pub(crate) const NO_EVENT: u16 = 1;

const FLAGS: usize = 0;
pub(super) const INDEX: usize = 2;
pub(super) const RING: usize = 4;
/// Bytes of flags, index and event index.
const FRAME: usize = 6;
const AVAILABLE_BYTES: usize = 2;
pub(super) const USED_BYTES: usize = 8;

/// The memory of a split ring. Every index is taken modulo the ring's size, so none can leave the parts.
pub(crate) struct Areas {
    descriptors: Area,
    available: Area,
    used: Area,
    mask: u16,
}

/// Bytes of descriptor table, available ring and used ring.
pub(crate) const fn split_lengths(size: u16) -> [usize; 3] {
    let size = size as usize;
    [
        size * BYTES,
        FRAME + size * AVAILABLE_BYTES,
        FRAME + size * USED_BYTES,
    ]
}

impl Areas {
    pub(crate) fn new(memory: &Arc<GuestMemory>, layout: &RingLayout) -> Result<Self, RingError> {
        let size = layout.size;
        if !size.is_power_of_two() || size > MAX_SIZE {
            return Err(RingError::Size { size });
        }
        let area = |part, address, len, align| {
            let area = area(memory, address, len, align);
            area.map_err(|source| RingError::Area { part, size, source })
        };
        let [descriptors, available, used] = split_lengths(size);
        Ok(Self {
            descriptors: area("descriptor table", layout.descriptors, descriptors, 16)?,
            available: area("available ring", layout.available, available, 2)?,
            used: area("used ring", layout.used, used, 4)?,
            mask: size - 1,
        })
    }

    #[inline(always)]
    pub(crate) fn size(&self) -> u16 {
        self.mask + 1
    }

    #[inline(always)]
    pub(crate) fn memory(&self) -> &Arc<GuestMemory> {
        self.descriptors.memory()
    }

    #[inline(always)]
    fn descriptor_at(&self, index: u16) -> usize {
        usize::from(index & self.mask) * BYTES
    }

    #[inline(always)]
    fn available_at(&self, index: u16) -> usize {
        RING + usize::from(index & self.mask) * AVAILABLE_BYTES
    }

    #[inline(always)]
    fn used_at(&self, index: u16) -> usize {
        RING + usize::from(index & self.mask) * USED_BYTES
    }

    #[inline(always)]
    pub(crate) fn descriptor(&self, index: u16) -> [u64; 2] {
        self.descriptors.load_desc(self.descriptor_at(index))
    }

    #[inline(always)]
    pub(crate) fn prefetch_descriptor(&self, index: u16) {
        self.descriptors.prefetch(self.descriptor_at(index));
    }

    pub(crate) fn set_descriptor(&self, index: u16, words: [u64; 2]) {
        let at = self.descriptor_at(index);
        self.descriptors.store_u64(at, words[0]);
        self.descriptors.store_u64(at + 8, words[1]);
    }

    /// The available index: everything that the driver wrote before it is seen.
    #[inline(always)]
    pub(crate) fn available_index(&self) -> u16 {
        self.available.load_acquire_u16(INDEX)
    }

    /// Makes everything that was written before it visible to the device.
    #[inline(always)]
    pub(crate) fn set_available_index(&self, index: u16) {
        self.available.store_release_u16(INDEX, index);
    }

    #[inline(always)]
    pub(crate) fn head(&self, index: u16) -> u16 {
        self.available.load_u16(self.available_at(index))
    }

    #[inline(always)]
    pub(crate) fn set_head(&self, index: u16, head: u16) {
        self.available.store_u16(self.available_at(index), head);
    }

    #[inline(always)]
    pub(crate) fn available_flags(&self) -> u16 {
        self.available.load_u16(FLAGS)
    }

    pub(crate) fn set_available_flags(&self, flags: u16) {
        self.available.store_u16(FLAGS, flags);
    }

    /// Where the driver wants to be called (virtio 1.2, 2.7.7).
    #[inline(always)]
    pub(crate) fn used_event(&self) -> u16 {
        let at = RING + usize::from(self.size()) * AVAILABLE_BYTES;
        self.available.load_u16(at)
    }

    pub(crate) fn set_used_event(&self, index: u16) {
        let at = RING + usize::from(self.size()) * AVAILABLE_BYTES;
        self.available.store_u16(at, index);
    }

    /// The used index: everything that the device wrote before it is seen.
    #[inline(always)]
    pub(crate) fn used_index(&self) -> u16 {
        self.used.load_acquire_u16(INDEX)
    }

    /// Makes everything that was written before it visible to the driver.
    #[inline(always)]
    pub(crate) fn set_used_index(&self, index: u16) {
        self.used.store_release_u16(INDEX, index);
    }

    /// Id and length.
    #[inline(always)]
    pub(crate) fn used_element(&self, index: u16) -> (u32, u32) {
        let at = self.used_at(index);
        (self.used.load_u32(at), self.used.load_u32(at + 4))
    }

    #[inline(always)]
    pub(crate) fn set_used_element(&self, index: u16, id: u16, len: u32) {
        let at = self.used_at(index);
        self.used.store_pair_u32(at, u32::from(id), len);
    }

    #[inline(always)]
    pub(crate) fn used_flags(&self) -> u16 {
        self.used.load_u16(FLAGS)
    }

    pub(crate) fn set_used_flags(&self, flags: u16) {
        self.used.store_u16(FLAGS, flags);
    }

    /// Where the device wants to be kicked (virtio 1.2, 2.7.9).
    #[inline(always)]
    pub(crate) fn available_event(&self) -> u16 {
        let at = RING + usize::from(self.size()) * USED_BYTES;
        self.used.load_u16(at)
    }

    pub(crate) fn set_available_event(&self, index: u16) {
        let at = RING + usize::from(self.size()) * USED_BYTES;
        self.used.store_u16(at, index);
    }
}
