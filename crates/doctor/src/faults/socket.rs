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
    faults: &[ROLES, MISSING, STALE, DENIED, GUARDED, RECONNECT],
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
        seen.chain(told(facts, "No such file or directory"))
            .collect()
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
        seen.chain(told(facts, "Connection refused")).collect()
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
            if let Some(label) = card
                .machine
                .confined
                .as_ref()
                .filter(|_| card.machine.is_confined())
            {
                cure.push(format!(
                    "# and {label} confines this QEMU: that has to let it pass, too"
                ));
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
        seen.chain(told(facts, "Permission denied")).collect()
    },
};

const GUARDED: Fault = Fault {
    name: "vhost-user-socket-guarded",
    seen: &[
        "Failed to connect to 'SOCKET': Permission denied, though the modes of socket and folders let QEMU pass",
        "apparmor=\"DENIED\" operation=\"connect\" profile=\"libvirt-...\" name=\"SOCKET\"",
        "avc:  denied  { connectto } for comm=\"qemu-kvm\" path=\"SOCKET\" scontext=...:svirt_t:... tclass=unix_stream_socket",
    ],
    cause: "libvirt confines its machines by AppArmor or SELinux to files that it knows of, and the socket, or the program behind it, \
        is not among those.",
    why: "QEMU does not start, or has no switch, though every mode is right",
    cure: &[
        "echo '\"SOCKET\" rw,' >> /etc/apparmor.d/local/abstractions/libvirt-qemu",
        "ausearch -m avc -c qemu-kvm | audit2allow -M ringway-qemu && semodule -i ringway-qemu.pp",
    ],
    judge: |facts| {
        let signs = meeting(facts).filter_map(|(card, socket)| {
            let machine = card.machine;
            let label = machine.confined.as_ref().filter(|_| machine.is_confined())?;
            if socket.connected == Some(true) || socket.is_socket != Some(true) {
                return None;
            }
            // What a mode forbids is the modes' fault.
            let open = machine.user == 0
                || (shut(machine, socket).next().is_none()
                    && may(machine, socket.mode, socket.owner, socket.group, 2));
            let path = card.path();
            let refused = said(machine, &[&format!("Failed to connect to '{path}'"), "Permission denied"]);
            let resolved = socket.resolved.display().to_string();
            let denied = facts.host.denials.iter().any(|line| denies(line, label, &resolved));
            if !open || !(refused.is_some() || denied) {
                return None;
            }
            let cure = match label.ends_with(" (enforce)") {
                true => vec![
                    format!(
                        "echo {} >> /etc/apparmor.d/local/abstractions/libvirt-qemu",
                        quoted(&format!("\"{resolved}\" rw,"))
                    ),
                    format!("# then start {} again, which loads its profile anew", machine.name),
                ],
                false => vec![
                    "ausearch -m avc --start recent | audit2allow -M ringway-qemu".into(),
                    "semodule -i ringway-qemu.pp    # lets QEMU connect to what was denied to it of late: see ringway-qemu.te".into(),
                ],
            };
            Some(card.sign(
                format!("{label} keeps QEMU from {path}, which its modes would let it have"),
                cure,
            ))
        });
        signs.collect()
    },
};

/// Whether a line of the kernel's or auditd's says that who bears this label was kept from a path.
fn denies(line: &str, label: &str, path: &str) -> bool {
    let has = |key: &str, value: &str| line.contains(&format!("{key}=\"{value}\""));
    match label.strip_suffix(" (enforce)") {
        Some(profile) => has("profile", profile) && has("name", path),
        None => line.contains(&format!("scontext={label}")) && has("path", path),
    }
}

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
fn told(facts: &Facts, why: &str) -> impl Iterator<Item = Sign> {
    let machines = facts.machines.iter().filter(|it| it.sockets.is_empty());
    machines.filter_map(move |machine| {
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
                    "# start the switch that listens there; one of ours in the foreground:".into(),
                    our_switch(path.as_ref(), 1, false),
                ],
            },
        })
    })
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

#[cfg(test)]
mod tests {
    use super::*;

    const PATH: &str = "/srv/odd/web.sock";

    /// A machine of libvirt at a socket that everybody may write to.
    fn facts(label: &str, messages: &[&str], denials: &[&str]) -> Facts {
        let line = format!(
            "qemu-system-x86_64 -M q35,memory-backend=m -object memory-backend-memfd,id=m,size=1G,share=on -chardev socket,id=c,path={PATH},reconnect-ms=1000 \
             -netdev vhost-user,id=n,chardev=c -device virtio-net-pci,netdev=n"
        );
        let list = |lines: &[&str]| lines.iter().map(|it| (*it).to_owned()).collect();
        let mut facts = Facts::default();
        facts.host.denials = list(denials);
        facts.host.kvm.present = true;
        facts.host.kvm.mode = 0o666;
        facts.machines.push(Machine {
            name: "web".into(),
            origin: Origin::Libvirt,
            pid: Some(7),
            user: 64055,
            command: line.split_whitespace().map(str::to_owned).collect(),
            confined: Some(label.into()),
            messages: list(messages),
            sockets: vec![Socket {
                path: PATH.into(),
                resolved: PATH.into(),
                is_socket: Some(true),
                mode: 0o777,
                alive: Some(true),
                connected: Some(false),
                ..Socket::default()
            }],
            ..Machine::default()
        });
        facts
    }

    fn found(facts: &Facts) -> Vec<(&'static str, String)> {
        let found = crate::judge(facts).into_iter();
        found.map(|it| (it.fault, it.cure.join("\n"))).collect()
    }

    const REFUSED: &str = "Failed to connect to '/srv/odd/web.sock': Permission denied";
    const PROFILE: &str = "libvirt-8f0a (enforce)";

    #[test]
    fn apparmor_is_named_where_it_is_proven() {
        let denied = "6,1,2,-;audit: type=1400 apparmor=\"DENIED\" operation=\"connect\" profile=\"libvirt-8f0a\" name=\"/srv/odd/web.sock\" pid=7";
        for facts in [
            facts(PROFILE, &[REFUSED], &[]),
            facts(PROFILE, &[], &[denied]),
        ] {
            let [(fault, cure)] = found(&facts).try_into().unwrap();
            assert_eq!(fault, "vhost-user-socket-guarded");
            assert!(
                cure.starts_with("echo '\"/srv/odd/web.sock\" rw,' >> /etc/apparmor.d/"),
                "{cure}"
            );
        }
        // Another's profile, or none at work, or nobody was refused.
        let other = denied.replace("8f0a", "77");
        assert!(found(&facts(PROFILE, &[], &[&other])).is_empty());
        assert!(found(&facts("libvirt-8f0a (complain)", &[REFUSED], &[denied])).is_empty());
        assert!(found(&facts(PROFILE, &[], &[])).is_empty());
    }

    #[test]
    fn selinux_is_named_where_it_is_proven() {
        let label = "system_u:system_r:svirt_t:s0:c1,c2";
        let denied = format!(
            "type=AVC msg=audit(1:2): avc:  denied  {{ connectto }} for pid=7 comm=\"qemu-kvm\" path=\"{PATH}\" scontext={label} \
             tcontext=unconfined_u:unconfined_r:unconfined_t:s0 tclass=unix_stream_socket permissive=0"
        );
        let [(fault, cure)] = found(&facts(label, &[], &[&denied])).try_into().unwrap();
        assert_eq!(fault, "vhost-user-socket-guarded");
        assert!(cure.contains("audit2allow"), "{cure}");
        assert!(found(&facts(label, &[], &[])).is_empty());
    }

    #[test]
    fn what_a_mode_forbids_is_not_put_down_to_a_guard() {
        let mut facts = facts(PROFILE, &[REFUSED], &[]);
        facts.machines[0].sockets[0].mode = 0o700;
        let [(fault, cure)] = found(&facts).try_into().unwrap();
        assert_eq!(fault, "vhost-user-socket-denied");
        assert!(
            cure.contains("# and libvirt-8f0a (enforce) confines"),
            "{cure}"
        );
    }
}
