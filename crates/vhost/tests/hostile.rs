//! Front-ends that send anything: no panic, no descriptor left behind. One test in a process of
//! its own: others would disturb the count of descriptors.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use ringway_mem::GuestMemory;
use ringway_vhost::user::frontend::Frontend;
use ringway_vhost::user::message::RequestId;
use ringway_vhost::user::{Session, fuzz};

mod common;
use common::{connected, event, offer};

#[test]
fn hostile_front_ends_do_no_harm() {
    // What is opened once for the process shall not count.
    fuzz::exercise(&[]);
    drop(GuestMemory::memfd(&[(0, 4096)]));
    let before = open_descriptors();
    the_fuzzers_seeds_are_applied();
    assert_eq!(open_descriptors(), before);

    let mut applied = 0;
    run(2000, prop::collection::vec(any::<u8>(), 0..600), |input| {
        applied += fuzz::exercise(&input);
    });
    assert!(
        applied > 50,
        "only {applied} messages were sound enough to be applied"
    );
    assert_eq!(open_descriptors(), before);

    let mut applied = 0;
    run(1000, prop::collection::vec(step(), 1..60), |steps| {
        {
            // MQ, RARP, REPLY_ACK, MTU and BACKEND_REQ.
            let negotiate = request(0, 16, &[0x3d, 0], 0);
            applied += fuzz::exercise(&[&negotiate, &steps.concat()[..]].concat());
        }
    });
    assert!(
        applied > 10_000,
        "only {applied} messages were sound enough to be applied"
    );
    assert_eq!(open_descriptors(), before);

    let pieces = prop::collection::vec(
        (prop::collection::vec(any::<u8>(), 1..50), 0_usize..=8),
        1..20,
    );
    run(1000, pieces, |pieces| raw(&pieces));
    assert_eq!(open_descriptors(), before);
}

/// Checked in the same process: what is open is counted there.
fn the_fuzzers_seeds_are_applied() {
    let seeds = include_str!("../../../fuzz/seeds/vhost_messages.hex");
    for seed in seeds.split("\n= ").skip(1) {
        let (name, lines) = seed.split_once('\n').unwrap();
        let (_, count) = name.rsplit_once(": ").unwrap();
        let codes = lines.lines().flat_map(|line| {
            let code = line.split('#').next().unwrap_or_default();
            code.split_whitespace()
        });
        let input: Vec<u8> = codes
            .map(|code| u8::from_str_radix(code, 16).unwrap())
            .collect();
        let applied = fuzz::exercise(&input);
        assert_eq!(format!("{applied} applied"), count, "{name}");
    }
}

fn run<S: Strategy>(cases: u32, strategy: S, mut case: impl FnMut(S::Value)) {
    let case = std::cell::RefCell::new(&mut case);
    let config = Config {
        cases,
        failure_persistence: None,
        ..Config::default()
    };
    let outcome = TestRunner::new(config).run(&strategy, |value| {
        (case.borrow_mut())(value);
        Ok(())
    });
    outcome.unwrap_or_else(|error| panic!("{error}"));
}

/// One step of a script: a request with need_reply, so that a refusal does not end the session.
/// Each byte of `words` becomes a word of the payload.
fn request(control: u8, id: u8, words: &[u8], kind: u8) -> Vec<u8> {
    [&[0x10 | control, id, 1], words, &[kind]].concat()
}

/// Most are sound in themselves; whether they make sense where they come is another matter.
fn step() -> impl Strategy<Value = Vec<u8>> {
    // Kinds of descriptors: 0 is the memory file, 1 an eventfd.
    let notification = (
        12_u8..15,
        0_u8..4,
        prop_oneof![4 => Just(1_u8), 1 => any::<u8>()],
    )
        .prop_map(|(id, ring, kind)| request(1, id, &[ring, 0], kind));
    let region = prop::array::uniform3(prop_oneof![Just(0_u8), 0xc0_u8..=0xff])
        .prop_map(|[guest, user, size]| [guest, 0, size, 0, user, 0, 0, 0]);
    let memory = (prop::sample::select(vec![5_u8, 37, 38]), region).prop_map(|(id, region)| {
        // A table's regions are counted by the script, too.
        let (control, head): (u8, &[u8]) = match id {
            5 => (9, &[1, 1, 0]),
            38 => (0, &[0, 0]),
            _ => (9, &[0, 0]),
        };
        request(control, id, &[head, &region].concat(), 0)
    });
    let state = (
        prop::sample::select(vec![8_u8, 10, 11, 18]),
        0_u8..4,
        any::<u8>(),
    )
        .prop_map(|(id, ring, num)| request(0, id, &[ring, num], 0));
    let number = (
        prop::sample::select(vec![2_u8, 16, 19, 20, 39]),
        any::<u8>(),
        0_u8..4,
    )
        .prop_map(|(id, low, high)| request(0, id, &[low, high], 0));
    let addresses = (0_u8..4, any::<[u8; 8]>())
        .prop_map(|(ring, rest)| request(0, 9, &[&[ring, 0], &rest[..]].concat(), 0));
    let bare = prop::sample::select(vec![1_u8, 3, 4, 15, 17, 34, 36, 40])
        .prop_map(|id| request(0, id, &[], 0));
    let other = prop::sample::select(vec![6_u8, 7, 22, 23, 24, 25, 28, 30, 31, 32, 42, 43, 0, 45])
        .prop_map(|id| request(1, id, &[0x3f; 10], 0));
    prop_oneof![
        3 => notification, 3 => memory, 4 => state, 1 => number, 2 => addresses, 1 => bare,
        1 => other,
    ]
}

/// Bytes as they are, in pieces that have descriptors of any kind.
fn raw(pieces: &[(Vec<u8>, usize)]) {
    let (mut frontend, mut session): (Frontend, Session) = connected(offer(1));
    let (reader, writer) = rustix::pipe::pipe().unwrap();
    let kinds: [OwnedFd; 3] = [event(), reader, writer];
    for (bytes, count) in pieces {
        let files: Vec<BorrowedFd<'_>> =
            kinds.iter().cycle().take(*count).map(AsFd::as_fd).collect();
        if frontend.send_raw(RequestId(0), bytes, &files).is_err() {
            break;
        }
        while let Ok(Some(_)) = session.receive() {
            if session.finish(Ok(())).is_err() {
                break;
            }
        }
    }
}

fn open_descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}
