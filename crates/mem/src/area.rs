//! Ring memory: words that a guest and we share.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{self, AtomicU16, AtomicU64, Ordering};

use crate::{GuestMemory, copy};

/// Bytes of a ring, read and written by words in the guest's little-endian order. Offsets are our own arithmetic, never a guest's
/// number: one that is outside or not aligned to its word panics. The handle keeps the memory mapped.
#[derive(Clone)]
pub struct Area {
    start: *mut u8,
    len: usize,
    memory: Arc<GuestMemory>,
}

// SAFETY: the pointer names memory that `memory` keeps mapped; every access bears concurrent parties.
unsafe impl Send for Area {}
// SAFETY: as for `Send`.
unsafe impl Sync for Area {}

impl Area {
    /// # Safety
    ///
    /// `len` bytes from `start` must be inside one region of `memory`.
    pub(crate) unsafe fn new(start: *mut u8, len: usize, memory: Arc<GuestMemory>) -> Self {
        Self { start, len, memory }
    }

    /// Length in bytes.
    #[inline]
    pub fn len(&self) -> usize {
        self.len
    }

    /// True when there are no bytes.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The memory the area lies in.
    #[inline]
    pub fn memory(&self) -> &Arc<GuestMemory> {
        &self.memory
    }

    /// Where the guest has the first byte; `None` only for an area of no bytes.
    pub fn guest_address(&self) -> Option<u64> {
        self.memory.guest_address_of(self.start)
    }

    /// Reads a word.
    #[inline(always)]
    pub fn load_u16(&self, offset: usize) -> u16 {
        // SAFETY: `at` saw to 2 aligned bytes inside the area.
        u16::from_le(unsafe { self.at::<2, 2>(offset).cast::<u16>().read_volatile() })
    }

    /// Reads a word.
    #[inline(always)]
    pub fn load_u32(&self, offset: usize) -> u32 {
        // SAFETY: `at` saw to 4 aligned bytes inside the area.
        u32::from_le(unsafe { self.at::<4, 4>(offset).cast::<u32>().read_volatile() })
    }

    /// Reads a word.
    #[inline(always)]
    pub fn load_u64(&self, offset: usize) -> u64 {
        // SAFETY: `at` saw to 8 aligned bytes inside the area.
        u64::from_le(unsafe { self.at::<8, 8>(offset).cast::<u64>().read_volatile() })
    }

    /// Writes a word.
    #[inline(always)]
    pub fn store_u16(&self, offset: usize, value: u16) {
        let at = self.at::<2, 2>(offset).cast::<u16>();
        // SAFETY: `at` saw to 2 aligned bytes inside the area.
        unsafe { at.write_volatile(value.to_le()) };
    }

    /// Writes a word.
    #[inline(always)]
    pub fn store_u32(&self, offset: usize, value: u32) {
        let at = self.at::<4, 4>(offset).cast::<u32>();
        // SAFETY: `at` saw to 4 aligned bytes inside the area.
        unsafe { at.write_volatile(value.to_le()) };
    }

    /// Writes a word.
    #[inline(always)]
    pub fn store_u64(&self, offset: usize, value: u64) {
        let at = self.at::<8, 8>(offset).cast::<u64>();
        // SAFETY: `at` saw to 8 aligned bytes inside the area.
        unsafe { at.write_volatile(value.to_le()) };
    }

    /// Reads an index or flags that say what else is there to be read: later loads see at least what the guest stored before it.
    #[inline(always)]
    pub fn load_acquire_u16(&self, offset: usize) -> u16 {
        // SAFETY: `at` saw to 2 aligned bytes inside the area, mapped while `self` lives; no reference covers them.
        let word = unsafe { AtomicU16::from_ptr(self.at::<2, 2>(offset).cast()) };
        u16::from_le(word.load(Ordering::Acquire))
    }

    /// Writes an index or flags after everything that it announces.
    #[inline(always)]
    pub fn store_release_u16(&self, offset: usize, value: u16) {
        // SAFETY: `at` saw to 2 aligned bytes inside the area, mapped while `self` lives; no reference covers them.
        let word = unsafe { AtomicU16::from_ptr(self.at::<2, 2>(offset).cast()) };
        word.store(value.to_le(), Ordering::Release);
    }

    /// Writes a word that has flags in it after everything that they announce.
    #[inline(always)]
    pub fn store_release_u64(&self, offset: usize, value: u64) {
        // SAFETY: `at` saw to 8 aligned bytes inside the area, mapped while `self` lives; no reference covers them.
        let word = unsafe { AtomicU64::from_ptr(self.at::<8, 8>(offset).cast()) };
        word.store(value.to_le(), Ordering::Release);
    }

    /// Reads the 16 bytes of a descriptor, each once. Needs the alignment of a word of 8 bytes.
    #[inline(always)]
    pub fn load_desc(&self, offset: usize) -> [u64; 2] {
        let at = self.at::<16, 8>(offset).cast::<u64>();
        // SAFETY: `at` saw to 16 bytes inside the area, aligned to 8.
        unsafe {
            [
                u64::from_le(at.read_volatile()),
                u64::from_le(at.add(1).read_volatile()),
            ]
        }
    }

    /// As [`load_desc`](Self::load_desc), but the second word, which tells whether the descriptor is there to be read, comes first:
    /// the other and all later loads see at least what the guest stored before it.
    #[inline(always)]
    pub fn load_desc_acquire(&self, offset: usize) -> [u64; 2] {
        let at = self.at::<16, 8>(offset).cast::<u64>();
        // SAFETY: `at` saw to 16 bytes inside the area, aligned to 8, mapped while `self` lives; no reference covers them.
        unsafe {
            let second = AtomicU64::from_ptr(at.add(1)).load(Ordering::Acquire);
            [u64::from_le(at.read_volatile()), u64::from_le(second)]
        }
    }

    /// Writes two words side by side, as a used element is. Needs the alignment of one of them.
    #[inline(always)]
    pub fn store_pair_u32(&self, offset: usize, first: u32, second: u32) {
        let at = self.at::<8, 4>(offset).cast::<u32>();
        // SAFETY: `at` saw to 8 bytes inside the area, aligned to 4.
        unsafe {
            at.write_volatile(first.to_le());
            at.add(1).write_volatile(second.to_le());
        }
    }

    /// Asks for the cache line at an offset, to be read soon. Only a hint: any offset is fine.
    #[inline(always)]
    pub fn prefetch(&self, offset: usize) {
        copy::prefetch(self.start.wrapping_add(offset));
    }

    /// Where `SIZE` bytes aligned to `ALIGN` are.
    #[inline(always)]
    fn at<const SIZE: usize, const ALIGN: usize>(&self, offset: usize) -> *mut u8 {
        match self.len.checked_sub(SIZE) {
            Some(last) if offset <= last => {
                // SAFETY: `offset` + `SIZE` is at most `len`, and `len` bytes are inside the region (promised at construction).
                let at = unsafe { self.start.add(offset) };
                if at.addr().is_multiple_of(ALIGN) {
                    return at;
                }
            }
            _ => {}
        }
        out_of_place(offset, SIZE, ALIGN, self.len)
    }
}

impl fmt::Debug for Area {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Area")
            .field("len", &self.len)
            .finish_non_exhaustive()
    }
}

/// The full fence between publishing an index and reading whether the other side wants to be told (virtio 1.2, 2.7.13.4.1).
#[inline(always)]
pub fn fence() {
    atomic::fence(Ordering::SeqCst);
}

#[cold]
#[inline(never)]
fn out_of_place(offset: usize, size: usize, align: usize, len: usize) -> ! {
    panic!("{size} bytes aligned to {align} at offset {offset} of a ring area of {len} bytes");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::LastHit;

    fn area(len: usize) -> Area {
        let memory = Arc::new(GuestMemory::heap(&[(0, 4096)]));
        memory.area(64, len, 16).unwrap()
    }

    fn bytes(area: &Area) -> Vec<u8> {
        let mut out = vec![0; area.len()];
        let len = u32::try_from(area.len()).unwrap();
        let slice = area.memory().read(&mut LastHit::default(), 64, len);
        slice.unwrap().copy_to(&mut out);
        out
    }

    #[test]
    fn words_are_little_endian() {
        let area = area(32);
        area.store_u16(2, 0x0102);
        area.store_u32(4, 0x0304_0506);
        area.store_u64(8, 0x0708_090a_0b0c_0d0e);
        area.store_pair_u32(20, 0x1112_1314, 0x1516_1718);
        area.store_release_u16(30, 0x191a);
        let wanted = [
            0, 0, 2, 1, 6, 5, 4, 3, 0xe, 0xd, 0xc, 0xb, 0xa, 9, 8, 7, // words
            0, 0, 0, 0, 0x14, 0x13, 0x12, 0x11, 0x18, 0x17, 0x16, 0x15, 0, 0, 0x1a, 0x19,
        ];
        assert_eq!(bytes(&area), wanted);
        assert_eq!(area.load_u16(2), 0x0102);
        assert_eq!(area.load_u32(4), 0x0304_0506);
        assert_eq!(area.load_u64(8), 0x0708_090a_0b0c_0d0e);
        assert_eq!(area.load_acquire_u16(30), 0x191a);
        let descriptor = area.load_desc(8);
        assert_eq!(descriptor, [0x0708_090a_0b0c_0d0e, 0x1112_1314 << 32]);
        assert_eq!(area.load_desc_acquire(8), descriptor);
        area.store_release_u64(16, 0x2122_2324_2526_2728);
        assert_eq!(area.load_u64(16), 0x2122_2324_2526_2728);
        area.prefetch(0);
        area.prefetch(usize::MAX);
        fence();
    }

    #[test]
    fn what_precedes_a_release_is_seen_after_the_acquire() {
        let area = area(64);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for turn in 1..=2_000u16 {
                    area.store_u32(16, turn.into());
                    area.store_release_u16(0, turn);
                    area.store_u64(40, turn.into());
                    area.store_release_u64(48, turn.into());
                    while area.load_acquire_u16(32) != turn {
                        std::thread::yield_now();
                    }
                }
            });
            for turn in 1..=2_000u16 {
                while area.load_acquire_u16(0) != turn {
                    std::thread::yield_now();
                }
                assert_eq!(area.load_u32(16), turn.into());
                let descriptor = loop {
                    let descriptor = area.load_desc_acquire(40);
                    if descriptor[1] == turn.into() {
                        break descriptor;
                    }
                    std::thread::yield_now();
                };
                assert_eq!(descriptor[0], turn.into());
                area.store_release_u16(32, turn);
            }
        });
    }
}
