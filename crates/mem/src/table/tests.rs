//! Translation against a model that knows the owner of every byte.

use proptest::prelude::*;

use super::*;

/// A table laid out by gaps and sizes, somewhere in the address space, with every byte a function of its address.
struct Model {
    memory: GuestMemory,
    /// Where the first gap begins.
    origin: u64,
    /// For each byte from `origin` on, the index of its region.
    owners: Vec<Option<usize>>,
}

fn pattern(address: u64) -> u8 {
    address.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes()[0]
}

impl Model {
    fn new(origin: u64, spans: &[(usize, usize)]) -> Self {
        let mut owners = Vec::new();
        let mut layout = Vec::new();
        for (index, &(gap, size)) in spans.iter().enumerate() {
            owners.resize(owners.len() + gap, None);
            layout.push((origin + owners.len() as u64, size));
            owners.resize(owners.len() + size, Some(index));
        }
        let memory = GuestMemory::heap(&layout);
        for &(address, size) in &layout {
            let bytes: Vec<u8> = (0..size as u64).map(|i| pattern(address + i)).collect();
            let len = u32::try_from(size).unwrap();
            let slice = memory.write(&mut LastHit::default(), address, len);
            assert_eq!(slice.unwrap().copy_from(&bytes), size);
        }
        Self {
            memory,
            origin,
            owners,
        }
    }

    /// How many bytes from `address` on, at most `len`, belong to the region of the first.
    fn prefix(&self, address: u64, len: u32) -> usize {
        let Some(at) = address.checked_sub(self.origin) else {
            return 0;
        };
        let at = usize::try_from(at).unwrap();
        let owner = |i: usize| self.owners.get(i).copied().flatten();
        let Some(first) = owner(at) else { return 0 };
        let same = (at..).take_while(|&i| owner(i) == Some(first));
        same.take(len as usize).count()
    }

    fn check(&self, hit: &mut LastHit, address: u64, len: u32) {
        let prefix = self.prefix(address, len);
        let whole = len as usize == prefix;
        let read = self.memory.read(hit, address, len);
        assert_eq!(read.map(|slice| slice.len()), whole.then_some(prefix));
        let write = self.memory.write(hit, address, len);
        assert_eq!(write.map(|slice| slice.len()), whole.then_some(prefix));
        let piece = self.memory.read_prefix(address, len);
        let wanted = (prefix > 0 || len == 0).then_some(prefix);
        assert_eq!(piece.map(|slice| slice.len()), wanted);
        let piece = self.memory.write_prefix(address, len);
        assert_eq!(piece.map(|slice| slice.len()), wanted);
        let user = self.memory.user_to_guest(address, u64::from(len));
        if len > 0 {
            assert_eq!(user, whole.then_some(address));
        }
        for slice in [read, piece.map(WriteSlice::as_read)].into_iter().flatten() {
            let mut out = vec![0; slice.len()];
            assert_eq!(slice.copy_to(&mut out), slice.len());
            let at = |i: u64| address.wrapping_add(i);
            assert!((0..).zip(&out).all(|(i, &byte)| byte == pattern(at(i))));
        }
    }
}

proptest! {
    #[test]
    fn translation_agrees_with_the_model(
        origin in prop_oneof![Just(0u64), 0..1u64 << 48, Just(u64::MAX - 4096)],
        spans in prop::collection::vec((prop_oneof![Just(0usize), 0..40usize], 1..200usize), 0..8),
        hit in 0..10usize,
        queries in prop::collection::vec((0..2000u64, 0..250u32), 1..50),
    ) {
        let model = Model::new(origin, &spans);
        let mut hit = LastHit(hit);
        for (offset, len) in queries {
            model.check(&mut hit, origin.wrapping_add(offset), len);
        }
    }
}

#[test]
fn every_address_and_length_around_adjacent_regions() {
    let model = Model::new(0x1000, &[(3, 5), (0, 4), (2, 1), (0, 1), (0, 6)]);
    for start in 0..6 {
        for address in 0xffc..0x1020 {
            for len in 0..24 {
                model.check(&mut LastHit(start), address, len);
            }
        }
    }
}

/// Up to three regions of up to three bytes, side by side or apart.
fn small_layouts() -> Vec<Vec<(usize, usize)>> {
    let spans = (0..2).flat_map(|gap| (1..4).map(move |size| (gap, size)));
    let spans: Vec<(usize, usize)> = spans.collect();
    let mut layouts = vec![Vec::new()];
    let mut last = layouts.clone();
    for _ in 0..3 {
        let longer = last.iter().flat_map(|layout| {
            let more = spans
                .iter()
                .map(|&span| [layout.as_slice(), &[span]].concat());
            more.collect::<Vec<_>>()
        });
        last = longer.collect();
        layouts.extend_from_slice(&last);
    }
    layouts
}

#[test]
fn every_address_and_length_in_every_small_layout() {
    let layouts = small_layouts();
    assert_eq!(layouts.len(), 1 + 6 + 36 + 216);
    for origin in [0, 0xfff, u64::MAX - 32] {
        for layout in &layouts {
            let model = Model::new(origin, layout);
            let end = model.owners.len() as u64 + 2;
            for offset in 0..=end + 2 {
                let address = origin.wrapping_add(offset).wrapping_sub(2);
                for len in 0..=u32::try_from(end).unwrap() {
                    for hit in 0..=layout.len() {
                        model.check(&mut LastHit(hit), address, len);
                    }
                }
                // No sum of an address and a length may wrap into a region.
                for len in [u32::MAX - 1, u32::MAX] {
                    assert!(model.memory.read(&mut LastHit(0), address, len).is_none());
                }
                let user = |len| model.memory.user_to_guest(address, len);
                assert_eq!([user(u64::MAX - offset), user(u64::MAX)], [None; 2]);
            }
        }
    }
}

#[test]
fn the_ends_of_the_address_space_do_not_wrap() {
    let top = u64::MAX - 100;
    let memory = GuestMemory::heap(&[(0, 50), (top, 100)]);
    let mut hit = LastHit::default();
    assert!(memory.read(&mut hit, top, 100).is_some());
    assert!(memory.read(&mut hit, top, 101).is_none());
    assert!(memory.read(&mut hit, top + 99, u32::MAX).is_none());
    assert!(memory.read(&mut hit, u64::MAX, 1).is_none());
    assert!(memory.read(&mut hit, u64::MAX, 60).is_none());
    assert!(memory.read(&mut hit, 0, 50).is_some());
    assert_eq!(memory.read_prefix(top + 90, u32::MAX).unwrap().len(), 10);
    assert!(memory.read_prefix(u64::MAX, 2).is_none());
    assert_eq!(memory.user_to_guest(top, u64::MAX), None);
}

#[test]
fn no_bytes_lie_anywhere() {
    for memory in [GuestMemory::heap(&[]), GuestMemory::heap(&[(4096, 10)])] {
        for address in [0, 4095, 4096, 4106, u64::MAX] {
            let mut hit = LastHit::default();
            assert_eq!(memory.read(&mut hit, address, 0).unwrap().len(), 0);
            assert_eq!(memory.write(&mut hit, address, 0).unwrap().len(), 0);
            assert_eq!(memory.read_prefix(address, 0).unwrap().len(), 0);
        }
    }
}

#[test]
fn the_last_hit_is_remembered_and_never_trusted() {
    let memory = GuestMemory::heap(&[(0, 10), (100, 10)]);
    let mut hit = LastHit::default();
    assert!(memory.read(&mut hit, 105, 5).is_some());
    assert_eq!(hit.0, 1);
    assert!(memory.read(&mut hit, 50, 5).is_none());
    assert_eq!(hit.0, 1);
    let smaller = GuestMemory::heap(&[(0, 10)]);
    assert!(smaller.read(&mut hit, 0, 10).is_some());
    assert!(smaller.read(&mut LastHit(usize::MAX), 0, 10).is_some());
}

#[test]
#[should_panic(expected = "heap memory: memory regions at user addresses 0x0 and 0x5 overlap")]
fn a_layout_of_our_own_that_overlaps_is_a_bug() {
    GuestMemory::heap(&[(0, 10), (5, 10)]);
}
