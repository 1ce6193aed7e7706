//! One ring with its buffers, driven as a driver in a hurry would: one publication for a burst, no kick that is not wanted, the buffer
//! that came back last goes out first, and headers that do not change are not written again.
//!
//! A frame begins on a line of its own, its virtio-net header in the 12 bytes before, as DPDK has it.

use std::hint::black_box;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use ringway_mem::{Area, GuestMemory, LastHit};
use ringway_ring::{DriverOptions, DriverRing, RingBase, RingFeatures};
use ringway_vhost::user::RingAddresses;
use rustix::event::{EventfdFlags, eventfd};

use crate::frames::{PATTERN, word};

/// Room before a frame.
const HEADROOM: usize = 128;
/// Of a virtio-net header.
pub const HEADER: usize = 12;
const LINE: usize = 64;
/// What part of a transmit ring has to be free before sent buffers are left where they are.
const RESERVE: usize = 4;
/// Buffers taken from a receive ring at once.
const TAKEN: usize = 64;

/// How many buffers of what size.
#[derive(Clone, Copy, Debug)]
pub struct Buffers {
    pub count: usize,
    /// Bytes for a frame.
    pub room: usize,
}

impl Buffers {
    fn stride(&self) -> usize {
        // Odd in units of two lines, so that the first lines of buffers spread over the sets of a cache.
        let units = (HEADROOM + self.room).div_ceil(2 * LINE);
        (units | 1) * 2 * LINE
    }

    fn bytes(&self) -> usize {
        self.count * self.stride()
    }
}

pub struct Queue {
    pub ring: DriverRing,
    memory: Arc<GuestMemory>,
    /// All of the guest's memory.
    area: Area,
    base: u64,
    first: usize,
    stride: usize,
    buffers: Buffers,
    /// The buffer of each chain that is out, by the chain's name.
    owner: Box<[u32]>,
    free: Free,
    kick: OwnedFd,
    call: OwnedFd,
    /// Free descriptors below which the ring is looked at for what was sent.
    reserve: usize,
    pub kicks: u64,
}

/// Buffers that may be sent.
enum Free {
    /// Last in, first out: the working set stays small.
    Stack(Vec<u32>),
    /// All in turn, so that all addresses are used.
    Turn { next: u32 },
}

impl Queue {
    /// Bytes of memory for a ring with these buffers.
    pub fn bytes(size: u16, features: RingFeatures, buffers: Buffers) -> usize {
        ring_bytes(&options(size, features)) + buffers.bytes()
    }

    /// Lays it out from `at` on in `memory`, whose first byte has guest address `base`.
    pub fn new(
        memory: &Arc<GuestMemory>,
        base: u64,
        at: usize,
        size: u16,
        features: RingFeatures,
        buffers: Buffers,
        in_turn: bool,
    ) -> Result<Self> {
        let options = options(size, features);
        let total = memory.regions().next().context("no memory")?.size;
        let mut ring = DriverRing::new(memory, base + at as u64, options)?;
        ring.disable_calls();
        let count = u32::try_from(buffers.count)?;
        let free = if in_turn {
            Free::Turn { next: 0 }
        } else {
            Free::Stack((0..count).rev().collect())
        };
        Ok(Self {
            ring,
            memory: Arc::clone(memory),
            area: memory.area(base, usize::try_from(total)?, LINE)?,
            base,
            first: at + ring_bytes(&options),
            stride: buffers.stride(),
            buffers,
            owner: vec![0; usize::from(size)].into_boxed_slice(),
            free,
            kick: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
            call: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
            reserve: usize::from(size) / RESERVE,
            kicks: 0,
        })
    }

    /// What SET_VRING_ADDR says.
    pub fn addresses(&self) -> RingAddresses {
        let layout = self.ring.layout();
        RingAddresses {
            descriptors: layout.descriptors,
            available: layout.available,
            used: layout.used,
            log: 0,
            logged: false,
        }
    }

    pub fn kick_fd(&self) -> BorrowedFd<'_> {
        self.kick.as_fd()
    }

    pub fn call_fd(&self) -> BorrowedFd<'_> {
        self.call.as_fd()
    }

    /// Offset in memory where the frame of a buffer begins.
    #[inline(always)]
    fn frame_at(&self, buffer: u32) -> usize {
        self.first + buffer as usize * self.stride + HEADROOM
    }

    /// Guest address of the header of a buffer.
    #[inline(always)]
    fn header_address(&self, buffer: u32) -> u64 {
        self.base + (self.frame_at(buffer) - HEADER) as u64
    }

    /// Writes header and frame into a buffer that is not out.
    pub fn fill(&self, buffer: usize, header: &[u8; HEADER], frame: &[u8]) -> Result<()> {
        let buffer = u32::try_from(buffer)?;
        let bytes = [&header[..], frame].concat();
        let (address, len) = (self.header_address(buffer), u32::try_from(bytes.len())?);
        let place = self.memory.write(&mut LastHit::default(), address, len);
        let copied = place
            .context("a buffer outside of memory")?
            .copy_from(&bytes);
        (copied == bytes.len())
            .then_some(())
            .context("a buffer is too short")
    }

    /// Puts all buffers out, to be written by the device.
    pub fn fill_ring(&mut self) -> Result<()> {
        let len = u32::try_from(HEADER + self.buffers.room)?;
        for buffer in 0..u32::try_from(self.buffers.count)? {
            let id = self
                .ring
                .add(&[], &[(self.header_address(buffer), len)], false)?;
            self.owner[usize::from(id)] = buffer;
        }
        self.ring.publish();
        self.kick();
        Ok(())
    }

    pub fn kick(&mut self) {
        self.kicks += 1;
        // It fails only when the counter is full, and then the device has been told.
        let _ = rustix::io::write(&self.kick, &1u64.to_ne_bytes());
    }

    /// Takes back what was sent, at most `max`.
    #[inline]
    fn reclaim(&mut self, max: usize) -> Result<usize> {
        let mut count = 0;
        while count < max
            && let Some(used) = self.ring.pop_used()?
        {
            if let Free::Stack(stack) = &mut self.free {
                stack.push(self.owner[usize::from(used.id)]);
            }
            count += 1;
        }
        Ok(count)
    }

    /// All that came back. True when nothing is out any more.
    pub fn reclaim_all(&mut self) -> Result<bool> {
        self.reclaim(usize::MAX)?;
        Ok(self.ring.free() == self.ring.layout().size)
    }

    /// Sends `burst` frames of `len` bytes, or none when there is no room for all. `touch` writes a word of each line before, `stamp` the
    /// time of departure into the first frame.
    #[inline]
    pub fn send(
        &mut self,
        burst: usize,
        len: usize,
        touch: bool,
        stamp: Option<(usize, u64)>,
    ) -> Result<usize> {
        // Many at a time: lines that the device is about to write on are not asked for again and again.
        if usize::from(self.ring.free()) < self.reserve {
            self.reclaim(self.reserve)?;
            if usize::from(self.ring.free()) < burst {
                return Ok(0);
            }
        }
        self.stage(burst, len, touch, stamp)?;
        self.publish();
        Ok(burst)
    }

    /// Adds `burst` frames without telling the device.
    #[inline]
    pub fn stage(
        &mut self,
        burst: usize,
        len: usize,
        touch: bool,
        mut stamp: Option<(usize, u64)>,
    ) -> Result<()> {
        let bytes = u32::try_from(HEADER + len)?;
        for _ in 0..burst {
            let buffer = match &mut self.free {
                Free::Stack(stack) => stack.pop().context("more descriptors than buffers")?,
                Free::Turn { next } => {
                    let buffer = *next;
                    *next += 1;
                    if *next as usize == self.buffers.count {
                        *next = 0;
                    }
                    buffer
                }
            };
            let at = self.frame_at(buffer);
            if touch {
                for offset in (PATTERN..len - 7).step_by(LINE) {
                    self.area.store_u64(at + offset, word(buffer, offset));
                }
            }
            if let Some((offset, time)) = stamp.take() {
                self.area.store_u64(at + offset, time);
            }
            let header = self.header_address(buffer);
            let id = self.ring.add(&[(header, bytes)], &[], false)?;
            self.owner[usize::from(id)] = buffer;
        }
        Ok(())
    }

    #[inline]
    pub fn publish(&mut self) {
        if self.ring.publish() {
            self.kick();
        }
    }

    /// Takes at most `max` buffers that the device wrote, shows each to `look` and puts them out again.
    #[inline]
    pub fn receive(&mut self, max: usize, mut look: impl FnMut(&Piece<'_>)) -> Result<usize> {
        let len = u32::try_from(HEADER + self.buffers.room)?;
        let mut taken = [(0u32, 0u32); TAKEN];
        let mut count = 0;
        // All headers are asked for before the first one is read: their lines come from the other processor at once.
        for slot in taken.iter_mut().take(max) {
            let Some(used) = self.ring.pop_used()? else {
                break;
            };
            let buffer = self.owner[usize::from(used.id)];
            self.area.prefetch(self.frame_at(buffer) - HEADER);
            *slot = (buffer, used.len);
            count += 1;
        }
        for &(buffer, len) in &taken[..count] {
            look(&Piece {
                area: &self.area,
                memory: &self.memory,
                at: self.frame_at(buffer) - HEADER,
                address: self.header_address(buffer),
                len: len as usize,
            });
        }
        for &(buffer, _) in &taken[..count] {
            let id = self
                .ring
                .add(&[], &[(self.header_address(buffer), len)], false)?;
            self.owner[usize::from(id)] = buffer;
        }
        if count > 0 {
            self.publish();
        }
        Ok(count)
    }
}

/// What the device wrote into one buffer.
pub struct Piece<'q> {
    area: &'q Area,
    memory: &'q GuestMemory,
    at: usize,
    address: u64,
    /// Bytes, in the first buffer of a frame with the header.
    pub len: usize,
}

impl Piece<'_> {
    /// How many buffers the frame takes that begins here.
    #[inline(always)]
    pub fn buffers(&self) -> u16 {
        self.area.load_u16(self.at + 10)
    }

    /// A word of the frame that begins here.
    #[inline(always)]
    pub fn word(&self, offset: usize) -> u64 {
        self.area.load_u64(self.at + HEADER + offset)
    }

    /// Reads a word of every line.
    #[inline]
    pub fn touch(&self) {
        let mut sum = 0u64;
        // The frame begins on a line, whatever the header's end shares one with.
        for offset in (HEADER..self.len).step_by(LINE) {
            sum = sum.wrapping_add(u64::from(self.area.load_u32(self.at + offset)));
        }
        black_box(sum);
    }

    /// Appends the bytes.
    pub fn read(&self, out: &mut Vec<u8>) -> Result<()> {
        let start = out.len();
        out.resize(start + self.len, 0);
        let len = u32::try_from(self.len)?;
        let place = self.memory.read(&mut LastHit::default(), self.address, len);
        let copied = place
            .context("outside of memory")?
            .copy_to(&mut out[start..]);
        if copied != self.len {
            bail!("{copied} of {} bytes could be read", self.len);
        }
        Ok(())
    }
}

fn options(size: u16, features: RingFeatures) -> DriverOptions {
    DriverOptions {
        size,
        features,
        base: RingBase::start(features.packed),
        table: 0,
    }
}

fn ring_bytes(options: &DriverOptions) -> usize {
    DriverRing::bytes(options).next_multiple_of(4096)
}
