//! Back-ends that answer wrongly, or not at all: an error that names the message, in time, and nothing left open. One test
//! in a process of its own: others would disturb the count of descriptors.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::{Duration, Instant};

use ringway_mem::{GuestMemory, RegionRequest};
use ringway_vhost::user::RingAddresses;
use ringway_vhost::user::features::*;
use ringway_vhost::user::frontend::{Frontend, FrontendError, NetDevice, SetupError, Wish};
use ringway_vhost::user::message::{HEADER_SIZE, Header, InflightArea, RequestId, VringState};
use ringway_vhost::user::socket::Socket;

mod common;
use common::event;

/// What a silent back-end costs.
const PATIENCE: Duration = Duration::from_millis(30);
/// What a loaded machine may add.
const SLACK: Duration = Duration::from_secs(5);

type Call = fn(&mut Frontend, &Things) -> Result<(), FrontendError>;

/// What requests bring along.
struct Things {
    regions: Vec<RegionRequest>,
    file: OwnedFd,
}

/// Every request that waits for an answer: its name and number, how to make it, and the size of a right answer.
const REQUESTS: &[(&str, u32, Call, usize)] = &[
    ("GET_FEATURES", 1, |f, _| f.get_features().map(drop), 8),
    ("SET_FEATURES", 2, |f, _| f.set_features(1), 8),
    ("SET_OWNER", 3, |f, _| f.set_owner(), 8),
    ("RESET_OWNER", 4, |f, _| f.reset_owner(), 8),
    ("SET_MEM_TABLE", 5, |f, t| f.set_mem_table(&t.regions), 8),
    (
        "SET_LOG_BASE",
        6,
        |f, t| f.set_log_base(t.file.as_fd(), 1, 0),
        8,
    ),
    ("SET_LOG_FD", 7, |f, t| f.set_log_fd(t.file.as_fd()), 8),
    ("SET_VRING_NUM", 8, |f, _| f.set_vring_num(0, 256), 8),
    (
        "SET_VRING_ADDR",
        9,
        |f, _| f.set_vring_addr(0, &ADDRESSES),
        8,
    ),
    ("SET_VRING_BASE", 10, |f, _| f.set_vring_base(0, 0), 8),
    (
        "GET_VRING_BASE",
        11,
        |f, _| f.get_vring_base(3).map(drop),
        8,
    ),
    (
        "SET_VRING_KICK",
        12,
        |f, t| f.set_vring_kick(0, Some(t.file.as_fd())),
        8,
    ),
    ("SET_VRING_CALL", 13, |f, _| f.set_vring_call(0, None), 8),
    (
        "SET_VRING_ERR",
        14,
        |f, t| f.set_vring_err(0, Some(t.file.as_fd())),
        8,
    ),
    (
        "GET_PROTOCOL_FEATURES",
        15,
        |f, _| f.get_protocol_features().map(drop),
        8,
    ),
    ("GET_QUEUE_NUM", 17, |f, _| f.get_queue_num().map(drop), 8),
    (
        "SET_VRING_ENABLE",
        18,
        |f, _| f.set_vring_enable(0, true),
        8,
    ),
    ("SEND_RARP", 19, |f, _| f.send_rarp([2; 6]), 8),
    ("NET_SET_MTU", 20, |f, _| f.set_mtu(1500), 8),
    (
        "SET_BACKEND_REQ_FD",
        21,
        |f, _| f.open_backend_channel().map(drop),
        8,
    ),
    (
        "GET_INFLIGHT_FD",
        31,
        |f, _| f.get_inflight_fd(2, 256).map(drop),
        24,
    ),
    ("RESET_DEVICE", 34, |f, _| f.reset_device(), 8),
    (
        "GET_MAX_MEM_SLOTS",
        36,
        |f, _| f.get_max_mem_slots().map(drop),
        8,
    ),
    ("ADD_MEM_REG", 37, |f, t| f.add_mem_reg(&t.regions[0]), 8),
    ("REM_MEM_REG", 38, |f, t| f.rem_mem_reg(&t.regions[0]), 8),
    ("SET_STATUS", 39, |f, _| f.set_status(0xf), 8),
    ("GET_STATUS", 40, |f, _| f.get_status().map(drop), 8),
];

const ADDRESSES: RingAddresses = RingAddresses {
    descriptors: 0x1000,
    available: 0x2000,
    used: 0x3000,
    log: 0,
    logged: false,
};

#[test]
fn hostile_back_ends_do_no_harm() {
    let (_, regions) = GuestMemory::memfd(&[(0, 0x1000)]).unwrap();
    let things = Things {
        regions,
        file: event(),
    };
    // What is opened once for the process shall not count.
    lies(&things);
    let before = open_descriptors();
    lies(&things);
    silence(&things);
    nobody_reads(&things);
    nobody_accepts();
    a_device_is_refused();
    assert_eq!(open_descriptors(), before);
}

/// One request, whose answer waits already.
fn answered(
    call: Call,
    things: &Things,
    answer: &[u8],
    files: &[BorrowedFd<'_>],
) -> Result<(), FrontendError> {
    let (mut front, back_end) = pair();
    assert!(back_end.send_some(answer, files).unwrap() == Some(answer.len()));
    let began = Instant::now();
    let outcome = call(&mut front, things);
    assert!(began.elapsed() < PATIENCE + SLACK);
    if let Err(error) = &outcome
        && !matches!(error, FrontendError::Refused { .. })
    {
        // The next answer might be to this request.
        let next = front.get_features().unwrap_err();
        assert_eq!(
            next.to_string(),
            "GET_FEATURES: not sent, an earlier answer was wrong or missing"
        );
    }
    outcome
}

fn lies(things: &Things) {
    let (pipe, _) = rustix::pipe::pipe().unwrap();
    for &(name, id, call, size) in REQUESTS {
        let lie = |answer: &[u8], files: &[BorrowedFd<'_>], what: &str| {
            let error = answered(call, things, answer, files).expect_err(what);
            assert!(
                matches!(error, FrontendError::Answer { .. }),
                "{what}: {error}"
            );
            let said = error.to_string();
            assert!(said.starts_with(&format!("{name}: ")), "{what}: {said}");
        };
        let right = right_answer(id, size);
        let with = |request: u32, flags: u32, payload: &[u8]| {
            let header = Header {
                request: RequestId(request),
                flags,
                size: u32::try_from(payload.len()).unwrap(),
            };
            [&header.bytes(), payload].concat()
        };
        let no_file: &[BorrowedFd<'_>] = &[];
        let fds = if id == 31 {
            vec![pipe.as_fd()]
        } else {
            Vec::new()
        };
        answered(call, things, &with(id, 5, &right), &fds).expect(name);

        for flags in [0x0, 0x1, 0x4, 0x6, 0x7, 0x9, 0xd, 0x15, u32::MAX] {
            lie(&with(id, flags, &right), &fds, &format!("flags {flags:#x}"));
        }
        for other in [0, id + 1, 99, u32::MAX] {
            lie(&with(other, 5, &right), &fds, &format!("answer to {other}"));
        }
        for wrong in [1, size - 1, size + 1, 64, 4096] {
            let payload = vec![0; wrong];
            lie(&with(id, 5, &payload), &fds, &format!("{wrong} bytes"));
        }
        // QEMU and DPDK disagree on whether SET_LOG_BASE is answered with a number.
        if id != 6 {
            lie(&with(id, 5, &[]), &fds, "no bytes");
        }
        for count in [1, 2, 8] {
            let files = vec![pipe.as_fd(); count];
            if id != 31 || count != 1 {
                lie(
                    &with(id, 5, &right),
                    &files,
                    &format!("{count} descriptors"),
                );
            }
        }
        if id == 11 {
            let other = VringState { index: 2, num: 0 }.bytes();
            lie(&with(id, 5, &other), no_file, "another ring");
        }
        if id == 31 {
            lie(&with(id, 5, &right), no_file, "no descriptor");
            let none = with(id, 5, &[0; 24]);
            lie(&none, &fds, "a descriptor of nothing");
            let refused = answered(call, things, &none, no_file).unwrap_err();
            assert_eq!(
                refused.to_string(),
                "GET_INFLIGHT_FD: the back-end refused with 0x0"
            );
        }
        let long = Header::reply(RequestId(id), 4097).bytes();
        let error = answered(call, things, &long, no_file).unwrap_err();
        assert!(matches!(error, FrontendError::Socket(_)), "{error}");
        if is_acknowledged(id) {
            let no = with(id, 5, &7u64.to_ne_bytes());
            let error = answered(call, things, &no, no_file).unwrap_err();
            assert_eq!(
                error.to_string(),
                format!("{name}: the back-end refused with 0x7")
            );
        }
    }
}

/// Nothing, half a header, half a payload; and then nothing more, or the end.
fn silence(things: &Things) {
    for &(name, id, call, size) in REQUESTS {
        let payload = u32::try_from(size).unwrap();
        let whole = [
            &Header::reply(RequestId(id), payload).bytes()[..],
            &right_answer(id, size),
        ]
        .concat();
        for part in [0, 1, HEADER_SIZE - 1, HEADER_SIZE, whole.len() - 1] {
            let error = answered(call, things, &whole[..part], &[]).unwrap_err();
            assert!(matches!(error, FrontendError::Timeout { .. }), "{error}");
            assert_eq!(
                error.to_string(),
                format!("{name}: the back-end did not answer within {PATIENCE:?}")
            );
            let (mut front, back_end) = pair();
            if part > 0 {
                back_end.send_some(&whole[..part], &[]).unwrap();
            }
            rustix::net::shutdown(&back_end, rustix::net::Shutdown::Write).unwrap();
            let error = call(&mut front, things).unwrap_err();
            assert!(matches!(error, FrontendError::Socket(_)), "{error}");
        }
    }
}

/// The socket fills up.
fn nobody_reads(things: &Things) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let mut front = Frontend::new(ours.into(), PATIENCE).unwrap();
    let mut sent = 0;
    let error = loop {
        match front.set_vring_addr(0, &ADDRESSES) {
            Ok(()) => sent += 1,
            Err(error) => break error,
        }
        assert!(sent < 1 << 20);
    };
    assert!(sent > 10);
    assert_eq!(
        error.to_string(),
        format!("SET_VRING_ADDR: the back-end did not answer within {PATIENCE:?}")
    );
    assert!(matches!(
        front.set_mem_table(&things.regions),
        Err(FrontendError::OutOfStep { .. })
    ));
    let error = front.set_mem_table(&[]).unwrap_err();
    assert!(matches!(error, FrontendError::RegionCount { count: 0 }));
    drop(theirs);
}

/// The queue of connections is full.
fn nobody_accepts() {
    let folder = std::env::temp_dir().join(format!("ringway-accept-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join("socket");
    let listener = UnixListener::bind(&path).unwrap();
    rustix::net::listen(&listener, 0).unwrap();
    let began = Instant::now();
    let mut waiting = Vec::new();
    let error = loop {
        match Frontend::connect(&path, PATIENCE) {
            Ok(front) => waiting.push(front),
            Err(error) => break error,
        }
        assert!(waiting.len() < 100);
    };
    std::fs::remove_dir_all(&folder).unwrap();
    assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
    assert!(began.elapsed() < PATIENCE + SLACK);
}

/// FEATURES_OK does not stay.
fn a_device_is_refused() {
    let (mut front, back_end) = pair();
    front.ask_for_acks(false);
    let mut answers = Vec::new();
    let protocol = mask(&[VHOST_USER_PROTOCOL_F_STATUS]);
    let offered = mask(&[VIRTIO_F_VERSION_1, VHOST_USER_F_PROTOCOL_FEATURES]);
    for (id, number) in [(1, offered), (15, protocol), (40, 0x3)] {
        answers.extend_from_slice(&Header::reply(RequestId(id), 8).bytes());
        answers.extend_from_slice(&number.to_ne_bytes());
    }
    back_end.send_some(&answers, &[]).unwrap();
    let error = NetDevice::negotiate(front, Wish::new(offered)).unwrap_err();
    assert!(matches!(error, SetupError::Status { status: 3, .. }));
    assert_eq!(
        error.to_string(),
        "the back-end does not accept the features PROTOCOL_FEATURES VERSION_1: its status is 0x3"
    );
}

/// A front-end with everything negotiated, and the other end of its socket.
fn pair() -> (Frontend, Socket) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let mut front = Frontend::new(ours.into(), PATIENCE).unwrap();
    let all = mask(&[
        VHOST_USER_PROTOCOL_F_REPLY_ACK,
        VHOST_USER_PROTOCOL_F_LOG_SHMFD,
    ]);
    front.set_protocol_features(all).unwrap();
    front.ask_for_acks(true);
    (front, Socket::new(theirs.into()).unwrap())
}

fn right_answer(id: u32, size: usize) -> Vec<u8> {
    match id {
        11 => VringState { index: 3, num: 0 }.bytes().to_vec(),
        31 => {
            let area = InflightArea {
                size: 4096,
                offset: 0,
                rings: 2,
                ring_size: 256,
            };
            area.bytes().to_vec()
        }
        _ => vec![0; size],
    }
}

fn is_acknowledged(id: u32) -> bool {
    ![1, 11, 15, 17, 31, 36, 40].contains(&id)
}

fn open_descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}
