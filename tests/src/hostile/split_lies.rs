//! Lies in split rings (virtio 1.2, 2.7).

use anyhow::Result;
use ringway_vhost::user::features::{
    VIRTIO_NET_F_CSUM, VIRTIO_NET_F_HOST_TSO4, VIRTIO_NET_F_HOST_TSO6, VIRTIO_RING_F_INDIRECT_DESC,
    mask,
};

use super::crooked::{BODY, DESERT, INDIRECT, NEXT, RECEIVE, Ring, SIZE, TABLE, WRITE};
use super::ring_lies::{DATA, Fate, Lie, NOWHERE, WHOLE, splinters};

/// Bytes that are no memory, in either format.
pub(super) fn nowhere() -> [Lie; NOWHERE.len()] {
    macro_rules! nowhere {
        ($($index:literal $name:literal,)+) => {
            [$(Lie::fault($name, "unmapped", |ring, w| {
                let (address, len) = NOWHERE[$index];
                one(ring, (address, len, w, 0))
            }),)+]
        };
    }
    nowhere![
        0 "bytes that are no memory",
        1 "bytes around the end of addresses",
        2 "the last byte of all",
        3 "bytes in the upper half",
        4 "bytes that begin in memory and end after it",
        5 "bytes that begin in memory and end in a gap",
        6 "bytes that begin in a gap",
        7 "the byte after memory",
        8 "bytes over the end of a large region",
        9 "the longest length",
    ]
}

/// All of them.
pub(super) fn all() -> Vec<Lie> {
    let mut all = Vec::from(INDICES);
    all.extend(nowhere());
    all.extend(CHAINS);
    all.extend(LENGTHS);
    all.extend(TABLES);
    all.extend(FRAMES);
    all.extend(headers());
    all
}

pub(super) fn one(ring: &mut Ring, descriptor: super::crooked::Descriptor) -> Result<u16> {
    ring.offer(&[descriptor])?;
    Ok(1)
}

const INDICES: [Lie; 6] = [
    Lie::fault("a head outside the ring", "head_out_of_range", |ring, w| {
        ring.put(0, (DATA, WHOLE, w, 0))?;
        ring.set_head(SIZE)?;
        ring.publish(ring.next.wrapping_add(1))?;
        ring.kick()?;
        Ok(1)
    }),
    Lie::fault("the largest head", "head_out_of_range", |ring, _| {
        ring.set_head(u16::MAX)?;
        ring.publish(ring.next.wrapping_add(1))?;
        ring.kick()?;
        Ok(1)
    }),
    Lie::fault(
        "one chain more than the ring holds",
        "available_jump",
        |ring, _| {
            ring.publish(ring.next.wrapping_add(SIZE + 1))?;
            ring.kick()?;
            Ok(1)
        },
    ),
    Lie::fault("an index that goes back", "available_jump", |ring, _| {
        ring.publish(ring.next.wrapping_sub(1))?;
        ring.kick()?;
        Ok(1)
    }),
    Lie::fault("an index half around", "available_jump", |ring, _| {
        ring.publish(ring.next.wrapping_add(0x8000))?;
        ring.kick()?;
        Ok(1)
    }),
    Lie::fault("an index from another ring", "available_jump", |ring, _| {
        ring.publish(ring.next ^ 0x5555)?;
        ring.kick()?;
        Ok(1)
    }),
];

const CHAINS: [Lie; 9] = [
    Lie::fault(
        "a next descriptor outside the ring",
        "next_out_of_range",
        |ring, w| one(ring, (DATA, 20, w | NEXT, SIZE)),
    ),
    Lie::fault("the largest next", "next_out_of_range", |ring, w| {
        one(ring, (DATA, 20, w | NEXT, u16::MAX))
    }),
    Lie::fault(
        "a chain that bites its tail",
        "chain_too_long",
        |ring, w| one(ring, (DATA, 1, w | NEXT, 0)),
    ),
    Lie::fault("a loop of no bytes", "chain_too_long", |ring, w| {
        one(ring, (DATA, 0, w | NEXT, 0))
    }),
    Lie::fault(
        "a loop through the whole ring",
        "chain_too_long",
        |ring, w| {
            let chain: Vec<_> = (1..=SIZE)
                .map(|next| (DATA, 2, w | NEXT, next % SIZE))
                .collect();
            ring.offer(&chain)?;
            Ok(1)
        },
    ),
    Lie::fault("the wrong direction", "wrong_direction", |ring, w| {
        one(ring, (DATA, WHOLE, w ^ WRITE, 0))
    }),
    Lie {
        // To be read: the second is to be written. To be written: the second follows one that is.
        fate: [
            Fate::Fault("readable_after_writable"),
            Fate::Fault("wrong_direction"),
        ],
        ..Lie::fault("a chain that turns", "", |ring, w| {
            ring.offer(&[(DATA, 20, w | NEXT, 1), (DATA, 90, w ^ WRITE, 0)])?;
            Ok(1)
        })
    },
    Lie::fault(
        "four gigabytes in one chain",
        "total_too_long",
        |ring, w| {
            let gigabyte = 1 << 30;
            let chain: Vec<_> = (1..=4)
                .map(|next| (DESERT, gigabyte, w | if next < 4 { NEXT } else { 0 }, next))
                .collect();
            ring.offer(&chain)?;
            Ok(1)
        },
    ),
    Lie {
        only: Some(RECEIVE),
        fate: [Fate::Dropped("no_buffers"); 2],
        ..Lie::fault("a buffer of no bytes", "", |ring, w| {
            one(ring, (DATA, 0, w, 0))
        })
    },
];

/// Lies about indirect tables that read the same in either format.
pub(super) const LENGTHS: [Lie; 8] = [
    Lie::fault("a table of no bytes", "indirect_length", |ring, _| {
        one(ring, (TABLE, 0, INDIRECT, 0))
    }),
    Lie::fault(
        "a table of half a descriptor",
        "indirect_length",
        |ring, _| one(ring, (TABLE, 8, INDIRECT, 0)),
    ),
    Lie::fault("a table with a byte more", "indirect_length", |ring, _| {
        one(ring, (TABLE, 17, INDIRECT, 0))
    }),
    Lie::fault("a table longer than any", "indirect_length", |ring, _| {
        one(ring, (TABLE, 1025 * 16, INDIRECT, 0))
    }),
    Lie::fault("the longest table", "indirect_length", |ring, _| {
        one(ring, (DESERT, !15, INDIRECT, 0))
    }),
    Lie::fault("a table that is no memory", "unmapped", |ring, _| {
        one(ring, (1 << 40, 32, INDIRECT, 0))
    }),
    Lie::fault(
        "a table around the end of addresses",
        "unmapped",
        |ring, _| one(ring, (u64::MAX - 15, 32, INDIRECT, 0)),
    ),
    Lie::fault("a table over the end of memory", "unmapped", |ring, _| {
        one(ring, (super::crooked::END - 16, 32, INDIRECT, 0))
    }),
];

const TABLES: [Lie; 9] = [
    Lie {
        without: mask(&[VIRTIO_RING_F_INDIRECT_DESC]),
        ..Lie::fault(
            "a table that was not negotiated",
            "indirect_not_negotiated",
            |ring, w| {
                let table = ring.table(&[(DATA, WHOLE, w, 0)])?;
                one(ring, table)
            },
        )
    },
    Lie::fault("a table that goes on", "indirect_with_next", |ring, w| {
        let (address, len, flags, _) = ring.table(&[(DATA, WHOLE, w, 0)])?;
        one(ring, (address, len, flags | NEXT, 1))
    }),
    Lie::fault("a table in a table", "nested_indirect", |ring, _| {
        let table = ring.table(&[(TABLE, 16, INDIRECT, 0)])?;
        one(ring, table)
    }),
    Lie::fault(
        "a next outside the table",
        "next_out_of_range",
        |ring, w| {
            let table = ring.table(&[(DATA, 20, w | NEXT, 2), (DATA, 90, w, 0)])?;
            one(ring, table)
        },
    ),
    Lie::fault("a loop in a table", "chain_too_long", |ring, w| {
        let table = ring.table(&[(DATA, 20, w | NEXT, 1), (DATA, 90, w | NEXT, 0)])?;
        one(ring, table)
    }),
    Lie::fault(
        "a table of the wrong direction",
        "wrong_direction",
        |ring, w| {
            let table = ring.table(&[(DATA, WHOLE, w ^ WRITE, 0)])?;
            one(ring, table)
        },
    ),
    Lie::fault("a table of what is no memory", "unmapped", |ring, w| {
        let table = ring.table(&[(1 << 40, 100, w, 0)])?;
        one(ring, table)
    }),
    Lie::fault(
        "more pieces than there may be",
        "too_many_segments",
        |ring, w| {
            let table = splinters(ring, w, false)?;
            one(ring, table)
        },
    ),
    Lie::fault(
        "more empty pieces than there may be",
        "too_many_segments",
        |ring, w| {
            let entry = |index: u16| (DATA, 0, w | if index < 1023 { NEXT } else { 0 }, index + 1);
            let entries: Vec<_> = (0..1024).map(entry).collect();
            let table = ring.table(&entries)?;
            ring.offer(&[(DATA, 0, w | NEXT, 1), table])?;
            Ok(1)
        },
    ),
];

/// Frames that are none, and strange ones that are, each in a chain of one descriptor.
pub(super) const PLAIN: [Lie; 6] = [
    Lie::sent("no bytes", Fate::Dropped("too_short"), |ring, _| {
        one(ring, (DATA, 0, 0, 9))
    }),
    Lie::sent("half a header", Fate::Dropped("too_short"), |ring, _| {
        one(ring, (DATA, 5, 0, 9))
    }),
    Lie::sent("a header alone", Fate::Dropped("too_short"), |ring, _| {
        one(ring, (DATA, 12, 0, 9))
    }),
    Lie::sent(
        "less than an Ethernet header",
        Fate::Dropped("too_short"),
        |ring, _| one(ring, (DATA, 12 + 13, 0, 9)),
    ),
    Lie::sent("a byte too much", Fate::Dropped("too_long"), |ring, _| {
        one(ring, (BODY, 12 + 65_535 + 14 + 8 + 1, 0, 9))
    }),
    Lie::sent("a gigabyte", Fate::Dropped("too_long"), |ring, _| {
        one(ring, (DESERT, 1 << 30, 0, 9))
    }),
];

const FRAMES: [Lie; 2] = [
    Lie::sent("a header of single bytes", Fate::Arrives, |ring, _| {
        let mut chain: Vec<_> = (0..12_u16)
            .map(|at| (DATA + u64::from(at), 1, NEXT, at + 1))
            .collect();
        chain.push((DATA + 12, WHOLE - 12, 0, 0));
        ring.offer(&chain)?;
        Ok(1)
    }),
    Lie::sent("a header between empty pieces", Fate::Arrives, |ring, _| {
        ring.offer(&[
            (1 << 40, 0, NEXT, 1),
            (DATA, 7, NEXT, 2),
            (DATA, 0, NEXT, 3),
            (DATA + 7, WHOLE - 7, NEXT, 4),
            (u64::MAX, 0, 0, 0),
        ])?;
        Ok(1)
    }),
];

/// Overwrites the header at [`DATA`] and offers the frame.
fn with_header(ring: &mut Ring, header: [u8; 12]) -> Result<u16> {
    ring.write(DATA, &header)?;
    one(ring, (DATA, WHOLE, 0, 9))
}

/// A virtio-net header: flags, type, length of headers, size of segments, start and offset of the checksum.
const fn header(flags: u8, gso: u8, numbers: [u16; 4]) -> [u8; 12] {
    let [[a, b], [c, d], [e, f], [g, h]] = [
        numbers[0].to_le_bytes(),
        numbers[1].to_le_bytes(),
        numbers[2].to_le_bytes(),
        numbers[3].to_le_bytes(),
    ];
    [flags, gso, a, b, c, d, e, f, g, h, 0xff, 0xff]
}

const BAD: Fate = Fate::Dropped("bad_header");

/// Lies in virtio-net headers, which no ring format changes.
pub(super) fn headers() -> Vec<Lie> {
    let checksums = mask(&[
        VIRTIO_NET_F_CSUM,
        VIRTIO_NET_F_HOST_TSO4,
        VIRTIO_NET_F_HOST_TSO6,
    ]);
    let mut all = Vec::from(PLAIN);
    all.extend([
        Lie::sent("a checksum that ends outside", BAD, |ring, _| {
            with_header(ring, header(1, 0, [0, 0, 99, 0]))
        }),
        Lie::sent("a checksum around the end of numbers", BAD, |ring, _| {
            with_header(ring, header(1, 0, [0, 0, 0xffff, 0xffff]))
        }),
        Lie::sent("segments of no bytes", BAD, |ring, _| {
            with_header(ring, header(1, 1, [54, 0, 34, 16]))
        }),
        Lie::sent("segments without a checksum", BAD, |ring, _| {
            with_header(ring, header(0, 1, [54, 100, 0, 0]))
        }),
        Lie::sent("segments of an unknown type", BAD, |ring, _| {
            with_header(ring, header(1, 0x7f, [54, 100, 34, 16]))
        }),
        Lie::sent("segments of a type that is not offered", BAD, |ring, _| {
            with_header(ring, header(1, 3, [54, 100, 34, 6]))
        }),
        Lie::sent(
            "segments of a type that was not negotiated",
            BAD,
            |ring, _| with_header(ring, header(1, 5, [54, 100, 34, 6])),
        ),
        Lie::sent("congestion marks without segments", BAD, |ring, _| {
            with_header(ring, header(0, 0x80, [0; 4]))
        }),
        Lie {
            without: checksums,
            ..Lie::sent("a checksum that was not negotiated", BAD, |ring, _| {
                with_header(ring, header(1, 0, [0, 0, 34, 16]))
            })
        },
        Lie::sent("numbers without meaning", Fate::Arrives, |ring, _| {
            with_header(ring, header(0xfe, 0, [0xffff; 4]))
        }),
        Lie::sent(
            "a group as source",
            Fate::Dropped("bad_source"),
            |ring, _| {
                ring.write(DATA + 12 + 6, &[1])?;
                one(ring, (DATA, WHOLE, 0, 9))
            },
        ),
    ]);
    all
}
