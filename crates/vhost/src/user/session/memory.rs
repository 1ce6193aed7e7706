//! Requests about the guest's memory, and about the log of what was written to it.
//!
//! The table in the state is replaced as a whole and shared: whoever still uses the table before
//! keeps it mapped.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use ringway_mem::{DirtyLog, GuestMemory, MemoryError, RegionRequest};

use super::{Event, Session, SessionError};
use crate::user::features::{
    VHOST_USER_PROTOCOL_F_CONFIGURE_MEM_SLOTS, VHOST_USER_PROTOCOL_F_LOG_SHMFD,
};
use crate::user::message::{LogArea, MAX_TABLE_REGIONS, MemoryTable, Region, Request};

impl Session {
    pub(super) fn set_mem_table(
        &mut self,
        table: &MemoryTable,
        files: Vec<OwnedFd>,
    ) -> Result<Event, SessionError> {
        let count = table.regions.len();
        if !(1..=MAX_TABLE_REGIONS).contains(&count) {
            return Err(SessionError::RegionCount { count });
        }
        let requests = table
            .regions
            .iter()
            .zip(files)
            .map(|(region, file)| request(region, file));
        let memory = GuestMemory::map(requests.collect());
        self.replace(Request::SetMemTable, memory)
    }

    pub(super) fn add_mem_reg(
        &mut self,
        region: &Region,
        file: OwnedFd,
    ) -> Result<Event, SessionError> {
        self.require(
            Request::AddMemReg,
            VHOST_USER_PROTOCOL_F_CONFIGURE_MEM_SLOTS,
        )?;
        let before = self.state.memory.as_ref();
        let count = before.map_or(0, |memory| memory.regions().count()) + 1;
        let max = self.offer.max_memory_slots;
        if u64::try_from(count).unwrap_or(u64::MAX) > max {
            return Err(SessionError::MemorySlots { count, max });
        }
        let added = request(region, file);
        let memory = match before {
            Some(memory) => memory.with_added(added),
            None => GuestMemory::map(vec![added]),
        };
        self.replace(Request::AddMemReg, memory)
    }

    pub(super) fn rem_mem_reg(&mut self, region: &Region) -> Result<Event, SessionError> {
        self.require(
            Request::RemMemReg,
            VHOST_USER_PROTOCOL_F_CONFIGURE_MEM_SLOTS,
        )?;
        let Some(memory) = &self.state.memory else {
            return Err(SessionError::NoMemory);
        };
        // The file offset does not identify a region; QEMU sends 0.
        let Region {
            guest_address,
            size,
            user_address,
            ..
        } = *region;
        let memory = memory.with_removed(guest_address, size, user_address);
        self.replace(Request::RemMemReg, memory)
    }

    /// The log is written to as long as it is in the state, the features have LOG_ALL, and rings run. It
    /// need not reach as far as the memory does: what is beyond is not logged.
    pub(super) fn set_log_base(
        &mut self,
        area: LogArea,
        file: OwnedFd,
    ) -> Result<Event, SessionError> {
        let request = Request::SetLogBase;
        self.require(request, VHOST_USER_PROTOCOL_F_LOG_SHMFD)?;
        let LogArea { size, offset } = area;
        let log = DirtyLog::map(file, size, offset).map_err(|source| SessionError::Memory {
            request: request.id(),
            source,
        })?;
        self.state.log = Some(Arc::new(log));
        Ok(Event::Log)
    }

    fn replace(
        &mut self,
        request: Request,
        memory: Result<GuestMemory, MemoryError>,
    ) -> Result<Event, SessionError> {
        let memory = memory.map_err(|source| SessionError::Memory {
            request: request.id(),
            source,
        })?;
        self.state.memory = Some(Arc::new(memory));
        Ok(Event::Memory)
    }
}

fn request(region: &Region, file: OwnedFd) -> RegionRequest {
    RegionRequest {
        guest_address: region.guest_address,
        size: region.size,
        user_address: region.user_address,
        mmap_offset: region.mmap_offset,
        file,
    }
}
