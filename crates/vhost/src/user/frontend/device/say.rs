//! What a device says, of what it remembers.

use std::os::fd::AsFd;

use ringway_mem::RegionRequest;

use super::{NetDevice, SetupError, Wish};
use crate::user::features::{
    VHOST_F_LOG_ALL, VHOST_USER_F_PROTOCOL_FEATURES, VHOST_USER_PROTOCOL_F_CONFIGURE_MEM_SLOTS,
    VHOST_USER_PROTOCOL_F_MQ, VHOST_USER_PROTOCOL_F_STATUS, VIRTIO_NET_F_MQ, has, mask,
};
use crate::user::message::MAX_TABLE_REGIONS;

/// ACKNOWLEDGE and DRIVER (virtio 1.2, 2.1).
const DRIVER: u8 = 0x3;
/// The back-end bears what was negotiated.
const FEATURES_OK: u8 = 0x8;
/// The driver runs.
const DRIVER_OK: u8 = 0x4;

impl NetDevice {
    pub(super) fn open(&mut self, wish: Wish) -> Result<(), SetupError> {
        let front = &mut self.front;
        let offered = front.get_features()?;
        self.offered = offered;
        let missing = wish.required & !offered;
        if missing != 0 {
            return Err(SetupError::Features { missing, offered });
        }
        let protocol_bit = mask(&[VHOST_USER_F_PROTOCOL_FEATURES]);
        self.features = wish.required | wish.optional & offered | protocol_bit & offered;
        if has(offered, VHOST_USER_F_PROTOCOL_FEATURES) {
            let protocol = front.get_protocol_features()? & wish.protocol;
            front.set_protocol_features(protocol)?;
            front.ask_for_acks(true);
        }
        let pairs = wish.queue_pairs;
        let offered = if !has(self.features, VIRTIO_NET_F_MQ) {
            1
        } else if self.has(VHOST_USER_PROTOCOL_F_MQ) {
            self.front.get_queue_num()?
        } else {
            pairs.into()
        };
        if offered < u64::from(pairs) {
            let wanted = pairs;
            return Err(SetupError::QueuePairs { wanted, offered });
        }
        self.front.set_owner()?;
        self.say_features()?;
        self.say_status()?;
        if let Some(mtu) = wish.mtu {
            self.set_mtu(mtu)?;
        }
        Ok(())
    }

    /// The driver knows what it drives, if the back-end agrees.
    pub(super) fn say_status(&mut self) -> Result<(), SetupError> {
        if !self.has(VHOST_USER_PROTOCOL_F_STATUS) {
            return Ok(());
        }
        self.front.set_status(DRIVER | FEATURES_OK)?;
        let status = self.front.get_status()?;
        if status & u64::from(FEATURES_OK) == 0 {
            let features = self.features;
            return Err(SetupError::Status { features, status });
        }
        Ok(())
    }

    pub(super) fn share_again(&mut self, regions: &[RegionRequest]) -> Result<(), SetupError> {
        if regions.len() <= MAX_TABLE_REGIONS {
            return Ok(self.front.set_mem_table(regions)?);
        }
        self.has_slots_for(regions.len())?;
        for region in regions {
            self.front.add_mem_reg(region)?;
        }
        Ok(())
    }

    pub(super) fn say_features(&mut self) -> Result<(), SetupError> {
        let log = match &self.log {
            Some(_) => mask(&[VHOST_F_LOG_ALL]),
            None => 0,
        };
        Ok(self.front.set_features(self.features | log)?)
    }

    pub(super) fn say_ring(&mut self, index: u8, base: u32) -> Result<(), SetupError> {
        let logged = self.log.is_some();
        let Some(Some(ring)) = self.rings.get(usize::from(index)) else {
            return Ok(());
        };
        let (front, wide) = (&mut self.front, u32::from(index));
        front.set_vring_num(wide, ring.size.into())?;
        front.set_vring_base(wide, base)?;
        front.set_vring_addr(wide, &ring.addressed(logged))?;
        if ring.err.is_some() {
            front.set_vring_err(index, ring.err.as_ref().map(AsFd::as_fd))?;
        }
        front.set_vring_call(index, ring.call.as_ref().map(AsFd::as_fd))?;
        Ok(front.set_vring_kick(index, ring.kick.as_ref().map(AsFd::as_fd))?)
    }

    pub(super) fn say_addresses(&mut self) -> Result<(), SetupError> {
        let logged = self.log.is_some();
        for (index, ring) in (0u32..).zip(&self.rings) {
            if let Some(ring) = ring {
                self.front.set_vring_addr(index, &ring.addressed(logged))?;
            }
        }
        Ok(())
    }

    pub(super) fn say_enabled(&mut self) -> Result<(), SetupError> {
        if has(self.features, VHOST_USER_F_PROTOCOL_FEATURES) {
            for (index, (&enabled, ring)) in (0u32..).zip(self.enabled.iter().zip(&self.rings)) {
                if ring.is_some() {
                    self.front.set_vring_enable(index, enabled)?;
                }
            }
        }
        let runs = self.enabled.contains(&true);
        if runs && !self.running && self.has(VHOST_USER_PROTOCOL_F_STATUS) {
            self.front.set_status(DRIVER | FEATURES_OK | DRIVER_OK)?;
        }
        self.running |= runs;
        Ok(())
    }

    pub(super) fn has_slots_for(&mut self, count: usize) -> Result<(), SetupError> {
        self.needs(VHOST_USER_PROTOCOL_F_CONFIGURE_MEM_SLOTS)?;
        let max = self.front.get_max_mem_slots()?;
        if u64::try_from(count).unwrap_or(u64::MAX) > max {
            return Err(SetupError::Regions { count, max });
        }
        Ok(())
    }

    pub(super) fn has(&self, protocol_feature: u32) -> bool {
        has(self.front.protocol_features(), protocol_feature)
    }

    pub(super) fn needs(&self, protocol_feature: u32) -> Result<(), SetupError> {
        let missing = mask(&[protocol_feature]) & !self.front.protocol_features();
        if missing != 0 {
            return Err(SetupError::Protocol { missing });
        }
        Ok(())
    }

    pub(super) fn ring_count(&self) -> u16 {
        2 * self.wish.queue_pairs
    }
}
