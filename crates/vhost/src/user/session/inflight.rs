//! The region in which a back-end keeps what it has taken and not returned, for whoever comes after it (vhost-user, "Inflight I/O
//! tracking"). A front-end holds the file and never looks into it.
//!
//! For each ring there is a head that says where the ring stands, and an entry for each descriptor. Who returns chains in the order
//! in which they were taken needs no entries: what is in flight lies between the place that the head tells and the end of what is
//! available. So they stay zero here, and cost no memory. Behind all that the data path can have words of its own for each packed ring;
//! other back-ends do not look there.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;

use ringway_mem::{WordFile, Words};
use rustix::fs::{MemfdFlags, SealFlags};

use super::{Event, Owed, Session, SessionError};
use crate::user::features::{VHOST_USER_PROTOCOL_F_INFLIGHT_SHMFD, VIRTIO_F_RING_PACKED, has};
use crate::user::message::{InflightArea, Request};

/// Files that are made on one connection. A front-end asks once, and once more when it has more rings.
pub(super) const FILES: u32 = 4;
/// Most descriptors of a ring.
const LARGEST_RING: u16 = 32768;
/// Regions of rings begin at multiples of this (`INFLIGHT_ALIGNMENT` in DPDK, `VIRTQ_INFLIGHT_ALIGN` elsewhere).
const ALIGNMENT: usize = 64;
/// Bytes of a word.
const WORD: usize = 8;
/// The version of a head that is in use.
const VERSION: u64 = 1;

/// `QueueRegionSplit` and `QueueRegionPacked`: words of the head, then entries.
struct Layout {
    head: usize,
    entry: usize,
    /// The word with the used index.
    position: usize,
}

const SPLIT: Layout = Layout {
    head: 2,
    entry: 2,
    position: 1,
};
/// The head has 29 bytes; entries are aligned to 8.
const PACKED: Layout = Layout {
    head: 4,
    entry: 4,
    position: 2,
};
/// The word with version (bits 0-15) and number of entries (bits 16-31), of both.
const HEAD_WORD: usize = 1;
/// `used_wrap_counter` and `old_used_wrap_counter` of a ring that starts.
const FIRST_LAP: u64 = 1 << 32 | 1 << 40;

const fn layout(packed: bool) -> Layout {
    if packed { PACKED } else { SPLIT }
}

/// Words of one ring's region.
const fn stride(packed: bool, ring_size: u16) -> usize {
    let Layout { head, entry, .. } = layout(packed);
    (WORD * (head + entry * ring_size as usize)).next_multiple_of(ALIGNMENT) / WORD
}

/// A region that a front-end gave us, mapped.
pub struct InflightRegion {
    words: Arc<WordFile>,
    rings: u16,
    ring_size: u16,
    packed: bool,
    /// Words behind the regions of the rings for each of them; 0 = it was made by somebody else.
    extra: usize,
}

impl InflightRegion {
    /// Maps what is needed of `area` in `file`, which may be smaller than it says.
    fn map(
        file: OwnedFd,
        area: InflightArea,
        packed: bool,
        extra: usize,
    ) -> Result<Self, SessionError> {
        let InflightArea {
            size,
            offset,
            rings,
            ring_size,
        } = area;
        let request = Request::SetInflightFd.id();
        let count = usize::from(rings) * stride(packed, ring_size);
        let whole = count + usize::from(rings) * extra;
        let has_room = |words: usize| size >= (WORD * words) as u64;
        if !has_room(count) {
            return Err(SessionError::InflightArea { request, area });
        }
        let (extra, count) = if has_room(whole) {
            (extra, whole)
        } else {
            (0, count)
        };
        let words = WordFile::map_at(file, offset, count)
            .map_err(|source| SessionError::Memory { request, source })?;
        let region = Self {
            words: Arc::new(words),
            rings,
            ring_size,
            packed,
            extra,
        };
        for ring in 0..usize::from(rings) {
            region.begin(ring);
        }
        Ok(region)
    }

    /// The region of a session that another process began, whose driver took `features` and whose data path wants `extra` words.
    ///
    /// # Errors
    ///
    /// When the file shrank meanwhile, or cannot be mapped.
    pub fn resume(
        file: OwnedFd,
        area: InflightArea,
        features: u64,
        extra: usize,
    ) -> Result<Self, SessionError> {
        let packed = has(features, VIRTIO_F_RING_PACKED);
        Self::map(file, area, packed, if packed { extra } else { 0 })
    }

    /// Where it lies, for whoever goes on with the session.
    #[must_use]
    pub fn file(&self) -> Option<(InflightArea, BorrowedFd<'_>)> {
        let mapped = self.words.file()?;
        let area = InflightArea {
            size: mapped.size,
            offset: mapped.mmap_offset,
            rings: self.rings,
            ring_size: self.ring_size,
        };
        Some((area, mapped.file))
    }

    /// Whether it is for packed rings.
    #[must_use]
    pub fn is_packed(&self) -> bool {
        self.packed
    }

    /// The word that holds the used index of a ring, if the ring has a region.
    #[must_use]
    pub fn position(&self, ring: usize) -> Option<Words> {
        let Layout { position, .. } = layout(self.packed);
        if ring >= usize::from(self.rings) {
            return None;
        }
        let start = ring * stride(self.packed, self.ring_size);
        Some(self.words.words(start + position, 1))
    }

    /// The words that the data path has for a ring, if there are any.
    #[must_use]
    pub fn extra(&self, ring: usize) -> Option<Words> {
        let rings = usize::from(self.rings);
        if self.extra == 0 || ring >= rings {
            return None;
        }
        let start = rings * stride(self.packed, self.ring_size) + ring * self.extra;
        Some(self.words.words(start, self.extra))
    }

    /// Sets up a head that nobody has used.
    fn begin(&self, ring: usize) {
        let Layout { head, position, .. } = layout(self.packed);
        let start = ring * stride(self.packed, self.ring_size);
        let words = self.words.words(start, head);
        if words.load(HEAD_WORD) & 0xffff != 0 {
            return;
        }
        words.store(0, 0);
        if self.packed {
            words.store(position, FIRST_LAP);
        }
        words.store(HEAD_WORD, VERSION | u64::from(self.ring_size) << 16);
    }
}

/// It is the same when it is the same mapping.
impl PartialEq for InflightRegion {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.words, &other.words)
    }
}

impl Session {
    /// The data path wants so many words of its own for each packed ring, in every region that is made here.
    #[must_use]
    pub fn with_inflight_words(mut self, extra: usize) -> Self {
        self.inflight_words = extra;
        self
    }

    /// The answer has `answer` bytes, as the question had.
    pub(super) fn get_inflight_fd(
        &mut self,
        asked: InflightArea,
        answer: usize,
    ) -> Result<(Event, Owed), SessionError> {
        let request = Request::GetInflightFd;
        let area = InflightArea {
            size: 0,
            offset: 0,
            ..asked
        };
        self.check_inflight(request, area)?;
        if self.inflight_files == FILES {
            return Err(SessionError::InflightFiles { count: FILES });
        }
        self.inflight_files += 1;
        let (packed, rings) = (self.is_packed(), usize::from(area.rings));
        let words = rings * (stride(packed, area.ring_size) + self.extra(packed));
        let area = InflightArea {
            size: (WORD * words) as u64,
            ..area
        };
        let failed = |source| SessionError::Descriptor {
            request: request.id(),
            source,
        };
        let file = sealed(area.size).map_err(failed)?;
        let copy = file.try_clone().map_err(failed)?;
        // For the heads alone: it is used when it comes back.
        drop(InflightRegion::map(copy, area, packed, self.extra(packed))?);
        Ok((
            Event::Answered,
            Owed::File(area.bytes()[..answer].to_vec(), file),
        ))
    }

    pub(super) fn set_inflight_fd(
        &mut self,
        area: InflightArea,
        file: OwnedFd,
    ) -> Result<Event, SessionError> {
        self.check_inflight(Request::SetInflightFd, area)?;
        let packed = self.is_packed();
        let region = InflightRegion::map(file, area, packed, self.extra(packed))?;
        self.state.inflight = Some(Arc::new(region));
        Ok(Event::Inflight)
    }

    /// A split ring has its indices in memory, and needs no words.
    fn extra(&self, packed: bool) -> usize {
        if packed { self.inflight_words } else { 0 }
    }

    fn check_inflight(&self, request: Request, area: InflightArea) -> Result<(), SessionError> {
        self.require(request, VHOST_USER_PROTOCOL_F_INFLIGHT_SHMFD)?;
        let InflightArea {
            rings, ring_size, ..
        } = area;
        let possible = (1..=self.state.vrings.len()).contains(&usize::from(rings))
            && (1..=LARGEST_RING).contains(&ring_size)
            && (self.is_packed() || ring_size.is_power_of_two());
        if possible {
            Ok(())
        } else {
            let request = request.id();
            Err(SessionError::InflightArea { request, area })
        }
    }
}

/// A file that cannot shrink, so that who maps it is not surprised.
fn sealed(size: u64) -> io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let file = rustix::fs::memfd_create("ringway-inflight", flags)?;
    rustix::fs::ftruncate(&file, size)?;
    rustix::fs::fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
    Ok(file)
}
