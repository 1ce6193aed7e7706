//! Ring memory in which loom explores what two threads may see of each other: every order of their accesses, and every value that an
//! access of its kind may still find.
//!
//! It stands in the place of `mem`'s words in this crate's unit tests, so what is explored is the code of both sides itself, down to
//! the word. Guest memory is there all the same; only the words of a ring lie elsewhere. They may be used inside [`explore`] alone.

mod notify;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use loom::sync::atomic::{self, AtomicU16, AtomicU32, AtomicU64, Ordering};
use ringway_mem::GuestMemory;

thread_local! {
    /// The parts of rings by user address. All threads of a model run on one thread of the system.
    static PARTS: RefCell<HashMap<u64, Arc<Part>>> = RefCell::default();
    static FENCED: Cell<bool> = const { Cell::new(true) };
}

/// Runs `model` once for every order of events, in each of which [`fence`] does what it says or, with `fenced` unset, nothing.
fn explore(fenced: bool, model: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    // A ring is laid out by many stores before there is anybody to see them.
    builder.max_branches = 10_000;
    builder.preemption_bound = Some(PREEMPTIONS);
    builder.check(move || {
        PARTS.with_borrow_mut(HashMap::clear);
        FENCED.set(fenced);
        model();
    });
}

/// Most times that a thread is interrupted where it could have gone on. What any two threads can do to each other shows with few.
const PREEMPTIONS: usize = 3;

/// One part of a ring: words by their offset, each always used in the same size.
type Part = Mutex<HashMap<usize, Word>>;

#[derive(Clone)]
enum Word {
    Two(Arc<AtomicU16>),
    Four(Arc<AtomicU32>),
    Eight(Arc<AtomicU64>),
}

/// As [`ringway_mem::Area`].
pub(crate) struct Area {
    real: ringway_mem::Area,
    part: Arc<Part>,
}

/// As [`ringway_mem::fence`].
pub(crate) fn fence() {
    if FENCED.get() {
        atomic::fence(Ordering::SeqCst);
    }
}

macro_rules! words {
    ($bytes:literal, $atomic:ty, $variant:ident, $of:ident) => {
        impl Area {
            fn $of(&self, offset: usize) -> Arc<$atomic> {
                assert!(offset + $bytes <= self.real.len() && offset % $bytes == 0);
                let mut part = self.part.lock().unwrap_or_else(PoisonError::into_inner);
                let new = || Word::$variant(Arc::new(<$atomic>::new(0)));
                match part.entry(offset).or_insert_with(new) {
                    Word::$variant(word) => word.clone(),
                    _ => panic!("a word at {offset} of two sizes"),
                }
            }
        }
    };
}

words!(2, AtomicU16, Two, two);
words!(4, AtomicU32, Four, four);
words!(8, AtomicU64, Eight, eight);

/// What is volatile in guest memory is relaxed here: both promise that a word is whole, and nothing of any other.
impl Area {
    pub(crate) fn watched(user_address: u64, real: ringway_mem::Area) -> Self {
        let part = PARTS.with_borrow_mut(|parts| parts.entry(user_address).or_default().clone());
        Self { real, part }
    }

    pub(crate) fn memory(&self) -> &Arc<GuestMemory> {
        self.real.memory()
    }

    pub(crate) fn guest_address(&self) -> Option<u64> {
        self.real.guest_address()
    }

    pub(crate) fn load_u16(&self, offset: usize) -> u16 {
        self.two(offset).load(Ordering::Relaxed)
    }

    pub(crate) fn load_u32(&self, offset: usize) -> u32 {
        self.four(offset).load(Ordering::Relaxed)
    }

    pub(crate) fn store_u16(&self, offset: usize, value: u16) {
        self.two(offset).store(value, Ordering::Relaxed);
    }

    pub(crate) fn store_u32(&self, offset: usize, value: u32) {
        self.four(offset).store(value, Ordering::Relaxed);
    }

    pub(crate) fn store_u64(&self, offset: usize, value: u64) {
        self.eight(offset).store(value, Ordering::Relaxed);
    }

    pub(crate) fn load_acquire_u16(&self, offset: usize) -> u16 {
        self.two(offset).load(Ordering::Acquire)
    }

    pub(crate) fn store_release_u16(&self, offset: usize, value: u16) {
        self.two(offset).store(value, Ordering::Release);
    }

    pub(crate) fn store_release_u64(&self, offset: usize, value: u64) {
        self.eight(offset).store(value, Ordering::Release);
    }

    pub(crate) fn load_desc(&self, offset: usize) -> [u64; 2] {
        [offset, offset + 8].map(|at| self.eight(at).load(Ordering::Relaxed))
    }

    pub(crate) fn load_desc_acquire(&self, offset: usize) -> [u64; 2] {
        let second = self.eight(offset + 8).load(Ordering::Acquire);
        [self.eight(offset).load(Ordering::Relaxed), second]
    }

    pub(crate) fn store_pair_u32(&self, offset: usize, first: u32, second: u32) {
        self.store_u32(offset, first);
        self.store_u32(offset + 4, second);
    }

    pub(crate) fn prefetch(&self, offset: usize) {
        self.real.prefetch(offset);
    }
}
