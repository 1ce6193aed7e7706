//! What a guest says about itself, and what others make of it.

use super::{
    Chapter, Fault, Sign,
    user::{Card, cards_of, restart, said, vhost_user},
};

pub(super) const CHAPTER: Chapter = Chapter {
    title: "Addresses of guests",
    faults: &[SPOOFED, CHECKSUM],
};

const SPOOFED: Fault = Fault {
    name: "wrong-mac",
    seen: &["Frames of one guest vanish; the switch counts drops for `spoofed_mac` at its port"],
    cause: "The switch takes frames from one address only at this port (`mac=`, and every port of a network), and the NIC has another.",
    why: "every frame that the guest sends is dropped",
    cure: &["qemu-system-x86_64 ... -device virtio-net-pci,netdev=ID,mac=MAC"],
    judge: |facts| {
        vhost_user(facts)
            .filter_map(|card| {
                // QEMU's own choice if nothing is said (net/net.c).
                const FIRST: &str = "52:54:00:12:34:56";
                let wanted = card.port?.mac.as_ref()?;
                let device = card.nic.device.as_ref()?;
                let given = match device.get("mac") {
                    Some(mac) => mac.to_lowercase(),
                    None if card.command.nics().len() == 1 => FIRST.into(),
                    None => return None,
                };
                if given == wanted.to_lowercase() {
                    return None;
                }
                let port = card.port?;
                let dropped = port.drops.get("spoofed_mac").copied().unwrap_or(0);
                let so_far = match dropped {
                    0 => String::new(),
                    count => format!("; {count} frames were dropped for it"),
                };
                let mut edit = card.edit();
                card.set_device(&mut edit, "mac", Some(wanted));
                Some(card.sign(
                    format!(
                        "{} has the address {given}, and port {} takes frames from {wanted} only{so_far}",
                        card.nic.id, port.name
                    ),
                    restart(
                        card.machine,
                        &edit,
                        &format!("<mac address='{wanted}'/>"),
                        &format!("mac={wanted} in --net"),
                    ),
                ))
            })
            .collect()
    },
};

/// What a NIC takes only as long as it takes half checksums (virtio 1.2, 5.1.3.1), those first that carry TCP.
pub(super) const WITH_CHECKSUMS: [&str; 5] = [
    "guest_csum",
    "guest_tso4",
    "guest_tso6",
    "guest_ecn",
    "guest_ufo",
];

/// Has a host complete what its own DHCP server sends.
const FILL: &str =
    "iptables -t mangle -A POSTROUTING -p udp --dport 68 -j CHECKSUM --checksum-fill";

const CHECKSUM: Fault = Fault {
    name: "dhcp-checksum",
    seen: &["In the guest: 5 bad udp checksums in 5 packets"],
    cause: "Between guests of a host, and from the host, frames go with half a checksum, which the receiving NIC declares good. A DHCP client that reads raw frames does not hear that, and takes the offer for damaged. QEMU completes what it reads from a tap itself; vhost-net and other switches do not.",
    why: "the guest gets no address, though the DHCP server answers",
    cure: &[
        FILL,
        "qemu-system-x86_64 ... -device virtio-net-pci,...,guest_csum=off,guest_tso4=off,guest_tso6=off,guest_ecn=off,guest_ufo=off",
    ],
    judge: |facts| {
        let mut signs = Vec::new();
        for machine in &facts.machines {
            if said(machine, &["bad udp checksum"]).is_none() {
                continue;
            }
            let what = "its DHCP client refuses offers, whose checksums are left to the NIC";
            let mut cards = cards_of(facts, machine);
            cards.retain(|card| card.nic.is_virtio());
            // QEMU has completed what came over its own tap, unless that was in a VLAN: such a NIC is suspected last.
            cards.sort_by_key(|card| card.nic.backend() == "tap" && !card.nic.vhost());
            if machine.command.is_empty() {
                signs.push(Sign {
                    machine: Some(machine.name.clone()),
                    subject: "DHCP".into(),
                    what: what.into(),
                    cure: vec![
                        "# where the DHCP server runs:".into(),
                        FILL.into(),
                        "# or in QEMU's command line, at the -device of the NIC: guest_csum=off,guest_tso4=off,guest_tso6=off,guest_ecn=off,guest_ufo=off".into(),
                    ],
                });
            }
            // One that is told to take whole checksums alone is not the one; a switch of ours completes them.
            let offers = |card: &&Card<'_>| {
                let device = card.nic.device.as_ref();
                card.port.is_none() && device.is_some_and(|it| it.is_on("guest_csum", true))
            };
            let Some(card) = cards.iter().find(offers) else {
                continue;
            };
            let mut edit = card.edit();
            for key in WITH_CHECKSUMS {
                card.set_device(&mut edit, key, Some("off"));
            }
            signs.push(card.sign(
                format!("{what} ({})", card.nic.id),
                restart(
                    machine,
                    &edit,
                    "<driver><guest csum='off' tso4='off' tso6='off' ecn='off' ufo='off'/></driver>",
                    "a vhost-user port, whose switch completes them",
                ),
            ));
        }
        signs
    },
};
