//! vhost-user: whether the device starts when the guest's driver does, and with what was asked for.

use super::{
    Chapter, Fault, Sign,
    user::{Card, number, our_switch, restart, said, vhost_user},
};
use crate::{
    Facts,
    command::{Edit, quoted},
    facts::Machine,
};

pub(super) const CHAPTER: Chapter = Chapter {
    title: "vhost-user: the device",
    faults: &[MEMORY, QUEUES, FEATURES, SLOTS, MIGRATION, NOT_STARTED],
};

const MEMORY: Fault = Fault {
    name: "memory-not-shared",
    seen: &[
        "Failed initializing vhost-user memory map, consider using -object memory-backend-file share=on",
        "vhost_set_mem_table failed: Invalid argument (22)",
        "The link is up, and nothing comes through; where the switch takes memory piece by piece, QEMU says nothing at all.",
    ],
    cause: "A vhost-user switch maps the guest's memory, and private memory cannot be mapped. It shows only when the guest's driver starts.",
    why: "the guest reaches nobody over this NIC",
    cure: &[
        "qemu-system-x86_64 ... -m 1G -object memory-backend-memfd,id=mem,size=1G,share=on -machine memory-backend=mem",
    ],
    judge: |facts| {
        let mut signs = Vec::new();
        for machine in &facts.machines {
            let cards: Vec<Card<'_>> = of(facts, machine);
            match cards.first() {
                Some(card) if !card.command.memory_is_shared() => {
                    let nics: Vec<&str> = cards.iter().map(|it| it.nic.id.as_str()).collect();
                    let xml = "<memoryBacking><source type='memfd'/><access mode='shared'/></memoryBacking>";
                    let edit = shared(card);
                    signs.push(Sign {
                        machine: Some(machine.name.clone()),
                        subject: "memory".into(),
                        what: format!(
                            "the guest's memory is not shared, and vhost-user needs that ({})",
                            nics.join(", ")
                        ),
                        cure: restart(
                            machine,
                            &edit,
                            xml,
                            "none of -m, -object and -machine after `--`",
                        ),
                    });
                }
                None if machine.command.is_empty() => {
                    signs.extend(said(machine, &["Failed initializing vhost-user memory map"]).map(|_| Sign {
                        machine: Some(machine.name.clone()),
                        subject: "memory".into(),
                        what: "the guest's memory is not shared, and vhost-user needs that".into(),
                        cure: vec![
                            "# add to QEMU's command line, with SIZE that of -m: -object memory-backend-memfd,id=mem,size=SIZE,share=on -machine memory-backend=mem".into(),
                        ],
                    }));
                }
                _ => {}
            }
        }
        signs
    },
};

/// The command line with memory that is shared.
fn shared(card: &Card<'_>) -> Edit {
    let command = &card.command;
    let mut edit = card.edit();
    let objects = command.memory_objects();
    for object in &objects {
        let id = object.get("id").unwrap_or_default();
        edit.set(&["object"], |it| it.get("id") == Some(id), "share", "on");
    }
    if !objects.is_empty() {
        return edit;
    }
    let memory = command.last("m");
    let size = memory.and_then(|it| {
        it.get("size")
            .or(Some(it.kind()).filter(|it| !it.is_empty()))
    });
    let size = size.unwrap_or("128M");
    // A bare number is in MiB for -m, in bytes for an object.
    let size = match size.bytes().all(|byte| byte.is_ascii_digit()) {
        true => format!("{size}M"),
        false => size.to_owned(),
    };
    let taken: Vec<&str> = command
        .all("object")
        .filter_map(|it| it.get("id"))
        .collect();
    let ids = ["mem", "guest-memory", "shared-memory"];
    let id = ids
        .into_iter()
        .find(|id| !taken.contains(id))
        .unwrap_or("ringway-memory");
    let folder = command.last("mem-path").map(|it| it.kind().to_owned());
    edit.remove("mem-path");
    edit.remove("mem-prealloc");
    edit.add(
        "object",
        &match folder {
            None => format!("memory-backend-memfd,id={id},size={size},share=on"),
            Some(folder) => {
                format!("memory-backend-file,id={id},size={size},mem-path={folder},share=on")
            }
        },
    );
    if !edit.set(&["machine", "M"], |_| true, "memory-backend", id) {
        edit.add("machine", &format!("memory-backend={id}"));
    }
    edit
}

const QUEUES: Fault = Fault {
    name: "too-many-queues",
    seen: &["you are asking more queues than supported: N"],
    cause: "The switch offers fewer queue pairs at this socket than `queues=` asks for.",
    why: "QEMU does not start: it asks again and again",
    cure: &[
        "qemu-system-x86_64 ... -netdev vhost-user,...,queues=N -device virtio-net-pci,...,mq=on,vectors=2N+2",
    ],
    judge: |facts| {
        let mut signs = Vec::new();
        for machine in &facts.machines {
            let message = said(machine, &["asking more queues than supported"]);
            let told = message.and_then(|line| number(line, "supported:"));
            let told = told.and_then(|it| u16::try_from(it).ok());
            let cards = of(facts, machine);
            if let (true, Some(most)) = (cards.is_empty() && machine.command.is_empty(), told) {
                signs.push(Sign {
                    machine: Some(machine.name.clone()),
                    subject: "queues".into(),
                    what: format!("QEMU asks for more than the {most} queue pairs that the switch offers"),
                    cure: vec![format!(
                        "# in QEMU's command line: queues={most} of -netdev vhost-user, vectors={} of its -device",
                        2 * u32::from(most) + 2
                    )],
                });
            }
            for card in cards {
                // What the switch says of itself goes before what it said once.
                let most = card.port.map(|port| port.queues).or(told);
                let Some(most) = most.filter(|most| *most > 0 && card.nic.queues() > *most) else {
                    continue;
                };
                let mut edit = card.edit();
                super::queues::set(&card, &mut edit, most);
                signs.push(card.sign(
                    format!(
                        "{} asks for {} queue pairs, and the switch offers {most} at {}",
                        card.nic.id,
                        card.nic.queues(),
                        card.path()
                    ),
                    restart(
                        machine,
                        &edit,
                        &format!("<driver queues='{most}'/>"),
                        &format!("queues={most} in --net"),
                    ),
                ));
            }
        }
        signs
    },
};

const FEATURES: Fault = Fault {
    name: "features-lost",
    seen: &["vhost lacks feature mask 0xN for backend"],
    cause: "The switch that came back offers less than the one that the guest's driver negotiated with.",
    why: "QEMU refuses the connection again and again, and the guest has no network until the switch offers as much as before",
    cure: &[
        "# start the switch again with what it offered before, or restart the machine, which then negotiates anew",
    ],
    judge: |facts| {
        told(facts, &["lacks feature mask"], |machine, line, card| {
            let mask = number(line, "mask")?;
            let names: Vec<&str> = NAMES
                .iter()
                .filter(|(bit, _)| mask & 1 << bit != 0)
                .map(|(_, name)| *name)
                .collect();
            let names = match names.is_empty() {
                true => format!("mask {mask:#x}"),
                false => names.join(", "),
            };
            let what =
                format!("the switch offers less than before: {names} gone, which the guest uses");
            let mut cure = vec![
                "# start the switch again as it was before; or let the machine negotiate anew:"
                    .to_owned(),
            ];
            match card {
                Some(card) => cure.extend(restart(
                    machine,
                    &card.edit(),
                    "nothing else",
                    "nothing else",
                )),
                None => cure.push("# restart the machine".into()),
            }
            Some((what, cure))
        })
    },
};

/// Bits that a switch may take away (virtio 1.3, sections 5.1.3 and 6).
const NAMES: &[(u32, &str)] = &[
    (0, "checksums of the guest left to the switch (csum)"),
    (1, "checksums left to the guest (guest_csum)"),
    (7, "large TCP segments to the guest (guest_tso4)"),
    (8, "the same over IPv6 (guest_tso6)"),
    (9, "segments with ECN to the guest (guest_ecn)"),
    (10, "large UDP datagrams to the guest (guest_ufo)"),
    (11, "large TCP segments of the guest (host_tso4)"),
    (12, "the same over IPv6 (host_tso6)"),
    (13, "segments with ECN of the guest (host_ecn)"),
    (14, "large UDP datagrams of the guest (host_ufo)"),
    (15, "merged buffers (mrg_rxbuf)"),
    (22, "several queues (mq)"),
    (28, "indirect descriptors (indirect_desc)"),
    (29, "event index (event_idx)"),
    (34, "packed rings (packed)"),
    (35, "in-order use (in_order)"),
];

const SLOTS: Fault = Fault {
    name: "memory-slots",
    seen: &[
        "vhost backend memory slots limit (8) is less than current number of used (9) and reserved (0) memory slots",
        "a used vhost backend has no free memory slots left",
    ],
    cause: "A guest with several pieces of memory (DIMMs) needs a switch that takes more than eight, one by one (protocol feature CONFIGURE_MEM_SLOTS).",
    why: "QEMU does not start, or memory cannot be added",
    cure: &["ringway switch --port vhost-user,path=SOCKET"],
    judge: |facts| {
        told(facts, &["memory slots"], |_, line, card| {
            if is_ours(card) {
                return None;
            }
            let limit = number(line, "limit (")
                .map(|it| format!(" of {it}"))
                .unwrap_or_default();
            Some((
                format!("the guest has more pieces of memory than the switch's limit{limit}"),
                instead(card, "a switch that takes more, such as ours"),
            ))
        })
    },
};

const MIGRATION: Fault = Fault {
    name: "migration-disabled",
    seen: &[
        "Migration disabled: vhost-user backend lacks VHOST_USER_PROTOCOL_F_LOG_SHMFD feature.",
    ],
    cause: "A switch must note which memory it writes while a machine migrates, in memory that QEMU gives it (protocol feature LOG_SHMFD).",
    why: "the machine cannot be migrated",
    cure: &["ringway switch --port vhost-user,path=SOCKET"],
    judge: |facts| {
        told(facts, &["Migration disabled", "LOG_SHMFD"], |_, _, card| {
            if is_ours(card) {
                return None;
            }
            Some((
                "the machine cannot be migrated: its switch does not log what it writes (LOG_SHMFD)".into(),
                instead(card, "a switch that does, such as ours"),
            ))
        })
    },
};

const NOT_STARTED: Fault = Fault {
    name: "vhost-not-started",
    seen: &["unable to start vhost net: N: falling back on userspace virtio"],
    cause: "The other side refused to start the device. QEMU says it goes on by itself; with vhost-user there is nothing it could do.",
    why: "with vhost-user the guest reaches nobody over this NIC; with a tap its frames go a slower way",
    cure: &["ringway switch --port vhost-user,path=SOCKET"],
    judge: |facts| {
        // These are causes of it, and say more.
        let named: Vec<String> = [MEMORY, FEATURES, SLOTS]
            .iter()
            .flat_map(|fault| (fault.judge)(facts))
            .filter_map(|sign| sign.machine)
            .collect();
        let mut signs = told(
            facts,
            &["unable to start vhost net"],
            |machine, line, card| {
                if named.contains(&machine.name) {
                    return None;
                }
                let code = number(line, "vhost net:")
                    .map(|it| format!(" (error {it})"))
                    .unwrap_or_default();
                Some((
                    format!(
                        "the switch refused to start the device{code}, and nothing else carries its frames"
                    ),
                    instead(card, "one that takes it, such as ours"),
                ))
            },
        );
        for sign in &mut signs {
            let machine = facts
                .machines
                .iter()
                .find(|it| Some(&it.name) == sign.machine.as_ref());
            let kernel = machine.is_some_and(|it| {
                super::user::cards_of(facts, it)
                    .iter()
                    .any(|card| card.nic.vhost())
            });
            let user = machine.is_some_and(|it| !of(facts, it).is_empty());
            if kernel && !user {
                sign.what =
                    "the kernel's vhost-net did not start, and QEMU itself carries the frames"
                        .into();
                sign.cure = vec![
                    "modprobe vhost_net".into(),
                    "# then restart the machine".into(),
                ];
            }
        }
        signs
    },
};

/// What is found by a message, and by no state: one sign per machine, at its first NIC that is not known to work.
fn told(
    facts: &Facts,
    parts: &[&str],
    find: impl Fn(&Machine, &str, Option<&Card<'_>>) -> Option<(String, Vec<String>)>,
) -> Vec<Sign> {
    let mut signs = Vec::new();
    for machine in &facts.machines {
        let Some(line) = said(machine, parts) else {
            continue;
        };
        let cards = of(facts, machine);
        let suspects = suspects(&cards);
        if suspects.is_empty() && !cards.is_empty() {
            // It was, and is no more.
            continue;
        }
        let broken = suspects.first().copied();
        let Some((what, cure)) = find(machine, line, broken) else {
            continue;
        };
        signs.push(Sign {
            machine: Some(machine.name.clone()),
            subject: match broken {
                None => "vhost-user".into(),
                Some(_) => {
                    let ids: Vec<&str> = suspects.iter().map(|it| it.nic.id.as_str()).collect();
                    format!("NIC {}", ids.join(" or "))
                }
            },
            what,
            cure,
        });
    }
    signs
}

/// The NICs that a message may be about, which does not say: those whose switch says that they do not work, else those whose switch
/// is not ours, else those of which nothing is known.
fn suspects<'a, 'b>(cards: &'b [Card<'a>]) -> Vec<&'b Card<'a>> {
    let rank = |card: &Card<'_>| match card.port {
        Some(port) if port.connected.is_some() => 0,
        None => 1,
        Some(_) => 2,
    };
    let mut suspects: Vec<&Card<'_>> = cards.iter().filter(|card| !card.works()).collect();
    let worst = suspects.iter().map(|card| rank(card)).min();
    suspects.retain(|card| Some(rank(card)) == worst);
    suspects
}

/// What a switch of another kind lacked is history where one of ours is.
fn is_ours(card: Option<&Card<'_>>) -> bool {
    card.is_some_and(|card| card.port.is_some())
}

/// Another switch at the same socket.
fn instead(card: Option<&Card<'_>>, which: &str) -> Vec<String> {
    let Some(card) = card else {
        return vec![
            format!("# at the socket of that NIC, start {which}:"),
            our_switch("SOCKET".as_ref(), 1, false),
        ];
    };
    let mut cure = vec![format!(
        "# in place of what is at {} now, start {which}:",
        card.path()
    )];
    let listeners = card
        .socket
        .map(|it| it.listeners.clone())
        .unwrap_or_default();
    if !card.nic.listens() {
        cure.extend(listeners.iter().map(|pid| format!("kill {pid}")));
        cure.push(format!("rm -f {}", quoted(&card.path())));
    }
    let path = card.nic.socket().unwrap_or_default();
    cure.push(our_switch(&path, card.nic.queues(), card.nic.listens()));
    cure
}

fn of<'a>(facts: &'a Facts, machine: &'a Machine) -> Vec<Card<'a>> {
    vhost_user(facts)
        .filter(|card| std::ptr::eq(card.machine, machine))
        .collect()
}
