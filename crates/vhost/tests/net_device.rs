//! The front-end's device against our own back-end: what is said arrives, and again after a reconnect.

use std::os::fd::OwnedFd;
use std::thread::JoinHandle;

use ringway_mem::{GuestMemory, RegionRequest};
use ringway_vhost::user::features::*;
use ringway_vhost::user::frontend::{
    BackendChannel, BackendRequest, ChannelError, NetDevice, RingSetup, SetupError, Wish,
};
use ringway_vhost::user::message::{Header, RequestId};
use ringway_vhost::user::socket::Socket;
use ringway_vhost::user::{Event, Offer, RingAddresses, Session};

mod common;
use common::{FEATURES, Record, connected, event, offer, serve};

const BIT_30: u64 = mask(&[VHOST_USER_F_PROTOCOL_FEATURES]);
const REQUIRED: u64 = mask(&[VIRTIO_F_VERSION_1, VIRTIO_NET_F_MQ]);

fn wish() -> Wish {
    Wish {
        optional: mask(&[VIRTIO_NET_F_MRG_RXBUF, VIRTIO_NET_F_STATUS]),
        queue_pairs: 2,
        mtu: Some(1400),
        ..Wish::new(REQUIRED)
    }
}

fn logging(queue_pairs: u16) -> Offer {
    Offer {
        features: FEATURES | mask(&[VHOST_F_LOG_ALL]),
        ..offer(queue_pairs)
    }
}

fn device(offer: Offer, wish: Wish) -> (Result<NetDevice, SetupError>, JoinHandle<Record>) {
    let (front, session) = connected(offer);
    let server = serve(session);
    (NetDevice::negotiate(front, wish), server)
}

fn region(guest_address: u64) -> RegionRequest {
    let (_, mut requests) = GuestMemory::memfd(&[(guest_address, 0x10000)]).unwrap();
    requests.pop().unwrap()
}

fn ring(number: u64) -> RingSetup {
    let at = 0x1000 * number;
    RingSetup {
        size: 256,
        addresses: RingAddresses {
            descriptors: at,
            available: at + 0x400,
            used: at + 0x800,
            log: at + 0x800,
            logged: false,
        },
        kick: Some(event()),
        call: Some(event()),
        err: Some(event()),
    }
}

fn negotiated(session: &Session) -> u64 {
    session.state().features
}

#[test]
fn what_is_wished_for_is_negotiated() {
    let (device, server) = device(offer(2), wish());
    let mut device = device.unwrap();
    let expected = REQUIRED | mask(&[VIRTIO_NET_F_MRG_RXBUF]) | BIT_30;
    assert_eq!(device.features(), expected);
    assert_eq!(
        device.protocol_features(),
        NetDevice::PROTOCOL_FEATURES & ringway_vhost::user::session::PROTOCOL_FEATURES
    );
    assert!(device.announce([2, 0, 0, 0, 0, 1]).unwrap());
    drop(device);
    let record = server.join().unwrap();
    assert_eq!(negotiated(&record.session), expected);
    assert_eq!(record.session.state().mtu, Some(1400));
    assert_eq!(record.session.state().status, 0xb);
    assert!(record.events().contains(&Event::Rarp([2, 0, 0, 0, 0, 1])));
}

#[test]
fn what_is_missing_is_named() {
    let (too_many, server) = device(
        offer(2),
        Wish {
            queue_pairs: 3,
            ..wish()
        },
    );
    assert_eq!(
        too_many.unwrap_err().to_string(),
        "the back-end has 2 queue pairs, wanted are 3"
    );
    server.join().unwrap();

    let required = REQUIRED | mask(&[VIRTIO_F_RING_RESET]);
    let (lacking, server) = device(offer(2), Wish { required, ..wish() });
    let said = lacking.unwrap_err().to_string();
    assert!(
        said.starts_with("the back-end does not offer RING_RESET; it offers CSUM "),
        "{said}"
    );
    server.join().unwrap();

    let bare = Offer {
        protocol_features: 0,
        ..offer(1)
    };
    let wished = Wish::new(mask(&[VIRTIO_F_VERSION_1]));
    let (plain, server) = device(bare, wished);
    let mut plain = plain.unwrap();
    assert!(!plain.announce([2; 6]).unwrap());
    assert!(!plain.set_mtu(1500).unwrap());
    for (outcome, missing) in [
        (plain.add_region(region(0)), "CONFIGURE_MEM_SLOTS"),
        (plain.remove_region(0), "CONFIGURE_MEM_SLOTS"),
        (
            plain.share((0..9).map(|at| region(at << 20)).collect()),
            "CONFIGURE_MEM_SLOTS",
        ),
        (plain.start_log(event(), 1, 0), "LOG_SHMFD"),
        (plain.track_inflight(256), "INFLIGHT_SHMFD"),
    ] {
        assert_eq!(
            outcome.unwrap_err().to_string(),
            format!("the back-end lacks the protocol feature {missing}")
        );
    }
    assert!(matches!(
        plain.start_ring(2, ring(2), 0),
        Err(SetupError::RingIndex { index: 2, rings: 2 })
    ));
    drop(plain);
    server.join().unwrap();
}

#[test]
fn more_regions_than_a_table_holds_are_shared_one_at_a_time() {
    let (device, server) = device(offer(2), wish());
    let mut device = device.unwrap();
    device.share(vec![region(0)]).unwrap();
    device
        .share((0..10).map(|at| region(at << 20)).collect())
        .unwrap();
    device.add_region(region(10 << 20)).unwrap();
    device.remove_region(3 << 20).unwrap();
    assert!(matches!(
        device.remove_region(3 << 20),
        Err(SetupError::NoSuchRegion { .. })
    ));
    let error = device.share((0..33).map(|at| region(at << 20)).collect());
    assert_eq!(
        error.unwrap_err().to_string(),
        "33 memory regions, the back-end maps 32"
    );
    drop(device);
    let record = server.join().unwrap();
    let memory = record.session.state().memory.as_ref().unwrap();
    let mut found: Vec<_> = memory.regions().map(|r| r.guest_address >> 20).collect();
    found.sort_unstable();
    assert_eq!(found, [0, 1, 2, 4, 5, 6, 7, 8, 9, 10]);
}

#[test]
fn rings_start_stop_and_say_where_they_stand() {
    let (device, server) = device(logging(2), wish());
    let mut device = device.unwrap();
    device.share(vec![region(0)]).unwrap();
    for number in 0..4 {
        device.start_ring(number, ring(number.into()), 7).unwrap();
    }
    device.enable(1).unwrap();
    device.enable(2).unwrap();
    let log = memory_file(4096);
    device.start_log(log, 4096, 0).unwrap();
    let stopped = device.stop().unwrap();
    assert_eq!(stopped, [(0, 100), (1, 101), (2, 102), (3, 103)]);
    device.start_ring(0, ring(0), 100).unwrap();
    device.start_ring(1, ring(1), 101).unwrap();
    device.stop_log().unwrap();
    device.enable(1).unwrap();
    device.start_ring(2, ring(2), 0).unwrap();
    device.reset().unwrap();
    assert!(device.stop().unwrap().is_empty(), "a ring was left");
    device.start_ring(0, ring(0), 100).unwrap();
    device.start_ring(1, ring(1), 101).unwrap();
    device.enable(1).unwrap();
    drop(device);

    let record = server.join().unwrap();
    assert!(record.events().contains(&Event::Log));
    let ran: Vec<_> = record.events.iter().map(|(_, running)| running).collect();
    assert!(ran.contains(&&vec![0, 1]) && ran.contains(&&vec![0, 1, 2, 3]));
    let state = record.session.state();
    assert_eq!(state.status, 0xf);
    assert_eq!(state.features & mask(&[VHOST_F_LOG_ALL]), 0);
    assert_eq!(record.running_after(|_| true), [0, 1]);
    assert_eq!((state.vrings[0].base, state.vrings[1].base), (100, 101));
    assert!(!state.vrings[0].addresses.unwrap().logged);
    assert!(state.vrings[1].err.is_some());
}

#[test]
fn a_new_back_end_is_told_everything_again() {
    let (first, server) = device(logging(2), wish());
    let mut device = first.unwrap();
    device
        .share((0..9).map(|at| region(at << 20)).collect())
        .unwrap();
    for number in 0..4 {
        device.start_ring(number, ring(number.into()), 0).unwrap();
    }
    device.start_log(memory_file(4096), 4096, 0).unwrap();
    device.enable(1).unwrap();
    let features = device.features();

    // One that has lost a feature is of no use, the next one is.
    let lesser = Offer {
        features: FEATURES & !mask(&[VIRTIO_NET_F_MRG_RXBUF]),
        ..offer(2)
    };
    let (front, session) = connected(lesser);
    let second = serve(session);
    let error = device.reconnect(front, |_| 0).unwrap_err();
    assert!(
        matches!(error, SetupError::Features { missing, .. } if missing == mask(&[VIRTIO_NET_F_MRG_RXBUF]))
    );
    server.join().unwrap();
    let (front, session) = connected(logging(2));
    let third = serve(session);
    device
        .reconnect(front, |number| 40 + u32::from(number))
        .unwrap();
    second.join().unwrap();
    assert_eq!(device.features(), features);
    drop(device);

    let record = third.join().unwrap();
    let state = record.session.state();
    assert_eq!(state.features, features | mask(&[VHOST_F_LOG_ALL]));
    assert_eq!((state.mtu, state.status), (Some(1400), 0xf));
    assert_eq!(state.memory.as_ref().unwrap().regions().count(), 9);
    assert!(state.log.is_some());
    assert_eq!(record.running_after(|_| true), [0, 1]);
    for (base, vring) in (40..).zip(&state.vrings) {
        assert!(vring.is_ready() && vring.kick.is_some() && vring.call.is_some());
        assert!(vring.addresses.unwrap().logged);
        assert_eq!(vring.base, base);
    }
}

#[test]
fn the_back_end_can_ask_on_the_second_socket() {
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    let mut channel = BackendChannel::new(ours.into()).unwrap();
    let mut back_end = Socket::new(theirs.into()).unwrap();
    assert!(channel.receive().unwrap().is_none());
    let mut ask = |id, payload: &[u8], need_reply| {
        let size = u32::try_from(payload.len()).unwrap();
        let header = Header::request(RequestId(id), size, need_reply);
        back_end.send(&header, payload, None).unwrap();
    };
    ask(2, &[], false);
    ask(5, &[[3, 0, 0, 0], [0; 4]].concat(), true);
    ask(1, &[1; 32], true);
    ask(99, &[], true);
    let taken = channel.receive().unwrap().unwrap();
    assert!(matches!(taken, BackendRequest::ConfigChange));
    channel.answer(Ok(())).unwrap();
    let taken = channel.receive().unwrap().unwrap();
    assert!(matches!(taken, BackendRequest::VringError(3)));
    assert!(matches!(channel.receive(), Err(ChannelError::Unanswered)));
    channel.answer(Ok(())).unwrap();
    let taken = channel.receive().unwrap().unwrap();
    assert!(matches!(taken, BackendRequest::Iotlb(payload) if payload == [1; 32]));
    channel.answer(Err(())).unwrap();
    let error = channel.receive().unwrap_err();
    assert_eq!(
        error.to_string(),
        "the back-end's request 99: flags 0x9, 0 bytes, 0 file descriptors"
    );
    // Only what asked for it was answered.
    for (id, code) in [(5, 0), (1, 1u64)] {
        let header = back_end.header().unwrap().unwrap();
        assert_eq!(header, Header::reply(RequestId(id), 8));
        let answer = back_end.message(header).unwrap().unwrap();
        assert_eq!(answer.payload, code.to_ne_bytes());
    }
    drop(back_end);
    let mut channel = channel;
    assert!(matches!(channel.receive(), Err(ChannelError::Socket(_))));
}

#[test]
fn our_back_end_keeps_the_second_socket_until_another_comes() {
    let (device, server) = device(
        offer(2),
        Wish {
            protocol: u64::MAX,
            ..wish()
        },
    );
    let mut device = device.unwrap();
    let mut first = device.frontend().open_backend_channel().unwrap();
    assert!(first.receive().unwrap().is_none(), "closed at once");
    let mut second = device.frontend().open_backend_channel().unwrap();
    assert!(matches!(first.receive(), Err(ChannelError::Socket(_))));
    assert!(second.receive().unwrap().is_none());
    drop(device);
    drop(server.join().unwrap());
    assert!(matches!(second.receive(), Err(ChannelError::Socket(_))));
}

fn memory_file(size: u64) -> OwnedFd {
    let file = rustix::fs::memfd_create("log", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
    rustix::fs::ftruncate(&file, size).unwrap();
    file
}
