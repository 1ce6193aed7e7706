//! Delivering a classified burst: grouped by destination, completed where the receiver lacks an
//! offload, counted.

use ringway_port::burst::bits;
use ringway_port::{Burst, DropReason, Heads, MAX_BURST, Offloads};
use ringway_wire::vlan::{self, Tag, VlanId};
use ringway_wire::{flow, vnet_hdr::VnetHeader};

use crate::classify::Judged;
use crate::clock::Clock;
use crate::fallback;
use crate::snapshot::{Entry, Snapshot};
use crate::totals::Sums;
use crate::watch::Watch;
use crate::worker::share::PER_COPY;

/// A worker's means of delivering; nothing in it is allocated per frame.
pub(crate) struct Delivery {
    pub(crate) sums: Sums,
    /// What copies of flooded frames cost since somebody took note.
    pub(crate) copies: u64,
    /// What becomes of frames, while somebody captures.
    pub(crate) watch: Watch,
    /// Ports that broke while they were sent to.
    pub(crate) faults: Vec<(u32, ringway_port::Fault)>,
    /// Taken while it is lent to a burst.
    retagged: Option<Heads>,
    fallback: fallback::Scratch,
}

impl Delivery {
    pub(crate) fn new() -> Self {
        Self {
            sums: Sums::default(),
            copies: 0,
            watch: Watch::default(),
            faults: Vec::new(),
            retagged: Some(Heads::new()),
            fallback: fallback::Scratch::new(),
        }
    }

    /// Delivers what `judged` says about `burst`, which came from `source`.
    pub(crate) fn deliver(
        &mut self,
        snapshot: &Snapshot,
        slot: u16,
        source: &Entry,
        burst: &mut Burst<'_>,
        judged: &Judged,
        clock: &mut Clock,
    ) {
        self.sums.attempted += judged.refused;
        self.sums.dropped += judged.refused;
        if burst.offloaded != 0 {
            fallback::complete_dhcp(burst);
        }
        if let Some(steering) = &source.policy.steering {
            // One frame of a burst will do: a flow that sends much is met often, and one that does not has bursts of its own.
            if let Some(i) = bits(judged.unicast | judged.flood).next() {
                let hash = flow::hash(burst.head_bytes(i));
                steering.record(hash, burst.queue, clock.seconds());
            }
        }
        let mut pending = judged.unicast;
        while pending != 0 {
            let to = judged.to[pending.trailing_zeros() as usize];
            let group = if judged.uniform {
                pending
            } else {
                same(pending, to, &judged.to)
            };
            pending &= !group;
            match snapshot.entry(to) {
                Some(entry) => self.send_to_port(source, entry, burst, judged, group, clock),
                // The port left between learning and now.
                None => self.lose_at_source(source, DropReason::NoDestination, group),
            }
        }
        if judged.flood != 0 {
            self.flood(snapshot, slot, source, burst, judged, clock);
        }
    }

    #[cold]
    fn flood(
        &mut self,
        snapshot: &Snapshot,
        slot: u16,
        source: &Entry,
        burst: &mut Burst<'_>,
        judged: &Judged,
        clock: &mut Clock,
    ) {
        let mut flood = judged.flood;
        if let Some(storm) = &source.policy.storm {
            let admitted = storm.admit(flood.count_ones(), clock.instant());
            let late = bits(flood).skip(admitted).fold(0, |mask, i| mask | 1 << i);
            if late != 0 {
                self.lose_at_source(source, DropReason::StormLimited, late);
                flood &= !late;
            }
        }
        let mut taken = 0;
        for &to in &snapshot.floods {
            let Some(entry) = snapshot.entry(to).filter(|_| to != slot) else {
                continue;
            };
            if source.policy.isolated && entry.policy.isolated {
                continue;
            }
            let carried = bits(flood)
                .filter(|&i| entry.policy.vlan.carries(judged.domain.of(i)))
                .fold(0, |mask, i| mask | 1 << i);
            if carried != 0 {
                taken |= carried;
                let costs = bits(carried).map(|i| PER_COPY + u64::from(burst.frames[i].len));
                self.copies += costs.sum::<u64>();
                self.send_to_port(source, entry, burst, judged, carried, clock);
            }
        }
        if flood & !taken != 0 {
            self.lose_at_source(source, DropReason::NoDestination, flood & !taken);
        }
    }

    /// Sends a group of frames to one port.
    fn send_to_port(
        &mut self,
        source: &Entry,
        entry: &Entry,
        burst: &mut Burst<'_>,
        judged: &Judged,
        mut group: u64,
        clock: &mut Clock,
    ) {
        if source.policy.isolated && entry.policy.isolated {
            return self.lose(entry, burst, DropReason::Isolated, group);
        }
        // An entry of the learning table that was being replaced may name a port of another VLAN.
        let strays = match judged.domain {
            crate::classify::Domains::One(domain) if entry.policy.vlan.carries(domain) => 0,
            _ => bits(group)
                .filter(|&i| !entry.policy.vlan.carries(judged.domain.of(i)))
                .fold(0, |mask, i| mask | 1 << i),
        };
        if strays != 0 {
            self.lose(entry, burst, DropReason::VlanMismatch, strays);
            group &= !strays;
        }
        if let Some(limiter) = &entry.policy.rate {
            let lengths = bits(group).map(|i| burst.frames[i].len);
            let admitted = limiter.admit(lengths, clock.instant());
            let late = bits(group).skip(admitted).fold(0, |mask, i| mask | 1 << i);
            if late != 0 {
                self.lose(entry, burst, DropReason::RateLimited, late);
                group &= !late;
            }
        }
        if group == 0 {
            return;
        }
        if source.policy.vlan.is_trunk() != entry.policy.vlan.is_trunk() {
            self.retag(source, entry, burst, judged, group);
        } else {
            self.spread(source, entry, burst, group);
        }
    }

    /// Adds or removes the VLAN tag in copies of the heads, then sends those.
    #[cold]
    fn retag(
        &mut self,
        source: &Entry,
        entry: &Entry,
        burst: &Burst<'_>,
        judged: &Judged,
        group: u64,
    ) {
        let mut heads = self.retagged.take().unwrap_or_default();
        let mut changed = Burst::new(&mut heads);
        changed.memory = burst.memory;
        changed.queue = burst.queue;
        let mut origin = [0; MAX_BURST];
        for i in bits(group) {
            let n = changed.frames.len();
            changed.heads[n] = burst.heads[i];
            let mut frame = burst.frames[i];
            let head = &mut changed.heads[n];
            let len = usize::from(frame.head_len);
            let new_len = if entry.policy.vlan.is_trunk() {
                let vlan = VlanId::new(judged.domain.of(i));
                vlan.and_then(|vlan| vlan::insert(head.frame_mut(), len, Tag::new(vlan)).ok())
            } else {
                vlan::remove(head.frame_mut(), len).ok().map(|(_, len)| len)
            };
            let moved = new_len.and_then(|new_len| {
                let delta = i16::try_from(new_len).ok()? - i16::try_from(len).ok()?;
                let header = VnetHeader::from_bytes(head.vnet()).move_headers(delta)?;
                Some((header, u16::try_from(new_len).ok()?, delta))
            });
            let room = changed.batch.segments.remaining_capacity();
            let Some((header, head_len, delta)) =
                moved.filter(|_| room >= usize::from(frame.segments))
            else {
                self.lose(entry, burst, DropReason::VlanMismatch, 1 << i);
                continue;
            };
            *head.vnet_mut() = header.to_bytes();
            frame.first = u16::try_from(changed.batch.segments.len()).unwrap_or(u16::MAX);
            changed.batch.segments.extend(burst.body(i).iter().copied());
            frame.head_len = head_len;
            frame.len = frame.len.saturating_add_signed(i32::from(delta));
            changed.push_frame(frame);
            origin[n] = u8::try_from(i).unwrap_or(0);
        }
        let all = changed.all();
        if self.watch.is_on() {
            self.watch.follow(Some(origin));
        }
        self.spread(source, entry, &mut changed, all);
        self.watch.follow(None);
        drop(changed);
        self.retagged = Some(heads);
    }

    /// Chooses the queue: one flow stays on one queue, so its frames stay in order. It is the one that the receiver sends the
    /// flow from. While that is not known, a sender with as many queues as the receiver has spread its flows already; those of
    /// fewer queues are spread by hash.
    fn spread(&mut self, source: &Entry, entry: &Entry, burst: &mut Burst<'_>, group: u64) {
        let queues = match entry.port.send_queues() {
            0 => return self.lose(entry, burst, DropReason::NotConnected, group),
            1 => return self.send_to_queue(entry, 0, burst, group),
            queues => queues,
        };
        let spread = queues <= source.port.send_queues().max(1);
        let mut choice = [0u16; MAX_BURST];
        for i in bits(group) {
            let hash = flow::hash(burst.head_bytes(i));
            let known = entry.policy.steering.as_ref();
            let queue = match known.and_then(|known| known.find(hash, queues)) {
                Some(queue) => queue,
                None if spread => burst.queue % queues,
                None => hash as usize % queues,
            };
            choice[i] = u16::try_from(queue).unwrap_or(0);
        }
        let mut pending = group;
        while pending != 0 {
            let queue = choice[pending.trailing_zeros() as usize];
            let chosen = same(pending, queue, &choice);
            pending &= !chosen;
            self.send_to_queue(entry, usize::from(queue), burst, chosen);
        }
    }

    /// Sends frames to one queue; those that ask for more than the receiver takes are completed or
    /// segmented in between, in order.
    fn send_to_queue(
        &mut self,
        entry: &Entry,
        queue: usize,
        burst: &mut Burst<'_>,
        mut group: u64,
    ) {
        if let Some(mtu) = entry.port.mtu() {
            let longer = bits(group)
                .filter(|&i| fallback::exceeds(burst, i, mtu))
                .fold(0, |mask, i| mask | 1 << i);
            if longer != 0 {
                self.lose(entry, burst, DropReason::MtuExceeded, longer);
                group &= !longer;
            }
        }
        let takes = entry.port.offloads();
        let unfit = match burst.offloaded & group {
            0 => 0,
            offloaded => fit(burst, offloaded, takes),
        };
        let mut rest = group;
        while rest != 0 {
            let first_unfit = (rest & unfit).trailing_zeros();
            // Frames up to the next one that has to be segmented.
            let run = rest & !u64::MAX.checked_shl(first_unfit).unwrap_or(0);
            if run != 0 {
                let sent = entry.port.send(queue, burst, run);
                self.account(entry, burst, run, &sent);
            }
            rest &= !run;
            if rest != 0 {
                let i = first_unfit as usize;
                let sent = self.fallback.send(&*entry.port, queue, burst, i, takes);
                self.account(entry, burst, 1 << i, &sent);
                rest &= !(1 << i);
            }
        }
    }

    fn account(&mut self, entry: &Entry, burst: &Burst<'_>, picks: u64, sent: &ringway_port::Sent) {
        if self.watch.is_on() {
            let reason = Some(sent.reason.unwrap_or(DropReason::Fault));
            self.watch.sent(entry, burst, picks, sent.delivered, reason);
        }
        self.sums.attempted += u64::from(picks.count_ones());
        self.sums.delivered += u64::from(sent.delivered.count_ones());
        self.sums.copied_bytes += sent.copied;
        let lost = picks & !sent.delivered;
        if lost != 0 {
            let count = u64::from(lost.count_ones());
            self.sums.dropped += count;
            entry
                .port
                .counters()
                .drop_frames(sent.reason.unwrap_or(DropReason::Fault), count);
        }
        if let Some(fault) = sent.fault {
            self.faults.push((entry.number, fault));
        }
    }

    /// Counts deliveries that were given up before they reached a queue.
    #[cold]
    fn lose(&mut self, entry: &Entry, burst: &Burst<'_>, reason: DropReason, frames: u64) {
        if self.watch.is_on() {
            self.watch.sent(entry, burst, frames, 0, Some(reason));
        }
        self.count_lost(entry, reason, frames);
    }

    /// The same for frames that had no destination.
    #[cold]
    fn lose_at_source(&mut self, source: &Entry, reason: DropReason, frames: u64) {
        if self.watch.is_on() {
            self.watch.lost(frames, reason);
        }
        self.count_lost(source, reason, frames);
    }

    fn count_lost(&mut self, entry: &Entry, reason: DropReason, frames: u64) {
        let count = u64::from(frames.count_ones());
        self.sums.attempted += count;
        self.sums.dropped += count;
        entry.port.counters().drop_frames(reason, count);
    }
}

/// Completes checksums the receiver cannot take; returns the frames that need more than that.
#[cold]
fn fit(burst: &mut Burst<'_>, frames: u64, takes: Offloads) -> u64 {
    let mut unfit = 0;
    for i in bits(frames) {
        let header = VnetHeader::from_bytes(burst.heads[i].vnet());
        if header.is_gso() {
            let taken = header.validate(burst.frames[i].len as usize, takes).is_ok();
            unfit |= u64::from(!taken) << i;
        } else if !takes.csum && !fallback::complete(burst, i) {
            unfit |= 1 << i;
        }
    }
    unfit
}

/// The frames among `pending` whose value is `wanted`.
fn same(pending: u64, wanted: u16, values: &[u16; MAX_BURST]) -> u64 {
    let equal = values
        .iter()
        .rev()
        .fold(0, |mask, &value| mask << 1 | u64::from(value == wanted));
    pending & equal
}
