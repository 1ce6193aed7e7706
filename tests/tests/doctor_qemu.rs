//! `ringway doctor` and command lines of QEMU: each fault is made, named, and cured by what is printed. No guest runs in these; each
//! machine has a second NIC, which is sound.

use std::time::Duration;

use anyhow::{Result, ensure};
use ringway_tests::{
    Lab, Need,
    cures::{
        MEMORY, Outcome, RECONNECT, Scene, before, findings, findings_of, nic, only, random_mac,
        words, words_to_ignore,
    },
};

#[test]
fn more_queues_than_the_switch_has() -> Result<()> {
    let Some(lab) = Lab::with("doctor-queues", &[Need::Guests])? else {
        return Ok(());
    };
    let scene = Scene::new(&lab)?;
    let (sick, shell) = (&scene.sick, &scene.shell);
    let _switch = lab
        .switch()
        .vhost_user(sick, 2)
        .vhost_user(&scene.sound, 1)
        .start()?;
    let device = ",mq=on,vectors=10";
    let card = nic(sick, &scene.path(sick), RECONNECT, ",queues=4", device);
    let line = scene.line(&format!("{MEMORY} -smp 4 {card}"));
    // It asks again and again.
    let running = match shell.qemu_for(&line, Duration::from_millis(300))? {
        Outcome::Waits(running) => running,
        other => anyhow::bail!("{other:?}"),
    };
    let said = running.said();
    ensure!(
        said.contains("asking more queues than supported: 2"),
        "{said}"
    );
    only(&running.findings()?, "too-many-queues")?;
    running.kill();
    let found = before(&line)?;
    let found = only(&found, "too-many-queues")?;
    ensure!(found.subject == format!("NIC {sick}"), "{found:?}");
    let running = shell.cure(&found.cure)?;
    ensure!(running[0].findings()?.is_empty());
    ensure!(before(&found.cure[0])?.is_empty());
    // What it said alone, without its switch or its command line, names it too.
    let file = lab.path("said");
    std::fs::write(&file, said)?;
    let told = findings(&[
        "--json",
        "--pid",
        &running[0].pid(),
        "--messages",
        &scene.path("said"),
    ])?;
    ensure!(told.is_empty(), "what was cured is silent: {told:?}");
    Ok(())
}

#[test]
fn a_socket_that_is_not_there_or_has_nobody() -> Result<()> {
    let Some(lab) = Lab::with("doctor-socket", &[Need::Guests])? else {
        return Ok(());
    };
    let scene = Scene::new(&lab)?;
    let (sick, shell) = (&scene.sick, &scene.shell);
    let _switch = lab.switch().vhost_user(&scene.sound, 1).start()?;
    let path = scene.path(sick);
    let once = scene.line(&format!(
        "{MEMORY} {}",
        nic(sick, &path, "server=off", "", "")
    ));
    let line = scene.line(&format!("{MEMORY} {}", nic(sick, &path, RECONNECT, "", "")));

    let said = shell.refused(&once)?;
    ensure!(said.contains("No such file or directory"), "{said}");
    for _ in ["not there", "removed"] {
        // It waits, and is found waiting.
        let waiting = match shell.qemu_for(&line, Duration::from_millis(300))? {
            Outcome::Waits(waiting) => waiting,
            other => anyhow::bail!("{other:?}"),
        };
        let found = waiting.findings()?;
        let found = only(&found, "vhost-user-socket-missing")?;
        ensure!(found.subject == format!("NIC {sick}"), "{found:?}");
        let found = before(&line)?;
        let found = only(&found, "vhost-user-socket-missing")?;
        let switch = shell.cure(&found.cure)?.remove(0);
        waiting.kill();
        let running = shell.qemu(&line)?;
        ensure!(running.findings()?.is_empty() && before(&line)?.is_empty());
        switch.end()?;
    }

    // A switch that was killed leaves its socket.
    shell
        .switch(&format!("ringway switch --port vhost-user,path={path}"))?
        .kill();
    let said = shell.refused(&once)?;
    ensure!(said.contains("Connection refused"), "{said}");
    let found = before(&line)?;
    let found = only(&found, "vhost-user-socket-stale")?;
    ensure!(found.subject == format!("NIC {sick}"), "{found:?}");
    let _switch = shell.cure(&found.cure)?;
    let running = shell.qemu(&line)?;
    ensure!(running.findings()?.is_empty() && before(&line)?.is_empty());
    Ok(())
}

#[test]
fn both_ends_listen_or_both_connect() -> Result<()> {
    let Some(lab) = Lab::with("doctor-roles", &[Need::Guests])? else {
        return Ok(());
    };
    let scene = Scene::new(&lab)?;
    let (sick, shell) = (&scene.sick, &scene.shell);
    let path = scene.path(sick);
    let switch = |mode: &str| {
        lab.switch()
            .port(&format!("vhost-user,path={path}{mode},name={sick}"))
            .vhost_user(&scene.sound, 1)
            .start()
    };
    let line = |socket: &str| scene.line(&format!("{MEMORY} {}", nic(sick, &path, socket, "", "")));
    for (mode, socket) in [("", "server=on,wait=off"), (",mode=client", RECONNECT)] {
        let _switch = switch(mode)?;
        let found = before(&line(socket))?;
        let found = only(&found, "vhost-user-roles")?;
        ensure!(found.subject == format!("NIC {sick}"), "{found:?}");
        let running = shell.cure(&found.cure)?;
        ensure!(running[0].findings()?.is_empty(), "{mode}");
        ensure!(before(&found.cure[0])?.is_empty(), "{mode}");
    }
    Ok(())
}

#[test]
fn a_machine_that_does_not_connect_again() -> Result<()> {
    let Some(lab) = Lab::with("doctor-reconnect", &[Need::Guests])? else {
        return Ok(());
    };
    let scene = Scene::new(&lab)?;
    let (sick, shell) = (&scene.sick, &scene.shell);
    let switch = || {
        lab.switch()
            .vhost_user(sick, 1)
            .vhost_user(&scene.sound, 1)
            .start()
    };
    let first = switch()?;
    let line = scene.line(&format!(
        "{MEMORY} {}",
        nic(sick, &scene.path(sick), "server=off", "", "")
    ));
    let running = shell.qemu(&line)?;
    let found = running.findings()?;
    only(&found, "vhost-user-no-reconnect")?;
    first.stop()?;
    let _second = switch()?;
    let found = running.findings()?;
    let found = only(&found, "vhost-user-no-reconnect")?;
    ensure!(found.subject == format!("NIC {sick}"), "{found:?}");
    ensure!(found.what.contains("has lost the switch"), "{found:?}");
    running.end()?;
    let running = shell.cure(&found.cure)?;
    ensure!(running[0].findings()?.is_empty());
    Ok(())
}

#[test]
fn several_queues_that_do_not_reach_the_guest() -> Result<()> {
    let Some(lab) = Lab::with("doctor-queues-of-the-guest", &[Need::Guests])? else {
        return Ok(());
    };
    let scene = Scene::new(&lab)?;
    let (sick, shell) = (&scene.sick, &scene.shell);
    let path = scene.path(sick);
    let _switch = lab
        .switch()
        .vhost_user(sick, 4)
        .vhost_user(&scene.sound, 1)
        .start()?;
    let line = |cpus: u16, netdev: &str, device: &str| {
        let card = nic(sick, &path, RECONNECT, netdev, device);
        scene.line(&format!("{MEMORY} -smp {cpus} {card}"))
    };
    let model = line(4, ",queues=4", "").replace(
        &format!("virtio-net-pci,netdev={sick}"),
        &format!("e1000,netdev={sick}"),
    );
    for (fault, line) in [
        ("queues-need-virtio", model),
        ("queues-mq-off", line(4, ",queues=4", "")),
        ("queues-missing", line(4, "", ",mq=on")),
        ("queues-beyond-cpus", line(2, ",queues=4", ",mq=on")),
        ("vectors-too-few", line(4, ",queues=4", ",mq=on,vectors=4")),
    ] {
        let running = match shell.qemu_for(&line, Duration::from_secs(30))? {
            Outcome::Runs(running) => running,
            // vhost-user takes virtio alone.
            Outcome::Ended(said) => {
                ensure!(fault == "queues-need-virtio", "{said}");
                let found = before(&line)?;
                only(&found, fault)?;
                shell.cure(&found[0].cure)?.remove(0)
            }
            Outcome::Waits(_) => anyhow::bail!("{line} waits"),
        };
        let found = before(&line)?;
        let found = only(&found, fault)?;
        ensure!(found.subject == format!("NIC {sick}"), "{found:?}");
        if fault != "queues-need-virtio" {
            only(&running.findings()?, fault)?;
        }
        running.end()?;
        let running = shell.cure(&found.cure)?;
        ensure!(running[0].findings()?.is_empty(), "{fault}");
        ensure!(before(&found.cure[0])?.is_empty(), "{fault}");
        running.into_iter().try_for_each(|it| it.end())?;
    }
    Ok(())
}

#[test]
fn memory_that_is_not_shared_in_all_its_forms() -> Result<()> {
    let Some(lab) = Lab::with("doctor-memory-lines", &[Need::Guests])? else {
        return Ok(());
    };
    let scene = Scene::new(&lab)?;
    let (sick, shell) = (&scene.sick, &scene.shell);
    let _switch = lab
        .switch()
        .vhost_user(sick, 1)
        .vhost_user(&scene.sound, 1)
        .start()?;
    let card = nic(sick, &scene.path(sick), RECONNECT, "", "");
    ensure!(before(&scene.line(&format!("{MEMORY} {card}")))?.is_empty());
    let folder = lab.path("").display().to_string();
    for memory in [
        "-m 64".to_owned(),
        "-M q35 -m size=64M".into(),
        "-machine q35,memory-backend=m -m 64 -object memory-backend-ram,id=m,size=64M".into(),
        format!("-m 64 -mem-path {folder}"),
        "-smp 2 -m 64 -object memory-backend-memfd,id=a,size=32M,share=on -object memory-backend-memfd,id=b,size=32M,share=off \
         -numa node,memdev=a,cpus=0 -numa node,memdev=b,cpus=1"
            .into(),
    ] {
        let line = scene.line(&format!("{memory} {card}"));
        let running = shell.qemu(&line)?;
        only(&running.findings()?, "memory-not-shared")?;
        running.end()?;
        let found = before(&line)?;
        let found = only(&found, "memory-not-shared")?;
        ensure!(found.what.contains(sick.as_str()), "{found:?}");
        let running = shell.cure(&found.cure)?;
        ensure!(running[0].findings()?.is_empty(), "{memory}");
        ensure!(before(&found.cure[0])?.is_empty(), "{memory}");
        running.into_iter().try_for_each(|it| it.end())?;
    }
    Ok(())
}

#[test]
fn an_address_that_the_switch_does_not_take() -> Result<()> {
    let Some(lab) = Lab::with("doctor-mac", &[Need::Guests])? else {
        return Ok(());
    };
    let scene = Scene::new(&lab)?;
    let (sick, sound, shell) = (&scene.sick, &scene.sound, &scene.shell);
    let (own, other) = (random_mac()?, random_mac()?);
    let _switch = lab
        .switch()
        .port(&format!(
            "vhost-user,path={},name={sick},mac={own}",
            scene.path(sick)
        ))
        .vhost_user(sound, 1)
        .start()?;
    let card = nic(
        sick,
        &scene.path(sick),
        RECONNECT,
        "",
        &format!(",mac={other}"),
    );
    let line = scene.line(&format!("{MEMORY} {card}"));
    let running = shell.qemu(&line)?;
    only(&running.findings()?, "wrong-mac")?;
    running.end()?;
    let found = before(&line)?;
    let found = only(&found, "wrong-mac")?;
    ensure!(found.subject == format!("NIC {sick}"), "{found:?}");
    ensure!(
        found.what.contains(&own) && found.what.contains(&other),
        "{found:?}"
    );
    let running = shell.cure(&found.cure)?;
    ensure!(running[0].findings()?.is_empty());
    Ok(())
}

#[test]
fn a_socket_that_its_user_may_not_open() -> Result<()> {
    let Some(lab) = Lab::with("doctor-denied", &[Need::Guests, Need::Root])? else {
        return Ok(());
    };
    let scene = Scene::new(&lab)?;
    let (sick, sound, shell) = (&scene.sick, &scene.sound, &scene.shell);
    // Who is nobody, here and at the switch.
    let user = "setpriv --reuid 65534 --regid 65534 --clear-groups ";
    let folder = lab.path("shut");
    std::fs::create_dir(&folder)?;
    let set = |path: &std::path::Path, mode| {
        std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode))
    };
    set(&lab.path(""), 0o755)?;
    set(&folder, 0o700)?;
    set(&lab.path("monitors"), 0o777)?;
    let path = folder.join(sick).display().to_string();
    let _switch = lab
        .switch()
        .port(&format!("vhost-user,path={path},name={sick},perm=0600"))
        .port(&format!(
            "vhost-user,path={},name={sound},perm=0666",
            scene.path(sound)
        ))
        .start()?;
    let card = nic(sick, &path, "server=off", "", "");
    let line = scene.line(&format!("{MEMORY} {card}"));
    let said = shell.refused(&format!("{user}{line}"))?;
    ensure!(said.contains("Permission denied"), "{said}");
    let program = lab.reachable_binary()?.display().to_string();
    let ignored = words_to_ignore()?.join(" ");
    let ask = |line: &str| -> Result<_> {
        let all = words(&format!(
            "{user}{program} doctor {ignored} --json -- {line}"
        ))?;
        findings_of(std::process::Command::new(&all[0]).args(&all[1..]))
    };
    let line = scene.line(&format!("{MEMORY} {}", nic(sick, &path, RECONNECT, "", "")));
    // First the way to it is shut, then the socket itself.
    for what in [folder.display().to_string(), path.clone()] {
        let found = ask(&line)?;
        let found = only(&found, "vhost-user-socket-denied")?;
        ensure!(found.subject == format!("NIC {sick}"), "{found:?}");
        ensure!(found.what.ends_with(&what), "{found:?}");
        shell.cure(&found.cure)?;
    }
    ensure!(ask(&line)?.is_empty());
    let running = shell.qemu(&format!("{user}{line}"))?;
    ensure!(running.findings()?.is_empty());
    Ok(())
}

#[test]
fn a_qemu_that_would_crash() -> Result<()> {
    let Some(lab) = Lab::with("doctor-crash", &[Need::Guests])? else {
        return Ok(());
    };
    let scene = Scene::new(&lab)?;
    let (sick, sound, shell) = (&scene.sick, &scene.sound, &scene.shell);
    let _switch = lab
        .switch()
        .vhost_user(sick, 2)
        .vhost_user(sound, 1)
        .start()?;
    // Its version alone; all else is that of the QEMU there is, which does not crash.
    let old = lab.path("qemu-system-x86_64");
    let script = "#!/bin/sh\n[ \"$1\" = --version ] && echo 'QEMU emulator version 7.2.22' || exec qemu-system-x86_64 \"$@\"\n";
    std::fs::write(&old, script)?;
    std::fs::set_permissions(&old, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    let program = format!("{} -S", old.display());
    let card = nic(
        sick,
        &scene.path(sick),
        "reconnect=1",
        ",queues=2",
        ",mq=on,vectors=6",
    );
    let line = scene.line_of(&program, &format!("{MEMORY} -smp 2 {card}"));
    // Without interrupts of its own a NIC is safe.
    let line = line.replace(
        &format!("netdev={sound},romfile="),
        &format!("netdev={sound},romfile=,vectors=0"),
    );
    let found = before(&line)?;
    let found = only(&found, "qemu-crashes")?;
    ensure!(found.subject == format!("NIC {sick}"), "{found:?}");
    ensure!(before(&line.replace("-accel tcg", "-accel xen"))?.is_empty());
    let running = shell.cure(&found.cure)?;
    ensure!(running[0].findings()?.is_empty());
    let cured = found.cure.last().unwrap();
    ensure!(before(cured)?.is_empty(), "{cured}");
    Ok(())
}
