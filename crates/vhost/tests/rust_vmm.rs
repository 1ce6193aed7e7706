//! A complete handshake with the front-end of rust-vmm's `vhost` crate over a unix socket.

use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixListener;

use ringway_mem::GuestMemory;
use ringway_vhost::user::{Event, RingAddresses, Session, features::*};
use vhost::vhost_user::message::{VhostUserHeaderFlag, VhostUserProtocolFeatures};
use vhost::vhost_user::{Frontend, VhostUserFrontend};
use vhost::{VhostBackend, VhostUserMemoryRegionInfo, VringConfigData};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

mod common;
use common::{FEATURES, Record, offer, serve};

fn ring_config(size: u16) -> VringConfigData {
    VringConfigData {
        queue_max_size: size,
        queue_size: size,
        flags: 0,
        desc_table_addr: 0x10000,
        avail_ring_addr: 0x12000,
        used_ring_addr: 0x14000,
        log_addr: None,
    }
}

fn handshake(flags: VhostUserHeaderFlag, slots: bool) -> Record {
    let directory = std::env::temp_dir().join(format!(
        "ringway-vhost-{}-{}-{slots}",
        std::process::id(),
        flags.bits()
    ));
    std::fs::create_dir_all(&directory).unwrap();
    let path = directory.join("socket");
    let listener = UnixListener::bind(&path).unwrap();
    let mut frontend = Frontend::connect(&path, 2).unwrap();
    let accepted: OwnedFd = listener.accept().unwrap().0.into();
    std::fs::remove_dir_all(&directory).unwrap();
    let server = serve(Session::new(accepted, offer(2)).unwrap());

    frontend.set_owner().unwrap();
    let offered = frontend.get_features().unwrap();
    assert_eq!(offered, FEATURES | mask(&[VHOST_USER_F_PROTOCOL_FEATURES]));
    let protocol = frontend.get_protocol_features().unwrap();
    assert!(
        protocol.contains(VhostUserProtocolFeatures::MQ | VhostUserProtocolFeatures::REPLY_ACK)
    );
    frontend.set_hdr_flags(flags);
    frontend.set_protocol_features(protocol).unwrap();
    assert_eq!(frontend.get_queue_num().unwrap(), 2);
    assert_eq!(frontend.get_max_mem_slots().unwrap(), 32);
    let acked = mask(&[VIRTIO_F_VERSION_1, VHOST_USER_F_PROTOCOL_FEATURES]);
    frontend.set_features(acked).unwrap();

    let (_, regions) = GuestMemory::memfd(&[(0, 0x20000), (0x10_0000, 0x20000)]).unwrap();
    let infos: Vec<_> = regions
        .iter()
        .map(|region| VhostUserMemoryRegionInfo {
            guest_phys_addr: region.guest_address,
            memory_size: region.size,
            userspace_addr: region.user_address,
            mmap_offset: region.mmap_offset,
            mmap_handle: region.file.as_raw_fd(),
        })
        .collect();
    if slots {
        for info in &infos {
            frontend.add_mem_region(info).unwrap();
        }
        frontend.remove_mem_region(&infos[1]).unwrap();
    } else {
        frontend.set_mem_table(&infos).unwrap();
    }

    let events: Vec<_> = (0..6)
        .map(|_| EventFd::new(EFD_NONBLOCK).unwrap())
        .collect();
    for ring in 0..2 {
        frontend.set_vring_num(ring, 256).unwrap();
        frontend.set_vring_addr(ring, &ring_config(256)).unwrap();
        frontend.set_vring_base(ring, 7).unwrap();
        frontend.set_vring_call(ring, &events[3 * ring]).unwrap();
        frontend.set_vring_err(ring, &events[3 * ring + 1]).unwrap();
        frontend
            .set_vring_kick(ring, &events[3 * ring + 2])
            .unwrap();
    }
    for ring in 0..2 {
        frontend.set_vring_enable(ring, true).unwrap();
    }
    for ring in 0..2 {
        frontend.set_vring_enable(ring, false).unwrap();
        let base = frontend.get_vring_base(ring).unwrap();
        assert_eq!(base, 100 + u32::try_from(ring).unwrap());
    }
    frontend.reset_owner().unwrap();
    drop(frontend);
    server.join().unwrap()
}

#[test]
fn handshake_with_a_memory_table_and_every_message_acknowledged() {
    let record = handshake(VhostUserHeaderFlag::NEED_REPLY, false);
    assert_eq!(
        record.events(),
        [
            Event::Features,
            Event::Memory,
            Event::Ring(0),
            Event::Ring(0),
            Event::Ring(0),
            Event::CallChanged(0),
            Event::Ring(0),
            Event::Ring(1),
            Event::Ring(1),
            Event::Ring(1),
            Event::CallChanged(1),
            Event::Ring(1),
            Event::Ring(0),
            Event::Ring(1),
            Event::Ring(0),
            Event::StopRing(0),
            Event::Ring(1),
            Event::StopRing(1),
            Event::ResetRings,
        ]
    );
    assert_eq!(record.events[13].1, [0, 1], "both rings ran");
    let state = record.session.state();
    assert_eq!(state.memory.as_ref().unwrap().regions().count(), 2);
    let vring = &state.vrings[1];
    assert_eq!((vring.size, vring.base), (256, 101));
    let addresses = RingAddresses {
        descriptors: 0x10000,
        available: 0x12000,
        used: 0x14000,
        log: 0,
        logged: false,
    };
    assert_eq!(vring.addresses, Some(addresses));
    assert!(vring.call.is_some() && vring.err.is_some());
}

#[test]
fn handshake_with_memory_slots_and_nothing_acknowledged() {
    let record = handshake(VhostUserHeaderFlag::empty(), true);
    let memory = record.session.state().memory.as_ref().unwrap();
    assert_eq!(
        memory
            .regions()
            .map(|region| region.size)
            .collect::<Vec<_>>(),
        [0x20000]
    );
    assert!(record.events.iter().any(|(_, running)| running == &[0, 1]));
}
