//! A network device of a back-end, from negotiation to the end of its rings, and over again.
//!
//! The order of things (vhost-user.rst, "Starting and stopping rings", "Ring states"; virtio 1.2, 3.1.1):
//!
//! 1. [`NetDevice::negotiate`]: features, protocol features, queue pairs, owner, device status.
//! 2. [`NetDevice::share`]: the memory in which rings and buffers lie.
//! 3. [`NetDevice::start_ring`] for each ring: even ones receive, odd ones send.
//! 4. [`NetDevice::enable`]: rings carry frames. The status becomes DRIVER_OK with the first.
//! 5. [`NetDevice::stop`]: disabled, stopped, and where each stands.
//!
//! The device remembers what it said, with file descriptors of its own, so that all of it can be said
//! again when the back-end was restarted ([`NetDevice::reconnect`]). What the device cannot know is where
//! the rings stand then: the driver does.

use std::os::fd::{AsFd, OwnedFd};

use ringway_mem::RegionRequest;

use super::{Frontend, Inflight};
use crate::user::features::{
    VHOST_F_LOG_ALL, VHOST_USER_PROTOCOL_F_CONFIGURE_MEM_SLOTS,
    VHOST_USER_PROTOCOL_F_INFLIGHT_SHMFD, VHOST_USER_PROTOCOL_F_LOG_SHMFD,
    VHOST_USER_PROTOCOL_F_NET_MTU, VHOST_USER_PROTOCOL_F_RARP, VHOST_USER_PROTOCOL_F_RESET_DEVICE,
    VHOST_USER_PROTOCOL_F_STATUS, mask,
};
use crate::user::message::MAX_TABLE_REGIONS;
use crate::user::session::MAX_QUEUE_PAIRS;

mod say;
mod setup;

pub use setup::{RingSetup, SetupError, Wish};

/// A network device at a back-end.
#[derive(Debug)]
pub struct NetDevice {
    front: Frontend,
    wish: Wish,
    offered: u64,
    features: u64,
    memory: Vec<RegionRequest>,
    /// By number: what was said of a ring.
    rings: Vec<Option<RingSetup>>,
    enabled: Vec<bool>,
    log: Option<Log>,
    inflight: Option<Inflight>,
    running: bool,
}

/// A dirty log that is being written.
#[derive(Debug)]
struct Log {
    file: OwnedFd,
    size: u64,
    offset: u64,
}

impl NetDevice {
    /// The protocol features that a device makes use of. BACKEND_REQ is the caller's own affair: who wishes
    /// for it opens a channel on [`NetDevice::frontend`].
    pub const PROTOCOL_FEATURES: u64 = setup::PROTOCOL_FEATURES;

    /// Negotiates: which features, how many queue pairs, what MTU. Every request after this is acknowledged
    /// where the back-end can.
    ///
    /// # Errors
    ///
    /// When the back-end lacks what is required, refuses something, or does not answer right in time.
    pub fn negotiate(front: Frontend, wish: Wish) -> Result<Self, SetupError> {
        let pairs = wish.queue_pairs.clamp(1, MAX_QUEUE_PAIRS);
        let wish = Wish {
            queue_pairs: pairs,
            ..wish
        };
        let rings = 2 * usize::from(pairs);
        let mut device = Self {
            front,
            offered: 0,
            features: wish.required,
            wish,
            memory: Vec::new(),
            rings: std::iter::repeat_with(|| None).take(rings).collect(),
            enabled: vec![false; rings],
            log: None,
            inflight: None,
            running: false,
        };
        device.open(wish)?;
        Ok(device)
    }

    /// virtio features that were negotiated, without dirty logging.
    #[must_use]
    pub fn features(&self) -> u64 {
        self.features
    }

    /// Protocol features that were negotiated.
    #[must_use]
    pub fn protocol_features(&self) -> u64 {
        self.front.protocol_features()
    }

    /// The messages, for what the device has no method for.
    pub fn frontend(&mut self) -> &mut Frontend {
        &mut self.front
    }

    /// Shares memory: all of it, whether there was some before or not. Up to 8 regions go as a table; more of
    /// them one at a time, when the back-end has slots for them.
    ///
    /// # Errors
    ///
    /// When the back-end has not room for so many, refuses them or does not answer right in time.
    pub fn share(&mut self, regions: Vec<RegionRequest>) -> Result<(), SetupError> {
        if regions.len() <= MAX_TABLE_REGIONS {
            self.front.set_mem_table(&regions)?;
            self.memory = regions;
            return Ok(());
        }
        self.has_slots_for(regions.len())?;
        for region in std::mem::take(&mut self.memory) {
            self.front.rem_mem_reg(&region)?;
        }
        for region in regions {
            self.front.add_mem_reg(&region)?;
            self.memory.push(region);
        }
        Ok(())
    }

    /// Shares one more region, while rings run. Needs CONFIGURE_MEM_SLOTS.
    ///
    /// # Errors
    ///
    /// As for [`Self::share`].
    pub fn add_region(&mut self, region: RegionRequest) -> Result<(), SetupError> {
        self.has_slots_for(self.memory.len() + 1)?;
        self.front.add_mem_reg(&region)?;
        self.memory.push(region);
        Ok(())
    }

    /// Takes a region back, by its first guest address. No ring and no buffer may lie in it any more. Needs
    /// CONFIGURE_MEM_SLOTS.
    ///
    /// # Errors
    ///
    /// As for [`Self::share`], and when there is no such region.
    pub fn remove_region(&mut self, guest_address: u64) -> Result<(), SetupError> {
        self.needs(VHOST_USER_PROTOCOL_F_CONFIGURE_MEM_SLOTS)?;
        let found = |region: &RegionRequest| region.guest_address == guest_address;
        let Some(place) = self.memory.iter().position(found) else {
            return Err(SetupError::NoSuchRegion { guest_address });
        };
        self.front.rem_mem_reg(&self.memory[place])?;
        self.memory.remove(place);
        Ok(())
    }

    /// Has the back-end keep what it has in flight in a file that outlives the connection, for rings of up to
    /// `size` descriptors. Before the rings start; [`Self::reconnect`] gives the file back. Needs
    /// INFLIGHT_SHMFD.
    ///
    /// # Errors
    ///
    /// When the back-end cannot, refuses, or does not answer right in time.
    pub fn track_inflight(&mut self, size: u16) -> Result<(), SetupError> {
        self.needs(VHOST_USER_PROTOCOL_F_INFLIGHT_SHMFD)?;
        let inflight = self.front.get_inflight_fd(self.ring_count(), size)?;
        self.front.set_inflight_fd(&inflight)?;
        self.inflight = Some(inflight);
        Ok(())
    }

    /// Starts a ring at `base`, in the form of SET_VRING_BASE: for a new one 0, or 0x8000_8000 if it is packed.
    /// It carries nothing before it is enabled.
    ///
    /// # Errors
    ///
    /// When there is no such ring, the back-end refuses it or does not answer right in time.
    pub fn start_ring(&mut self, index: u8, ring: RingSetup, base: u32) -> Result<(), SetupError> {
        let Some(place) = self.rings.get_mut(usize::from(index)) else {
            let rings = self.ring_count();
            return Err(SetupError::RingIndex { index, rings });
        };
        *place = Some(ring);
        self.say_ring(index, base)
    }

    /// Enables the first queue pairs and disables the others. A back-end without protocol features enables
    /// rings as they start, and is told nothing.
    ///
    /// # Errors
    ///
    /// When the back-end refuses or does not answer right in time.
    pub fn enable(&mut self, pairs: u16) -> Result<(), SetupError> {
        for (index, enabled) in self.enabled.iter_mut().enumerate() {
            *enabled = index < 2 * usize::from(pairs);
        }
        self.say_enabled()
    }

    /// Stops all rings that were started: what they would have received is lost. Gives for each the base at
    /// which it would go on, as GET_VRING_BASE answers it.
    ///
    /// # Errors
    ///
    /// When the back-end refuses or does not answer right in time.
    pub fn stop(&mut self) -> Result<Vec<(u8, u32)>, SetupError> {
        self.enable(0)?;
        let mut bases = Vec::new();
        for (index, ring) in (0u8..=u8::MAX).zip(&mut self.rings) {
            if ring.is_some() {
                bases.push((index, self.front.get_vring_base(index.into())?));
                *ring = None;
            }
        }
        self.running = false;
        if self.has(VHOST_USER_PROTOCOL_F_STATUS) {
            self.front.set_status(0)?;
        }
        Ok(bases)
    }

    /// Resets the device: rings stop and are disabled, features are as before negotiation. Then negotiates the same
    /// again; memory stays shared, rings have to be started anew. Needs RESET_DEVICE.
    ///
    /// # Errors
    ///
    /// When the back-end cannot, refuses, or does not answer right in time.
    pub fn reset(&mut self) -> Result<(), SetupError> {
        self.needs(VHOST_USER_PROTOCOL_F_RESET_DEVICE)?;
        self.front.reset_device()?;
        self.rings.fill_with(|| None);
        self.enabled.fill(false);
        self.running = false;
        self.log = None;
        self.say_features()?;
        self.say_status()
    }

    /// Says everything again over a new connection: the back-end was restarted. Negotiates the same features,
    /// shares the same memory, starts the rings that were started, each at the base that `base` gives for its
    /// number, and enables those that were. For a split ring that is the used index that the driver reads, for a
    /// packed one the place after the last descriptor that came back; a back-end that tracks what is in flight
    /// goes by that instead.
    ///
    /// # Errors
    ///
    /// As for the steps it consists of. The new back-end has to offer all that was negotiated with the one before.
    /// After an error the device can be reconnected again.
    pub fn reconnect(
        &mut self,
        front: Frontend,
        mut base: impl FnMut(u8) -> u32,
    ) -> Result<(), SetupError> {
        self.front = front;
        self.running = false;
        self.open(Wish {
            required: self.features,
            optional: 0,
            ..self.wish
        })?;
        if let Some(log) = &self.log {
            self.front
                .set_log_base(log.file.as_fd(), log.size, log.offset)?;
        }
        if let Some(inflight) = &self.inflight {
            self.needs(VHOST_USER_PROTOCOL_F_INFLIGHT_SHMFD)?;
            self.front.set_inflight_fd(inflight)?;
        }
        if !self.memory.is_empty() {
            let regions = std::mem::take(&mut self.memory);
            let shared = self.share_again(&regions);
            self.memory = regions;
            shared?;
        }
        for index in 0..self.rings.len() {
            let number = u8::try_from(index).unwrap_or(u8::MAX);
            if self.rings[index].is_some() {
                self.say_ring(number, base(number))?;
            }
        }
        self.say_enabled()
    }

    /// Tells the back-end the MTU in bytes, where it can be told; true = it was.
    ///
    /// # Errors
    ///
    /// When the back-end refuses it or does not answer right in time.
    pub fn set_mtu(&mut self, mtu: u16) -> Result<bool, SetupError> {
        let can = self.has(VHOST_USER_PROTOCOL_F_NET_MTU);
        if can {
            self.front.set_mtu(mtu)?;
            self.wish.mtu = Some(mtu);
        }
        Ok(can)
    }

    /// Has the back-end announce an address in its network, where it can; true = it was asked to.
    ///
    /// # Errors
    ///
    /// When the back-end refuses or does not answer right in time.
    pub fn announce(&mut self, mac: [u8; 6]) -> Result<bool, SetupError> {
        let can = self.has(VHOST_USER_PROTOCOL_F_RARP);
        if can {
            self.front.send_rarp(mac)?;
        }
        Ok(can)
    }

    /// Has the back-end mark every page of 4 KiB that it writes, a bit each by guest address, in `size` bytes
    /// from `offset` of the file; rings run on. The log before is touched no more. Needs LOG_SHMFD and LOG_ALL.
    ///
    /// # Errors
    ///
    /// When the back-end cannot, refuses, or does not answer right in time.
    pub fn start_log(&mut self, file: OwnedFd, size: u64, offset: u64) -> Result<(), SetupError> {
        self.needs(VHOST_USER_PROTOCOL_F_LOG_SHMFD)?;
        let missing = mask(&[VHOST_F_LOG_ALL]) & !self.offered;
        if missing != 0 {
            let offered = self.offered;
            return Err(SetupError::Features { missing, offered });
        }
        self.front.set_log_base(file.as_fd(), size, offset)?;
        self.log = Some(Log { file, size, offset });
        self.say_features()?;
        self.say_addresses()
    }

    /// Ends that.
    ///
    /// # Errors
    ///
    /// When the back-end refuses or does not answer right in time.
    pub fn stop_log(&mut self) -> Result<(), SetupError> {
        self.log = None;
        self.say_features()?;
        self.say_addresses()
    }
}
