//! What a device writes to its ring is marked in the dirty log: every page that changed, and none outside the ring.

mod common;

use std::sync::Arc;

use common::{BUFFERS, Pair, all_features, options, peek, poke, spots};
use ringway_mem::{DirtyLog, GuestMemory};
use ringway_ring::{DeviceRing, DriverOptions, DriverRing, RingBase, RingLog, WriteBatch};

const PAGE: usize = 4096;
/// Pages in which the ring lies.
const PAGES: usize = 16;

/// A log and the front-end's view of it.
struct Log {
    log: Arc<DirtyLog>,
    bytes: GuestMemory,
}

impl Log {
    fn new() -> Self {
        let (bytes, mut requests) = GuestMemory::memfd(&[(0, PAGE)]).unwrap();
        let file = requests.remove(0).file;
        let log = DirtyLog::map(file, PAGE as u64, 0).unwrap();
        Self {
            log: Arc::new(log),
            bytes,
        }
    }

    /// Pages that are marked, and resets the log.
    fn take(&self) -> Vec<usize> {
        let bytes = peek(&self.bytes, 0, PAGE);
        poke(&self.bytes, 0, &[0; PAGE]);
        let marked = |page: &usize| bytes[page / 8] & 1 << (page % 8) != 0;
        (0..PAGE * 8).filter(marked).collect()
    }

    fn at(&self, used: Option<u64>) -> Option<RingLog> {
        let log = self.log.clone();
        Some(RingLog { log, used })
    }
}

/// Pages on which two states of the memory differ.
fn changed(before: &[u8], after: &[u8]) -> Vec<usize> {
    let pages = before.chunks(PAGE).zip(after.chunks(PAGE));
    let changed = pages
        .enumerate()
        .filter(|(_, (before, after))| before != after);
    changed.map(|(page, _)| page).collect()
}

/// Does something as the device. Pages that it changed must be marked, and no page outside of `allowed`.
fn watch(pair: &mut Pair, log: &Log, allowed: &[usize], act: impl FnOnce(&mut Pair)) {
    let before = peek(&pair.memory, 0, PAGES * PAGE);
    act(pair);
    let after = peek(&pair.memory, 0, PAGES * PAGE);
    let marked = log.take();
    for page in changed(&before, &after) {
        assert!(marked.contains(&page), "page {page} of {marked:?}");
    }
    for page in marked {
        assert!(allowed.contains(&page), "page {page} of {allowed:?}");
    }
}

fn pages(start: u64, len: u64) -> impl Iterator<Item = usize> {
    let page = |at: u64| usize::try_from(at).unwrap() / PAGE;
    page(start)..=page(start + len - 1)
}

/// The pages that a device writes: used ring, or descriptor ring and device event suppression.
fn written(pair: &Pair) -> Vec<usize> {
    let layout = pair.driver.layout();
    let size = u64::from(layout.size);
    let options = DriverOptions {
        table: 0,
        ..options(layout.size, common::FORMATS[0], RingBase::default())
    };
    assert!(DriverRing::bytes(&options) <= PAGES * PAGE);
    match &pair.device {
        DeviceRing::Split(_) => pages(layout.used, 6 + 8 * size).collect(),
        DeviceRing::Packed(_) => pages(layout.descriptors, 16 * size)
            .chain(pages(layout.used, 4))
            .collect(),
    }
}

#[test]
fn every_page_of_the_ring_that_changed_is_marked_and_no_other() {
    for packed in [false, true] {
        for features in all_features(packed) {
            for spot in spots(packed, 1024) {
                let mut pair = Pair::new(DriverOptions {
                    table: 0,
                    ..options(1024, features, spot.base())
                });
                let log = Log::new();
                pair.device.set_log(log.at(Some(pair.driver.layout().used)));
                let allowed = written(&pair);
                for round in 0..24_u32 {
                    for i in 0..40 {
                        let pieces = [(BUFFERS + i * 64, 60), (BUFFERS + i * 64, 4)];
                        let pieces = &pieces[..1 + usize::from((i + u64::from(round)) % 2 == 1)];
                        pair.driver.add(&[], pieces, false).unwrap();
                    }
                    pair.driver.publish();
                    watch(&mut pair, &log, &allowed, |pair| {
                        if round % 3 == 0 {
                            pair.device.enable_kicks();
                        }
                        let memory = pair.memory.clone();
                        let mut batch = WriteBatch::new();
                        pair.device.take_writable(&memory, &mut batch, 40).unwrap();
                        assert_eq!(batch.chains.len(), 40);
                        for chain in &mut batch.chains {
                            chain.written = round * 2;
                        }
                        pair.device.complete(&batch.chains[..25]);
                        if round % 2 == 0 {
                            pair.device.publish_older();
                        } else {
                            pair.device.publish();
                        }
                        pair.device.complete(&batch.chains[25..]);
                        pair.device.publish();
                    });
                    watch(&mut pair, &log, &allowed, |pair| {
                        pair.device.disable_kicks()
                    });
                    assert_eq!(pair.pop_all().len(), 40);
                }
            }
        }
    }
}

/// One chain through the ring, and what was marked.
fn serve(pair: &mut Pair, log: &Log) -> Vec<usize> {
    pair.driver.add(&[(BUFFERS, 64)], &[], false).unwrap();
    pair.driver.publish();
    assert_eq!(pair.serve(1).0, 1);
    assert_eq!(pair.pop_all().len(), 1);
    log.take()
}

#[test]
fn a_split_ring_is_marked_at_the_address_the_front_end_names() {
    let [features, _] = common::FORMATS;
    let mut pair = Pair::start(16, features);
    let log = Log::new();
    pair.device.set_log(log.at(Some(77 << 12)));
    assert_eq!(serve(&mut pair, &log), [77]);
    // Flags and index on one page, the elements on the next.
    pair.device.set_log(log.at(Some((77 << 12) - 4)));
    assert_eq!(serve(&mut pair, &log), [76, 77]);
    for outside in [u64::MAX, u64::MAX - 3, 1 << 50] {
        pair.device.set_log(log.at(Some(outside)));
        assert_eq!(serve(&mut pair, &log), [0; 0]);
        pair.device.enable_kicks();
        assert_eq!(log.take(), [0; 0]);
    }
}

#[test]
fn a_packed_ring_is_marked_where_it_lies() {
    let [_, features] = common::FORMATS;
    let mut pair = Pair::start(16, features);
    let log = Log::new();
    pair.device.set_log(log.at(Some(77 << 12)));
    let layout = pair.driver.layout();
    let descriptors: Vec<_> = pages(layout.descriptors, 16).collect();
    assert_eq!(serve(&mut pair, &log), descriptors);
    pair.device.enable_kicks();
    let event: Vec<_> = pages(layout.used, 4).collect();
    assert_eq!(log.take(), event);
}

#[test]
fn logging_is_switched_and_swapped_while_the_ring_runs() {
    for features in common::FORMATS {
        let mut pair = Pair::start(16, features);
        let (first, second) = (Log::new(), Log::new());
        let used = pair.driver.layout().used;
        assert!(pair.device.log().is_none());
        assert_eq!(serve(&mut pair, &first), [0; 0]);
        pair.device.set_log(first.at(Some(used)));
        assert_ne!(serve(&mut pair, &first), [0; 0]);
        pair.device.set_log(second.at(Some(used)));
        assert_eq!(serve(&mut pair, &first), [0; 0]);
        assert_ne!(second.take(), [0; 0]);
        // Buffers only (no VHOST_VRING_F_LOG).
        pair.device.set_log(second.at(None));
        assert_eq!(serve(&mut pair, &second), [0; 0]);
        assert!(std::ptr::eq(pair.device.log().unwrap(), &*second.log));
        pair.device.set_log(None);
        assert!(pair.device.log().is_none());
        assert_eq!(serve(&mut pair, &second), [0; 0]);
        pair.device.enable_kicks();
        assert_eq!(second.take(), [0; 0]);
    }
}
