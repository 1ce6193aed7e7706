//! What QEMU says of its virtio NICs. Its monitor (QMP) is asked, with commands that change nothing, and where nobody else has it:
//! it takes one at a time.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use ringway_vmm::qmp::{Qmp, QmpError};
use serde_json::{Value, json};

use super::sockets::{Table, home, resolve};
use crate::{
    command::{Command, Options},
    facts::{Machine, Origin, VirtioNic, VirtioQueue},
};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long all of them may.
const ALL: Duration = Duration::from_secs(4);
/// NICs that are asked about.
const NICS: usize = 32;
/// Queues of a NIC that are asked about: 128 pairs and the control queue (virtio 1.3, section 5.1.2).
const QUEUES: u64 = 257;

/// Asks the monitor of a machine that runs, or writes down why not.
pub(super) fn ask(machine: &mut Machine, table: &Table, unseen: &mut Vec<String>) {
    let command = Command::parse(&machine.command);
    if machine.pid.is_none() || !command.nics().iter().any(|nic| nic.is_virtio()) {
        return;
    }
    let path = match reachable(machine, &command, table) {
        Ok(path) => path,
        Err(why) => {
            machine.unasked = Some(why.into());
            return;
        }
    };
    if let Err(error) = query(&path, machine) {
        unseen.push(format!(
            "what the guest of {} made of its NICs: {error}",
            machine.name
        ));
        machine.unasked = Some(error.to_string());
    }
}

/// The monitor's socket, if it is QEMU's own and nobody has it.
fn reachable(machine: &Machine, command: &Command, table: &Table) -> Result<PathBuf, &'static str> {
    if machine.origin == Origin::Libvirt {
        return Err("libvirt has its monitor");
    }
    let path =
        monitor(command).ok_or("its command line names no QMP socket that waits for nobody")?;
    let folder = home(machine).ok_or("its files are not those that are seen here")?;
    let state = table.state(&folder, &path);
    if state.connected {
        return Err("somebody has its monitor");
    }
    match machine.pid.is_some_and(|pid| state.is_of(pid)) {
        true => Ok(resolve(&folder, &path)),
        false => Err("whose the socket of its monitor is could not be seen"),
    }
}

/// The socket at which QEMU takes QMP from whoever comes. Where it waits for somebody (`wait=on`) to come before it starts, that
/// shall not be doctor; a terminal's form of it (`pretty`) has more than one line per answer.
fn monitor(command: &Command) -> Option<PathBuf> {
    let chardev = |id: &str| {
        let mut all = command.all("chardev");
        all.find(|it| it.kind() == "socket" && it.get("id") == Some(id))
    };
    let open = |socket: &Options| socket.is_on("server", false) && !socket.is_on("wait", true);
    let short = command.all("qmp").filter_map(|it| {
        if let Some(id) = it.kind().strip_prefix("chardev:") {
            let socket = chardev(id)?;
            return open(socket).then(|| socket.get("path"))?;
        }
        let path = it.kind().strip_prefix("unix:")?;
        open(it).then_some(path)
    });
    let long = command.all("mon").filter_map(|it| {
        let id = it.get("chardev").unwrap_or(it.kind());
        let control = it.get("mode") == Some("control") && !it.is_on("pretty", false);
        let socket = chardev(id).filter(|it| control && open(it))?;
        socket.get("path")
    });
    short.chain(long).next().map(PathBuf::from)
}

fn query(path: &Path, machine: &mut Machine) -> Result<(), QmpError> {
    let deadline = Instant::now() + ALL;
    let mut qmp = Qmp::connect_within(path, PATIENCE)?;
    machine.state = Some(word(&qmp.status()?));
    let devices = match qmp.execute("x-query-virtio", json!({})) {
        Ok(devices) => devices,
        // So says 7.2 of a machine that has none.
        Err(QmpError::Refused { reason, .. }) if reason.contains("No virtio devices") => {
            return Ok(());
        }
        Err(error) => return Err(error),
    };
    // Other kinds are left alone: QEMU takes their features apart by tables that not all of them are in.
    let nics = devices.as_array().into_iter().flatten();
    let nics = nics.filter(|it| it["name"] == "virtio-net");
    for path in nics.filter_map(|it| it["path"].as_str()).take(NICS) {
        if Instant::now() > deadline {
            break;
        }
        machine.virtio.push(nic(&mut qmp, path, deadline)?);
    }
    // QEMU lists them from the last to the first.
    machine.virtio.sort_by(|a, b| a.netdev.cmp(&b.netdev));
    Ok(())
}

fn nic(qmp: &mut Qmp, path: &str, deadline: Instant) -> Result<VirtioNic, QmpError> {
    let mut property = |path: &str, name: &str| match qmp
        .execute("qom-get", json!({ "path": path, "property": name }))
    {
        Err(QmpError::Refused { .. }) => Ok(Value::Null),
        other => other,
    };
    let netdev = property(path, "netdev")?;
    let mac = property(path, "mac")?;
    // It belongs to the PCI half.
    let vectors = match path.rsplit_once('/') {
        Some((device, _)) => property(device, "vectors")?,
        None => Value::Null,
    };
    let status = qmp.execute("x-query-virtio-status", json!({ "path": path }))?;
    let mut queues = Vec::new();
    for index in 0..status["num-vqs"].as_u64().unwrap_or(0).min(QUEUES) {
        let arguments = json!({ "path": path, "queue": index });
        if Instant::now() > deadline {
            break;
        }
        match qmp.execute("x-query-virtio-queue-status", arguments) {
            Ok(queue) => queues.push(VirtioQueue {
                size: number(&queue["vring-num"]).unwrap_or(0),
                ready: queue["vring-desc"].as_u64().is_some_and(|it| it != 0),
            }),
            Err(QmpError::Refused { .. }) => break,
            Err(error) => return Err(error),
        }
    }
    let text = |value: &Value| value.as_str().map(word);
    Ok(VirtioNic {
        netdev: text(&netdev).unwrap_or_default(),
        mac: text(&mac),
        status: names(&status["status"]["statuses"], "VIRTIO_CONFIG_S_"),
        broken: status["broken"] == true,
        vhost: status["vhost-started"] == true,
        offered: features(&status["host-features"]),
        acked: features(&status["guest-features"]),
        vectors: number(&vectors),
        queues,
    })
}

fn features(set: &Value) -> Vec<String> {
    let mut all = names(&set["transports"], "");
    all.extend(names(&set["dev-features"], ""));
    all.sort();
    all
}

/// `VIRTIO_NET_F_MQ: Multiqueue with ...` is its name, without what all of them begin with.
fn names(list: &Value, prefix: &str) -> Vec<String> {
    let texts = list.as_array().into_iter().flatten().take(128);
    let names = texts.filter_map(|it| it.as_str()?.split(':').next());
    names
        .map(|name| word(name.strip_prefix(prefix).unwrap_or(name)))
        .collect()
}

fn number(value: &Value) -> Option<u32> {
    u32::try_from(value.as_u64()?).ok()
}

/// No more of what a program says than fits a line.
fn word(text: &str) -> String {
    text.chars().take(80).collect()
}
