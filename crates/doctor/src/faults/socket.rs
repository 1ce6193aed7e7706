//! vhost-user: whether the two ends meet at the socket.

use super::{
    Chapter, Fault, Sign,
    user::{Card, our_switch, restart, said, vhost_user},
};
use crate::{
    Facts,
    command::quoted,
    facts::{Folder, Machine, Origin, Socket},
};

pub(super) const CHAPTER: Chapter = Chapter {
    title: "vhost-user: the socket",
    faults: &[ROLES, MISSING, STALE, DENIED, RECONNECT],
};

const XML: &str = "<source type='unix' path='SOCKET' mode='client'><reconnect enabled='yes' timeout='1'/></source>";

const ROLES: Fault = Fault {
    name: "vhost-user-roles",
    seen: &[
        "Failed to connect to 'SOCKET': No such file or directory, and the switch finds nobody either",
        "QEMU waits for a connection, and the switch does, too",
    ],
    cause: "At a vhost-user socket one end listens and the other connects. Here both do the same.",
    why: "the two never meet, and the guest reaches nobody",
    cure: &[
        "qemu-system-x86_64 ... -chardev socket,id=ID,path=SOCKET,reconnect-ms=1000 # or server=on,wait=off where the switch connects",
    ],
    judge: |facts| {
        vhost_user(facts)
            .filter_map(|card| {
                let port = card.port?;
                let (listens, what) = match (card.nic.listens(), port.connects) {
                    (true, false) => (true, "listen"),
                    (false, true) => (false, "connect"),
                    _ => return None,
                };
                let mut edit = card.edit();
                let mut cure = Vec::new();
                if listens {
                    card.set_chardev(&mut edit, "server", None);
                    card.set_chardev(&mut edit, "wait", None);
                    card.set_reconnect(&mut edit);
                    if card.machine.pid.is_some() {
                        cure.push(format!(
                            "# end the switch at {0}, whose socket this machine took away, and start it again as it was",
                            card.path()
                        ));
                    }
                } else {
                    card.set_chardev(&mut edit, "reconnect", None);
                    card.set_chardev(&mut edit, "reconnect-ms", None);
                    card.set_chardev(&mut edit, "server", Some("on"));
                    card.set_chardev(&mut edit, "wait", Some("off"));
                }
                let xml = format!(
                    "<source type='unix' path='{}' mode='{}'/>",
                    card.path(),
                    if listens { "client" } else { "server" }
                );
                cure.extend(restart(card.machine, &edit, &xml, "--net socket=PATH"));
                Some(card.sign(
                    format!("QEMU and switch port {} both {what} at {}", port.name, card.path()),
                    cure,
                ))
            })
            .collect()
    },
};

const MISSING: Fault = Fault {
    name: "vhost-user-socket-missing",
    seen: &["Failed to connect to 'SOCKET': No such file or directory"],
    cause: "No switch listens at the path that QEMU connects to: it does not run, or listens elsewhere.",
    why: "QEMU does not start, or waits until a switch is there",
    cure: &["ringway switch --port vhost-user,path=SOCKET"],
    judge: |facts| {
        let seen = meeting(facts).filter_map(|(card, socket)| {
            // Whose path went meanwhile has its connection all the same.
            if socket.connected == Some(true) {
                return None;
            }
            let what = match socket.is_socket {
                None if shut(card.machine, socket).next().is_some() => return None,
                None => "there is nothing",
                Some(false) => "there is no socket, but something else",
                Some(true) => return None,
            };
            let mut cure = Vec::new();
            if socket.is_socket == Some(false) {
                cure.push(format!("rm {}", quoted(&card.path())));
            }
            cure.extend(serve(&card));
            Some(card.sign(
                format!("{what} at {}, where QEMU connects to", card.path()),
                cure,
            ))
        });
        let mut signs: Vec<Sign> = seen.collect();
        signs.extend(told(facts, "No such file or directory"));
        signs
    },
};

const STALE: Fault = Fault {
    name: "vhost-user-socket-stale",
    seen: &["Failed to connect to 'SOCKET': Connection refused"],
    cause: "The switch that made the socket is gone: it ended without removing it, or was killed.",
    why: "QEMU does not start, or waits until a switch is there",
    cure: &["ringway switch --port vhost-user,path=SOCKET"],
    judge: |facts| {
        let seen = meeting(facts).filter_map(|(card, socket)| {
            let stale = socket.is_socket == Some(true)
                && socket.alive == Some(false)
                && socket.connected != Some(true);
            stale.then(|| {
                card.sign(
                    format!("nobody has the socket {} any more", card.path()),
                    serve(&card),
                )
            })
        });
        let mut signs: Vec<Sign> = seen.collect();
        signs.extend(told(facts, "Connection refused"));
        signs
    },
};

const DENIED: Fault = Fault {
    name: "vhost-user-socket-denied",
    seen: &["Failed to connect to 'SOCKET': Permission denied"],
    cause: "Whoever connects to a socket must be allowed to write to it and to pass all folders on the way.",
    why: "QEMU does not start",
    cure: &["chgrp GROUP SOCKET", "chmod g+rw SOCKET"],
    judge: |facts| {
        let seen = meeting(facts).filter_map(|(card, socket)| {
            // Who asks for itself has tried.
            let tried = card.machine.origin == Origin::Command && socket.alive.is_some();
            if card.machine.user == 0 || tried || socket.connected == Some(true) {
                return None;
            }
            let (mut cure, mut closed) = (Vec::new(), Vec::new());
            for folder in shut(card.machine, socket) {
                let path = folder.path.display().to_string();
                cure.push(format!("chmod o+x {}", quoted(&path)));
                closed.push(path);
            }
            let there = socket.is_socket == Some(true);
            if there && !may(card.machine, socket.mode, socket.owner, socket.group, 2) {
                let group = card
                    .machine
                    .groups
                    .first()
                    .copied()
                    .unwrap_or(card.machine.user);
                let path = quoted(&card.path());
                if !card.machine.groups.contains(&socket.group) {
                    cure.push(format!("chgrp {group} {path}"));
                }
                cure.push(format!("chmod g+rw {path}"));
                closed.push(card.path());
            }
            (!closed.is_empty()).then(|| {
                card.sign(
                    format!(
                        "user {} may not open {}",
                        card.machine.user,
                        closed.join(" and ")
                    ),
                    cure,
                )
            })
        });
        let mut signs: Vec<Sign> = seen.collect();
        signs.extend(told(facts, "Permission denied"));
        signs
    },
};

const RECONNECT: Fault = Fault {
    name: "vhost-user-no-reconnect",
    seen: &[
        "Failed to read msg header. Read -1 instead of 12. Original request 1",
        "vhost VQ 0 ring restore failed",
        "The switch was restarted, and the guest stays without network.",
    ],
    cause: "QEMU connects to the socket once, unless it is told to try again.",
    why: "the machine has no network any more once the switch restarts, until the machine is restarted, too",
    cure: &["qemu-system-x86_64 ... -chardev socket,id=ID,path=SOCKET,reconnect-ms=1000"],
    judge: |facts| {
        let seen = meeting(facts).filter_map(|(card, socket)| {
            let chardev = card.nic.chardev.as_ref()?;
            let set = ["reconnect", "reconnect-ms"]
                .into_iter()
                .filter_map(|key| chardev.get(key)?.parse::<u64>().ok());
            // Where nobody listens, that is the first thing to cure.
            if set.sum::<u64>() > 0 || socket.alive != Some(true) {
                return None;
            }
            let mut edit = card.edit();
            card.set_reconnect(&mut edit);
            let xml = XML.replace("SOCKET", &card.path());
            let lost = card.machine.pid.is_some() && socket.connected == Some(false);
            let what = match lost {
                true => "has lost the switch at {} and does not try to connect again",
                false => "will not connect again when the switch at {} restarts",
            };
            Some(card.sign(
                format!("{} {}", card.nic.id, what.replace("{}", &card.path())),
                restart(card.machine, &edit, &xml, "--net, which reconnects"),
            ))
        });
        seen.collect()
    },
};

/// NICs that connect to a socket of which something is known, and whose ends agree who listens.
fn meeting(facts: &Facts) -> impl Iterator<Item = (Card<'_>, &Socket)> {
    vhost_user(facts).filter_map(|card| {
        let socket = card.socket?;
        let crossed = card.port.is_some_and(|port| port.connects);
        (!card.nic.listens() && !crossed).then_some((card, socket))
    })
}

/// What QEMU said of sockets that nothing else is known about.
fn told(facts: &Facts, why: &str) -> Vec<Sign> {
    let machines = facts.machines.iter().filter(|it| it.sockets.is_empty());
    machines
        .filter_map(|machine| {
            let line = said(machine, &["Failed to connect to '", why])?;
            let path = line.split('\'').nth(1)?;
            Some(Sign {
                machine: Some(machine.name.clone()),
                subject: format!("socket {path}"),
                what: format!("QEMU could not connect to {path}: {}", why.to_lowercase()),
                cure: match why {
                    "Permission denied" => vec![
                        format!(
                            "# as the group that QEMU runs with: chgrp GROUP {}",
                            quoted(path)
                        ),
                        format!("chmod g+rw {}", quoted(path)),
                    ],
                    _ => vec![
                        "# start the switch that listens there; one of ours in the foreground:"
                            .into(),
                        our_switch(path.as_ref(), 1, false),
                    ],
                },
            })
        })
        .collect()
}

fn serve(card: &Card<'_>) -> Vec<String> {
    let path = card.nic.socket().unwrap_or_default();
    vec![
        "# start the switch that listens there; one of ours in the foreground:".into(),
        our_switch(&path, card.nic.queues(), false),
    ]
}

/// Folders that a machine's user cannot pass.
fn shut<'a>(machine: &'a Machine, socket: &'a Socket) -> impl Iterator<Item = &'a Folder> {
    let folders = socket.folders.iter().filter(|_| machine.user != 0);
    folders.filter(|it| !may(machine, it.mode, it.owner, it.group, 1))
}

/// Whether a machine's user has this right (4 read, 2 write, 1 pass).
fn may(machine: &Machine, mode: u32, owner: u32, group: u32, right: u32) -> bool {
    let shift = match (machine.user == owner, machine.groups.contains(&group)) {
        (true, _) => 6,
        (_, true) => 3,
        _ => 0,
    };
    mode >> shift & right != 0
}
