//! One ring with its buffers, driven as a driver in a hurry would: one publication for a burst, no kick that is not wanted, and headers
//! that do not change are not written again. Buffers are used in turn.
//!
//! A frame begins on a line of its own, its virtio-net header in the 12 bytes before, as DPDK has it.

use std::hint::black_box;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use ringway_mem::{Area, GuestMemory, LastHit};
use ringway_ring::RingFeatures;
use ringway_vhost::user::RingAddresses;
use rustix::event::{EventfdFlags, eventfd};

use super::frames::{PATTERN, word};
use super::ring::{Ring, Shape, Used};

/// Room before a frame.
const HEADROOM: usize = 128;
/// Of a virtio-net header.
pub const HEADER: usize = 12;
const LINE: usize = 64;
/// What part of a transmit ring has to have come back before it is looked at: lines that the device is about to write on are not asked
/// for again and again.
const RECLAIM: u16 = 4;
/// Buffers taken from a receive ring at once.
const TAKEN: usize = 256;

/// How many buffers of what size.
#[derive(Clone, Copy, Debug)]
pub struct Buffers {
    /// At least as many as the ring has descriptors.
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

/// What a queue is made of.
#[derive(Clone, Copy, Debug)]
pub struct Outfit {
    /// Descriptors of the ring.
    pub size: u16,
    /// What was negotiated of it.
    pub features: RingFeatures,
    /// What lies behind the descriptors.
    pub buffers: Buffers,
    /// Whether it receives.
    pub receives: bool,
}

impl Outfit {
    fn shape(&self) -> Shape {
        Shape {
            size: self.size,
            packed: self.features.packed,
            in_order: self.features.in_order,
            writable: self.receives,
        }
    }

    /// Bytes of memory.
    pub fn bytes(&self) -> usize {
        self.shape().bytes() + self.buffers.bytes()
    }
}

/// A ring with its buffers.
pub struct Queue {
    ring: Ring,
    memory: Arc<GuestMemory>,
    /// All of the guest's memory.
    area: Area,
    base: u64,
    /// Guest address of the ring.
    address: u64,
    first: usize,
    stride: usize,
    buffers: Buffers,
    /// The buffer that is sent next.
    turn: u32,
    /// What a call of [`receive`](Self::receive) took.
    taken: Box<[Used; TAKEN]>,
    kick: OwnedFd,
    call: OwnedFd,
    /// Descriptors that come back at once.
    reclaimed: u16,
    /// How often the device was kicked.
    pub kicks: u64,
}

impl Queue {
    /// Lays it out from `at` on in `memory`, whose first byte has guest address `base`.
    pub fn new(memory: &Arc<GuestMemory>, base: u64, at: usize, outfit: &Outfit) -> Result<Self> {
        let total = memory.regions().next().context("no memory")?.size;
        let (buffers, shape) = (outfit.buffers, outfit.shape());
        if buffers.count < usize::from(outfit.size) {
            bail!("a ring of {} with {} buffers", outfit.size, buffers.count);
        }
        let address = base + at as u64;
        Ok(Self {
            ring: Ring::new(memory, address, shape)?,
            memory: Arc::clone(memory),
            area: memory.area(base, usize::try_from(total)?, LINE)?,
            base,
            address,
            first: at + shape.bytes(),
            stride: buffers.stride(),
            buffers,
            turn: 0,
            taken: Box::new([Used::default(); TAKEN]),
            kick: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
            call: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
            reclaimed: outfit.size / RECLAIM,
            kicks: 0,
        })
    }

    /// What SET_VRING_ADDR says.
    pub fn addresses(&self) -> RingAddresses {
        let layout = self.ring.layout(self.address);
        RingAddresses {
            descriptors: layout.descriptors,
            available: layout.available,
            used: layout.used,
            log: 0,
            logged: false,
        }
    }

    /// What the device waits on.
    pub fn kick_fd(&self) -> BorrowedFd<'_> {
        self.kick.as_fd()
    }

    /// What the device calls by; nobody waits on it.
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
        while self.ring.free() > 0 {
            let buffer = u32::from(self.ring.next_id());
            self.ring.stage(self.header_address(buffer), len);
        }
        self.ring.publish();
        self.kick();
        Ok(())
    }

    /// Kicks the device, wanted or not.
    pub fn kick(&mut self) {
        self.kicks += 1;
        // It fails only when the counter is full, and then the device has been told.
        let _ = rustix::io::write(&self.kick, &1u64.to_ne_bytes());
    }

    /// All that came back. True when nothing is out any more.
    pub fn reclaim_all(&mut self) -> Result<bool> {
        self.ring.take(usize::MAX, |_, _| ())?;
        Ok(self.ring.free() == usize::from(self.ring.layout(self.address).size))
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
        if self.ring.free() < burst {
            if self.ring.has(self.reclaimed) {
                self.ring.take(usize::MAX, |_, _| ())?;
            }
            if self.ring.free() < burst {
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
        if self.ring.free() < burst {
            bail!("{burst} frames for {} descriptors", self.ring.free());
        }
        for _ in 0..burst {
            let buffer = self.turn;
            self.turn += 1;
            if self.turn as usize == self.buffers.count {
                self.turn = 0;
            }
            let at = self.frame_at(buffer);
            if touch {
                for offset in (PATTERN..len - 7).step_by(LINE) {
                    self.area.store_u64(at + offset, word(buffer, offset));
                }
            }
            if let Some((offset, time)) = stamp.take() {
                self.area.store_u64(at + offset, time);
            }
            self.ring.stage(self.header_address(buffer), bytes);
        }
        Ok(())
    }

    /// Shows the device what was staged, and kicks it if it wants that.
    #[inline]
    pub fn publish(&mut self) {
        if self.ring.publish() {
            self.kick();
        }
    }

    /// Takes at most `max` buffers that the device wrote, shows each to `look` and puts them out again.
    #[inline]
    pub fn receive(&mut self, max: usize, mut look: impl FnMut(&Piece<'_>)) -> Result<usize> {
        let (area, taken) = (&self.area, &mut self.taken);
        let (first, stride) = (self.first + HEADROOM - HEADER, self.stride);
        // All headers are asked for before the first one is read: their lines come from the other processor at once.
        let count = self.ring.take(max.min(TAKEN), |turn, used| {
            area.prefetch(first + usize::from(used.id) * stride);
            taken[turn] = used;
        })?;
        if count == 0 {
            return Ok(0);
        }
        for used in &self.taken[..count] {
            let at = first + usize::from(used.id) * stride;
            look(&Piece {
                area: &self.area,
                memory: &self.memory,
                at,
                address: self.base + at as u64,
                len: used.len as usize,
            });
        }
        let len = u32::try_from(HEADER + self.buffers.room)?;
        for _ in 0..count {
            let buffer = u32::from(self.ring.next_id());
            self.ring.stage(self.header_address(buffer), len);
        }
        self.publish();
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
