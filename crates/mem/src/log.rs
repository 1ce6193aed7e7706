//! The log of pages that a device wrote, which a front-end reads while it moves a guest to another host.

use std::fmt;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU8, Ordering};

use crate::region::Region;
use crate::{MappedFile, MemoryError, RegionRequest, sigbus};

/// Bytes of guest memory that one bit of the log stands for (`VHOST_LOG_PAGE`).
const PAGE: u64 = 4096;

/// A bitmap over guest memory in a file of the front-end's: bit `n % 8` of byte `n / 8` stands for page `n`. The front-end takes bits
/// away while we set them, so each is set by an atomic OR, after what it tells of was written: whoever finds the bit finds the bytes.
///
/// The file can shrink as memory files can, see [`sigbus`].
pub struct DirtyLog {
    region: Region,
}

impl DirtyLog {
    /// Maps `size` bytes of the log from `offset` in the file on.
    pub fn map(file: OwnedFd, size: u64, offset: u64) -> Result<Self, MemoryError> {
        let region = Region::map(RegionRequest {
            guest_address: 0,
            size,
            user_address: 0,
            mmap_offset: offset,
            file,
        })?;
        Ok(Self { region })
    }

    /// Marks every page that has a byte of the run, which must have been written before. Pages beyond the log are not marked.
    pub fn mark(&self, guest_address: u64, len: u64) {
        let Some(beyond) = len.checked_sub(1) else {
            return;
        };
        let first = guest_address / PAGE;
        let last = guest_address.saturating_add(beyond) / PAGE;
        let (first_byte, last_byte) = (first / 8, last / 8);
        for byte in first_byte..=last_byte.min(self.region.info.size - 1) {
            let mut bits = u8::MAX;
            if byte == first_byte {
                bits &= u8::MAX << (first % 8);
            }
            if byte == last_byte {
                bits &= u8::MAX >> (7 - last % 8);
            }
            self.set(byte, bits);
        }
    }

    /// True when the file shrank under the log: marks are lost, and who relies on them must not go on. Sees every fault that this
    /// thread took before.
    #[inline]
    pub fn is_poisoned(&self) -> bool {
        sigbus::any_poisoned() && self.region.is_poisoned()
    }

    /// The file behind it.
    pub fn file(&self) -> Option<MappedFile<'_>> {
        self.region.file()
    }

    fn set(&self, byte: u64, bits: u8) {
        assert!(byte < self.region.info.size);
        let offset = crate::table::host_size(byte);
        // SAFETY: the offset was just compared with the size of the region, which is mapped whole while `self` lives; no reference
        // covers it, and other parties change it by atomic accesses as we do.
        let word = unsafe { AtomicU8::from_ptr(self.region.start.add(offset)) };
        // Release: the bytes that were written are seen by whoever sees the bit.
        word.fetch_or(bits, Ordering::Release);
    }
}

impl fmt::Debug for DirtyLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DirtyLog")
            .field("size", &self.region.info.size)
            .finish_non_exhaustive()
    }
}
