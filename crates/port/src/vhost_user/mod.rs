//! A vhost-user port: a virtual machine's NIC whose rings lie in memory the front-end shares.
//!
//! [`Device`] is the control side, driven by one thread: it follows the session and says which
//! [`Link`] the workers should see. A change takes two steps, because a ring may not be read out,
//! nor its memory unmapped, while a worker is in it:
//!
//! 1. [`Device::retire`] gives a link without the rings that have to stop. The caller publishes it
//!    and waits until no worker uses the old one.
//! 2. [`Device::revive`] reads out where those rings stopped, starts the rings that are ready, and
//!    gives the link with them.

pub mod fuzz;
pub mod handover;
mod journal;
mod keeper;
mod link;
mod queue;
mod write;

use std::fmt::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use ringway_mem::GuestMemory;
use ringway_ring::{RingBase, RingError, RingFeatures, RingLayout, RingLog};
use ringway_vhost::user::features::{self as bits, has, mask};
pub use ringway_vhost::user::{Event, SessionError};
use ringway_vhost::user::{InflightRegion, Offer, RingAddresses, Session, Vring};

pub use journal::{Journal, JournalError};
use keeper::{ENTRY_WORDS, Keeper, Place};
pub use link::Link;
use link::Source;
use queue::Queue;

use crate::{Counters, Fault, Offloads};

/// What a vhost-user port offers.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Queue pairs, 1 to 128.
    pub queue_pairs: u16,
    /// Partial checksums, both ways.
    pub checksum: bool,
    /// Segmentation, both ways; needs `checksum`.
    pub segmentation: bool,
}

/// Memory regions of one device; QEMU uses a few, with hotplug some hundred.
const MEMORY_SLOTS: u64 = 256;

impl Settings {
    fn offer(&self) -> Offer {
        let mut features = mask(&[
            bits::VIRTIO_F_VERSION_1,
            bits::VIRTIO_F_ANY_LAYOUT,
            bits::VIRTIO_F_IN_ORDER,
            bits::VIRTIO_F_RING_PACKED,
            bits::VIRTIO_RING_F_INDIRECT_DESC,
            bits::VIRTIO_RING_F_EVENT_IDX,
            bits::VIRTIO_NET_F_MRG_RXBUF,
            bits::VIRTIO_NET_F_MQ,
            bits::VIRTIO_NET_F_MTU,
            bits::VIRTIO_NET_F_GUEST_ANNOUNCE,
            bits::VHOST_F_LOG_ALL,
        ]);
        if self.checksum {
            features |= mask(&[bits::VIRTIO_NET_F_CSUM, bits::VIRTIO_NET_F_GUEST_CSUM]);
        }
        if self.checksum && self.segmentation {
            features |= mask(&[
                bits::VIRTIO_NET_F_HOST_TSO4,
                bits::VIRTIO_NET_F_HOST_TSO6,
                bits::VIRTIO_NET_F_HOST_ECN,
                bits::VIRTIO_NET_F_GUEST_TSO4,
                bits::VIRTIO_NET_F_GUEST_TSO6,
                bits::VIRTIO_NET_F_GUEST_ECN,
                bits::VIRTIO_NET_F_HOST_USO,
                bits::VIRTIO_NET_F_GUEST_USO4,
                bits::VIRTIO_NET_F_GUEST_USO6,
            ]);
        }
        Offer {
            features,
            protocol_features: mask(&[
                bits::VHOST_USER_PROTOCOL_F_MQ,
                bits::VHOST_USER_PROTOCOL_F_LOG_SHMFD,
                bits::VHOST_USER_PROTOCOL_F_RARP,
                bits::VHOST_USER_PROTOCOL_F_REPLY_ACK,
                bits::VHOST_USER_PROTOCOL_F_NET_MTU,
                bits::VHOST_USER_PROTOCOL_F_BACKEND_REQ,
                bits::VHOST_USER_PROTOCOL_F_INFLIGHT_SHMFD,
                bits::VHOST_USER_PROTOCOL_F_RESET_DEVICE,
                bits::VHOST_USER_PROTOCOL_F_CONFIGURE_MEM_SLOTS,
                bits::VHOST_USER_PROTOCOL_F_STATUS,
            ]),
            queue_pairs: self.queue_pairs,
            max_memory_slots: MEMORY_SLOTS,
        }
    }
}

/// The control side of a vhost-user port while a front-end is connected.
pub struct Device {
    session: Session,
    counters: Arc<Counters>,
    rings: Vec<Option<Running>>,
    retired: Vec<Arc<Queue>>,
    shape: Shape,
    keeper: Keeper,
}

/// A ring the workers serve, and what it was started with.
struct Running {
    queue: Arc<Queue>,
    setup: Setup,
    log: Option<RingLog>,
}

/// Everything a running ring depends on; if any of it changes the ring is started anew. Dirty logging is
/// switched under a ring that runs and has no part in it.
#[derive(PartialEq)]
struct Setup {
    size: u16,
    addresses: RingAddresses,
    base: u32,
    features: u64,
    kick: Option<usize>,
    memory: usize,
    inflight: Option<Arc<InflightRegion>>,
}

/// Which queues a link has: queue id and whether it is enabled, by ring.
type Shape = Vec<Option<(u64, bool)>>;

/// What the workers should see after a step.
pub enum View {
    /// What they see already.
    Same,
    /// Nothing: no ring runs.
    Gone,
    /// This.
    New(Arc<Link>),
}

/// A ring that is ready cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// It was set up before any memory was.
    #[error("ring {ring} was started before the front-end shared memory")]
    NoMemory {
        /// Ring index.
        ring: usize,
    },
    /// Its size, its base or where it lies is wrong.
    #[error("ring {ring} cannot be started: {error}")]
    Ring {
        /// Ring index.
        ring: usize,
        /// What is wrong.
        error: RingError,
    },
}

impl Device {
    /// A device for a connected front-end.
    pub fn new(
        socket: OwnedFd,
        settings: &Settings,
        counters: Arc<Counters>,
    ) -> std::io::Result<Self> {
        let session = Session::new(socket, settings.offer())?;
        Ok(Self::over(session, counters))
    }

    fn over(session: Session, counters: Arc<Counters>) -> Self {
        let session = session.with_inflight_words(ENTRY_WORDS);
        let count = session.state().vrings.len();
        let rings = (0..count).map(|_| None).collect();
        Self {
            session,
            counters,
            rings,
            retired: Vec::new(),
            shape: Vec::new(),
            keeper: Keeper::new(count, None),
        }
    }

    /// Keeps where packed rings stand in `journal`, and takes them up where it says; unless the front-end has a region for that.
    pub fn with_journal(mut self, journal: Option<Arc<Journal>>) -> Self {
        self.keeper = Keeper::new(self.rings.len(), journal);
        self
    }

    /// The session's socket.
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.session.as_fd()
    }

    /// The session, for its deadlines and its waiting answers.
    pub fn session(&mut self) -> &mut Session {
        &mut self.session
    }

    /// The next message, applied; see [`Session::receive`]. A new call eventfd is in use at once.
    pub fn receive(&mut self) -> Result<Option<Event>, SessionError> {
        let event = self.session.receive()?;
        if let Some(Event::CallChanged(ring)) = event {
            let ring = usize::from(ring);
            if let Some(Some(running)) = self.rings.get(ring) {
                running
                    .queue
                    .set_call(self.session.state().vrings[ring].call.clone());
            }
        }
        Ok(event)
    }

    /// Step 1: the link without the rings that have to stop.
    pub fn retire(&mut self) -> View {
        for ring in 0..self.rings.len() {
            let wanted = self.setup(ring);
            let stops = self.rings[ring]
                .as_ref()
                .is_some_and(|running| wanted.as_ref() != Some(&running.setup));
            if stops && let Some(running) = self.rings[ring].take() {
                self.retired.push(running.queue);
            }
        }
        if self.retired.is_empty() {
            View::Same
        } else {
            self.view()
        }
    }

    /// Step 2: the rings that stopped are read out, those that are ready start.
    pub fn revive(&mut self) -> (View, Vec<StartError>) {
        for queue in std::mem::take(&mut self.retired) {
            // Unless the front-end has said meanwhile where the ring goes on.
            let vring = &mut self.session.state_mut().vrings[queue.index];
            let base = queue.retire();
            if vring.base == queue.started_at {
                vring.base = base.to_vhost();
            }
            self.keeper.told(queue.index, vring.is_ready());
        }
        let mut errors = Vec::new();
        for ring in 0..self.rings.len() {
            self.switch_log(ring);
            if self.rings[ring].is_none()
                && self.session.state().vrings[ring].is_ready()
                && let Err(error) = self.start(ring)
            {
                errors.push(error);
            }
        }
        (self.view(), errors)
    }

    /// Answers the message; see [`Session::finish`].
    pub fn finish(&mut self, outcome: Result<(), ()>) -> Result<(), SessionError> {
        self.session.finish(outcome)
    }

    /// Tells the front-end that a ring broke, on the ring's error eventfd.
    pub fn report(&mut self, fault: &Fault) {
        let (Fault::Ring { ring, .. } | Fault::MemoryLost { ring }) = *fault else {
            return;
        };
        let vring = self.session.state().vrings.get(ring);
        if let Some(err) = vring.and_then(|vring| vring.err.as_ref()) {
            let _ = rustix::io::write(err, &1u64.to_ne_bytes());
        }
    }

    /// Virtio features the driver took.
    pub fn features(&self) -> u64 {
        self.session.state().features
    }

    /// Queue pairs of which both rings run and the receive ring is enabled.
    pub fn active_pairs(&self) -> usize {
        let vrings = &self.session.state().vrings;
        let runs = |ring: usize| self.rings[ring].is_some();
        (0..self.rings.len() / 2)
            .filter(|&p| runs(2 * p) && runs(2 * p + 1) && vrings[2 * p].enabled)
            .count()
    }

    /// What was negotiated, for people.
    pub fn negotiated(&self) -> String {
        let state = self.session.state();
        let pairs = self.active_pairs();
        let mut text = format!("{pairs} queue pair{}", if pairs == 1 { "" } else { "s" });
        if let Some(Some(running)) = self.rings.first() {
            let _ = write!(text, " of {} descriptors", running.setup.size);
        }
        if let Some(memory) = &state.memory {
            let (mut count, mut bytes) = (0, 0);
            for region in memory.regions() {
                count += 1;
                bytes += region.size;
            }
            let s = if count == 1 { "" } else { "s" };
            let _ = write!(text, ", memory {} MiB in {count} region{s}", bytes >> 20);
        }
        if let Some(mtu) = state.mtu {
            let _ = write!(text, ", MTU {mtu}");
        }
        let _ = write!(text, "{}", self.keeper);
        let _ = write!(
            text,
            ", features {:#x} ({})",
            state.features,
            bits::names(state.features)
        );
        text
    }

    /// What ring `ring` has to run with; `None` = it must not run.
    fn setup(&self, ring: usize) -> Option<Setup> {
        let state = self.session.state();
        let vring = state.vrings.get(ring).filter(|vring| vring.is_ready())?;
        Some(Setup {
            size: vring.size,
            addresses: RingAddresses {
                log: 0,
                logged: false,
                ..vring.addresses?
            },
            base: vring.base,
            features: state.features & !mask(&[bits::VHOST_F_LOG_ALL]),
            kick: vring.kick.as_ref().map(|fd| Arc::as_ptr(fd).addr()),
            memory: state
                .memory
                .as_ref()
                .map_or(0, |memory| Arc::as_ptr(memory).addr()),
            inflight: state.inflight.clone(),
        })
    }

    /// Where ring `ring` has to mark what it writes.
    fn log(&self, ring: usize) -> Option<RingLog> {
        let state = self.session.state();
        let log = state.log.clone();
        let log = log.filter(|_| has(state.features, bits::VHOST_F_LOG_ALL))?;
        let addresses = state.vrings[ring].addresses?;
        let used = addresses.logged.then_some(addresses.log);
        Some(RingLog { log, used })
    }

    /// Switches the dirty log of a running ring, if it has to change.
    fn switch_log(&mut self, ring: usize) {
        let log = self.log(ring);
        if let Some(running) = &mut self.rings[ring]
            && running.log != log
        {
            running.queue.set_log(log.clone());
            running.log = log;
        }
    }

    fn start(&mut self, ring: usize) -> Result<(), StartError> {
        let state = self.session.state();
        let Vring {
            size,
            base,
            kick,
            call,
            ..
        } = state.vrings[ring].clone();
        let (Some(setup), Some(memory)) = (self.setup(ring), &state.memory) else {
            return Err(StartError::NoMemory { ring });
        };
        let layout = RingLayout {
            size,
            descriptors: setup.addresses.descriptors,
            available: setup.addresses.available,
            used: setup.addresses.used,
        };
        let features = RingFeatures {
            packed: has(state.features, bits::VIRTIO_F_RING_PACKED),
            event_idx: has(state.features, bits::VIRTIO_RING_F_EVENT_IDX),
            indirect: has(state.features, bits::VIRTIO_RING_F_INDIRECT_DESC),
            in_order: has(state.features, bits::VIRTIO_F_IN_ORDER),
        };
        let base = RingBase::from_vhost(base, features.packed);
        let place = Place {
            memory,
            layout: &layout,
            features,
            inflight: state.inflight.as_deref(),
        };
        let mut device = self
            .keeper
            .take_up(ring, &place, base)
            .map_err(|error| StartError::Ring { ring, error })?;
        let log = self.log(ring);
        device.set_log(log.clone());
        // What was about to be published when the switch was killed.
        device.publish();
        if ring.is_multiple_of(2) {
            // Nobody waits for receive buffers: a frame that finds none is dropped.
            device.disable_kicks();
        }
        let goes_on = device.base() != RingBase::start(features.packed);
        let queue = Arc::new(Queue::new(ring, device, setup.base, kick, call));
        if goes_on {
            // Whoever served it before may have died between a publication and its call.
            queue.call();
        }
        self.rings[ring] = Some(Running { queue, setup, log });
        Ok(())
    }

    /// The link with the rings that run, if it differs from the last one.
    fn view(&mut self) -> View {
        let state = self.session.state();
        let shape: Shape = self
            .rings
            .iter()
            .zip(&state.vrings)
            .map(|(running, vring)| running.as_ref().map(|r| (r.queue.id, vring.enabled)))
            .collect();
        if shape == self.shape {
            return View::Same;
        }
        self.shape = shape;
        let memory = state
            .memory
            .as_ref()
            .filter(|_| self.rings.iter().any(Option::is_some));
        let Some(memory) = memory else {
            return View::Gone;
        };
        View::New(Arc::new(self.link(memory)))
    }

    fn link(&self, memory: &Arc<GuestMemory>) -> Link {
        let state = self.session.state();
        let got = |bit| has(state.features, bit);
        let mut to_guest = Vec::new();
        let mut from_guest = Vec::new();
        for (pair, vrings) in self.rings.chunks_exact(2).zip(state.vrings.chunks_exact(2)) {
            if let Some(running) = pair[0].as_ref().filter(|_| vrings[0].enabled) {
                to_guest.push(running.queue.clone());
            }
            from_guest.push(pair[1].as_ref().map(|running| Source {
                queue: running.queue.clone(),
                discard: !vrings[1].enabled,
            }));
        }
        let modern = got(bits::VIRTIO_F_VERSION_1) || got(bits::VIRTIO_NET_F_MRG_RXBUF);
        Link {
            counters: self.counters.clone(),
            memory: memory.clone(),
            from_guest,
            to_guest,
            header_len: if modern { 12 } else { 10 },
            mergeable: got(bits::VIRTIO_NET_F_MRG_RXBUF),
            takes: Offloads {
                csum: got(bits::VIRTIO_NET_F_GUEST_CSUM),
                tso4: got(bits::VIRTIO_NET_F_GUEST_TSO4),
                tso6: got(bits::VIRTIO_NET_F_GUEST_TSO6),
                ecn: got(bits::VIRTIO_NET_F_GUEST_ECN),
                uso: got(bits::VIRTIO_NET_F_GUEST_USO4) && got(bits::VIRTIO_NET_F_GUEST_USO6),
            },
            asks: Offloads {
                csum: got(bits::VIRTIO_NET_F_CSUM),
                tso4: got(bits::VIRTIO_NET_F_HOST_TSO4),
                tso6: got(bits::VIRTIO_NET_F_HOST_TSO6),
                ecn: got(bits::VIRTIO_NET_F_HOST_ECN),
                uso: got(bits::VIRTIO_NET_F_HOST_USO),
            },
            mtu: state.mtu.filter(|_| got(bits::VIRTIO_NET_F_MTU)),
        }
    }
}

impl Drop for Device {
    /// A front-end that left without stopping its rings may come back for them.
    fn drop(&mut self) {
        let running = self.rings.iter().flatten().map(|running| &running.queue);
        for queue in running.chain(&self.retired) {
            queue.retire();
        }
    }
}
