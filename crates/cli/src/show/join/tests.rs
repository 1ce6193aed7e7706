use std::collections::BTreeMap;

use ringway_doctor::{
    Facts,
    facts::{Descriptor, Machine, Network, Passed},
};
use ringway_host::survey::{Bridge, Kind as LinkKind, PortState, Surveyed, Tap};
use serde_json::json;

use super::*;
use crate::live::{Flow, QueueRates, Rates, Role, ThreadRates};

fn machine(line: &str) -> Machine {
    let words = |text: &str| text.split(' ').map(str::to_owned).collect();
    Machine {
        name: "web".into(),
        pid: Some(12),
        command: words(&format!("qemu-system-x86_64 -name web -smp 2 {line}")),
        ..Machine::default()
    }
}

fn thread(process: i32, role: Role, name: &str) -> ThreadRates {
    ThreadRates {
        owner: String::new(),
        role,
        name: name.into(),
        process,
        id: 100,
        cpu: Some(1),
        percent: Some(9.5),
    }
}

fn port(name: &str, kind: &str, frames: f64) -> PortRates {
    let flow = |frames: f64| {
        Some(Flow {
            frames,
            bits: frames * 800.0,
        })
    };
    PortRates {
        name: name.into(),
        kind: kind.into(),
        connected: true,
        rx: flow(frames),
        tx: flow(frames / 10.0),
        drops: BTreeMap::new(),
        queues: vec![QueueRates {
            worker: Some(1),
            rx: flow(frames),
            tx: flow(frames / 10.0),
            kicks: Some(5.0),
            calls: Some(7.0),
        }],
    }
}

fn link(index: u32, name: &str, kind: LinkKind) -> Surveyed {
    Surveyed {
        index,
        name: name.into(),
        up: true,
        carrier: true,
        kind,
        ..Surveyed::default()
    }
}

/// Links: a bridge with a tap and a NIC, a macvtap upon the NIC, a tap that leads nowhere.
fn links() -> Vec<Surveyed> {
    let tap = || LinkKind::Tap(Tap::default());
    vec![
        Surveyed {
            master: Some(9),
            ..link(2, "eth0", LinkKind::Device)
        },
        Surveyed {
            master: Some(9),
            port: Some(PortState::Forwarding),
            ..link(3, "tap0", tap())
        },
        link(4, "tap1", tap()),
        Surveyed {
            lower: Some(2),
            ..link(5, "mac0", LinkKind::Macvtap("bridge".into()))
        },
        Surveyed {
            addresses: vec!["10.0.0.1/24".parse().unwrap()],
            ..link(9, "br0", LinkKind::Bridge(Bridge::default()))
        },
    ]
}

fn world(machine: Machine) -> World {
    let links_of = ["eth0", "tap0", "mac0"].map(|name| port(name, "", 100.0));
    World {
        facts: Facts {
            machines: vec![machine],
            networks: vec![Network {
                id: Some(1),
                links: links(),
                ..Network::default()
            }],
            ..Facts::default()
        },
        rates: Rates {
            seconds: 1.0,
            ports: vec![
                port("lan/web", "vhost-user", 1000.0),
                port("rw-lan", "tap", 70.0),
            ],
            links: links_of.into(),
            threads: vec![
                thread(12, Role::Vcpu, "CPU 0/KVM"),
                thread(12, Role::Main, "qemu-system-x86"),
                thread(12, Role::Vhost, "vhost-12"),
                thread(7, Role::Worker, "worker-0"),
                thread(7, Role::Worker, "worker-1"),
                thread(13, Role::Vcpu, "CPU 0/KVM"),
            ],
            ..Rates::default()
        },
        ports: vec![Known {
            name: "lan/web".into(),
            socket: Some("/run/web.sock".into()),
            network: Some("lan".parse().unwrap()),
            ..Known::default()
        }],
        networks: vec![
            serde_json::from_value(json!({
                "name": "lan", "kind": "nat", "subnet": "10.7.0.0/24", "gateway": "10.7.0.1",
                "interface": "rw-lan", "vlan": 7, "ports": 1, "leases": 0
            }))
            .unwrap(),
        ],
        ..World::default()
    }
}

/// Titles and details, a string for each stage.
fn stages(path: &Path) -> Vec<String> {
    let stage = |stage: &Stage| format!("{}: {}", stage.title, stage.details.join(" | "));
    path.stages.iter().map(stage).collect()
}

#[test]
fn a_vhost_user_nic_goes_through_its_worker_to_the_network_and_out() {
    let line = "-chardev socket,id=c0,path=/run/web.sock -netdev vhost-user,id=n0,chardev=c0 \
                -device virtio-net-pci,netdev=n0,mac=02:00:00:00:00:01,vectors=4";
    let map = map(&world(machine(line)), &Wanted::Name("web".into()));
    assert_eq!(map.paths.len(), 1);
    let path = &map.paths[0];
    assert_eq!(path.about, "process 12, NIC n0");
    assert_eq!(
        stages(path),
        [
            "guest web: 2 virtual CPUs | CPU 0/KVM on CPU 1, 9.5 %",
            "virtio-net-pci: 1 queue pair, 4 vectors | 02:00:00:00:00:01",
            "switch workers: worker-1 on CPU 1, 9.5 %",
            "switch: port lan/web | network lan, VLAN 7",
            "rw-lan: nat network | not in this network namespace",
        ]
    );
    assert_eq!(path.arrows.len(), 4);
    let from = |arrow: &Arrow| arrow.from_guest.map(|flow| flow.frames);
    assert_eq!(
        path.arrows.iter().map(from).collect::<Vec<_>>(),
        [
            Some(1000.0),
            None,
            Some(1000.0),
            // What the switch sends to its tap leaves.
            Some(7.0),
        ]
    );
    assert_eq!(path.arrows[1].note.as_deref(), Some("5 kicks/s, 7 calls/s"));
}

#[test]
fn vhost_net_on_a_tap_goes_over_the_bridge_to_its_nic() {
    let mut given =
        machine("-netdev tap,id=n0,fds=20,vhostfds=21 -device virtio-net-pci,netdev=n0");
    given.descriptors = vec![Descriptor {
        number: 20,
        target: "/dev/net/tun".into(),
        tap: Some("tap0".into()),
    }];
    let map = map(&world(given), &Wanted::Process(12));
    assert_eq!(
        stages(&map.paths[0])[1..],
        [
            "virtio-net-pci: 1 queue pair",
            "vhost-net of the kernel: vhost-12 on CPU 1, 9.5 %",
            "bridge br0: tap0 forwarding, 2 ports in all",
            "eth0: ",
        ]
    );
    let [device, wake_ups, bridge, uplink] = map.paths[0].arrows.as_slice() else {
        panic!("{:?}", map.paths[0].arrows);
    };
    assert_eq!(
        device,
        &Arrow {
            drops: BTreeMap::new(),
            ..bridge.clone()
        }
    );
    assert_eq!((wake_ups.from_guest, &wake_ups.note), (None, &None));
    // A tap receives what the guest sent; a NIC sends it.
    assert_eq!(bridge.from_guest.map(|flow| flow.frames), Some(100.0));
    assert_eq!(uplink.from_guest.map(|flow| flow.frames), Some(10.0));
}

#[test]
fn a_machine_in_another_network_namespace_is_drawn_with_what_is_there() {
    let mut given = machine("-netdev tap,id=n0,ifname=tap0 -device e1000,netdev=n0");
    given.namespace = Some(5);
    let mut world = world(given);
    // Not seen, then seen.
    let unseen = map(&world, &Wanted::All);
    assert_eq!(unseen.paths[0].stages.len(), 4);
    assert_eq!(unseen.paths[0].arrows[0], Arrow::default());
    let inside = link(3, "tap0", LinkKind::Tap(Tap::default()));
    world.facts.networks.push(Network {
        id: Some(5),
        entrance: Some(12),
        links: vec![Surveyed {
            addresses: vec!["10.1.1.1/24".parse().unwrap()],
            ..inside
        }],
        ..Network::default()
    });
    world.rates.links.push(port("5/tap0", "", 6.0));
    let seen = map(&world, &Wanted::All);
    assert_eq!(
        stages(&seen.paths[0])[3..],
        ["tap tap0: on no bridge", "host: 10.1.1.1/24"]
    );
    assert_eq!(
        seen.paths[0].arrows[0].from_guest.map(|flow| flow.frames),
        Some(6.0)
    );
}

#[test]
fn a_macvtap_receives_what_goes_to_the_guest() {
    let mut given = machine("-netdev tap,id=n0,fd=20 -device e1000e,netdev=n0");
    given.descriptors = vec![Descriptor {
        number: 20,
        target: "/dev/tap5".into(),
        tap: None,
    }];
    let map = map(&world(given), &Wanted::Process(12));
    assert_eq!(
        stages(&map.paths[0])[2..],
        [
            "QEMU's main loop: qemu-system-x86 on CPU 1, 9.5 %",
            "macvtap mac0: mode bridge",
            "eth0: ",
        ]
    );
    assert_eq!(
        map.paths[0].arrows[0].from_guest.map(|flow| flow.frames),
        Some(10.0)
    );
}

#[test]
fn what_leads_nowhere_is_broken() {
    let line = "-netdev tap,id=n0,ifname=tap1 -device e1000,netdev=n0 \
                -netdev tap,id=n1,ifname=none -netdev user,id=n2 -device virtio-net-pci,netdev=n2";
    let paths = map(&world(machine(line)), &Wanted::Process(12)).paths;
    let broken = |path: &Path| -> Vec<String> {
        let broken = path.stages.iter().filter(|stage| stage.broken);
        broken.map(|stage| stage.title.clone()).collect()
    };
    assert_eq!(broken(&paths[0]), ["tap tap1"]);
    assert_eq!(broken(&paths[1]), ["no device"]);
    assert_eq!(broken(&paths[2]), [""; 0]);
    assert_eq!(
        stages(&paths[2])[3..],
        [
            "network within QEMU: 10.0.2.0/24",
            "sockets of the host: connections of QEMU's user"
        ]
    );
    assert_eq!(paths[1].about, "process 12, NIC 2 of 3 n1");
}

#[test]
fn a_nic_that_was_passed_through_is_drawn_without_the_switch() {
    let mut given = machine("-device vfio-pci,host=01:00.0");
    let device = |address: &str, class| Passed {
        address: address.into(),
        present: true,
        class: Some(class),
        driver: Some("vfio-pci".into()),
        group: Some(7),
        ..Passed::default()
    };
    let gone = Passed {
        address: "0000:03:00.0".into(),
        ..Passed::default()
    };
    given.passthrough = vec![
        device("0000:01:00.0", 0x02_0000),
        // A graphics card.
        device("0000:02:00.0", 0x03_0000),
        gone,
    ];
    let paths = map(&world(given), &Wanted::Name("web".into())).paths;
    assert_eq!(paths.len(), 2);
    assert_eq!(paths[0].about, "process 12, passed through 0000:01:00.0");
    assert_eq!(
        stages(&paths[0])[1..],
        [
            "vfio-pci 0000:01:00.0: driver vfio-pci, IOMMU group 7",
            "the card's own wire: neither the host nor the switch carries or counts its frames",
        ]
    );
    assert!(paths[1].stages[1].broken && !paths[0].stages[1].broken);
    assert_eq!(paths[0].arrows, [Arrow::default(), Arrow::default()]);
}

#[test]
fn ports_without_a_machine_are_drawn_after_machines_and_uplinks_are_not() {
    let map = map(&world(machine("-m 1")), &Wanted::All);
    let names: Vec<&str> = map.paths.iter().map(|path| path.name.as_str()).collect();
    assert_eq!(names, ["lan/web"]);
    assert_eq!(
        stages(&map.paths[0]),
        [
            "driver: no QEMU of this host",
            "switch workers: worker-1 on CPU 1, 9.5 %",
            "switch: port lan/web | network lan, VLAN 7",
            "rw-lan: nat network | not in this network namespace",
        ]
    );
}

#[test]
fn a_tap_of_a_network_without_a_machine_waits_for_one() {
    let mut world = world(machine("-m 1"));
    world.ports = vec![Known {
        name: "lan/kern".into(),
        tap: Some("tap0".into()),
        network: Some("lan".parse().unwrap()),
        ..Known::default()
    }];
    let mut kern = port("lan/kern", "tap", 0.0);
    kern.connected = false;
    world.rates.ports = vec![kern];
    let map = map(&world, &Wanted::All);
    assert_eq!(
        stages(&map.paths[0]),
        [
            "nobody: waits for a machine",
            "bridge br0: tap0 forwarding, 2 ports in all",
            "eth0: ",
        ]
    );
}

#[test]
fn a_switch_alone_shows_its_own_ports_and_the_tap_that_leads_out() {
    let mut alone = world(machine("-netdev user,id=n0"));
    alone.alone = true;
    alone.ports = vec![
        Known {
            name: "gen".into(),
            ..Known::default()
        },
        Known {
            name: "a".into(),
            socket: Some("/run/a.sock".into()),
            ..Known::default()
        },
        Known {
            name: "out".into(),
            tap: Some("tap0".into()),
            ..Known::default()
        },
    ];
    alone.rates.ports = vec![
        port("gen", "generator", 10.0),
        port("a", "vhost-user", 20.0),
        port("out", "tap", 30.0),
    ];
    let map = map(&alone, &Wanted::All);
    let all: Vec<Vec<String>> = map.paths.iter().map(stages).collect();
    let worker = "switch workers: worker-1 on CPU 1, 9.5 %";
    assert_eq!(
        all,
        [
            vec![
                "generator: makes frames",
                worker,
                "switch: port gen | 2 other ports"
            ],
            vec![
                "driver: no QEMU of this host",
                worker,
                "switch: port a | 2 other ports",
                "tap0: on bridge br0 | host 10.0.0.1/24",
            ],
            vec![
                "tap0: on bridge br0 | host 10.0.0.1/24",
                worker,
                "switch: port out",
            ],
        ]
    );
    for path in &map.paths {
        assert_eq!(path.arrows.len() + 1, path.stages.len());
    }
}
