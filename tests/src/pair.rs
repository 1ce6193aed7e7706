//! Two guests on one switch: the arrangement most tests and the demo start from.

use anyhow::{Result, bail, ensure};

use crate::{
    Guest, Lab, Nic, Switch, guest::Builder, iperf::Iperf, stream::BLOCK, switch::Statistics,
};

/// Address of the first guest.
pub const A: &str = "10.0.0.1";
/// Address of the second guest.
pub const B: &str = "10.0.0.2";

/// A switch with the ports `a` and `b`, and a guest at each.
#[derive(Debug)]
pub struct Pair {
    // Dropped in this order: guests leave before their switch.
    /// At port `a`, address [`A`].
    pub a: Guest,
    /// At port `b`, address [`B`].
    pub b: Guest,
    /// The switch.
    pub switch: Switch,
}

impl Pair {
    /// Both guests with `queues` queue pairs and as many processors.
    pub fn new(lab: &Lab, queues: u16) -> Result<Self> {
        let nic = |name| lab.nic(name).queues(queues);
        Self::with(lab, queues, nic("a"), nic("b"))
    }

    /// Guests with NICs of your own; both get `queues` processors, the ports `queues` queue pairs.
    pub fn with(lab: &Lab, queues: u16, a: Nic, b: Nic) -> Result<Self> {
        let switch = lab
            .switch()
            .vhost_user("a", queues)
            .vhost_user("b", queues)
            .start()?;
        let guest = |name, nic| lab.guest(name).processors(queues).nic(nic);
        Self::boot(switch, guest("a", a), guest("b", b))
    }

    /// Boots two guests side by side and gives them their addresses.
    pub fn boot(switch: Switch, a: Builder<'_>, b: Builder<'_>) -> Result<Self> {
        let (a, b) = boot_both(a, b)?;
        a.configure("eth0", &format!("{A}/24"))?;
        b.configure("eth0", &format!("{B}/24"))?;
        Ok(Self { a, b, switch })
    }

    /// Pings from `a` to `b`, `count` times as fast as answers come; every one must be answered.
    pub fn ping(&self, count: u32, bytes: u32) -> Result<()> {
        ping_sized(&self.a, B, count, bytes)
    }

    /// The switch's statistics, checked.
    pub fn statistics(&mut self) -> Result<Statistics> {
        let statistics = self.switch.statistics()?;
        statistics.check()?;
        Ok(statistics)
    }

    /// Connections from every processor of both guests until every queue pair has carried frames both ways: by our counters and by
    /// interrupts of the guest's.
    pub fn every_queue_pair_carries(&mut self, lab: &Lab, queues: u16) -> Result<()> {
        const ROUNDS: u32 = 8;
        for round in 1..=ROUNDS {
            for (client, server, address) in [(&self.a, &self.b, B), (&self.b, &self.a, A)] {
                for processor in 0..queues {
                    // The guest sends on the queue of the processor; where the frames arrive depends on the connections.
                    Iperf::new(client, server, address)
                        .processor(processor)
                        .streams(8)
                        .bytes(BLOCK)
                        .run()?;
                }
            }
            let idle = self.idle_queues(queues)?;
            if idle.is_empty() {
                lab.report(&format!(
                    "all {queues} queue pairs of both guests carry both ways, by counters and interrupts (round {round})"
                ));
                return Ok(());
            }
            ensure!(round < ROUNDS, "after {ROUNDS} rounds: {}", idle.join(", "));
        }
        Ok(())
    }

    /// What has not happened yet.
    fn idle_queues(&mut self, queues: u16) -> Result<Vec<String>> {
        let statistics = self.statistics()?;
        let mut idle = Vec::new();
        for guest in [&self.a, &self.b] {
            let name = guest.name();
            let port = statistics.port(name)?;
            ensure!(port.queues.len() == usize::from(queues), "{port:?}");
            let interrupts = guest.interrupts(queues)?;
            for (index, (counted, [input, output])) in
                port.queues.iter().zip(interrupts).enumerate()
            {
                let observed = [
                    ("frames from the guest", counted.rx_frames),
                    ("frames to the guest", counted.tx_frames),
                    ("kicks", counted.kicks),
                    ("calls", counted.calls),
                    ("receive interrupts", input),
                    ("transmit interrupts", output),
                ];
                idle.extend(
                    observed
                        .iter()
                        .filter(|(_, count)| *count == 0)
                        .map(|(what, _)| format!("no {what} on queue pair {index} of {name}")),
                );
            }
        }
        Ok(idle)
    }
}

/// Boots two guests side by side.
pub fn boot_both(a: Builder<'_>, b: Builder<'_>) -> Result<(Guest, Guest)> {
    let (first, second) = (a.clone().start()?, b.clone().start()?);
    Ok((a.booted(first)?, b.booted(second)?))
}

/// Pings `address` from `guest`, as fast as answers come; every one must be answered.
///
/// BusyBox sends them: it waits a second for an answer before it sends the next, and again at the end. That of iputils, with
/// `-A`, ends after twice the longest time so far: a processor that was away for some milliseconds counts as loss. It also has
/// the kernel take the time of packets, which rewrites the code of all processors; see [`crate::emulator`].
pub fn ping(guest: &Guest, address: &str, count: u32) -> Result<()> {
    ping_after(guest, "", address, count, 56)
}

/// As [`ping`], with this many bytes in each, which must cross in one piece.
pub fn ping_sized(guest: &Guest, address: &str, count: u32, bytes: u32) -> Result<()> {
    let whole = format!("ping -q -c 1 -W 5 -M do -s {bytes} {address} && ");
    ping_after(guest, &whole, address, count, bytes)
}

fn ping_after(guest: &Guest, first: &str, address: &str, count: u32, bytes: u32) -> Result<()> {
    let text = guest.sh(&format!(
        "{first}busybox ping -q -A -c {count} -W 5 -s {bytes} {address}"
    ))?;
    if !text.contains(&format!(
        "{count} packets transmitted, {count} packets received, 0% packet loss"
    )) {
        bail!("pings were lost: {text}");
    }
    Ok(())
}
