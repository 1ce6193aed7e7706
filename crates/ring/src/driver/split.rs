//! The driver side of the split virtqueue (virtio 1.2, 2.7.13 and 2.7.14).

use std::sync::Arc;

use ringway_mem::GuestMemory;

use super::slots::{Held, Slots, room};
use super::tables::{Tables, buffers};
use super::{AddError, DriverFault, DriverOptions, Plan, Used};
use crate::descriptor::{Descriptor, NEXT, need_event};
use crate::error::RingError;
use crate::layout::{MAX_SIZE, RingBase, RingFeatures, RingLayout};
use crate::shared::fence;
use crate::split::{Areas, NO_EVENT};

/// A split ring as the driver works on it.
pub struct SplitDriver {
    areas: Areas,
    layout: RingLayout,
    features: RingFeatures,
    slots: Slots,
    /// Heads by available index, as far as they are out.
    order: Box<[u16]>,
    /// Next available entry to write.
    next: u16,
    /// Available index as the device sees it.
    published: u16,
    /// Next used element to read.
    used: u16,
    /// The element that stands for this chain and all before it (virtio 1.2, 2.7.8.1).
    skip_to: Option<(u32, u32)>,
    tables: Option<Tables>,
}

impl SplitDriver {
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
        if features.packed || base.wraps.is_some() {
            let packed = features.packed;
            return Err(RingError::Format { packed });
        }
        // Before the plan, which a wrong size would make a wrong place.
        if !size.is_power_of_two() || size > MAX_SIZE {
            return Err(RingError::Size { size });
        }
        let plan = Plan::new(&options);
        let start = plan.user_address(memory, guest_address)?;
        let layout = RingLayout {
            size,
            descriptors: start,
            available: start + plan.available as u64,
            used: start + plan.used as u64,
        };
        let areas = Areas::new(memory, &layout)?;
        for index in 0..size {
            areas.set_descriptor(index, [0; 2]);
            areas.set_head(index, 0);
            areas.set_used_element(index, 0, 0);
        }
        areas.set_available_flags(0);
        areas.set_used_flags(0);
        areas.set_used_event(base.used);
        areas.set_available_event(base.available);
        areas.set_used_index(base.used);
        areas.set_available_index(base.available);
        Ok(Self {
            areas,
            layout,
            features,
            slots: Slots::new(size),
            order: vec![0; usize::from(size)].into_boxed_slice(),
            next: base.available,
            published: base.available,
            used: base.used,
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
        let free = self.slots.free();
        let in_ring = if indirect { 1 } else { needed };
        let count = match u16::try_from(in_ring) {
            Ok(count) if count <= free => count,
            _ => {
                return Err(AddError::Full {
                    needed: in_ring,
                    free,
                });
            }
        };
        let head = self.slots.head();
        let mut last = head;
        if indirect {
            let table = Tables::fill(
                self.tables.as_ref(),
                head,
                readable,
                writable,
                |index, more| {
                    if more { (NEXT, index + 1) } else { (0, 0) }
                },
                Descriptor::to_split,
            )?;
            self.areas.set_descriptor(head, table.to_split());
        } else {
            let mut left = needed;
            for (&(address, len), write) in buffers(readable, writable) {
                left -= 1;
                let index = if left + 1 == needed {
                    head
                } else {
                    self.slots.next(last)
                };
                let (next, tag) = if left > 0 {
                    (NEXT, self.slots.next(index))
                } else {
                    (0, 0)
                };
                let descriptor = Descriptor {
                    address,
                    len,
                    flags: write | next,
                    tag,
                };
                self.areas.set_descriptor(index, descriptor.to_split());
                last = index;
            }
        }
        let held = Held {
            turn: self.next,
            room: room(writable),
        };
        self.slots.take(count, last, held);
        self.areas.set_head(self.next, head);
        self.order[usize::from(self.next) & (self.order.len() - 1)] = head;
        self.next = self.next.wrapping_add(1);
        Ok(head)
    }

    pub(super) fn publish(&mut self) -> bool {
        let (old, new) = (self.published, self.next);
        if old == new {
            return false;
        }
        self.areas.set_available_index(new);
        self.published = new;
        // The device stores what it wants and then looks at the index; we do the reverse (virtio 1.2, 2.7.13.4.1).
        fence();
        if self.features.event_idx {
            need_event(self.areas.available_event(), new, old)
        } else {
            self.areas.used_flags() & NO_EVENT == 0
        }
    }

    pub(super) fn pop_used(&mut self) -> Result<Option<Used>, DriverFault> {
        let expected = self.used;
        let index = self.areas.used_index();
        if index == expected {
            return match self.skip_to.take() {
                // The index ended before the chain that the element named.
                Some((id, _)) => Err(DriverFault::UnknownChain { id }),
                None => Ok(None),
            };
        }
        let out = self.published.wrapping_sub(expected);
        if index.wrapping_sub(expected) > out {
            return Err(DriverFault::UsedJump {
                index,
                expected,
                out,
            });
        }
        let (named, len) = match self.skip_to {
            Some(element) => element,
            None => self.areas.used_element(expected),
        };
        let unknown = DriverFault::UnknownChain { id: named };
        let mut id = u16::try_from(named).map_err(|_| unknown)?;
        let mut len = len;
        if self.features.in_order {
            let oldest = self.order[usize::from(expected) & (self.order.len() - 1)];
            if id == oldest {
                self.skip_to = None;
            } else {
                self.skip_to = Some((named, len));
                id = oldest;
                // A skipped chain counts as used wholly.
                len = self.slots.chain(oldest).map_or(0, |chain| chain.room);
            }
        }
        // What was added and not published is not the device's to use. At most as many chains as
        // descriptors are held, so the indices are told apart.
        let staged = self.next.wrapping_sub(self.published);
        let is_published = |chain: &Held| chain.turn.wrapping_sub(self.published) >= staged;
        let Some(Held { room, .. }) = self.slots.chain(id).filter(is_published) else {
            return Err(unknown);
        };
        if len > room {
            return Err(DriverFault::Overwritten { id, len, room });
        }
        self.slots.give_back(id);
        self.used = expected.wrapping_add(1);
        Ok(Some(Used { id, len }))
    }

    pub(super) fn disable_calls(&mut self) {
        // With event indices, the one last written falls behind and does no harm.
        if !self.features.event_idx {
            self.areas.set_available_flags(NO_EVENT);
        }
    }

    pub(super) fn enable_calls(&mut self) -> bool {
        if self.features.event_idx {
            self.areas.set_used_event(self.used);
        } else {
            self.areas.set_available_flags(0);
        }
        fence();
        self.has_used()
    }

    pub(super) fn has_used(&self) -> bool {
        self.areas.used_index() != self.used
    }

    pub(super) fn free(&self) -> u16 {
        self.slots.free()
    }

    pub(super) fn layout(&self) -> RingLayout {
        self.layout
    }

    pub(super) fn base(&self) -> RingBase {
        RingBase::split(self.used)
    }
}
