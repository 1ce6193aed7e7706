//! Lies in packed rings (virtio 1.2, 2.8).

use ringway_vhost::user::features::{VIRTIO_RING_F_INDIRECT_DESC, mask};

use super::crooked::{AVAILABLE, DESERT, INDIRECT, NEXT, RECEIVE, SIZE, TABLE, USED, WRITE};
use super::ring_lies::{DATA, Fate, Lie, WHOLE, splinters};
use super::split_lies::{LENGTHS, headers, nowhere, one};

/// All of them.
pub(super) fn all() -> Vec<Lie> {
    let mut all = Vec::from(nowhere());
    all.extend(LAPS);
    all.extend(CHAINS);
    all.extend(LENGTHS);
    all.extend(TABLES);
    all.extend(FRAMES);
    all.extend(headers());
    all
}

/// What belongs to another lap is not there.
const LAPS: [Lie; 3] = [
    Lie {
        fate: [Fate::Unseen; 2],
        ..Lie::fault("a descriptor of the lap before", "", |ring, w| {
            let flags = ring.owned(0) ^ (AVAILABLE | USED);
            ring.put(ring.next, (DATA, WHOLE, w | flags, 3))?;
            ring.kick()?;
            Ok(1)
        })
    },
    Lie {
        fate: [Fate::Unseen; 2],
        ..Lie::fault("a descriptor that is used", "", |ring, w| {
            let flags = if ring.wrap { AVAILABLE | USED } else { 0 };
            ring.put(ring.next, (DATA, WHOLE, w | flags, 3))?;
            ring.kick()?;
            Ok(1)
        })
    },
    Lie {
        fate: [Fate::Unseen; 2],
        ..Lie::fault(
            "descriptors after one that is not available",
            "",
            |ring, w| {
                for ahead in 1..5 {
                    let place = (ring.next + ahead) % SIZE;
                    let flags = ring.owned(ahead);
                    ring.put(place, (DATA, WHOLE, w | flags, 3))?;
                }
                ring.kick()?;
                // Taken back, or they would follow what is offered next.
                for ahead in 1..5 {
                    let place = (ring.next + ahead) % SIZE;
                    let flags = ring.owned(ahead) ^ AVAILABLE ^ USED;
                    ring.put(place, (0, 0, flags, 0))?;
                }
                Ok(1)
            },
        )
    },
];

const CHAINS: [Lie; 8] = [
    Lie::fault("a chain without an end", "chain_too_long", |ring, w| {
        ring.offer(&[(DATA, 1, w | NEXT, 0); SIZE as usize])?;
        Ok(SIZE)
    }),
    Lie::fault(
        "a chain of nothing without an end",
        "chain_too_long",
        |ring, w| {
            ring.offer(&[(DATA, 0, w | NEXT, 0); SIZE as usize])?;
            Ok(SIZE)
        },
    ),
    Lie::fault("the wrong direction", "wrong_direction", |ring, w| {
        one(ring, (DATA, WHOLE, w ^ WRITE, 0))
    }),
    Lie {
        fate: [
            Fate::Fault("readable_after_writable"),
            Fate::Fault("wrong_direction"),
        ],
        ..Lie::fault("a chain that turns", "", |ring, w| {
            ring.offer(&[(DATA, 20, w | NEXT, 1), (DATA, 90, w ^ WRITE, 1)])?;
            Ok(2)
        })
    },
    Lie::fault(
        "four gigabytes in one chain",
        "total_too_long",
        |ring, w| {
            let gigabyte = 1 << 30;
            ring.offer(&[
                (DESERT, gigabyte, w | NEXT, 1),
                (DESERT, gigabyte, w | NEXT, 1),
                (DESERT, gigabyte, w | NEXT, 1),
                (DESERT, gigabyte, w, 1),
            ])?;
            Ok(4)
        },
    ),
    Lie::fault(
        "a table in the middle of a chain",
        "indirect_with_next",
        |ring, w| {
            let table = ring.table(&[(DATA, WHOLE, w, 0)])?;
            ring.offer(&[(DATA, 20, w | NEXT, 1), table])?;
            Ok(2)
        },
    ),
    Lie {
        fate: [Fate::Arrives; 2],
        ..Lie::fault("an id that the ring does not have", "", |ring, w| {
            one(ring, (DATA, WHOLE, w, u16::MAX))
        })
    },
    Lie {
        only: Some(RECEIVE),
        fate: [Fate::Dropped("no_buffers"); 2],
        ..Lie::fault("a buffer of no bytes", "", |ring, w| {
            one(ring, (DATA, 0, w, 0))
        })
    },
];

const TABLES: [Lie; 6] = [
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
        ring.offer(&[(address, len, flags | NEXT, 1), (DATA, 1, w, 1)])?;
        Ok(2)
    }),
    Lie::fault("a table in a table", "nested_indirect", |ring, _| {
        let table = ring.table(&[(TABLE, 16, INDIRECT, 0)])?;
        one(ring, table)
    }),
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
    Lie {
        fate: [Fate::Arrives; 2],
        ..Lie::fault("links in a table, which mean nothing", "", |ring, w| {
            let table = ring.table(&[(DATA, 20, w | NEXT, 77), (DATA + 20, WHOLE - 20, w, 5)])?;
            one(ring, table)
        })
    },
];

const FRAMES: [Lie; 2] = [
    Lie::sent("a header of single bytes", Fate::Arrives, |ring, _| {
        let mut chain: Vec<_> = (0..12_u16)
            .map(|at| (DATA + u64::from(at), 1, NEXT, 3))
            .collect();
        chain.push((DATA + 12, WHOLE - 12, 0, 3));
        ring.offer(&chain)?;
        Ok(13)
    }),
    Lie::sent("a header between empty pieces", Fate::Arrives, |ring, _| {
        ring.offer(&[
            (1 << 40, 0, NEXT, 3),
            (DATA, 7, NEXT, 3),
            (DATA, 0, NEXT, 3),
            (DATA + 7, WHOLE - 7, NEXT, 3),
            (u64::MAX, 0, 0, 3),
        ])?;
        Ok(5)
    }),
];
