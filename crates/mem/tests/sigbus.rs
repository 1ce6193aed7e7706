//! Files that shrink while they are mapped: the process lives, the memory is poisoned, and only that one.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::sync::{Arc, Barrier};

use ringway_mem::{GuestMemory, LastHit, RegionRequest, WriteSlice, io, sigbus};
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};

const PAGE: usize = 4096;

fn plain_file(name: &str, size: u64) -> OwnedFd {
    let path = std::env::temp_dir().join(format!("ringway-mem-{name}-{}", std::process::id()));
    let file = File::create_new(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    file.set_len(size).unwrap();
    file.into()
}

fn map(file: &OwnedFd, size: u64) -> GuestMemory {
    GuestMemory::map(vec![RegionRequest {
        guest_address: 0,
        size,
        user_address: 0,
        mmap_offset: 0,
        file: file.try_clone().unwrap(),
    }])
    .unwrap()
}

/// Shrinks the file under the memory and touches it in each way.
fn survives(file: &OwnedFd, size: u64) {
    sigbus::install().unwrap();
    type Touch = fn(&GuestMemory);
    let touches: [Touch; 4] = [
        |memory| {
            let mut out = [0xaa; 3000];
            let slice = memory.read(&mut LastHit::default(), 100, 3000).unwrap();
            assert_eq!(slice.copy_to(&mut out), 3000);
            assert_eq!(out, [0; 3000]);
        },
        |memory| {
            let slice = memory.write(&mut LastHit::default(), 1, 100).unwrap();
            assert_eq!(slice.copy_from(&[1; 100]), 100);
        },
        |memory| {
            let mut private = [0; 40];
            let to = WriteSlice::from_private(&mut private);
            to.copy_from_guest(memory.read_prefix(0, 40).unwrap());
        },
        |memory| {
            let mut out = vec![0xaa; 40_000];
            memory.read_prefix(8, 40_000).unwrap().copy_to(&mut out);
            assert!(out.iter().all(|&byte| byte == 0));
        },
    ];
    for touch in touches {
        ftruncate(file, size).unwrap();
        let memory = map(file, size);
        let (other, _requests) = GuestMemory::memfd(&[(0, PAGE)]).unwrap();
        let shared = memory.with_added(RegionRequest {
            guest_address: 1 << 40,
            size: PAGE as u64,
            user_address: 1 << 40,
            mmap_offset: 0,
            file: plain_file("neighbour", PAGE as u64),
        });
        let shared = shared.unwrap();
        memory.write_prefix(0, 8).unwrap().copy_from(b"all fine");
        assert!(!memory.is_poisoned());

        ftruncate(file, 0).unwrap();
        assert!(!memory.is_poisoned(), "nobody has touched it yet");
        touch(&memory);
        assert!(memory.is_poisoned());
        assert!(shared.is_poisoned(), "it has the same mapping");
        assert!(!other.is_poisoned());
        let added = shared.with_removed(0, size, 0).unwrap();
        assert!(!added.is_poisoned(), "without the mapping it is sound");

        // Poisoned memory goes on to take what is written, for the rest of the burst.
        memory.write_prefix(8, 4).unwrap().copy_from(b"more");
        let mut out = [0; 4];
        memory.read_prefix(8, 4).unwrap().copy_to(&mut out);
        assert_eq!(&out, b"more");

        other.write_prefix(0, 4).unwrap().copy_from(b"live");
        drop((memory, shared, added));
        assert!(!other.is_poisoned());
    }
    ftruncate(file, size).unwrap();
    let fresh = map(file, size);
    assert!(!fresh.is_poisoned(), "poison does not outlive its mapping");
}

#[test]
fn a_memfd_shrinks() {
    let file = memfd_create("sigbus", MemfdFlags::CLOEXEC).unwrap();
    survives(&file, 64 * 1024);
}

#[test]
fn a_plain_file_shrinks() {
    survives(&plain_file("shrinks", 0), 64 * 1024);
}

#[test]
fn a_hugetlb_file_shrinks() {
    let huge = memfd_create("sigbus", MemfdFlags::CLOEXEC | MemfdFlags::HUGETLB);
    let file = match huge {
        Ok(file) => file,
        Err(error) => return println!("not tested: no hugetlb memfd here: {error}"),
    };
    let block = u64::try_from(rustix::fs::fstat(&file).unwrap().st_blksize).unwrap();
    let free = std::fs::read_to_string("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages");
    let free: u64 = free.map_or(0, |text| text.trim().parse().unwrap_or(0));
    if block != 2 << 20 || free < 2 {
        return println!("not tested: {free} huge pages of 2 MiB are free, 2 are needed");
    }
    survives(&file, 2 * block);
}

#[test]
fn words_of_a_ring_fault_too() {
    sigbus::install().unwrap();
    let file = memfd_create("sigbus", MemfdFlags::CLOEXEC).unwrap();
    ftruncate(&file, 8192).unwrap();
    let memory = Arc::new(map(&file, 8192));
    let area = memory.area(0, 8192, 16).unwrap();
    area.store_u16(4096, 5);
    ftruncate(&file, 4096).unwrap();
    assert_eq!(area.load_acquire_u16(0), 0);
    assert!(!memory.is_poisoned(), "the first page is still there");
    assert_eq!(area.load_acquire_u16(4096), 0);
    assert!(memory.is_poisoned());
}

#[test]
fn many_threads_fault_at_once() {
    sigbus::install().unwrap();
    const LEN: u32 = 64 * 4096;
    for _ in 0..20 {
        let (memory, requests) = GuestMemory::memfd(&[(0, LEN as usize)]).unwrap();
        ftruncate(&requests[0].file, 0).unwrap();
        let barrier = Barrier::new(4);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    barrier.wait();
                    let mut out = vec![0xaa; LEN as usize];
                    memory.read_prefix(0, LEN).unwrap().copy_to(&mut out);
                    assert!(memory.is_poisoned());
                    assert!(out.iter().all(|&byte| byte == 0));
                });
            }
        });
    }
}

#[test]
fn system_calls_answer_efault_without_a_signal() {
    let (memory, requests) = GuestMemory::memfd(&[(0, PAGE)]).unwrap();
    ftruncate(&requests[0].file, 0).unwrap();
    let (reader, writer) = rustix::pipe::pipe().unwrap();
    let error = io::writev(writer.as_fd(), b"", &[memory.read_prefix(0, 10).unwrap()]);
    assert_eq!(error.unwrap_err().raw_os_error(), Some(libc::EFAULT));
    io::writev(writer.as_fd(), b"some", &[]).unwrap();
    let error = io::readv(reader.as_fd(), &[memory.write_prefix(0, 10).unwrap()]);
    assert_eq!(error.unwrap_err().raw_os_error(), Some(libc::EFAULT));
    assert!(!memory.is_poisoned());
}

/// Tells the test below, run again as a child, which end to take.
const CHILD: &str = "RINGWAY_MEM_SIGBUS_CHILD";

#[test]
fn a_fault_elsewhere_ends_the_process_as_it_would_have() {
    if let Ok(end) = std::env::var(CHILD) {
        child(&end);
    }
    let run = |end: &str| {
        let name = "a_fault_elsewhere_ends_the_process_as_it_would_have";
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(["--exact", name, "--test-threads=1"])
            .env(CHILD, end);
        command.output().unwrap().status
    };
    assert_eq!(run("own mapping").signal(), Some(libc::SIGBUS));
    assert_eq!(run("after a rescue").signal(), Some(libc::SIGBUS));
    assert_eq!(run("sent").signal(), Some(libc::SIGBUS));
    // The handler that the standard library installs lets the first signal pass; the guard adds nothing to that.
    assert_eq!(
        run("sent, default handler").code(),
        run("sent, no guard").code()
    );
    assert_eq!(run("other handler").code(), Some(42));
    assert_eq!(run("install twice").code(), Some(42));
}

fn child(end: &str) -> ! {
    extern "C" fn other_handler(_: libc::c_int) {
        // SAFETY: ends the process, async-signal-safe.
        unsafe { libc::_exit(42) };
    }
    let no_core = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: a plain system call on a local.
    unsafe { libc::setrlimit(libc::RLIMIT_CORE, &no_core) };
    if matches!(end, "other handler" | "install twice") {
        // SAFETY: the handler only ends the process.
        unsafe { libc::signal(libc::SIGBUS, other_handler as *const () as usize) };
    }
    if end == "sent" {
        // SAFETY: the default disposition needs nothing.
        unsafe { libc::signal(libc::SIGBUS, libc::SIG_DFL) };
    }
    if end != "sent, no guard" {
        sigbus::install().unwrap();
    }
    if end == "install twice" {
        sigbus::install().unwrap();
    }
    if end == "after a rescue" {
        let (memory, requests) = GuestMemory::memfd(&[(0, PAGE)]).unwrap();
        ftruncate(&requests[0].file, 0).unwrap();
        memory.read_prefix(0, 8).unwrap().copy_to(&mut [0; 8]);
        assert!(memory.is_poisoned());
    }
    if end.starts_with("sent") {
        // To this thread, so that it has been handled when the call returns.
        // SAFETY: a plain system call.
        unsafe { libc::raise(libc::SIGBUS) };
        std::process::exit(3);
    }
    let file = plain_file("child", 0);
    let flags = libc::MAP_SHARED;
    let fd = std::os::fd::AsRawFd::as_raw_fd(&file);
    // SAFETY: a new mapping; the read is meant to raise SIGBUS.
    unsafe {
        let page = libc::mmap(std::ptr::null_mut(), PAGE, libc::PROT_READ, flags, fd, 0);
        assert!(page != libc::MAP_FAILED);
        page.cast::<u8>().read_volatile();
    }
    std::process::exit(3);
}
