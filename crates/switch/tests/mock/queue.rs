//! One ring of a guest and the buffers behind it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use ringway_mem::GuestMemory;
use ringway_ring::{DriverOptions, DriverRing, RingLayout, Used};
use rustix::event::{EventfdFlags, eventfd};

/// How the bytes of a chain are cut: pieces of these lengths, some perhaps empty, and the rest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shape {
    pub pieces: Vec<u32>,
    /// In an indirect table.
    pub indirect: bool,
    /// Pieces lie in falling order of addresses.
    pub backwards: bool,
}

/// Bytes between two pieces: they are no neighbours, and not aligned either.
const GAP: u32 = 3;

/// Entries of an indirect table.
pub const TABLE: u16 = 64;

/// A chain that the device has.
#[derive(Clone, Debug)]
pub struct Posted {
    pub pieces: Vec<(u64, u32)>,
    pub place: usize,
}

/// One ring and its places for chains.
pub struct Queue {
    pub memory: Arc<GuestMemory>,
    pub ring: DriverRing,
    pub kick: OwnedFd,
    pub call: OwnedFd,
    /// By the chain's id.
    posted: Vec<Option<Posted>>,
    /// Places that no chain uses.
    free: Vec<usize>,
    base: u64,
    stride: u64,
    places: u64,
    at: u64,
    options: DriverOptions,
    /// Chains added so far.
    pub added: u64,
    pub kicks: u64,
    pub calls: u64,
}

impl Queue {
    /// A ring at `at`, with `places` for chains of up to `room` bytes from `base` on.
    pub fn new(
        memory: &Arc<GuestMemory>,
        options: DriverOptions,
        at: u64,
        (base, stride, places): (u64, u64, usize),
    ) -> Self {
        let event = || eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).unwrap();
        Self {
            memory: memory.clone(),
            ring: DriverRing::new(memory, at, options).unwrap(),
            kick: event(),
            call: event(),
            posted: vec![None; options.size.into()],
            free: (0..places).rev().collect(),
            base,
            stride,
            places: places as u64,
            at,
            options,
            added: 0,
            kicks: 0,
            calls: 0,
        }
    }

    /// The driver begins anew, in the same place.
    pub fn reset(&mut self) {
        self.ring = DriverRing::new(&self.memory, self.at, self.options).unwrap();
        self.posted.fill(None);
        self.free = (0..usize::try_from(self.places).unwrap()).rev().collect();
    }

    pub fn is_packed(&self) -> bool {
        matches!(self.ring, DriverRing::Packed(_))
    }

    pub fn layout(&self) -> RingLayout {
        self.ring.layout()
    }

    /// Where the places for chains lie: guest address and length.
    pub fn room(&self) -> (u64, u64) {
        (self.base, self.stride * self.places)
    }

    /// Chains that the device has.
    pub fn out(&self) -> usize {
        self.posted.iter().flatten().count()
    }

    /// Adds a chain of `len` bytes in this shape, if there is room; its head and where it lies.
    pub fn add(&mut self, shape: &Shape, len: u32, writable: bool) -> Option<(u16, Posted)> {
        let needed = if shape.indirect {
            1
        } else {
            shape.pieces.len() + 1
        };
        if usize::from(self.ring.free()) < needed {
            return None;
        }
        let place = self.free.pop()?;
        let pieces = self.pieces(shape, len, place);
        let none: &[(u64, u32)] = &[];
        let (readable, written) = if writable {
            (none, &*pieces)
        } else {
            (&*pieces, none)
        };
        let id = self.ring.add(readable, written, shape.indirect).unwrap();
        let posted = Posted { pieces, place };
        assert!(
            self.posted[usize::from(id)]
                .replace(posted.clone())
                .is_none()
        );
        self.added += 1;
        Some((id, posted))
    }

    /// Where the pieces of a chain of `len` bytes lie.
    fn pieces(&self, shape: &Shape, len: u32, place: usize) -> Vec<(u64, u32)> {
        let mut address = self.base + place as u64 * self.stride;
        let mut left = len;
        let mut pieces = Vec::new();
        for &wanted in &shape.pieces {
            let piece = wanted.min(left);
            if piece > 0 || wanted == 0 {
                pieces.push(piece);
            }
            left -= piece;
        }
        if left > 0 {
            pieces.push(left);
        }
        if shape.backwards {
            pieces.reverse();
        }
        let mut pieces: Vec<_> = pieces
            .into_iter()
            .map(|len| {
                let at = address;
                address += u64::from(len + GAP);
                (at, len)
            })
            .collect();
        if shape.backwards {
            pieces.reverse();
        }
        assert!(address <= self.base + (place as u64 + 1) * self.stride + u64::from(GAP));
        pieces
    }

    /// Shows what was added; kicks if the device wants that.
    pub fn publish(&mut self) {
        if self.ring.publish() {
            self.kick();
        }
    }

    pub fn kick(&mut self) {
        self.kicks += 1;
        rustix::io::write(&self.kick, &1u64.to_ne_bytes()).unwrap();
    }

    /// The next chain that came back.
    pub fn pop(&mut self) -> Option<(Posted, Used)> {
        let used = self.ring.pop_used().unwrap()?;
        let posted = self.posted[usize::from(used.id)].take().unwrap();
        self.free.push(posted.place);
        Some((posted, used))
    }

    /// Takes a call off the eventfd.
    pub fn hear(&mut self) {
        let mut calls = [0; 8];
        if rustix::io::read(&self.call, &mut calls).is_ok() {
            self.calls += u64::from_ne_bytes(calls);
        }
    }

    pub fn call(&self) -> BorrowedFd<'_> {
        self.call.as_fd()
    }

    /// Writes bytes over pieces.
    pub fn write(&self, pieces: &[(u64, u32)], bytes: &[u8]) {
        let mut rest = bytes;
        for &(address, len) in pieces {
            let (now, later) = rest.split_at(rest.len().min(len as usize));
            write(&self.memory, address, now);
            rest = later;
        }
        assert!(rest.is_empty());
    }

    /// Reads the first `len` bytes of pieces.
    pub fn read(&self, pieces: &[(u64, u32)], len: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(len);
        for &(address, piece) in pieces {
            let now = (piece as usize).min(len - bytes.len());
            bytes.extend(read(&self.memory, address, now));
        }
        assert_eq!(bytes.len(), len);
        bytes
    }
}

/// Writes guest memory, over regions if need be.
pub fn write(memory: &GuestMemory, mut address: u64, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        let len = u32::try_from(bytes.len()).unwrap();
        let done = memory.write_prefix(address, len).unwrap().copy_from(bytes);
        bytes = &bytes[done..];
        address += done as u64;
    }
}

/// Reads guest memory, over regions if need be.
pub fn read(memory: &GuestMemory, mut address: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    let mut rest = &mut bytes[..];
    while !rest.is_empty() {
        let len = u32::try_from(rest.len()).unwrap();
        let done = memory.read_prefix(address, len).unwrap().copy_to(rest);
        rest = &mut rest[done..];
        address += done as u64;
    }
    bytes
}
