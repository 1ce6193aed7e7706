//! The packed format (virtio 1.2, 2.8).

use anyhow::{Result, bail};
use ringway_mem::fence;

use super::{Common, DESCRIPTOR, Used, WRITE};

const AVAIL: u16 = 1 << 7;
const USED: u16 = 1 << 15;
/// What a side asks for in its event suppression: nothing.
const DISABLE: u32 = 1 << 16;

pub struct Packed {
    pub(super) common: Common,
    device: usize,
    /// The second word of the first descriptor that is not published: written last.
    withheld: u64,
}

impl Packed {
    pub(super) fn new(common: Common) -> Self {
        let [_, driver, device, end] = common.shape.parts();
        for at in (0..end).step_by(8) {
            common.area.store_u64(at, 0);
        }
        common.area.store_u32(driver, DISABLE);
        Self {
            common,
            device,
            withheld: 0,
        }
    }

    #[inline(always)]
    pub(super) fn stage(&mut self, address: u64, len: u32) {
        let common = &mut self.common;
        let slot = common.next & common.mask();
        let id = common.ids[usize::from(slot)];
        let owner = if common.wrap(common.next) {
            AVAIL
        } else {
            USED
        };
        let write = if common.shape.writable { WRITE } else { 0 };
        let second = u64::from(len) | u64::from(id) << 32 | u64::from(owner | write) << 48;
        let at = usize::from(slot) * DESCRIPTOR;
        common.area.store_u64(at, address);
        if common.next == common.published {
            self.withheld = second;
        } else {
            common.area.store_u64(at + 8, second);
        }
        common.next = common.next.wrapping_add(1);
    }

    #[inline(always)]
    pub(super) fn publish(&mut self) -> bool {
        let common = &mut self.common;
        if common.published == common.next {
            return false;
        }
        let slot = usize::from(common.published & common.mask());
        let at = slot * DESCRIPTOR + 8;
        common.area.store_release_u64(at, self.withheld);
        common.published = common.next;
        // The device stores what it wants and then looks at the descriptor; we do the reverse.
        fence();
        common.area.load_u32(self.device) >> 16 & 3 != DISABLE >> 16
    }

    /// Length, id and flags of the descriptor that comes back as `count`.
    #[inline(always)]
    fn second(&self, count: u16) -> Option<u64> {
        let at = usize::from(count & self.common.mask()) * DESCRIPTOR;
        let [_, second] = self.common.area.load_desc_acquire(at);
        let owner = (second >> 48) as u16 & (AVAIL | USED);
        let wanted = if self.common.wrap(count) {
            AVAIL | USED
        } else {
            0
        };
        (owner == wanted).then_some(second)
    }

    /// In order, a device writes only where a batch begins: then this says no.
    #[inline(always)]
    pub(super) fn has(&self, count: u16) -> bool {
        self.second(self.common.used.wrapping_add(count - 1))
            .is_some()
    }

    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "picks fields of a word")]
    pub(super) fn take(&mut self, max: usize, mut each: impl FnMut(usize, Used)) -> Result<usize> {
        let mut count = 0;
        while count < max && self.common.used != self.common.published {
            let Some(second) = self.second(self.common.used) else {
                break;
            };
            let (id, len) = ((second >> 32) as u16, second as u32);
            if self.common.shape.in_order {
                // All up to this one came back (virtio 1.2, 2.8.9); ids are in order, as buffers are.
                let skipped = id.wrapping_sub(self.common.oldest()) & self.common.mask();
                if skipped > 0 && self.common.shape.writable {
                    bail!("buffer {id} came back before its turn");
                }
                if skipped >= self.common.out() {
                    bail!("buffer {id} came back, which is not out");
                }
                self.common.used = self.common.used.wrapping_add(skipped);
                count += usize::from(skipped);
            }
            let id = self.common.give_back(id.into())?;
            each(count, Used { id, len });
            count += 1;
        }
        Ok(count)
    }
}

impl Common {
    /// The wrap counter in the lap of a count: set on the first.
    #[inline(always)]
    fn wrap(&self, count: u16) -> bool {
        count & self.shape.size == 0
    }
}
