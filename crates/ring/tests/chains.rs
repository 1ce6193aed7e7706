//! Chains as a hostile driver makes them, against a model of what the specification allows.
//!
//! The ring must agree with it on every accepted byte and on the fault at which it stops.

#![allow(clippy::cast_possible_truncation)]

mod common;
#[path = "chains/tables.rs"]
mod tables;

use std::collections::BTreeSet;
use std::sync::Arc;

use common::model::{AVAIL, Entry, Expected, INDIRECT, Image, NEXT, Rules, Stop, USED, WRITE};
use common::{Direction, poke, poke_u16};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use ringway_mem::{GuestMemory, ReadSlice, WriteSlice};
use ringway_ring::{
    Batch, DeviceRing, MAX_SEGMENTS, RingBase, RingFault, RingFeatures, RingLayout,
};

/// Two regions side by side, one apart. Ring parts lie in the first, tables across the seam of the first two.
const REGIONS: [(u64, usize); 3] = [(0, 0x8000), (0x8000, 0x3000), (0x1_0000, 0x1000)];
const DESCRIPTORS: u64 = 0;
const AVAILABLE: u64 = 0x1000;
const USED_RING: u64 = 0x2000;
/// The last entries of the table are in the second region.
const TABLE: u64 = 0x8000 - 2 * 16;
const TABLE_ENTRIES: u16 = 6;

#[derive(Clone, Debug)]
struct Case {
    packed: bool,
    indirect: bool,
    writable: bool,
    ring: Vec<Entry>,
    table: Vec<Entry>,
    /// Split: what the available ring holds. Packed: only their count matters.
    heads: Vec<u16>,
    /// Added to the available index (split).
    jump: u16,
    base: u16,
    wrap: bool,
    /// How many chains each take asks for.
    max: usize,
}

fn memory_of(case: &Case) -> (Arc<GuestMemory>, RingLayout, RingBase) {
    let memory = Arc::new(GuestMemory::heap(&REGIONS));
    for (start, len) in REGIONS {
        let pattern = |i: usize| (start as usize + i).wrapping_mul(0x9e37_79b1) >> 13;
        let bytes: Vec<u8> = (0..len).map(|i| pattern(i) as u8).collect();
        poke(&memory, start, &bytes);
    }
    let size = case.ring.len() as u16;
    for (i, entry) in case.table.iter().enumerate() {
        poke(&memory, TABLE + i as u64 * 16, &entry.bytes(case.packed));
    }
    for (i, entry) in case.ring.iter().enumerate() {
        poke(
            &memory,
            DESCRIPTORS + i as u64 * 16,
            &entry.bytes(case.packed),
        );
    }
    let base = if case.packed {
        RingBase::packed(case.base, case.wrap)
    } else {
        let index = case
            .base
            .wrapping_add(case.heads.len() as u16)
            .wrapping_add(case.jump);
        poke_u16(&memory, AVAILABLE + 2, index);
        for (i, &head) in case.heads.iter().enumerate() {
            let slot = case.base.wrapping_add(i as u16) % size;
            poke_u16(&memory, AVAILABLE + 4 + u64::from(slot) * 2, head);
        }
        poke_u16(&memory, USED_RING + 2, case.base);
        RingBase::split(case.base)
    };
    let layout = RingLayout {
        size,
        descriptors: DESCRIPTORS,
        available: AVAILABLE,
        used: USED_RING,
    };
    (memory, layout, base)
}

fn image_of(memory: &GuestMemory) -> Image {
    let region = |(start, len)| (start, common::peek(memory, start, len));
    Image(REGIONS.map(region).to_vec())
}

/// All chains that a device finds, and the fault that ends them.
fn expected(case: &Case, image: &Image) -> (Vec<Expected>, Option<RingFault>) {
    let size = case.ring.len() as u16;
    let rules = Rules {
        packed: case.packed,
        indirect: case.indirect,
        writable: case.writable,
        size,
        descriptors: DESCRIPTORS,
        available: AVAILABLE,
    };
    let mut chains = Vec::new();
    let count = (case.heads.len() as u16).wrapping_add(case.jump);
    if !case.packed && count > size {
        let index = case.base.wrapping_add(count);
        let used = case.base;
        return (chains, Some(RingFault::AvailableJump { index, used, size }));
    }
    let mut left = if case.packed { size } else { count };
    let (mut at, mut wrap) = (case.base, case.wrap);
    while left > 0 {
        let chain = if !case.packed {
            rules.chain(image, rules.head(image, at), size, 0)
        } else if rules.is_available(image, at, wrap) {
            rules.chain(image, at, left, 0)
        } else {
            break;
        };
        let chain = match chain {
            Ok(chain) => chain,
            Err(Stop::Fault(fault)) => return (chains, Some(fault)),
            Err(Stop::Full) => unreachable!("no other chain is in the batch"),
        };
        left -= chain.slots;
        at = at.wrapping_add(chain.slots);
        if case.packed && at >= size {
            at -= size;
            wrap = !wrap;
        }
        chains.push(chain);
    }
    (chains, None)
}

fn check<S>(case: &Case)
where
    S: for<'m> Family<'m>,
{
    let (memory, layout, base) = memory_of(case);
    let features = RingFeatures {
        packed: case.packed,
        indirect: case.indirect,
        ..RingFeatures::default()
    };
    let mut device = DeviceRing::new(&memory, &layout, features, base).unwrap();
    let image = image_of(&memory);
    let (chains, fault) = expected(case, &image);
    let mut seen = 0;
    loop {
        let mut batch = Batch::<<S as Family<'_>>::Slice>::new();
        match Direction::take(&mut device, &memory, &mut batch, case.max) {
            Ok(0) => {
                assert_eq!(fault, None);
                break;
            }
            Ok(taken) => {
                assert_eq!(taken, batch.chains.len());
                for chain in &batch.chains {
                    let want = &chains[seen];
                    assert_eq!((chain.id, chain.slots), (want.id, want.slots));
                    let slices = batch.slices(chain);
                    let bytes: Vec<Vec<u8>> = slices.iter().map(|slice| slice.bytes()).collect();
                    let lens: Vec<u32> = bytes.iter().map(|piece| piece.len() as u32).collect();
                    let want_lens: Vec<u32> = want.pieces.iter().map(|&(_, len)| len).collect();
                    assert_eq!(lens, want_lens);
                    assert_eq!(bytes.concat(), image.bytes(&want.pieces));
                    assert_eq!(chain.len, want.len());
                    assert_eq!(chain.written, 0);
                    seen += 1;
                }
            }
            Err(found) => {
                assert_eq!(Some(found), fault);
                assert!(batch.chains.is_empty() && batch.segments.is_empty());
                // The fault stays.
                let again = Direction::take(&mut device, &memory, &mut batch, case.max);
                assert_eq!(again, Err(found));
                break;
            }
        }
    }
    assert_eq!(seen, chains.len());
    assert_eq!(device.base(), base, "nothing was returned");
}

/// Names a direction without its lifetime.
trait Family<'m> {
    type Slice: Direction<'m> + Copy;
}

struct Readable;
struct Writable;

impl<'m> Family<'m> for Readable {
    type Slice = ReadSlice<'m>;
}

impl<'m> Family<'m> for Writable {
    type Slice = WriteSlice<'m>;
}

fn check_case(case: &Case) {
    if case.writable {
        check::<Writable>(case)
    } else {
        check::<Readable>(case)
    }
}

fn address() -> impl Strategy<Value = u64> {
    prop_oneof![
        8 => 0x4000..0x7000_u64,
        2 => 0x7fc0..0x8040_u64,
        1 => 0xafe0..0xb020_u64,
        2 => 0x1_0000..0x1_0f00_u64,
        1 => Just(0x1_0ff0_u64),
        1 => Just(u64::MAX - 8),
        1 => any::<u64>(),
    ]
}

fn len() -> impl Strategy<Value = u32> {
    prop_oneof![
        12 => 1..200_u32,
        2 => Just(0),
        1 => 0x1000..0x5000_u32,
        1 => Just(u32::MAX),
        1 => any::<u32>(),
    ]
}

/// A descriptor, most often right for its place; `size` bounds `next`.
fn entry(size: u16, writable: bool) -> impl Strategy<Value = Entry> {
    let right = if writable { WRITE } else { 0 };
    let direction = prop_oneof![30 => Just(right), 1 => Just(right ^ WRITE)];
    let next = prop_oneof![6 => Just(0), 4 => Just(NEXT)];
    let indirect = prop_oneof![8 => Just(0), 1 => Just(INDIRECT)];
    let others = prop_oneof![8 => Just(0), 1 => any::<u16>().prop_map(|bits| bits & 0x7f78)];
    let tag = prop_oneof![12 => 0..size, 1 => any::<u16>()];
    let table = (
        Just(TABLE),
        (1..=u32::from(TABLE_ENTRIES)).prop_map(|entries| entries * 16),
    );
    let table = prop_oneof![
        8 => table,
        1 => (address(), len()),
        1 => (Just(TABLE), Just(0)),
        1 => (Just(TABLE), 1..100_u32),
        1 => (Just(0x4000), Just(MAX_SEGMENTS as u32 * 16 + 16)),
    ];
    (
        (address(), len()),
        table,
        direction,
        next,
        indirect,
        others,
        tag,
    )
        .prop_map(|(buffer, table, direction, next, indirect, others, tag)| {
            let (address, len) = if indirect != 0 { table } else { buffer };
            // A table that goes on is a lie of its own; do not tell it every other time.
            let next = if indirect != 0 && others == 0 {
                0
            } else {
                next
            };
            let flags = direction | next | indirect | others;
            Entry {
                address,
                len,
                flags,
                tag,
            }
        })
}

fn case(packed: bool) -> impl Strategy<Value = Case> {
    // Packed rings may have any number of descriptors.
    let sizes = if packed { [1, 3, 7, 16] } else { [1, 4, 8, 16] };
    let size = prop::sample::select(sizes.to_vec());
    (size, any::<bool>()).prop_flat_map(move |(size, writable)| {
        let ring = prop::collection::vec(entry(size, writable), usize::from(size));
        let table = entry(TABLE_ENTRIES, writable).prop_map(move |mut entry| {
            // Nested tables are rare.
            if entry.tag % 4 != 0 {
                entry.flags &= !INDIRECT;
            }
            entry
        });
        let table = prop::collection::vec(table, usize::from(TABLE_ENTRIES));
        let head = prop_oneof![30 => 0..size, 1 => any::<u16>()];
        let heads = prop::collection::vec(head, 0..=usize::from(size));
        let jump = prop_oneof![20 => Just(0_u16), 1 => any::<u16>()];
        let base = prop_oneof![any::<u16>(), 0xfff0..=0xffff_u16, Just(0)];
        let shape = (
            Just(size),
            any::<bool>(),
            Just(writable),
            ring,
            table,
            heads,
        );
        let last = (jump, base, any::<bool>(), 1..40_usize);
        (shape, last).prop_map(move |(shape, last)| {
            let (size, indirect, writable, mut ring, table, heads) = shape;
            let (jump, base, wrap, max) = last;
            let base = if packed { base % size } else { base };
            if packed {
                // As many are available as there would be heads, from the base on.
                for (i, entry) in ring.iter_mut().enumerate() {
                    let distance = (i + usize::from(size - base)) % usize::from(size);
                    let lap = wrap ^ (i < usize::from(base));
                    let available = distance < heads.len();
                    let bits = [(AVAIL, lap == available), (USED, !lap)];
                    entry.flags &= !(AVAIL | USED);
                    for (bit, _) in bits.into_iter().filter(|&(_, set)| set) {
                        entry.flags |= bit;
                    }
                }
            }
            Case {
                packed,
                indirect,
                writable,
                ring,
                table,
                heads,
                jump,
                base,
                wrap,
                max,
            }
        })
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn split_chains_are_taken_as_the_model_says_virtio_2_7_5(case in case(false)) {
        check_case(&case);
    }

    #[test]
    fn packed_chains_are_taken_as_the_model_says_virtio_2_8_6(case in case(true)) {
        check_case(&case);
    }
}

/// The cases above are worth something only if they reach every rule.
#[test]
fn generated_chains_reach_every_fault_and_every_shape() {
    for packed in [false, true] {
        let mut runner = TestRunner::deterministic();
        let (mut faults, mut shapes) = (BTreeSet::new(), BTreeSet::new());
        for _ in 0..6000 {
            let case = case(packed).new_tree(&mut runner).unwrap().current();
            let (memory, ..) = memory_of(&case);
            let image = image_of(&memory);
            let (chains, fault) = expected(&case, &image);
            let name = |fault: RingFault| {
                format!("{fault:?}")
                    .split([' ', '{'])
                    .next()
                    .map(str::to_owned)
            };
            faults.extend(fault.and_then(name));
            for chain in chains {
                shapes.insert((chain.pieces.len().min(3), chain.len() == 0));
            }
        }
        let mut wanted = vec![
            "ChainTooLong",
            "IndirectLength",
            "IndirectNotNegotiated",
            "IndirectWithNext",
            "NestedIndirect",
            "ReadableAfterWritable",
            "TotalTooLong",
            "Unmapped",
            "WrongDirection",
        ];
        if !packed {
            wanted.extend(["AvailableJump", "HeadOutOfRange", "NextOutOfRange"]);
        }
        wanted.sort_unstable();
        assert_eq!(
            faults.iter().map(String::as_str).collect::<Vec<_>>(),
            wanted
        );
        let shapes: Vec<_> = shapes.into_iter().collect();
        assert_eq!(shapes, [(0, true), (1, false), (2, false), (3, false)]);
    }
}
