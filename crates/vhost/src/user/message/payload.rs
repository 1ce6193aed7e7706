//! What follows the header.

use super::Reader;

/// A ring and a number: its size, its base, or whether it is enabled.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VringState {
    /// The ring.
    pub index: u32,
    /// The number.
    pub num: u32,
}

const _: () = assert!(VringState::SIZE == 8);

impl VringState {
    /// Size on the wire.
    pub const SIZE: usize = size_of::<Self>();

    /// Reads the structure; `None` unless there are exactly [`Self::SIZE`] bytes.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader(bytes);
        let state = Self {
            index: reader.u32()?,
            num: reader.u32()?,
        };
        reader.end(state)
    }

    /// The structure as it goes over the wire.
    #[must_use]
    pub fn bytes(&self) -> [u8; Self::SIZE] {
        let mut out = [0; Self::SIZE];
        out[..4].copy_from_slice(&self.index.to_ne_bytes());
        out[4..].copy_from_slice(&self.num.to_ne_bytes());
        out
    }
}

/// Addresses of a ring, virtual addresses of the front-end.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VringAddress {
    /// The ring.
    pub index: u32,
    /// Bit 0: writes to the used ring are logged.
    pub flags: u32,
    /// Descriptor table, or descriptor ring.
    pub descriptors: u64,
    /// Used ring, or device event area.
    pub used: u64,
    /// Available ring, or driver event area.
    pub available: u64,
    /// Guest physical address at which writes to the used ring are logged.
    pub log: u64,
}

const _: () = assert!(VringAddress::SIZE == 40);

impl VringAddress {
    /// Size on the wire.
    pub const SIZE: usize = size_of::<Self>();

    /// Reads the structure; `None` unless there are exactly [`Self::SIZE`] bytes.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader(bytes);
        let address = Self {
            index: reader.u32()?,
            flags: reader.u32()?,
            descriptors: reader.u64()?,
            used: reader.u64()?,
            available: reader.u64()?,
            log: reader.u64()?,
        };
        reader.end(address)
    }

    /// The structure as it goes over the wire.
    #[must_use]
    pub fn bytes(&self) -> [u8; Self::SIZE] {
        let mut out = [0; Self::SIZE];
        out[..4].copy_from_slice(&self.index.to_ne_bytes());
        out[4..8].copy_from_slice(&self.flags.to_ne_bytes());
        let words = [self.descriptors, self.used, self.available, self.log];
        for (slot, word) in out[8..].chunks_exact_mut(8).zip(words) {
            slot.copy_from_slice(&word.to_ne_bytes());
        }
        out
    }
}

/// The payload of SET_LOG_BASE: where in its file the dirty log lies.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogArea {
    /// Size in bytes.
    pub size: u64,
    /// Where the log begins in the file.
    pub offset: u64,
}

const _: () = assert!(LogArea::SIZE == 16);

impl LogArea {
    /// Size on the wire.
    pub const SIZE: usize = size_of::<Self>();

    /// Reads the structure; `None` unless there are exactly [`Self::SIZE`] bytes.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader(bytes);
        let area = Self {
            size: reader.u64()?,
            offset: reader.u64()?,
        };
        reader.end(area)
    }

    /// The structure as it goes over the wire.
    #[must_use]
    pub fn bytes(&self) -> [u8; Self::SIZE] {
        let mut out = [0; Self::SIZE];
        out[..8].copy_from_slice(&self.size.to_ne_bytes());
        out[8..].copy_from_slice(&self.offset.to_ne_bytes());
        out
    }
}

/// The payload of GET_INFLIGHT_FD and SET_INFLIGHT_FD: where and for what descriptors in flight are kept.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InflightArea {
    /// Size in bytes; 0 in the question.
    pub size: u64,
    /// Where it begins in the file.
    pub offset: u64,
    /// Rings that it is for.
    pub rings: u16,
    /// Descriptors of each.
    pub ring_size: u16,
}

const _: () = assert!(InflightArea::SIZE == 24);

impl InflightArea {
    /// Size on the wire, with the 4 bytes of padding that C adds at the end.
    pub const SIZE: usize = size_of::<Self>();
    /// Size of what the specification lists.
    pub const UNPADDED: usize = 20;

    /// Reads the structure; `None` unless there are exactly [`Self::SIZE`] bytes, or [`Self::UNPADDED`].
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader(bytes);
        let (size, offset, counts) = (reader.u64()?, reader.u64()?, reader.u32()?);
        if bytes.len() != Self::UNPADDED {
            reader.u32()?;
        }
        let [a, b, c, d] = counts.to_ne_bytes();
        reader.end(Self {
            size,
            offset,
            rings: u16::from_ne_bytes([a, b]),
            ring_size: u16::from_ne_bytes([c, d]),
        })
    }

    /// The structure as it goes over the wire.
    #[must_use]
    pub fn bytes(&self) -> [u8; Self::SIZE] {
        let mut out = [0; Self::SIZE];
        out[..8].copy_from_slice(&self.size.to_ne_bytes());
        out[8..16].copy_from_slice(&self.offset.to_ne_bytes());
        out[16..18].copy_from_slice(&self.rings.to_ne_bytes());
        out[18..20].copy_from_slice(&self.ring_size.to_ne_bytes());
        out
    }
}

/// One region of guest memory.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Region {
    /// Guest physical address.
    pub guest_address: u64,
    /// Size in bytes.
    pub size: u64,
    /// The front-end's virtual address.
    pub user_address: u64,
    /// Where the region begins in its file.
    pub mmap_offset: u64,
}

const _: () = assert!(Region::SIZE == 32);

impl Region {
    /// Size on the wire.
    pub const SIZE: usize = size_of::<Self>();

    /// Reads the structure; `None` unless there are exactly [`Self::SIZE`] bytes.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader(bytes);
        let region = Self {
            guest_address: reader.u64()?,
            size: reader.u64()?,
            user_address: reader.u64()?,
            mmap_offset: reader.u64()?,
        };
        reader.end(region)
    }

    /// The structure as it goes over the wire.
    #[must_use]
    pub fn bytes(&self) -> [u8; Self::SIZE] {
        let mut out = [0; Self::SIZE];
        let words = [
            self.guest_address,
            self.size,
            self.user_address,
            self.mmap_offset,
        ];
        for (slot, word) in out.chunks_exact_mut(8).zip(words) {
            slot.copy_from_slice(&word.to_ne_bytes());
        }
        out
    }
}

/// The payload of ADD_MEM_REG and REM_MEM_REG: padding and one region.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SingleRegion {
    padding: u64,
    /// The region.
    pub region: Region,
}

const _: () = assert!(SingleRegion::SIZE == 40);

impl SingleRegion {
    /// Size on the wire.
    pub const SIZE: usize = size_of::<Self>();

    /// The payload for a region.
    #[must_use]
    pub fn new(region: Region) -> Self {
        Self { padding: 0, region }
    }

    /// Reads the structure; `None` unless there are exactly [`Self::SIZE`] bytes.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader(bytes);
        let padding = reader.u64()?;
        Some(Self {
            padding,
            region: Region::parse(reader.0)?,
        })
    }

    /// The structure as it goes over the wire.
    #[must_use]
    pub fn bytes(&self) -> [u8; Self::SIZE] {
        let mut out = [0; Self::SIZE];
        out[..8].copy_from_slice(&self.padding.to_ne_bytes());
        out[8..].copy_from_slice(&self.region.bytes());
        out
    }
}

/// The payload of SET_MEM_TABLE.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemoryTable {
    /// The regions, each with a file descriptor in the same order.
    pub regions: Vec<Region>,
}

impl MemoryTable {
    /// Bytes before the first region: their number and padding.
    pub const HEAD: usize = 8;

    /// The number of regions a payload announces, whether they are there or not; `None` when it
    /// is too short to tell.
    #[must_use]
    pub fn announced(bytes: &[u8]) -> Option<u32> {
        Reader(bytes).u32()
    }

    /// Reads the table; `None` unless the payload has exactly the size that its number of regions
    /// asks for.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let count = usize::try_from(Self::announced(bytes)?).ok()?;
        let body = bytes.get(Self::HEAD..)?;
        if Some(body.len()) != count.checked_mul(Region::SIZE) {
            return None;
        }
        let regions = body
            .chunks_exact(Region::SIZE)
            .map(Region::parse)
            .collect::<Option<_>>()?;
        Some(Self { regions })
    }

    /// The table as it goes over the wire.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        let count = u32::try_from(self.regions.len()).unwrap_or(u32::MAX);
        let mut out = Vec::with_capacity(Self::HEAD + self.regions.len() * Region::SIZE);
        out.extend_from_slice(&count.to_ne_bytes());
        out.extend_from_slice(&[0; 4]);
        for region in &self.regions {
            out.extend_from_slice(&region.bytes());
        }
        out
    }
}

/// The payload of SET_VRING_KICK, SET_VRING_CALL and SET_VRING_ERR.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VringFile {
    /// The ring; eight bits on the wire.
    pub index: u8,
    /// There is no file descriptor.
    pub no_fd: bool,
}

impl VringFile {
    const NO_FD: u64 = 1 << 8;

    /// Reads the number; `None` when bits beyond index and flag are set.
    #[must_use]
    pub fn parse(payload: u64) -> Option<Self> {
        let index = u8::try_from(payload & !Self::NO_FD).ok()?;
        Some(Self {
            index,
            no_fd: payload & Self::NO_FD != 0,
        })
    }

    /// The number as it goes over the wire.
    #[must_use]
    pub fn number(&self) -> u64 {
        u64::from(self.index) | if self.no_fd { Self::NO_FD } else { 0 }
    }
}

/// Reads a payload that is one u64.
#[must_use]
pub fn parse_u64(bytes: &[u8]) -> Option<u64> {
    Some(u64::from_ne_bytes(bytes.try_into().ok()?))
}
