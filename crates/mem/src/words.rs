//! Words in a file of our own, which outlive the process.

use std::fmt;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::region::Region;
use crate::{MappedFile, MemoryError, RegionRequest};

/// A file of words, mapped shared: what was stored is in the file even when the process is killed the moment after. Stores of one
/// thread get there in their order.
///
/// The file can shrink as memory files can, see [`sigbus`](crate::sigbus): the words are zeroes then, and what is stored is lost.
pub struct WordFile {
    region: Region,
    count: usize,
}

/// Words of a file side by side, which they keep mapped.
#[derive(Clone)]
pub struct Words {
    start: *mut u8,
    count: usize,
    file: Arc<WordFile>,
}

// SAFETY: the pointer names words that `file` keeps mapped; every access to them is atomic.
unsafe impl Send for Words {}
// SAFETY: as for `Send`.
unsafe impl Sync for Words {}

impl WordFile {
    /// Maps `count` words at the beginning of the file.
    pub fn map(file: OwnedFd, count: usize) -> Result<Self, MemoryError> {
        Self::map_at(file, 0, count)
    }

    /// The same from byte `offset` of the file on, which has to be a multiple of 8.
    pub fn map_at(file: OwnedFd, offset: u64, count: usize) -> Result<Self, MemoryError> {
        if !offset.is_multiple_of(8) {
            return Err(MemoryError::WordOffset { offset });
        }
        let region = Region::map(RegionRequest {
            guest_address: 0,
            size: (count as u64).saturating_mul(8),
            user_address: 0,
            mmap_offset: offset,
            file,
        })?;
        Ok(Self { region, count })
    }

    /// The file behind them.
    pub fn file(&self) -> Option<MappedFile<'_>> {
        self.region.file()
    }

    /// `count` words from word `first` on.
    ///
    /// # Panics
    ///
    /// When the file has not as many: the numbers are our own arithmetic.
    pub fn words(self: &Arc<Self>, first: usize, count: usize) -> Words {
        let end = first.checked_add(count);
        assert!(end.is_some_and(|end| end <= self.count));
        Words {
            start: self.region.start.wrapping_add(8 * first),
            count,
            file: Arc::clone(self),
        }
    }
}

impl Words {
    /// `count` of these words from word `first` on.
    ///
    /// # Panics
    ///
    /// When there are not as many.
    pub fn part(&self, first: usize, count: usize) -> Self {
        let end = first.checked_add(count);
        assert!(end.is_some_and(|end| end <= self.count));
        Self {
            start: self.start.wrapping_add(8 * first),
            count,
            file: Arc::clone(&self.file),
        }
    }

    /// Reads a word, and sees what was stored before it.
    #[inline]
    pub fn load(&self, index: usize) -> u64 {
        self.word(index).load(Ordering::Acquire)
    }

    /// Writes a word, after everything that this thread stored before.
    #[inline(always)]
    pub fn store(&self, index: usize, value: u64) {
        self.word(index).store(value, Ordering::Release);
    }

    /// How many there are.
    #[inline]
    pub fn count(&self) -> usize {
        self.count
    }

    #[inline(always)]
    fn word(&self, index: usize) -> &AtomicU64 {
        if index >= self.count {
            beyond(index, self.count);
        }
        // SAFETY: the index was just compared with the count, and `WordFile::words` saw to as many words inside the region (`part` takes
        // some of them). Its mapping begins at a page and it at a multiple of 8 in that, which `WordFile::map_at` checked: they are aligned.
        // `self.file` keeps it. Whoever else has the file mapped can store any value, and any is
        // valid.
        unsafe { AtomicU64::from_ptr(self.start.add(8 * index).cast()) }
    }
}

impl fmt::Debug for Words {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let file = self.file.count;
        f.debug_struct("Words")
            .field("count", &self.count)
            .field("file", &file)
            .finish_non_exhaustive()
    }
}

#[cold]
#[inline(never)]
fn beyond(index: usize, count: usize) -> ! {
    panic!("word {index} of {count}");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(bytes: u64) -> OwnedFd {
        let file = rustix::fs::memfd_create("words", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        rustix::fs::ftruncate(&file, bytes).unwrap();
        file
    }

    #[test]
    fn words_are_in_the_file_and_not_beyond_its_end() {
        let file = file(32);
        let map = |count| WordFile::map(file.try_clone().unwrap(), count).map(Arc::new);
        let words = map(4).unwrap().words(2, 2);
        words.store(1, 7);
        let again = map(4).unwrap().words(0, 4);
        assert_eq!([0, 3].map(|index| again.load(index)), [0, 7]);
        assert!(matches!(
            map(5),
            Err(MemoryError::ShortFile {
                file_size: 32,
                end: 40
            })
        ));
    }

    #[test]
    fn words_may_begin_inside_the_file_and_are_aligned() {
        let file = file(8192);
        let map = |offset, count| WordFile::map_at(file.try_clone().unwrap(), offset, count);
        let far = Arc::new(map(4096 + 8, 2).unwrap()).words(0, 2).part(1, 1);
        far.store(0, 7);
        assert_eq!(far.count(), 1);
        assert_eq!(
            Arc::new(map(0, 1024).unwrap()).words(0, 1024).load(512 + 2),
            7
        );
        assert!(matches!(
            map(4, 1),
            Err(MemoryError::WordOffset { offset: 4 })
        ));
        assert!(matches!(
            map(8192 - 8, 2),
            Err(MemoryError::ShortFile { .. })
        ));
        assert!(matches!(
            map(u64::MAX - 7, 2),
            Err(MemoryError::OffsetOverflow { .. })
        ));
    }

    #[test]
    fn a_file_that_shrinks_loses_its_words_and_nothing_else() {
        crate::sigbus::install().unwrap();
        let file = file(8);
        let words = Arc::new(WordFile::map(file.try_clone().unwrap(), 1).unwrap()).words(0, 1);
        words.store(0, 7);
        rustix::fs::ftruncate(&file, 0).unwrap();
        assert_eq!(words.load(0), 0);
        words.store(0, 8);
        assert_eq!(words.load(0), 8);
    }
}
