//! A virtio NIC, as QEMU sees it and its guest's driver.

use serde::{Deserialize, Serialize};

/// What QEMU's monitor says of a virtio NIC (qapi/virtio.json).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct VirtioNic {
    /// The netdev it is connected to.
    pub netdev: String,
    /// Its Ethernet address.
    pub mac: Option<String>,
    /// What the guest's driver says in the status register (virtio 1.3, section 2.1): `ACKNOWLEDGE`, `DRIVER_OK`.
    pub status: Vec<String>,
    /// QEMU serves it no more, since the driver did what no driver may.
    pub broken: bool,
    /// Its frames are carried by vhost, not by QEMU.
    pub vhost: bool,
    /// Features that the driver was offered, as `VIRTIO_NET_F_MQ`.
    pub offered: Vec<String>,
    /// Those that it took.
    pub acked: Vec<String>,
    /// Interrupts that it has.
    pub vectors: Option<u32>,
    /// Its queues, the control queue last.
    pub queues: Vec<VirtioQueue>,
}

/// A queue of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct VirtioQueue {
    /// How many entries its ring has.
    pub size: u32,
    /// The driver has made the ring.
    pub ready: bool,
}

impl VirtioNic {
    /// The guest's driver has started it.
    pub fn runs(&self) -> bool {
        self.status.iter().any(|it| it == "DRIVER_OK")
    }

    /// A feature was offered.
    pub fn offers(&self, feature: &str) -> bool {
        self.offered.iter().any(|it| it == feature)
    }

    /// The driver took a feature.
    pub fn takes(&self, feature: &str) -> bool {
        self.acked.iter().any(|it| it == feature)
    }
}
