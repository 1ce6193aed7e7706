//! What a message may look like.

use super::*;

/// Requests that the session obeys, with a payload of the right size.
fn obeyed() -> impl Iterator<Item = (Request, usize)> {
    Request::ALL
        .iter()
        .filter_map(|request| match request.payload_size() {
            PayloadSize::Exactly(size) => Some((*request, size)),
            PayloadSize::MemoryTable => Some((*request, MemoryTable::HEAD)),
            PayloadSize::Inflight => Some((*request, InflightArea::SIZE)),
            PayloadSize::Any => None,
        })
}

/// Requests that the session never obeys.
fn rejected() -> impl Iterator<Item = Request> {
    Request::ALL
        .iter()
        .copied()
        .filter(|request| request.payload_size() == PayloadSize::Any)
}

#[test]
fn wrong_size_ends_the_session() {
    for (request, right) in obeyed().filter(|(request, _)| *request != Request::SetMemTable) {
        for size in [0, 1, 7, 8, 9, 39, 40, 41, 4096] {
            if size == right {
                continue;
            }
            let mut pair = Pair::negotiated();
            pair.send(request, &vec![0; size], &[], true);
            let error = pair.handle().unwrap_err();
            assert!(
                matches!(error, SessionError::PayloadSize { size: got, expected, .. }
                    if got == size && expected == right),
                "{request:?} with {size} bytes: {error}"
            );
            assert!(pair.answer().is_none());
        }
    }
}

#[test]
fn wrong_size_of_a_memory_table_ends_the_session() {
    let region = Region {
        guest_address: 0,
        size: 4096,
        user_address: 0,
        mmap_offset: 0,
    };
    let table = MemoryTable {
        regions: vec![region; 2],
    }
    .bytes();
    let (_, regions) = GuestMemory::memfd(&[(0, 4096), (4096, 4096)]).unwrap();
    let files: Vec<_> = regions.iter().map(|region| region.file.as_fd()).collect();
    for size in [0_usize, 4, 7, 8, 40, 71] {
        let mut pair = Pair::negotiated();
        let files = &files[..size.saturating_sub(8) / 32];
        pair.send(Request::SetMemTable, &table[..size], files, true);
        let error = pair.handle().unwrap_err();
        assert!(
            matches!(error, SessionError::PayloadSize { .. }),
            "{size}: {error}"
        );
    }
    let mut announces_more = table.clone();
    announces_more[..4].fill(0xff);
    let mut pair = Pair::negotiated();
    let error = pair
        .tell(Request::SetMemTable, &announces_more, &files)
        .unwrap_err();
    assert!(
        matches!(error, SessionError::PayloadSize { size: 72, .. }),
        "{error}"
    );
}

#[test]
fn wrong_size_is_told_before_the_payload_has_come() {
    for (request, size, told) in [
        (
            Request::SetFeatures,
            100,
            "SET_FEATURES: payload of 100 bytes instead of 8",
        ),
        (
            Request::SetMemTable,
            7,
            "SET_MEM_TABLE: payload of 7 bytes instead of 8",
        ),
    ] {
        let mut pair = Pair::fresh();
        pair.send_header(Header::request(request.id(), size, false), &[], &[]);
        let error = pair.session.receive().unwrap_err();
        assert_eq!(error.to_string(), told);
    }
}

#[test]
fn wrong_version_ends_the_session() {
    for version in [0, 2, 3] {
        let mut pair = Pair::negotiated();
        let header = Header {
            request: Request::GetFeatures.id(),
            flags: version | 8,
            size: 0,
        };
        pair.send_header(header, &[], &[]);
        let error = pair.handle().unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("GET_FEATURES: protocol version {version}, only 1 is known")
        );
        assert!(pair.answer().is_none());
    }
}

#[test]
fn a_reply_or_reserved_flags_end_the_session() {
    for flags in [0x5, 0x11, 0x8000_0001] {
        let mut pair = Pair::negotiated();
        pair.send_header(
            Header {
                request: RequestId(1),
                flags,
                size: 0,
            },
            &[],
            &[],
        );
        let error = pair.handle().unwrap_err();
        assert!(
            matches!(error, SessionError::Flags { flags: got, .. } if got == flags),
            "{error}"
        );
    }
}

#[test]
fn a_huge_payload_ends_the_session() {
    for size in [4097, 0x8000_0000, u32::MAX] {
        for request in [
            RequestId(77),
            Request::SetMemTable.id(),
            Request::GetConfig.id(),
        ] {
            let mut pair = Pair::negotiated();
            pair.send_header(Header::request(request, size, true), &[], &[]);
            let error = pair.session.receive().unwrap_err();
            let too_long = SocketError::PayloadTooLong { request, size }.to_string();
            assert_eq!(error.to_string(), too_long);
        }
    }
}

#[test]
fn an_unknown_request_is_refused_when_an_answer_was_asked_for() {
    for id in [0, 44, 77, u32::MAX] {
        for size in [0, 8, 4096] {
            let mut pair = Pair::negotiated();
            let answer = pair.ask(RequestId(id), &vec![0xff; size], &[event().as_fd()]);
            assert_eq!(answer, (Event::Answered, 1));
            assert!(pair.frontend_lives());
        }
    }
}

#[test]
fn an_unknown_request_without_need_reply_ends_the_session() {
    let mut pair = Pair::negotiated();
    let error = pair.tell(RequestId(77), &[0; 8], &[]).unwrap_err();
    assert_eq!(error.to_string(), "request 77 is not known");
}

#[test]
fn need_reply_is_ignored_until_it_is_negotiated() {
    let mut pair = Pair::fresh();
    pair.send(Request::SetOwner, &[], &[], true);
    pair.handle().unwrap();
    assert!(pair.answer().is_none());
    pair.send(RequestId(77), &[], &[], true);
    assert!(matches!(pair.handle(), Err(SessionError::Unknown { .. })));
}

#[test]
fn need_reply_is_answered_by_every_message_without_an_answer_of_its_own() {
    let (_, regions) = GuestMemory::memfd(&[(0, 0x10000)]).unwrap();
    let RegionRequest {
        guest_address,
        size,
        user_address,
        mmap_offset,
        file,
    } = &regions[0];
    let region = Region {
        guest_address: *guest_address,
        size: *size,
        user_address: *user_address,
        mmap_offset: *mmap_offset,
    };
    let other = Region {
        guest_address: 0x10000,
        user_address: 0x10000,
        ..region
    };
    let (file, event, socket) = (file.as_fd(), event(), sockets().0);
    let (event, socket) = (event.as_fd(), socket.as_fd());
    let table = MemoryTable {
        regions: vec![region],
    }
    .bytes();
    let other = SingleRegion::new(other).bytes();
    let log = LogArea {
        size: 4096,
        offset: 4096,
    }
    .bytes();
    let inflight = InflightArea {
        size: 0x8000,
        offset: 4096,
        rings: 2,
        ring_size: 256,
    }
    .bytes();
    let (ack, all) = (number(ACKED), number(PROTOCOL_FEATURES));
    let (address, state, mtu, status) = (addresses(0, 0), ring(0, 1), number(1500), number(1));
    let messages: [(Request, &[u8], &[BorrowedFd<'_>]); 23] = [
        (Request::SetFeatures, &ack, &[]),
        (Request::SetOwner, &[], &[]),
        (Request::ResetOwner, &[], &[]),
        (Request::SetMemTable, &table, &[file]),
        (Request::SetLogBase, &log, &[file]),
        (Request::SetLogFd, &[], &[event]),
        (Request::SetVringNum, &state, &[]),
        (Request::SetVringAddr, &address, &[]),
        (Request::SetVringBase, &state, &[]),
        (Request::SetVringKick, &[0; 8], &[event]),
        (Request::SetVringCall, &[0; 8], &[event]),
        (Request::SetVringErr, &[0; 8], &[event]),
        (Request::SetProtocolFeatures, &all, &[]),
        (Request::SetVringEnable, &state, &[]),
        (Request::SendRarp, &[0; 8], &[]),
        (Request::NetSetMtu, &mtu, &[]),
        (Request::SetBackendReqFd, &[], &[socket]),
        (Request::SetInflightFd, &inflight, &[file]),
        (Request::AddMemReg, &other, &[file]),
        (Request::RemMemReg, &other, &[]),
        (Request::SetStatus, &status, &[]),
        (Request::ResetDevice, &[], &[]),
        (Request::SetStatus, &[0; 8], &[]),
    ];
    let mut pair = Pair::negotiated();
    for (request, payload, files) in messages {
        assert_eq!(pair.ask(request, payload, files).1, 0, "{request:?}");
    }
    let acked = obeyed()
        .filter(|(request, _)| request.answer() == Answer::Ack)
        .count();
    assert_eq!(acked, 22, "one of them is missing above");
}

#[test]
fn a_rejected_request_is_refused_when_an_answer_was_asked_for() {
    for request in rejected().filter(|request| request.answer() == Answer::Ack) {
        let mut pair = Pair::negotiated();
        assert_eq!(
            pair.ask(request, &[0; 8], &[]),
            (Event::Answered, 1),
            "{request:?}"
        );
        assert!(pair.frontend_lives());
    }
}

#[test]
fn a_rejected_request_without_need_reply_ends_the_session() {
    for request in rejected().filter(|request| request.answer() == Answer::Ack) {
        let mut pair = Pair::negotiated();
        let error = pair.tell(request, &[0; 8], &[]).unwrap_err();
        let name = request.name();
        assert_eq!(
            error.to_string(),
            format!("{name} belongs to a feature that is not offered")
        );
    }
}

#[test]
fn a_rejected_request_with_an_answer_of_its_own_gets_it() {
    for (request, size, answer) in [
        (Request::IotlbMsg, 32, number(1).to_vec()),
        (Request::GetConfig, 268, vec![]),
        (Request::PostcopyAdvise, 0, vec![]),
        (Request::PostcopyEnd, 0, number(1).to_vec()),
        (Request::GetInflightFd, 24, vec![0; 24]),
        (Request::GetSharedObject, 16, vec![]),
        (Request::SetDeviceStateFd, 8, number(0x101).to_vec()),
        (Request::CheckDeviceState, 0, number(1).to_vec()),
    ] {
        for need_reply in [false, true] {
            let mut pair = Pair::negotiated();
            pair.send(request, &vec![0xff; size], &[], need_reply);
            assert_eq!(pair.handle().unwrap(), Event::Answered);
            let message = pair.answer().unwrap();
            let len = u32::try_from(answer.len()).unwrap();
            assert_eq!(message.header, Header::reply(request.id(), len));
            assert_eq!(message.payload, answer);
            assert!(pair.answer().is_none(), "{request:?} was answered twice");
            assert!(pair.frontend_lives());
        }
    }
    // Only a crypto session cannot be refused in a way that its asker understands.
    let mut pair = Pair::negotiated();
    let error = pair
        .tell(Request::CreateCryptoSession, &[0; 1200], &[])
        .unwrap_err();
    assert!(matches!(error, SessionError::NotOffered { .. }));
}

#[test]
fn a_message_may_come_in_pieces() {
    let mut pair = Pair::negotiated();
    let event = event();
    let header = Header::request(Request::SetVringCall.id(), 8, false);
    let bytes = [&header.bytes()[..], &number(1)].concat();
    for (place, byte) in bytes.iter().enumerate() {
        assert_eq!(pair.session.has_partial(), place != 0);
        // Descriptors belong to the message, with whatever piece of it they come.
        let files: &[BorrowedFd<'_>] = if place == 13 { &[event.as_fd()] } else { &[] };
        pair.frontend
            .send_raw(RequestId(0), &[*byte], files)
            .unwrap();
        if place + 1 < bytes.len() {
            assert!(matches!(pair.session.receive(), Ok(None)));
        }
    }
    assert_eq!(pair.handle().unwrap(), Event::CallChanged(1));
    assert!(!pair.session.has_partial());
    assert!(pair.session.state().vrings[1].call.is_some());
}

#[test]
fn messages_that_come_together_are_read_one_by_one() {
    let mut pair = Pair::negotiated();
    let (first, second) = (event(), event());
    for (index, file) in [(0, &first), (1, &second)] {
        pair.send(
            Request::SetVringCall,
            &number(index),
            &[file.as_fd()],
            false,
        );
    }
    pair.send(Request::GetFeatures, &[], &[], false);
    assert_eq!(pair.handle().unwrap(), Event::CallChanged(0));
    assert_eq!(pair.handle().unwrap(), Event::CallChanged(1));
    assert_eq!(pair.handle().unwrap(), Event::Answered);
    assert!(matches!(pair.session.receive(), Ok(None)));
}

#[test]
fn the_end_of_the_connection_is_orderly_only_between_messages() {
    let mut pair = Pair::fresh();
    drop(pair.frontend);
    assert!(matches!(pair.session.receive(), Err(SessionError::Closed)));

    pair = Pair::fresh();
    pair.frontend
        .send_raw(RequestId(0), &[1, 0, 0, 0, 1], &[])
        .unwrap();
    drop(pair.frontend);
    let error = pair.session.receive().unwrap_err();
    assert_eq!(
        error.to_string(),
        "the peer closed the connection after 5 of 12 bytes of a message"
    );
    assert!(matches!(pair.session.receive(), Err(SessionError::Closed)));
}

#[test]
fn an_answer_to_a_closed_connection_is_its_end() {
    let mut pair = Pair::fresh();
    pair.send(Request::GetFeatures, &[], &[], false);
    assert!(pair.session.receive().unwrap().is_some());
    drop(pair.frontend);
    assert!(matches!(
        pair.session.finish(Ok(())),
        Err(SessionError::Closed)
    ));
}

#[test]
fn answers_that_nobody_reads_are_kept_up_to_a_limit() {
    let mut pair = Pair::fresh();
    let mut waited = 0;
    let error = loop {
        pair.send(Request::GetFeatures, &[], &[], false);
        match pair.handle() {
            Ok(_) => waited += usize::from(pair.session.wants_write()),
            Err(error) => break error,
        }
    };
    assert!(
        matches!(error, SessionError::Socket(SocketError::QueueFull { bytes }) if bytes > 4096),
        "{error}"
    );
    assert_eq!(waited, 4096 / 20);
}

#[test]
fn answers_that_waited_arrive_whole_and_in_order() {
    let mut pair = Pair::fresh();
    let mut sent = 0;
    while !pair.session.wants_write() {
        pair.send(Request::GetFeatures, &[], &[], false);
        pair.handle().unwrap();
        sent += 1;
    }
    pair.send(Request::GetQueueNum, &[], &[], false);
    pair.handle().unwrap();
    for _ in 1..sent {
        assert_eq!(
            pair.answer().unwrap().header.request,
            Request::GetFeatures.id()
        );
    }
    pair.session.flush().unwrap();
    assert!(!pair.session.wants_write());
    assert_eq!(
        pair.answer().unwrap().header.request,
        Request::GetFeatures.id()
    );
    assert_eq!(
        pair.answer().unwrap().header.request,
        Request::GetQueueNum.id()
    );
    assert!(pair.answer().is_none());
}
