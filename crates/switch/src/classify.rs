//! Where each frame of a burst goes, judged on the private heads alone.

use arrayvec::ArrayVec;
use ringway_port::burst::bits;
use ringway_port::{Burst, DropReason, MAX_BURST};
use ringway_wire::layers::dissect;
use ringway_wire::vnet_hdr::{F_NEEDS_CSUM, VnetHeader};
use ringway_wire::{eth, vlan};

use crate::policy::Vlan;
use crate::snapshot::Entry;
use crate::table::{Key, Learned, Table};

/// What was decided about a burst, a bit or a field per frame.
pub(crate) struct Judged {
    /// Frames for one port each.
    pub(crate) unicast: u64,
    /// Frames for everybody in their VLAN.
    pub(crate) flood: u64,
    /// Destination slot of unicast frames.
    pub(crate) to: [u16; MAX_BURST],
    /// All unicast frames go to the same slot.
    pub(crate) uniform: bool,
    /// VLAN of each frame, 0 for none.
    pub(crate) domain: Domains,
    /// Frames refused here; the reasons are counted at the port.
    pub(crate) refused: u64,
    /// Which ones, and why: every reason there is here once.
    pub(crate) refusals: ArrayVec<(DropReason, u64), REASONS>,
}

/// Reasons to refuse a frame before it is looked up, and a few more.
const REASONS: usize = 8;

/// VLANs of the frames of a burst.
pub(crate) enum Domains {
    /// The same for all.
    One(u16),
    /// Taken from the tags of a trunk.
    Tagged([u16; MAX_BURST]),
}

impl Domains {
    /// VLAN of frame `i`.
    pub(crate) fn of(&self, i: usize) -> u16 {
        match self {
            Self::One(domain) => *domain,
            Self::Tagged(domains) => domains[i],
        }
    }
}

/// Bit 0 of the first address byte, as a little-endian load has it.
const GROUP: u64 = 1;
const MAC_BITS: u64 = 0xffff_ffff_ffff;

/// Learns sources and finds destinations. `now` is the table's second.
pub(crate) fn classify(
    burst: &Burst<'_>,
    slot: u16,
    entry: &Entry,
    table: &Table,
    now: u32,
) -> Judged {
    let mut judged = Judged {
        unicast: 0,
        flood: 0,
        to: [0; MAX_BURST],
        uniform: true,
        domain: Domains::One(0),
        refused: 0,
        refusals: ArrayVec::new(),
    };
    let policy = &*entry.policy;
    let mut candidates = burst.all();
    if burst.offloaded != 0 {
        let misplaced = misplaced(burst);
        if misplaced != 0 {
            judged.refuse(entry, DropReason::BadHeader, misplaced);
            candidates &= !misplaced;
        }
    }
    match policy.vlan {
        Vlan::Plain => {}
        Vlan::Access(vlan) => {
            judged.domain = Domains::One(vlan);
            let tagged = bits(candidates).filter(|&i| vlan::read(burst.head_bytes(i)).is_some());
            let tagged = tagged.fold(0, |mask, i| mask | 1 << i);
            judged.refuse(entry, DropReason::VlanMismatch, tagged);
            candidates &= !tagged;
        }
        Vlan::Trunk(_) => candidates = read_tags(burst, entry, candidates, &mut judged),
    }

    // Bulk traffic is long runs of one pair of addresses: what was found for the last frame is
    // right for the next one with the same sixteen bytes and VLAN.
    let mut last = (0u64, 0u64, u16::MAX);
    let mut answer = Answer::Flood;
    let mut first_to = None;
    for i in bits(candidates) {
        let bytes = &burst.heads[i].0;
        let load = |at: usize| {
            u64::from_le_bytes(
                *bytes[at..]
                    .first_chunk()
                    .expect("a head is longer than this"),
            )
        };
        // Destination in the low bits of the first word, source in the high bits of the second.
        let (low, high) = (load(12), load(16));
        let (destination, source) = (low & MAC_BITS, high >> 16);
        let domain = judged.domain.of(i);
        if (destination, source, domain) != last {
            last = (destination, source, domain);
            answer = judge_pair(destination, source, domain, slot, entry, table, now);
        }
        match answer {
            Answer::Port(to) => {
                judged.unicast |= 1 << i;
                judged.to[i] = to;
                judged.uniform &= *first_to.get_or_insert(to) == to;
            }
            Answer::Flood => judged.flood |= 1 << i,
            Answer::Drop(reason) => judged.refuse(entry, reason, 1 << i),
        }
    }
    judged
}

/// Frames whose checksum would be written over addresses or VLAN tags, which were judged before it is.
#[cold]
fn misplaced(burst: &Burst<'_>) -> u64 {
    let inside = |&i: &usize| {
        let header = VnetHeader::from_bytes(burst.heads[i].vnet());
        let layers = dissect(burst.head_bytes(i), burst.frames[i].len as usize);
        let payload = eth::HEADER_LEN + vlan::TAG_LEN * layers.tags().len();
        header.flags & F_NEEDS_CSUM != 0 && usize::from(header.csum_start) < payload
    };
    let frames = bits(burst.offloaded).filter(inside);
    frames.fold(0, |mask, i| mask | 1 << i)
}

#[derive(Clone, Copy)]
enum Answer {
    Port(u16),
    Flood,
    Drop(DropReason),
}

fn judge_pair(
    destination: u64,
    source: u64,
    domain: u16,
    slot: u16,
    entry: &Entry,
    table: &Table,
    now: u32,
) -> Answer {
    if source & GROUP != 0 {
        return Answer::Drop(DropReason::BadSource);
    }
    if entry.policy.mac.is_some_and(|mac| mac != source) {
        return Answer::Drop(DropReason::SpoofedMac);
    }
    match table.learn(Key::new(source, domain), slot, now) {
        Learned::Yes => {}
        Learned::No => entry.port.counters().count_unlearned(),
        Learned::Foreign => return Answer::Drop(DropReason::SpoofedMac),
    }
    if destination & GROUP != 0 {
        return Answer::Flood;
    }
    match table.find(Key::new(destination, domain)) {
        None => Answer::Flood,
        Some(to) if to == slot => Answer::Drop(DropReason::SamePort),
        Some(to) => Answer::Port(to),
    }
}

impl Judged {
    #[cold]
    fn refuse(&mut self, entry: &Entry, reason: DropReason, frames: u64) {
        let count = u64::from(frames.count_ones());
        self.refused += count;
        match self.refusals.iter_mut().find(|(of, _)| *of == reason) {
            Some((_, refused)) => *refused |= frames,
            None if frames != 0 => drop(self.refusals.try_push((reason, frames))),
            None => {}
        }
        entry.port.counters().drop_frames(reason, count);
    }
}

/// VLANs of the frames of a trunk; those it does not carry are refused.
#[cold]
fn read_tags(burst: &Burst<'_>, entry: &Entry, frames: u64, judged: &mut Judged) -> u64 {
    let mut domains = [0; MAX_BURST];
    let mut carried = 0;
    for i in bits(frames) {
        let vid = vlan::read(burst.head_bytes(i)).map_or(0, vlan::Tag::vid);
        if entry.policy.vlan.carries(vid) {
            domains[i] = vid;
            carried |= 1 << i;
        }
    }
    judged.domain = Domains::Tagged(domains);
    judged.refuse(entry, DropReason::VlanMismatch, frames & !carried);
    carried
}
