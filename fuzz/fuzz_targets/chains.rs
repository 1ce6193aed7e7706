//! Rings and tables that a hostile driver fills as it likes, before and while a device works on them.
//!
//! The device's ring is held against a twin that follows the specification on plain bytes: every chain, every fault, every byte of
//! guest memory. Bytes are laid down so that most descriptors are nearly right; all that is wrong with some can be said, too.

#![no_main]

#[path = "../../crates/ring/tests/common/model.rs"]
mod model;
#[path = "chains/script.rs"]
mod script;
#[path = "chains/twin.rs"]
mod twin;

use std::collections::VecDeque;
use std::sync::{Arc, LazyLock};

use libfuzzer_sys::fuzz_target;
use ringway_mem::{GuestMemory, ReadSlice, WriteSlice};
use ringway_ring::{Batch, Chain, DeviceRing, ReadBatch, RingFault, RingLayout, WriteBatch};

use self::model::Expected;
use self::script::{AVAILABLE, DESCRIPTORS, REGIONS, Script, USED_RING};
use self::twin::Twin;

/// Steps of one input.
const STEPS: usize = 200;
/// Bytes of a slice that are looked at, from either end.
const SAMPLE: usize = 64;

/// Mapped once; every run writes all of it.
static MEMORY: LazyLock<Arc<GuestMemory>> = LazyLock::new(|| Arc::new(GuestMemory::heap(&REGIONS)));

fuzz_target!(|input: &[u8]| {
    let mut script = Script::new(input);
    let (twin, image) = script.setup();
    for (start, bytes) in &image.0 {
        poke(*start, bytes);
    }
    let layout = RingLayout {
        size: twin.rules.size,
        descriptors: DESCRIPTORS,
        available: AVAILABLE,
        used: USED_RING,
    };
    let base = twin.base();
    let device = DeviceRing::new(&MEMORY, &layout, twin.features, base).unwrap();
    let mut run = Run {
        device,
        layout,
        twin,
        taken: VecDeque::new(),
    };
    run.twin.image = image;
    for _ in 0..STEPS {
        if script.is_empty() {
            break;
        }
        run.step(&mut script);
    }
    run.compare_memory();
});

struct Run {
    device: DeviceRing,
    layout: RingLayout,
    twin: Twin,
    /// Taken and not completed.
    taken: VecDeque<Chain>,
}

impl Run {
    fn step(&mut self, script: &mut Script<'_>) {
        match script.byte() % 13 {
            0 | 1 => self.take(script.byte()),
            2 => self.untake(script.byte()),
            3 | 4 => self.complete(script.byte()),
            5 => self.publish(),
            6 => {
                self.device.discard_staged();
                self.twin.discard();
                self.taken.clear();
            }
            7 => self.restart(),
            8 => self.kicks(script.byte()),
            9 | 10 => self.offer(script),
            11 => self.publish_older(),
            _ => {
                let (address, bytes) = script.poke(self.twin.rules.size);
                self.poke(address, &bytes);
            }
        }
        assert_eq!(self.device.has_available(), self.twin.has_available());
        let base = self.device.base();
        assert_eq!(base, self.twin.base());
    }

    fn take(&mut self, max: u8) {
        let max = usize::from(max);
        let expected = self.twin.take(max);
        if self.twin.rules.writable {
            let mut batch = WriteBatch::new();
            let taken = self.device.take_writable(&MEMORY, &mut batch, max);
            let chains = check(&batch, taken, &expected, &self.twin);
            for (mut chain, expected) in chains.zip(expected.0) {
                chain.written = chain.len.min(u32::from(chain.id & 0xff));
                self.fill(batch.slices(&chain), &expected, chain.written);
                self.taken.push_back(chain);
            }
        } else {
            let mut batch = ReadBatch::new();
            let taken = self.device.take_readable(&MEMORY, &mut batch, max);
            self.taken
                .extend(check(&batch, taken, &expected, &self.twin));
        }
    }

    /// Writes as many bytes into a chain as it will be said to hold.
    fn fill(&mut self, slices: &[WriteSlice<'_>], expected: &Expected, written: u32) {
        let mut left = written as usize;
        for (slice, &(address, _)) in slices.iter().zip(&expected.pieces) {
            let bytes = vec![0xa5; slice.len().min(left)];
            assert_eq!(slice.copy_from(&bytes), bytes.len());
            self.twin.image.write(address, &bytes);
            left -= bytes.len();
        }
    }

    fn untake(&mut self, count: u8) {
        let keep = self.taken.len().saturating_sub(count.into());
        let chains: Vec<Chain> = self.taken.drain(keep..).collect();
        self.device.untake(&chains);
        self.twin.untake(&chains);
    }

    fn complete(&mut self, count: u8) {
        let count = self.taken.len().min(count.into());
        let chains: Vec<Chain> = self.taken.drain(..count).collect();
        self.device.complete(&chains);
        self.twin.complete(&chains);
        self.compare_memory();
    }

    fn publish(&mut self) {
        // What the driver wants is in the memory, so the twin has to be asked first.
        let calls = self.twin.publish();
        assert_eq!(self.device.publish(), calls);
        self.compare_memory();
    }

    fn publish_older(&mut self) {
        let calls = self.twin.publish_older();
        assert_eq!(self.device.publish_older(), calls);
        self.compare_memory();
    }

    fn restart(&mut self) {
        let base = self.device.base();
        let features = self.twin.features;
        self.device = DeviceRing::new(&MEMORY, &self.layout, features, base).unwrap();
        self.twin.restart();
        self.taken.clear();
    }

    fn kicks(&mut self, wish: u8) {
        if wish.is_multiple_of(2) {
            let available = self.twin.has_available();
            assert_eq!(self.device.enable_kicks(), available);
        } else {
            self.device.disable_kicks();
        }
        // The words in which the device says so are tested elsewhere. Nothing else may change.
        for (address, len) in self.twin.kick_words() {
            let bytes = peek(address, len);
            self.twin.image.write(address, &bytes);
        }
        self.compare_memory();
    }

    /// The driver makes a chain available, or something like one.
    fn offer(&mut self, script: &mut Script<'_>) {
        let entry = script.entry(self.twin.rules);
        for (address, bytes) in self.twin.offer(entry, script.byte()) {
            self.poke(address, &bytes);
        }
    }

    fn poke(&mut self, address: u64, bytes: &[u8]) {
        poke(address, bytes);
        self.twin.image.write(address, bytes);
    }

    fn compare_memory(&self) {
        for (start, bytes) in &self.twin.image.0 {
            let memory = peek(*start, bytes.len());
            if memory != *bytes {
                let at = memory
                    .iter()
                    .zip(bytes)
                    .position(|(is, should)| is != should);
                panic!(
                    "memory differs from {:#x} on",
                    *start as usize + at.unwrap()
                );
            }
        }
    }
}

/// Compares what was taken with what the twin says; returns the chains.
fn check<'b, S: Bytes>(
    batch: &'b Batch<S>,
    taken: Result<usize, RingFault>,
    expected: &(Vec<Expected>, Option<RingFault>),
    twin: &Twin,
) -> impl Iterator<Item = Chain> + 'b {
    let (chains, fault) = expected;
    assert_eq!(taken, fault.map_or(Ok(chains.len()), Err));
    assert_eq!(batch.chains.len(), chains.len());
    let segments: usize = chains.iter().map(|chain| chain.pieces.len()).sum();
    assert_eq!(batch.segments.len(), segments);
    for (chain, expected) in batch.chains.iter().zip(chains) {
        assert_eq!((chain.id, chain.slots), (expected.id, expected.slots));
        assert_eq!((chain.len, chain.written), (expected.len(), 0));
        let slices = batch.slices(chain);
        assert_eq!(slices.len(), expected.pieces.len());
        for (slice, &(address, len)) in slices.iter().zip(&expected.pieces) {
            let slice = slice.read();
            assert_eq!(slice.len(), len as usize);
            let should = &twin.image.rest(address).unwrap()[..len as usize];
            let sample = should.len().min(SAMPLE);
            let mut bytes = [0; SAMPLE];
            slice.copy_to(&mut bytes[..sample]);
            assert_eq!(bytes[..sample], should[..sample]);
            let before = should.len() - sample;
            slice.skip(before).copy_to(&mut bytes[..sample]);
            assert_eq!(bytes[..sample], should[before..]);
        }
    }
    batch.chains.iter().copied()
}

/// A slice in either direction, to be read.
trait Bytes: Copy {
    fn read(&self) -> ReadSlice<'_>;
}

impl Bytes for ReadSlice<'_> {
    fn read(&self) -> ReadSlice<'_> {
        *self
    }
}

impl Bytes for WriteSlice<'_> {
    fn read(&self) -> ReadSlice<'_> {
        self.as_read()
    }
}

fn peek(address: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    let slice = MEMORY.read_prefix(address, len as u32).unwrap();
    assert_eq!(slice.copy_to(&mut bytes), len);
    bytes
}

fn poke(mut address: u64, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        let slice = MEMORY.write_prefix(address, bytes.len() as u32).unwrap();
        let done = slice.copy_from(bytes);
        bytes = &bytes[done..];
        address += done as u64;
    }
}
