//! The table of a guest's regions and the translation of its addresses.

use std::fmt;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use crate::region::Region;
use crate::{
    Area, MappedFile, MemoryError, ReadSlice, RegionInfo, RegionRequest, WriteSlice, sigbus,
};

/// Regions that one table holds at most, as many as QEMU's vhost memory slots.
pub const MAX_REGIONS: usize = 509;

/// A guest's memory: an immutable table of mapped regions. A change makes a new table that shares the unchanged mappings; a region is
/// unmapped when the last table that has it is dropped.
pub struct GuestMemory {
    /// Sorted by guest address, as `regions`, which own the mappings.
    table: Box<[Entry]>,
    regions: Box<[Arc<Region>]>,
}

/// The region that the last translation found, to be looked at first by the next one. Any value is right for any memory.
#[derive(Default, Clone, Debug)]
pub struct LastHit(usize);

/// What a translation needs of a region.
#[derive(Clone, Copy)]
struct Entry {
    guest_address: u64,
    size: u64,
    start: *mut u8,
}

// SAFETY: the pointers name the mappings that `regions` keeps, which are themselves `Send` and `Sync`.
unsafe impl Send for GuestMemory {}
// SAFETY: as for `Send`.
unsafe impl Sync for GuestMemory {}

impl GuestMemory {
    /// Maps the regions that a front-end describes. The files are mapped shared and never populated.
    pub fn map(regions: Vec<RegionRequest>) -> Result<Self, MemoryError> {
        check_count(regions.len())?;
        let regions: Result<Vec<_>, _> = regions
            .into_iter()
            .map(|request| Region::map(request).map(Arc::new))
            .collect();
        Self::from_regions(regions?)
    }

    /// This memory and one region more.
    pub fn with_added(&self, region: RegionRequest) -> Result<Self, MemoryError> {
        check_count(self.regions.len() + 1)?;
        let mut regions = self.regions.to_vec();
        regions.push(Arc::new(Region::map(region)?));
        Self::from_regions(regions)
    }

    /// This memory without the region that has exactly these addresses and this size.
    pub fn with_removed(
        &self,
        guest_address: u64,
        size: u64,
        user_address: u64,
    ) -> Result<Self, MemoryError> {
        let wanted = |region: &Arc<Region>| {
            let info = &region.info;
            (info.guest_address, info.size, info.user_address)
                == (guest_address, size, user_address)
        };
        let mut regions = self.regions.to_vec();
        let Some(index) = regions.iter().position(wanted) else {
            return Err(MemoryError::NoSuchRegion {
                guest_address,
                size,
                user_address,
            });
        };
        regions.remove(index);
        Self::from_regions(regions)
    }

    /// Zeroed private memory: guest address and size of each region. User addresses equal guest addresses.
    ///
    /// # Panics
    ///
    /// When the layout is not a valid table or the system has no memory left: the layout is our own, not a guest's.
    pub fn heap(layout: &[(u64, usize)]) -> Self {
        let build = || {
            check_count(layout.len())?;
            let regions: Result<Vec<_>, _> = layout
                .iter()
                .map(|&(address, size)| Region::anonymous(address, size).map(Arc::new))
                .collect();
            Self::from_regions(regions?)
        };
        match build() {
            Ok(memory) => memory,
            Err(error) => panic!("heap memory: {error}"),
        }
    }

    /// Zeroed private memory whose guest and user addresses are those at which it lies in this process: what a vhost device of the
    /// kernel can reach.
    pub fn identity(size: usize) -> Result<Self, MemoryError> {
        Self::from_regions(vec![Arc::new(Region::identity(size)?)])
    }

    /// As [`heap`](Self::heap), but each region is a memfd, mapped as a front-end's would be. Also hands out the requests, with
    /// descriptors of their own, that a front-end would send. The files carry no seal and accept any.
    pub fn memfd(layout: &[(u64, usize)]) -> Result<(Self, Vec<RegionRequest>), MemoryError> {
        let mut ours = Vec::with_capacity(layout.len());
        let mut theirs = Vec::with_capacity(layout.len());
        for &(address, size) in layout {
            let file = memory_file(size)?;
            let request = |file: OwnedFd| RegionRequest {
                guest_address: address,
                size: size as u64,
                user_address: address,
                mmap_offset: 0,
                file,
            };
            let copy = file.try_clone();
            theirs.push(request(
                copy.map_err(|source| MemoryError::Create { size, source })?,
            ));
            ours.push(request(file));
        }
        Ok((Self::map(ours)?, theirs))
    }

    /// The bytes to be read at a guest address, when all of them lie in one region. No bytes lie anywhere.
    #[inline]
    pub fn read(&self, hit: &mut LastHit, guest_address: u64, len: u32) -> Option<ReadSlice<'_>> {
        let start = self.translate(hit, guest_address, len)?;
        // SAFETY: `translate` found `len` bytes inside one mapping, which lives as long as `self`; regions are never referenced.
        Some(unsafe { ReadSlice::new(start, len as usize) })
    }

    /// The bytes to be written at a guest address, when all of them lie in one region. No bytes lie anywhere.
    #[inline]
    pub fn write(&self, hit: &mut LastHit, guest_address: u64, len: u32) -> Option<WriteSlice<'_>> {
        let start = self.translate(hit, guest_address, len)?;
        // SAFETY: `translate` found `len` bytes inside one mapping, which lives as long as `self`; regions are never referenced.
        Some(unsafe { WriteSlice::new(start, len as usize) })
    }

    /// The longest part from the beginning that lies in one region, at least one byte unless `len` is 0.
    pub fn read_prefix(&self, guest_address: u64, len: u32) -> Option<ReadSlice<'_>> {
        self.write_prefix(guest_address, len)
            .map(WriteSlice::as_read)
    }

    /// The longest part from the beginning that lies in one region, at least one byte unless `len` is 0.
    pub fn write_prefix(&self, guest_address: u64, len: u32) -> Option<WriteSlice<'_>> {
        if len == 0 {
            return Some(WriteSlice::empty());
        }
        self.table.iter().find_map(|entry| {
            let offset = guest_address.wrapping_sub(entry.guest_address);
            if offset >= entry.size {
                return None;
            }
            let len = u64::from(len).min(entry.size - offset);
            // SAFETY: `offset` + `len` is at most the region's size, and regions are mapped whole while `self` lives.
            Some(unsafe { WriteSlice::new(entry.start.add(host_size(offset)), host_size(len)) })
        })
    }

    /// Ring memory: `len` bytes at the front-end's address, inside one region and aligned to `align`.
    pub fn area(
        self: &Arc<Self>,
        user_address: u64,
        len: usize,
        align: usize,
    ) -> Result<Area, MemoryError> {
        let Some((region, offset)) = self.find_user(user_address, len as u64) else {
            return Err(MemoryError::AreaUnmapped { user_address, len });
        };
        let start = region.start.wrapping_add(host_size(offset));
        let align = align.max(1);
        // The mapping may lie differently to its pages than the front-end's does; words need ours to be aligned.
        if !user_address.is_multiple_of(align as u64) || !start.addr().is_multiple_of(align) {
            return Err(MemoryError::AreaMisaligned {
                user_address,
                align,
            });
        }
        // SAFETY: `find_user` saw `len` bytes inside the region, and the handle keeps `self`, hence the mapping.
        Ok(unsafe { Area::new(start, len, Arc::clone(self)) })
    }

    /// The guest address of what the front-end has at `user_address`, when all `len` bytes lie in one region.
    pub fn user_to_guest(&self, user_address: u64, len: u64) -> Option<u64> {
        let (region, offset) = self.find_user(user_address, len)?;
        Some(region.info.guest_address + offset)
    }

    /// The guest address at which a slice of this memory begins; `None` for what lies elsewhere, as private bytes do.
    pub fn guest_address(&self, slice: WriteSlice<'_>) -> Option<u64> {
        self.guest_address_of(slice.address())
    }

    pub(crate) fn guest_address_of(&self, host: *const u8) -> Option<u64> {
        self.table.iter().find_map(|entry| {
            let offset = host.addr().wrapping_sub(entry.start.addr()) as u64;
            (offset < entry.size).then(|| entry.guest_address + offset)
        })
    }

    /// True when a file shrank under a region of this memory: what was read from it may be zeroes, nothing must be published. Sees
    /// every fault that this thread took before. One load as long as nothing in the process is poisoned.
    #[inline]
    pub fn is_poisoned(&self) -> bool {
        sigbus::any_poisoned() && self.has_poisoned_region()
    }

    #[cold]
    #[inline(never)]
    fn has_poisoned_region(&self) -> bool {
        self.regions.iter().any(|region| region.is_poisoned())
    }

    /// The regions, by rising guest address.
    pub fn regions(&self) -> impl Iterator<Item = RegionInfo> {
        self.regions.iter().map(|region| region.info)
    }

    /// The regions that have files, by rising guest address.
    pub fn files(&self) -> impl Iterator<Item = (RegionInfo, MappedFile<'_>)> {
        let mapped = self.regions.iter();
        mapped.filter_map(|region| Some((region.info, region.file()?)))
    }

    #[inline(always)]
    fn translate(&self, hit: &mut LastHit, guest_address: u64, len: u32) -> Option<*mut u8> {
        if let Some(entry) = self.table.get(hit.0)
            && let Some(start) = entry.translate(guest_address, len)
        {
            return Some(start);
        }
        self.translate_scan(hit, guest_address, len)
    }

    #[cold]
    #[inline(never)]
    fn translate_scan(&self, hit: &mut LastHit, guest_address: u64, len: u32) -> Option<*mut u8> {
        for (index, entry) in self.table.iter().enumerate() {
            if let Some(start) = entry.translate(guest_address, len) {
                hit.0 = index;
                return Some(start);
            }
        }
        (len == 0).then_some(std::ptr::dangling_mut())
    }

    fn find_user(&self, user_address: u64, len: u64) -> Option<(&Region, u64)> {
        self.regions.iter().find_map(|region| {
            let offset = user_address.wrapping_sub(region.info.user_address);
            let inside = offset < region.info.size && len <= region.info.size - offset;
            inside.then_some((&**region, offset))
        })
    }

    fn from_regions(mut regions: Vec<Arc<Region>>) -> Result<Self, MemoryError> {
        let end = |start: u64, region: &Region| start + region.info.size;
        regions.sort_unstable_by_key(|region| region.info.user_address);
        for pair in regions.windows(2) {
            let (first, second) = (pair[0].info.user_address, pair[1].info.user_address);
            if end(first, &pair[0]) > second {
                return Err(MemoryError::UserOverlap { first, second });
            }
        }
        regions.sort_unstable_by_key(|region| region.info.guest_address);
        for pair in regions.windows(2) {
            let (first, second) = (pair[0].info.guest_address, pair[1].info.guest_address);
            if end(first, &pair[0]) > second {
                return Err(MemoryError::GuestOverlap { first, second });
            }
        }
        let entry = |region: &Arc<Region>| Entry {
            guest_address: region.info.guest_address,
            size: region.info.size,
            start: region.start,
        };
        Ok(Self {
            table: regions.iter().map(entry).collect(),
            regions: regions.into_boxed_slice(),
        })
    }
}

impl Entry {
    #[inline(always)]
    fn translate(&self, guest_address: u64, len: u32) -> Option<*mut u8> {
        let offset = guest_address.wrapping_sub(self.guest_address);
        if offset < self.size && u64::from(len) <= self.size - offset {
            // SAFETY: `offset` is below the region's size, and the region is mapped whole.
            Some(unsafe { self.start.add(host_size(offset)) })
        } else {
            None
        }
    }
}

impl fmt::Debug for GuestMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.regions()).finish()
    }
}

/// A size or an offset inside a mapping: addresses have 64 bits on every host that this runs on.
#[inline(always)]
#[allow(clippy::cast_possible_truncation)]
pub(crate) const fn host_size(size: u64) -> usize {
    const { assert!(size_of::<usize>() == size_of::<u64>()) };
    size as usize
}

fn check_count(count: usize) -> Result<(), MemoryError> {
    if count > MAX_REGIONS {
        return Err(MemoryError::TooManyRegions {
            count,
            max: MAX_REGIONS,
        });
    }
    Ok(())
}

fn memory_file(size: usize) -> Result<OwnedFd, MemoryError> {
    use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let failed = |error: rustix::io::Errno| MemoryError::Create {
        size,
        source: error.into(),
    };
    let file = memfd_create("guest-memory", flags).map_err(failed)?;
    ftruncate(&file, size as u64).map_err(failed)?;
    Ok(file)
}

#[cfg(test)]
mod tests;
