//! `ringway doctor` and what vhost-user does when a guest's driver starts, and with switches that can less than ours. Each fault is
//! made with names by chance, named, and cured by what is printed; a second NIC is sound.

use std::{fs, path::Path, time::Duration};

use anyhow::{Result, bail, ensure};
use ringway_tests::doctor::{ALONE, Doctor, MEMORY, Outcome, RECONNECT, Running, Scene};

const GUEST_MEMORY: &str =
    "-M q35,memory-backend=m -m 256 -object memory-backend-memfd,id=m,size=256M,share=on";
const LIMIT: Duration = Duration::from_secs(10);

fn back_end(scene: &Scene, words: &str) -> Result<Running> {
    let program = Path::new(env!("CARGO_BIN_EXE_back-end")).display();
    let path = scene.path(&scene.sick);
    scene.switch(&format!("{program} {path} {words}"))
}

/// All protocol features but these.
fn without(bits: &[u32]) -> String {
    let mask = bits.iter().fold(u64::MAX, |mask, bit| mask & !(1 << bit));
    format!("protocol={mask:#x}")
}

#[test]
fn memory_that_is_not_shared_shows_when_the_driver_starts() -> Result<()> {
    let Some(scene) = Scene::with("doctor-memory", &[])? else {
        return Ok(());
    };
    let mut switch = scene.lab.switch().vhost_user(&scene.sound, 1).start()?;
    // To a switch that takes memory piece by piece QEMU gives none, and says nothing.
    let _foreign = back_end(&scene, &without(&[15]))?;
    let line = scene.guest(&format!("-m 256 {}", scene.nic(RECONNECT, "", "")))?;
    let mut running = scene.runs(&line)?;
    running.await_said("Failed initializing vhost-user memory map")?;
    running.await_said("unable to start vhost net")?;
    let pid = format!("--pid {}", running.pid());
    let found = Doctor::new(&scene.place)?.finds(&pid, "memory-not-shared", &scene.sick)?;
    running.kill();
    let running = scene.heals(&line, &found)?;
    switch.await_statistics("a driver", |it| {
        it.ports.iter().all(|port| port.features != "0x0")
    })?;
    scene.is_silent(&format!("--pid {}", running[0].pid()))
}

#[test]
fn a_switch_that_refuses_to_start() -> Result<()> {
    let Some(scene) = Scene::with("doctor-refusal", &[])? else {
        return Ok(());
    };
    let _switch = scene.lab.switch().vhost_user(&scene.sound, 1).start()?;
    let _refuses = back_end(&scene, "memory=0")?;
    let line = scene.guest(&format!("{GUEST_MEMORY} {}", scene.nic(RECONNECT, "", "")))?;
    let mut running = scene.runs(&line)?;
    running.await_said("falling back on userspace virtio")?;
    let pid = format!("--pid {}", running.pid());
    let found = scene.finds(&pid, "vhost-not-started")?;
    let _ours = scene.cures(&found)?;
    // The driver has to start anew.
    let doctor = Doctor::new(&scene.place)?;
    running.until("silence", |_| Ok(doctor.asks(&pid)?.is_empty()))
}

#[test]
fn a_switch_that_comes_back_with_less() -> Result<()> {
    let Some(scene) = Scene::with("doctor-features", &[])? else {
        return Ok(());
    };
    let sound = scene.lab.switch().named("sound");
    let _sound = sound.vhost_user(&scene.sound, 1).start()?;
    let (path, control) = (scene.path(&scene.sick), scene.path("control"));
    let start = |more: &str| {
        let port = format!("--port vhost-user,path={path}{more}");
        scene.switch(&format!("ringway switch --control {control} {port}"))
    };
    let line = scene.guest(&format!("{GUEST_MEMORY} {}", scene.nic(RECONNECT, "", "")))?;
    let first = start("")?;
    let mut running = scene.runs(&line)?;
    running.until("a driver", |_| {
        let mut client = ringway_api::control::Client::connect(control.as_ref(), LIMIT)?;
        Ok(client.ports()?[0].features != 0)
    })?;
    let pid = format!("--pid {}", running.pid());
    scene.is_silent(&pid)?;
    first.end()?;
    let _less = start(",offload=off")?;
    running.await_said("lacks feature mask")?;
    let found = scene.finds(&pid, "features-lost")?;
    ensure!(found.what.contains("csum"), "{found:?}");
    running.kill();
    scene.heals(&line, &found).map(drop)
}

#[test]
fn a_foreign_switch_with_fewer_queues() -> Result<()> {
    let Some(scene) = Scene::with("doctor-foreign-queues", &[])? else {
        return Ok(());
    };
    let _switch = scene.lab.switch().vhost_user(&scene.sound, 1).start()?;
    let _few = back_end(&scene, "queues=2 features=0x100400000")?;
    let card = scene.nic(RECONNECT, ",queues=3", ",mq=on,vectors=8");
    let line = scene.line(&format!("{MEMORY} -smp 4 {card}"));
    let mut running = scene.waits(&line)?;
    running.await_said("asking more queues than supported")?;
    let found = scene.finds(&format!("--pid {}", running.pid()), "too-many-queues")?;
    ensure!(found.what.contains("offers 2"), "{found:?}");
    running.kill();
    scene.heals(&line, &found).map(drop)
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
    let Some(scene) = Scene::with(name, &[])? else {
        return Ok(());
    };
    let _switch = scene.lab.switch().vhost_user(&scene.sound, 1).start()?;
    let _poor = back_end(&scene, words)?;
    let line = scene.line(&format!("{options} {}", scene.nic(RECONNECT, "", "")));
    let said = match scene.qemu(&line, Duration::from_secs(1))? {
        Outcome::Ended(said) => said,
        Outcome::Waits(running) => running.said(),
        Outcome::Runs(running) => bail!("it runs: {}", running.said()),
    };
    ensure!(said.contains(message), "{said}");
    fs::write(scene.lab.path("said"), &said)?;
    let messages = format!("--messages {}", scene.path("said"));
    // Of the message alone the fault is known, too.
    let alone = Doctor::new(&scene.place)?.after(ALONE);
    alone.finds(&messages, fault, "vhost-user")?;
    let found = scene.finds(&format!("{messages} -- {line}"), fault)?;
    let _ours = scene.heals(&line, &found)?;
    scene.is_silent(&format!("{messages} -- {line}"))
}
