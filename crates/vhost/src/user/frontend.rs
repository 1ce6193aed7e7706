//! The front-end's end of a connection, as far as tests, benches and uplinks need it.
//!
//! Each request is one method. A request with an answer of its own waits for it; any other waits
//! for an acknowledgement when [`Frontend::ask_for_acks`] says so and REPLY_ACK is negotiated.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use ringway_mem::RegionRequest;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};

use super::RingAddresses;
use super::features::{VHOST_USER_PROTOCOL_F_REPLY_ACK, has};
use super::message::{
    Answer, Header, MemoryTable, Region, Request, RequestId, SingleRegion, VringAddress, VringFile,
    VringState, parse_u64,
};
use super::socket::{Message, Socket, SocketError};

/// A connection to a back-end.
#[derive(Debug)]
pub struct Frontend {
    socket: Socket,
    patience: Duration,
    protocol_features: u64,
    ask_for_acks: bool,
}

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub enum FrontendError {
    /// The connection cannot go on.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// The back-end does not answer, or does not read.
    #[error("{request}: the back-end did not answer within {patience:?}")]
    Timeout {
        /// The request.
        request: RequestId,
        /// How long it had.
        patience: Duration,
    },
    /// The back-end answered that it did not do what was asked.
    #[error("{request}: the back-end refused with {code:#x}")]
    Refused {
        /// The request.
        request: RequestId,
        /// Its answer.
        code: u64,
    },
    /// The back-end answered something else.
    #[error("{request}: the answer is for {answered}, flags {flags:#x}, {size} bytes")]
    Answer {
        /// The request.
        request: RequestId,
        /// The request that was answered.
        answered: RequestId,
        /// Flags of the answer.
        flags: u32,
        /// Size of the answer's payload.
        size: usize,
    },
}

impl Frontend {
    /// Connects to a back-end that listens at `path`. No answer may take longer than `patience`.
    ///
    /// # Errors
    ///
    /// When the connection cannot be made.
    pub fn connect(path: &Path, patience: Duration) -> io::Result<Self> {
        let socket = socket_with(
            AddressFamily::UNIX,
            SocketType::STREAM,
            SocketFlags::CLOEXEC,
            None,
        )?;
        connect(&socket, &SocketAddrUnix::new(path)?)?;
        Self::new(socket, patience)
    }

    /// Takes a connected socket. No answer may take longer than `patience`.
    ///
    /// # Errors
    ///
    /// When the socket's flags cannot be set.
    pub fn new(socket: OwnedFd, patience: Duration) -> io::Result<Self> {
        let socket = Socket::new(socket)?;
        Ok(Self {
            socket,
            patience,
            protocol_features: 0,
            ask_for_acks: false,
        })
    }

    /// Sets need_reply on the requests that follow and waits for their acknowledgement. It has an
    /// effect once REPLY_ACK is negotiated.
    pub fn ask_for_acks(&mut self, ask: bool) {
        self.ask_for_acks = ask;
    }

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

    /// Sends any bytes with any file descriptors, as they are. `request` names them in errors.
    ///
    /// # Errors
    ///
    /// When the back-end is gone or does not read in time.
    ///
    /// # Panics
    ///
    /// With more than 8 file descriptors.
    pub fn send_raw(
        &mut self,
        request: RequestId,
        bytes: &[u8],
        files: &[BorrowedFd<'_>],
    ) -> Result<(), FrontendError> {
        let deadline = Instant::now() + self.patience;
        let (mut rest, mut files) = (bytes, files);
        while !rest.is_empty() {
            match self.socket.send_some(rest, files)? {
                Some(sent) => (rest, files) = (rest.get(sent..).unwrap_or_default(), &[]),
                None => self.wait(request, PollFlags::OUT, deadline)?,
            }
        }
        Ok(())
    }

    /// The next message of the back-end, whatever it is. `request` names it in errors.
    ///
    /// # Errors
    ///
    /// When the back-end is gone or none comes in time.
    pub fn receive_raw(&mut self, request: RequestId) -> Result<Message, FrontendError> {
        let deadline = Instant::now() + self.patience;
        loop {
            if let Some(header) = self.socket.header()?
                && let Some(message) = self.socket.message(header)?
            {
                return Ok(message);
            }
            self.wait(request, PollFlags::IN, deadline)?;
        }
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

    /// A request that may be acknowledged.
    fn request(
        &mut self,
        request: Request,
        payload: &[u8],
        files: &[BorrowedFd<'_>],
    ) -> Result<(), FrontendError> {
        let acked = self.ask_for_acks
            && has(self.protocol_features, VHOST_USER_PROTOCOL_F_REPLY_ACK)
            && request.answer() == Answer::Ack;
        self.send(request, payload, files, acked)?;
        if !acked {
            return Ok(());
        }
        let answer = self.answer_to(request)?;
        match parse_u64(&answer.payload) {
            Some(0) => Ok(()),
            Some(code) => Err(FrontendError::Refused {
                request: request.id(),
                code,
            }),
            None => Err(unexpected(request.id(), &answer)),
        }
    }

    /// A request that has an answer of its own.
    fn ask(
        &mut self,
        request: Request,
        payload: &[u8],
        files: &[BorrowedFd<'_>],
    ) -> Result<Message, FrontendError> {
        self.send(request, payload, files, false)?;
        self.answer_to(request)
    }

    fn send(
        &mut self,
        request: Request,
        payload: &[u8],
        files: &[BorrowedFd<'_>],
        need_reply: bool,
    ) -> Result<(), FrontendError> {
        let size = u32::try_from(payload.len()).unwrap_or(u32::MAX);
        let mut bytes = Header::request(request.id(), size, need_reply)
            .bytes()
            .to_vec();
        bytes.extend_from_slice(payload);
        self.send_raw(request.id(), &bytes, files)
    }

    fn answer_to(&mut self, request: Request) -> Result<Message, FrontendError> {
        let answer = self.receive_raw(request.id())?;
        let expected = Header::reply(request.id(), answer.header.size);
        if answer.header == expected {
            Ok(answer)
        } else {
            Err(unexpected(request.id(), &answer))
        }
    }

    fn wait(
        &self,
        request: RequestId,
        events: PollFlags,
        deadline: Instant,
    ) -> Result<(), FrontendError> {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).ok();
        let mut fds = [PollFd::new(&self.socket, events)];
        match poll(&mut fds, timeout.as_ref()) {
            Ok(0) => Err(FrontendError::Timeout {
                request,
                patience: self.patience,
            }),
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(errno) => Err(SocketError::Io(errno.into()).into()),
        }
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

fn unexpected(request: RequestId, answer: &Message) -> FrontendError {
    let Header {
        request: answered,
        flags,
        ..
    } = answer.header;
    FrontendError::Answer {
        request,
        answered,
        flags,
        size: answer.payload.len(),
    }
}
