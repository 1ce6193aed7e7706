//! `ringway vm`: QEMU is started with what `vm args` prints; what `vm run` makes is unmade, however it ends; threads are pinned.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ringway_tests::{
    Daemon, Endpoint, Lab, Need, Netns, Pair,
    emulator::again_if_the_emulator_failed,
    guest::Builder,
    machine::{Machines, allowed},
    qemu,
    switch::ringway,
};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(60);
const RUN: [Need; 2] = [Need::Guests, Need::Program("qemu-img")];

/// A guest that is started with the flags printed for it.
fn guest<'a>(lab: &'a Lab, name: &str, queues: u16) -> Result<Builder<'a>> {
    let [kernel, initramfs] = qemu::image("cloud")?.map(|path| path.display().to_string());
    let net = format!("socket={},queues={queues}", lab.path(name).display());
    let output = ringway(&[
        "vm",
        "args",
        "--json",
        "--name",
        name,
        "--net",
        &net,
        "--cpus",
        &queues.to_string(),
        "--memory",
        "384M",
        "--kernel",
        &kernel,
        "--initrd",
        &initramfs,
        "--append",
        "console=ttyS0 panic=-1 quiet mitigations=off tsc=reliable no_timer_check nokaslr",
        "--",
        "-no-reboot",
    ])?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{said}");
    ensure!(said.contains("runs it with "), "no word of how: {said}");
    let flags: Vec<String> = serde_json::from_slice(&output.stdout)?;
    let device = flags
        .iter()
        .find(|flag| flag.starts_with("virtio-net-pci,"))
        .context("no NIC")?;
    let vectors = format!(",vectors={}", 2 * queues + 2);
    ensure!(device.contains(&vectors) == (queues > 1), "{device}");
    Ok(lab.guest(name).flags(flags))
}

#[test]
fn guests_started_with_the_printed_flags_use_every_queue() -> Result<()> {
    again_if_the_emulator_failed(printed_flags)
}

fn printed_flags() -> Result<()> {
    let Some(lab) = Lab::with("vm-args", &[Need::Guests])? else {
        return Ok(());
    };
    for queues in [1, 2, 8] {
        let switch = lab
            .switch()
            .vhost_user("a", queues)
            .vhost_user("b", queues)
            .start()?;
        let mut pair = Pair::boot(switch, guest(&lab, "a", queues)?, guest(&lab, "b", queues)?)?;
        let channels = pair.a.sh("ethtool -l eth0")?;
        let combined = channels.matches(&format!("Combined:\t{queues}\n")).count();
        ensure!(combined == 2, "not {queues} pairs: {channels}");
        // One for configuration changes, one for each ring; the control queue's is there and silent.
        let vectors = pair
            .a
            .sh("ls $(dirname $(readlink -f /sys/class/net/eth0/device))/msi_irqs | wc -l")?;
        let vectors: u16 = vectors.trim().parse()?;
        ensure!(vectors > 2 * queues, "{vectors} vectors");
        lab.report(&format!("{queues} queue pairs: {vectors} vectors"));
        pair.ping(20, 56)?;
        pair.every_queue_pair_carries(&lab, queues)?;
    }
    Ok(())
}

#[test]
fn what_no_machine_can_be_is_refused_in_a_sentence() -> Result<()> {
    let Some(lab) = Lab::with("vm-refused", &[])? else {
        return Ok(());
    };
    let missing = lab.path("missing.img").display().to_string();
    lab.attempt(&["vm", "args", &missing])
        .refused()?
        .says(1, &[&missing, "cannot be read"])?;
    lab.attempt(&["vm", "args", &missing, "--net", "socket=/a,model=e1000"])
        .refused()?
        .says(2, &["e1000", "path=vhost-user", "path=tap"])?;
    Ok(())
}

fn process(machine: &Value, which: &str) -> Result<Pid> {
    let id = i32::try_from(machine[which].as_i64().context("no process")?)?;
    Pid::from_raw(id).context("no process")
}

/// The ids of threads by role, and where they may run by what /proc says.
fn threads(list: &Value, role: &Value) -> Result<Vec<(i64, String)>> {
    let list = list.as_array().context("no threads")?;
    let of_role = list.iter().filter(|thread| thread["role"] == *role);
    let ids = of_role.map(|thread| thread["id"].as_i64().context("no id"));
    ids.map(|id| id.and_then(|id| Ok((id, allowed(id)?))))
        .collect()
}

#[test]
fn a_machine_runs_is_pinned_and_leaves_nothing_however_it_ends() -> Result<()> {
    let Some(lab) = Lab::with("vm-run", &RUN)? else {
        return Ok(());
    };
    let machines = Machines::new(&lab);
    let mut switch = lab.switch().vhost_user("a", 2).start()?;
    let net = format!("--net socket={},queues=2", lab.path("a").display());
    let words = machines.boot(
        "web",
        &format!("--cpus 2 --detach --disk-size 32M --password p {net}"),
    )?;

    machines.ringway(&words)?;
    let shown = machines.json("show web")?;
    ensure!(
        shown["state"] == "running" && shown["supervised"] == true,
        "{shown}"
    );
    ensure!(machines.json("list")?[0]["name"] == "web");
    let refused = machines.ringway(&words).unwrap_err().to_string();
    ensure!(
        refused.contains("web runs already") && refused.contains("--name"),
        "{refused}"
    );

    let before = threads(&shown["threads"], &json!({"vcpu": 1}))?;
    let pinned = machines.json("pin web --vcpus 0 --emulator 0 --io 0")?;
    for role in [
        json!({"vcpu": 0}),
        json!({"vcpu": 1}),
        json!("emulator"),
        json!("io"),
    ] {
        let threads = threads(&pinned, &role)?;
        ensure!(!threads.is_empty(), "no {role} in {pinned}");
        ensure!(
            threads.iter().all(|(_, cpus)| cpus == "0"),
            "{role}: {threads:?}"
        );
    }
    let reset = machines.json("pin web --reset")?;
    ensure!(threads(&reset, &json!({"vcpu": 1}))? == before, "{reset}");

    machines.ringway(&machines.words("stop web --force"))?;
    ensure!(
        machines.left()? == [""; 0],
        "after stop: {:?}",
        machines.left()?
    );

    // Its QEMU is killed.
    machines.ringway(&words)?;
    let supervisor = machines.supervisor("web")?;
    kill_process(process(&machines.json("show web")?, "pid")?, Signal::KILL)?;
    machines.await_end(&supervisor)?;
    ensure!(
        machines.left()? == [""; 0],
        "after the kill: {:?}",
        machines.left()?
    );

    // Its supervisor is killed: it goes on, and can be ended all the same.
    machines.ringway(&words)?;
    let supervisor = machines.supervisor("web")?;
    kill_process(
        process(&machines.json("show web")?, "supervisor")?,
        Signal::KILL,
    )?;
    machines.await_end(&supervisor)?;
    let shown = machines.json("show web")?;
    ensure!(
        shown["state"] == "running" && shown["supervised"] == false,
        "{shown}"
    );
    machines.ringway(&machines.words("stop web"))?;
    ensure!(
        machines.left()? == [""; 0],
        "without supervisor: {:?}",
        machines.left()?
    );

    // In the foreground, Ctrl-C.
    let words = machines.boot("web", &format!("--timeout 1 {net}"))?;
    let mut foreground = machines.start(&words)?;
    switch.await_statistics("the next guest's frames", |statistics| {
        statistics.ports.iter().any(|port| port.connected)
    })?;
    foreground.signal(Signal::INT)?;
    let status = foreground.wait(LIMIT)?;
    ensure!(status.success(), "{status}");
    ensure!(
        machines.left()? == [""; 0],
        "after Ctrl-C: {:?}",
        machines.left()?
    );
    switch.stop()
}

#[test]
fn a_qemu_started_by_hand_is_pinned_and_put_back() -> Result<()> {
    let Some(lab) = Lab::with("vm-pin", &[Need::Guests])? else {
        return Ok(());
    };
    let machines = Machines::new(&lab);
    let [kernel, initramfs] = qemu::image("cloud")?.map(|path| path.display().to_string());
    let flags = format!(
        "-nodefaults -display none -accel tcg -m 256 -smp 2 -name hand,debug-threads=on -kernel {kernel} -initrd {initramfs}"
    );
    let mut flags: Vec<String> = flags.split(' ').map(str::to_owned).collect();
    flags.extend(["-append", "no_timer_check tsc=reliable"].map(str::to_owned));
    let mut hand = lab.guest("hand").flags(flags).boot()?;
    let process = hand.process().id();
    let pinned = machines.json(&format!("pin --pid {process} --vcpus 0 --emulator 0"))?;
    for role in [json!({"vcpu": 0}), json!({"vcpu": 1}), json!("emulator")] {
        let threads = threads(&pinned, &role)?;
        ensure!(
            !threads.is_empty() && threads.iter().all(|(_, cpus)| cpus == "0"),
            "{threads:?}"
        );
    }
    let own = allowed(i64::from(std::process::id()))?;
    let reset = machines.json(&format!("pin --pid {process} --reset"))?;
    for role in [json!({"vcpu": 0}), json!({"vcpu": 1}), json!("emulator")] {
        let threads = threads(&reset, &role)?;
        ensure!(threads.iter().all(|(_, cpus)| *cpus == own), "{threads:?}");
    }
    Ok(())
}

#[test]
fn a_machine_at_a_network_gets_a_port_an_address_and_a_name() -> Result<()> {
    let needs = [
        RUN[0],
        RUN[1],
        Need::Root,
        Need::Namespaces,
        Need::Program("nft"),
    ];
    let Some(lab) = Lab::with("vm-network", &needs)? else {
        return Ok(());
    };
    let netns = Netns::new()?;
    let daemon = Daemon::start(&lab, &netns)?;
    let machines = Machines::new(&lab);
    let words = machines.boot("web", "--cpus 2 --net default --detach --wait 60")?;
    let quoted: Vec<String> = words.iter().map(|word| format!("'{word}'")).collect();
    daemon.ringway(&quoted.join(" "))?;
    let shown = machines.json("show web")?;
    let address = shown["addresses"][0].as_str().context("no address")?;
    let port = daemon.json("port show default web")?;
    ensure!(port["address"] == address && port["queues"] == 2, "{port}");
    ensure!(port["connected"] == true, "{port}");
    netns.sh(&format!("ping -c 3 -i 0.2 -W 5 {address}"))?;
    machines.ringway(&machines.words("stop web --force"))?;
    ensure!(daemon.json("port list")? == json!([]), "the port stayed");
    ensure!(machines.left()? == [""; 0], "{:?}", machines.left()?);
    Ok(())
}

#[test]
fn a_debian_image_takes_its_name_and_key_from_the_seed_and_is_reached_by_vm_ssh() -> Result<()> {
    let needs = [
        Need::Root,
        Need::Namespaces,
        Need::Debian,
        Need::Program("qemu-img"),
        Need::Program("nft"),
        Need::Program("ssh"),
    ];
    let Some(lab) = Lab::with("vm-ssh", &needs)? else {
        return Ok(());
    };
    let netns = Netns::new()?;
    let daemon = Daemon::start(&lab, &netns)?;
    let machines = Machines::new(&lab);
    let key = lab.path("id").display().to_string();
    netns.sh(&format!("ssh-keygen -q -t ed25519 -N '' -f {key}"))?;
    let [kernel, initramfs] = qemu::image("debian")?;
    let disk = kernel.with_file_name("disk");
    let before = disk.metadata()?.modified()?;
    let vm = machines.words("").join(" ");
    daemon.ringway(&format!(
        "{vm} run {} --state {} --kernel {} --initrd {} --name web --user debian --ssh-key {key} --net default --cpus 2 --memory 512M \
         --detach --wait 120 \
         --append 'console=ttyS0 ringway.root=/dev/vda mitigations=off tsc=reliable no_timer_check nokaslr'",
        disk.display(),
        lab.path("overlays").display(),
        kernel.display(),
        initramfs.display()
    ))?;
    // The address is there before the SSH server is.
    let address = machines.json("show web")?["addresses"][0].clone();
    let address = address.as_str().context("no address")?;
    netns
        .start(&format!(
            "until socat -u OPEN:/dev/null TCP:{address}:22; do sleep 0.2; done"
        ))?
        .success(LIMIT)?;
    let said = daemon.ringway(&format!(
        "{vm} ssh web 'hostname; sudo id -u; getent hosts web.default.ringway'"
    ))?;
    let words: Vec<&str> = said.split_whitespace().collect();
    ensure!(
        words == ["web", "0", address, "web.default.ringway"],
        "{said}"
    );
    machines.ringway(&machines.words("stop web --force"))?;
    ensure!(machines.left()? == [""; 0], "{:?}", machines.left()?);
    ensure!(
        disk.metadata()?.modified()? == before,
        "the image was written to"
    );
    Ok(())
}
