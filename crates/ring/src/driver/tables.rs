//! The driver's indirect tables, and the buffers of a chain as both ring formats walk them.

use std::sync::Arc;

use ringway_mem::GuestMemory;

use super::{AddError, DriverOptions, Plan};
use crate::descriptor::{BYTES, Descriptor, INDIRECT, WRITE};
use crate::error::RingError;
use crate::shared::{Area, area};

/// Indirect tables in guest memory, one for each descriptor of the ring.
pub(super) struct Tables {
    area: Area,
    guest_address: u64,
    entries: u16,
}

impl Tables {
    pub(super) fn new(
        memory: &Arc<GuestMemory>,
        guest_address: u64,
        plan: &Plan,
        options: &DriverOptions,
    ) -> Result<Option<Self>, RingError> {
        if !options.features.indirect || options.table == 0 {
            return Ok(None);
        }
        let user_address = plan.user_address(memory, guest_address)? + plan.tables as u64;
        let len = plan.end - plan.tables;
        let area = area(memory, user_address, len, 16);
        let part = "indirect tables";
        let size = options.size;
        Ok(Some(Self {
            area: area.map_err(|source| RingError::Area { part, size, source })?,
            guest_address: guest_address + plan.tables as u64,
            entries: options.table,
        }))
    }

    /// Writes the table that belongs to descriptor `owner` and returns the descriptor that refers to it. `link` tells, by index and
    /// whether more follow, the flag and tag of an entry.
    pub(super) fn fill(
        tables: Option<&Self>,
        owner: u16,
        readable: &[(u64, u32)],
        writable: &[(u64, u32)],
        link: impl Fn(u16, bool) -> (u16, u16),
        encode: impl Fn(Descriptor) -> [u64; 2],
    ) -> Result<Descriptor, AddError> {
        let needed = readable.len() + writable.len();
        let refused = |table| AddError::Table { needed, table };
        let tables = tables.ok_or(refused(0))?;
        let count = u16::try_from(needed)
            .ok()
            .filter(|&count| count <= tables.entries);
        let count = count.ok_or(refused(tables.entries))?;
        let start = usize::from(owner) * usize::from(tables.entries) * BYTES;
        for (index, (&(address, len), write)) in (0..).zip(buffers(readable, writable)) {
            let (next, tag) = link(index, index + 1 < count);
            let words = encode(Descriptor {
                address,
                len,
                flags: write | next,
                tag,
            });
            let at = start + usize::from(index) * BYTES;
            tables.area.store_u64(at, words[0]);
            tables.area.store_u64(at + 8, words[1]);
        }
        Ok(Descriptor {
            address: tables.guest_address + start as u64,
            len: u32::from(count) << BYTES.trailing_zeros(),
            flags: INDIRECT,
            tag: 0,
        })
    }
}

/// All buffers of a chain in order, with their direction as a flag.
pub(super) fn buffers<'b>(
    readable: &'b [(u64, u32)],
    writable: &'b [(u64, u32)],
) -> impl Iterator<Item = (&'b (u64, u32), u16)> {
    let readable = readable.iter().map(|buffer| (buffer, 0));
    readable.chain(writable.iter().map(|buffer| (buffer, WRITE)))
}
