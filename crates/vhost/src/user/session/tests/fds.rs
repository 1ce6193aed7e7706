//! Which file descriptors come with a message.

use rustix::event::epoll;
use rustix::fs::{MemfdFlags, OFlags, fcntl_getfl, memfd_create};
use rustix::io::{FdFlags, fcntl_getfd};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use rustix::time::{TimerfdClockId, TimerfdFlags, timerfd_create};

use super::*;

/// Requests that the session obeys and that come with this number of descriptors, with payloads.
fn with_descriptors(count: usize) -> Vec<(Request, Vec<u8>)> {
    let mut found = Vec::new();
    for request in Request::ALL {
        let size = match request.payload_size() {
            PayloadSize::Exactly(size) => size,
            PayloadSize::Inflight => InflightArea::SIZE,
            PayloadSize::MemoryTable | PayloadSize::Any => continue,
        };
        let expected = match request.descriptors() {
            Descriptors::Exactly(expected) => expected,
            Descriptors::UnlessNoFd => 1,
            _ => continue,
        };
        if expected == count {
            found.push((*request, vec![0; size]));
        }
    }
    found
}

fn wrong_count(request: Request, payload: &[u8], files: &[BorrowedFd<'_>], expected: usize) {
    let mut pair = Pair::negotiated();
    pair.send(request, payload, files, true);
    let error = pair.handle().unwrap_err();
    let (count, name) = (files.len(), request.name());
    assert_eq!(
        error.to_string(),
        format!("{name}: {count} file descriptors instead of {expected}")
    );
    assert!(pair.answer().is_none());
}

#[test]
fn a_missing_descriptor_ends_the_session() {
    let requests = with_descriptors(1);
    assert_eq!(requests.len(), 8);
    for (request, payload) in requests {
        wrong_count(request, &payload, &[], 1);
    }
    let (_, regions) = GuestMemory::memfd(&[(0, 4096)]).unwrap();
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
    wrong_count(Request::SetMemTable, &table, &[regions[0].file.as_fd()], 2);
}

#[test]
fn extra_descriptors_end_the_session() {
    let event = event();
    for (request, payload) in with_descriptors(1) {
        for count in [2, 8] {
            wrong_count(request, &payload, &vec![event.as_fd(); count], 1);
        }
    }
    let region = SingleRegion::new(Region {
        guest_address: 0,
        size: 4096,
        user_address: 0,
        mmap_offset: 0,
    });
    wrong_count(Request::RemMemReg, &region.bytes(), &[event.as_fd(); 2], 1);
}

#[test]
fn descriptors_on_a_message_that_takes_none_end_the_session() {
    let event = event();
    let requests = with_descriptors(0);
    assert_eq!(requests.len(), 19);
    for (request, payload) in requests {
        wrong_count(request, &payload, &[event.as_fd()], 0);
    }
}

#[test]
fn a_descriptor_beside_the_no_descriptor_flag_ends_the_session() {
    let event = event();
    for request in [
        Request::SetVringKick,
        Request::SetVringCall,
        Request::SetVringErr,
    ] {
        wrong_count(request, &number(0x100), &[event.as_fd()], 0);
    }
}

/// The in-tree front-end sends at most 8.
fn send_many(pair: &Pair, bytes: &[u8], files: &[BorrowedFd<'_>]) {
    let mut space = vec![std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(253))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    assert!(control.push(SendAncillaryMessage::ScmRights(files)));
    let bytes = [io::IoSlice::new(bytes)];
    sendmsg(&pair.frontend, &bytes, &mut control, SendFlags::empty()).unwrap();
}

#[test]
fn truncated_control_data_ends_the_session() {
    let event = event();
    for count in [9, 100, 253] {
        for (request, payload) in [
            (Request::GetFeatures, vec![]),
            (Request::SetMemTable, vec![0; 8]),
        ] {
            let pair = &mut Pair::negotiated();
            let size = u32::try_from(payload.len()).unwrap();
            let header = Header::request(request.id(), size, true).bytes();
            send_many(
                pair,
                &[&header[..], &payload].concat(),
                &vec![event.as_fd(); count],
            );
            let error = pair.session.receive().unwrap_err();
            // There may be room for a ninth, for the sake of alignment.
            assert!(match error {
                SessionError::Socket(SocketError::ControlTruncated) => true,
                SessionError::Socket(SocketError::TooManyDescriptors { .. }) => count == 9,
                _ => false,
            });
            assert!(matches!(pair.session.receive(), Err(SessionError::Closed)));
        }
    }
}

#[test]
fn too_many_descriptors_in_pieces_end_the_session() {
    let event = event();
    let mut pair = Pair::negotiated();
    let header = Header::request(Request::SetMemTable.id(), 8, false).bytes();
    pair.frontend
        .send_raw(RequestId(0), &header[..6], &[event.as_fd(); 8])
        .unwrap();
    assert!(matches!(pair.session.receive(), Ok(None)));
    pair.frontend
        .send_raw(RequestId(0), &header[6..], &[event.as_fd()])
        .unwrap();
    let error = pair.session.receive().unwrap_err();
    assert!(matches!(
        error,
        SessionError::Socket(SocketError::TooManyDescriptors { count: 9 })
    ));
}

#[test]
fn a_notification_has_to_be_an_eventfd() {
    let (reader, writer) = pipe().unwrap();
    let (socket, _) = sockets();
    let others = [
        reader,
        writer,
        socket,
        memfd_create("memory", MemfdFlags::CLOEXEC).unwrap(),
        epoll::create(epoll::CreateFlags::CLOEXEC).unwrap(),
        timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::CLOEXEC).unwrap(),
        std::fs::File::open("/dev/null").unwrap().into(),
        std::fs::File::open("/").unwrap().into(),
    ];
    for request in [
        Request::SetVringKick,
        Request::SetVringCall,
        Request::SetVringErr,
    ] {
        for other in &others {
            let error = Pair::refused(Pair::negotiated, request, &number(3), &[other.as_fd()]);
            let name = request.name();
            assert_eq!(
                error.to_string(),
                format!("{name}: the file descriptor for ring 3 is not an eventfd")
            );
        }
    }
}

#[test]
fn a_notification_is_made_non_blocking_and_close_on_exec() {
    let mut pair = Pair::negotiated();
    pair.ok(Request::SetVringKick, &number(1), &[event().as_fd()]);
    pair.ok(Request::SetVringCall, &number(1), &[event().as_fd()]);
    let vring = &pair.session.state().vrings[1];
    for file in [&vring.kick, &vring.call] {
        let file = file.as_deref().unwrap();
        assert!(fcntl_getfl(file).unwrap().contains(OFlags::NONBLOCK));
        assert!(fcntl_getfd(file).unwrap().contains(FdFlags::CLOEXEC));
    }
}

#[test]
fn the_socket_for_our_requests_has_to_be_a_socket() {
    let error = Pair::refused(
        Pair::negotiated,
        Request::SetBackendReqFd,
        &[],
        &[event().as_fd()],
    );
    assert_eq!(
        error.to_string(),
        "SET_BACKEND_REQ_FD: the file descriptor is not a socket"
    );
    let mut pair = Pair::negotiated();
    pair.ok(Request::SetBackendReqFd, &[], &[sockets().0.as_fd()]);
    assert!(pair.session.state().backend_requests.is_some());
}

#[test]
fn the_session_takes_its_socket_non_blocking_and_close_on_exec() {
    let (ours, _theirs) = socketpair(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::empty(),
        None,
    )
    .unwrap();
    let offer = Offer {
        features: 0,
        protocol_features: 0,
        queue_pairs: 1,
        max_memory_slots: 0,
    };
    let mut session = Session::new(ours, offer).unwrap();
    assert!(fcntl_getfl(&session).unwrap().contains(OFlags::NONBLOCK));
    assert!(fcntl_getfd(&session).unwrap().contains(FdFlags::CLOEXEC));
    assert!(matches!(session.receive(), Ok(None)));
    assert!(session.as_fd().as_raw_fd() > 2);
}
