//! The split format (virtio 1.2, 2.7).

use anyhow::{Result, bail};
use ringway_mem::fence;

use super::{Common, DESCRIPTOR, Used, WRITE};

/// In the flags of a part: no events, please.
const NO_EVENT: u16 = 1;
const FLAGS: usize = 0;
const INDEX: usize = 2;
const ENTRIES: usize = 4;

pub struct Split {
    pub(super) common: Common,
    driver: usize,
    device: usize,
    /// Of each descriptor.
    flags: u64,
}

impl Split {
    pub(super) fn new(common: Common) -> Self {
        let [_, driver, device, end] = common.shape.parts();
        for at in (0..end).step_by(8) {
            common.area.store_u64(at, 0);
        }
        common.area.store_u16(driver + FLAGS, NO_EVENT);
        let flags = if common.shape.writable { WRITE } else { 0 };
        Self {
            flags: u64::from(flags) << 32,
            common,
            driver,
            device,
        }
    }

    #[inline(always)]
    pub(super) fn stage(&mut self, address: u64, len: u32) {
        let common = &mut self.common;
        let slot = usize::from(common.next & common.mask());
        let id = common.ids[slot];
        let at = usize::from(id) * DESCRIPTOR;
        common.area.store_u64(at, address);
        common.area.store_u64(at + 8, u64::from(len) | self.flags);
        common.area.store_u16(self.driver + ENTRIES + 2 * slot, id);
        common.next = common.next.wrapping_add(1);
    }

    #[inline(always)]
    pub(super) fn publish(&mut self) -> bool {
        let common = &mut self.common;
        if common.published == common.next {
            return false;
        }
        common.published = common.next;
        common
            .area
            .store_release_u16(self.driver + INDEX, common.next);
        // The device stores what it wants and then looks at the index; we do the reverse.
        fence();
        common.area.load_u16(self.device + FLAGS) & NO_EVENT == 0
    }

    /// How many came back.
    #[inline(always)]
    fn ready(&self) -> u16 {
        let index = self.common.area.load_acquire_u16(self.device + INDEX);
        index.wrapping_sub(self.common.used)
    }

    #[inline(always)]
    pub(super) fn has(&self, count: u16) -> bool {
        self.ready() >= count
    }

    #[inline(always)]
    pub(super) fn take(&mut self, max: usize, mut each: impl FnMut(usize, Used)) -> Result<usize> {
        let ready = usize::from(self.ready());
        let common = &mut self.common;
        if ready > usize::from(common.published.wrapping_sub(common.used)) {
            bail!("{ready} buffers came back, more than there are");
        }
        let count = ready.min(max);
        if common.shape.in_order && !common.shape.writable {
            // The index says it all, and the elements need not be there.
            common.used = common.used.wrapping_add(u16::try_from(count)?);
            return Ok(count);
        }
        for turn in 0..count {
            let slot = usize::from(common.used & common.mask());
            let element = self.device + ENTRIES + 8 * slot;
            let id = common.area.load_u32(element);
            let len = common.area.load_u32(element + 4);
            if common.shape.in_order && id != u32::from(common.oldest()) {
                bail!("buffer {id} came back before its turn");
            }
            let id = common.give_back(id)?;
            each(turn, Used { id, len });
        }
        Ok(count)
    }
}
