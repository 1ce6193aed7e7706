//! The driver side of the packed virtqueue (virtio 1.2, 2.8.21 and 2.8.22).

use std::sync::Arc;

use ringway_mem::GuestMemory;

use super::chains::Chains;
use super::slots::room;
use super::tables::{Tables, buffers};
use super::{AddError, DriverFault, DriverOptions, Plan, Used};
use crate::descriptor::{Descriptor, NEXT, WRITE};
use crate::error::RingError;
use crate::layout::{RingBase, RingFeatures, RingLayout};
use crate::packed::{Areas, Event, OWNER, Place, start};
use crate::shared::fence;

/// A packed ring as the driver works on it.
pub struct PackedDriver {
    areas: Areas,
    layout: RingLayout,
    features: RingFeatures,
    chains: Chains,
    free: u16,
    /// Next descriptor to write.
    next: Place,
    /// The first descriptor that the device does not see yet, and the word with its flags, which is not written yet.
    published: Place,
    withheld: u64,
    /// Descriptors from there to `next`.
    staged: u16,
    /// Next used descriptor to read.
    used: Place,
    /// The used descriptor that stands for this chain and all before it (virtio 1.2, 2.8.9).
    skip_to: Option<(u16, u32)>,
    tables: Option<Tables>,
}

impl PackedDriver {
    pub(super) fn new(
        memory: &Arc<GuestMemory>,
        guest_address: u64,
        options: DriverOptions,
    ) -> Result<Self, RingError> {
        let DriverOptions {
            size,
            features,
            base,
            ..
        } = options;
        let begin = start(features, size, base)?;
        let plan = Plan::new(&options);
        let address = plan.user_address(memory, guest_address)?;
        let layout = RingLayout {
            size,
            descriptors: address,
            available: address + plan.available as u64,
            used: address + plan.used as u64,
        };
        let areas = Areas::new(memory, &layout)?;
        for index in 0..size {
            // As if all had been used, up to where the ring starts in this lap and from there on in the one before.
            let wrap = begin.wrap == (index < begin.index);
            let flags = Place { index, wrap }.used();
            let [first, second] = Descriptor::NONE.with_flags(flags).to_packed();
            areas.set_first_word(index, first);
            areas.set_second_word(index, second);
        }
        areas.set_driver_event(Event::Enable);
        areas.clear_device_event();
        Ok(Self {
            areas,
            layout,
            features,
            chains: Chains::new(size, features.in_order),
            free: size,
            next: begin,
            published: begin,
            withheld: 0,
            staged: 0,
            used: begin,
            skip_to: None,
            tables: Tables::new(memory, guest_address, &plan, &options)?,
        })
    }

    pub(super) fn add(
        &mut self,
        readable: &[(u64, u32)],
        writable: &[(u64, u32)],
        indirect: bool,
    ) -> Result<u16, AddError> {
        let needed = readable.len() + writable.len();
        if needed == 0 {
            return Err(AddError::Empty);
        }
        let in_ring = if indirect { 1 } else { needed };
        let full = AddError::Full {
            needed: in_ring,
            free: self.free,
        };
        let count = u16::try_from(in_ring).map_err(|_| full)?;
        let id = match self.chains.next_id() {
            Some(id) if count <= self.free => id,
            _ => return Err(full),
        };
        if indirect {
            let table = Tables::fill(
                self.tables.as_ref(),
                id,
                readable,
                writable,
                |_, _| (0, 0),
                Descriptor::to_packed,
            )?;
            self.stage(Descriptor { tag: id, ..table });
        } else {
            let mut left = needed;
            for (&(address, len), write) in buffers(readable, writable) {
                left -= 1;
                // The last one names the chain (virtio 1.2, 2.8.6).
                let (next, tag) = if left > 0 { (NEXT, 0) } else { (0, id) };
                self.stage(Descriptor {
                    address,
                    len,
                    flags: write | next,
                    tag,
                });
            }
        }
        self.chains.take(count, room(writable));
        self.free -= count;
        Ok(id)
    }

    /// Writes a descriptor at the next place. The device sees the first one, hence any, only once its flags are there.
    #[inline]
    fn stage(&mut self, descriptor: Descriptor) {
        let Place { index, .. } = self.next;
        let flags = descriptor.flags | self.next.available();
        let [first, second] = descriptor.with_flags(flags).to_packed();
        self.areas.set_first_word(index, first);
        if self.staged == 0 {
            self.withheld = second;
        } else {
            self.areas.set_second_word(index, second);
        }
        self.staged += 1;
        self.next = self.next.forward(1, self.areas.size());
    }

    pub(super) fn publish(&mut self) -> bool {
        if self.staged == 0 {
            return false;
        }
        let (old, count) = (self.published, self.staged);
        self.areas.publish_second_word(old.index, self.withheld);
        self.chains.publish();
        self.published = self.next;
        self.staged = 0;
        // The device stores what it wants and then looks at the descriptor; we do the reverse (virtio 1.2, 2.8.21.3.1).
        fence();
        let event = self.areas.device_event(self.features.event_idx);
        event.wants(old, count, self.areas.size())
    }

    pub(super) fn pop_used(&mut self) -> Result<Option<Used>, DriverFault> {
        let Some((named, mut len)) = self.skip_to.or_else(|| self.used_at(self.used)) else {
            return Ok(None);
        };
        let unknown = DriverFault::UnknownChain { id: named.into() };
        let (mut slots, mut room) = self.chains.out(named).ok_or(unknown)?;
        let mut id = named;
        let mut skip_to = None;
        if let Some(oldest) = self.chains.oldest()
            && oldest != named
        {
            skip_to = Some((named, len));
            id = oldest;
            (slots, room) = self.chains.out(oldest).ok_or(unknown)?;
            // A skipped chain counts as used wholly.
            len = room;
        }
        if len > room {
            return Err(DriverFault::Overwritten { id, len, room });
        }
        self.skip_to = skip_to;
        self.chains.give_back(id);
        self.free += slots;
        self.used = self.used.forward(slots, self.areas.size());
        Ok(Some(Used { id, len }))
    }

    /// Id and length of the used descriptor at a place, if there is one.
    #[inline]
    fn used_at(&self, place: Place) -> Option<(u16, u32)> {
        let descriptor = Descriptor::from_packed(self.areas.descriptor(place.index));
        // Without the flag, the length means nothing (virtio 1.2, 2.8.5).
        let written = descriptor.flags & WRITE != 0;
        let len = if written { descriptor.len } else { 0 };
        (descriptor.flags & OWNER == place.used()).then_some((descriptor.tag, len))
    }

    pub(super) fn disable_calls(&mut self) {
        self.areas.set_driver_event(Event::Disable);
    }

    pub(super) fn enable_calls(&mut self) -> bool {
        self.areas.set_driver_event(if self.features.event_idx {
            Event::Descriptor(self.used)
        } else {
            Event::Enable
        });
        fence();
        self.has_used()
    }

    pub(super) fn has_used(&self) -> bool {
        self.skip_to.is_some() || self.areas.owner(self.used.index) == self.used.used()
    }

    pub(super) fn free(&self) -> u16 {
        self.free
    }

    pub(super) fn layout(&self) -> RingLayout {
        self.layout
    }

    /// After all that came back, popped or not: a device cannot see that in the ring.
    pub(super) fn base(&self) -> RingBase {
        let is_out = |&id: &u16| self.chains.out(id).is_some();
        let mut place = self.used;
        let mut skip_to = self.skip_to.map(|(id, _)| id);
        let mut order = self.chains.oldest_first();
        for _ in 0..self.areas.size() {
            let named = skip_to.or_else(|| self.used_at(place).map(|(id, _)| id));
            let Some(named) = named.filter(is_out) else {
                break;
            };
            let id = order.next().unwrap_or(named);
            let Some((slots, _)) = self.chains.out(id) else {
                break;
            };
            place = place.forward(slots, self.areas.size());
            skip_to = (id != named).then_some(named);
        }
        RingBase::packed(place.index, place.wrap)
    }
}
