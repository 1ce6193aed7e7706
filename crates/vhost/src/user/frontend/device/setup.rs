//! What is wanted of a device, and why it cannot be had.

use std::os::fd::OwnedFd;

use crate::user::RingAddresses;
use crate::user::features::{
    VHOST_USER_PROTOCOL_F_CONFIGURE_MEM_SLOTS, VHOST_USER_PROTOCOL_F_INFLIGHT_SHMFD,
    VHOST_USER_PROTOCOL_F_LOG_SHMFD, VHOST_USER_PROTOCOL_F_MQ, VHOST_USER_PROTOCOL_F_NET_MTU,
    VHOST_USER_PROTOCOL_F_RARP, VHOST_USER_PROTOCOL_F_REPLY_ACK,
    VHOST_USER_PROTOCOL_F_RESET_DEVICE, VHOST_USER_PROTOCOL_F_STATUS, mask, names, protocol_names,
};
use crate::user::frontend::FrontendError;

/// The protocol features that `NetDevice` makes use of.
pub(super) const PROTOCOL_FEATURES: u64 = mask(&[
    VHOST_USER_PROTOCOL_F_MQ,
    VHOST_USER_PROTOCOL_F_LOG_SHMFD,
    VHOST_USER_PROTOCOL_F_RARP,
    VHOST_USER_PROTOCOL_F_REPLY_ACK,
    VHOST_USER_PROTOCOL_F_NET_MTU,
    VHOST_USER_PROTOCOL_F_INFLIGHT_SHMFD,
    VHOST_USER_PROTOCOL_F_RESET_DEVICE,
    VHOST_USER_PROTOCOL_F_CONFIGURE_MEM_SLOTS,
    VHOST_USER_PROTOCOL_F_STATUS,
]);

/// What is wanted of a back-end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wish {
    /// virtio features without which the device is of no use.
    pub required: u64,
    /// virtio features that are taken where they are offered.
    pub optional: u64,
    /// Protocol features that are taken where they are offered, of those in [`NetDevice::PROTOCOL_FEATURES`](super::NetDevice::PROTOCOL_FEATURES) and
    /// BACKEND_REQ.
    pub protocol: u64,
    /// Queue pairs, from 1 to 128.
    pub queue_pairs: u16,
    /// The MTU in bytes that the guest is told. The back-end learns it where it can be told.
    pub mtu: Option<u16>,
}

impl Wish {
    /// One queue pair with these virtio features, all that is useful of the protocol.
    #[must_use]
    pub fn new(required: u64) -> Self {
        Self {
            required,
            optional: 0,
            protocol: PROTOCOL_FEATURES,
            queue_pairs: 1,
            mtu: None,
        }
    }
}

/// A ring as the back-end is told of it.
#[derive(Debug)]
pub struct RingSetup {
    /// Descriptors; a power of two for a split ring.
    pub size: u16,
    /// Where it lies, in the user addresses of the memory regions.
    pub addresses: RingAddresses,
    /// The eventfd that the driver signals; none = the back-end polls.
    pub kick: Option<OwnedFd>,
    /// The eventfd that the back-end signals; none = the driver polls.
    pub call: Option<OwnedFd>,
    /// The eventfd on which the back-end reports that it gave the ring up.
    pub err: Option<OwnedFd>,
}

/// Why a device cannot be used as it was wished for.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// A request failed.
    #[error(transparent)]
    Request(#[from] FrontendError),
    /// The back-end lacks virtio features.
    #[error("the back-end does not offer {}; it offers {}", names(*missing), names(*offered))]
    Features {
        /// What it lacks.
        missing: u64,
        /// What it has.
        offered: u64,
    },
    /// The back-end lacks protocol features that the call needs.
    #[error("the back-end lacks the protocol feature {}", protocol_names(*missing))]
    Protocol {
        /// What it lacks.
        missing: u64,
    },
    /// The back-end has fewer queue pairs.
    #[error("the back-end has {offered} queue pairs, wanted are {wanted}")]
    QueuePairs {
        /// How many were wished for.
        wanted: u16,
        /// How many there are.
        offered: u64,
    },
    /// The back-end took FEATURES_OK back: it does not bear this combination of features.
    #[error("the back-end does not accept the features {}: its status is {status:#x}", names(*features))]
    Status {
        /// What was negotiated.
        features: u64,
        /// Its status then.
        status: u64,
    },
    /// More regions than the back-end maps.
    #[error("{count} memory regions, the back-end maps {max}")]
    Regions {
        /// How many there are.
        count: usize,
        /// How many it maps.
        max: u64,
    },
    /// There is no such ring.
    #[error("ring {index} of {rings}")]
    RingIndex {
        /// The ring.
        index: u8,
        /// How many rings there are.
        rings: u16,
    },
    /// There is no such region.
    #[error("no memory region at guest address {guest_address:#x}")]
    NoSuchRegion {
        /// Where it was looked for.
        guest_address: u64,
    },
}

impl RingSetup {
    /// Its addresses, with or without the flag that they are logged.
    pub(super) fn addressed(&self, logged: bool) -> RingAddresses {
        RingAddresses {
            logged,
            ..self.addresses
        }
    }
}
