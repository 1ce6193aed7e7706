//! The front-end of the kernel's vhost-net: this process is the driver, a tap the network behind the device.
//!
//! A device has two rings: 0 receives from the tap, 1 sends to it. A kernel thread, which belongs to the process that set the device
//! up, moves frames between rings and tap (linux/vhost.h, drivers/vhost/net.c).

mod ioctl;

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use ringway_mem::GuestMemory;
use ringway_ring::RingLayout;

/// Ring of frames from the tap.
pub const RECEIVE: u32 = 0;
/// Ring of frames to the tap.
pub const TRANSMIT: u32 = 1;

/// VIRTIO_F_VERSION_1, without which headers have 10 bytes.
pub const VERSION_1: u64 = 1 << 32;
/// VIRTIO_F_RING_EVENT_IDX.
pub const EVENT_IDX: u64 = 1 << 29;

/// What the kernel is asked for failed.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// A request.
    #[error("vhost-net refuses {request}: {source}")]
    Request {
        /// Its name in linux/vhost.h.
        request: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// A feature that every kernel has had since 3.19.
    #[error("vhost-net offers features {offered:#x}, of which {missing:#x} are missing")]
    Features {
        /// What it offers.
        offered: u64,
        /// What was wanted besides.
        missing: u64,
    },
}

/// A vhost-net device of the kernel that this process drives.
///
/// The kernel reads and writes the memory that was shared with it for as long as a backend is set: that memory stays mapped at least as long.
#[derive(Debug)]
pub struct KernelDevice {
    device: OwnedFd,
    /// Shared with the kernel. `None` once it cannot be unmapped any more.
    memory: Option<Arc<GuestMemory>>,
    attached: bool,
}

/// Where a ring lies, and its two eventfds.
#[derive(Clone, Copy, Debug)]
pub struct KernelRing<'a> {
    /// Addresses in this process.
    pub layout: RingLayout,
    /// Written when there are available buffers.
    pub kick: BorrowedFd<'a>,
    /// Written by the kernel when there are used buffers.
    pub call: BorrowedFd<'a>,
}

impl KernelDevice {
    /// Sets an open /dev/vhost-net up that nobody owns yet: features, the memory in which rings and buffers lie, both rings. Addresses
    /// of the memory must be those of this process ([`GuestMemory::identity`]).
    ///
    /// # Errors
    ///
    /// When the device has an owner or lacks a feature.
    pub fn new(
        device: OwnedFd,
        features: u64,
        memory: Arc<GuestMemory>,
        rings: [KernelRing<'_>; 2],
    ) -> Result<Self, KernelError> {
        ioctl::set_owner(device.as_fd())?;
        let offered = ioctl::features(device.as_fd())?;
        let missing = features & !offered;
        if missing != 0 {
            return Err(KernelError::Features { offered, missing });
        }
        ioctl::set_features(device.as_fd(), features)?;
        ioctl::set_memory(device.as_fd(), &memory)?;
        for (index, ring) in (0..).zip(rings) {
            ioctl::set_ring(device.as_fd(), index, &ring)?;
        }
        Ok(Self {
            device,
            memory: Some(memory),
            attached: false,
        })
    }

    /// Connects both rings to a queue of a tap. From then on the kernel takes frames from that queue, and nobody else should.
    ///
    /// # Errors
    ///
    /// When the descriptor is not one of a tap, or has not the 12-byte virtio-net header.
    pub fn attach(&mut self, tap: BorrowedFd<'_>) -> Result<(), KernelError> {
        // One of the two may fail.
        self.attached = true;
        for ring in [RECEIVE, TRANSMIT] {
            ioctl::set_backend(self.device.as_fd(), ring, Some(tap))?;
        }
        Ok(())
    }

    /// Disconnects the rings: when this returns, the kernel is done with the memory.
    fn detach(&mut self) -> Result<(), KernelError> {
        for ring in [RECEIVE, TRANSMIT] {
            ioctl::set_backend(self.device.as_fd(), ring, None)?;
        }
        self.attached = false;
        Ok(())
    }
}

impl Drop for KernelDevice {
    fn drop(&mut self) {
        if self.attached
            && let Err(error) = self.detach()
        {
            // Closing would do, were this the only descriptor of the device.
            tracing::error!("{error}; memory stays mapped");
            std::mem::forget(self.memory.take());
        }
    }
}
