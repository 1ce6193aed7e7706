//! The region for what is in flight: its layout, its limits, and what a hostile front-end does to it.

use std::sync::Arc;

use ringway_mem::{WordFile, Words};
use rustix::fs::{MemfdFlags, SealFlags, fstat, ftruncate, memfd_create};

use super::*;

/// Words that the data path wants for itself.
const EXTRA: usize = 10;

fn pair(features: u64) -> Pair {
    let mut pair = Pair::fresh();
    pair.session = pair.session.with_inflight_words(EXTRA);
    pair.session.state_mut().protocol_features = PROTOCOL_FEATURES;
    pair.ok(Request::SetFeatures, &features.to_ne_bytes(), &[]);
    pair
}

fn split() -> Pair {
    pair(ACKED)
}

fn packed() -> Pair {
    pair(ACKED | mask(&[VIRTIO_F_RING_PACKED]))
}

fn area(rings: u16, ring_size: u16) -> InflightArea {
    InflightArea {
        size: 0,
        offset: 0,
        rings,
        ring_size,
    }
}

/// What GET_INFLIGHT_FD gives.
fn get(pair: &mut Pair, rings: u16, ring_size: u16) -> Option<(InflightArea, OwnedFd)> {
    let asked = area(rings, ring_size).bytes();
    pair.send(Request::GetInflightFd, &asked, &[], false);
    assert_eq!(pair.handle().unwrap(), Event::Answered);
    let mut answer = pair.answer().unwrap();
    assert_eq!(
        answer.header,
        Header::reply(Request::GetInflightFd.id(), 24)
    );
    let area = InflightArea::parse(&answer.payload).unwrap();
    let file = answer.descriptors.pop();
    assert!(answer.descriptors.is_empty());
    assert_eq!(file.is_some(), area.size > 0);
    file.map(|file| (area, file))
}

fn words(file: &OwnedFd, count: usize) -> Words {
    let file = file.try_clone().unwrap();
    Arc::new(WordFile::map(file, count).unwrap()).words(0, count)
}

fn file(size: u64) -> OwnedFd {
    let file = memfd_create("inflight", MemfdFlags::CLOEXEC).unwrap();
    ftruncate(&file, size).unwrap();
    file
}

/// What a ring's head says: version, entries, and the word with its place.
fn head(words: &Words, start: usize, packed: bool) -> (u64, u64, u64) {
    let word = words.load(start + 1);
    let position = if packed {
        words.load(start + 2)
    } else {
        word >> 48
    };
    (word & 0xffff, word >> 16 & 0xffff, position)
}

#[test]
fn a_region_has_the_layout_of_the_specification() {
    // A head of 16 bytes and 16 for each descriptor; the next ring begins at a multiple of 64.
    let mut pair = split();
    for (size, stride) in [(256, 4160), (1, 64), (32768, 524_352)] {
        let (area, file) = get(&mut pair, 2, size).unwrap();
        assert_eq!((area.size, area.offset), (2 * stride, 0));
        assert_eq!((area.rings, area.ring_size), (2, size));
        assert_eq!(u64::try_from(fstat(&file).unwrap().st_size), Ok(area.size));
        let stride = usize::try_from(stride).unwrap() / 8;
        let words = words(&file, 2 * stride);
        for start in [0, stride] {
            assert_eq!(head(&words, start, false), (1, size.into(), 0));
        }
    }
    // 32 and 32, and the data path's words behind.
    let mut pair = packed();
    for (size, stride) in [(256, 8256), (3, 128), (1, 64)] {
        let (area, file) = get(&mut pair, 3, size).unwrap();
        assert_eq!(area.size, 3 * (stride + 8 * EXTRA as u64));
        let stride = usize::try_from(stride).unwrap() / 8;
        let words = words(&file, 3 * (stride + EXTRA));
        for start in [0, stride, 2 * stride] {
            // Both wrap counters are 1.
            assert_eq!(head(&words, start, true), (1, size.into(), 0x101_0000_0000));
        }
    }
}

#[test]
fn a_region_cannot_be_cut_and_costs_no_more_than_its_heads() {
    let (area, file) = get(&mut packed(), 4, 32768).unwrap();
    assert!(ftruncate(&file, 4096).is_err());
    assert!(ftruncate(&file, area.size + 4096).is_err());
    let seals = rustix::fs::fcntl_get_seals(&file).unwrap();
    assert!(seals.contains(SealFlags::SHRINK | SealFlags::SEAL));
    assert!(area.size > 4 << 20);
    assert!(512 * fstat(&file).unwrap().st_blocks <= 4 * 4096);
}

#[test]
fn a_region_for_rings_that_cannot_be_is_refused() {
    for (rings, size) in [
        (0, 256),
        (5, 256),
        (u16::MAX, 256),
        (2, 0),
        (2, 32769),
        (2, u16::MAX),
    ] {
        assert!(get(&mut packed(), rings, size).is_none());
        let file = file(1 << 20);
        let mut area = area(rings, size);
        area.size = 1 << 20;
        let refused = Pair::refused(
            packed,
            Request::SetInflightFd,
            &area.bytes(),
            &[file.as_fd()],
        );
        assert!(
            matches!(refused, SessionError::InflightArea { .. }),
            "{refused}"
        );
    }
    assert!(get(&mut split(), 2, 100).is_none());
    assert!(get(&mut packed(), 2, 100).is_some());
}

#[test]
fn only_so_many_files_are_made_on_a_connection() {
    let mut pair = split();
    let given = (0..10).filter(|_| get(&mut pair, 2, 256).is_some());
    assert_eq!(given.count(), 4);
    assert!(pair.frontend_lives());
}

#[test]
fn a_file_too_short_for_its_region_is_refused_cve_2021_3839() {
    let whole = 4 * 4160;
    for (size, offset, file_size) in [
        (whole - 1, 0, whole),
        (0, 0, whole),
        (whole, 0, whole - 1),
        (whole, 8, whole),
        (whole, 4, 2 * whole),
        (whole, u64::MAX - 7, whole),
        (u64::MAX, u64::MAX, whole),
        (u64::MAX, 0, 0),
    ] {
        let file = file(file_size);
        let area = InflightArea {
            size,
            offset,
            ..area(4, 256)
        };
        let refused = Pair::refused(
            split,
            Request::SetInflightFd,
            &area.bytes(),
            &[file.as_fd()],
        );
        assert!(
            matches!(
                refused,
                SessionError::InflightArea { .. } | SessionError::Memory { .. }
            ),
            "{size:#x} at {offset:#x}: {refused}"
        );
    }
    // What it has over and above is not mapped.
    let mut pair = split();
    let area = InflightArea {
        size: u64::MAX,
        offset: 64,
        ..area(4, 256)
    };
    let file = file(64 + whole);
    assert_eq!(
        pair.ask(Request::SetInflightFd, &area.bytes(), &[file.as_fd()]),
        (Event::Inflight, 0)
    );
}

#[test]
fn a_region_comes_back_as_it_was_and_another_takes_its_place() {
    let mut pair = packed();
    let (area, file) = get(&mut pair, 2, 256).unwrap();
    let mut regions = Vec::new();
    for round in 0..2 {
        let told = pair.ask(Request::SetInflightFd, &area.bytes(), &[file.as_fd()]);
        assert_eq!(told, (Event::Inflight, 0));
        let region = pair.session.state().inflight.clone().unwrap();
        assert!(region.is_packed());
        for ring in 0..2 {
            let value = 7 + ring as u64;
            let (place, extra) = (region.position(ring).unwrap(), region.extra(ring).unwrap());
            assert_eq!((place.count(), extra.count()), (1, EXTRA));
            if round == 1 {
                assert_eq!((place.load(0), extra.load(EXTRA - 1)), (value, value));
            }
            place.store(0, value);
            extra.store(EXTRA - 1, value);
        }
        assert!(region.position(2).is_none() && region.extra(2).is_none());
        regions.push(region);
    }
    assert!(*regions[0] != *regions[1]);
    assert!(*regions[1] == **pair.session.state().inflight.as_ref().unwrap());
}

#[test]
fn a_region_of_somebody_else_has_no_words_of_ours() {
    let mut pair = packed();
    let file = file(2 * 8256);
    words(&file, 4).store(2, 5);
    words(&file, 4).store(1, 1 | 256 << 16);
    let area = InflightArea {
        size: 2 * 8256,
        ..area(2, 256)
    };
    pair.ask(Request::SetInflightFd, &area.bytes(), &[file.as_fd()]);
    let region = pair.session.state().inflight.clone().unwrap();
    assert!(region.extra(0).is_none());
    // What is in use stays, and what is not is set up.
    assert_eq!(region.position(0).unwrap().load(0), 5);
    assert_eq!(region.position(1).unwrap().load(0), 0x101_0000_0000);
}

#[test]
fn a_region_that_is_cut_while_it_is_used_loses_its_words_alone() {
    ringway_mem::sigbus::install().unwrap();
    let mut pair = split();
    let file = file(2 * 4160);
    let area = InflightArea {
        size: 2 * 4160,
        ..area(2, 256)
    };
    pair.ask(Request::SetInflightFd, &area.bytes(), &[file.as_fd()]);
    let region = pair.session.state().inflight.clone().unwrap();
    ftruncate(&file, 0).unwrap();
    let place = region.position(1).unwrap();
    place.store(0, 1);
    assert!(region.position(0).unwrap().load(0) <= 1);
    // And one that was cut before.
    let error = pair.ask(Request::SetInflightFd, &area.bytes(), &[file.as_fd()]);
    assert_eq!(error, (Event::Answered, 1));
    assert!(pair.frontend_lives());
}

#[test]
fn the_payload_comes_with_padding_or_without() {
    let mut pair = split();
    let asked = area(2, 256).bytes();
    pair.send(Request::GetInflightFd, &asked[..20], &[], false);
    pair.handle().unwrap();
    let answer = pair.answer().unwrap();
    assert_eq!(answer.payload.len(), 20);
    assert_eq!(answer.descriptors.len(), 1);
    let file = answer.descriptors[0].as_fd();
    let told = pair.ask(Request::SetInflightFd, &answer.payload, &[file]);
    assert_eq!(told, (Event::Inflight, 0));
}

#[test]
fn a_file_waits_with_its_answer_until_that_is_read() {
    let mut pair = split();
    // Answers that nobody reads, until they wait.
    let mut waiting = 0;
    while !pair.session.wants_write() {
        pair.tell(Request::GetFeatures, &[], &[]).unwrap();
        waiting += 1;
    }
    let asked = area(2, 256).bytes();
    for _ in 0..2 {
        pair.tell(Request::GetInflightFd, &asked, &[]).unwrap();
        pair.tell(Request::GetFeatures, &[], &[]).unwrap();
    }
    let next = |pair: &mut Pair| loop {
        pair.session.flush().unwrap();
        if let Some(answer) = pair.answer() {
            break answer;
        }
    };
    for _ in 0..waiting {
        assert!(next(&mut pair).descriptors.is_empty());
    }
    for _ in 0..2 {
        let answer = next(&mut pair);
        assert_eq!(answer.header.request, Request::GetInflightFd.id());
        assert_eq!(answer.descriptors.len(), 1);
        let answer = next(&mut pair);
        assert_eq!(answer.header.request, Request::GetFeatures.id());
        assert!(answer.descriptors.is_empty());
    }
    assert!(!pair.session.wants_write());
}

#[test]
fn a_region_that_was_not_offered_is_refused() {
    let bare = || {
        Pair::offering(Offer {
            features: FEATURES,
            protocol_features: PROTOCOL_FEATURES & !mask(&[VHOST_USER_PROTOCOL_F_INFLIGHT_SHMFD]),
            queue_pairs: 2,
            max_memory_slots: 4,
        })
    };
    assert!(get(&mut bare(), 2, 256).is_none());
    let file = file(1 << 20);
    let mut area = area(2, 256);
    area.size = 1 << 20;
    let refused = Pair::refused(bare, Request::SetInflightFd, &area.bytes(), &[file.as_fd()]);
    assert!(matches!(refused, SessionError::NotOffered { .. }));
}
