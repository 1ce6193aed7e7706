//! A guest whose rings are written by hand.
//!
//! It begins at whatever position it likes and with files of any kind as memory. Nothing is reused: every guest has memory and rings
//! of its own, and a lie is told at the position that the device looks at next.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use ringway_mem::{GuestMemory, RegionRequest};
use ringway_vhost::user::features::{self as bits, mask};
use ringway_vhost::user::frontend::Frontend;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};

mod ring;

pub use ring::{Descriptor, Ring};

/// Longest wait for an answer of the switch.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// Descriptors of a ring.
pub const SIZE: u16 = 64;

/// Descriptor flags (virtio 1.2, 2.7.5 and 2.8.13).
pub const NEXT: u16 = 1;
/// The device writes.
pub const WRITE: u16 = 2;
/// The bytes are a table.
pub const INDIRECT: u16 = 4;
/// Packed: available, and used, in the lap whose wrap counter is set.
pub const AVAILABLE: u16 = 1 << 7;
/// See [`AVAILABLE`].
pub const USED: u16 = 1 << 15;

/// Guest address and size of each region: rings, bytes of frames, a neighbour of the latter, and one that is large and empty.
pub const REGIONS: [(u64, u64); 4] = [
    (0, 2 << 20),
    (4 << 20, 2 << 20),
    (6 << 20, 64 << 10),
    (4 << 30, 1 << 30),
];
/// Where the bytes of frames lie.
pub const BODY: u64 = REGIONS[1].0;
/// Where indirect tables lie.
pub const TABLE: u64 = BODY + (1 << 20);
/// The first byte of the neighbour, so that what begins before it spans regions.
pub const BORDER: u64 = REGIONS[2].0;
/// The last byte of the neighbour and one more; nothing follows.
pub const END: u64 = REGIONS[2].0 + REGIONS[2].1;
/// A gigabyte of nothing.
pub const DESERT: u64 = REGIONS[3].0;
/// The front-end's addresses begin here.
pub const USER: u64 = 0x7f00_0000_0000;

/// The guest's receive ring.
pub const RECEIVE: usize = 0;
/// The guest's transmit ring.
pub const TRANSMIT: usize = 1;

/// What a region is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum File {
    /// Anonymous, as QEMU has it.
    Memfd,
    /// A file in a folder.
    Plain,
    /// Huge pages.
    Huge,
}

impl File {
    /// A file of this kind.
    pub fn make(self, size: u64) -> Result<OwnedFd> {
        let file = match self {
            Self::Memfd => memfd_create("crooked", MemfdFlags::CLOEXEC)?,
            Self::Huge => memfd_create("crooked", MemfdFlags::CLOEXEC | MemfdFlags::HUGETLB)?,
            Self::Plain => tempfile()?,
        };
        ftruncate(&file, size)?;
        Ok(file)
    }
}

/// A file without a name.
fn tempfile() -> Result<OwnedFd> {
    use std::sync::atomic::{AtomicU32, Ordering};
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let name = format!("ringway-crooked-{}-{number}", std::process::id());
    let path = std::env::temp_dir().join(name);
    let file = std::fs::File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .open(&path)?;
    std::fs::remove_file(&path)?;
    Ok(file.into())
}

/// How a guest is made.
#[derive(Clone, Copy, Debug)]
pub struct Outfit {
    /// The format of its rings.
    pub packed: bool,
    /// Features that it does without.
    pub without: u64,
    /// Where its rings begin: an index, or a place with its wrap counter.
    pub start: u16,
    /// What its rings lie in, and what its frames lie in.
    pub files: [File; 2],
}

impl Outfit {
    /// Rings of this format that begin at `start`, in memfds.
    pub fn new(packed: bool, start: u16) -> Self {
        Self {
            packed,
            without: 0,
            start,
            files: [File::Memfd; 2],
        }
    }

    /// What the guest negotiates.
    pub fn features(&self) -> u64 {
        let mut all = vec![
            bits::VHOST_USER_F_PROTOCOL_FEATURES,
            bits::VIRTIO_F_VERSION_1,
            bits::VIRTIO_NET_F_MRG_RXBUF,
            bits::VIRTIO_RING_F_INDIRECT_DESC,
            bits::VIRTIO_NET_F_CSUM,
            bits::VIRTIO_NET_F_HOST_TSO4,
            bits::VIRTIO_NET_F_HOST_TSO6,
        ];
        if self.packed {
            all.push(bits::VIRTIO_F_RING_PACKED);
        }
        mask(&all) & !self.without
    }
}

/// A front-end, the memory it shares, and its rings.
pub struct Crooked {
    /// The connection.
    pub front: Frontend,
    /// Our own mapping.
    pub memory: Arc<GuestMemory>,
    /// Its files, by region.
    pub files: Vec<OwnedFd>,
    /// [`RECEIVE`] and [`TRANSMIT`].
    pub rings: [Ring; 2],
    /// Where broken rings are reported.
    pub error: OwnedFd,
}

impl Crooked {
    /// Connects to the port at `path` and starts everything.
    pub fn start(path: &Path, outfit: &Outfit) -> Result<Self> {
        let files = REGIONS.iter().enumerate().map(|(index, &(_, size))| {
            let kind = outfit.files.get(index).copied();
            kind.unwrap_or(File::Memfd).make(size)
        });
        let files = files.collect::<Result<Vec<_>>>()?;
        let memory = Arc::new(GuestMemory::map(requests(&files)?)?);
        let ring = |at| Ring::new(&memory, at, outfit);
        let mut guest = Self {
            front: connect(path)?,
            rings: [ring(0x1000)?, ring(0x10_0000)?],
            memory,
            files,
            error: event()?,
        };
        guest.negotiate(outfit)?;
        for ring in [RECEIVE, TRANSMIT] {
            guest.start_ring(ring)?;
        }
        Ok(guest)
    }

    fn negotiate(&mut self, outfit: &Outfit) -> Result<()> {
        let front = &mut self.front;
        let wanted = outfit.features();
        let offered = front.get_features()?;
        if wanted & !offered != 0 {
            bail!("features {:#x} are not offered", wanted & !offered);
        }
        let protocol = front.get_protocol_features()?;
        front.set_protocol_features(protocol)?;
        front.ask_for_acks(true);
        front.set_owner()?;
        front.set_features(wanted)?;
        front.set_mem_table(&requests(&self.files)?)?;
        Ok(())
    }

    /// Enables a ring and starts it where it stands.
    pub fn start_ring(&mut self, number: usize) -> Result<()> {
        let (front, ring) = (&mut self.front, &self.rings[number]);
        let (wide, byte) = (u32::try_from(number)?, u8::try_from(number)?);
        front.set_vring_enable(wide, true)?;
        front.set_vring_num(wide, SIZE.into())?;
        front.set_vring_base(wide, ring.base())?;
        front.set_vring_addr(wide, &ring.addresses())?;
        front.set_vring_call(byte, Some(ring.call.as_fd()))?;
        front.set_vring_err(byte, Some(self.error.as_fd()))?;
        front.set_vring_kick(byte, Some(ring.kick.as_fd()))?;
        Ok(())
    }

    /// Waits until a ring is reported broken.
    pub fn await_fault(&self) -> Result<()> {
        if !readable(&self.error, PATIENCE)? {
            bail!("no ring was reported broken");
        }
        rustix::io::read(&self.error, &mut [0; 8])?;
        Ok(())
    }

    /// Writes bytes to the guest's memory.
    pub fn write(&self, address: u64, bytes: &[u8]) -> Result<()> {
        write(&self.memory, address, bytes)
    }

    /// Reads bytes of the guest's memory.
    pub fn read(&self, address: u64, len: usize) -> Result<Vec<u8>> {
        let mut bytes = vec![0; len];
        let slice = self.memory.read_prefix(address, u32::try_from(len)?);
        let slice = slice.with_context(|| format!("no memory at {address:#x}"))?;
        slice.copy_to(&mut bytes);
        Ok(bytes)
    }
}

/// Connects to a port whose front-end before may not be gone yet: then we are turned away and come again.
pub fn connect(path: &Path) -> Result<Frontend> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let mut front = Frontend::connect(path, PATIENCE)?;
        match front.get_features() {
            Ok(_) => return Ok(front),
            Err(error) if Instant::now() > deadline => {
                return Err(error).context("nobody is let in");
            }
            Err(_) => {}
        }
    }
}

/// What a front-end says of its regions.
pub fn requests(files: &[OwnedFd]) -> Result<Vec<RegionRequest>> {
    let request = |(&(guest_address, size), file): (&(u64, u64), &OwnedFd)| {
        Ok(RegionRequest {
            guest_address,
            size,
            user_address: USER + guest_address,
            mmap_offset: 0,
            file: file.try_clone()?,
        })
    };
    REGIONS.iter().zip(files).map(request).collect()
}

/// A new eventfd.
pub fn event() -> Result<OwnedFd> {
    Ok(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?)
}

/// Waits until `fd` is readable; false when it is not within `limit`.
pub fn readable(fd: impl AsFd, limit: Duration) -> Result<bool> {
    let timeout = Timespec::try_from(limit)?;
    let deadline = Instant::now() + limit;
    loop {
        match poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&timeout)) {
            Ok(count) => return Ok(count > 0),
            Err(rustix::io::Errno::INTR) if Instant::now() < deadline => {}
            Err(error) => return Err(error.into()),
        }
    }
}

fn write(memory: &GuestMemory, address: u64, bytes: &[u8]) -> Result<()> {
    let slice = memory.write_prefix(address, u32::try_from(bytes.len())?);
    let slice = slice.with_context(|| format!("no memory at {address:#x}"))?;
    if slice.copy_from(bytes) != bytes.len() {
        bail!("{} bytes at {address:#x} span regions", bytes.len());
    }
    Ok(())
}
