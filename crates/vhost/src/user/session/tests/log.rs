//! Dirty logging: where the log is, when it is on, and how SET_LOG_BASE is answered.

use std::sync::Arc;

use super::*;

const LOG_ALL: u64 = mask(&[VHOST_F_LOG_ALL]);

/// With dirty logging in the offer, everything negotiated, and the first ring started.
fn logging() -> Pair {
    let mut pair = Pair::offering(Offer {
        features: FEATURES | LOG_ALL,
        protocol_features: u64::MAX,
        queue_pairs: 2,
        max_memory_slots: 4,
    });
    pair.session.state_mut().protocol_features = PROTOCOL_FEATURES;
    pair.ok(Request::SetFeatures, &ACKED.to_ne_bytes(), &[]);
    pair.ok(Request::SetVringNum, &ring(0, 256), &[]);
    pair.ok(Request::SetVringAddr, &addresses(0, 0), &[]);
    pair.ok(Request::SetVringKick, &number(0), &[event().as_fd()]);
    pair
}

/// A log of 512 bytes, as a message and its file.
fn log(size: u64, offset: u64) -> (Vec<u8>, OwnedFd) {
    let (_, mut regions) = GuestMemory::memfd(&[(0, 512)]).unwrap();
    let area = LogArea { size, offset };
    (area.bytes().to_vec(), regions.remove(0).file)
}

#[test]
fn set_log_base_is_answered_without_payload_though_nobody_asked() {
    let mut pair = logging();
    let (area, file) = log(256, 256);
    let event = pair.tell(Request::SetLogBase, &area, &[file.as_fd()]);
    assert_eq!(event.unwrap(), Event::Log);
    let answer = pair.answer().unwrap();
    assert_eq!(answer.header, Header::reply(Request::SetLogBase.id(), 0));
    assert!(pair.answer().is_none(), "one answer only");
    assert!(pair.session.state().log.is_some());
}

#[test]
fn set_log_base_that_asks_for_an_answer_has_that_one_alone() {
    let mut pair = logging();
    let (area, file) = log(512, 0);
    let answered = pair.ask(Request::SetLogBase, &area, &[file.as_fd()]);
    assert_eq!(answered, (Event::Log, 0));
    assert!(pair.answer().is_none(), "one answer only");
}

#[test]
fn set_log_base_is_not_answered_where_log_shmfd_was_not_acked() {
    let mut pair = logging();
    pair.session.state_mut().protocol_features = 0;
    let (area, file) = log(512, 0);
    let event = pair.ok(Request::SetLogBase, &area, &[file.as_fd()]);
    assert_eq!(event, Event::Log);
}

#[test]
fn another_log_takes_the_place_of_the_one_before() {
    let mut pair = logging();
    let mut logs = Vec::new();
    for _ in 0..2 {
        let (area, file) = log(512, 0);
        pair.ask(Request::SetLogBase, &area, &[file.as_fd()]);
        logs.push(pair.session.state().log.clone().unwrap());
    }
    assert!(!Arc::ptr_eq(&logs[0], &logs[1]));
}

#[test]
fn log_offset_and_size_are_checked_cve_2020_10722() {
    for (size, offset) in [
        (513, 0),
        (256, 257),
        (0, 0),
        (u64::MAX, 0),
        (1, u64::MAX),
        (u64::MAX, u64::MAX),
    ] {
        let (area, file) = log(size, offset);
        let error = Pair::refused(logging, Request::SetLogBase, &area, &[file.as_fd()]);
        assert!(matches!(error, SessionError::Memory { .. }), "{error}");
    }
    // Not a file that can be mapped.
    let (area, _) = log(512, 0);
    Pair::refused(logging, Request::SetLogBase, &area, &[event().as_fd()]);
}

#[test]
fn set_log_base_has_exactly_one_file() {
    let (area, file) = log(512, 0);
    for files in [&[][..], &[file.as_fd(); 2]] {
        let error = logging().tell(Request::SetLogBase, &area, files);
        assert!(matches!(error, Err(SessionError::DescriptorCount { .. })));
    }
}

#[test]
fn set_log_fd_is_accepted_and_closed() {
    let mut pair = logging();
    let event = pair.ask(Request::SetLogFd, &[], &[event().as_fd()]);
    assert_eq!(event, (Event::Answered, 0));
}

#[test]
fn dirty_logging_that_is_not_offered_is_refused() {
    let fresh = || {
        let mut pair = Pair::offering(Offer {
            features: FEATURES | LOG_ALL,
            protocol_features: mask(&[VHOST_USER_PROTOCOL_F_REPLY_ACK]),
            queue_pairs: 1,
            max_memory_slots: 4,
        });
        pair.session.state_mut().protocol_features = mask(&[VHOST_USER_PROTOCOL_F_REPLY_ACK]);
        pair
    };
    let (area, file) = log(512, 0);
    let error = Pair::refused(fresh, Request::SetLogBase, &area, &[file.as_fd()]);
    assert!(matches!(error, SessionError::NotOffered { .. }));
    let error = Pair::refused(fresh, Request::SetLogFd, &[], &[event().as_fd()]);
    assert!(matches!(error, SessionError::NotOffered { .. }));
    let error = Pair::refused(fresh, Request::SetFeatures, &number(LOG_ALL), &[]);
    assert!(matches!(error, SessionError::Features { extra: LOG_ALL }));
    let error = Pair::refused(fresh, Request::SetVringAddr, &addresses(0, 1), &[]);
    assert!(matches!(
        error,
        SessionError::RingFlags { flags: 1, known: 0 }
    ));
}

#[test]
fn logging_is_switched_while_rings_run() {
    let mut pair = logging();
    for features in [ACKED | LOG_ALL, ACKED, ACKED | LOG_ALL] {
        let event = pair.ok(Request::SetFeatures, &number(features), &[]);
        assert_eq!(event, Event::Features);
        assert_eq!(pair.session.state().features, features);
        // For the second queue pair.
        let event = pair.ok(Request::SetFeatures, &number(features), &[]);
        assert_eq!(event, Event::Answered);
    }
    assert!(pair.session.state().vrings[0].is_ready());
}

#[test]
fn the_used_ring_is_logged_as_its_addresses_say() {
    let mut pair = logging();
    for flags in [1, 0, 1] {
        let event = pair.ok(Request::SetVringAddr, &addresses(0, flags), &[]);
        assert_eq!(event, Event::Ring(0));
        let addresses = pair.session.state().vrings[0].addresses.unwrap();
        assert_eq!(addresses.logged, flags == 1);
    }
    let error = Pair::refused(logging, Request::SetVringAddr, &addresses(0, 2), &[]);
    assert!(matches!(
        error,
        SessionError::RingFlags { flags: 2, known: 1 }
    ));
}
