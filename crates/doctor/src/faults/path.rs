//! The way of a frame through the host: up, joined, and passed on.

use ipnet::{IpNet, Ipv4Net};
use ringway_host::survey::{Kind, PortState, Surveyed};

use super::{
    Chapter, Fault, Sign,
    scene::{Place, named_taps, places, seats},
};
use crate::{
    Facts,
    command::{Command, quoted},
    facts::{Machine, Network},
};

pub(super) const CHAPTER: Chapter = Chapter {
    title: "The way through the host",
    faults: &[LOOSE, MACVTAP, MTU, STP, FORWARDING, STRICT],
};

const LOOSE: Fault = Fault {
    name: "tap-not-connected",
    seen: &["The guest's link is up, and nothing comes through."],
    cause: "The tap is down, or belongs to no bridge and has no address: frames of the guest end there.",
    why: "the guest reaches nobody",
    cure: &["ip link set TAP master BRIDGE", "ip link set TAP up"],
    judge: |facts| {
        let signs = seats(facts).into_iter().filter_map(|seat| {
            let link = seat.link;
            if !matches!(link.kind, Kind::Tap(_)) || has_script(seat.machine, &link.name) {
                return None;
            }
            let name = &link.name;
            let addressed = link.addresses.iter().any(|it| !is_own(it));
            let mut cure = Vec::new();
            let mut wrong = Vec::new();
            if !link.up {
                wrong.push("is down");
            }
            if link.master.is_none() && !addressed {
                wrong.push("belongs to no bridge and has no address");
                cure.extend(join(seat.network, name));
            }
            if !link.up {
                cure.push(format!("ip link set {} up", quoted(name)));
            }
            let what = format!("{name} {}", wrong.join(", and "));
            (!wrong.is_empty()).then(|| seat.sign(what, cure))
        });
        signs.collect()
    },
};

const MACVTAP: Fault = Fault {
    name: "macvtap-host",
    seen: &["The guest reaches the LAN, and neither reaches its host nor is reached by it."],
    cause: "A macvtap takes frames from its link before the host's own stack sees them, and never hands any to the link's own address.",
    why: "guest and host cannot talk to each other",
    cure: &[
        "ip link add link LINK name mv-LINK type macvlan mode bridge",
        "ip address del ADDRESS dev LINK",
        "ip address add ADDRESS dev mv-LINK",
        "ip link set mv-LINK up",
        "ip route add default via GATEWAY dev mv-LINK",
    ],
    judge: |facts| {
        let signs = seats(facts).into_iter().filter_map(|seat| {
            let Kind::Macvtap(mode) = &seat.link.kind else {
                return None;
            };
            let lower = seat.network.link_by_index(seat.link.lower?)?;
            let own = |link: &Surveyed| link.addresses.iter().any(|it| !is_own(it));
            let beside = |link: &&Surveyed| {
                link.kind == Kind::Other("macvlan".into())
                    && link.lower == Some(lower.index)
                    && own(link)
            };
            if !own(lower) || seat.network.links.iter().any(|link| beside(&link)) {
                return None;
            }
            let mut cure = Vec::new();
            if mode != "bridge" {
                let change = "type macvtap mode bridge";
                cure.push(format!("ip link set {} {change}", quoted(&seat.link.name)));
            }
            cure.extend(beside_macvtap(seat.network, lower));
            let what = format!(
                "{} lies upon {}, which has the host's own address: the two do not hear each other",
                seat.link.name, lower.name
            );
            Some(seat.sign(what, cure))
        });
        signs.collect()
    },
};

const MTU: Fault = Fault {
    name: "mtu-differs",
    seen: &["Small pings pass, large ones and most of TCP do not."],
    cause: "A bridge drops frames that are longer than the MTU of the port they leave by, and tells nobody.",
    why: "large frames vanish without a word",
    cure: &["ip link set LINK mtu MTU"],
    judge: |facts| {
        let mut signs = Vec::new();
        for place in places(facts) {
            let ports: Vec<&Surveyed> = place.network.ports(place.link).collect();
            let Some(wanted) = wanted_mtu(&place, &ports) else {
                continue;
            };
            let ends = ports.iter().copied().chain([place.link]);
            let odd: Vec<&Surveyed> = ends.filter(|link| link.mtu != wanted).collect();
            let Some(first) = odd.first() else { continue };
            let each: Vec<String> = odd
                .iter()
                .map(|link| format!("{} has MTU {}", link.name, link.mtu))
                .collect();
            let what = format!(
                "{}, and the others of {} have {wanted}",
                each.join(", "),
                place.link.name
            );
            let cure: Vec<String> = odd.iter().map(|link| set_mtu(&link.name, wanted)).collect();
            signs.push(place.sign(first, what, cure));
        }
        signs.extend(guests_mtu(facts));
        signs
    },
};

const STP: Fault = Fault {
    name: "stp-delay",
    seen: &["The guest gets its address half a minute after it booted, or gives up."],
    cause: "The bridge looks for loops (STP): a port that comes up listens and learns for twice the forward delay before it forwards.",
    why: "nothing passes for half a minute after a machine starts, and DHCP may give up meanwhile",
    cure: &[
        "ip link set BRIDGE type bridge stp_state 0",
        "# where there may be loops: ip link set BRIDGE type bridge forward_delay 200",
    ],
    judge: |facts| {
        let mut signs = Vec::new();
        for place in places(facts) {
            // Hundredths of a second; with STP the kernel takes no less than two.
            const LEAST: u32 = 200;
            let Some(bridge) = place.bridge() else {
                continue;
            };
            if !bridge.stp || bridge.forward_delay <= LEAST {
                continue;
            }
            let name = &place.link.name;
            let set = format!("ip link set {} type bridge", quoted(name));
            let waits = |link: &&Surveyed| {
                matches!(link.port, Some(PortState::Listening | PortState::Learning))
            };
            let waiting: Vec<&Surveyed> = place.network.ports(place.link).filter(waits).collect();
            let now = waiting
                .first()
                .map_or(String::new(), |port| format!(", as {} does now", port.name));
            let seconds = f64::from(bridge.forward_delay) / 50.0;
            let what = format!(
                "a port of {name} that comes up waits {seconds:.0} s before it forwards (STP){now}"
            );
            let mut cure = Vec::new();
            // With one way on there can be no loop.
            if place.ways_on().len() < 2 {
                cure.push(format!("{set} stp_state 0"));
                // Those that wait would go on to.
                let forward = |port: &&Surveyed| {
                    format!("bridge link set dev {} state 3", quoted(&port.name))
                };
                cure.extend(waiting.iter().map(forward));
            } else {
                cure.push(format!("{set} forward_delay {LEAST}"));
            }
            signs.push(place.sign(place.link, what, cure));
        }
        signs
    },
};

const FORWARDING: Fault = Fault {
    name: "forwarding-off",
    seen: &["The guest reaches its gateway, which is the host, and nothing beyond."],
    cause: "The host does not pass packets from one link to another.",
    why: "the guest reaches its host and nothing beyond; where that is intended, --ignore forwarding-off leaves it out",
    cure: &[
        "sysctl -w net.ipv4.ip_forward=1",
        "# to keep it: echo net.ipv4.ip_forward=1 > /etc/sysctl.d/50-forward.conf",
    ],
    judge: |facts| {
        let mut signs = Vec::new();
        for place in places(facts) {
            let Some(outside) = place.outside() else {
                continue;
            };
            if place.network.forwarding != Some(false) {
                continue;
            }
            let what = format!(
                "the host passes nothing from {} to {} (net.ipv4.ip_forward is 0)",
                place.link.name, outside.name
            );
            let cure = vec![
                "sysctl -w net.ipv4.ip_forward=1".into(),
                "# to keep it: echo net.ipv4.ip_forward=1 > /etc/sysctl.d/50-forward.conf".into(),
            ];
            signs.push(place.sign(place.link, what, cure));
        }
        // One switch for all links: said once.
        signs.dedup_by(|later, first| later.cure == first.cure);
        signs
    },
};

const STRICT: Fault = Fault {
    name: "rp-filter-strict",
    seen: &["Packets of the guest arrive at the tap or bridge, and the host does not answer."],
    cause: "The host takes packets only by the link over which it would answer (`rp_filter` = 1), and its routes to the guest's \
        addresses lead over another one.",
    why: "the host drops what the guest sends to it or through it, and counts it as IPReversePathFilter alone",
    cure: &[
        "sysctl -w net.ipv4.conf.LINK.rp_filter=2",
        "# to keep it: echo net.ipv4.conf.LINK.rp_filter=2 > /etc/sysctl.d/50-rp-filter.conf",
    ],
    judge: |facts| {
        let mut signs = Vec::new();
        for place in places(facts) {
            let name = &place.link.name;
            let strict = place
                .network
                .strict
                .as_ref()
                .is_some_and(|it| it.contains(name));
            let other = place.subnets().into_iter().find_map(|subnet| {
                let link = answers_leave(place.network, subnet)?;
                (link != place.link.index).then_some((subnet, link))
            });
            let (true, Some((subnet, other))) = (strict, other) else {
                continue;
            };
            let other = place
                .network
                .link_by_index(other)
                .map_or("another link", |it| &it.name);
            // Dots part the words of a setting, and names of VLANs have some: those are written as slashes (sysctl.8).
            let word = name.replace('.', "/");
            let setting = quoted(&format!("net.ipv4.conf.{word}.rp_filter=2"));
            let what = format!(
                "{name} takes only packets whose answer leaves by it (rp_filter is 1), and answers to {subnet} leave by {other}"
            );
            let cure = vec![
                format!("sysctl -w {setting}"),
                format!("# to keep it: echo {setting} > /etc/sysctl.d/50-rp-filter.conf"),
            ];
            signs.push(place.sign(place.link, what, cure));
        }
        signs
    },
};

/// Over which link the host answers addresses of a subnet, or some of them.
fn answers_leave(network: &Network, subnet: Ipv4Net) -> Option<u32> {
    let within = |to: &Ipv4Net| to.contains(&subnet) || subnet.contains(to);
    let routes = network.routes.iter().filter(|it| within(&it.destination));
    // The longest prefix, then the lowest metric, then the one that was there first.
    let best = routes.min_by_key(|it| (32 - it.destination.prefix_len(), it.metric))?;
    Some(best.link)
}

/// Commands after which the host has its address on a macvlan beside the macvtap, where the two hear each other.
fn beside_macvtap(network: &Network, lower: &Surveyed) -> Vec<String> {
    let name: String = format!("mv-{}", lower.name).chars().take(15).collect();
    let (lower_name, name) = (quoted(&lower.name), quoted(&name));
    let mut cure = vec![format!(
        "ip link add link {lower_name} name {name} type macvlan mode bridge"
    )];
    for address in lower.addresses.iter().filter(|it| !is_own(it)) {
        cure.push(format!("ip address del {address} dev {lower_name}"));
        cure.push(format!("ip address add {address} dev {name}"));
    }
    cure.push(format!("ip link set {name} up"));
    // Those to neighbours come and go with the address.
    let routes = network.routes.iter().filter(|it| it.link == lower.index);
    for route in routes {
        if let Some(gateway) = route.gateway {
            let destination = route.destination;
            cure.push(format!(
                "ip route replace {destination} via {gateway} dev {name}"
            ));
        }
    }
    cure.push("# to keep it, tell it to whatever sets up the host's network".into());
    cure
}

/// What all ports of a bridge should have: what the way on has, else what most have.
fn wanted_mtu(place: &Place<'_>, ports: &[&Surveyed]) -> Option<u32> {
    place.bridge()?;
    let ways = place.ways_on();
    let judges = if ways.is_empty() { ports } else { &ways };
    let count = |mtu: u32| judges.iter().filter(|it| it.mtu == mtu).count();
    // Of those that are as frequent, Ethernet's own, else the smaller.
    let all = judges.iter().map(|it| it.mtu);
    all.max_by_key(|mtu| (count(*mtu), *mtu == 1500, u32::MAX - mtu))
}

fn set_mtu(link: &str, mtu: u32) -> String {
    format!("ip link set {} mtu {mtu}", quoted(link))
}

/// Guests that are told a larger MTU (`host_mtu`) than their tap has.
fn guests_mtu(facts: &Facts) -> Vec<Sign> {
    let signs = named_taps(facts).filter_map(|named| {
        let link = named.link()?;
        let device = named.nic.device.as_ref()?;
        let told: u32 = device.get("host_mtu")?.parse().ok()?;
        let bridge = named.network.master(link);
        let least = link.mtu.min(bridge.map_or(u32::MAX, |it| it.mtu));
        if told <= least {
            return None;
        }
        let name = &named.name;
        let what = format!(
            "the guest is told MTU {told} (host_mtu), and {name} and its bridge carry {least}"
        );
        let outside = |link: &Surveyed| link.kind == Kind::Device;
        let mut ends = vec![link];
        if let Some(bridge) = bridge {
            ends = named.network.ports(bridge).collect();
            ends.push(bridge);
        }
        let cure: Vec<String> = match ends.iter().any(|link| outside(link)) {
            // What lies beyond a NIC is not to be changed from here.
            true => vec![format!("# start the machine with host_mtu={least}")],
            false => ends.iter().map(|link| set_mtu(&link.name, told)).collect(),
        };
        Some(named.sign(what, cure))
    });
    signs.collect()
}

/// The command that puts a tap into the bridge it most likely belongs to.
pub(super) fn join(network: &Network, tap: &str) -> Vec<String> {
    if let Some(bridge) = network.only_bridge() {
        return vec![format!(
            "ip link set {} master {}",
            quoted(tap),
            quoted(&bridge.name)
        )];
    }
    let is_bridge = |kind: &Kind| matches!(kind, Kind::Bridge(_));
    let bridges: Vec<&str> = network
        .links
        .iter()
        .filter(|link| is_bridge(&link.kind))
        .map(|link| link.name.as_str())
        .collect();
    vec![match bridges.is_empty() {
        true => format!(
            "# make a bridge and put it there: ip link add BRIDGE type bridge; ip link set BRIDGE up; ip link set {tap} master BRIDGE"
        ),
        false => format!(
            "# put it into its bridge, one of {}: ip link set {tap} master BRIDGE",
            bridges.join(", ")
        ),
    }]
}

/// Addresses that a link gives itself.
pub(super) fn is_own(address: &IpNet) -> bool {
    match address {
        IpNet::V6(it) => it.addr().is_unicast_link_local(),
        IpNet::V4(_) => false,
    }
}

/// Whether a machine that does not run yet has a script that will see to its tap.
fn has_script(machine: &Machine, tap: &str) -> bool {
    let nics = Command::parse(&machine.command).nics();
    let nic = nics.iter().find(|nic| nic.tap() == Some(tap));
    machine.pid.is_none() && nic.is_some_and(|nic| nic.netdev.get("script") != Some("no"))
}
