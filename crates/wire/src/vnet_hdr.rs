//! The virtio-net header in front of every frame (virtio 1.2, 5.1.6; linux/virtio_net.h).
//!
//! Little-endian, as with VIRTIO_F_VERSION_1 and on little-endian hosts' taps.

/// Bytes of the header with VIRTIO_F_VERSION_1 or VIRTIO_NET_F_MRG_RXBUF.
pub const LEN: usize = 12;
/// Bytes of the header with neither: there is no `num_buffers`.
pub const LEGACY_LEN: usize = 10;

/// VIRTIO_NET_HDR_F_NEEDS_CSUM: the checksum at `csum_start + csum_offset` holds only the pseudo header's sum.
pub const F_NEEDS_CSUM: u8 = 1;
/// VIRTIO_NET_HDR_F_DATA_VALID: the checksum has been checked. Only from device to driver.
pub const F_DATA_VALID: u8 = 2;
/// VIRTIO_NET_HDR_F_RSC_INFO: the csum fields carry counts of coalesced segments. Only from device to driver.
pub const F_RSC_INFO: u8 = 4;

/// VIRTIO_NET_HDR_GSO_NONE: an ordinary frame.
pub const GSO_NONE: u8 = 0;
/// VIRTIO_NET_HDR_GSO_TCPV4: TCP over IPv4 to be segmented.
pub const GSO_TCPV4: u8 = 1;
/// VIRTIO_NET_HDR_GSO_UDP: IPv4 UDP to be fragmented (UFO); never offered here.
pub const GSO_UDP: u8 = 3;
/// VIRTIO_NET_HDR_GSO_TCPV6: TCP over IPv6 to be segmented.
pub const GSO_TCPV6: u8 = 4;
/// VIRTIO_NET_HDR_GSO_UDP_L4: UDP to be segmented into datagrams (USO).
pub const GSO_UDP_L4: u8 = 5;
/// VIRTIO_NET_HDR_GSO_ECN: flag on a TCP type, the frame has CWR set.
pub const GSO_ECN: u8 = 0x80;

/// Byte of a TCP header whose upper half counts its 32-bit words (RFC 9293, 3.1).
const TCP_DATA_OFFSET: usize = 12;

const TCPV4_ECN: u8 = GSO_TCPV4 | GSO_ECN;
const TCPV6_ECN: u8 = GSO_TCPV6 | GSO_ECN;

/// A virtio-net header in our own words and byte order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VnetHeader {
    /// `F_*` bits.
    pub flags: u8,
    /// One of `GSO_*`, a TCP one perhaps with [`GSO_ECN`].
    pub gso_type: u8,
    /// Bytes of all headers; a hint that nobody may rely on.
    pub hdr_len: u16,
    /// Payload bytes per segment.
    pub gso_size: u16,
    /// Where the checksum begins, counted from the frame's first byte.
    pub csum_start: u16,
    /// Where the checksum stands, counted from `csum_start`.
    pub csum_offset: u16,
    /// Buffers a received frame fills; without meaning on transmission.
    pub num_buffers: u16,
}

const _: () = assert!(size_of::<VnetHeader>() == LEN);

/// What a sender has negotiated and may therefore ask for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Allowed {
    /// Partial checksums (VIRTIO_NET_F_CSUM).
    pub csum: bool,
    /// TCP over IPv4 (VIRTIO_NET_F_HOST_TSO4).
    pub tso4: bool,
    /// TCP over IPv6 (VIRTIO_NET_F_HOST_TSO6).
    pub tso6: bool,
    /// CWR in the frames to be segmented (VIRTIO_NET_F_HOST_ECN).
    pub ecn: bool,
    /// UDP segmentation (VIRTIO_NET_F_HOST_USO).
    pub uso: bool,
}

/// Why a header is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderFault {
    /// NEEDS_CSUM without VIRTIO_NET_F_CSUM.
    #[error("a partial checksum was not negotiated")]
    ChecksumNotNegotiated,
    /// The checksum field does not lie in the frame.
    #[error(
        "checksum start {start} plus offset {offset} lies beyond the frame of {frame_len} bytes"
    )]
    ChecksumOutside {
        /// csum_start
        start: u16,
        /// csum_offset
        offset: u16,
        /// Bytes of the frame.
        frame_len: usize,
    },
    /// No type of segmentation that the specification knows, or ECN on one that is not TCP.
    #[error("unknown segmentation type 0x{gso_type:02x}")]
    UnknownGsoType {
        /// gso_type
        gso_type: u8,
    },
    /// The feature for this type was not negotiated.
    #[error("segmentation type 0x{gso_type:02x} was not negotiated")]
    GsoNotNegotiated {
        /// gso_type
        gso_type: u8,
    },
    /// Segments of no bytes.
    #[error("segmentation type 0x{gso_type:02x} with a segment size of 0")]
    GsoSizeZero {
        /// gso_type
        gso_type: u8,
    },
    /// Segmentation without NEEDS_CSUM.
    #[error("segmentation type 0x{gso_type:02x} without a partial checksum")]
    GsoWithoutChecksum {
        /// gso_type
        gso_type: u8,
    },
}

impl VnetHeader {
    /// Reads the first 12 bytes, or the first 10 if there are no more (`num_buffers` is then 0).
    #[inline]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        if let Some(whole) = bytes.first_chunk::<LEN>() {
            return Some(Self::from_bytes(whole));
        }
        let legacy: &[u8; LEGACY_LEN] = bytes.first_chunk()?;
        let mut whole = [0; LEN];
        whole[..LEGACY_LEN].copy_from_slice(legacy);
        Some(Self::from_bytes(&whole))
    }

    /// Reads a header of 12 bytes.
    #[inline]
    pub fn from_bytes(bytes: &[u8; LEN]) -> Self {
        let word = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        Self {
            flags: bytes[0],
            gso_type: bytes[1],
            hdr_len: word(2),
            gso_size: word(4),
            csum_start: word(6),
            csum_offset: word(8),
            num_buffers: word(10),
        }
    }

    /// The 12 bytes; the first 10 of them are the legacy header.
    #[inline]
    pub fn to_bytes(self) -> [u8; LEN] {
        let [h0, h1] = self.hdr_len.to_le_bytes();
        let [g0, g1] = self.gso_size.to_le_bytes();
        let [s0, s1] = self.csum_start.to_le_bytes();
        let [o0, o1] = self.csum_offset.to_le_bytes();
        let [n0, n1] = self.num_buffers.to_le_bytes();
        [
            self.flags,
            self.gso_type,
            h0,
            h1,
            g0,
            g1,
            s0,
            s1,
            o0,
            o1,
            n0,
            n1,
        ]
    }

    /// Writes as many of the 12 bytes as `out` takes: 12, or 10 for the legacy header.
    #[inline]
    pub fn write(self, out: &mut [u8]) {
        let len = out.len().min(LEN);
        out[..len].copy_from_slice(&self.to_bytes()[..len]);
    }

    /// The checksum is partial.
    #[inline]
    pub fn needs_csum(&self) -> bool {
        self.flags & F_NEEDS_CSUM != 0
    }

    /// The frame is to be segmented.
    #[inline]
    pub fn is_gso(&self) -> bool {
        self.gso_type != GSO_NONE
    }

    /// The type of segmentation without the ECN flag.
    #[inline]
    pub fn gso_kind(&self) -> u8 {
        self.gso_type & !GSO_ECN
    }

    /// Checks a sender's header against its frame (without this header) and what was negotiated
    /// (virtio 1.2, 5.1.6.2). `hdr_len`, `num_buffers` and unknown flags are not judged:
    /// [`normalized`](Self::normalized) clears them.
    #[inline]
    pub fn validate(&self, frame_len: usize, allowed: Allowed) -> Result<(), HeaderFault> {
        if self.flags & F_NEEDS_CSUM == 0 && self.gso_type == GSO_NONE {
            return Ok(());
        }
        self.validate_offload(frame_len, allowed)
    }

    fn validate_offload(&self, frame_len: usize, allowed: Allowed) -> Result<(), HeaderFault> {
        let gso_type = self.gso_type;
        if self.needs_csum() {
            if !allowed.csum {
                return Err(HeaderFault::ChecksumNotNegotiated);
            }
            let end = usize::from(self.csum_start) + usize::from(self.csum_offset) + 2;
            if end > frame_len {
                return Err(HeaderFault::ChecksumOutside {
                    start: self.csum_start,
                    offset: self.csum_offset,
                    frame_len,
                });
            }
        }
        let negotiated = match gso_type {
            GSO_NONE => return Ok(()),
            GSO_TCPV4 => allowed.tso4,
            GSO_TCPV6 => allowed.tso6,
            TCPV4_ECN => allowed.tso4 && allowed.ecn,
            TCPV6_ECN => allowed.tso6 && allowed.ecn,
            GSO_UDP_L4 => allowed.uso,
            GSO_UDP => false,
            _ => return Err(HeaderFault::UnknownGsoType { gso_type }),
        };
        if !negotiated {
            return Err(HeaderFault::GsoNotNegotiated { gso_type });
        }
        if !self.needs_csum() {
            return Err(HeaderFault::GsoWithoutChecksum { gso_type });
        }
        if self.gso_size == 0 {
            return Err(HeaderFault::GsoSizeZero { gso_type });
        }
        Ok(())
    }

    /// The header as it may be handed on: only the flags in `keep` ([`F_NEEDS_CSUM`] from a guest,
    /// [`F_DATA_VALID`] as well from the kernel), fields without meaning zeroed, `hdr_len` within
    /// the frame, one buffer.
    #[inline]
    pub fn normalized(&self, frame_len: usize, keep: u8) -> Self {
        let flags = self.flags & keep;
        let mut clean = Self {
            flags,
            num_buffers: 1,
            ..Self::default()
        };
        if flags & F_NEEDS_CSUM != 0 {
            clean.csum_start = self.csum_start;
            clean.csum_offset = self.csum_offset;
        }
        if self.gso_type != GSO_NONE {
            clean.gso_type = self.gso_type;
            clean.gso_size = self.gso_size;
            let limit = u16::try_from(frame_len).unwrap_or(u16::MAX);
            clean.hdr_len = self.hdr_len.min(limit);
        }
        clean
    }

    /// The header with `hdr_len` as the transport header in `head`, the frame's beginning, says: a
    /// sender's own word is not to be relied on. Where `head` ends before, the least it can be.
    pub fn with_measured_hdr_len(&self, head: &[u8], frame_len: usize) -> Self {
        let start = usize::from(self.csum_start);
        let transport = match self.gso_kind() {
            GSO_NONE => return *self,
            GSO_UDP_L4 => 8,
            _ => {
                let words = head
                    .get(start + TCP_DATA_OFFSET)
                    .map_or(5, |byte| byte >> 4);
                usize::from(words.max(5)) * 4
            }
        };
        Self {
            hdr_len: u16::try_from((start + transport).min(frame_len)).unwrap_or(u16::MAX),
            ..*self
        }
    }

    /// The header after `delta` bytes were put in front of the network header (negative: taken away),
    /// as VLAN tags are. None if a field would leave its range.
    pub fn move_headers(&self, delta: i16) -> Option<Self> {
        let mut moved = *self;
        if self.needs_csum() {
            moved.csum_start = self.csum_start.checked_add_signed(delta)?;
        }
        if self.hdr_len != 0 {
            moved.hdr_len = self.hdr_len.checked_add_signed(delta)?;
        }
        Some(moved)
    }
}

#[cfg(test)]
mod tests;
