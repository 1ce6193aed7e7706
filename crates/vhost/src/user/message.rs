//! The messages: header, payloads, and one table with what the protocol says about each request.
//!
//! All numbers are in the machine's byte order. Parsing never fails halfway: a payload of another
//! size than the structure's is `None`.

use std::fmt;

mod payload;

pub use payload::{
    InflightArea, LogArea, MemoryTable, Region, SingleRegion, VringAddress, VringFile, VringState,
    parse_u64,
};

/// Size of the header in bytes.
pub const HEADER_SIZE: usize = 12;
/// Longest payload that is read. Every message that is used is far shorter; the slack lets a
/// message that is going to be refused be read to its end, so that it can be answered.
pub const MAX_PAYLOAD: usize = 4096;
/// Most file descriptors in one message, as both DPDK and QEMU limit it.
pub const MAX_DESCRIPTORS: usize = 8;
/// Most regions in one SET_MEM_TABLE.
pub const MAX_TABLE_REGIONS: usize = 8;
/// The protocol's version, in bits 0 and 1 of the flags.
pub const VERSION: u32 = 1;

const VERSION_MASK: u32 = 0x3;
const REPLY: u32 = 1 << 2;
const NEED_REPLY: u32 = 1 << 3;

/// What stands before every payload.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// The request, or the request that is answered.
    pub request: RequestId,
    /// Version (bits 0 and 1), reply (bit 2), need_reply (bit 3); the rest is reserved.
    pub flags: u32,
    /// Size of the payload that follows, in bytes.
    pub size: u32,
}

const _: () = assert!(size_of::<Header>() == HEADER_SIZE);

impl Header {
    /// The header of a request with `size` bytes of payload.
    #[must_use]
    pub fn request(request: RequestId, size: u32, need_reply: bool) -> Self {
        let flags = if need_reply {
            VERSION | NEED_REPLY
        } else {
            VERSION
        };
        Self {
            request,
            flags,
            size,
        }
    }

    /// The header of the answer to `request`: its flags are exactly 0x5, QEMU takes no other.
    #[must_use]
    pub fn reply(request: RequestId, size: u32) -> Self {
        Self {
            request,
            flags: VERSION | REPLY,
            size,
        }
    }

    /// Reads a header from its bytes.
    #[must_use]
    pub fn parse(bytes: [u8; HEADER_SIZE]) -> Self {
        let mut reader = Reader(&bytes);
        Self {
            request: RequestId(reader.u32().unwrap_or_default()),
            flags: reader.u32().unwrap_or_default(),
            size: reader.u32().unwrap_or_default(),
        }
    }

    /// The header as it goes over the wire.
    #[must_use]
    pub fn bytes(&self) -> [u8; HEADER_SIZE] {
        let mut out = [0; HEADER_SIZE];
        out[..4].copy_from_slice(&self.request.0.to_ne_bytes());
        out[4..8].copy_from_slice(&self.flags.to_ne_bytes());
        out[8..].copy_from_slice(&self.size.to_ne_bytes());
        out
    }

    /// The version the sender speaks.
    #[must_use]
    pub fn version(&self) -> u32 {
        self.flags & VERSION_MASK
    }

    /// Whether this is an answer.
    #[must_use]
    pub fn is_reply(&self) -> bool {
        self.flags & REPLY != 0
    }

    /// Whether an answer is asked for. It counts only once REPLY_ACK is negotiated.
    #[must_use]
    pub fn need_reply(&self) -> bool {
        self.flags & NEED_REPLY != 0
    }

    /// Flags that have no meaning yet.
    #[must_use]
    pub fn reserved_flags(&self) -> u32 {
        self.flags & !(VERSION_MASK | REPLY | NEED_REPLY)
    }
}

/// A request's number as it came over the wire, known or not. Shows as the request's name.
#[repr(transparent)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RequestId(pub u32);

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Request::from_id(*self) {
            Some(request) => f.write_str(request.name()),
            None => write!(f, "request {}", self.0),
        }
    }
}

impl From<Request> for RequestId {
    fn from(request: Request) -> Self {
        request.id()
    }
}

/// Size of a request's payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PayloadSize {
    /// Exactly so many bytes.
    Exactly(usize),
    /// A memory table: 8 bytes and 32 for each region that it counts.
    MemoryTable,
    /// An area for what is in flight, with its padding or without.
    Inflight,
    /// Not looked at: the request is never used, only refused.
    Any,
}

/// File descriptors that come with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Descriptors {
    /// Exactly so many.
    Exactly(usize),
    /// None or one; one is closed unused.
    AtMostOne,
    /// One, or none when bit 8 of the payload says so.
    UnlessNoFd,
    /// One for each region of the table.
    PerRegion,
    /// Not looked at, closed: the request is never used, only refused.
    Any,
}

/// How a request is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// Always, with a payload of its own; need_reply changes nothing.
    Own,
    /// Only when need_reply is set and REPLY_ACK negotiated, with a u64: 0 for success. SET_LOG_BASE without
    /// need_reply is answered with no payload, where LOG_SHMFD is negotiated.
    Ack,
}

macro_rules! requests {
    ($($(#[$doc:meta])* $id:literal $variant:ident $name:literal $size:expr, $descriptors:expr, $answer:expr;)+) => {
        /// The front-end's requests.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(u32)]
        pub enum Request {
            $($(#[$doc])* $variant = $id,)+
        }

        impl Request {
            /// Every request there is, in the order of their numbers.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The request of that number.
            #[must_use]
            pub fn from_id(id: RequestId) -> Option<Self> {
                match id.0 {
                    $($id => Some(Self::$variant),)+
                    _ => None,
                }
            }

            /// The request's number.
            #[must_use]
            pub fn id(self) -> RequestId {
                RequestId(match self { $(Self::$variant => $id,)+ })
            }

            /// The protocol's name for it, without the prefix `VHOST_USER_`.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            /// The size of its payload.
            #[must_use]
            pub fn payload_size(self) -> PayloadSize {
                use PayloadSize::{Any, Exactly, Inflight, MemoryTable};
                match self { $(Self::$variant => $size,)+ }
            }

            /// The file descriptors that come with it.
            #[must_use]
            pub fn descriptors(self) -> Descriptors {
                use Descriptors::{Any, AtMostOne, Exactly, PerRegion, UnlessNoFd};
                match self { $(Self::$variant => $descriptors,)+ }
            }

            /// How it is answered.
            #[must_use]
            pub fn answer(self) -> Answer {
                use Answer::{Ack, Own};
                match self { $(Self::$variant => $answer,)+ }
            }
        }
    };
}

requests! {
    /// Which virtio features the back-end has.
    1 GetFeatures "GET_FEATURES" Exactly(0), Exactly(0), Own;
    /// Which of them the driver took.
    2 SetFeatures "SET_FEATURES" Exactly(8), Exactly(0), Ack;
    /// Start of the session.
    3 SetOwner "SET_OWNER" Exactly(0), Exactly(0), Ack;
    /// Deprecated: disable all rings.
    4 ResetOwner "RESET_OWNER" Exactly(0), Exactly(0), Ack;
    /// The guest's memory, whole.
    5 SetMemTable "SET_MEM_TABLE" MemoryTable, PerRegion, Ack;
    /// Where dirty pages are marked.
    6 SetLogBase "SET_LOG_BASE" Exactly(LogArea::SIZE), Exactly(1), Ack;
    /// What to signal when pages were marked.
    7 SetLogFd "SET_LOG_FD" Exactly(0), Exactly(1), Ack;
    /// Size of a ring.
    8 SetVringNum "SET_VRING_NUM" Exactly(VringState::SIZE), Exactly(0), Ack;
    /// Addresses of a ring.
    9 SetVringAddr "SET_VRING_ADDR" Exactly(VringAddress::SIZE), Exactly(0), Ack;
    /// Index at which a ring goes on.
    10 SetVringBase "SET_VRING_BASE" Exactly(VringState::SIZE), Exactly(0), Ack;
    /// Stop a ring and tell its index.
    11 GetVringBase "GET_VRING_BASE" Exactly(VringState::SIZE), Exactly(0), Own;
    /// The driver's notification; starts the ring.
    12 SetVringKick "SET_VRING_KICK" Exactly(8), UnlessNoFd, Ack;
    /// The device's notification.
    13 SetVringCall "SET_VRING_CALL" Exactly(8), UnlessNoFd, Ack;
    /// Where a broken ring is reported.
    14 SetVringErr "SET_VRING_ERR" Exactly(8), UnlessNoFd, Ack;
    /// Which protocol features the back-end has.
    15 GetProtocolFeatures "GET_PROTOCOL_FEATURES" Exactly(0), Exactly(0), Own;
    /// Which of them the front-end uses.
    16 SetProtocolFeatures "SET_PROTOCOL_FEATURES" Exactly(8), Exactly(0), Ack;
    /// How many queue pairs the back-end has.
    17 GetQueueNum "GET_QUEUE_NUM" Exactly(0), Exactly(0), Own;
    /// Enable or disable a ring.
    18 SetVringEnable "SET_VRING_ENABLE" Exactly(VringState::SIZE), Exactly(0), Ack;
    /// Announce the guest's MAC address after a migration.
    19 SendRarp "SEND_RARP" Exactly(8), Exactly(0), Ack;
    /// The MTU that the guest is told.
    20 NetSetMtu "NET_SET_MTU" Exactly(8), Exactly(0), Ack;
    /// A socket for the back-end's requests.
    21 SetBackendReqFd "SET_BACKEND_REQ_FD" Exactly(0), Exactly(1), Ack;
    /// An entry of the device's IOTLB.
    22 IotlbMsg "IOTLB_MSG" Any, Any, Own;
    /// Byte order of a ring.
    23 SetVringEndian "SET_VRING_ENDIAN" Any, Any, Ack;
    /// Read the configuration space.
    24 GetConfig "GET_CONFIG" Any, Any, Own;
    /// Write the configuration space.
    25 SetConfig "SET_CONFIG" Any, Any, Ack;
    /// Open a crypto session.
    26 CreateCryptoSession "CREATE_CRYPTO_SESSION" Any, Any, Own;
    /// Close a crypto session.
    27 CloseCryptoSession "CLOSE_CRYPTO_SESSION" Any, Any, Ack;
    /// Postcopy: hand out a userfaultfd.
    28 PostcopyAdvise "POSTCOPY_ADVISE" Any, Any, Own;
    /// Postcopy: begin.
    29 PostcopyListen "POSTCOPY_LISTEN" Any, Any, Ack;
    /// Postcopy: end.
    30 PostcopyEnd "POSTCOPY_END" Any, Any, Own;
    /// Hand out the file that tracks descriptors in flight.
    31 GetInflightFd "GET_INFLIGHT_FD" Inflight, Exactly(0), Own;
    /// Take back the file that tracks descriptors in flight.
    32 SetInflightFd "SET_INFLIGHT_FD" Inflight, Exactly(1), Ack;
    /// Socket of a graphics device.
    33 GpuSetSocket "GPU_SET_SOCKET" Any, Any, Ack;
    /// Reset the device.
    34 ResetDevice "RESET_DEVICE" Exactly(0), Exactly(0), Ack;
    /// A kick as a message.
    35 VringKick "VRING_KICK" Any, Any, Ack;
    /// How many memory regions the back-end maps.
    36 GetMaxMemSlots "GET_MAX_MEM_SLOTS" Exactly(0), Exactly(0), Own;
    /// Add one memory region.
    37 AddMemReg "ADD_MEM_REG" Exactly(SingleRegion::SIZE), Exactly(1), Ack;
    /// Remove one memory region.
    38 RemMemReg "REM_MEM_REG" Exactly(SingleRegion::SIZE), AtMostOne, Ack;
    /// Set the virtio device status.
    39 SetStatus "SET_STATUS" Exactly(8), Exactly(0), Ack;
    /// Read the virtio device status.
    40 GetStatus "GET_STATUS" Exactly(0), Exactly(0), Own;
    /// Look a shared object up.
    41 GetSharedObject "GET_SHARED_OBJECT" Any, Any, Own;
    /// Transfer the back-end's state.
    42 SetDeviceStateFd "SET_DEVICE_STATE_FD" Any, Any, Own;
    /// How the transfer went.
    43 CheckDeviceState "CHECK_DEVICE_STATE" Any, Any, Own;
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn u32(&mut self) -> Option<u32> {
        let (head, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u32::from_ne_bytes(*head))
    }

    fn u64(&mut self) -> Option<u64> {
        let (head, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u64::from_ne_bytes(*head))
    }

    fn end<T>(&self, value: T) -> Option<T> {
        self.0.is_empty().then_some(value)
    }
}

#[cfg(test)]
mod tests;
