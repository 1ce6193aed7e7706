//! What real front-ends send, in their order: QEMU 7.2, QEMU 10.0 and DPDK's virtio-user.

use std::os::fd::{AsFd, OwnedFd};

use ringway_mem::{GuestMemory, RegionRequest};
use ringway_vhost::user::frontend::Frontend;
use ringway_vhost::user::{Event, RingAddresses, features::*};

mod common;
use common::{connected, event, offer, serve};

/// What QEMU's guest takes: no protocol features of virtio, bit 30 of the back-end.
const QEMU: u64 = mask(&[
    VIRTIO_NET_F_CSUM,
    VIRTIO_NET_F_MRG_RXBUF,
    VIRTIO_NET_F_MQ,
    VIRTIO_RING_F_INDIRECT_DESC,
    VIRTIO_RING_F_EVENT_IDX,
    VHOST_USER_F_PROTOCOL_FEATURES,
    VIRTIO_F_VERSION_1,
]);
const FEATURES_OK: u8 = 0x8;
const PAIRS: u32 = 2;

struct Qemu {
    frontend: Frontend,
    acks: bool,
    /// 10.0: VRING_ENABLE is synchronous, and a device is reset before its rings are asked.
    newer: bool,
    protocol: u64,
    events: Vec<OwnedFd>,
    memory: Vec<RegionRequest>,
}

impl Qemu {
    fn new(frontend: Frontend, newer: bool) -> Self {
        let (_, mut memory) = GuestMemory::memfd(&[(0, 0xa0000), (0x10_0000, 0x10_0000)]).unwrap();
        // The second region lies behind the hole for video memory in one file.
        memory[1].file = memory[1].file.try_clone().unwrap();
        let events = (0..6 * PAIRS).map(|_| event()).collect();
        Self {
            frontend,
            acks: false,
            newer,
            protocol: 0,
            events,
            memory,
        }
    }

    fn acked(&mut self, request: impl FnOnce(&mut Frontend)) {
        self.frontend.ask_for_acks(self.acks);
        request(&mut self.frontend);
        self.frontend.ask_for_acks(false);
    }

    /// Connection of both queue pairs, with the protocol features that QEMU takes from the offer.
    fn connect(&mut self, without: &[u32]) {
        for pair in 0..PAIRS {
            self.frontend.get_features().unwrap();
            let offered = self.frontend.get_protocol_features().unwrap();
            self.protocol = offered & !mask(without);
            self.frontend.set_protocol_features(self.protocol).unwrap();
            self.acks = has(self.protocol, VHOST_USER_PROTOCOL_F_REPLY_ACK);
            if pair == 0 {
                assert_eq!(self.frontend.get_queue_num().unwrap(), u64::from(PAIRS));
            }
            if has(self.protocol, VHOST_USER_PROTOCOL_F_CONFIGURE_MEM_SLOTS) {
                assert_eq!(self.frontend.get_max_mem_slots().unwrap(), 32);
            }
            if pair == 0 {
                let (channel, _) = rustix::net::socketpair(
                    rustix::net::AddressFamily::UNIX,
                    rustix::net::SocketType::STREAM,
                    rustix::net::SocketFlags::CLOEXEC,
                    None,
                )
                .unwrap();
                self.acked(|frontend| frontend.set_backend_req_fd(channel.as_fd()).unwrap());
                self.frontend.set_owner().unwrap();
            }
            self.frontend.get_features().unwrap();
            for ring in 2 * pair..2 * pair + 2 {
                self.call(ring);
                let index = u8::try_from(ring).unwrap();
                let err = self.events[place(ring, 2)].as_fd();
                self.frontend.set_vring_err(index, Some(err)).unwrap();
            }
        }
        // Realize, several times over, before any feature is acknowledged.
        for _ in 0..3 {
            self.enable(0, true);
            self.enable(1, false);
        }
    }

    fn call(&mut self, ring: u32) {
        let call = self.events[place(ring, 1)].as_fd();
        self.frontend
            .set_vring_call(u8::try_from(ring).unwrap(), Some(call))
            .unwrap();
    }

    fn enable(&mut self, pair: u32, enabled: bool) {
        for ring in 2 * pair..2 * pair + 2 {
            if self.newer {
                self.acked(|frontend| frontend.set_vring_enable(ring, enabled).unwrap());
                if !self.acks {
                    self.frontend.get_features().unwrap();
                }
            } else {
                self.frontend.set_vring_enable(ring, enabled).unwrap();
            }
        }
    }

    fn add_status(&mut self, bits: u8) {
        let status = u8::try_from(self.frontend.get_status().unwrap()).unwrap();
        if status & bits != bits {
            self.frontend.set_status(status | bits).unwrap();
        }
    }

    fn start(&mut self, bases: &[u32]) {
        self.acked(|frontend| frontend.set_mtu(1500).unwrap());
        for pair in 0..PAIRS {
            self.enable(pair, true);
            self.frontend.set_features(QEMU).unwrap();
            self.add_status(FEATURES_OK);
            if pair == 0 {
                let memory = std::mem::take(&mut self.memory);
                if has(self.protocol, VHOST_USER_PROTOCOL_F_CONFIGURE_MEM_SLOTS) {
                    for region in &memory {
                        self.acked(|frontend| frontend.add_mem_reg(region).unwrap());
                    }
                } else {
                    self.acked(|frontend| frontend.set_mem_table(&memory).unwrap());
                }
                self.memory = memory;
            }
            for ring in 2 * pair..2 * pair + 2 {
                self.frontend.set_vring_num(ring, 256).unwrap();
                let base = bases[usize::try_from(ring).unwrap()];
                self.frontend.set_vring_base(ring, base).unwrap();
                self.frontend.set_vring_addr(ring, &lies_at(ring)).unwrap();
                let kick = self.events[place(ring, 0)].as_fd();
                self.frontend
                    .set_vring_kick(u8::try_from(ring).unwrap(), Some(kick))
                    .unwrap();
                self.call(ring);
            }
        }
        self.add_status(0x7);
        assert_eq!(self.frontend.get_status().unwrap(), 0xf);
    }

    /// The rings' bases at the stop.
    fn stop(&mut self) -> Vec<u32> {
        let bases = |frontend: &mut Frontend| {
            (0..2 * PAIRS)
                .map(|ring| frontend.get_vring_base(ring).unwrap())
                .collect()
        };
        if self.newer {
            let bases = bases(&mut self.frontend);
            self.frontend.set_status(0).unwrap();
            return bases;
        }
        self.frontend.set_status(0).unwrap();
        bases(&mut self.frontend)
    }

    fn reset(&mut self) {
        if has(self.protocol, VHOST_USER_PROTOCOL_F_RESET_DEVICE) && self.newer {
            self.frontend.reset_device().unwrap();
        }
        let _ = self.stop();
        self.enable(0, true);
        self.enable(1, false);
    }
}

fn place(ring: u32, kind: usize) -> usize {
    3 * usize::try_from(ring).unwrap() + kind
}

fn lies_at(ring: u32) -> RingAddresses {
    let start = 0x10_0000 + u64::from(ring) * 0x4000;
    let (descriptors, available, used) = (start, start + 0x1000, start + 0x2000);
    RingAddresses {
        descriptors,
        available,
        used,
        log: used,
        logged: false,
    }
}

const ALL: [u16; 4] = [0, 1, 2, 3];
const STOPPED: [u32; 4] = [100, 101, 102, 103];

#[test]
fn qemu_7_2_connects_starts_stops_and_resets() {
    let (frontend, session) = connected(offer(2));
    let server = serve(session);
    let mut qemu = Qemu::new(frontend, false);
    qemu.connect(&[
        VHOST_USER_PROTOCOL_F_CONFIGURE_MEM_SLOTS,
        VHOST_USER_PROTOCOL_F_RESET_DEVICE,
    ]);
    qemu.start(&[0; 4]);
    assert_eq!(qemu.stop(), STOPPED, "status 0 came first");
    qemu.start(&STOPPED);
    qemu.reset();
    qemu.start(&[0; 4]);
    drop(qemu);
    let record = server.join().unwrap();
    assert_eq!(
        record.running_after(|event| *event == Event::Status(0xf)),
        ALL
    );
    let events = record.events();
    let first_status = events
        .iter()
        .position(|event| matches!(event, Event::Status(_)));
    assert_eq!(events[first_status.unwrap()], Event::Status(FEATURES_OK));
    let count = |wanted: Event| events.iter().filter(|event| **event == wanted).count();
    assert_eq!(count(Event::Features), 1, "later ones were the same");
    assert_eq!(count(Event::Memory), 3);
    assert_eq!(count(Event::Mtu), 3);
    assert_eq!(count(Event::ResetRings), 2);
    assert_eq!(count(Event::Status(0xf)), 3);
    assert_eq!(count(Event::StopRing(3)), 2);
    let state = record.session.state();
    assert_eq!((state.features, state.mtu), (QEMU, Some(1500)));
    assert!(state.backend_requests.is_some());
}

#[test]
fn qemu_7_2_with_memory_slots() {
    let (frontend, session) = connected(offer(2));
    let server = serve(session);
    let mut qemu = Qemu::new(frontend, false);
    qemu.connect(&[]);
    qemu.start(&[0; 4]);
    assert_eq!(qemu.stop(), STOPPED);
    // It removes what changed only: a region of video memory comes and goes.
    let (_, extra) = GuestMemory::memfd(&[(0xfd00_0000, 0x10_0000)]).unwrap();
    qemu.acked(|frontend| frontend.add_mem_reg(&extra[0]).unwrap());
    qemu.acked(|frontend| frontend.rem_mem_reg(&extra[0]).unwrap());
    drop(qemu);
    let record = server.join().unwrap();
    assert_eq!(
        record
            .session
            .state()
            .memory
            .as_ref()
            .unwrap()
            .regions()
            .count(),
        2
    );
    assert_eq!(
        record.running_after(|event| *event == Event::Status(0xf)),
        ALL
    );
}

#[test]
fn qemu_10_0_connects_starts_stops_and_resets() {
    let (frontend, session) = connected(offer(2));
    let server = serve(session);
    let mut qemu = Qemu::new(frontend, true);
    qemu.connect(&[VHOST_USER_PROTOCOL_F_CONFIGURE_MEM_SLOTS]);
    qemu.start(&[0; 4]);
    assert_eq!(qemu.stop(), STOPPED);
    qemu.start(&STOPPED);
    qemu.reset();
    qemu.start(&[0; 4]);
    drop(qemu);
    let record = server.join().unwrap();
    assert_eq!(
        record.running_after(|event| *event == Event::Status(0xf)),
        ALL
    );
    let events = record.events();
    let resets = events
        .iter()
        .filter(|event| **event == Event::ResetRings)
        .count();
    assert_eq!(resets, 3, "two stops and RESET_DEVICE");
    assert_eq!(
        events
            .iter()
            .filter(|event| **event == Event::Features)
            .count(),
        2
    );
}

#[test]
fn qemu_10_0_without_reply_ack_asks_for_features_as_a_barrier() {
    let (frontend, session) = connected(offer(2));
    let server = serve(session);
    let mut qemu = Qemu::new(frontend, true);
    let slots = VHOST_USER_PROTOCOL_F_CONFIGURE_MEM_SLOTS;
    qemu.connect(&[VHOST_USER_PROTOCOL_F_REPLY_ACK, slots]);
    qemu.start(&[0; 4]);
    assert_eq!(qemu.stop(), STOPPED);
    drop(qemu);
    let record = server.join().unwrap();
    assert_eq!(
        record.running_after(|event| *event == Event::Status(0xf)),
        ALL
    );
}

#[test]
fn qemu_reconnects_and_goes_on_where_the_used_ring_stands() {
    for newer in [false, true] {
        let (frontend, session) = connected(offer(2));
        let server = serve(session);
        let mut qemu = Qemu::new(frontend, newer);
        let slots = [VHOST_USER_PROTOCOL_F_CONFIGURE_MEM_SLOTS];
        qemu.connect(&slots);
        qemu.start(&[0; 4]);
        // The back-end dies and comes back: the front-end repeats everything on a new socket.
        let (again, session) = connected(offer(2));
        qemu.frontend = again;
        server.join().unwrap();
        let server = serve(session);
        qemu.connect(&slots);
        qemu.start(&[41, 42, 43, 44]);
        drop(qemu);
        let record = server.join().unwrap();
        assert_eq!(
            record.running_after(|event| *event == Event::Status(0xf)),
            ALL
        );
        let bases: Vec<_> = record
            .session
            .state()
            .vrings
            .iter()
            .map(|vring| vring.base)
            .collect();
        assert_eq!(bases, [41, 42, 43, 44]);
    }
}

#[test]
fn a_guest_that_uses_one_of_two_queue_pairs() {
    let (frontend, session) = connected(offer(2));
    let server = serve(session);
    let mut qemu = Qemu::new(frontend, false);
    qemu.connect(&[]);
    qemu.start(&[0; 4]);
    qemu.enable(1, false);
    drop(qemu);
    let record = server.join().unwrap();
    assert_eq!(record.events.last().unwrap().1, [0, 1]);
}

/// DPDK 22.11 with two queues: MQ without a control queue, rings in the order 0, 2, 1, 3, a packed
/// base without its upper half, and no GET_QUEUE_NUM.
fn virtio_user(packed: bool) {
    let (mut frontend, session) = connected(offer(2));
    let server = serve(session);
    let events: Vec<_> = (0..8).map(|_| event()).collect();
    // Guest addresses are user addresses.
    let (_, memory) = GuestMemory::memfd(&[(0x1_0000_0000, 0x20_0000)]).unwrap();
    let mut features = mask(&[
        VIRTIO_NET_F_MRG_RXBUF,
        VIRTIO_NET_F_MQ,
        VIRTIO_RING_F_INDIRECT_DESC,
        VHOST_USER_F_PROTOCOL_FEATURES,
        VIRTIO_F_VERSION_1,
    ]);
    if packed {
        features |= mask(&[VIRTIO_F_RING_PACKED]);
        assert_eq!(features, 0x5_5040_8000);
    }

    frontend.set_owner().unwrap();
    frontend.get_features().unwrap();
    let protocol = frontend.get_protocol_features().unwrap() & 0x1_0009;
    assert_eq!(protocol, 0x1_0009);
    frontend.set_protocol_features(protocol).unwrap();
    for ring in 0..4_u8 {
        frontend
            .set_vring_call(ring, Some(events[usize::from(ring)].as_fd()))
            .unwrap();
    }
    frontend.set_features(features).unwrap();
    frontend.ask_for_acks(true);
    frontend.set_status(0xb).unwrap();
    frontend.set_mem_table(&memory).unwrap();
    frontend.ask_for_acks(false);
    for ring in [0_u8, 2, 1, 3] {
        let index = u32::from(ring);
        frontend.set_vring_num(index, 256).unwrap();
        frontend
            .set_vring_base(index, if packed { 0x8000 } else { 0 })
            .unwrap();
        let start = 0x1_0000_0000 + u64::from(ring) * 0x4000;
        let addresses = RingAddresses {
            descriptors: start,
            available: start + 0x1000,
            used: start + 0x2000,
            log: 0,
            logged: false,
        };
        frontend.set_vring_addr(index, &addresses).unwrap();
        frontend
            .set_vring_kick(ring, Some(events[4 + usize::from(ring)].as_fd()))
            .unwrap();
    }
    for ring in [0, 1] {
        frontend.set_vring_enable(ring, true).unwrap();
    }
    frontend.ask_for_acks(true);
    frontend.set_status(0xf).unwrap();
    frontend.ask_for_acks(false);
    for ring in [2, 3] {
        frontend.set_vring_enable(ring, true).unwrap();
    }
    for ring in 0..4 {
        frontend.set_vring_enable(ring, false).unwrap();
    }
    let bases: Vec<_> = (0..4)
        .map(|ring| frontend.get_vring_base(ring).unwrap())
        .collect();
    assert_eq!(bases, STOPPED);
    drop(frontend);
    let record = server.join().unwrap();
    assert_eq!(
        record.running_after(|event| *event == Event::Status(0xf)),
        [0, 1]
    );
    assert!(record.events.iter().any(|(_, running)| running == &ALL));
    assert_eq!(record.session.state().features, features);
}

#[test]
fn virtio_user_starts_and_stops_with_split_rings() {
    virtio_user(false);
}

#[test]
fn virtio_user_starts_and_stops_with_packed_rings() {
    virtio_user(true);
}
