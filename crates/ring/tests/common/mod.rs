//! What the tests share: a driver and a device on one ring, and raw access to the memory between them.

#![allow(dead_code, unreachable_pub, clippy::cast_possible_truncation)]

pub mod model;
pub mod packed;

use std::sync::Arc;

use ringway_mem::{GuestMemory, LastHit, ReadSlice, WriteSlice};
use ringway_ring::{
    Batch, DeviceRing, DriverOptions, DriverRing, ReadBatch, RingBase, RingFault, RingFeatures,
    WriteBatch,
};

/// Guest address of the buffers; the ring lies below.
pub const BUFFERS: u64 = 0x20_0000;
const BUFFER_BYTES: usize = 0x20_0000;

/// Both sides of a ring.
pub struct Pair {
    pub memory: Arc<GuestMemory>,
    pub driver: DriverRing,
    pub device: DeviceRing,
}

pub fn options(size: u16, features: RingFeatures, base: RingBase) -> DriverOptions {
    DriverOptions {
        size,
        features,
        base,
        table: 8,
    }
}

impl Pair {
    pub fn new(options: DriverOptions) -> Self {
        let memory = Arc::new(GuestMemory::heap(&[
            (0, BUFFERS as usize),
            (BUFFERS, BUFFER_BYTES),
        ]));
        let driver = DriverRing::new(&memory, 0, options).unwrap();
        let device =
            DeviceRing::new(&memory, &driver.layout(), options.features, options.base).unwrap();
        Self {
            memory,
            driver,
            device,
        }
    }

    pub fn start(size: u16, features: RingFeatures) -> Self {
        Self::new(options(size, features, RingBase::start(features.packed)))
    }

    /// Makes `count` readable chains of one descriptor available and returns their ids.
    pub fn offer(&mut self, count: u16) -> Vec<u16> {
        let ids = (0..count)
            .map(|i| {
                self.driver
                    .add(&[(BUFFERS + u64::from(i) * 64, 64)], &[], false)
                    .unwrap()
            })
            .collect();
        self.driver.publish();
        ids
    }

    /// Takes, completes and publishes up to `count` readable chains.
    pub fn serve(&mut self, count: usize) -> (usize, bool) {
        let mut batch = ReadBatch::new();
        let taken = self
            .device
            .take_readable(&self.memory, &mut batch, count)
            .unwrap();
        self.device.complete(&batch.chains);
        (taken, self.device.publish())
    }

    /// Pops whatever came back.
    pub fn pop_all(&mut self) -> Vec<u16> {
        std::iter::from_fn(|| self.driver.pop_used().unwrap().map(|used| used.id)).collect()
    }
}

/// Reads guest memory that lies in one region.
pub fn peek(memory: &GuestMemory, address: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    let slice = memory.read(&mut LastHit::default(), address, len as u32);
    assert_eq!(slice.unwrap().copy_to(&mut bytes), len);
    bytes
}

/// Writes guest memory, over regions if need be.
pub fn poke(memory: &GuestMemory, mut address: u64, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        let piece = memory.write_prefix(address, bytes.len() as u32).unwrap();
        let done = piece.copy_from(bytes);
        bytes = &bytes[done..];
        address += done as u64;
    }
}

pub fn peek_u16(memory: &GuestMemory, address: u64) -> u16 {
    u16::from_le_bytes(peek(memory, address, 2).try_into().unwrap())
}

pub fn poke_u16(memory: &GuestMemory, address: u64, value: u16) {
    poke(memory, address, &value.to_le_bytes());
}

/// A place in a ring of either format. Places are numbered and the numbers go round: after 2^16 indices or after two laps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spot {
    packed: bool,
    size: u16,
    number: u16,
}

impl Spot {
    pub fn new(packed: bool, size: u16, number: u16) -> Self {
        let start = Self {
            packed,
            size,
            number: 0,
        };
        start.step(i32::from(number))
    }

    pub fn step(self, by: i32) -> Self {
        let round = if self.packed {
            2 * i32::from(self.size)
        } else {
            0x1_0000
        };
        let number = (i32::from(self.number) + by).rem_euclid(round) as u16;
        Self { number, ..self }
    }

    pub fn base(self) -> RingBase {
        if self.packed {
            RingBase::packed(self.number % self.size, self.number < self.size)
        } else {
            RingBase::split(self.number)
        }
    }

    /// As an event names the place.
    pub fn event(self) -> u16 {
        match self.base() {
            RingBase {
                available,
                wraps: Some(wraps),
                ..
            } => available | u16::from(wraps.available) << 15,
            base => base.available,
        }
    }
}

/// Places on and around those where something turns over, for a ring of `size`: indices of 16 bits, signed ones, laps.
pub fn spots(packed: bool, size: u16) -> impl Iterator<Item = Spot> {
    let numbers = if packed {
        [0, size / 2, size - 1, size, 2 * size - 1]
    } else {
        [0, 0x7ffc, 0x8000, 0xfff4, 0xffff]
    };
    numbers
        .into_iter()
        .map(move |number| Spot::new(packed, size, number))
}

/// No features, in either format.
pub const FORMATS: [RingFeatures; 2] = [
    RingFeatures {
        packed: false,
        event_idx: false,
        indirect: false,
        in_order: false,
    },
    RingFeatures {
        packed: true,
        event_idx: false,
        indirect: false,
        in_order: false,
    },
];

/// Every feature combination of a format.
pub fn all_features(packed: bool) -> impl Iterator<Item = RingFeatures> {
    (0..8).map(move |bits| RingFeatures {
        packed,
        event_idx: bits & 1 != 0,
        indirect: bits & 2 != 0,
        in_order: bits & 4 != 0,
    })
}

/// A take in either direction, for tests that treat both alike.
pub trait Direction<'m>: Copy {
    const WRITABLE: bool;
    fn take(
        device: &mut DeviceRing,
        memory: &'m GuestMemory,
        batch: &mut Batch<Self>,
        max: usize,
    ) -> Result<usize, RingFault>;
    fn bytes(self) -> Vec<u8>;
}

impl<'m> Direction<'m> for ReadSlice<'m> {
    const WRITABLE: bool = false;

    fn take(
        device: &mut DeviceRing,
        memory: &'m GuestMemory,
        batch: &mut ReadBatch<'m>,
        max: usize,
    ) -> Result<usize, RingFault> {
        device.take_readable(memory, batch, max)
    }

    fn bytes(self) -> Vec<u8> {
        let mut bytes = vec![0; self.len()];
        self.copy_to(&mut bytes);
        bytes
    }
}

impl<'m> Direction<'m> for WriteSlice<'m> {
    const WRITABLE: bool = true;

    fn take(
        device: &mut DeviceRing,
        memory: &'m GuestMemory,
        batch: &mut WriteBatch<'m>,
        max: usize,
    ) -> Result<usize, RingFault> {
        device.take_writable(memory, batch, max)
    }

    fn bytes(self) -> Vec<u8> {
        self.as_read().bytes()
    }
}
