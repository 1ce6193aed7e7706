//! Two guests on one switch: the arrangement most tests and the demo start from.

use anyhow::{Result, bail};

use crate::{Guest, Lab, Nic, Switch, guest::Builder, switch::Statistics};

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
    pub fn ping(&self, count: u32, options: &str) -> Result<()> {
        ping(&self.a, B, count, options)
    }

    /// The switch's statistics, checked.
    pub fn statistics(&mut self) -> Result<Statistics> {
        let statistics = self.switch.statistics()?;
        statistics.check()?;
        Ok(statistics)
    }
}

/// Boots two guests side by side.
pub fn boot_both(a: Builder<'_>, b: Builder<'_>) -> Result<(Guest, Guest)> {
    let (first, second) = (a.clone().start()?, b.clone().start()?);
    Ok((a.booted(first)?, b.booted(second)?))
}

/// Pings `address` from `guest`, as fast as answers come; every one must be answered.
pub fn ping(guest: &Guest, address: &str, count: u32, options: &str) -> Result<()> {
    let text = guest.sh(&format!("ping -q -A -c {count} -W 5 {options} {address}"))?;
    if !text.contains(&format!(
        "{count} packets transmitted, {count} received, 0% packet loss"
    )) {
        bail!("pings were lost: {text}");
    }
    Ok(())
}
