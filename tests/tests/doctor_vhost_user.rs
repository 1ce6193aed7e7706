//! `ringway doctor` and what vhost-user does when a guest's driver starts, and with switches that can less than ours. Each fault is
//! made with names by chance, named, and cured by what is printed; a second NIC is sound.

use std::{path::Path, time::Duration};

use anyhow::{Result, ensure};
use ringway_tests::{
    Lab, Need,
    cures::{MEMORY, Outcome, RECONNECT, Running, Scene, before, findings, nic, only},
};

const GUEST_MEMORY: &str =
    "-M q35,memory-backend=m -m 256 -object memory-backend-memfd,id=m,size=256M,share=on";

fn back_end(scene: &Scene<'_>, words: &str) -> Result<Running> {
    let program = Path::new(env!("CARGO_BIN_EXE_back-end")).display();
    let path = scene.path(&scene.sick);
    scene.shell.switch(&format!("{program} {path} {words}"))
}

/// All protocol features but these.
fn without(bits: &[u32]) -> String {
    let mask = bits.iter().fold(u64::MAX, |mask, bit| mask & !(1 << bit));
    format!("protocol={mask:#x}")
}

#[test]
fn memory_that_is_not_shared_shows_when_the_driver_starts() -> Result<()> {
    let Some(lab) = Lab::with("doctor-memory", &[Need::Guests])? else {
        return Ok(());
    };
    let scene = Scene::new(&lab)?;
    let mut switch = lab.switch().vhost_user(&scene.sound, 1).start()?;
    // To a switch that takes memory piece by piece QEMU gives none, and says nothing.
    let _foreign = back_end(&scene, &without(&[15]))?;
    let card = nic(&scene.sick, &scene.path(&scene.sick), RECONNECT, "", "");
    let mut running = scene.shell.qemu(&scene.guest(&format!("-m 256 {card}"))?)?;
    running.await_said("Failed initializing vhost-user memory map")?;
    running.await_said("unable to start vhost net")?;
    let found = running.findings()?;
    let found = only(&found, "memory-not-shared")?;
    running.kill();
    let running = scene.shell.cure(&found.cure)?;
    switch.await_statistics("a driver", |it| {
        it.ports.iter().all(|port| port.features != "0x0")
    })?;
    ensure!(running[0].findings()?.is_empty());
    Ok(())
}

#[test]
fn a_switch_that_refuses_to_start() -> Result<()> {
    let Some(lab) = Lab::with("doctor-refusal", &[Need::Guests])? else {
        return Ok(());
    };
    let scene = Scene::new(&lab)?;
    let _switch = lab.switch().vhost_user(&scene.sound, 1).start()?;
    let _refuses = back_end(&scene, "memory=0")?;
    let card = nic(&scene.sick, &scene.path(&scene.sick), RECONNECT, "", "");
    let line = scene.guest(&format!("{GUEST_MEMORY} {card}"))?;
    let mut running = scene.shell.qemu(&line)?;
    running.await_said("falling back on userspace virtio")?;
    let found = running.findings()?;
    let found = only(&found, "vhost-not-started")?;
    ensure!(found.subject == format!("NIC {}", scene.sick), "{found:?}");
    let _ours = scene.shell.cure(&found.cure)?;
    running.await_silence()
}

#[test]
fn a_switch_that_comes_back_with_less() -> Result<()> {
    let Some(lab) = Lab::with("doctor-features", &[Need::Guests])? else {
        return Ok(());
    };
    let scene = Scene::new(&lab)?;
    let sick = &scene.sick;
    let _sound = lab
        .switch()
        .named("sound")
        .vhost_user(&scene.sound, 1)
        .start()?;
    let path = scene.path(sick);
    let control = scene.path("control");
    let start = |more: &str| {
        let port =
            format!("ringway switch --control {control} --port vhost-user,path={path}{more}");
        scene.shell.switch(&port)
    };
    let card = nic(sick, &path, RECONNECT, "", "");
    let line = scene.guest(&format!("{GUEST_MEMORY} {card}"))?;
    let first = start("")?;
    let mut running = scene.shell.qemu(&line)?;
    let mut client =
        ringway_api::control::Client::connect(control.as_ref(), Duration::from_secs(10))?;
    let end = std::time::Instant::now() + Duration::from_secs(60);
    while client.ports()?[0].features == 0 {
        ensure!(std::time::Instant::now() < end, "no driver");
        std::thread::sleep(Duration::from_millis(100));
    }
    ensure!(running.findings()?.is_empty());
    first.end()?;
    let _less = start(",offload=off")?;
    running.await_said("lacks feature mask")?;
    let found = running.findings()?;
    let found = only(&found, "features-lost")?;
    ensure!(found.subject == format!("NIC {sick}"), "{found:?}");
    ensure!(found.what.contains("csum"), "{found:?}");
    running.kill();
    let running = scene.shell.cure(&found.cure)?;
    ensure!(running[0].findings()?.is_empty());
    Ok(())
}

#[test]
fn a_foreign_switch_with_fewer_queues() -> Result<()> {
    let Some(lab) = Lab::with("doctor-foreign-queues", &[Need::Guests])? else {
        return Ok(());
    };
    let scene = Scene::new(&lab)?;
    let _switch = lab.switch().vhost_user(&scene.sound, 1).start()?;
    let _few = back_end(&scene, "queues=2 features=0x100400000")?;
    let path = scene.path(&scene.sick);
    let card = nic(
        &scene.sick,
        &path,
        RECONNECT,
        ",queues=3",
        ",mq=on,vectors=8",
    );
    let line = scene.line(&format!("{MEMORY} -smp 4 {card}"));
    let running = match scene.shell.qemu_for(&line, Duration::from_millis(300))? {
        Outcome::Waits(running) => running,
        other => anyhow::bail!("{other:?}"),
    };
    let found = running.findings()?;
    let found = only(&found, "too-many-queues")?;
    ensure!(found.what.contains("offers 2"), "{found:?}");
    running.kill();
    let running = scene.shell.cure(&found.cure)?;
    ensure!(running[0].findings()?.is_empty());
    Ok(())
}

#[test]
fn a_foreign_switch_that_bars_migration() -> Result<()> {
    foreign(
        "doctor-migration",
        &without(&[1]),
        &format!("{MEMORY} -only-migratable"),
        "Migration disabled",
        "migration-disabled",
    )
}

#[test]
fn a_foreign_switch_with_few_memory_slots() -> Result<()> {
    let dimms: String = (0..9)
        .map(|n| {
            format!(
                " -object memory-backend-memfd,id=d{n},size=128M,share=on -device pc-dimm,memdev=d{n}"
            )
        })
        .collect();
    let memory = MEMORY.replace("-m 64", "-m 64,slots=16,maxmem=32G");
    foreign(
        "doctor-slots",
        &without(&[15]),
        &format!("{memory}{dimms}"),
        "memory slots",
        "memory-slots",
    )
}

/// A switch with `words` makes QEMU with `options` end with `message`; another one cures it.
fn foreign(name: &str, words: &str, options: &str, message: &str, fault: &str) -> Result<()> {
    let Some(lab) = Lab::with(name, &[Need::Guests])? else {
        return Ok(());
    };
    let scene = Scene::new(&lab)?;
    let _switch = lab.switch().vhost_user(&scene.sound, 1).start()?;
    let _poor = back_end(&scene, words)?;
    let card = nic(&scene.sick, &scene.path(&scene.sick), RECONNECT, "", "");
    let line = scene.line(&format!("{options} {card}"));
    let said = match scene.shell.qemu_for(&line, Duration::from_secs(1))? {
        Outcome::Ended(said) => said,
        Outcome::Waits(running) => running.said(),
        Outcome::Runs(running) => anyhow::bail!("it runs: {}", running.said()),
    };
    ensure!(said.contains(message), "{said}");
    std::fs::write(lab.path("said"), &said)?;
    let said = scene.path("said");
    let ask = || -> Result<_> {
        let words = ringway_tests::cures::words(&line)?;
        let mut all = vec!["--json", "--messages", &said, "--"];
        all.extend(words.iter().map(String::as_str));
        findings(&all)
    };
    let found = ask()?;
    let found = only(&found, fault)?;
    ensure!(found.subject == format!("NIC {}", scene.sick), "{found:?}");
    // Of the message alone the fault is known, too.
    only(&findings(&["--json", "--messages", &said])?, fault)?;
    let _ours = scene.shell.cure(&found.cure)?;
    let running = scene.shell.qemu(&line)?;
    ensure!(running.findings()?.is_empty());
    ensure!(ask()?.is_empty() && before(&line)?.is_empty());
    Ok(())
}
