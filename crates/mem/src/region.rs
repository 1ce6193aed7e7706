//! One mapped region.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::ptr;

use crate::MemoryError;
use crate::sigbus::Slot;

/// A region as a front-end describes it (vhost-user, memory region description), with its file.
#[derive(Debug)]
pub struct RegionRequest {
    /// Guest physical address of the first byte.
    pub guest_address: u64,
    /// Size in bytes.
    pub size: u64,
    /// The front-end's virtual address of the first byte.
    pub user_address: u64,
    /// Offset of the first byte in the file.
    pub mmap_offset: u64,
    /// The file; it is kept as long as it is mapped, for whoever takes the memory over.
    pub file: OwnedFd,
}

/// A region of a [`GuestMemory`](crate::GuestMemory).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RegionInfo {
    /// Guest physical address of the first byte.
    pub guest_address: u64,
    /// Size in bytes.
    pub size: u64,
    /// The front-end's virtual address of the first byte.
    pub user_address: u64,
    /// Whether somebody can shrink the file: true unless it carries `F_SEAL_SHRINK` or there is no file.
    pub shrinkable: bool,
    /// Device and inode of the file, zeroes where there is none.
    pub file: (u64, u64),
}

/// Where the bytes of a region, or of a dirty log, come from: what somebody else needs to map them as well.
#[derive(Clone, Copy, Debug)]
pub struct MappedFile<'m> {
    /// The file.
    pub file: BorrowedFd<'m>,
    /// Offset of the first byte in the file.
    pub mmap_offset: u64,
    /// How many bytes.
    pub size: u64,
}

/// The region's bytes, mapped until it is dropped.
pub(crate) struct Region {
    pub(crate) info: RegionInfo,
    /// The file and the offset in it; `None` = memory of our own.
    file: Option<(OwnedFd, u64)>,
    /// First byte of the region; `info.size` bytes from here are inside the mapping.
    pub(crate) start: *mut u8,
    mapping: Mapping,
}

// SAFETY: the pointers name mapped memory that lives until the drop; all access to it is made for concurrent parties.
unsafe impl Send for Region {}
// SAFETY: as for `Send`.
unsafe impl Sync for Region {}

impl Region {
    /// Checks a request and maps its file.
    pub(crate) fn map(request: RegionRequest) -> Result<Self, MemoryError> {
        let RegionRequest {
            guest_address,
            size,
            user_address,
            mmap_offset,
            file,
        } = request;
        check_addresses(guest_address, size, user_address)?;
        let overflow = MemoryError::OffsetOverflow { mmap_offset, size };
        let Some(end) = mmap_offset.checked_add(size) else {
            return Err(overflow);
        };
        // A page fault in a file that a user-space file system serves waits for that process: it could stop our threads at will.
        let filesystem = rustix::fs::fstatfs(&file).map_err(|e| MemoryError::Stat(e.into()))?;
        if filesystem.f_type == FUSE_SUPER_MAGIC {
            return Err(MemoryError::UserSpaceFile { guest_address });
        }
        let stat = rustix::fs::fstat(&file).map_err(|e| MemoryError::Stat(e.into()))?;
        let file_size = u64::try_from(stat.st_size).unwrap_or(0);
        if file_size < end {
            return Err(MemoryError::ShortFile { file_size, end });
        }
        // Offset 0 is the one that is aligned for every kind of page; QEMU sends offsets that are not aligned to its huge pages.
        let Some(len) = mapping_length(end, page_size(&stat)) else {
            return Err(overflow);
        };
        let shrinkable = rustix::fs::fcntl_get_seals(&file)
            .map_or(true, |seals| !seals.contains(rustix::fs::SealFlags::SHRINK));
        let mapping = Mapping::of_file(&file, len)?;
        let offset = usize::try_from(mmap_offset).map_err(|_| overflow)?;
        // SAFETY: `offset` + `size` = `end`, which is at most the length of the mapping.
        let start = unsafe { mapping.base.add(offset) };
        Ok(Self {
            info: RegionInfo {
                guest_address,
                size,
                user_address,
                shrinkable,
                file: (stat.st_dev, stat.st_ino),
            },
            file: Some((file, mmap_offset)),
            start,
            mapping,
        })
    }

    /// Zeroed memory of our own, with the guest's address as the user address.
    pub(crate) fn anonymous(guest_address: u64, size: usize) -> Result<Self, MemoryError> {
        check_addresses(guest_address, size as u64, guest_address)?;
        let mapping = Mapping::anonymous(size)?;
        Ok(Self {
            info: RegionInfo {
                guest_address,
                size: size as u64,
                user_address: guest_address,
                shrinkable: false,
                file: (0, 0),
            },
            file: None,
            start: mapping.base,
            mapping,
        })
    }

    /// Zeroed memory of our own, whose guest and user addresses are those at which it lies in this process.
    pub(crate) fn identity(size: usize) -> Result<Self, MemoryError> {
        let mapping = Mapping::anonymous(size)?;
        let address = mapping.base.expose_provenance() as u64;
        Ok(Self {
            info: RegionInfo {
                guest_address: address,
                size: size as u64,
                user_address: address,
                shrinkable: false,
                file: (0, 0),
            },
            file: None,
            start: mapping.base,
            mapping,
        })
    }

    /// The file behind it; `None` = memory of our own.
    pub(crate) fn file(&self) -> Option<MappedFile<'_>> {
        let (file, mmap_offset) = self.file.as_ref()?;
        Some(MappedFile {
            file: file.as_fd(),
            mmap_offset: *mmap_offset,
            size: self.info.size,
        })
    }

    /// Whether its file shrank under it.
    pub(crate) fn is_poisoned(&self) -> bool {
        let slot = self.mapping.slot.as_ref();
        slot.is_some_and(Slot::is_poisoned)
    }
}

/// `FUSE_SUPER_MAGIC` of linux/magic.h.
const FUSE_SUPER_MAGIC: rustix::fs::FsWord = 0x6573_5546;

fn check_addresses(guest_address: u64, size: u64, user_address: u64) -> Result<(), MemoryError> {
    if size == 0 {
        return Err(MemoryError::EmptyRegion { guest_address });
    }
    if guest_address.checked_add(size).is_none() {
        return Err(MemoryError::GuestAddressOverflow {
            guest_address,
            size,
        });
    }
    if user_address.checked_add(size).is_none() {
        return Err(MemoryError::UserAddressOverflow { user_address, size });
    }
    Ok(())
}

/// The largest page that is believed: a file system of the front-end's could say anything.
const LARGEST_PAGE: u64 = 1 << 30;

/// Size of the pages that the file is made of: `st_blksize`, which hugetlbfs sets to its huge page.
fn page_size(stat: &rustix::fs::Stat) -> u64 {
    let base = rustix::param::page_size() as u64;
    match u64::try_from(stat.st_blksize) {
        Ok(block) if block.is_power_of_two() && block <= LARGEST_PAGE => block.max(base),
        _ => base,
    }
}

fn mapping_length(end: u64, page: u64) -> Option<usize> {
    let len = usize::try_from(end.checked_next_multiple_of(page)?).ok()?;
    (len <= isize::MAX as usize).then_some(len)
}

/// Pages of the address space, given back when dropped.
pub(crate) struct Mapping {
    base: *mut u8,
    len: usize,
    /// Present for files, which can shrink.
    slot: Option<Slot>,
}

impl Mapping {
    fn of_file(file: &OwnedFd, len: usize) -> Result<Self, MemoryError> {
        let mut mapping = Self::mmap(
            len,
            libc::MAP_SHARED | libc::MAP_NORESERVE,
            file.as_raw_fd(),
        )?;
        mapping.slot = Some(Slot::claim(mapping.base.addr(), len)?);
        Ok(mapping)
    }

    fn anonymous(len: usize) -> Result<Self, MemoryError> {
        Self::mmap(len, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1)
    }

    fn mmap(len: usize, flags: libc::c_int, fd: libc::c_int) -> Result<Self, MemoryError> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice touches nothing that exists.
        let base = unsafe { libc::mmap(ptr::null_mut(), len, protection, flags, fd, 0) };
        if base == libc::MAP_FAILED {
            let source = io::Error::last_os_error();
            return Err(MemoryError::Map { len, source });
        }
        Ok(Self {
            base: base.cast(),
            len,
            slot: None,
        })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // The slot goes first: once unmapped, the addresses may belong to another region.
        drop(self.slot.take());
        // SAFETY: the mapping is ours and whole; whoever could reach it borrowed from the owner, which is being dropped.
        unsafe { libc::munmap(self.base.cast(), self.len) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_page_is_believed_that_is_none() {
        let file = rustix::fs::memfd_create("page", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        let mut stat = rustix::fs::fstat(&file).unwrap();
        let base = rustix::param::page_size() as u64;
        for (block, page) in [
            (1_u64, base),
            (base, base),
            (2 << 20, 2 << 20),
            (1 << 30, 1 << 30),
            // A file system of the front-end's says anything.
            (0, base),
            (3 << 20, base),
            ((1 << 30) + 1, base),
            (1 << 31, base),
            (1 << 62, base),
        ] {
            stat.st_blksize = block.try_into().unwrap();
            assert_eq!(page_size(&stat), page, "{block}");
        }
    }
}
