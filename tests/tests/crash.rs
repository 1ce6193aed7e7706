//! A switch that is killed under load, several times: real guests go on with the next one, and nothing of what they sent is changed.

use anyhow::{Result, ensure};
use ringway_tests::{
    Guest, Lab, Need, Nic, Pair, Switch,
    pair::{A, B, ping},
    stream::Stream,
};

const KILLS: u32 = 4;
const QUEUES: u16 = 2;

#[test]
fn killed_under_load_split_rings_go_on() -> Result<()> {
    killed_under_load("crash-split", |nic| nic)
}

#[test]
fn killed_under_load_packed_rings_go_on() -> Result<()> {
    killed_under_load("crash-packed", Nic::packed)
}

fn killed_under_load(name: &str, kind: impl Fn(Nic) -> Nic) -> Result<()> {
    let Some(lab) = Lab::with(name, &[Need::Guests, Need::Program("openssl")])? else {
        return Ok(());
    };
    let start = || {
        let switch = lab.switch().vhost_user("a", QUEUES);
        switch.vhost_user("b", QUEUES).start()
    };
    let guest = |name| {
        let nic = kind(lab.nic(name).queues(QUEUES));
        lab.guest(name).processors(QUEUES).nic(nic)
    };
    let Pair { a, b, mut switch } = Pair::boot(start()?, guest("a"), guest("b"))?;
    both_carry(&a, &b, 1)?;

    // Both ways at once.
    let stream = |key| Stream { blocks: 96, key };
    let there = stream(2).start(&a, &b, B)?;
    let back = stream(3).start(&b, &a, A)?;
    for _ in 0..KILLS {
        carries(&mut switch, 300)?;
        switch.kill();
        switch = start()?;
    }
    carries(&mut switch, 100)?;
    for (way, stream) in [("a to b", there), ("b to a", back)] {
        let arrived = stream.finish()?;
        lab.report(&format!(
            "{way}, over {KILLS} kills of the switch: {arrived}"
        ));
    }
    both_carry(&a, &b, 4)?;

    // In step: none of the rings broke, and all pairs run.
    let messages = switch.messages().join("\n");
    ensure!(!messages.contains("the ring is stopped"), "{messages}");
    let recovered = messages.matches("recovered").count();
    lab.report(&format!("lines about recovered rings: {recovered}"));
    let statistics = switch.statistics()?;
    statistics.check()?;
    for port in &statistics.ports {
        ensure!(!port.drops.contains_key("fault"), "{port:?}");
    }
    // A switch that ends in peace is one more that the guests outlive.
    switch.stop()?;
    let mut switch = start()?;
    carries_pings(&a, &b, &mut switch)
}

fn carries_pings(a: &Guest, b: &Guest, switch: &mut Switch) -> Result<()> {
    switch.await_statistics("both guests", |statistics| {
        statistics.ports.iter().all(|port| port.connected)
    })?;
    both_carry(a, b, 5)?;
    switch.statistics()?.check()
}

fn both_carry(a: &Guest, b: &Guest, key: u8) -> Result<()> {
    // The first may be lost while the link comes up again.
    for (from, address) in [(a, B), (b, A)] {
        from.sh(&format!("ping -q -c 1 -w 20 {address}"))?;
        ping(from, address, 20)?;
    }
    Stream { blocks: 4, key }.send(a, b, B)?;
    Stream { blocks: 4, key }.send(b, a, A)?;
    Ok(())
}

/// Waits until frames of both guests have crossed.
fn carries(switch: &mut Switch, frames: u64) -> Result<()> {
    switch.await_statistics("frames of both guests", |statistics| {
        statistics
            .ports
            .iter()
            .all(|port| port.sum().rx_frames >= frames)
    })?;
    Ok(())
}
