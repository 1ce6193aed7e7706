//! Offloads: frames that travel as one, and checksums that nobody computes twice.

use ringway_host::survey::{Kind, Surveyed};

use super::{
    Chapter, Fault,
    guest::WITH_CHECKSUMS,
    scene::places,
    user::{cards, restart},
};
use crate::command::quoted;

pub(super) const CHAPTER: Chapter = Chapter {
    title: "Offloads",
    faults: &[OFF, NIC],
};

const OFF: Fault = Fault {
    name: "offload-off",
    seen: &["11 Mbit/s in place of 1 Gbit/s, and a CPU that is busy."],
    cause: "Somebody switched off an offload of a link on the way: frames are cut up, put together or summed one by one by the CPU.",
    why: "every frame costs the CPU what it should pay once per 64 KiB",
    cure: &["ethtool -K LINK tx on sg on tso on gso on gro on"],
    judge: |facts| {
        let mut signs = Vec::new();
        let mut said: Vec<(usize, u32)> = Vec::new();
        for place in places(facts) {
            let mut links: Vec<&Surveyed> = place.network.ports(place.link).collect();
            links.push(place.link);
            links.extend(place.outside());
            for link in links {
                let here = (std::ptr::from_ref(place.network).addr(), link.index);
                let off = place.network.switched_off.get(&link.name);
                let lost = lost(link, off.map_or(&[], Vec::as_slice));
                if lost.is_empty() || said.contains(&here) {
                    continue;
                }
                said.push(here);
                let what = format!("{} has {} switched off", link.name, lost.join(", "));
                let on: String = lost.iter().map(|name| format!(" {name} on")).collect();
                let cure = vec![format!("ethtool -K {}{on}", quoted(&link.name))];
                signs.push(place.sign(link, what, cure));
            }
        }
        signs
    },
};

const NIC: Fault = Fault {
    name: "nic-offload-off",
    seen: &["11 Mbit/s in place of 1 Gbit/s, and a CPU that is busy."],
    cause: "An offload of the guest's NIC is off in QEMU's command line: its frames are no longer than the MTU, or without mrg_rxbuf \
        each takes buffers for 64 KiB, or the guest sums all of them itself.",
    why: "every frame costs guest and host what they should pay once per 64 KiB",
    cure: &[
        "# leave mrg_rxbuf=off, guest_tso4=off, csum=off and their like away after -device virtio-net-pci",
    ],
    judge: |facts| {
        let signs = cards(facts).filter_map(|card| {
            let device = card.nic.device.as_ref().filter(|_| card.nic.is_virtio())?;
            let keys = [
                "mrg_rxbuf",
                "csum",
                "gso",
                "guest_csum",
                "guest_tso4",
                "guest_tso6",
                "host_tso4",
                "host_tso6",
            ];
            let is_off = |key: &&str| device.get(key).is_some() && !device.is_on(key, true);
            let off: Vec<&str> = keys.into_iter().filter(is_off).collect();
            // All that rests on the guest's checksums, and no more: somebody cured DHCP so.
            let deliberate = off == WITH_CHECKSUMS[..3] && WITH_CHECKSUMS.iter().all(is_off);
            if off.is_empty() || deliberate {
                return None;
            }
            let mut edit = card.edit();
            for key in &off {
                card.set_device(&mut edit, key, None);
            }
            let xml = "no <host .../> and no <guest .../> in the <driver> of its <interface>";
            let cure = restart(card.machine, &edit, xml, "nothing of these after `--`");
            Some(card.sign(
                format!("{} has {} switched off", card.nic.id, off.join(", ")),
                cure,
            ))
        });
        signs.collect()
    },
};

/// What of that costs something, as ethtool's options name it.
fn lost(link: &Surveyed, off: &[String]) -> Vec<&'static str> {
    // What the reader of a tap takes is the reader's to say; pairs of virtual links hand frames over as they are.
    let matter: &[&str] = match link.kind {
        Kind::Tap(_) => &["sg", "gso"],
        Kind::Device => &["tx", "sg", "tso", "gso", "gro"],
        _ => &["tx", "sg", "tso", "gso"],
    };
    let mut lost = Vec::new();
    for name in off {
        let option = match name.as_str() {
            "tx-scatter-gather" => "sg",
            "tx-tcp-segmentation" | "tx-tcp6-segmentation" => "tso",
            "tx-generic-segmentation" => "gso",
            "rx-gro" => "gro",
            _ if name.starts_with("tx-checksum-ip") => "tx",
            _ => continue,
        };
        if matter.contains(&option) && !lost.contains(&option) {
            lost.push(option);
        }
    }
    // The order in which they can be switched on.
    lost.sort_by_key(|it| matter.iter().position(|other| other == it));
    lost
}
