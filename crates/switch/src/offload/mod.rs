//! What a receiver without an offload is owed, in software: complete checksums and segments that
//! fit. Pure functions over private bytes.

mod checksum;
mod segment;

pub use checksum::{complete_checksum, complete_checksum_with};
pub use segment::{Checksums, MAX_HEAD_LEN, MAX_SEGMENTS, Segment, Segmenter};

/// Why an offload cannot be done in software. The sender is at fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OffloadFault {
    /// The checksum field does not lie in the bytes at hand.
    #[error("checksum start {start} plus offset {offset} lies beyond {len} bytes")]
    ChecksumOutside {
        /// csum_start
        start: u16,
        /// csum_offset
        offset: u16,
        /// Bytes of the frame, or of the head that must hold the field.
        len: usize,
    },
    /// Segmentation without a partial checksum.
    #[error("segmentation type 0x{gso_type:02x} without a partial checksum")]
    WithoutChecksum {
        /// gso_type
        gso_type: u8,
    },
    /// The checksum is not where the segmented protocol has it.
    #[error(
        "checksum start {start} and offset {offset} instead of {right_start} and {right_offset}"
    )]
    ChecksumMisplaced {
        /// csum_start
        start: u16,
        /// csum_offset
        offset: u16,
        /// Where the transport header begins.
        right_start: usize,
        /// Where its checksum is.
        right_offset: u16,
    },
    /// No type of segmentation that is done here.
    #[error("segmentation type 0x{gso_type:02x} is not supported")]
    UnknownType {
        /// gso_type
        gso_type: u8,
    },
    /// Segments of no bytes.
    #[error("a segment size of 0")]
    SizeZero,
    /// The frame has no whole, unfragmented headers of the protocol to be segmented.
    #[error("a frame of {len} bytes has no headers that fit segmentation type 0x{gso_type:02x}")]
    HeadersMissing {
        /// gso_type
        gso_type: u8,
        /// Bytes of the frame.
        len: usize,
    },
    /// More headers than are copied in front of every segment.
    #[error("headers of {len} bytes, at most {MAX_HEAD_LEN} are repeated")]
    HeadersTooLong {
        /// Bytes of the headers.
        len: usize,
    },
    /// The segment size would make too many frames of one.
    #[error("a payload of {payload} bytes in segments of {size} makes more than {MAX_SEGMENTS}")]
    TooManySegments {
        /// Bytes to be segmented.
        payload: usize,
        /// gso_size
        size: u16,
    },
    /// The segment would not fit into the IP length field.
    #[error("segments of {len} bytes of IP do not fit into its length field")]
    SegmentTooLong {
        /// Bytes of the longest segment, from the IP header on.
        len: usize,
    },
}
