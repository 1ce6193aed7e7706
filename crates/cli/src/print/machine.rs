//! Virtual machines.

use ringway_api::{port_spec::InterfaceName, v1::Lease};
use ringway_vmm::{
    Backend,
    pin::{Role, Thread},
};

use super::{
    fields,
    table::{Align, Table},
};
use crate::vm::Seen;

/// One line each.
pub(crate) fn machines(machines: &[Seen]) -> String {
    let mut table = Table::new([
        ("NAME", Align::Left),
        ("STATE", Align::Left),
        ("PID", Align::Right),
        ("CPUS", Align::Right),
        ("MEMORY", Align::Right),
        ("ADDRESS", Align::Left),
    ]);
    for seen in machines {
        let pid = seen.record.pid.map(|pid| pid.to_string());
        table.row([
            seen.name.to_string(),
            state(seen),
            pid.unwrap_or_else(|| "-".into()),
            seen.record.machine.cpus.to_string(),
            format!("{}M", seen.record.machine.memory),
            addresses(seen),
        ]);
    }
    table.to_string()
}

/// All about one.
pub(crate) fn machine(seen: &Seen) -> String {
    let (record, machine) = (&seen.record, &seen.record.machine);
    let mut lines = vec![
        ("name", seen.name.to_string()),
        ("state", state(seen)),
        ("addresses", addresses(seen)),
        (
            "qemu",
            format!(
                "{} {} ({}), process {}",
                record.qemu.program.display(),
                record.qemu.version,
                record.accel,
                record.pid.unwrap_or_default()
            ),
        ),
        ("cpus", machine.cpus.to_string()),
        ("memory", format!("{}M", machine.memory)),
    ];
    for disk in &machine.disks {
        lines.push(("disk", disk.path.display().to_string()));
    }
    for nic in &machine.nics {
        let place = match &nic.backend {
            Backend::VhostUser { socket } => format!("vhost-user {}", socket.display()),
            Backend::Tap { name, vhost } => tap(name, *vhost),
            Backend::Descriptors { name, vhost, .. } => tap(name, !vhost.is_empty()),
        };
        let plural = if nic.queues == 1 { "" } else { "s" };
        lines.push((
            "nic",
            format!(
                "{} {} at {place}, {} queue pair{plural}",
                nic.model, nic.mac, nic.queues
            ),
        ));
    }
    for port in &record.ports {
        lines.push(("port", format!("{} of network {}", port.port, port.network)));
    }
    format!("{}\n{}", fields(&lines), threads(&seen.threads))
}

/// Which CPUs threads run on.
pub(crate) fn threads(threads: &[Thread]) -> String {
    let mut table = Table::new([
        ("THREAD", Align::Right),
        ("ROLE", Align::Left),
        ("CPUS", Align::Left),
    ]);
    for thread in threads {
        let role = match thread.role {
            Role::Vcpu(number) => format!("vcpu {number}"),
            Role::Io => "io".into(),
            Role::Emulator => "emulator".into(),
        };
        table.row([thread.id.to_string(), role, thread.cpus.to_string()]);
    }
    table.to_string()
}

/// An address, and the name that it has.
pub(crate) fn lease_of_machine(lease: &Lease) -> String {
    match &lease.name {
        Some(name) => format!("{} ({name}.{})", lease.address, lease.network),
        None => lease.address.to_string(),
    }
}

fn state(seen: &Seen) -> String {
    match seen.supervised {
        true => seen.state.clone(),
        false => format!("{}, unsupervised", seen.state),
    }
}

fn addresses(seen: &Seen) -> String {
    if seen.addresses.is_empty() {
        return "-".into();
    }
    let addresses: Vec<_> = seen.addresses.iter().map(ToString::to_string).collect();
    addresses.join(" ")
}

fn tap(name: &InterfaceName, vhost: bool) -> String {
    let vhost = if vhost { " with vhost-net" } else { "" };
    format!("tap {name}{vhost}")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn seen() -> Seen {
        let record = json!({
            "machine": {
                "name": "web", "cpus": 2, "memory": 1024, "hugepages": false, "disks": [],
                "nics": [{
                    "backend": {"vhost-user": {"socket": "/run/web.sock"}}, "model": "virtio", "queues": 2,
                    "mac": "02:00:00:00:00:01"
                }],
                "console": "terminal", "paused": false, "more": []
            },
            "qemu": {"program": "/usr/bin/qemu-system-x86_64", "version": [10, 0]},
            "accel": "tcg", "pid": 77, "supervisor": 76,
            "ports": [{"network": "lan", "port": "web", "made": true}],
            "daemon": "/run/ringway/api.sock", "user": "root"
        });
        Seen {
            name: "web".parse().unwrap(),
            state: "running".into(),
            supervised: true,
            addresses: vec!["10.9.0.5".parse().unwrap()],
            threads: vec![Thread {
                id: 78,
                role: Role::Vcpu(0),
                cpus: "2-3".parse().unwrap(),
            }],
            record: serde_json::from_value(record).unwrap(),
        }
    }

    #[test]
    fn a_list_has_a_line_each() {
        assert_eq!(
            machines(&[seen()]),
            "NAME  STATE    PID  CPUS  MEMORY  ADDRESS\n\
             web   running   77     2   1024M  10.9.0.5\n"
        );
    }

    #[test]
    fn one_machine_is_told_with_its_cards_and_threads() {
        let mut seen = seen();
        seen.supervised = false;
        let text = machine(&seen);
        for part in [
            "running, unsupervised",
            "/usr/bin/qemu-system-x86_64 10.0 (tcg), process 77",
            "virtio 02:00:00:00:00:01 at vhost-user /run/web.sock, 2 queue pairs",
            "web of network lan",
            "    78  vcpu 0  2-3\n",
        ] {
            assert!(text.contains(part), "{part:?} is not in {text}");
        }
    }
}
