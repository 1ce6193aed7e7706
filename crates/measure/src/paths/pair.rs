//! Two guests at one path: booted, measured, ended.

use std::{
    net::Ipv4Addr,
    os::fd::{AsRawFd, OwnedFd},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use ringway_api::port_spec::Mac;
use ringway_vmm::{Backend, Nic};

use super::{
    Kind, Load, Sample,
    account::{Accounts, Used},
    guest::{Guest, Maker},
    place::Place,
    protocol::Counters,
    run::{Bench, Interrupt},
    switch::Switch,
};

const NAMES: [&str; 2] = ["a", "b"];
const MACS: [Mac; 2] = [Mac([2, 0, 0, 0, 0, 0xa]), Mac([2, 0, 0, 0, 0, 0xb])];
/// In a network of their own, whatever else a guest may have.
const ADDRESSES: [Ipv4Addr; 2] = [
    Ipv4Addr::new(192, 168, 99, 1),
    Ipv4Addr::new(192, 168, 99, 2),
];
/// Before figures are taken, for connections to get up to speed.
pub(super) const WARM: Duration = Duration::from_millis(300);
/// QEMU aborts now and then when several emulated processors run while one of them sets up devices: then it is started again.
const ATTEMPTS: u32 = 3;
const ABORT: &str = "iotlb_to_section";

/// Two running guests, and what is between them. Dropped, guests go before the switch.
pub(super) struct Pair {
    guests: [Guest; 2],
    _switch: Option<Switch>,
    /// To be removed by whoever made them.
    taps: Vec<String>,
    accounts: Accounts,
    queues: u16,
    /// The guests' kernel.
    pub(super) kernel: String,
}

impl Pair {
    pub(super) fn boot(
        bench: &mut Bench,
        maker: &Maker,
        kind: Kind,
        queues: u16,
        placed: Option<&Place>,
    ) -> Result<Self> {
        let mut attempt = 1;
        loop {
            let mut taps = Vec::new();
            let error = match Self::attempt(bench, maker, kind, queues, placed, &mut taps) {
                Ok(pair) => return Ok(Self { taps, ..pair }),
                Err(error) => error,
            };
            remove(bench, &taps)?;
            if attempt == ATTEMPTS || !format!("{error:#}").contains(ABORT) {
                return Err(error);
            }
            attempt += 1;
        }
    }

    /// `taps` are those that were made, also when it fails.
    fn attempt(
        bench: &mut Bench,
        maker: &Maker,
        kind: Kind,
        queues: u16,
        placed: Option<&Place>,
        taps: &mut Vec<String>,
    ) -> Result<Self> {
        let interrupt = bench.interrupt();
        let switch = match kind {
            Kind::VhostUser => {
                let cpus = placed.and_then(|placed| placed.switch.as_ref());
                Some(Switch::start(&bench.folder, queues, cpus)?)
            }
            _ => None,
        };
        let mut guests = Vec::new();
        for (name, mac) in NAMES.into_iter().zip(MACS) {
            let (backend, handed) = backend(bench, kind, name, mac, queues, taps)?;
            let nic = Nic {
                backend,
                model: kind.model(),
                queues,
                mac,
                mtu: None,
            };
            guests.push(maker.start(&bench.folder, name, queues, nic, handed)?);
        }
        let mut accounts = Accounts::default();
        let mut kernel = String::new();
        for (index, guest) in guests.iter_mut().enumerate() {
            kernel = guest.await_ready(&interrupt)?;
            guest.configure(MACS[index].to_string(), ADDRESSES[index], &interrupt)?;
            if let Some(placed) = placed {
                guest.pin(placed, index, &bench.folder)?;
            }
            accounts.add(guest.process());
            accounts.vcpus.extend(guest.vcpus());
        }
        accounts.processes.extend(switch.as_ref().map(Switch::id));
        Ok(Self {
            guests: guests.try_into().ok().context("there are not two guests")?,
            _switch: switch,
            taps: Vec::new(),
            accounts,
            queues,
            kernel,
        })
    }

    pub(super) fn measure(
        &mut self,
        load: Load,
        seconds: f64,
        interrupt: &Interrupt,
    ) -> Result<Sample> {
        let [a, b] = &mut self.guests;
        let (sender, receiver, to) = if load.is_back() {
            (b, a, ADDRESSES[0])
        } else {
            (a, b, ADDRESSES[1])
        };
        sender.send(load.of_agent(self.queues), to, interrupt)?;
        interrupt.sleep(WARM)?;
        let mut look = |fresh| {
            let used = self.accounts.now();
            let sent = sender.count(fresh, interrupt)?;
            anyhow::Ok((used, sent, receiver.count(fresh, interrupt)?))
        };
        let before = look(true)?;
        interrupt.sleep(Duration::from_secs_f64(seconds))?;
        let after = look(false)?;
        sender.stop(interrupt)?;
        let used = &after.0 - &before.0;
        sample([before.1, after.1], [before.2, after.2], used)
    }

    /// Ends the guests and removes what was made for them.
    pub(super) fn end(mut self, bench: &mut Bench) -> Result<()> {
        let taps = std::mem::take(&mut self.taps);
        drop(self);
        remove(bench, &taps)
    }
}

fn remove(bench: &mut Bench, taps: &[String]) -> Result<()> {
    if let Ok(wiring) = &mut bench.wiring {
        for name in taps {
            wiring.remove(name)?;
        }
    }
    Ok(())
}

/// What a guest's NIC is connected to, and the descriptors that its QEMU inherits.
fn backend(
    bench: &mut Bench,
    kind: Kind,
    name: &str,
    mac: Mac,
    queues: u16,
    taps: &mut Vec<String>,
) -> Result<(Backend, Vec<OwnedFd>)> {
    if kind == Kind::VhostUser {
        let socket = bench.folder.file(name);
        return Ok((Backend::VhostUser { socket }, Vec::new()));
    }
    let wiring = match &mut bench.wiring {
        Ok(wiring) => wiring,
        Err(reason) => bail!("{reason}"),
    };
    let tap = format!("bench-{name}");
    taps.push(tap.clone());
    let opened = match kind {
        Kind::Macvtap => wiring.macvtap(&tap, mac.0, queues)?,
        _ => wiring.tap(&tap, queues)?,
    };
    let vhost = match kind {
        Kind::VhostNet => wiring.vhost_net(queues)?,
        _ => Vec::new(),
    };
    let numbers = |all: &[OwnedFd]| all.iter().map(AsRawFd::as_raw_fd).collect();
    let backend = Backend::Descriptors {
        name: tap.parse()?,
        queues: numbers(&opened),
        vhost: numbers(&vhost),
    };
    Ok((backend, opened.into_iter().chain(vhost).collect()))
}

/// What two counts of sender and receiver say.
fn sample(sent: [Counters; 2], received: [Counters; 2], used: Used) -> Result<Sample> {
    let since = |[before, after]: [Counters; 2], field: fn(&Counters) -> u64| {
        field(&after).saturating_sub(field(&before))
    };
    let frames = |counters| since(counters, |it| it.frames_in);
    let sample = Sample {
        seconds: since(received, |it| it.nanoseconds) as f64 / 1e9,
        bytes: since(received, |it| it.bytes),
        frames: frames(sent) + frames(received),
        arrived: frames(received),
        sent: since(sent, |it| it.sent),
        datagrams: since(received, |it| it.datagrams),
        exchanges: sent[1].exchanges,
        p50: f64::from(sent[1].p50) / 1e3,
        p99: f64::from(sent[1].p99) / 1e3,
        used,
    };
    ensure!(
        sample.frames > 0 && sample.seconds > 0.0 && sample.bytes + sample.exchanges > 0,
        "nothing arrived: {sample:?}"
    );
    Ok(sample)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_is_what_came_between_two_counts() {
        let count = |nanoseconds, bytes, frames_in| Counters {
            nanoseconds,
            bytes,
            frames_in,
            ..Counters::default()
        };
        let sent = [count(5, 0, 10), count(6, 0, 40)];
        let received = [
            count(1_000_000_000, 500, 100),
            count(3_000_000_000, 1_500, 170),
        ];
        let found = sample(sent, received, Used::default()).unwrap();
        assert_eq!((found.seconds, found.bytes), (2.0, 1000));
        assert_eq!((found.frames, found.arrived), (100, 70));
    }

    #[test]
    fn a_path_that_carries_nothing_is_an_error() {
        let none = [Counters::default(); 2];
        let error = sample(none, none, Used::default()).unwrap_err();
        assert!(error.to_string().starts_with("nothing arrived"), "{error}");
    }
}
