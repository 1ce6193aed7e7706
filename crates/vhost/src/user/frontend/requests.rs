//! One method for each request.

use std::os::fd::{AsFd, BorrowedFd};

use ringway_mem::RegionRequest;

use super::{Frontend, FrontendError, unexpected};
use crate::user::RingAddresses;
use crate::user::features::{VHOST_USER_PROTOCOL_F_LOG_SHMFD, has};
use crate::user::message::{
    LogArea, MemoryTable, Region, Request, SingleRegion, VringAddress, VringFile, VringState,
    parse_u64,
};

impl Frontend {
    /// GET_FEATURES.
    ///
    /// # Errors
    ///
    /// As for every request: no right answer in time.
    pub fn get_features(&mut self) -> Result<u64, FrontendError> {
        self.get(Request::GetFeatures)
    }

    /// SET_FEATURES.
    ///
    /// # Errors
    ///
    /// As for every request: refused, or no right answer in time.
    pub fn set_features(&mut self, features: u64) -> Result<(), FrontendError> {
        self.set(Request::SetFeatures, features)
    }

    /// GET_PROTOCOL_FEATURES.
    ///
    /// # Errors
    ///
    /// As for every request.
    pub fn get_protocol_features(&mut self) -> Result<u64, FrontendError> {
        self.get(Request::GetProtocolFeatures)
    }

    /// SET_PROTOCOL_FEATURES.
    ///
    /// # Errors
    ///
    /// As for every request.
    pub fn set_protocol_features(&mut self, features: u64) -> Result<(), FrontendError> {
        // The request itself cannot be acknowledged yet, as QEMU sees it.
        let ask = std::mem::replace(&mut self.ask_for_acks, false);
        let done = self.set(Request::SetProtocolFeatures, features);
        self.ask_for_acks = ask;
        self.protocol_features = features;
        done
    }

    /// SET_OWNER.
    ///
    /// # Errors
    ///
    /// As for every request.
    pub fn set_owner(&mut self) -> Result<(), FrontendError> {
        self.request(Request::SetOwner, &[], &[])
    }

    /// RESET_OWNER.
    ///
    /// # Errors
    ///
    /// As for every request.
    pub fn reset_owner(&mut self) -> Result<(), FrontendError> {
        self.request(Request::ResetOwner, &[], &[])
    }

    /// RESET_DEVICE.
    ///
    /// # Errors
    ///
    /// As for every request.
    pub fn reset_device(&mut self) -> Result<(), FrontendError> {
        self.request(Request::ResetDevice, &[], &[])
    }

    /// GET_QUEUE_NUM: queue pairs.
    ///
    /// # Errors
    ///
    /// As for every request.
    pub fn get_queue_num(&mut self) -> Result<u64, FrontendError> {
        self.get(Request::GetQueueNum)
    }

    /// SET_MEM_TABLE.
    ///
    /// # Errors
    ///
    /// As for every request.
    ///
    /// # Panics
    ///
    /// With more than 8 regions.
    pub fn set_mem_table(&mut self, regions: &[RegionRequest]) -> Result<(), FrontendError> {
        let table = MemoryTable {
            regions: regions.iter().map(region).collect(),
        };
        let files: Vec<_> = regions.iter().map(|region| region.file.as_fd()).collect();
        self.request(Request::SetMemTable, &table.bytes(), &files)
    }

    /// GET_MAX_MEM_SLOTS.
    ///
    /// # Errors
    ///
    /// As for every request.
    pub fn get_max_mem_slots(&mut self) -> Result<u64, FrontendError> {
        self.get(Request::GetMaxMemSlots)
    }

    /// ADD_MEM_REG.
    ///
    /// # Errors
    ///
    /// As for every request.
    pub fn add_mem_reg(&mut self, added: &RegionRequest) -> Result<(), FrontendError> {
        let single = SingleRegion::new(region(added));
        self.request(Request::AddMemReg, &single.bytes(), &[added.file.as_fd()])
    }

    /// REM_MEM_REG.
    ///
    /// # Errors
    ///
    /// As for every request.
    pub fn rem_mem_reg(&mut self, removed: &RegionRequest) -> Result<(), FrontendError> {
        let single = SingleRegion::new(Region {
            mmap_offset: 0,
            ..region(removed)
        });
        self.request(Request::RemMemReg, &single.bytes(), &[])
    }

    /// SET_LOG_BASE: `size` bytes from `offset` in the file. Once this returns the log before is not written any more.
    ///
    /// # Errors
    ///
    /// As for every request.
    pub fn set_log_base(
        &mut self,
        file: BorrowedFd<'_>,
        size: u64,
        offset: u64,
    ) -> Result<(), FrontendError> {
        let request = Request::SetLogBase;
        let area = LogArea { size, offset }.bytes();
        // Always answered where the log is shared, with or without our asking for it.
        if self.acknowledges(request)
            || !has(self.protocol_features, VHOST_USER_PROTOCOL_F_LOG_SHMFD)
        {
            return self.request(request, &area, &[file]);
        }
        self.ask(request, &area, &[file]).map(drop)
    }

    /// SET_VRING_NUM.
    ///
    /// # Errors
    ///
    /// As for every request.
    pub fn set_vring_num(&mut self, index: u32, num: u32) -> Result<(), FrontendError> {
        self.request(
            Request::SetVringNum,
            &VringState { index, num }.bytes(),
            &[],
        )
    }

    /// SET_VRING_ADDR.
    ///
    /// # Errors
    ///
    /// As for every request.
    pub fn set_vring_addr(
        &mut self,
        index: u32,
        addresses: &RingAddresses,
    ) -> Result<(), FrontendError> {
        let &RingAddresses {
            descriptors,
            available,
            used,
            log,
            logged,
        } = addresses;
        let flags = u32::from(logged);
        let payload = VringAddress {
            index,
            flags,
            descriptors,
            used,
            available,
            log,
        };
        self.request(Request::SetVringAddr, &payload.bytes(), &[])
    }

    /// SET_VRING_BASE.
    ///
    /// # Errors
    ///
    /// As for every request.
    pub fn set_vring_base(&mut self, index: u32, base: u32) -> Result<(), FrontendError> {
        self.request(
            Request::SetVringBase,
            &VringState { index, num: base }.bytes(),
            &[],
        )
    }

    /// GET_VRING_BASE, which stops the ring.
    ///
    /// # Errors
    ///
    /// As for every request.
    pub fn get_vring_base(&mut self, index: u32) -> Result<u32, FrontendError> {
        let request = Request::GetVringBase;
        let answer = self.ask(request, &VringState { index, num: 0 }.bytes(), &[])?;
        match VringState::parse(&answer.payload) {
            Some(state) if state.index == index => Ok(state.num),
            _ => Err(unexpected(request.id(), &answer)),
        }
    }

    /// SET_VRING_KICK, without file descriptor for a ring that is polled.
    ///
    /// # Errors
    ///
    /// As for every request.
    pub fn set_vring_kick(
        &mut self,
        index: u8,
        kick: Option<BorrowedFd<'_>>,
    ) -> Result<(), FrontendError> {
        self.set_file(Request::SetVringKick, index, kick)
    }

    /// SET_VRING_CALL, without file descriptor when the driver polls.
    ///
    /// # Errors
    ///
    /// As for every request.
    pub fn set_vring_call(
        &mut self,
        index: u8,
        call: Option<BorrowedFd<'_>>,
    ) -> Result<(), FrontendError> {
        self.set_file(Request::SetVringCall, index, call)
    }

    /// SET_VRING_ERR.
    ///
    /// # Errors
    ///
    /// As for every request.
    pub fn set_vring_err(
        &mut self,
        index: u8,
        err: Option<BorrowedFd<'_>>,
    ) -> Result<(), FrontendError> {
        self.set_file(Request::SetVringErr, index, err)
    }

    /// SET_VRING_ENABLE.
    ///
    /// # Errors
    ///
    /// As for every request.
    pub fn set_vring_enable(&mut self, index: u32, enabled: bool) -> Result<(), FrontendError> {
        let state = VringState {
            index,
            num: enabled.into(),
        };
        self.request(Request::SetVringEnable, &state.bytes(), &[])
    }

    /// SET_STATUS.
    ///
    /// # Errors
    ///
    /// As for every request.
    pub fn set_status(&mut self, status: u8) -> Result<(), FrontendError> {
        self.set(Request::SetStatus, status.into())
    }

    /// GET_STATUS.
    ///
    /// # Errors
    ///
    /// As for every request.
    pub fn get_status(&mut self) -> Result<u64, FrontendError> {
        self.get(Request::GetStatus)
    }

    /// NET_SET_MTU.
    ///
    /// # Errors
    ///
    /// As for every request.
    pub fn set_mtu(&mut self, mtu: u16) -> Result<(), FrontendError> {
        self.set(Request::NetSetMtu, mtu.into())
    }

    /// SEND_RARP.
    ///
    /// # Errors
    ///
    /// As for every request.
    pub fn send_rarp(&mut self, mac: [u8; 6]) -> Result<(), FrontendError> {
        let [a, b, c, d, e, f] = mac;
        self.set(
            Request::SendRarp,
            u64::from_ne_bytes([a, b, c, d, e, f, 0, 0]),
        )
    }

    /// SET_BACKEND_REQ_FD.
    ///
    /// # Errors
    ///
    /// As for every request.
    pub fn set_backend_req_fd(&mut self, socket: BorrowedFd<'_>) -> Result<(), FrontendError> {
        self.request(Request::SetBackendReqFd, &[], &[socket])
    }

    fn get(&mut self, request: Request) -> Result<u64, FrontendError> {
        let answer = self.ask(request, &[], &[])?;
        parse_u64(&answer.payload).ok_or_else(|| unexpected(request.id(), &answer))
    }

    fn set(&mut self, request: Request, number: u64) -> Result<(), FrontendError> {
        self.request(request, &number.to_ne_bytes(), &[])
    }

    fn set_file(
        &mut self,
        request: Request,
        index: u8,
        file: Option<BorrowedFd<'_>>,
    ) -> Result<(), FrontendError> {
        let number = VringFile {
            index,
            no_fd: file.is_none(),
        }
        .number();
        self.request(request, &number.to_ne_bytes(), file.as_slice())
    }
}

fn region(request: &RegionRequest) -> Region {
    Region {
        guest_address: request.guest_address,
        size: request.size,
        user_address: request.user_address,
        mmap_offset: request.mmap_offset,
    }
}
