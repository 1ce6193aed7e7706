//! The learning table: which port an address was last seen behind, per VLAN.
//!
//! Readers take no lock. An entry is two words, key and value, in a bucket of four that fills one
//! cache line; an address has two neighbouring buckets. Writers that insert or remove hold the
//! writer lock; they clear the key before they touch the value. A reader that meets an entry being
//! replaced may see another entry's port, therefore whoever delivers checks that the port carries
//! the frame's VLAN.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::policy::Vlan;

/// Most ports of a switch.
pub(crate) const MAX_PORTS: usize = 1024;

/// Seconds an address is remembered after its last frame (IEEE 802.1Q, table 8-6, default).
pub(crate) const AGEING_SECONDS: u32 = 300;

/// Most addresses remembered behind one port, unless said otherwise.
pub(crate) const PORT_LIMIT: u32 = ringway_api::port_spec::MAX_MACS;

/// How often an address may move within a second. An even number: who had it first has it in the end when
/// two ports claim it in turn.
const MAX_MOVES: u64 = 8;

const WAYS: usize = 4;
const BUCKETS: usize = 65_536;
const OCCUPIED: u64 = 1 << 63;

/// An address within a VLAN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Key(u64);

impl Key {
    /// `mac` is the address as the low 48 bits of a little-endian load; `domain` is the VLAN, 0 for
    /// ports without one.
    #[inline]
    pub(crate) fn new(mac: u64, domain: u16) -> Self {
        Self(OCCUPIED | u64::from(domain & 0xfff) << 48 | mac & 0xffff_ffff_ffff)
    }

    pub(crate) fn mac(self) -> u64 {
        self.0 & 0xffff_ffff_ffff
    }

    pub(crate) fn domain(self) -> u16 {
        u16::try_from(self.0 >> 48 & 0xfff).unwrap_or(0)
    }

    #[inline]
    fn bucket(self) -> usize {
        // Fibonacci hashing; the low bits of a product depend on too few bits of the address.
        let hash = self.0.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (hash >> 40) as usize & (BUCKETS - 1)
    }
}

/// What became of an address that was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(crate) enum Learned {
    /// It is behind the port now.
    Yes,
    /// The port has too many, or the address moved too often of late.
    No,
    /// It belongs to another port.
    Foreign,
}

/// A port that an address belongs to, whoever else sends from it.
#[derive(PartialEq, Eq)]
pub(crate) struct Owner {
    pub(crate) mac: u64,
    pub(crate) slot: u16,
    pub(crate) vlan: Vlan,
}

/// Owners by address.
type Owners = HashMap<u64, Vec<Owner>>;

#[derive(Default)]
#[repr(align(64))]
struct Bucket {
    keys: [AtomicU64; WAYS],
    /// Bits 0-15 port slot, 16-47 second of the last frame, 48-55 moves in that second.
    values: [AtomicU64; WAYS],
}

const _: () = assert!(size_of::<Bucket>() == 64);

/// The learning table of a switch.
pub(crate) struct Table {
    buckets: Box<[Bucket]>,
    writer: Mutex<Owners>,
    counts: Box<[AtomicU32]>,
    /// By slot.
    limits: Box<[AtomicU32]>,
}

impl Table {
    /// An empty table that remembers at most `limit` addresses per port.
    pub(crate) fn new(limit: u32) -> Self {
        Self {
            buckets: (0..BUCKETS).map(|_| Bucket::default()).collect(),
            writer: Mutex::default(),
            counts: (0..MAX_PORTS).map(|_| AtomicU32::new(0)).collect(),
            limits: (0..MAX_PORTS).map(|_| AtomicU32::new(limit)).collect(),
        }
    }

    /// The port an address is behind.
    #[inline]
    pub(crate) fn find(&self, key: Key) -> Option<u16> {
        let (bucket, way) = self.entry(key)?;
        Some(slot_of(bucket.values[way].load(Ordering::Relaxed)))
    }

    /// Remembers that `key` is behind `slot` in second `now`. A port that reached its limit learns
    /// nothing: frames to what is behind it are flooded. In a full pair of buckets another entry
    /// makes room.
    #[inline]
    pub(crate) fn learn(&self, key: Key, slot: u16, now: u32) -> Learned {
        let value = value_of(slot, now);
        match self.entry(key) {
            Some((bucket, way)) => {
                let old = bucket.values[way].load(Ordering::Relaxed);
                if (old ^ value) << 16 == 0 {
                    return Learned::Yes;
                }
                self.renew(key, old, value, &bucket.values[way])
            }
            None => self.insert(key, slot, now),
        }
    }

    /// How many addresses are remembered behind `slot` from now on.
    pub(crate) fn limit_port(&self, slot: u16, limit: u32) {
        if let Some(old) = self.limits.get(usize::from(slot)) {
            old.store(limit, Ordering::Relaxed);
        }
    }

    /// From now on these addresses are learned at the ports they belong to and nowhere else.
    pub(crate) fn set_owners(&self, owners: Vec<Owner>) {
        let mut by_mac = Owners::new();
        for owner in owners {
            by_mac.entry(owner.mac).or_default().push(owner);
        }
        let mut writer = self.lock();
        if *writer == by_mac {
            return;
        }
        self.retain_locked(|key, slot, _| !is_foreign(&by_mac, key, slot));
        *writer = by_mac;
    }

    /// Shows what was learned: key, slot, and the second of the last frame. What is learned meanwhile may be
    /// shown or not.
    pub(crate) fn for_each(&self, mut show: impl FnMut(Key, u16, u32)) {
        for bucket in &self.buckets {
            for way in 0..WAYS {
                let key = bucket.keys[way].load(Ordering::Acquire);
                if key != 0 {
                    let value = bucket.values[way].load(Ordering::Relaxed);
                    show(Key(key), slot_of(value), seen_of(value));
                }
            }
        }
    }

    /// Forgets every address behind `slot`.
    pub(crate) fn forget_port(&self, slot: u16) {
        self.retain(|entry_slot, _| entry_slot != slot);
    }

    /// Forgets what was not seen for [`AGEING_SECONDS`].
    pub(crate) fn age(&self, now: u32) {
        // A worker's clock may be a second ahead of the one that `now` was read from.
        self.retain(|_, seen| now.saturating_sub(seen) <= AGEING_SECONDS);
    }

    /// Addresses behind `slot`.
    pub(crate) fn count(&self, slot: u16) -> u32 {
        self.counts
            .get(usize::from(slot))
            .map_or(0, |count| count.load(Ordering::Relaxed))
    }

    #[inline]
    fn entry(&self, key: Key) -> Option<(&Bucket, usize)> {
        let first = key.bucket();
        for bucket in [&self.buckets[first], &self.buckets[first ^ 1]] {
            for way in 0..WAYS {
                if bucket.keys[way].load(Ordering::Acquire) == key.0 {
                    return Some((bucket, way));
                }
            }
        }
        None
    }

    #[cold]
    fn renew(&self, key: Key, old: u64, value: u64, at: &AtomicU64) -> Learned {
        let slot = slot_of(value);
        if slot_of(old) == slot {
            // Unless the entry became another address's meanwhile.
            let _ = at.compare_exchange(old, value, Ordering::Relaxed, Ordering::Relaxed);
            return Learned::Yes;
        }
        // The address moved to another port.
        let owners = self.lock();
        if is_foreign(&owners, key, slot) {
            return Learned::Foreign;
        }
        let Some((bucket, way)) = self.entry(key) else {
            return Learned::No;
        };
        let old = bucket.values[way].load(Ordering::Relaxed);
        // The clocks of workers may differ by a second.
        let moves = if seen_of(old) >= seen_of(value) {
            moves_of(old) + 1
        } else {
            1
        };
        if moves > MAX_MOVES || !self.admits(slot) {
            return Learned::No;
        }
        bucket.values[way].store(value | moves << 48, Ordering::Relaxed);
        self.counts[usize::from(slot_of(old))].fetch_sub(1, Ordering::Relaxed);
        self.counts[usize::from(slot)].fetch_add(1, Ordering::Relaxed);
        Learned::Yes
    }

    #[cold]
    fn insert(&self, key: Key, slot: u16, now: u32) -> Learned {
        let owners = self.lock();
        if is_foreign(&owners, key, slot) {
            return Learned::Foreign;
        }
        if self.entry(key).is_some() {
            return Learned::Yes;
        }
        if !self.admits(slot) {
            return Learned::No;
        }
        let (bucket, way) = self.place(key, slot);
        if bucket.keys[way].swap(0, Ordering::AcqRel) != 0 {
            let old = slot_of(bucket.values[way].load(Ordering::Relaxed));
            self.counts[usize::from(old)].fetch_sub(1, Ordering::Relaxed);
        }
        bucket.values[way].store(value_of(slot, now), Ordering::Relaxed);
        bucket.keys[way].store(key.0, Ordering::Release);
        self.counts[usize::from(slot)].fetch_add(1, Ordering::Relaxed);
        Learned::Yes
    }

    /// A free place for `key`, or the one that makes room: the oldest entry of the port that has most
    /// of the pair of buckets, so that a port that floods addresses pushes out its own.
    fn place(&self, key: Key, slot: u16) -> (&Bucket, usize) {
        let first = key.bucket();
        let place = |i: usize| (&self.buckets[first ^ (i / WAYS)], i % WAYS);
        let mut entries = [(0, 0); 2 * WAYS];
        for (i, entry) in entries.iter_mut().enumerate() {
            let (bucket, way) = place(i);
            if bucket.keys[way].load(Ordering::Relaxed) == 0 {
                return (bucket, way);
            }
            let value = bucket.values[way].load(Ordering::Relaxed);
            *entry = (slot_of(value), seen_of(value));
        }
        let share = |of: u16| {
            let others = entries.iter().filter(|(other, _)| *other == of).count();
            others + usize::from(of == slot)
        };
        let youth = |&i: &usize| (std::cmp::Reverse(share(entries[i].0)), entries[i].1);
        place((0..entries.len()).min_by_key(youth).unwrap_or(0))
    }

    fn admits(&self, slot: u16) -> bool {
        let slot = usize::from(slot);
        let limit = self.limits.get(slot);
        limit.is_some_and(|limit| {
            self.counts[slot].load(Ordering::Relaxed) < limit.load(Ordering::Relaxed)
        })
    }

    fn retain(&self, keep: impl Fn(u16, u32) -> bool) {
        let _writer = self.lock();
        self.retain_locked(|_, slot, seen| keep(slot, seen));
    }

    /// The writer lock is held.
    fn retain_locked(&self, keep: impl Fn(Key, u16, u32) -> bool) {
        for bucket in &self.buckets {
            for way in 0..WAYS {
                let key = bucket.keys[way].load(Ordering::Relaxed);
                if key == 0 {
                    continue;
                }
                let value = bucket.values[way].load(Ordering::Relaxed);
                if !keep(Key(key), slot_of(value), seen_of(value)) {
                    bucket.keys[way].store(0, Ordering::Release);
                    self.counts[usize::from(slot_of(value))].fetch_sub(1, Ordering::Relaxed);
                }
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Owners> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Another port of the address's VLAN owns it, and this one does not.
fn is_foreign(owners: &Owners, key: Key, slot: u16) -> bool {
    let Some(owners) = owners.get(&key.mac()) else {
        return false;
    };
    let mut owners = owners
        .iter()
        .filter(|owner| owner.vlan.carries(key.domain()));
    owners.clone().next().is_some() && owners.all(|owner| owner.slot != slot)
}

fn moves_of(value: u64) -> u64 {
    value >> 48 & 0xff
}

fn value_of(slot: u16, now: u32) -> u64 {
    u64::from(slot) | u64::from(now) << 16
}

#[allow(
    clippy::cast_possible_truncation,
    reason = "takes the low half of a packed word"
)]
fn slot_of(value: u64) -> u16 {
    value as u16
}

#[allow(
    clippy::cast_possible_truncation,
    reason = "takes the middle of a packed word"
)]
fn seen_of(value: u64) -> u32 {
    (value >> 16) as u32
}

#[cfg(test)]
mod tests;
