//! The guard against files that shrink while they are mapped.
//!
//! A front-end owns the files behind a guest's memory and may truncate them at any time; seals prevent it for memfds that carry them,
//! nothing does for hugetlbfs and plain files. Touching a page beyond the end raises SIGBUS in the thread that touches. The handler
//! looks the address up in a fixed table of slots, one for each mapped file. When it is in one, the slot is marked as poisoned and
//! zeroed anonymous pages replace the mapping, so that the access goes on and finds zeroes. Before anything is published the data
//! path asks [`is_poisoned`](crate::GuestMemory::is_poisoned) and stops the one device. When it is in none, the previous disposition
//! is restored and the access happens again, so that the process ends as it would have.
//!
//! The handler uses atomics, mmap, sigaction and raise, nothing else; a system call filter must allow these, with `MAP_FIXED`.
//! The whole mapping is replaced at once: its length is a multiple of its file's page size, while a part of a huge page cannot be
//! replaced (`EINVAL`), and pages of the ordinary size need no free huge page.

use std::io;
use std::mem::MaybeUninit;
use std::ptr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering, compiler_fence};

use crate::MemoryError;

/// File mappings that the process can guard: eight full tables, or more than two thousand ordinary guests.
const SLOTS: usize = 4096;

static TABLE: [Entry; SLOTS] = [const { Entry::new() }; SLOTS];

/// How many slots are poisoned now.
static POISONED: AtomicUsize = AtomicUsize::new(0);

/// What SIGBUS did before; null until the handler is installed.
static PREVIOUS: AtomicPtr<libc::sigaction> = AtomicPtr::new(ptr::null_mut());

/// Installs the handler for the whole process. Further calls do nothing.
pub fn install() -> Result<(), MemoryError> {
    static LOCK: Mutex<()> = Mutex::new(());
    let _guard = LOCK.lock().unwrap_or_else(|poison| poison.into_inner());
    if !PREVIOUS.load(Ordering::SeqCst).is_null() {
        return Ok(());
    }
    // Asked of the system once; later, in a sandbox, the process may not be able to.
    let _ = rustix::param::page_size();
    let failed = || MemoryError::Install(io::Error::last_os_error());
    let mut previous = MaybeUninit::<libc::sigaction>::uninit();
    // SAFETY: asks for the current action only; the pointer is to a local of the right type.
    if unsafe { libc::sigaction(libc::SIGBUS, ptr::null(), previous.as_mut_ptr()) } != 0 {
        return Err(failed());
    }
    // SAFETY: the call succeeded and so filled it in.
    let previous = Box::into_raw(Box::new(unsafe { previous.assume_init() }));
    // Known before the handler can run.
    PREVIOUS.store(previous, Ordering::SeqCst);
    // SAFETY: all-zero bytes are a valid sigaction: default action, empty mask, no flags.
    let mut action: libc::sigaction = unsafe { MaybeUninit::zeroed().assume_init() };
    action.sa_sigaction = handler as *const () as usize;
    action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_RESTART;
    // SAFETY: the handler is async-signal-safe and has the signature that SA_SIGINFO asks for.
    if unsafe { libc::sigaction(libc::SIGBUS, &action, ptr::null_mut()) } != 0 {
        let error = failed();
        PREVIOUS.store(ptr::null_mut(), Ordering::SeqCst);
        // SAFETY: made by `Box::into_raw` above, and no handler runs that could have read it.
        drop(unsafe { Box::from_raw(previous) });
        return Err(error);
    }
    Ok(())
}

/// Whether any slot is poisoned, seeing every fault that this thread took before.
#[inline(always)]
pub(crate) fn any_poisoned() -> bool {
    // The handler runs on the thread that faults: the load only has to stay behind the access.
    compiler_fence(Ordering::SeqCst);
    POISONED.load(Ordering::Relaxed) != 0
}

/// A guarded mapping, given up when dropped, which must be before the mapping is unmapped.
pub(crate) struct Slot(&'static Entry);

impl Slot {
    /// Guards `len` bytes from `start`, a whole mapping.
    pub(crate) fn claim(start: usize, len: usize) -> Result<Self, MemoryError> {
        match TABLE.iter().find(|entry| entry.claim(start, len)) {
            Some(entry) => Ok(Self(entry)),
            None => Err(MemoryError::TooManyMappings { max: SLOTS }),
        }
    }

    pub(crate) fn is_poisoned(&self) -> bool {
        self.0.poisoned.load(Ordering::SeqCst)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.release();
    }
}

struct Entry {
    /// Goes up by one with every change; modulo 4 it is free, being filled, live, being emptied. A reader that finds the same live
    /// version before and after has seen one mapping's numbers.
    version: AtomicUsize,
    start: AtomicUsize,
    len: AtomicUsize,
    poisoned: AtomicBool,
}

const FREE: usize = 0;
const LIVE: usize = 2;

impl Entry {
    const fn new() -> Self {
        Self {
            version: AtomicUsize::new(0),
            start: AtomicUsize::new(0),
            len: AtomicUsize::new(0),
            poisoned: AtomicBool::new(false),
        }
    }

    fn claim(&self, start: usize, len: usize) -> bool {
        let version = self.version.load(Ordering::SeqCst);
        let filling = version.wrapping_add(1);
        let order = Ordering::SeqCst;
        if version % 4 != FREE
            || self
                .version
                .compare_exchange(version, filling, order, order)
                .is_err()
        {
            return false;
        }
        self.start.store(start, Ordering::SeqCst);
        self.len.store(len, Ordering::SeqCst);
        self.version.fetch_add(1, Ordering::SeqCst);
        true
    }

    fn release(&self) {
        self.version.fetch_add(1, Ordering::SeqCst);
        if self.poisoned.swap(false, Ordering::SeqCst) {
            POISONED.fetch_sub(1, Ordering::SeqCst);
        }
        self.version.fetch_add(1, Ordering::SeqCst);
    }

    /// Poisons the mapping and puts zeroed pages in its place, when `address` is in it.
    fn rescue(&self, address: usize) -> bool {
        let version = self.version.load(Ordering::SeqCst);
        let start = self.start.load(Ordering::SeqCst);
        let len = self.len.load(Ordering::SeqCst);
        let consistent = version % 4 == LIVE && self.version.load(Ordering::SeqCst) == version;
        if !consistent || address.wrapping_sub(start) >= len {
            return false;
        }
        // Poisoned before the zeroes are there for others to read.
        if !self.poisoned.swap(true, Ordering::SeqCst) {
            POISONED.fetch_add(1, Ordering::SeqCst);
        }
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED | libc::MAP_NORESERVE;
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let start = ptr::without_provenance_mut(start);
        // SAFETY: replaces a guest mapping of ours and nothing else: the slot is given up before its mapping is unmapped, and this
        // one cannot be, because the thread that faulted in it borrows it.
        unsafe { libc::mmap(start, len, protection, flags, -1, 0) != libc::MAP_FAILED }
    }
}

extern "C" fn handler(
    signal: libc::c_int,
    info: *mut libc::siginfo_t,
    _context: *mut libc::c_void,
) {
    // SAFETY: the kernel hands a valid siginfo to a SA_SIGINFO handler; a positive code means that the address is filled in.
    let (from_kernel, address) = unsafe { ((*info).si_code > 0, (*info).si_addr().addr()) };
    // SAFETY: errno is this thread's own; the code that was interrupted must find it unchanged.
    let errno = unsafe { *libc::__errno_location() };
    if !(from_kernel && TABLE.iter().any(|entry| entry.rescue(address))) {
        let previous = PREVIOUS.load(Ordering::SeqCst);
        // SAFETY: the previous action was stored before the handler was installed and is never freed after. Both calls are
        // async-signal-safe. A fault happens again on return; a signal that was sent must be sent again.
        unsafe {
            libc::sigaction(signal, previous, ptr::null_mut());
            if !from_kernel {
                libc::raise(signal);
            }
        }
    }
    // SAFETY: as above.
    unsafe { *libc::__errno_location() = errno };
}
