//! The learning table: which port an address was last seen behind, per VLAN.
//!
//! Readers take no lock. An entry is two words, key and value, in a bucket of four that fills one
//! cache line; an address has two neighbouring buckets. Writers that insert or remove hold the
//! writer lock; they clear the key before they touch the value. A reader that meets an entry being
//! replaced may see another entry's port, therefore whoever delivers checks that the port carries
//! the frame's VLAN.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Most ports of a switch.
pub(crate) const MAX_PORTS: usize = 1024;

/// Seconds an address is remembered after its last frame (IEEE 802.1Q, table 8-6, default).
pub(crate) const AGEING_SECONDS: u32 = 300;

/// Most addresses remembered behind one port, unless said otherwise.
pub(crate) const PORT_LIMIT: u32 = 131_072;

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

    #[inline]
    fn bucket(self) -> usize {
        // Fibonacci hashing; the low bits of a product depend on too few bits of the address.
        let hash = self.0.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (hash >> 40) as usize & (BUCKETS - 1)
    }
}

#[derive(Default)]
#[repr(align(64))]
struct Bucket {
    keys: [AtomicU64; WAYS],
    /// Bits 0-15 port slot, 16-47 second of the last frame.
    values: [AtomicU64; WAYS],
}

const _: () = assert!(size_of::<Bucket>() == 64);

/// The learning table of a switch.
pub(crate) struct Table {
    buckets: Box<[Bucket]>,
    writer: Mutex<()>,
    counts: Box<[AtomicU32]>,
    limit: u32,
}

impl Table {
    /// An empty table that remembers at most `limit` addresses per port.
    pub(crate) fn new(limit: u32) -> Self {
        Self {
            buckets: (0..BUCKETS).map(|_| Bucket::default()).collect(),
            writer: Mutex::new(()),
            counts: (0..MAX_PORTS).map(|_| AtomicU32::new(0)).collect(),
            limit,
        }
    }

    /// The port an address is behind.
    #[inline]
    pub(crate) fn find(&self, key: Key) -> Option<u16> {
        let (bucket, way) = self.entry(key)?;
        Some(slot_of(bucket.values[way].load(Ordering::Relaxed)))
    }

    /// Remembers that `key` is behind `slot` in second `now`. A port that reached its limit, or a
    /// full pair of buckets with younger entries only, learns nothing: its frames are flooded.
    #[inline]
    pub(crate) fn learn(&self, key: Key, slot: u16, now: u32) {
        let value = value_of(slot, now);
        match self.entry(key) {
            Some((bucket, way)) => {
                let old = bucket.values[way].load(Ordering::Relaxed);
                if old != value {
                    self.renew(key, slot, value, slot_of(old) == slot, &bucket.values[way]);
                }
            }
            None => self.insert(key, slot, now),
        }
    }

    /// Forgets every address behind `slot`.
    pub(crate) fn forget_port(&self, slot: u16) {
        self.retain(|entry_slot, _| entry_slot != slot);
    }

    /// Forgets what was not seen for [`AGEING_SECONDS`].
    pub(crate) fn age(&self, now: u32) {
        self.retain(|_, seen| now.wrapping_sub(seen) <= AGEING_SECONDS);
    }

    #[cfg(test)]
    fn count(&self, slot: u16) -> u32 {
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
    fn renew(&self, key: Key, slot: u16, value: u64, same_port: bool, at: &AtomicU64) {
        if same_port {
            at.store(value, Ordering::Relaxed);
            return;
        }
        // The address moved to another port.
        let _writer = self.lock();
        if let Some((bucket, way)) = self.entry(key)
            && self.admits(slot)
        {
            let old = bucket.values[way].swap(value, Ordering::Relaxed);
            self.counts[usize::from(slot_of(old))].fetch_sub(1, Ordering::Relaxed);
            self.counts[usize::from(slot)].fetch_add(1, Ordering::Relaxed);
        }
    }

    #[cold]
    fn insert(&self, key: Key, slot: u16, now: u32) {
        let _writer = self.lock();
        if self.entry(key).is_some() || !self.admits(slot) {
            return;
        }
        let first = key.bucket();
        let places = [first, first ^ 1].map(|bucket| &self.buckets[bucket]);
        let free = places
            .into_iter()
            .flat_map(|bucket| (0..WAYS).map(move |way| (bucket, way)))
            .min_by_key(
                |(bucket, way)| match bucket.keys[*way].load(Ordering::Relaxed) {
                    0 => 0,
                    _ => 1 + u64::from(seen_of(bucket.values[*way].load(Ordering::Relaxed))),
                },
            );
        let Some((bucket, way)) = free else { return };
        if bucket.keys[way].swap(0, Ordering::AcqRel) != 0 {
            let old = slot_of(bucket.values[way].load(Ordering::Relaxed));
            self.counts[usize::from(old)].fetch_sub(1, Ordering::Relaxed);
        }
        bucket.values[way].store(value_of(slot, now), Ordering::Relaxed);
        bucket.keys[way].store(key.0, Ordering::Release);
        self.counts[usize::from(slot)].fetch_add(1, Ordering::Relaxed);
    }

    fn admits(&self, slot: u16) -> bool {
        self.counts
            .get(usize::from(slot))
            .is_some_and(|n| n.load(Ordering::Relaxed) < self.limit)
    }

    fn retain(&self, keep: impl Fn(u16, u32) -> bool) {
        let _writer = self.lock();
        for bucket in &self.buckets {
            for way in 0..WAYS {
                if bucket.keys[way].load(Ordering::Relaxed) == 0 {
                    continue;
                }
                let value = bucket.values[way].load(Ordering::Relaxed);
                if !keep(slot_of(value), seen_of(value)) {
                    bucket.keys[way].store(0, Ordering::Release);
                    self.counts[usize::from(slot_of(value))].fetch_sub(1, Ordering::Relaxed);
                }
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, ()> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }
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
mod tests {
    use super::*;

    #[test]
    fn an_address_is_found_behind_the_port_it_was_last_seen_at() {
        let table = Table::new(PORT_LIMIT);
        let key = Key::new(0x0a00_0000_0002, 0);
        assert_eq!(table.find(key), None);
        table.learn(key, 3, 1);
        assert_eq!(table.find(key), Some(3));
        assert_eq!(
            table.find(Key::new(0x0a00_0000_0002, 10)),
            None,
            "another VLAN"
        );
        table.learn(key, 4, 2);
        assert_eq!(table.find(key), Some(4));
        assert_eq!((table.count(3), table.count(4)), (0, 1));
    }

    #[test]
    fn addresses_age_and_leave_with_their_port() {
        let table = Table::new(PORT_LIMIT);
        for mac in 0..10 {
            table.learn(Key::new(mac, 0), u16::from(mac % 2 == 1), 5);
        }
        table.learn(Key::new(0, 0), 0, 200);
        table.age(5 + AGEING_SECONDS);
        assert_eq!(table.count(0), 5);
        table.age(6 + AGEING_SECONDS);
        assert_eq!((table.count(0), table.count(1)), (1, 0));
        table.forget_port(0);
        assert_eq!((table.find(Key::new(0, 0)), table.count(0)), (None, 0));
    }

    #[test]
    fn one_port_cannot_take_more_than_its_limit() {
        let table = Table::new(100);
        for mac in 0..1000 {
            table.learn(Key::new(mac, 0), 0, 1);
        }
        table.learn(Key::new(5000, 0), 1, 1);
        assert_eq!((table.count(0), table.count(1)), (100, 1));
        assert_eq!(table.find(Key::new(5000, 0)), Some(1));
    }

    #[test]
    fn a_hundred_thousand_addresses_are_remembered() {
        let table = Table::new(PORT_LIMIT);
        let mac = |i: u64| 0x0200_0000_0000 | i.wrapping_mul(0x1_0001);
        for i in 0..100_000 {
            table.learn(Key::new(mac(i), 0), 7, 1);
        }
        let found = (0..100_000)
            .filter(|&i| table.find(Key::new(mac(i), 0)) == Some(7))
            .count();
        assert!(found > 99_500, "{found}");
        assert_eq!(table.count(7) as usize, found);
    }

    #[test]
    fn readers_never_meet_a_port_that_no_entry_had() {
        let table = Table::new(PORT_LIMIT);
        std::thread::scope(|scope| {
            for thread in 0..2u16 {
                let table = &table;
                scope.spawn(move || {
                    for i in 0..50_000u64 {
                        let mac = i % 97;
                        table.learn(Key::new(mac, 0), 10 + thread, 1);
                        if let Some(slot) = table.find(Key::new(mac, 0)) {
                            assert!((10..12).contains(&slot), "{slot}");
                        }
                        if i % 1000 == 0 {
                            table.forget_port(10 + thread);
                        }
                    }
                });
            }
        });
        let left = (0..97)
            .filter(|&mac| table.find(Key::new(mac, 0)).is_some())
            .count();
        assert_eq!(left as u32, table.count(10) + table.count(11));
    }
}
