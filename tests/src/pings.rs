//! Pings many times a second, with the time of each answer.

use std::time::Duration;

use anyhow::{Context, Result};

use crate::{Endpoint, Lab, gate::Gate, guest::Job};

const LIMIT: Duration = Duration::from_secs(30);
/// Between two requests.
pub const INTERVAL: Duration = Duration::from_millis(20);

/// Pings under way.
#[derive(Debug)]
pub struct Pings {
    gate: Gate,
    job: Job,
}

/// What came of them.
#[derive(Debug)]
pub struct Pinged {
    /// Requests.
    pub sent: usize,
    /// Time of day of each answer, in their order.
    pub answers: Vec<Duration>,
}

impl Pings {
    /// Pings `address` from `endpoint`, an end on this machine; `name` tells pings of one lab apart.
    pub fn start(lab: &Lab, name: &str, endpoint: &dyn Endpoint, address: &str) -> Result<Self> {
        let gate = Gate::new(lab, name)?;
        let seconds = INTERVAL.as_secs_f64();
        let job = endpoint.start(&format!(
            "LC_ALL=C setpriv --pdeathsig KILL -- ping -D -n -i {seconds} {address} & pings=$!; {}; kill -INT $pings; wait $pings",
            gate.wait()
        ))?;
        Ok(Self { gate, job })
    }

    /// Ends them.
    pub fn stop(mut self) -> Result<Pinged> {
        self.gate.open()?;
        // Its status tells whether there was any answer.
        parse(&self.job.wait(LIMIT)?.stdout)
    }
}

impl Pinged {
    /// Requests that were not answered.
    pub fn lost(&self) -> usize {
        self.sent.saturating_sub(self.answers.len())
    }

    /// The longest time without an answer between two of them.
    pub fn longest_gap(&self) -> Duration {
        let gaps = self.answers.windows(2).map(|pair| pair[1] - pair[0]);
        gaps.max().unwrap_or_default()
    }

    /// From `time` to the next answer.
    pub fn next_after(&self, time: Duration) -> Option<Duration> {
        let next = self.answers.iter().find(|&&answer| answer >= time)?;
        Some(*next - time)
    }
}

fn parse(text: &str) -> Result<Pinged> {
    let summary = text
        .lines()
        .find(|line| line.contains(" packets transmitted"))
        .with_context(|| format!("no summary: {text}"))?;
    let sent = summary.split(' ').next().unwrap_or_default().parse()?;
    let answers = text
        .lines()
        .filter(|line| line.contains(" bytes from ") && !line.contains("DUP!"))
        .map(|line| {
            let time = line.strip_prefix('[')?.split(']').next()?;
            Some(Duration::from_secs_f64(time.parse().ok()?))
        })
        .collect::<Option<Vec<_>>>()
        .with_context(|| format!("answers without times: {text}"))?;
    Ok(Pinged { sent, answers })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_and_gaps_are_found() {
        let pinged = parse(
            "PING 10.0.0.1 (10.0.0.1) 56(84) bytes of data.\n\
             [100.000000] 64 bytes from 10.0.0.1: icmp_seq=1 ttl=64 time=0.3 ms\n\
             [100.250000] 64 bytes from 10.0.0.1: icmp_seq=3 ttl=64 time=0.3 ms\n\
             [100.250000] 64 bytes from 10.0.0.1: icmp_seq=3 ttl=64 time=0.3 ms (DUP!)\n\
             [100.300000] 64 bytes from 10.0.0.1: icmp_seq=4 ttl=64 time=0.3 ms\n\
             \n--- 10.0.0.1 ping statistics ---\n\
             4 packets transmitted, 3 received, +1 duplicates, 25% packet loss, time 3ms\n",
        )
        .unwrap();
        assert_eq!((pinged.sent, pinged.lost()), (4, 1));
        assert_eq!(pinged.longest_gap(), Duration::from_millis(250));
        let after = pinged.next_after(Duration::from_secs_f64(100.26)).unwrap();
        assert_eq!(after.as_millis(), 40);
        assert_eq!(pinged.next_after(Duration::from_secs(101)), None);
        assert!(parse("ping: bad address").is_err());
    }
}
