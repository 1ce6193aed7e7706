//! A ring of which every word is ours to write.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use ringway_mem::GuestMemory;
use ringway_ring::RingBase;
use ringway_vhost::user::RingAddresses;

use super::{
    AVAILABLE, INDIRECT, Outfit, PATIENCE, SIZE, TABLE, USED, USER, event, readable, write,
};

/// A descriptor: address, length, flags, and the next one (split) or the buffer id (packed).
pub type Descriptor = (u64, u32, u16, u16);

/// A ring of which every word is ours to write.
pub struct Ring {
    memory: Arc<GuestMemory>,
    at: u64,
    /// The format.
    pub packed: bool,
    /// The position that the device looks at next.
    pub next: u16,
    /// Packed: the wrap counter there.
    pub wrap: bool,
    /// Our kicks.
    pub kick: OwnedFd,
    /// The device's calls.
    pub call: OwnedFd,
}

/// Offsets of the parts.
const DRIVER: u64 = 0x1000;
const DEVICE: u64 = 0x2000;

impl Ring {
    pub(super) fn new(memory: &Arc<GuestMemory>, at: u64, outfit: &Outfit) -> Result<Self> {
        let packed = outfit.packed;
        let ring = Self {
            memory: memory.clone(),
            at,
            packed,
            next: if packed {
                outfit.start % SIZE
            } else {
                outfit.start
            },
            // The lap does not matter, but has to be one.
            wrap: outfit.start & SIZE == 0,
            kick: event()?,
            call: event()?,
        };
        if packed {
            // As after the lap before: used, so not available.
            for place in 0..SIZE {
                let before = ring.wrap ^ (place < ring.next);
                let flags = if before { 0 } else { AVAILABLE | USED };
                ring.put(place, (0, 0, flags, 0))?;
            }
        } else {
            ring.publish(ring.next)?;
            write(memory, at + DEVICE + 2, &ring.next.to_le_bytes())?;
        }
        Ok(ring)
    }

    pub(super) fn base(&self) -> u32 {
        if self.packed {
            RingBase::packed(self.next, self.wrap).to_vhost()
        } else {
            RingBase::split(self.next).to_vhost()
        }
    }

    /// As SET_VRING_ADDR has them.
    pub fn addresses(&self) -> RingAddresses {
        RingAddresses {
            descriptors: USER + self.at,
            available: USER + self.at + DRIVER,
            used: USER + self.at + DEVICE,
            log: 0,
            logged: false,
        }
    }

    /// Guest addresses of the descriptors, of what the driver writes, and of what the device writes.
    pub fn parts(&self) -> [u64; 3] {
        [self.at, self.at + DRIVER, self.at + DEVICE]
    }

    /// Writes descriptor `index` as it stands in memory. Packed: the flags last and by one store, since the device may answer at once.
    pub fn put(&self, index: u16, descriptor: Descriptor) -> Result<()> {
        let at = self.at + u64::from(index) * 16;
        let bytes = encode(self.packed, descriptor);
        if !self.packed {
            return write(&self.memory, at, &bytes);
        }
        write(&self.memory, at, &bytes[..14])?;
        let area = self.memory.area(USER + at, 16, 16)?;
        area.store_release_u16(14, descriptor.2);
        Ok(())
    }

    /// Split: writes the available ring's element at the next position.
    pub fn set_head(&self, head: u16) -> Result<()> {
        let at = self.at + DRIVER + 4 + 2 * u64::from(self.next % SIZE);
        write(&self.memory, at, &head.to_le_bytes())
    }

    /// Split: writes the available index.
    pub fn publish(&self, index: u16) -> Result<()> {
        write(&self.memory, self.at + DRIVER + 2, &index.to_le_bytes())
    }

    /// Flags by which a packed descriptor `ahead` places from here is available.
    pub fn owned(&self, ahead: u16) -> u16 {
        if self.wrap ^ (self.next + ahead >= SIZE) {
            AVAILABLE
        } else {
            USED
        }
    }

    /// Makes one chain available and kicks: descriptors from 0 on (split), or from the next place on (packed).
    pub fn offer(&mut self, chain: &[Descriptor]) -> Result<()> {
        let count = u16::try_from(chain.len())?;
        if self.packed {
            // The first one last: it makes the chain available.
            for (ahead, &(address, len, flags, id)) in (0..count).zip(chain).rev() {
                let flags = flags | self.owned(ahead);
                self.put((self.next + ahead) % SIZE, (address, len, flags, id))?;
            }
        } else {
            for (index, &descriptor) in (0..count).zip(chain) {
                self.put(index, descriptor)?;
            }
            self.set_head(0)?;
            self.publish(self.next.wrapping_add(1))?;
        }
        self.kick()
    }

    /// The chain of `slots` descriptors that was offered has come back: what the device wrote, once it did.
    pub fn await_used(&mut self, slots: u16) -> Result<u32> {
        let deadline = Instant::now() + PATIENCE;
        while !self.is_used()? {
            let left = deadline.saturating_duration_since(Instant::now());
            if !readable(&self.call, left)? {
                bail!("the chain did not come back");
            }
            rustix::io::read(&self.call, &mut [0; 8])?;
        }
        let len = if self.packed {
            let at = self.at + u64::from(self.next) * 16 + 8;
            self.word(at, 4)?
        } else {
            let at = self.at + DEVICE + 4 + 8 * u64::from(self.next % SIZE) + 4;
            self.word(at, 4)?
        };
        self.advance(slots);
        Ok(len)
    }

    /// Passes over a chain without looking whether it came back.
    pub fn advance(&mut self, slots: u16) {
        if !self.packed {
            self.next = self.next.wrapping_add(1);
            return;
        }
        self.next += slots;
        if self.next >= SIZE {
            self.next -= SIZE;
            self.wrap = !self.wrap;
        }
    }

    fn is_used(&self) -> Result<bool> {
        if self.packed {
            let flags = self.word(self.at + u64::from(self.next) * 16 + 14, 2)?;
            let both = u32::from(AVAILABLE | USED);
            return Ok(flags & both == if self.wrap { both } else { 0 });
        }
        let index = self.word(self.at + DEVICE + 2, 2)?;
        Ok(index == u32::from(self.next.wrapping_add(1)))
    }

    fn word(&self, at: u64, len: usize) -> Result<u32> {
        let mut bytes = [0; 4];
        let slice = self.memory.read_prefix(at, u32::try_from(len)?);
        slice.context("no ring")?.copy_to(&mut bytes[..len]);
        Ok(u32::from_le_bytes(bytes))
    }

    /// Kicks.
    pub fn kick(&self) -> Result<()> {
        match rustix::io::write(&self.kick, &1u64.to_ne_bytes()) {
            Ok(_) | Err(rustix::io::Errno::AGAIN) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Writes bytes to the guest's memory.
    pub fn write(&self, address: u64, bytes: &[u8]) -> Result<()> {
        write(&self.memory, address, bytes)
    }

    /// Writes an indirect table to [`TABLE`]; the descriptor for it.
    pub fn table(&self, entries: &[Descriptor]) -> Result<Descriptor> {
        let bytes: Vec<u8> = entries
            .iter()
            .flat_map(|&entry| encode(self.packed, entry))
            .collect();
        write(&self.memory, TABLE, &bytes)?;
        Ok((TABLE, u32::try_from(bytes.len())?, INDIRECT, 0))
    }
}

fn encode(packed: bool, (address, len, flags, tag): Descriptor) -> [u8; 16] {
    let (first, second) = if packed { (tag, flags) } else { (flags, tag) };
    let rest = u64::from(len) | u64::from(first) << 32 | u64::from(second) << 48;
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&address.to_le_bytes());
    bytes[8..].copy_from_slice(&rest.to_le_bytes());
    bytes
}
