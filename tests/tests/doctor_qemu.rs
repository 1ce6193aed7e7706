//! `ringway doctor` and command lines of QEMU: each fault is made, named, and cured by what is printed. No guest runs in these; each
//! machine has a second NIC, which is sound.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use anyhow::{Result, ensure};
use ringway_tests::{
    Need,
    doctor::{ALONE, Doctor, MEMORY, RECONNECT, Scene},
};

#[test]
fn more_queues_than_the_switch_has() -> Result<()> {
    let Some(scene) = Scene::with("doctor-queues", &[])? else {
        return Ok(());
    };
    let switch = scene.lab.switch().vhost_user(&scene.sick, 2);
    let _switch = switch.vhost_user(&scene.sound, 1).start()?;
    let card = scene.nic(RECONNECT, ",queues=4", ",mq=on,vectors=10");
    let line = scene.line(&format!("{MEMORY} -smp 4 {card}"));
    // It asks again and again.
    let mut waiting = scene.waits(&line)?;
    let says = "asking more queues than supported: 2";
    waiting.await_said(says)?;
    scene.finds(&format!("--pid {}", waiting.pid()), "too-many-queues")?;
    let said = waiting.said();
    waiting.kill();
    let running = scene.mends(&line, "too-many-queues")?;
    // What was said before is history once the switch says that all is well.
    fs::write(scene.lab.path("said"), said)?;
    let messages = format!("--messages {}", scene.path("said"));
    scene.is_silent(&format!("--pid {} {messages}", running[0].pid()))?;
    let alone = Doctor::new(&scene.place)?.after(ALONE);
    let told = alone.finds(&messages, "too-many-queues", "queues")?;
    ensure!(told.what.contains(" 2 queue pairs"), "{told:?}");
    Ok(())
}

#[test]
fn a_socket_that_is_not_there_or_has_nobody() -> Result<()> {
    let Some(scene) = Scene::with("doctor-socket", &[])? else {
        return Ok(());
    };
    let _switch = scene.lab.switch().vhost_user(&scene.sound, 1).start()?;
    let path = scene.path(&scene.sick);
    let line = |socket| scene.line(&format!("{MEMORY} {}", scene.nic(socket, "", "")));
    let (once, again) = (line("server=off"), line(RECONNECT));

    scene.refused(&once, "No such file or directory")?;
    for _ in ["not there", "removed"] {
        // It waits, and is found waiting.
        let waiting = scene.waits(&again)?;
        scene.finds(
            &format!("--pid {}", waiting.pid()),
            "vhost-user-socket-missing",
        )?;
        waiting.kill();
        let running = scene.mends(&again, "vhost-user-socket-missing")?;
        ensure!(Path::new(&path).exists());
        running.into_iter().rev().try_for_each(|it| it.end())?;
        ensure!(!Path::new(&path).exists(), "the switch left its socket");
    }

    // A switch that was killed leaves its socket.
    let killed = scene.switch(&format!("ringway switch --port vhost-user,path={path}"))?;
    killed.kill();
    scene.refused(&once, "Connection refused")?;
    scene.mends(&again, "vhost-user-socket-stale").map(drop)
}

#[test]
fn both_ends_listen_or_both_connect() -> Result<()> {
    let Some(scene) = Scene::with("doctor-roles", &[])? else {
        return Ok(());
    };
    let sick = &scene.sick;
    for (mode, socket) in [("", "server=on,wait=off"), (",mode=client", RECONNECT)] {
        let port = format!("vhost-user,path={}{mode},name={sick}", scene.path(sick));
        let switch = scene.lab.switch().port(&port);
        let _switch = switch.vhost_user(&scene.sound, 1).start()?;
        let line = scene.line(&format!("{MEMORY} {}", scene.nic(socket, "", "")));
        scene.mends(&line, "vhost-user-roles")?;
    }
    Ok(())
}

#[test]
fn a_machine_that_does_not_connect_again() -> Result<()> {
    let Some(scene) = Scene::with("doctor-reconnect", &[])? else {
        return Ok(());
    };
    let switch = || {
        let switch = scene.lab.switch().vhost_user(&scene.sick, 1);
        switch.vhost_user(&scene.sound, 1).start()
    };
    let first = switch()?;
    let line = scene.line(&format!("{MEMORY} {}", scene.nic("server=off", "", "")));
    let running = scene.runs(&line)?;
    let pid = format!("--pid {}", running.pid());
    scene.finds(&pid, "vhost-user-no-reconnect")?;
    first.stop()?;
    let _second = switch()?;
    let found = scene.finds(&pid, "vhost-user-no-reconnect")?;
    ensure!(found.what.contains("has lost the switch"), "{found:?}");
    running.end()?;
    scene.heals(&line, &found).map(drop)
}

#[test]
fn several_queues_that_do_not_reach_the_guest() -> Result<()> {
    let Some(scene) = Scene::with("doctor-queues-of-the-guest", &[])? else {
        return Ok(());
    };
    let switch = scene.lab.switch().vhost_user(&scene.sick, 4);
    let _switch = switch.vhost_user(&scene.sound, 1).start()?;
    let line = |cpus: u16, netdev: &str, device: &str| {
        let card = scene.nic(RECONNECT, netdev, device);
        scene.line(&format!("{MEMORY} -smp {cpus} {card}"))
    };
    let virtio = format!("virtio-net-pci,netdev={}", scene.sick);
    let model =
        line(4, ",queues=4", "").replace(&virtio, &virtio.replace("virtio-net-pci", "e1000"));
    // vhost-user takes virtio alone.
    scene.refused(&model, "requires frontend driver virtio-net")?;
    scene.mends(&model, "queues-need-virtio")?;
    // These run, and say nothing; what a guest makes of them is seen in doctor_guest.
    for (fault, line) in [
        ("queues-mq-off", line(4, ",queues=4", "")),
        ("queues-missing", line(4, "", ",mq=on")),
        ("queues-beyond-cpus", line(2, ",queues=4", ",mq=on")),
        ("vectors-too-few", line(4, ",queues=4", ",mq=on,vectors=4")),
    ] {
        let running = scene.runs(&line)?;
        scene.finds(&format!("--pid {}", running.pid()), fault)?;
        running.end()?;
        scene.mends(&line, fault)?;
    }
    Ok(())
}

#[test]
fn memory_that_is_not_shared_in_all_its_forms() -> Result<()> {
    let Some(scene) = Scene::with("doctor-memory-lines", &[])? else {
        return Ok(());
    };
    let switch = scene.lab.switch().vhost_user(&scene.sick, 1);
    let _switch = switch.vhost_user(&scene.sound, 1).start()?;
    let line = |memory: &str| scene.line(&format!("{memory} {}", scene.nic(RECONNECT, "", "")));
    scene.is_silent(&format!("-- {}", line(MEMORY)))?;
    let doctor = Doctor::new(&scene.place)?;
    let folder = scene.path("");
    for memory in [
        "-m 64",
        "-M q35 -m size=64M",
        "-machine q35,memory-backend=m -m 64 -object memory-backend-ram,id=m,size=64M",
        &format!("-m 64 -mem-path {folder}"),
        "-smp 2 -m 64 -object memory-backend-memfd,id=a,size=32M,share=on -object memory-backend-memfd,id=b,size=32M,share=off \
         -numa node,memdev=a,cpus=0 -numa node,memdev=b,cpus=1",
    ] {
        let line = line(memory);
        let running = scene.runs(&line)?;
        // It is the memory of all its NICs.
        let found = doctor.finds(
            &format!("--pid {}", running.pid()),
            "memory-not-shared",
            "memory",
        )?;
        ensure!(found.machine.as_ref() == Some(&scene.sick), "{found:?}");
        running.end()?;
        let found = doctor.finds(&format!("-- {line}"), "memory-not-shared", &scene.sick)?;
        scene.heals(&line, &found)?;
    }
    Ok(())
}

#[test]
fn a_socket_that_its_user_may_not_open() -> Result<()> {
    let Some(scene) = Scene::with("doctor-denied", &[Need::Root])? else {
        return Ok(());
    };
    let Scene { lab, sound, .. } = &scene;
    // Who is nobody, here and at the switch.
    let user = "setpriv --reuid 65534 --regid 65534 --clear-groups";
    let folder = lab.path("shut");
    fs::create_dir(&folder)?;
    let set = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode));
    set(&lab.path(""), 0o755)?;
    set(&folder, 0o700)?;
    set(&lab.path("monitors"), 0o777)?;
    let path = folder.join(&scene.sick).display().to_string();
    let _switch = lab
        .switch()
        .port(&format!(
            "vhost-user,path={path},name={},perm=0600",
            scene.sick
        ))
        .port(&format!(
            "vhost-user,path={},name={sound},perm=0666",
            scene.path(sound)
        ))
        .start()?;
    let line = |socket| {
        let card = scene
            .nic(socket, "", "")
            .replace(&scene.path(&scene.sick), &path);
        scene.line(&format!("{MEMORY} {card}"))
    };
    scene.refused(
        &format!("{user} {}", line("server=off")),
        "Permission denied",
    )?;
    let program = lab.reachable_binary()?.display().to_string();
    let doctor = Doctor::new(&scene.place)?.by(&program).after(user);
    let line = line(RECONNECT);
    let before = format!("-- {line}");
    // First the way to it is shut, then the socket itself.
    for what in [&folder.display().to_string(), &path] {
        let found = doctor.finds(&before, "vhost-user-socket-denied", &scene.sick)?;
        ensure!(found.what.ends_with(what), "{found:?}");
        scene.cures(&found)?;
    }
    doctor.is_silent(&before)?;
    let running = scene.runs(&format!("{user} {line}"))?;
    scene.is_silent(&format!("--pid {}", running.pid()))
}

#[test]
fn a_qemu_that_would_crash() -> Result<()> {
    let Some(scene) = Scene::with("doctor-crash", &[])? else {
        return Ok(());
    };
    let Scene { lab, sound, .. } = &scene;
    let switch = lab.switch().vhost_user(&scene.sick, 2);
    let _switch = switch.vhost_user(sound, 1).start()?;
    // Its version alone; all else is that of the QEMU there is, which does not crash.
    let old = lab.path("qemu-system-x86_64");
    let script = "#!/bin/sh\n[ \"$1\" = --version ] && echo 'QEMU emulator version 7.2.22' || exec qemu-system-x86_64 \"$@\"\n";
    fs::write(&old, script)?;
    fs::set_permissions(&old, fs::Permissions::from_mode(0o755))?;
    let card = scene.nic("reconnect=1", ",queues=2", ",mq=on,vectors=6");
    let line = scene.line_of(
        &format!("{} -S", old.display()),
        &format!("{MEMORY} -smp 2 {card}"),
    );
    // Without interrupts of its own a NIC is safe.
    let well = format!("netdev={sound},romfile=");
    let line = line.replace(&well, &format!("{well},vectors=0"));
    scene.is_silent(&format!("-- {}", line.replace("-accel tcg", "-accel xen")))?;
    scene.mends(&line, "qemu-crashes").map(drop)
}
