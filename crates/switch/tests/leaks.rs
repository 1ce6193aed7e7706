//! Ports and front-ends come and go a thousand times while two guests talk: neither frames nor
//! descriptors nor memory are lost. It counts what the process holds, so it is a process of its own.

mod mock;

use mock::frames::{BROADCAST, frame, mac};
use mock::{Guest, Lab, Options, Talk, features};
use ringway_api::control::{Passed, PortChange, Setting};

/// What the process holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Holdings {
    descriptors: usize,
    mappings: usize,
    threads: usize,
}

fn holdings(lab: &Lab) -> Holdings {
    // What was closed before is seen by the switch no later than the second request.
    lab.statistics();
    lab.statistics();
    let count = |folder: &str| std::fs::read_dir(folder).unwrap().count();
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    // Guests' memory, of which each region is one mapping. What the allocator maps comes and goes.
    let mappings = maps.lines().filter(|line| line.contains("/memfd:"));
    Holdings {
        descriptors: count("/proc/self/fd"),
        mappings: mappings.count(),
        threads: count("/proc/self/task"),
    }
}

/// Bytes of memory that is the process's own.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"));
    let kib = line.unwrap().trim().trim_end_matches(" kB");
    kib.parse::<usize>().unwrap() << 10
}

/// Rings of either format.
fn options(round: usize) -> Options {
    let format = [0, features::PACKED][round / 2 % 2];
    Options {
        features: features::USUAL | format,
        ..Options::default()
    }
}

/// One port's life. All of it happens in a VLAN of its own.
fn live(lab: &Lab, round: usize) {
    let texts = [
        "guest,vlan=99",
        "pcap,path=DIR/all.pcapng,vlan=99",
        "sink,vlan=99",
        "generator,pps=1000,vlan=99",
    ];
    let mut client = lab.client();
    let spec = lab.spec(
        texts[if round.is_multiple_of(8) {
            round / 8 % 4
        } else {
            0
        }],
    );
    let name = client.add_port(spec, Passed::Nothing, Vec::new()).unwrap();
    let guest = (name == "guest" && round % 4 != 3).then(|| {
        let mut guest = lab.guest(&name, options(round));
        guest.send(&frame(mac(9), BROADCAST, 60, 0));
        guest
    });
    let change = PortChange {
        vlan: Setting::Set(98),
        isolated: Some(true),
        rate: Setting::Set("1M".parse().unwrap()),
        ..PortChange::default()
    };
    client.change_port(&name, change).unwrap();
    let hold = guest.filter(|_| round.is_multiple_of(2));
    client.remove_port(&name).unwrap();
    if let Some(mut guest) = hold {
        assert!(guest.front.get_features().is_err(), "its session has ended");
    }
}

/// A front-end goes and comes again: orderly, in the middle of traffic, in the middle of a message.
fn visit(lab: &Lab, round: usize) {
    let mut guest = lab.guest("visitor", options(round));
    guest.send(&frame(mac(8), BROADCAST, 60, 0));
    match round % 3 {
        0 => {
            for ring in 0..2 {
                guest.stop_ring(ring);
            }
        }
        1 => guest.drain(),
        _ => {
            let request = ringway_vhost::user::message::RequestId(1);
            guest.front.send_raw(request, &[1, 0, 0], &[]).unwrap();
        }
    }
    drop(guest);
    lab.until("the end of the session", |statistics| {
        let port = statistics.ports.iter().find(|port| port.name == "visitor");
        !port.unwrap().connected
    });
}

#[test]
fn a_thousand_ports_come_and_go_under_traffic_and_leave_nothing() {
    let lab = Lab::start(&["a", "b", "visitor,vlan=97"]);
    let [a, b] = ["a", "b"].map(|name| lab.guest(name, options(0)));
    let Guest {
        front: front_a,
        nic: a,
    } = a;
    let Guest {
        front: front_b,
        nic: b,
    } = b;
    let talk = Talk::start(a, b);
    let round = |n| {
        live(&lab, n);
        if n.is_multiple_of(4) {
            visit(&lab, n / 4);
        }
    };
    // Freed memory is not given back at once, so the least of many rounds is what counts, and the
    // allocator may keep the 8 MiB of one capture. What one front-end's rings take, left behind each
    // time, would be 24 MiB.
    let least = |rounds: std::ops::Range<usize>| {
        let residents = rounds.map(|n| {
            round(n);
            resident()
        });
        residents.min().unwrap()
    };
    (0..100).for_each(round);
    let memory = least(100..200);
    let before = holdings(&lab);
    (200..1000).for_each(round);
    let grown = least(1000..1200).saturating_sub(memory);
    assert_eq!(holdings(&lab), before);
    assert!(grown < 12 << 20, "{grown} bytes");

    let (a, b, count) = talk.end();
    assert!(count > 1000, "{count}");
    let statistics = lab.statistics();
    mock::agree(&statistics);
    for (nic, port) in [&a, &b].into_iter().zip(&statistics.ports) {
        assert_eq!(
            (port.queues[0].rx_frames, port.queues[0].tx_frames),
            (nic.sent, nic.received)
        );
        assert_eq!(port.queues[0].tx_bytes, nic.received_bytes);
        assert!(port.drops.is_empty(), "{:?}", port.drops);
    }
    assert_eq!(statistics.ports.len(), 3);
    drop((front_a, front_b));
}
