//! Which pages a dirty log marks, and what it refuses.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use ringway_mem::{DirtyLog, GuestMemory, LastHit, MemoryError, WriteSlice, sigbus};
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use rustix::io::{pread, pwrite};

const PAGE: u64 = 4096;

fn file(size: u64) -> OwnedFd {
    let file = memfd_create("log", MemfdFlags::CLOEXEC).unwrap();
    ftruncate(&file, size).unwrap();
    file
}

/// A log of `size` bytes at `offset`, in a file that ends 8 bytes later.
fn log(size: u64, offset: u64) -> (DirtyLog, OwnedFd) {
    let file = file(offset + size + 8);
    let log = DirtyLog::map(file.try_clone().unwrap(), size, offset).unwrap();
    (log, file)
}

fn bytes(file: &OwnedFd) -> Vec<u8> {
    let size = rustix::fs::fstat(file).unwrap().st_size;
    let mut bytes = vec![0; usize::try_from(size).unwrap()];
    assert_eq!(pread(file, &mut bytes, 0).unwrap(), bytes.len());
    bytes
}

/// Pages that are marked, and resets the log.
fn pages(file: &OwnedFd) -> Vec<u64> {
    let bytes = bytes(file);
    pwrite(file, &vec![0; bytes.len()], 0).unwrap();
    let marked = (0..bytes.len() * 8).filter(|page| bytes[page / 8] & 1 << (page % 8) != 0);
    marked.map(|page| page as u64).collect()
}

#[test]
fn exactly_the_pages_with_a_byte_of_the_run_are_marked() {
    let (log, file) = log(8, 0);
    for (address, len, wanted) in [
        (0, 1, 0..1),
        (PAGE - 1, 1, 0..1),
        (PAGE - 1, 2, 0..2),
        (PAGE, PAGE, 1..2),
        (PAGE, PAGE + 1, 1..3),
        (3 * PAGE + 17, 4 * PAGE, 3..8),
        (7 * PAGE + 4095, 2, 7..9),
        (5 * PAGE + 1, 30 * PAGE, 5..36),
        (8 * PAGE, 8 * PAGE, 8..16),
        (0, 64 * PAGE, 0..64),
        (63 * PAGE + 4095, 1, 63..64),
        (9 * PAGE, 0, 0..0),
    ] {
        log.mark(address, len);
        assert_eq!(
            pages(&file),
            wanted.collect::<Vec<_>>(),
            "{address:#x} + {len:#x}"
        );
    }
}

#[test]
fn nothing_is_marked_beyond_the_log() {
    let (log, file) = log(2, 0);
    for (address, len) in [
        (16 * PAGE, 1),
        (16 * PAGE, u64::MAX),
        (u64::MAX, 1),
        (u64::MAX, u64::MAX),
        (u64::MAX - PAGE, 2 * PAGE),
        (1 << 63, 1 << 63),
    ] {
        log.mark(address, len);
        assert_eq!(pages(&file), [0; 0], "{address:#x} + {len:#x}");
    }
    // What is inside is marked all the same.
    log.mark(15 * PAGE + 100, PAGE);
    assert_eq!(pages(&file), [15]);
    log.mark(15 * PAGE, u64::MAX);
    assert_eq!(pages(&file), [15]);
    log.mark(6 * PAGE, u64::MAX - 3 * PAGE);
    assert_eq!(pages(&file), Vec::from_iter(6..16));
}

#[test]
fn a_log_begins_at_its_offset_aligned_or_not() {
    for offset in [0, 1, 4095, 4096, 10_001] {
        let (log, file) = log(3, offset);
        log.mark(0, 1);
        log.mark(23 * PAGE, 5 * PAGE);
        let shift = offset * 8;
        assert_eq!(pages(&file), [shift, shift + 23]);
    }
}

#[test]
fn marks_of_several_threads_and_of_the_front_end_are_kept() {
    let (log, file) = log(1, 0);
    let log = Arc::new(log);
    pwrite(&file, &[0b100], 0).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let log = log.clone();
            scope.spawn(move || (0..10_000).for_each(|_| log.mark(thread * PAGE, 1)));
        }
    });
    assert_eq!(bytes(&file)[0], u8::MAX);
}

#[test]
fn log_size_and_offset_lie_in_the_file() {
    let map = |file_size, size, offset| DirtyLog::map(file(file_size), size, offset).map(drop);
    assert!(map(100, 40, 60).is_ok());
    let error = map(100, 41, 60).unwrap_err();
    assert!(matches!(
        error,
        MemoryError::ShortFile {
            file_size: 100,
            end: 101
        }
    ));
    let error = map(100, 0, 60).unwrap_err();
    assert!(matches!(error, MemoryError::EmptyRegion { .. }));
    for (size, offset) in [(u64::MAX, 1), (1, u64::MAX), (1 << 63, 1 << 63)] {
        let error = map(100, size, offset).unwrap_err();
        assert!(matches!(error, MemoryError::OffsetOverflow { .. }));
    }
    let (reader, _writer) = rustix::pipe::pipe().unwrap();
    assert!(DirtyLog::map(reader, 1, 0).is_err());
}

#[test]
fn a_log_whose_file_shrank_is_poisoned_and_ends_nothing() {
    sigbus::install().unwrap();
    let (log, file) = log(2 * PAGE, 0);
    log.mark(0, 1);
    ftruncate(file.as_fd(), 0).unwrap();
    assert!(!log.is_poisoned(), "nobody has touched it yet");
    log.mark(8 * PAGE * PAGE, 1);
    assert!(log.is_poisoned());
    log.mark(0, u64::MAX);
    let (other, _file) = self::log(8, 0);
    assert!(!other.is_poisoned());
}

#[test]
fn a_slice_of_guest_memory_knows_its_guest_address() {
    let memory = Arc::new(GuestMemory::heap(&[(0x1000, 0x2000), (1 << 40, 0x1000)]));
    let slice = |address, len| memory.write(&mut LastHit::default(), address, len);
    for address in [0x1000, 0x2fff, 1 << 40, (1 << 40) + 0xfff] {
        let slice = slice(address, 1).unwrap();
        assert_eq!(memory.guest_address(slice), Some(address));
    }
    let later = slice(0x1000, 0x100).unwrap().skip(0x80);
    assert_eq!(memory.guest_address(later), Some(0x1080));
    let mut private = [0; 16];
    let private = WriteSlice::from_private(&mut private);
    assert_eq!(memory.guest_address(private), None);
    let alone = GuestMemory::heap(&[(0x1000, 0x2000)]);
    let whole = alone.write(&mut LastHit::default(), 0x1000, 0x2000);
    let end = whole.unwrap().skip(0x2000);
    assert_eq!(alone.guest_address(end), None, "the end is not in it");
    let area = memory.area(0x1040, 16, 16).unwrap();
    assert_eq!(area.guest_address(), Some(0x1040));
}
