//! How much a port may say in the log. Front-ends come, go and are refused as often as they like; the log must not fill for it, nor
//! one port's lines hide another's.

use std::time::{Duration, Instant};

/// Lines that a port may say at once.
const BURST: u32 = 200;

/// Time after which it may say another one.
const EVERY: Duration = Duration::from_millis(250);

/// The lines that are left to a port.
pub(crate) struct Chatter {
    left: u32,
    /// Up to when lines were given.
    given: Instant,
    kept_back: u64,
}

impl Chatter {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            left: BURST,
            given: now,
            kept_back: 0,
        }
    }

    /// Whether a line may be said now. The first one after a silence is preceded by how many there would have been.
    pub(crate) fn allows(&mut self, port: &str) -> bool {
        let (allowed, kept_back) = self.spend(Instant::now());
        if kept_back > 0 {
            tracing::warn!("port {port}: {kept_back} lines were left out: it says too much");
        }
        allowed
    }

    /// Whether a line could be said now.
    pub(crate) fn is_silent(&self) -> bool {
        self.left == 0
    }

    /// Takes a line, if there is one; how many were kept back before it.
    fn spend(&mut self, now: Instant) -> (bool, u64) {
        let every = EVERY.as_nanos();
        let more = now.saturating_duration_since(self.given).as_nanos() / every;
        let more = u32::try_from(more).unwrap_or(u32::MAX);
        self.left = self.left.saturating_add(more).min(BURST);
        self.given = if self.left == BURST {
            now
        } else {
            self.given + EVERY * more
        };
        if self.left == 0 {
            self.kept_back += 1;
            return (false, 0);
        }
        self.left -= 1;
        (true, std::mem::take(&mut self.kept_back))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_says_so_much_at_once_and_then_a_line_now_and_then() {
        let start = Instant::now();
        let mut chatter = Chatter::new(start);
        let said = (0..1000).filter(|_| chatter.spend(start).0).count();
        assert_eq!(said, BURST as usize);
        assert!(chatter.is_silent());
        assert_eq!(
            chatter.spend(start + EVERY - Duration::from_nanos(1)),
            (false, 0)
        );
        let kept_back = 1001 - u64::from(BURST);
        assert_eq!(chatter.spend(start + EVERY), (true, kept_back));
        assert_eq!(chatter.spend(start + EVERY), (false, 0));
        // Asked all the time or now and then, it is as many.
        let mut said = 0;
        for millis in 250..10_250 {
            let (allowed, _) = chatter.spend(start + Duration::from_millis(millis));
            said += u32::from(allowed);
        }
        assert_eq!(said, 39);
        let later = start + Duration::from_secs(3600);
        assert_eq!((0..1000).filter(|_| chatter.spend(later).0).count(), 200);
    }
}
