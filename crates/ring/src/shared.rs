//! The words that both sides of a ring share, and the fence between them.
//!
//! Tests of this crate put words in their place that loom watches over, and so explore the code of both sides as it is.

use std::sync::Arc;

use ringway_mem::{GuestMemory, MemoryError};

#[cfg(test)]
pub(crate) use crate::explore::{Area, fence};
#[cfg(not(test))]
pub(crate) use ringway_mem::{Area, fence};

/// Ring memory: `len` bytes at the front-end's address, inside one region and aligned to `align`.
pub(crate) fn area(
    memory: &Arc<GuestMemory>,
    user_address: u64,
    len: usize,
    align: usize,
) -> Result<Area, MemoryError> {
    let area = memory.area(user_address, len, align)?;
    #[cfg(test)]
    let area = Area::watched(user_address, area);
    Ok(area)
}
