//! No file descriptor is left behind, whatever a front-end sends. One test in a process of its
//! own: others would disturb the count.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd};
use std::sync::Arc;

use ringway_mem::{GuestMemory, RegionRequest};
use ringway_vhost::user::frontend::Frontend;
use ringway_vhost::user::message::{Header, MemoryTable, Region, Request, RequestId, SingleRegion};
use ringway_vhost::user::{Session, SessionError, fuzz};
use rustix::io::{Errno, read, write};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

mod common;
use common::{connected, event, offer};

#[test]
fn descriptors_are_closed() {
    // What is opened once for the process shall not count.
    drop(GuestMemory::memfd(&[(0, 4096)]));
    fuzz::exercise(&[]);
    for (name, case) in CASES {
        let before = open_descriptors();
        case();
        assert_eq!(open_descriptors(), before, "{name}");
    }
}

const CASES: [(&str, fn()); 11] = [
    ("a session in full use", full_use),
    ("messages that take none", on_messages_that_take_none),
    ("more than a message takes", more_than_taken),
    ("a message that never completes", incomplete),
    ("descriptors in pieces", in_pieces),
    ("truncated control data", truncated),
    ("no free slot in this process", no_free_slot),
    ("repeated notifications", repeated),
    ("refused memory", refused_memory),
    ("refused requests", refused_requests),
    ("descriptor 0", descriptor_0),
];

fn open_descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

fn message(request: impl Into<RequestId>, payload: &[u8]) -> Vec<u8> {
    let size = u32::try_from(payload.len()).unwrap();
    [
        &Header::request(request.into(), size, true).bytes()[..],
        payload,
    ]
    .concat()
}

fn send(frontend: &mut Frontend, bytes: &[u8], files: &[BorrowedFd<'_>]) {
    frontend.send_raw(RequestId(0), bytes, files).unwrap();
}

/// Lets the session read until it has nothing more or ends; says whether it has ended.
fn handle(session: &mut Session) -> Result<(), SessionError> {
    while session.receive()?.is_some() {
        session.finish(Ok(()))?;
    }
    Ok(())
}

/// A session with all protocol features, the front-end's end, and what a descriptor is sent of.
fn negotiated() -> (Frontend, Session, OwnedFd) {
    let (mut frontend, mut session) = connected(offer(2));
    frontend
        .set_protocol_features(session.offer().protocol_features)
        .unwrap();
    handle(&mut session).unwrap();
    (frontend, session, event())
}

fn full_use() {
    let (mut frontend, mut session, event) = negotiated();
    let (_, regions) = GuestMemory::memfd(&[(0, 4096), (0x10000, 4096)]).unwrap();
    let files = [regions[0].file.as_fd(), regions[1].file.as_fd()];
    for _ in 0..3 {
        send(
            &mut frontend,
            &message(Request::SetMemTable, &table(&regions)),
            &files,
        );
        for request in [
            Request::SetVringKick,
            Request::SetVringCall,
            Request::SetVringErr,
        ] {
            for ring in 0_u64..4 {
                send(
                    &mut frontend,
                    &message(request, &ring.to_ne_bytes()),
                    &[event.as_fd()],
                );
            }
        }
        let socket = frontend.as_fd().try_clone_to_owned().unwrap();
        send(
            &mut frontend,
            &message(Request::SetBackendReqFd, &[]),
            &[socket.as_fd()],
        );
    }
    handle(&mut session).unwrap();
    assert!(
        session
            .state()
            .vrings
            .iter()
            .all(|vring| vring.kick.is_some())
    );
}

fn on_messages_that_take_none() {
    for request in [Request::GetFeatures, Request::SetOwner, Request::GetStatus] {
        let (mut frontend, mut session, event) = negotiated();
        let before = open_descriptors();
        send(&mut frontend, &message(request, &[]), &[event.as_fd(); 8]);
        assert!(handle(&mut session).is_err());
        assert_eq!(open_descriptors(), before, "while the session still stands");
    }
}

fn more_than_taken() {
    for count in [2, 8] {
        let (mut frontend, mut session, event) = negotiated();
        let kick = message(Request::SetVringKick, &[0; 8]);
        send(&mut frontend, &kick, &vec![event.as_fd(); count]);
        assert!(handle(&mut session).is_err());
        assert!(session.state().vrings[0].kick.is_none());
    }
}

fn incomplete() {
    let (mut frontend, mut session, event) = negotiated();
    let bytes = message(Request::SetVringKick, &[0; 8]);
    send(&mut frontend, &bytes[..19], &[event.as_fd(); 8]);
    handle(&mut session).unwrap();
    assert!(session.has_partial());
    let (mut frontend, mut session, event) = negotiated();
    send(&mut frontend, &bytes[..19], &[event.as_fd()]);
    drop(frontend);
    assert!(handle(&mut session).is_err());
}

fn in_pieces() {
    let (mut frontend, mut session, event) = negotiated();
    let bytes = message(RequestId(99), &[0; 32]);
    let before = open_descriptors();
    for piece in bytes.chunks(4).take(2) {
        send(&mut frontend, piece, &[event.as_fd(); 4]);
        handle(&mut session).unwrap();
    }
    assert_eq!(
        open_descriptors(),
        before + 8,
        "kept until the message is whole"
    );
    send(&mut frontend, &bytes[8..12], &[event.as_fd()]);
    assert!(handle(&mut session).is_err());
}

fn send_many(frontend: &Frontend, bytes: &[u8], files: &[BorrowedFd<'_>]) {
    let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(253))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    assert!(control.push(SendAncillaryMessage::ScmRights(files)));
    let bytes = [std::io::IoSlice::new(bytes)];
    sendmsg(frontend, &bytes, &mut control, SendFlags::empty()).unwrap();
}

fn truncated() {
    for count in [9, 10, 253] {
        let (frontend, mut session, event) = negotiated();
        let before = open_descriptors();
        send_many(
            &frontend,
            &message(Request::SetOwner, &[]),
            &vec![event.as_fd(); count],
        );
        assert!(handle(&mut session).is_err());
        drop(session);
        assert_eq!(
            open_descriptors(),
            before - 1,
            "only the session's socket is gone"
        );
    }
}

fn no_free_slot() {
    let (mut frontend, mut session, event) = negotiated();
    send(
        &mut frontend,
        &message(Request::SetVringKick, &[0; 8]),
        &[event.as_fd(); 8],
    );
    let limit = getrlimit(Resource::Nofile);
    // All slots up to the limit are taken but a few of the eight.
    let taken: Vec<_> = (0..64).map(|_| common::event()).collect();
    let highest = taken.iter().map(AsRawFd::as_raw_fd).max().unwrap();
    let current = Some(u64::try_from(highest).unwrap() + 4);
    setrlimit(Resource::Nofile, Rlimit { current, ..limit }).unwrap();
    let outcome = handle(&mut session);
    setrlimit(Resource::Nofile, limit).unwrap();
    let error = outcome.unwrap_err().to_string();
    assert!(error.starts_with("control data truncated"), "{error}");
}

fn repeated() {
    let (mut frontend, mut session, event) = negotiated();
    let mut after_first = 0;
    for round in 0..50 {
        for request in [
            Request::SetVringKick,
            Request::SetVringCall,
            Request::SetVringErr,
        ] {
            send(&mut frontend, &message(request, &[0; 8]), &[event.as_fd()]);
            handle(&mut session).unwrap();
        }
        if round == 0 {
            after_first = open_descriptors();
        }
    }
    assert_eq!(open_descriptors(), after_first);
    let stop = message(Request::GetVringBase, &[0; 8]);
    send(&mut frontend, &stop, &[]);
    handle(&mut session).unwrap();
    assert_eq!(
        open_descriptors(),
        after_first - 1,
        "the kick is closed with the ring stopped"
    );
}

fn table(regions: &[RegionRequest]) -> Vec<u8> {
    MemoryTable {
        regions: regions.iter().map(region).collect(),
    }
    .bytes()
}

fn region(request: &RegionRequest) -> Region {
    let RegionRequest {
        guest_address,
        size,
        user_address,
        mmap_offset,
        ..
    } = *request;
    Region {
        guest_address,
        size,
        user_address,
        mmap_offset,
    }
}

fn refused_memory() {
    let (mut frontend, mut session, _event) = negotiated();
    let (_, mut regions) = GuestMemory::memfd(&[(0, 4096), (0x10000, 4096)]).unwrap();
    regions[1].size = 1 << 30;
    let files = [regions[0].file.as_fd(), regions[1].file.as_fd()];
    let before = open_descriptors();
    send(
        &mut frontend,
        &message(Request::SetMemTable, &table(&regions)),
        &files,
    );
    let single = SingleRegion::new(region(&regions[1])).bytes();
    send(
        &mut frontend,
        &message(Request::AddMemReg, &single),
        &[files[1]],
    );
    handle(&mut session).unwrap();
    assert!(session.state().memory.is_none());
    assert_eq!(open_descriptors(), before);
}

fn refused_requests() {
    let (mut frontend, mut session, event) = negotiated();
    let (pipe, _) = rustix::pipe::pipe().unwrap();
    let before = open_descriptors();
    send(
        &mut frontend,
        &message(Request::SetVringKick, &[0; 8]),
        &[pipe.as_fd()],
    );
    send(
        &mut frontend,
        &message(Request::SetVringCall, &[9; 8]),
        &[event.as_fd(); 8],
    );
    send(
        &mut frontend,
        &message(Request::SetBackendReqFd, &[]),
        &[pipe.as_fd()],
    );
    send(
        &mut frontend,
        &message(Request::SetLogBase, &[0; 16]),
        &[pipe.as_fd()],
    );
    send(
        &mut frontend,
        &message(Request::SetInflightFd, &[0; 24]),
        &[pipe.as_fd()],
    );
    send(
        &mut frontend,
        &message(RequestId(99), &[0; 24]),
        &[pipe.as_fd(); 8],
    );
    handle(&mut session).unwrap();
    assert_eq!(open_descriptors(), before);
}

/// 0 is a descriptor as any other.
fn descriptor_0() {
    let (mut frontend, mut session, event) = negotiated();
    let stdin = rustix::io::dup(rustix::stdio::stdin()).unwrap();
    // SAFETY: standard input is open for as long as the process runs and owned by nobody; it is
    // put back below.
    drop(unsafe { OwnedFd::from_raw_fd(0) });
    send(
        &mut frontend,
        &message(Request::SetVringCall, &[0; 8]),
        &[event.as_fd()],
    );
    let outcome = handle(&mut session);
    let call = session.state_mut().vrings[0].call.take();
    let number = call.as_deref().map(AsRawFd::as_raw_fd);
    let written = call
        .as_deref()
        .map(|call| write(call, &1_u64.to_ne_bytes()));
    // Closes the call that stands there.
    rustix::stdio::dup2_stdin(&stdin).unwrap();
    let _ = call.and_then(Arc::into_inner).map(IntoRawFd::into_raw_fd);
    outcome.unwrap();
    assert_eq!(number, Some(0));
    assert_eq!(written, Some(Ok(8)));
    let mut count = [0; 8];
    assert_eq!(read(&event, &mut count), Ok(8));
    assert_eq!(u64::from_ne_bytes(count), 1);
    assert_eq!(read(&event, &mut count), Err(Errno::AGAIN));
}
