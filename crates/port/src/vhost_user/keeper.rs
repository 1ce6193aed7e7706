//! Where rings stand that ran when a switch was killed: taken up, and written down for the next one.
//!
//! A packed ring has an entry: what it is known by, and the words it writes to. It lies in the region that the front-end keeps for its
//! back-ends (SET_INFLIGHT_FD), behind what others look at, or else in the port's [`Journal`]. The region comes first: it is the
//! front-end's word for what belongs to this device. Neither is believed blindly, least of all the region, which a hostile front-end can write.

use std::fmt;
use std::sync::Arc;

use ringway_mem::{GuestMemory, Words};
use ringway_ring::{
    DeviceRing, JOURNAL_WORDS, RingBase, RingError, RingFeatures, RingLayout, Stale,
};
use ringway_vhost::user::InflightRegion;

use super::Journal;

/// Words by which a ring is known.
const KEY: usize = 8;
/// Words of one ring, in lines of its own.
pub(super) const ENTRY_WORDS: usize = (KEY + JOURNAL_WORDS).next_multiple_of(8);
/// What stands in an entry in this form, which a region that somebody else made does not have.
const MAGIC: u64 = u64::from_le_bytes(*b"ringway1");

/// Where one ring is written down. The first word of its record is zero in a ring that was stopped in peace: then the front-end knows where
/// it stands.
pub(super) struct Entry {
    key: Words,
    record: Words,
}

impl Entry {
    /// In the first of these words.
    pub(super) fn new(words: &Words) -> Self {
        Self {
            key: words.part(0, KEY),
            record: words.part(KEY, JOURNAL_WORDS),
        }
    }

    /// What the ring itself writes.
    pub(super) fn record(&self) -> Words {
        self.record.clone()
    }

    pub(super) fn goes_on(&self) -> bool {
        self.record.load(0) != 0
    }

    pub(super) fn forget(&self) {
        self.record.store(0, 0);
    }

    fn is_of(&self, key: &[u64; KEY]) -> bool {
        let mut words = key.iter().enumerate();
        words.all(|(index, &word)| self.key.load(index) == word)
    }

    /// For another ring than before.
    fn begin(&self, key: &[u64; KEY]) {
        self.forget();
        for (index, &word) in key.iter().enumerate() {
            self.key.store(index, word);
        }
    }
}

/// By what a ring is known again: the file and the place it lies in, its size and its form.
fn key(memory: &GuestMemory, layout: &RingLayout, features: RingFeatures) -> [u64; KEY] {
    let RingLayout {
        size,
        descriptors,
        available,
        used,
    } = *layout;
    let region = memory.regions().find(|region| {
        descriptors
            .checked_sub(region.user_address)
            .is_some_and(|offset| offset < region.size)
    });
    let (device, inode) = region.map_or((0, 0), |region| region.file);
    let form = u64::from(size)
        | u64::from(features.event_idx) << 16
        | u64::from(features.indirect) << 17
        | u64::from(features.in_order) << 18;
    [device, inode, descriptors, available, used, form, MAGIC, 0]
}

/// What a device knows of where its rings stand.
pub(super) struct Keeper {
    journal: Option<Arc<Journal>>,
    /// By ring: it ran on this connection, so that its base is known.
    told: Vec<bool>,
    /// By ring: where it is written down.
    kept: Vec<Option<Entry>>,
    recovered: usize,
    refused: Option<(usize, Stale)>,
}

impl Keeper {
    pub(super) fn new(rings: usize, journal: Option<Arc<Journal>>) -> Self {
        Self {
            journal,
            told: vec![false; rings],
            kept: (0..rings).map(|_| None).collect(),
            recovered: 0,
            refused: None,
        }
    }

    /// Ring `ring` stopped, and its base was read out.
    pub(super) fn told(&mut self, ring: usize, starts_again: bool) {
        self.told[ring] = true;
        if !starts_again && let Some(entry) = &self.kept[ring] {
            entry.forget();
        }
    }

    /// Where ring `ring` stands was said by who drove it before, on the same connection.
    pub(super) fn handed_over(&mut self, ring: usize) {
        if let Some(told) = self.told.get_mut(ring) {
            *told = true;
        }
    }

    /// The ring where it goes on. On a new connection that is where it was written down, if that can be right: what the
    /// front-end says was told to it when the ring last stopped, and a crash is no stop.
    pub(super) fn take_up(
        &mut self,
        ring: usize,
        place: &Place<'_>,
        base: RingBase,
    ) -> Result<DeviceRing, RingError> {
        let Place {
            memory,
            layout,
            features,
            inflight,
        } = *place;
        let region = inflight.filter(|region| region.is_packed() == features.packed);
        let entry = self.entry(ring, features.packed, region);
        let mut device = match &entry {
            Some(entry) => self.take_up_at(ring, entry, place, base)?,
            None => DeviceRing::new(memory, layout, features, base)?,
        };
        if let Some(position) = region.and_then(|region| region.position(ring)) {
            device.show_position(position);
        }
        self.kept[ring] = entry;
        Ok(device)
    }

    /// Where the ring is written down from now on; elsewhere it is struck out.
    fn entry(&self, ring: usize, packed: bool, region: Option<&InflightRegion>) -> Option<Entry> {
        let ours = self.journal.as_ref().and_then(|file| file.entry(ring));
        let theirs = region.and_then(|region| region.extra(ring));
        let theirs = theirs.map(|words| Entry::new(&words));
        if let Some(ours) = &ours
            && (!packed || theirs.is_some())
        {
            ours.forget();
        }
        theirs.or(ours).filter(|_| packed)
    }

    fn take_up_at(
        &mut self,
        ring: usize,
        entry: &Entry,
        place: &Place<'_>,
        base: RingBase,
    ) -> Result<DeviceRing, RingError> {
        let Place {
            memory,
            layout,
            features,
            ..
        } = *place;
        let key = key(memory, layout, features);
        let known = entry.is_of(&key);
        if known && !self.told[ring] {
            match DeviceRing::recover(memory, layout, features, entry.record())? {
                Ok(device) => {
                    self.recovered += 1;
                    return Ok(device);
                }
                Err(Stale::Nothing) => {}
                Err(stale) => self.refused = Some((ring, stale)),
            }
        }
        let mut device = DeviceRing::new(memory, layout, features, base)?;
        if !known {
            entry.begin(&key);
        }
        device.keep_journal(entry.record());
        Ok(device)
    }
}

/// Where a ring lies, and who keeps a region for it.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    pub(super) memory: &'a Arc<GuestMemory>,
    pub(super) layout: &'a RingLayout,
    pub(super) features: RingFeatures,
    pub(super) inflight: Option<&'a InflightRegion>,
}

impl fmt::Display for Keeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.recovered > 0 {
            write!(f, ", {} rings recovered", self.recovered)?;
        }
        match self.refused {
            Some((ring, stale)) => write!(f, ", ring {ring} not recovered: {stale}"),
            None => Ok(()),
        }
    }
}
