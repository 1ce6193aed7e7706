//! One method for each request.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use ringway_mem::RegionRequest;

use super::{Frontend, FrontendError};
use crate::user::RingAddresses;
use crate::user::features::{VHOST_USER_PROTOCOL_F_LOG_SHMFD, has};
use crate::user::message::{
    InflightArea, LogArea, MAX_TABLE_REGIONS, MemoryTable, Region, Request, SingleRegion,
    VringAddress, VringFile, VringState, parse_u64,
};

/// Where a back-end keeps what it has in flight (GET_INFLIGHT_FD). It outlives the connection.
#[derive(Debug)]
pub struct Inflight {
    /// Place and shape.
    pub area: InflightArea,
    /// The file it lies in.
    pub file: OwnedFd,
}

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

    /// SET_MEM_TABLE: the guest's memory, whole. Addresses and sizes in bytes.
    ///
    /// # Errors
    ///
    /// As for every request, and with no region or more than 8.
    pub fn set_mem_table(&mut self, regions: &[RegionRequest]) -> Result<(), FrontendError> {
        let count = regions.len();
        if !(1..=MAX_TABLE_REGIONS).contains(&count) {
            return Err(FrontendError::RegionCount { count });
        }
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
        // Always answered where the log is shared, with or without our asking for it. DPDK answers with
        // no payload even to need_reply.
        let acked = self.acknowledges(request);
        let answered = acked || has(self.protocol_features, VHOST_USER_PROTOCOL_F_LOG_SHMFD);
        match self.exchange(request, &area, &[file], acked, answered)? {
            Some(answer) if !answer.descriptors.is_empty() => Err(self.wrong(request, &answer)),
            Some(answer) if !answer.payload.is_empty() => self.judge(request, &answer),
            _ => Ok(()),
        }
    }

    /// SET_LOG_FD: what the back-end signals when it marked pages.
    ///
    /// # Errors
    ///
    /// As for every request.
    pub fn set_log_fd(&mut self, file: BorrowedFd<'_>) -> Result<(), FrontendError> {
        self.request(Request::SetLogFd, &[], &[file])
    }

    /// GET_INFLIGHT_FD: a file in which the back-end keeps what it has taken and not returned, for
    /// `rings` rings of `size` descriptors.
    ///
    /// # Errors
    ///
    /// As for every request. A back-end that has no such file answers with a size of 0, which is
    /// [`FrontendError::Refused`].
    pub fn get_inflight_fd(&mut self, rings: u16, size: u16) -> Result<Inflight, FrontendError> {
        let request = Request::GetInflightFd;
        let asked = InflightArea {
            size: 0,
            offset: 0,
            rings,
            ring_size: size,
        };
        let answer = self.exchange(request, &asked.bytes(), &[], false, true)?;
        let Some(mut answer) = answer else {
            return Err(FrontendError::OutOfStep {
                request: request.id(),
            });
        };
        let area = InflightArea::parse(&answer.payload);
        match (area, answer.descriptors.len()) {
            (Some(InflightArea { size: 0, .. }), 0) => Err(FrontendError::Refused {
                request: request.id(),
                code: 0,
            }),
            (Some(area), 1) if area.size != 0 => match answer.descriptors.pop() {
                Some(file) => Ok(Inflight { area, file }),
                None => Err(self.wrong(request, &answer)),
            },
            _ => Err(self.wrong(request, &answer)),
        }
    }

    /// SET_INFLIGHT_FD: the file that [`Self::get_inflight_fd`] gave, now or on an earlier connection.
    ///
    /// # Errors
    ///
    /// As for every request.
    pub fn set_inflight_fd(&mut self, inflight: &Inflight) -> Result<(), FrontendError> {
        let payload = inflight.area.bytes();
        self.request(Request::SetInflightFd, &payload, &[inflight.file.as_fd()])
    }

    /// SET_VRING_NUM: descriptors of the ring, a power of two up to 32768 for a split one.
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

    /// SET_VRING_ADDR: where the ring lies, in the virtual addresses of the memory table.
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

    /// SET_VRING_BASE: where the ring goes on. Split: the next available index. Packed: place and wrap counter (bit 15) of
    /// what is taken next in bits 0-15, of what is returned next in bits 16-31.
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

    /// GET_VRING_BASE: stops the ring and gives where it would go on, in the form of [`Self::set_vring_base`]. DPDK leaves the
    /// upper half of a packed ring 0; then both are the same.
    ///
    /// # Errors
    ///
    /// As for every request.
    pub fn get_vring_base(&mut self, index: u32) -> Result<u32, FrontendError> {
        let request = Request::GetVringBase;
        let answer = self.ask(request, &VringState { index, num: 0 }.bytes(), &[])?;
        match VringState::parse(&answer.payload) {
            Some(state) if state.index == index => Ok(state.num),
            _ => Err(self.wrong(request, &answer)),
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

    /// NET_SET_MTU: bytes, without Ethernet header.
    ///
    /// # Errors
    ///
    /// As for every request.
    pub fn set_mtu(&mut self, mtu: u16) -> Result<(), FrontendError> {
        self.set(Request::NetSetMtu, mtu.into())
    }

    /// SEND_RARP: the back-end announces this address in its network.
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

    /// SET_BACKEND_REQ_FD; see [`BackendChannel`](super::BackendChannel) for the other end.
    ///
    /// # Errors
    ///
    /// As for every request.
    pub fn set_backend_req_fd(&mut self, socket: BorrowedFd<'_>) -> Result<(), FrontendError> {
        self.request(Request::SetBackendReqFd, &[], &[socket])
    }

    fn get(&mut self, request: Request) -> Result<u64, FrontendError> {
        let answer = self.ask(request, &[], &[])?;
        parse_u64(&answer.payload).ok_or_else(|| self.wrong(request, &answer))
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
