//! Framing without input or output: bytes and file descriptors in, whole messages out.
//!
//! The kernel hands descriptors over together with bytes, but does not say to which byte they were attached. A reader that asks for
//! no more than [`Decoder::wanted`] bytes at a time never mixes two messages, so descriptors that come with a message's first byte
//! are that message's, and all others are a fault of the peer.

use std::{mem, os::fd::OwnedFd};

use serde::{Serialize, de::DeserializeOwned};

use super::{MAX_FDS, MAX_MESSAGE};

const HEADER: usize = size_of::<u32>();
/// A length is only a claim; memory is set aside as bytes arrive, from this many on.
const FIRST_ALLOCATION: usize = 64 << 10;

/// A whole message: JSON that is not yet understood, and its file descriptors.
#[derive(Debug)]
pub struct Message {
    /// The JSON text.
    pub body: Vec<u8>,
    /// What came with the first byte; closed when dropped.
    pub fds: Vec<OwnedFd>,
}

/// Why bytes are no message, or a value cannot be one.
#[derive(Debug, thiserror::Error)]
pub enum CodecError {
    /// The length is above the limit.
    #[error("a control message of {length} bytes is longer than the limit of {limit}")]
    TooLong {
        /// Bytes of JSON.
        length: usize,
        /// The most there may be.
        limit: usize,
    },
    /// More descriptors than one message can carry.
    #[error("{count} file descriptors with one control message are more than the limit of {limit}")]
    TooManyFds {
        /// How many.
        count: usize,
        /// The most there may be.
        limit: usize,
    },
    /// Descriptors came, but not with a message's first byte.
    #[error(
        "{count} file descriptors came {offset} bytes into a control message instead of with its first byte"
    )]
    StrayFds {
        /// How many.
        count: usize,
        /// Where, counted from the message's length field.
        offset: usize,
    },
    /// The caller fed more than was wanted, which may belong to the next message.
    #[error("{length} bytes were fed where {wanted} were wanted")]
    Overrun {
        /// Bytes fed.
        length: usize,
        /// Bytes wanted.
        wanted: usize,
    },
    /// The JSON is not what was expected. The framing is intact.
    #[error("a control message is not understood")]
    Json(#[source] serde_json::Error),
}

impl Message {
    /// The value that the JSON stands for.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T, CodecError> {
        serde_json::from_slice(&self.body).map_err(CodecError::Json)
    }
}

/// Puts messages together from what arrives. Holds at most one message.
#[derive(Debug, Default)]
pub struct Decoder {
    /// Length field first, then the body; `header` says which one is being filled.
    bytes: Vec<u8>,
    body_length: Option<usize>,
    fds: Vec<OwnedFd>,
}

impl Decoder {
    /// How many bytes may be fed next; 0 only after an error that put the stream out of step.
    pub fn wanted(&self) -> usize {
        self.body_length.unwrap_or(HEADER) - self.bytes.len()
    }

    /// Whether part of a message is held, so that the peer owes the rest.
    pub fn has_partial(&self) -> bool {
        self.body_length.is_some() || !self.bytes.is_empty()
    }

    /// Takes at most [`wanted`](Self::wanted) bytes and the descriptors that came with them; gives the message they complete.
    ///
    /// After an error the stream is out of step and must be closed.
    pub fn feed(&mut self, bytes: &[u8], fds: Vec<OwnedFd>) -> Result<Option<Message>, CodecError> {
        let wanted = self.wanted();
        if bytes.len() > wanted {
            return Err(CodecError::Overrun {
                length: bytes.len(),
                wanted,
            });
        }
        if !fds.is_empty() {
            if self.has_partial() {
                let offset = self.bytes.len() + self.body_length.map_or(0, |_| HEADER);
                return Err(CodecError::StrayFds {
                    count: fds.len(),
                    offset,
                });
            }
            if fds.len() > MAX_FDS {
                return Err(CodecError::TooManyFds {
                    count: fds.len(),
                    limit: MAX_FDS,
                });
            }
            self.fds = fds;
        }
        self.bytes.extend_from_slice(bytes);
        if self.body_length.is_none()
            && let Ok(header) = <[u8; HEADER]>::try_from(self.bytes.as_slice())
        {
            let length = usize::try_from(u32::from_le_bytes(header)).unwrap_or(usize::MAX);
            if length > MAX_MESSAGE {
                return Err(CodecError::TooLong {
                    length,
                    limit: MAX_MESSAGE,
                });
            }
            self.bytes = Vec::with_capacity(length.min(FIRST_ALLOCATION));
            self.body_length = Some(length);
        }
        if self.body_length != Some(self.bytes.len()) {
            return Ok(None);
        }
        self.body_length = None;
        Ok(Some(Message {
            body: mem::take(&mut self.bytes),
            fds: mem::take(&mut self.fds),
        }))
    }
}

/// The bytes of a message: length and JSON.
pub fn encode(message: &impl Serialize) -> Result<Vec<u8>, CodecError> {
    let mut bytes = vec![0; HEADER];
    serde_json::to_writer(&mut bytes, message).map_err(CodecError::Json)?;
    let length = bytes.len() - HEADER;
    match u32::try_from(length) {
        Ok(header) if length <= MAX_MESSAGE => {
            bytes[..HEADER].copy_from_slice(&header.to_le_bytes())
        }
        _ => {
            return Err(CodecError::TooLong {
                length,
                limit: MAX_MESSAGE,
            });
        }
    }
    Ok(bytes)
}
