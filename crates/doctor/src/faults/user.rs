//! What the faults of vhost-user have in common: a NIC with everything known about its socket and the switch's port, and cures.

use std::path::Path;

use super::Sign;
use crate::{
    Facts,
    command::{Command, Edit, Nic, quoted},
    facts::{Machine, Origin, Socket, SwitchPort, VirtioNic},
};

/// A NIC of a machine.
pub(super) struct Card<'a> {
    pub(super) machine: &'a Machine,
    pub(super) command: Command,
    pub(super) nic: Nic,
    /// Its socket, if it is vhost-user.
    pub(super) socket: Option<&'a Socket>,
    /// The port of one of our switches at that socket.
    pub(super) port: Option<&'a SwitchPort>,
}

/// All NICs of all machines.
pub(super) fn cards(facts: &Facts) -> impl Iterator<Item = Card<'_>> {
    facts.machines.iter().flat_map(move |machine| {
        let command = Command::parse(&machine.command);
        let nics = command.nics().into_iter();
        nics.map(move |nic| {
            let path = nic.socket();
            let mut sockets = machine.sockets.iter();
            let socket = sockets.find(|it| Some(&it.path) == path.as_ref());
            let resolved = socket.map(|it| &it.resolved);
            let mut ports = facts.switches.iter().flat_map(|it| &it.ports);
            let port = ports.find(|it| it.socket.is_some() && it.socket.as_ref() == resolved);
            Card {
                machine,
                command: command.clone(),
                nic,
                socket,
                port,
            }
        })
    })
}

/// Those of one machine.
pub(super) fn cards_of<'a>(facts: &'a Facts, machine: &'a Machine) -> Vec<Card<'a>> {
    let it = |card: &Card<'_>| std::ptr::eq(card.machine, machine);
    cards(facts).filter(it).collect()
}

/// Those at vhost-user sockets.
pub(super) fn vhost_user(facts: &Facts) -> impl Iterator<Item = Card<'_>> {
    cards(facts).filter(|card| card.nic.backend() == "vhost-user")
}

impl<'a> Card<'a> {
    /// What the monitor says of it. One that `-nic` made has a name that is not in the command line.
    pub(super) fn virtio(&self) -> Option<&'a VirtioNic> {
        let all = &self.machine.virtio;
        let named = all.iter().find(|it| it.netdev == self.nic.id);
        let only = || {
            all.first()
                .filter(|_| all.len() == 1 && self.command.nics().len() == 1)
        };
        named.or_else(only)
    }
}

impl Card<'_> {
    /// The guest's frames cross: a switch of ours says so, or, where it cannot be asked, has the connection.
    pub(super) fn works(&self) -> bool {
        self.port.is_some_and(|port| match port.connected {
            Some(connected) => connected && port.features.unwrap_or(0) != 0,
            None => self.socket.is_some_and(|it| it.connected == Some(true)),
        })
    }

    /// Where its socket is, for people.
    pub(super) fn path(&self) -> String {
        let path = self.nic.socket().unwrap_or_default();
        path.display().to_string()
    }

    pub(super) fn sign(&self, what: String, cure: Vec<String>) -> Sign {
        Sign {
            machine: Some(self.machine.name.clone()),
            subject: format!("NIC {}", self.nic.id),
            what,
            cure,
        }
    }

    /// The command line, to be changed.
    pub(super) fn edit(&self) -> Edit {
        Edit::new(&self.machine.command)
    }

    /// Sets a key of the back-end's half.
    pub(super) fn set_netdev(&self, edit: &mut Edit, key: &str, value: Option<&str>) {
        let it = |options: &crate::command::Options| {
            options.get("id").unwrap_or(options.kind()) == self.nic.id
        };
        change(edit, &["netdev", "nic"], it, key, value);
    }

    /// Sets a key of the guest's half.
    pub(super) fn set_device(&self, edit: &mut Edit, key: &str, value: Option<&str>) {
        let it = |options: &crate::command::Options| options.get("netdev") == Some(&self.nic.id);
        change(edit, &["device"], it, key, value);
    }

    /// Sets a key of its socket.
    pub(super) fn set_chardev(&self, edit: &mut Edit, key: &str, value: Option<&str>) {
        let id = self.nic.netdev.get("chardev").unwrap_or_default();
        let it = |options: &crate::command::Options| options.get("id") == Some(id);
        change(edit, &["chardev"], it, key, value);
    }

    /// Has it connect again, in the spelling that its QEMU knows.
    pub(super) fn set_reconnect(&self, edit: &mut Edit) {
        // `reconnect` became obsolete with 9.2, and went with 10.2.
        match version(self.machine) {
            Some(version) if version < (9, 2) => {
                self.set_chardev(edit, "reconnect", Some("1"));
            }
            _ => self.set_chardev(edit, "reconnect-ms", Some("1000")),
        }
    }
}

fn change(
    edit: &mut Edit,
    names: &[&str],
    it: impl Fn(&crate::command::Options) -> bool,
    key: &str,
    value: Option<&str>,
) {
    match value {
        Some(value) => edit.set(names, it, key, value),
        None => edit.unset(names, it, key),
    };
}

/// Major and minor of a machine's QEMU.
pub(super) fn version(machine: &Machine) -> Option<(u32, u32)> {
    let mut parts = machine.version.as_deref()?.split('.');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// How a machine gets another command line: the line, what it is in libvirt's XML, and in `ringway vm run`'s words.
pub(super) fn restart(machine: &Machine, edit: &Edit, xml: &str, words: &str) -> Vec<String> {
    let name = quoted(&machine.name);
    match machine.origin {
        Origin::Command => vec![edit.line()],
        Origin::Hand => vec![
            format!(
                "# power {} down in the guest, then start it with:",
                machine.name
            ),
            edit.line(),
        ],
        Origin::Libvirt => vec![
            format!("# what it needs: {xml}"),
            format!("virsh edit {name}"),
            format!("virsh shutdown {name}"),
            format!("virsh start {name}"),
        ],
        Origin::Ringway => vec![
            format!("ringway vm stop {name}"),
            format!("# then `ringway vm run` as before, with {words}"),
        ],
    }
}

/// The command that starts a switch of ours at a socket.
pub(super) fn our_switch(path: &Path, queues: u16, connects: bool) -> String {
    let path = path.display().to_string().replace(',', ",,");
    let mode = if connects { ",mode=client" } else { "" };
    let port = format!("vhost-user,path={path}{mode},queues={queues}");
    format!("ringway switch --port {}", quoted(&port))
}

/// The first line of a machine's messages that has all of these in it.
pub(super) fn said<'a>(machine: &'a Machine, parts: &[&str]) -> Option<&'a str> {
    let mut lines = machine.messages.iter();
    let line = lines.find(|line| parts.iter().all(|part| line.contains(part)))?;
    Some(line.trim())
}

/// The number that follows `before` in a message.
pub(super) fn number(line: &str, before: &str) -> Option<u64> {
    let rest = line.split(before).nth(1)?.trim_start();
    let (digits, radix) = match rest.strip_prefix("0x") {
        Some(rest) => (rest, 16),
        None => (rest, 10),
    };
    let end = digits.find(|it: char| !it.is_digit(radix));
    u64::from_str_radix(&digits[..end.unwrap_or(digits.len())], radix).ok()
}
