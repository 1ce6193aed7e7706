//! The file in which a vhost-user port keeps where its packed rings stand, for whoever serves them when this
//! process is killed. A split ring has its used index in memory and needs no such thing.
//!
//! A line of words about the file, then for each ring what it is known by and the words it writes to
//! (`ringway_ring::JOURNAL_WORDS`). The first of those is zero in a ring that was stopped in peace: then the
//! front-end knows where it stands. A file in which no ring goes on is removed in the end.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ringway_mem::{MemoryError, WordFile};
use rustix::fs::{FallocateFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::keeper::{ENTRY_WORDS, Entry};

/// The first word: what the file is, and in which form.
const MAGIC: u64 = u64::from_le_bytes(*b"ringway1");
/// Words about the file: [`MAGIC`], the number of rings.
const HEAD: usize = 8;

/// A port's journal.
pub struct Journal {
    words: Arc<WordFile>,
    rings: usize,
    /// Path and inode; `None` = opened by somebody else.
    file: Option<(PathBuf, u64)>,
    /// Whether the file is ours to remove.
    removes: AtomicBool,
}

/// Why there is no journal.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The file cannot be opened, or has no room.
    #[error("{0}")]
    File(#[from] io::Error),
    /// It is a directory, a device or the like.
    #[error("it is no regular file with one name")]
    NoFile,
    /// Somebody else could say where our rings stand.
    #[error("others may write to it")]
    NotOurs,
    /// It cannot be mapped.
    #[error("{0}")]
    Map(#[from] MemoryError),
}

impl Journal {
    /// Opens or makes the file at `path`, for so many queue pairs.
    pub fn open(path: &Path, queue_pairs: u16) -> Result<Self, JournalError> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let mode = Mode::RUSR | Mode::WUSR;
        let file =
            rustix::fs::open(path, flags | OFlags::CLOEXEC, mode).map_err(io::Error::from)?;
        let inode = rustix::fs::fstat(&file).map_err(io::Error::from)?.st_ino;
        let mut journal = Self::adopt(file, queue_pairs)?;
        journal.file = Some((path.into(), inode));
        journal.set_owner(true);
        Ok(journal)
    }

    /// Says whether the file is removed with the journal, if no ring in it goes on; see [`open`](Self::open).
    pub fn set_owner(&self, ours: bool) {
        self.removes.store(ours, Ordering::Relaxed);
    }

    /// A file that somebody else opened, and removes.
    pub fn adopt(file: OwnedFd, queue_pairs: u16) -> Result<Self, JournalError> {
        let rings = 2 * usize::from(queue_pairs);
        let count = HEAD + rings * ENTRY_WORDS;
        let len = 8 * count as u64;
        let stat = rustix::fs::fstat(&file).map_err(io::Error::from)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile || stat.st_nlink > 1 {
            return Err(JournalError::NoFile);
        }
        let others = Mode::from_raw_mode(stat.st_mode) & (Mode::WGRP | Mode::WOTH);
        if stat.st_uid != rustix::process::geteuid().as_raw() || !others.is_empty() {
            return Err(JournalError::NotOurs);
        }
        if u64::try_from(stat.st_size) != Ok(len) {
            rustix::fs::ftruncate(&file, 0).map_err(io::Error::from)?;
            // With its blocks, so that a full file system is met here and not by a worker.
            match rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, len) {
                Err(Errno::OPNOTSUPP) => rustix::fs::ftruncate(&file, len),
                other => other,
            }
            .map_err(io::Error::from)?;
        }
        let words = Arc::new(WordFile::map(file, count)?);
        let journal = Self {
            words,
            rings,
            file: None,
            removes: AtomicBool::new(false),
        };
        let head = journal.words.words(0, HEAD);
        if head.load(0) != MAGIC || head.load(1) != rings as u64 {
            journal.entries().for_each(|entry| entry.forget());
            head.store(1, rings as u64);
            head.store(0, MAGIC);
        }
        Ok(journal)
    }

    /// Where a journal lies that belongs to the socket at `path`.
    pub fn beside(path: &Path) -> PathBuf {
        let mut name = path.as_os_str().to_owned();
        name.push(".journal");
        name.into()
    }

    /// Where ring `ring` writes, if there are as many.
    pub(super) fn entry(&self, ring: usize) -> Option<Entry> {
        (ring < self.rings)
            .then(|| Entry::new(&self.words.words(HEAD + ring * ENTRY_WORDS, ENTRY_WORDS)))
    }

    fn entries(&self) -> impl Iterator<Item = Entry> {
        (0..self.rings).filter_map(|ring| self.entry(ring))
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        let goes_on = self.entries().any(|entry| entry.goes_on());
        if let Some((path, inode)) = &self.file
            && self.removes.load(Ordering::Relaxed)
            && !goes_on
            && path
                .symlink_metadata()
                .is_ok_and(|metadata| metadata.ino() == *inode)
        {
            let _ = std::fs::remove_file(path);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let name = format!("ringway-journal-{name}-{}", std::process::id());
            let folder = Self(std::env::temp_dir().join(name));
            std::fs::create_dir_all(&folder.0).unwrap();
            folder
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn a_file_that_is_not_ours_alone_is_no_journal() {
        let folder = Folder::new("refused");
        let at = |name: &str| folder.0.join(name);
        std::fs::write(at("precious"), "precious").unwrap();
        symlink(at("precious"), at("link")).unwrap();
        assert!(matches!(
            Journal::open(&at("link"), 1),
            Err(JournalError::File(_))
        ));
        std::fs::hard_link(at("precious"), at("second")).unwrap();
        assert!(matches!(
            Journal::open(&at("second"), 1),
            Err(JournalError::NoFile)
        ));
        std::fs::create_dir(at("folder")).unwrap();
        assert!(matches!(
            Journal::open(&at("folder"), 1),
            Err(JournalError::File(_))
        ));
        assert!(matches!(
            Journal::open(&at("none/here"), 1),
            Err(JournalError::File(_))
        ));
        rustix::fs::mknodat(rustix::fs::CWD, at("pipe"), FileType::Fifo, Mode::RWXU, 0).unwrap();
        assert!(matches!(
            Journal::open(&at("pipe"), 1),
            Err(JournalError::NoFile)
        ));
        std::fs::write(at("open"), "").unwrap();
        std::fs::set_permissions(at("open"), std::fs::Permissions::from_mode(0o620)).unwrap();
        assert!(matches!(
            Journal::open(&at("open"), 1),
            Err(JournalError::NotOurs)
        ));
        assert_eq!(std::fs::read(at("precious")).unwrap(), b"precious");
    }

    #[test]
    fn the_file_is_there_as_long_as_it_says_something() {
        let folder = Folder::new("lives");
        let path = Journal::beside(&folder.0.join("a"));
        let open = |pairs| Journal::open(&path, pairs).unwrap();
        let journal = open(2);
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        journal.entry(3).unwrap().record().store(0, 7);
        drop(journal);
        let journal = open(2);
        assert_eq!(journal.entry(3).unwrap().record().load(0), 7);
        drop(journal);
        // Another number of rings: nothing is known of any.
        let journal = open(1);
        assert!(!journal.entries().any(|entry| entry.goes_on()));
        drop(journal);
        assert!(!path.exists());
        // Whatever was there before.
        let len = 8 * (HEAD + 2 * ENTRY_WORDS);
        std::fs::write(&path, vec![0xff; len]).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        let journal = open(1);
        assert!(!journal.entries().any(|entry| entry.goes_on()));
        // A file that took its place is not ours to remove.
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, "precious").unwrap();
        drop(journal);
        assert_eq!(std::fs::read(&path).unwrap(), b"precious");
    }
}
