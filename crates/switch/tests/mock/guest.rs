//! A guest: a front-end and the NIC it speaks for.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::{Arc, OnceLock};

use ringway_mem::{GuestMemory, RegionRequest};
use ringway_vhost::user::RingAddresses;
use ringway_vhost::user::features::{VIRTIO_F_RING_PACKED, has};
use ringway_vhost::user::frontend::{Frontend, Inflight};

use super::{Nic, Options, PATIENCE, queue};

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
    pub const PACKED: u64 = mask(&[bits::VIRTIO_F_RING_PACKED]);
    pub const IN_ORDER: u64 = mask(&[bits::VIRTIO_F_IN_ORDER]);
    pub const USUAL: u64 = BASE | MERGE | EVENT | INDIRECT;
    /// What a guest may ask of the device.
    pub const ASKS: u64 = mask(&[
        bits::VIRTIO_NET_F_CSUM,
        bits::VIRTIO_NET_F_HOST_TSO4,
        bits::VIRTIO_NET_F_HOST_TSO6,
        bits::VIRTIO_NET_F_HOST_ECN,
    ]);
    /// And from Linux 6.2 on.
    pub const ASKS_USO: u64 = mask(&[bits::VIRTIO_NET_F_HOST_USO]);
    pub const TAKES_CSUM: u64 = mask(&[bits::VIRTIO_NET_F_GUEST_CSUM]);
    pub const TAKES_TSO: u64 = mask(&[
        bits::VIRTIO_NET_F_GUEST_TSO4,
        bits::VIRTIO_NET_F_GUEST_TSO6,
        bits::VIRTIO_NET_F_GUEST_ECN,
    ]);
    pub const TAKES_USO: u64 =
        mask(&[bits::VIRTIO_NET_F_GUEST_USO4, bits::VIRTIO_NET_F_GUEST_USO6]);
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
        Self::over(Frontend::connect(path, PATIENCE).unwrap(), options)
    }

    /// The same over a connection that is there.
    pub fn over(front: Frontend, options: Options) -> Self {
        let mut nic = Nic::new(options);
        nic.fill();
        let mut guest = Self { front, nic };
        guest.set_up();
        guest
    }

    /// Everything a front-end says until its driver runs.
    pub fn set_up(&mut self) {
        Setup::of(&self.nic).apply(&mut self.front);
    }

    /// Enables a ring and starts it where its driver stands.
    pub fn start_ring(&mut self, ring: usize) {
        let base = self.nic.queues[ring].ring.base().to_vhost();
        RingSetup::of(&self.nic, ring).start(&mut self.front, base);
    }

    /// Stops a ring; where the device stands.
    pub fn stop_ring(&mut self, ring: usize) -> u32 {
        self.front.get_vring_base(index(ring)).unwrap()
    }
}

/// What a front-end says of its device, for when the NIC itself is with another thread.
pub struct Setup {
    features: u64,
    pub regions: Vec<RegionRequest>,
    pub rings: Vec<RingSetup>,
    /// Where back-ends keep what is in flight, if the front-end asks for that: the first one made it.
    pub inflight: Option<OnceLock<Inflight>>,
}

/// One thing that a front-end says.
type Step<'a> = Box<dyn Fn(&mut Frontend) + 'a>;

impl Setup {
    pub fn of(nic: &Nic) -> Self {
        let regions = nic.regions.iter().map(|region| RegionRequest {
            file: region.file.try_clone().unwrap(),
            ..*region
        });
        Self {
            features: nic.options.features,
            regions: regions.collect(),
            rings: (0..nic.queues.len())
                .map(|ring| RingSetup::of(nic, ring))
                .collect(),
            inflight: None,
        }
    }

    /// As QEMU has it: when the form of the rings is known, and before they start.
    fn track_inflight(&self, front: &mut Frontend) {
        if let Some(inflight) = &self.inflight {
            let rings = u16::try_from(self.rings.len()).unwrap();
            let inflight =
                inflight.get_or_init(|| front.get_inflight_fd(rings, self.rings[0].size).unwrap());
            front.set_inflight_fd(inflight).unwrap();
        }
    }

    /// All steps, as after a connection was made or made anew.
    pub fn apply(&self, front: &mut Frontend) {
        self.steps().iter().for_each(|step| step(front));
    }

    /// The steps up to a driver that runs.
    pub fn steps(&self) -> Vec<Step<'_>> {
        let mut steps: Vec<Step<'_>> = vec![
            Box::new(|front| {
                let offered = front.get_features().unwrap();
                assert_eq!(self.features & !offered, 0, "offered are {offered:#x}");
            }),
            Box::new(|front| {
                let protocol = front.get_protocol_features().unwrap();
                front.set_protocol_features(protocol).unwrap();
                front.ask_for_acks(true);
            }),
            Box::new(|front| {
                let pairs = self.rings.len() as u64 / 2;
                assert!(front.get_queue_num().unwrap() >= pairs);
            }),
            Box::new(|front| front.set_owner().unwrap()),
            Box::new(|front| front.set_features(self.features).unwrap()),
            Box::new(|front| self.track_inflight(front)),
            Box::new(|front| front.set_mem_table(&self.regions).unwrap()),
        ];
        for ring in &self.rings {
            steps.extend(ring.steps(RingSetup::standing));
        }
        steps.push(Box::new(|front| front.set_status(RUNNING).unwrap()));
        steps
    }
}

/// What a front-end says of a ring.
pub struct RingSetup {
    memory: Arc<GuestMemory>,
    ring: usize,
    size: u16,
    addresses: RingAddresses,
    packed: bool,
    base: u32,
    kick: OwnedFd,
    call: OwnedFd,
}

impl RingSetup {
    pub fn of(nic: &Nic, ring: usize) -> Self {
        let queue = &nic.queues[ring];
        let layout = queue.layout();
        Self {
            memory: nic.memory.clone(),
            ring,
            size: layout.size,
            addresses: RingAddresses {
                descriptors: layout.descriptors,
                available: layout.available,
                used: layout.used,
                log: 0,
                logged: false,
            },
            packed: has(nic.options.features, VIRTIO_F_RING_PACKED),
            base: queue.ring.base().to_vhost(),
            kick: queue.kick.try_clone().unwrap(),
            call: queue.call.try_clone().unwrap(),
        }
    }

    /// Enables the ring and starts it at `base`.
    pub fn start(&self, front: &mut Frontend, base: u32) {
        self.steps(|_| base).iter().for_each(|step| step(front));
    }

    /// Stops the ring and starts it where it stopped.
    pub fn restart(&self, front: &mut Frontend) {
        let base = front.get_vring_base(index(self.ring)).unwrap();
        self.start(front, base);
    }

    /// What the front-end was told when it stopped the ring.
    pub fn set_base(&mut self, base: u32) {
        self.base = base;
    }

    /// Where the device stands, as a front-end finds it that has lost its back-end. In a packed ring
    /// it finds nothing: the base is what it was when this was made.
    pub fn standing(&self) -> u32 {
        if self.packed {
            return self.base;
        }
        let bytes = queue::read(&self.memory, self.addresses.used + 2, 2);
        u16::from_le_bytes([bytes[0], bytes[1]]).into()
    }

    fn steps<'a>(&'a self, base: impl Fn(&Self) -> u32 + 'a) -> Vec<Step<'a>> {
        let (ring, byte) = (index(self.ring), u8::try_from(self.ring).unwrap());
        let (kick, call) = (self.kick.as_fd(), self.call.as_fd());
        vec![
            // First, as QEMU has it: what a started but disabled ring holds is discarded.
            Box::new(move |front| front.set_vring_enable(ring, true).unwrap()),
            Box::new(move |front| front.set_vring_num(ring, self.size.into()).unwrap()),
            Box::new(move |front| front.set_vring_base(ring, base(self)).unwrap()),
            Box::new(move |front| front.set_vring_addr(ring, &self.addresses).unwrap()),
            Box::new(move |front| front.set_vring_call(byte, Some(call)).unwrap()),
            Box::new(move |front| front.set_vring_kick(byte, Some(kick)).unwrap()),
        ]
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
