//! What a port may send and take: VLAN, isolation, source address, rate, flooded frames.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use ringway_api::port_spec::VlanSet;

use crate::steering::Steering;

/// Settings of a port that the switch judges by. They may change while it runs.
#[derive(Debug, Default)]
pub(crate) struct Policy {
    pub(crate) vlan: Vlan,
    pub(crate) isolated: bool,
    /// The only source address accepted, as the low 48 bits of a little-endian load.
    pub(crate) mac: Option<u64>,
    pub(crate) rate: Option<Limiter>,
    pub(crate) storm: Option<Storm>,
    /// Where its flows come from, if it has several queues.
    pub(crate) steering: Option<Steering>,
}

/// How a port stands to VLANs. The domain of a frame is its VLAN, 0 for ports without one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Vlan {
    /// No VLAN: frames cross as they are, tags included, between such ports.
    #[default]
    Plain,
    /// Untagged frames belong to this VLAN; tagged ones are refused.
    Access(u16),
    /// Tagged frames of these VLANs; untagged ones are refused.
    Trunk(VlanSet),
}

impl Vlan {
    /// Frames of `domain` may leave through this port.
    pub(crate) fn carries(&self, domain: u16) -> bool {
        match self {
            Self::Plain => domain == 0,
            Self::Access(vlan) => *vlan == domain,
            Self::Trunk(vlans) => domain != 0 && vlans.contains(domain),
        }
    }

    pub(crate) fn is_trunk(&self) -> bool {
        matches!(self, Self::Trunk(_))
    }
}

/// A limit in bits per second, for each direction on its own. From the guest it delays: chains stay
/// in the ring. To the guest it drops.
#[derive(Debug)]
pub(crate) struct Limiter {
    from_guest: Mutex<Bucket>,
    to_guest: Mutex<Bucket>,
}

/// A limit of flooded frames. What comes within a second may come at once.
#[derive(Debug)]
pub(crate) struct Storm(Mutex<Bucket>);

/// Bits or frames that may pass.
#[derive(Debug)]
struct Bucket {
    per_second: u64,
    /// The most there may be.
    depth: i128,
    /// What may pass now; below zero after a frame that was larger than what was left.
    level: i128,
    filled: Instant,
}

/// A full bucket holds what passes in this time, at least one frame of the longest kind.
const DEPTH: Duration = Duration::from_millis(5);
const LONGEST_FRAME: u64 = 65_557;

const NANOS: u128 = 1_000_000_000;

impl Limiter {
    /// `burst` is how many bytes may pass at once.
    pub(crate) fn new(bits_per_second: u64, burst: Option<u64>, now: Instant) -> Self {
        let usual = u128::from(bits_per_second) * DEPTH.as_nanos() / NANOS;
        let usual = u64::try_from(usual / 8).unwrap_or(u64::MAX);
        let bytes = burst.unwrap_or(usual.max(LONGEST_FRAME));
        let bucket = || Bucket::full(bits_per_second, i128::from(bytes) * 8, now);
        Self {
            from_guest: Mutex::new(bucket()),
            to_guest: Mutex::new(bucket()),
        }
    }

    /// Bytes that may be taken from the guest now, or how long its queues have to rest. A burst that is begun
    /// may be a good part of a full bucket, so that not every frame needs a rest of its own.
    pub(crate) fn grant(&self, now: Instant) -> Result<u64, Duration> {
        let mut bucket = lock(&self.from_guest);
        bucket.fill(now);
        match bucket.debt() {
            Some(rest) => Err(rest),
            None => Ok(u64::try_from(bucket.level.max(bucket.depth / 4) / 8).unwrap_or(u64::MAX)),
        }
    }

    /// Counts `bytes` that came from the guest; says how long its queue has to rest.
    pub(crate) fn delay(&self, bytes: u64, now: Instant) -> Option<Duration> {
        let mut bucket = lock(&self.from_guest);
        bucket.fill(now);
        bucket.level -= i128::from(bytes) * 8;
        bucket.debt()
    }

    /// Whether the frames of these lengths may go to the guest, in turn: their number that may.
    pub(crate) fn admit(&self, lengths: impl Iterator<Item = u32>, now: Instant) -> usize {
        let mut bucket = lock(&self.to_guest);
        bucket.fill(now);
        let mut admitted = 0;
        for bytes in lengths {
            if bucket.level <= 0 {
                break;
            }
            bucket.level -= i128::from(bytes) * 8;
            admitted += 1;
        }
        admitted
    }
}

impl Storm {
    pub(crate) fn new(frames_per_second: u64, now: Instant) -> Self {
        let depth = i128::from(frames_per_second);
        Self(Mutex::new(Bucket::full(frames_per_second, depth, now)))
    }

    /// How many of `frames` may be flooded.
    pub(crate) fn admit(&self, frames: u32, now: Instant) -> usize {
        let mut bucket = lock(&self.0);
        bucket.fill(now);
        let admitted = bucket.level.clamp(0, frames.into());
        bucket.level -= admitted;
        usize::try_from(admitted).unwrap_or(0)
    }
}

impl Bucket {
    fn full(per_second: u64, depth: i128, now: Instant) -> Self {
        Self {
            per_second: per_second.max(1),
            depth,
            level: depth,
            filled: now,
        }
    }

    fn fill(&mut self, now: Instant) {
        let rate = u128::from(self.per_second);
        let gain = now.saturating_duration_since(self.filled).as_nanos() * rate / NANOS;
        let level = self.level + i128::try_from(gain).unwrap_or(i128::MAX / 2);
        if level >= self.depth {
            self.level = self.depth;
            self.filled = now;
        } else {
            // The part of a bit or frame that is left over counts the next time.
            let spent = u64::try_from((gain * NANOS).div_ceil(rate)).unwrap_or(u64::MAX);
            self.level = level;
            self.filled += Duration::from_nanos(spent);
        }
    }

    /// How long until nothing is owed.
    fn debt(&self) -> Option<Duration> {
        let debt = u128::try_from(-self.level).ok().filter(|&debt| debt > 0)?;
        let nanos = (debt * NANOS).div_ceil(u128::from(self.per_second));
        Some(Duration::from_nanos(
            u64::try_from(nanos).unwrap_or(u64::MAX),
        ))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
