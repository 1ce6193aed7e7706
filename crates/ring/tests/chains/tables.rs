//! All small indirect tables, against the same model (virtio 1.2, 2.7.5.3 and 2.8.7).

use super::*;

/// Where a buffer lies: no bytes, one, three over the seam of two regions, three of which one is missing.
const BUFFERS: [(u64, u32); 4] = [(0x5000, 0), (0x5000, 1), (0x7fff, 3), (0xafff, 3)];

/// A ring of one chain, which is `table` at [`TABLE`], seen as `len` bytes from `address` on.
fn case(packed: bool, writable: bool, table: &[Entry], (address, len): (u64, u32)) -> Case {
    let head = Entry {
        address,
        len,
        flags: INDIRECT | if packed { AVAIL } else { 0 },
        tag: 1,
    };
    let other = Entry {
        address: 0,
        len: 0,
        flags: 0,
        tag: 0,
    };
    Case {
        packed,
        indirect: true,
        writable,
        ring: vec![head, other],
        table: table.to_vec(),
        heads: vec![0],
        jump: 0,
        base: 0,
        wrap: true,
        max: 2,
    }
}

/// Every entry of `flags`, `tags` and `buffers`; `WRITE` among the flags means the wrong direction.
fn entries(writable: bool, flags: &[u16], tags: &[u16], buffers: &[(u64, u32)]) -> Vec<Entry> {
    let right = if writable { WRITE } else { 0 };
    let mut entries = Vec::new();
    for &flags in flags {
        for &tag in tags {
            entries.extend(buffers.iter().map(|&(address, len)| Entry {
                address,
                len,
                flags: flags ^ right,
                tag,
            }));
        }
    }
    entries
}

/// Every table of `count` entries, whole.
fn check_tables(packed: bool, writable: bool, entries: &[Entry], count: u32) -> usize {
    let tables = entries.len().pow(count);
    for number in 0..tables {
        let digit = |place: u32| number / entries.len().pow(place) % entries.len();
        let table: Vec<Entry> = (0..count).map(|place| entries[digit(place)]).collect();
        check_case(&case(packed, writable, &table, (TABLE, count * 16)));
    }
    tables
}

/// All flags and ways to go on, with every buffer in tables of one entry or two, with one byte in those of three.
fn check_small_tables(packed: bool, tags: &[&[u16]; 3]) {
    let all = [0, NEXT, WRITE, NEXT | WRITE, INDIRECT];
    for writable in [false, true] {
        for count in 1..=2 {
            let entries = entries(writable, &all, tags[count as usize - 1], &BUFFERS);
            assert!(check_tables(packed, writable, &entries, count) >= 20);
        }
        let entries = entries(writable, &all[..3], tags[2], &BUFFERS[1..2]);
        assert!(check_tables(packed, writable, &entries, 3) >= 27);
    }
}

#[test]
fn every_small_split_table_virtio_2_7_5_3() {
    check_small_tables(false, &[&[0, 1], &[0, 1, 2], &[0, 1, 2, 3]]);
}

/// There, the tag of an entry means nothing.
#[test]
fn every_small_packed_table_virtio_2_8_7() {
    check_small_tables(true, &[&[0], &[0], &[0, 9]]);
}

#[test]
fn every_length_and_place_of_a_table() {
    for packed in [false, true] {
        let table = entries(false, &[NEXT, 0], &[1], &BUFFERS[1..2]);
        let places = [TABLE, TABLE + 16, 0x8000, 0xb000 - 32, 0xb000 - 8, 0xb000];
        let lens = (0..=49).chain([u32::MAX - 15, u32::MAX, 1024 * 16, 1025 * 16]);
        for len in lens {
            for address in places.into_iter().chain([u64::MAX - 15, u64::MAX]) {
                check_case(&case(packed, false, &table, (address, len)));
            }
        }
    }
}
