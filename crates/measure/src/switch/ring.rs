//! A ring as a driver in a hurry works on it: each chain is one descriptor, whole bursts are written and read, and ids are used in turn.
//!
//! `ringway-ring`'s own driver side takes any chain and believes nothing that comes back. This one is for measuring: what it costs
//! must not hide what the switch costs. Words still go through [`Area`], so nothing that a device writes leads outside of the ring.
//!
//! One array serves as the list of free ids and as the account of those that are out: an id is taken where `next` points to and comes
//! back where `used` points to, and between the two lies what the device has.

mod packed;
mod split;

use std::sync::Arc;

use anyhow::{Context, Result, bail};
use ringway_mem::{Area, GuestMemory};
use ringway_ring::RingLayout;

use self::packed::Packed;
use self::split::Split;

/// Bytes of a descriptor.
const DESCRIPTOR: usize = 16;
/// The device writes into the buffer.
const WRITE: u16 = 2;
/// Parts of a ring lie so far apart that no processor fetches one along with another.
const PART: usize = 4096;

/// A buffer that came back.
#[derive(Clone, Copy, Debug, Default)]
pub struct Used {
    /// What [`Ring::next_id`] was when it went out.
    pub id: u16,
    /// Bytes that the device wrote.
    pub len: u32,
}

/// A ring of either format.
pub enum Ring {
    /// The split virtqueue.
    Split(Split),
    /// The packed virtqueue.
    Packed(Packed),
}

/// How a ring is made.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Descriptors, a power of two.
    pub size: u16,
    /// Its format.
    pub packed: bool,
    /// Whether buffers come back in order.
    pub in_order: bool,
    /// Whether the device writes into the buffers.
    pub writable: bool,
}

impl Shape {
    /// Bytes of guest memory.
    pub fn bytes(&self) -> usize {
        self.parts()[3]
    }

    /// Offsets of descriptors, driver's part and device's part, and the end.
    fn parts(&self) -> [usize; 4] {
        let size = usize::from(self.size);
        let [driver, device] = if self.packed {
            [4, 4]
        } else {
            [6 + 2 * size, 6 + 8 * size]
        };
        let driver_at = (DESCRIPTOR * size).next_multiple_of(PART);
        let device_at = (driver_at + driver).next_multiple_of(PART);
        [
            0,
            driver_at,
            device_at,
            (device_at + device).next_multiple_of(PART),
        ]
    }
}

impl Ring {
    /// Lays it out from `address` on, which is the guest's and the front-end's at once. Calls are not wanted.
    pub fn new(memory: &Arc<GuestMemory>, address: u64, shape: Shape) -> Result<Self> {
        if !shape.size.is_power_of_two() {
            bail!("a ring of {} descriptors", shape.size);
        }
        let common = Common {
            area: memory.area(address, shape.bytes(), PART)?,
            ids: (0..shape.size).collect(),
            shape,
            next: 0,
            published: 0,
            used: 0,
        };
        Ok(if shape.packed {
            Self::Packed(Packed::new(common))
        } else {
            Self::Split(Split::new(common))
        })
    }

    fn common(&self) -> &Common {
        match self {
            Self::Split(ring) => &ring.common,
            Self::Packed(ring) => &ring.common,
        }
    }

    /// Where it is, given the address it was made with.
    pub fn layout(&self, address: u64) -> RingLayout {
        let shape = self.common().shape;
        let [descriptors, driver, device, _] = shape.parts().map(|at| address + at as u64);
        RingLayout {
            size: shape.size,
            descriptors,
            available: driver,
            used: device,
        }
    }

    /// Free descriptors.
    #[inline(always)]
    pub fn free(&self) -> usize {
        let common = self.common();
        usize::from(common.shape.size) - usize::from(common.out())
    }

    /// The id of the buffer that is staged next.
    #[inline(always)]
    pub fn next_id(&self) -> u16 {
        let common = self.common();
        common.ids[usize::from(common.next & common.mask())]
    }

    /// Adds a buffer that the device does not see yet. There has to be a free descriptor.
    #[inline(always)]
    pub fn stage(&mut self, address: u64, len: u32) {
        match self {
            Self::Split(ring) => ring.stage(address, len),
            Self::Packed(ring) => ring.stage(address, len),
        }
    }

    /// Shows what was staged. True when the device wants a kick for it.
    #[inline(always)]
    pub fn publish(&mut self) -> bool {
        match self {
            Self::Split(ring) => ring.publish(),
            Self::Packed(ring) => ring.publish(),
        }
    }

    /// Whether so many have come back; may say no where only taking them tells.
    #[inline(always)]
    pub fn has(&self, count: u16) -> bool {
        match self {
            Self::Split(ring) => ring.has(count),
            Self::Packed(ring) => ring.has(count),
        }
    }

    /// Shows at most `max` that came back to `each`, in their order, and returns how many.
    #[inline(always)]
    pub fn take(&mut self, max: usize, each: impl FnMut(usize, Used)) -> Result<usize> {
        match self {
            Self::Split(ring) => ring.take(max, each),
            Self::Packed(ring) => ring.take(max, each),
        }
    }
}

struct Common {
    /// All parts.
    area: Area,
    shape: Shape,
    ids: Box<[u16]>,
    /// Free-running counts of what was staged, of that what the device may see, and of what came back.
    next: u16,
    published: u16,
    used: u16,
}

impl Common {
    #[inline(always)]
    fn mask(&self) -> u16 {
        self.shape.size - 1
    }

    #[inline(always)]
    fn out(&self) -> u16 {
        self.next.wrapping_sub(self.used)
    }

    /// Takes an id back.
    #[inline(always)]
    fn give_back(&mut self, id: u32) -> Result<u16> {
        let id = u16::try_from(id).ok().filter(|&id| id < self.shape.size);
        let id = id.context("the device returned a buffer that there is not")?;
        let mask = self.mask();
        self.ids[usize::from(self.used & mask)] = id;
        self.used = self.used.wrapping_add(1);
        Ok(id)
    }

    /// The id that comes back next where all come back in order.
    #[inline(always)]
    fn oldest(&self) -> u16 {
        self.ids[usize::from(self.used & self.mask())]
    }
}

#[cfg(test)]
mod tests;
