//! A guest: a front-end and the NIC it speaks for.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use ringway_vhost::user::RingAddresses;
use ringway_vhost::user::frontend::Frontend;

use super::{Nic, Options, PATIENCE};

/// Sets of features.
pub mod features {
    use ringway_vhost::user::features as bits;
    use ringway_vhost::user::features::mask;

    /// Needed by every guest here: protocol features, so that rings are enabled by message.
    pub const BASE: u64 = mask(&[
        bits::VHOST_USER_F_PROTOCOL_FEATURES,
        bits::VIRTIO_F_VERSION_1,
    ]);
    /// A driver from before virtio 1.0.
    pub const LEGACY: u64 = mask(&[bits::VHOST_USER_F_PROTOCOL_FEATURES]);
    pub const MERGE: u64 = mask(&[bits::VIRTIO_NET_F_MRG_RXBUF]);
    pub const EVENT: u64 = mask(&[bits::VIRTIO_RING_F_EVENT_IDX]);
    pub const INDIRECT: u64 = mask(&[bits::VIRTIO_RING_F_INDIRECT_DESC]);
    pub const IN_ORDER: u64 = mask(&[bits::VIRTIO_F_IN_ORDER]);
    pub const USUAL: u64 = BASE | MERGE | EVENT | INDIRECT;
    /// What a guest may ask of the device.
    pub const ASKS: u64 = mask(&[
        bits::VIRTIO_NET_F_CSUM,
        bits::VIRTIO_NET_F_HOST_TSO4,
        bits::VIRTIO_NET_F_HOST_TSO6,
        bits::VIRTIO_NET_F_HOST_ECN,
    ]);
    pub const TAKES_CSUM: u64 = mask(&[bits::VIRTIO_NET_F_GUEST_CSUM]);
    pub const TAKES_TSO: u64 = mask(&[
        bits::VIRTIO_NET_F_GUEST_TSO4,
        bits::VIRTIO_NET_F_GUEST_TSO6,
        bits::VIRTIO_NET_F_GUEST_ECN,
    ]);
}

/// Virtio device status of a driver that runs.
const RUNNING: u8 = 0xf;

pub struct Guest {
    pub front: Frontend,
    pub nic: Nic,
}

impl Guest {
    /// Connects to `path`, sets everything up and starts.
    pub fn start(path: &Path, options: Options) -> Self {
        let mut guest = Self {
            front: Frontend::connect(path, PATIENCE).unwrap(),
            nic: Nic::new(options),
        };
        guest.nic.fill();
        guest.set_up();
        guest
    }

    /// Everything a front-end says from the first message on until its driver runs, as after a
    /// connection was made or made anew.
    pub fn set_up(&mut self) {
        let Self { front, nic } = self;
        let offered = front.get_features().unwrap();
        let features = nic.options.features;
        assert_eq!(features & !offered, 0, "offered are {offered:#x}");
        let protocol = front.get_protocol_features().unwrap();
        front.set_protocol_features(protocol).unwrap();
        front.ask_for_acks(true);
        assert!(front.get_queue_num().unwrap() >= nic.options.pairs.into());
        front.set_owner().unwrap();
        front.set_features(features).unwrap();
        front.set_mem_table(&nic.regions).unwrap();
        for ring in 0..nic.queues.len() {
            self.start_ring(ring);
        }
        self.front.set_status(RUNNING).unwrap();
    }

    /// Starts a ring where its driver stands, and enables it.
    pub fn start_ring(&mut self, ring: usize) {
        let base = self.nic.queues[ring].ring.base().to_vhost();
        RingSetup::of(&self.nic, ring).start(&mut self.front, base);
    }

    /// Stops a ring; where the device stands.
    pub fn stop_ring(&mut self, ring: usize) -> u32 {
        self.front.get_vring_base(index(ring)).unwrap()
    }

    /// Goes on at `path` as a front-end does whose connection was lost: same memory, same rings.
    pub fn reconnect(&mut self, path: &Path) {
        self.front = Frontend::connect(path, PATIENCE).unwrap();
        self.set_up();
    }
}

/// What a front-end says of a ring, for when the ring itself is with another thread.
pub struct RingSetup {
    ring: usize,
    size: u16,
    addresses: RingAddresses,
    kick: OwnedFd,
    call: OwnedFd,
}

impl RingSetup {
    pub fn of(nic: &Nic, ring: usize) -> Self {
        let queue = &nic.queues[ring];
        let layout = queue.layout();
        Self {
            ring,
            size: layout.size,
            addresses: RingAddresses {
                descriptors: layout.descriptors,
                available: layout.available,
                used: layout.used,
                log: 0,
                logged: false,
            },
            kick: queue.kick.try_clone().unwrap(),
            call: queue.call.try_clone().unwrap(),
        }
    }

    /// Starts the ring at `base` and enables it.
    pub fn start(&self, front: &mut Frontend, base: u32) {
        let (ring, byte) = (index(self.ring), u8::try_from(self.ring).unwrap());
        front.set_vring_num(ring, self.size.into()).unwrap();
        front.set_vring_base(ring, base).unwrap();
        front.set_vring_addr(ring, &self.addresses).unwrap();
        front.set_vring_call(byte, Some(self.call.as_fd())).unwrap();
        front.set_vring_kick(byte, Some(self.kick.as_fd())).unwrap();
        front.set_vring_enable(ring, true).unwrap();
    }

    /// Stops the ring and starts it where it stopped.
    pub fn restart(&self, front: &mut Frontend) {
        let base = front.get_vring_base(index(self.ring)).unwrap();
        self.start(front, base);
    }
}

fn index(ring: usize) -> u32 {
    u32::try_from(ring).unwrap()
}

impl std::ops::Deref for Guest {
    type Target = Nic;

    fn deref(&self) -> &Nic {
        &self.nic
    }
}

impl std::ops::DerefMut for Guest {
    fn deref_mut(&mut self) -> &mut Nic {
        &mut self.nic
    }
}
