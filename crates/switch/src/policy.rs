//! What a port may send and take: VLAN, isolation, source address, rate.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use ringway_api::port_spec::VlanSet;

/// Settings of a port that the switch judges by. They may change while it runs.
#[derive(Debug, Default)]
pub(crate) struct Policy {
    pub(crate) vlan: Vlan,
    pub(crate) isolated: bool,
    /// The only source address accepted, as the low 48 bits of a little-endian load.
    pub(crate) mac: Option<u64>,
    pub(crate) rate: Option<Limiter>,
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
    bits_per_second: u64,
    from_guest: Mutex<Bucket>,
    to_guest: Mutex<Bucket>,
}

#[derive(Debug)]
struct Bucket {
    /// Bits that may pass now; below zero after a frame that was larger than what was left.
    level: i128,
    filled: Instant,
}

/// A full bucket holds what passes in this time, at least one frame of the longest kind.
const DEPTH: Duration = Duration::from_millis(5);

impl Limiter {
    pub(crate) fn new(bits_per_second: u64, now: Instant) -> Self {
        let bucket = || {
            Mutex::new(Bucket {
                level: depth(bits_per_second),
                filled: now,
            })
        };
        Self {
            bits_per_second,
            from_guest: bucket(),
            to_guest: bucket(),
        }
    }

    /// Counts `bytes` that came from the guest; says how long its queue has to rest.
    pub(crate) fn delay(&self, bytes: u64, now: Instant) -> Option<Duration> {
        let mut bucket = lock(&self.from_guest);
        bucket.fill(self.bits_per_second, now);
        bucket.level -= i128::from(bytes) * 8;
        let debt = u128::try_from(-bucket.level)
            .ok()
            .filter(|&debt| debt > 0)?;
        let nanos = debt * 1_000_000_000 / u128::from(self.bits_per_second.max(1));
        Some(Duration::from_nanos(
            u64::try_from(nanos).unwrap_or(u64::MAX),
        ))
    }

    /// Whether the frames of these lengths may go to the guest, in turn: their number that may.
    pub(crate) fn admit(&self, lengths: impl Iterator<Item = u32>, now: Instant) -> usize {
        let mut bucket = lock(&self.to_guest);
        bucket.fill(self.bits_per_second, now);
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

impl Bucket {
    fn fill(&mut self, bits_per_second: u64, now: Instant) {
        let nanos = now.saturating_duration_since(self.filled).as_nanos();
        let gain = nanos * u128::from(bits_per_second) / 1_000_000_000;
        // Less than a bit is kept for the next time, so slow limits do not starve.
        if gain > 0 {
            let gain = i128::try_from(gain).unwrap_or(i128::MAX / 2);
            self.level = (self.level + gain).min(depth(bits_per_second));
            self.filled = now;
        }
    }
}

fn depth(bits_per_second: u64) -> i128 {
    let bits = u128::from(bits_per_second) * DEPTH.as_nanos() / 1_000_000_000;
    i128::try_from(bits)
        .unwrap_or(i128::MAX / 2)
        .max(65_557 * 8)
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_admits_its_rate_over_time() {
        let start = Instant::now();
        let limiter = Limiter::new(80_000_000, start); // 10 MB/s
        let mut bytes = 0u64;
        for step in 0..1000 {
            let now = start + Duration::from_millis(step);
            bytes += limiter.admit(std::iter::repeat_n(1500, 64), now) as u64 * 1500;
        }
        assert!((10_000_000..10_200_000).contains(&bytes), "{bytes}");
    }

    #[test]
    fn a_guest_that_sent_too_much_rests_until_it_is_even() {
        let start = Instant::now();
        let limiter = Limiter::new(8_000_000, start); // 1 MB/s
        assert_eq!(limiter.delay(10_000, start), None, "the bucket was full");
        let rest = limiter.delay(100_000, start).expect("the bucket is empty");
        assert!((40..50).contains(&rest.as_millis()), "{rest:?}");
        assert_eq!(
            limiter.delay(0, start + rest + Duration::from_millis(1)),
            None
        );
    }
}
