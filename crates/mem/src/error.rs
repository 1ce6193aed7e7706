//! What can be wrong with a memory table.

use std::io;

/// Why memory was refused or an address could not be used. Addresses and sizes are in bytes.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    /// A region of no bytes.
    #[error("memory region at guest address {guest_address:#x} has size 0")]
    EmptyRegion {
        /// Where the guest would see it.
        guest_address: u64,
    },
    /// The region would end beyond the largest file offset or the largest mapping.
    #[error("memory region of {size:#x} bytes at file offset {mmap_offset:#x} overflows")]
    OffsetOverflow {
        /// Offset of the region in its file.
        mmap_offset: u64,
        /// Size of the region.
        size: u64,
    },
    /// The region would wrap round the guest's physical address space.
    #[error("memory region of {size:#x} bytes at guest address {guest_address:#x} overflows")]
    GuestAddressOverflow {
        /// Where the guest would see it.
        guest_address: u64,
        /// Size of the region.
        size: u64,
    },
    /// The region would wrap round the front-end's virtual address space.
    #[error("memory region of {size:#x} bytes at user address {user_address:#x} overflows")]
    UserAddressOverflow {
        /// Where the front-end would see it.
        user_address: u64,
        /// Size of the region.
        size: u64,
    },
    /// Words do not lie at multiples of their size.
    #[error("words at file offset {offset:#x}, which is no multiple of 8")]
    WordOffset {
        /// Where they would begin.
        offset: u64,
    },
    /// The file is shorter than the region says.
    #[error("memory file has {file_size:#x} bytes, the region ends at {end:#x}")]
    ShortFile {
        /// Size that fstat tells.
        file_size: u64,
        /// Offset plus size of the region.
        end: u64,
    },
    /// The file is served by a process (FUSE), which could stop whoever touches the memory.
    #[error(
        "memory file for guest address {guest_address:#x} is on a user-space file system; use memfd or hugetlbfs"
    )]
    UserSpaceFile {
        /// Where the guest would see it.
        guest_address: u64,
    },
    /// Two regions share guest physical addresses.
    #[error("memory regions at guest addresses {first:#x} and {second:#x} overlap")]
    GuestOverlap {
        /// The lower region.
        first: u64,
        /// The upper region.
        second: u64,
    },
    /// Two regions share front-end virtual addresses.
    #[error("memory regions at user addresses {first:#x} and {second:#x} overlap")]
    UserOverlap {
        /// The lower region.
        first: u64,
        /// The upper region.
        second: u64,
    },
    /// More regions than one table holds.
    #[error("{count} memory regions, at most {max} are possible")]
    TooManyRegions {
        /// Regions asked for.
        count: usize,
        /// The limit.
        max: usize,
    },
    /// More file mappings than the process guards against SIGBUS.
    #[error("all {max} guarded mappings of the process are in use")]
    TooManyMappings {
        /// The limit.
        max: usize,
    },
    /// No region has exactly these addresses and this size.
    #[error(
        "no memory region of {size:#x} bytes at guest address {guest_address:#x}, user address {user_address:#x}"
    )]
    NoSuchRegion {
        /// Where the guest would see it.
        guest_address: u64,
        /// Size of the region.
        size: u64,
        /// Where the front-end would see it.
        user_address: u64,
    },
    /// A ring area is not wholly inside one region.
    #[error("{len:#x} bytes at user address {user_address:#x} are not inside one memory region")]
    AreaUnmapped {
        /// The front-end's address of the area.
        user_address: u64,
        /// Length of the area.
        len: usize,
    },
    /// A ring area does not have the alignment that its words need.
    #[error("user address {user_address:#x} is not aligned to {align} bytes")]
    AreaMisaligned {
        /// The front-end's address of the area.
        user_address: u64,
        /// The alignment asked for.
        align: usize,
    },
    /// fstat on the memory file failed.
    #[error("cannot stat the memory file")]
    Stat(#[source] io::Error),
    /// mmap failed.
    #[error("cannot map {len:#x} bytes of guest memory")]
    Map {
        /// Length of the mapping.
        len: usize,
        /// What mmap answered.
        source: io::Error,
    },
    /// A memory file of our own could not be made.
    #[error("cannot create a memory file of {size:#x} bytes")]
    Create {
        /// Size of the file.
        size: usize,
        /// What the system call answered.
        source: io::Error,
    },
    /// The SIGBUS handler could not be installed.
    #[error("cannot install the SIGBUS handler")]
    Install(#[source] io::Error),
}
