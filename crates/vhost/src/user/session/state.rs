//! What a front-end has told about its device.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use ringway_mem::{DirtyLog, GuestMemory};

use super::InflightRegion;

/// The device as the front-end has set it up so far.
#[derive(Default)]
pub struct DeviceState {
    /// virtio features that the driver took (SET_FEATURES), with bits 26 and 30.
    pub features: u64,
    /// Whether SET_FEATURES has come on this connection.
    pub acked_features: bool,
    /// Protocol features that the front-end uses (SET_PROTOCOL_FEATURES).
    pub protocol_features: u64,
    /// virtio device status. 0 on a new connection: QEMU sends only the bits it misses.
    pub status: u8,
    /// The guest's memory. Replaced as a whole by every message that changes it.
    pub memory: Option<Arc<GuestMemory>>,
    /// Where written pages are marked while the features have bit 26 (SET_LOG_BASE).
    pub log: Option<Arc<DirtyLog>>,
    /// Where the rings are shown to stand, for whoever serves them later (SET_INFLIGHT_FD).
    pub inflight: Option<Arc<InflightRegion>>,
    /// The MTU that the guest is told (NET_SET_MTU).
    pub mtu: Option<u16>,
    /// The rings, two for each queue pair: receive (of the guest) first.
    pub vrings: Vec<Vring>,
    /// The socket for our own requests (SET_BACKEND_REQ_FD).
    pub backend_requests: Option<OwnedFd>,
}

/// One ring.
#[derive(Debug, Default, Clone)]
pub struct Vring {
    /// Number of descriptors, 0 when not told yet.
    pub size: u16,
    /// Where the ring lies.
    pub addresses: Option<RingAddresses>,
    /// Where the ring goes on, in the form of SET_VRING_BASE and GET_VRING_BASE.
    pub base: u32,
    /// The driver's notification; none = the ring is polled.
    pub kick: Option<Arc<OwnedFd>>,
    /// SET_VRING_KICK has come, with or without a file descriptor, since the ring last stopped.
    pub started: bool,
    /// The device's notification; none = the driver polls.
    pub call: Option<Arc<OwnedFd>>,
    /// Where a broken ring is reported.
    pub err: Option<Arc<OwnedFd>>,
    /// A started ring that is not enabled carries nothing: what the guest sends is discarded.
    pub enabled: bool,
}

/// Addresses of a ring, virtual addresses of the front-end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RingAddresses {
    /// Descriptor table, or descriptor ring.
    pub descriptors: u64,
    /// Available ring, or driver event area.
    pub available: u64,
    /// Used ring, or device event area.
    pub used: u64,
    /// Guest physical address at which writes to the used ring are logged.
    pub log: u64,
    /// Whether they are logged (`VHOST_VRING_F_LOG`).
    pub logged: bool,
}

impl DeviceState {
    pub(super) fn new(rings: usize) -> Self {
        let vrings = std::iter::repeat_with(Vring::default).take(rings).collect();
        Self {
            vrings,
            ..Self::default()
        }
    }
}

impl Vring {
    /// Whether the data path can run the ring: it has a size and addresses, and was started since
    /// it last stopped. Enabled or not is another matter.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.size != 0 && self.addresses.is_some() && self.started
    }

    /// Stops the ring until the next SET_VRING_KICK. Its base stays.
    pub(super) fn stop(&mut self) {
        self.started = false;
        self.kick = None;
    }
}
