//! A switch is upgraded under real guests: their NICs notice nothing, and what they stream arrives.

use std::{env, path::PathBuf};

use anyhow::{Context, Result, ensure};
use ringway_tests::{
    Guest, Lab, Need, Pair, Switch,
    pair::{A, B},
    stream::Stream,
    switch::SwitchBuilder,
};

const QUEUES: u16 = 2;
const TAKEOVERS: u32 = 3;

#[test]
fn guests_notice_nothing_of_an_upgrade() -> Result<()> {
    let Some(lab) = Lab::with("takeover", &[Need::Guests, Need::Program("openssl")])? else {
        return Ok(());
    };
    let control = lab.path("control").display().to_string();
    let switch = lab.switch().vhost_user("a", QUEUES).vhost_user("b", QUEUES);
    let switch = switch.arguments(&["--control", &control]).start()?;
    let guest = |name, nic| lab.guest(name).processors(QUEUES).nic(nic);
    let split = lab.nic("a").queues(QUEUES);
    let packed = lab.nic("b").queues(QUEUES).packed();
    let Pair { a, b, mut switch } = Pair::boot(switch, guest("a", split), guest("b", packed))?;
    Stream { blocks: 1, key: 1 }.send(&a, &b, B)?;
    let before = [carrier_changes(&a)?, carrier_changes(&b)?];

    let stream = |key| Stream { blocks: 48, key };
    let there = stream(2).start(&a, &b, B)?;
    let back = stream(3).start(&b, &a, A)?;
    let mut gaps = Vec::new();
    for n in 0..TAKEOVERS {
        carries(&mut switch, 400 * u64::from(n + 1))?;
        let successor = lab.switch().named(&format!("successor-{n}"));
        let (next, gap) = take_over(switch, successor, &control)?;
        switch = next;
        gaps.push(gap);
    }
    for (way, stream) in [("a to b", there), ("b to a", back)] {
        let arrived = stream.finish()?;
        lab.report(&format!("{way}, over {TAKEOVERS} takeovers: {arrived}"));
    }
    let after = [carrier_changes(&a)?, carrier_changes(&b)?];
    ensure!(
        before == after,
        "carrier_changes: {before:?}, then {after:?}"
    );
    lab.report(&format!(
        "carrier_changes stay {after:?}; frames waited for {gaps:?} ms"
    ));

    // A successor that does not begin leaves everything as it was.
    let refused = lab.switch().named("refused");
    let refused = refused.arguments(&["--takeover", &control, "--control", "/nowhere/control"]);
    ensure!(
        refused.start().is_err(),
        "took over without a control socket of its own"
    );
    Stream { blocks: 1, key: 4 }.send(&b, &a, A)?;
    let statistics = switch.statistics()?;
    statistics.check()?;
    for port in &statistics.ports {
        ensure!(!port.drops.contains_key("fault"), "{port:?}");
    }
    switch.stop()?;
    ensure!(
        !lab.path("control").exists() && !lab.path("a").exists(),
        "sockets are left"
    );
    Ok(())
}

#[test]
fn the_switch_of_the_commit_before_is_taken_over() -> Result<()> {
    let Some(lab) = Lab::with(
        "takeover-previous",
        &[Need::Guests, Need::Program("openssl")],
    )?
    else {
        return Ok(());
    };
    let Some(previous) = env::var_os("RINGWAY_PREVIOUS").filter(|path| !path.is_empty()) else {
        lab.report("no binary of the commit before: RINGWAY_PREVIOUS names none");
        return Ok(());
    };
    let control = lab.path("control").display().to_string();
    let switch = lab
        .switch()
        .program(PathBuf::from(previous))
        .vhost_user("a", 1)
        .vhost_user("b", 1);
    let switch = switch.arguments(&["--control", &control]).start()?;
    let guest = |name, nic| lab.guest(name).nic(nic);
    let Pair { a, b, switch } = Pair::boot(
        switch,
        guest("a", lab.nic("a")),
        guest("b", lab.nic("b").packed()),
    )?;
    let before = [carrier_changes(&a)?, carrier_changes(&b)?];
    let stream = Stream { blocks: 16, key: 5 }.start(&a, &b, B)?;
    let (switch, gap) = take_over(switch, lab.switch().named("successor"), &control)?;
    let arrived = stream.finish()?;
    let after = [carrier_changes(&a)?, carrier_changes(&b)?];
    ensure!(
        before == after,
        "carrier_changes: {before:?}, then {after:?}"
    );
    lab.report(&format!(
        "from the commit before, frames waited for {gap} ms: {arrived}"
    ));
    switch.stop()
}

/// The next switch, and for how many milliseconds no frame crossed.
fn take_over(switch: Switch, next: SwitchBuilder<'_>, control: &str) -> Result<(Switch, f64)> {
    let mut next = next.arguments(&["--takeover", control]).start()?;
    let said = next.await_message("that it took over", |line| line.contains("took over"))?;
    let gap = said
        .split("frames waited for ")
        .nth(1)
        .and_then(|rest| rest.split(' ').next());
    let gap = gap
        .with_context(|| format!("no gap in {said:?}"))?
        .parse()?;
    switch.await_end()?;
    Ok((next, gap))
}

fn carrier_changes(guest: &Guest) -> Result<u32> {
    let text = guest.sh("cat /sys/class/net/eth0/carrier_changes")?;
    text.trim()
        .parse()
        .with_context(|| format!("not a number: {text:?}"))
}

/// Waits until so many frames of both guests have crossed.
fn carries(switch: &mut Switch, frames: u64) -> Result<()> {
    switch.await_statistics("frames of both guests", |statistics| {
        statistics
            .ports
            .iter()
            .all(|port| port.sum().rx_frames >= frames)
    })?;
    Ok(())
}
