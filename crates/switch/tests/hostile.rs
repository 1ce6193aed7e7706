//! A guest or a front-end that lies loses its own ring or its own session. Two others talk all the
//! while and lose nothing.

mod mock;

use std::os::fd::{AsFd, OwnedFd};
use std::time::Instant;

use mock::frames::{BROADCAST, frame, mac};
use mock::queue::{Queue, write};
use mock::{Guest, Lab, Options, PATIENCE, Shape, Talk, features};
use ringway_vhost::user::RingAddresses;
use ringway_vhost::user::frontend::{Frontend, FrontendError};
use ringway_vhost::user::message::RequestId;
use rustix::event::{EventfdFlags, eventfd};

/// Descriptor flags (virtio 1.2, 2.7.5).
const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;

const RECEIVE: usize = 0;
const TRANSMIT: usize = 1;

/// A switch with two guests that talk, and room for a third at port `m`.
struct Scene {
    lab: Lab,
    talk: Talk,
    _fronts: [Frontend; 2],
}

impl Scene {
    fn new() -> Self {
        // The liar is in a VLAN of its own with a witness, so that nothing of its reaches the others.
        let lab = Lab::confined(&["a", "b", "m,vlan=9", "w,vlan=9"]);
        let [a, b] = ["a", "b"].map(|name| lab.guest(name, Options::default()));
        let fronts = [a.front, b.front];
        let talk = Talk::start(a.nic, b.nic);
        Self {
            lab,
            talk,
            _fronts: fronts,
        }
    }

    /// The two others still talk.
    fn goes_on(&self) {
        let count = |n: usize, lab: &Lab| lab.statistics().ports[n].queues[0].tx_frames;
        let before = count(0, &self.lab);
        self.lab.until("the conversation to go on", |statistics| {
            statistics.ports[0].queues[0].tx_frames > before + 10
        });
    }

    fn end(self) {
        let (a, b, count) = self.talk.end();
        assert!(count >= 200);
        let statistics = self.lab.statistics();
        mock::agree(&statistics);
        for (nic, port) in [&a, &b].into_iter().zip(&statistics.ports) {
            assert_eq!(port.queues[0].rx_frames, nic.sent);
            assert_eq!(port.queues[0].tx_frames, nic.received);
            assert!(port.drops.is_empty(), "{:?}", port.drops);
        }
    }
}

/// Guests at `m` and `w` that know each other, and where a broken ring of the first is reported.
fn liar_and_witness(lab: &Lab) -> (Guest, Guest, OwnedFd) {
    liar_with(lab, 0)
}

/// The same with rings of this format.
fn liar_with(lab: &Lab, format: u64) -> (Guest, Guest, OwnedFd) {
    let error = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).unwrap();
    let options = Options {
        features: features::USUAL | format,
        ..Options::default()
    };
    let mut liar = lab.guest("m", options);
    let mut witness = lab.guest("w", Options::default());
    for ring in 0..2 {
        liar.front.set_vring_err(ring, Some(error.as_fd())).unwrap();
    }
    honest(&mut liar, &mut witness);
    (liar, witness, error)
}

/// A frame each way arrives.
fn honest(liar: &mut Guest, witness: &mut Guest) {
    liar.send(&frame(mac(3), BROADCAST, 60, 1));
    assert_eq!(witness.receive().frame, frame(mac(3), BROADCAST, 60, 1));
    witness.send(&frame(mac(4), mac(3), 60, 2));
    assert_eq!(liar.receive().frame, frame(mac(4), mac(3), 60, 2));
}

/// The back-end reports a broken ring.
fn reported(error: &OwnedFd) {
    let deadline = Instant::now() + PATIENCE;
    assert!(
        mock::sleep(&[error.as_fd()], deadline),
        "no ring was reported broken"
    );
    rustix::io::read(error, &mut [0; 8]).unwrap();
}

/// One way to lie, told by changing what the driver wrote in good faith.
type Lie = fn(&Queue, u16);

/// Changes the last descriptor that was added, the `head` of its chain. In a packed ring that is
/// its address only: the rest comes with the publication.
fn set_descriptor(queue: &Queue, head: u16, (address, len): (u64, u32), flags: u16, next: u16) {
    let layout = queue.layout();
    let index = if queue.is_packed() {
        (queue.added - 1) % u64::from(layout.size)
    } else {
        head.into()
    };
    let at = layout.descriptors + index * 16;
    write(&queue.memory, at, &address.to_le_bytes());
    if !queue.is_packed() {
        write(&queue.memory, at + 8, &len.to_le_bytes());
        write(&queue.memory, at + 12, &flags.to_le_bytes());
        write(&queue.memory, at + 14, &next.to_le_bytes());
    }
}

fn set_head(queue: &Queue, head: u16) {
    // Chains are added one at a time here, so the last entry is before the published index.
    let layout = queue.layout();
    let index = mock::queue::read(&queue.memory, layout.available + 2, 2);
    let index = u16::from_le_bytes([index[0], index[1]]) % layout.size;
    let at = layout.available + 4 + 2 * u64::from(index);
    write(&queue.memory, at, &head.to_le_bytes());
}

/// Flags that are right for the ring: device-writable in the receive ring.
fn right(queue: &Queue, head: u16) -> u16 {
    let at = queue.layout().descriptors + u64::from(head) * 16 + 12;
    let flags = mock::queue::read(&queue.memory, at, 2);
    u16::from_le_bytes([flags[0], flags[1]]) & WRITE
}

/// Those that are possible in a packed ring as they stand here.
const PACKED_LIES: std::ops::Range<usize> = 2..5;

const LIES: [(&str, Lie); 13] = [
    ("a head outside the ring", |queue, _| set_head(queue, 256)),
    ("the largest head", |queue, _| set_head(queue, u16::MAX)),
    ("bytes that are no memory", |queue, head| {
        set_descriptor(queue, head, (1 << 40, 100), right(queue, head), 0);
    }),
    ("bytes around the end of addresses", |queue, head| {
        set_descriptor(queue, head, (u64::MAX - 50, 100), right(queue, head), 0);
    }),
    (
        "bytes that begin in memory and end outside",
        |queue, head| {
            let info = queue.memory.regions().last().unwrap();
            let end = info.guest_address + info.size;
            set_descriptor(queue, head, (end - 50, 100), right(queue, head), 0);
        },
    ),
    ("the longest length", |queue, head| {
        set_descriptor(queue, head, (0, u32::MAX), right(queue, head), 0);
    }),
    ("a chain that bites its tail", |queue, head| {
        let flags = right(queue, head) | NEXT;
        set_descriptor(queue, head, (0, 1), flags, head);
    }),
    ("a next descriptor outside the ring", |queue, head| {
        let flags = right(queue, head) | NEXT;
        set_descriptor(queue, head, (0, 100), flags, 256);
    }),
    ("the wrong direction", |queue, head| {
        let flags = right(queue, head) ^ WRITE;
        set_descriptor(queue, head, (0, 100), flags, 0);
    }),
    ("a table of no whole descriptors", |queue, head| {
        set_descriptor(queue, head, (0, 17), INDIRECT, 0);
    }),
    ("a table as long as memory", |queue, head| {
        set_descriptor(queue, head, (0, 1 << 20), INDIRECT, 0);
    }),
    ("a table in a table", |queue, head| {
        let at = queue.layout().descriptors + u64::from(head) * 16;
        set_descriptor(queue, head, (at, 16), INDIRECT, 0);
    }),
    ("a table that goes on", |queue, head| {
        set_descriptor(queue, head, (0, 16), INDIRECT | NEXT, head);
    }),
];

/// Every lie with the format of ring it is told in.
fn lies() -> impl Iterator<Item = (u64, (&'static str, Lie))> {
    let packed = LIES[PACKED_LIES].iter().map(|&lie| (features::PACKED, lie));
    LIES.into_iter().map(|lie| (0, lie)).chain(packed)
}

#[test]
fn who_lies_in_a_ring_loses_that_ring_until_it_starts_again() {
    let scene = Scene::new();
    let lab = &scene.lab;
    for (format, (name, lie)) in lies() {
        let (mut liar, mut witness, error) = liar_with(lab, format);
        // What was sent in good faith before arrives.
        let before = frame(mac(3), mac(4), 60, 3);
        liar.stage(0, Default::default(), &before, &Shape::default());
        let queue = &mut liar.queues[TRANSMIT];
        queue.publish();
        let (head, _) = queue.add(&Shape::default(), 100, false).unwrap();
        lie(queue, head);
        queue.publish();
        queue.kick();
        reported(&error);
        assert_eq!(witness.receive().frame, before, "{name}");
        scene.goes_on();
        // The other ring and the session are as good as ever.
        witness.send(&frame(mac(4), mac(3), 60, 4));
        assert_eq!(liar.receive().frame, frame(mac(4), mac(3), 60, 4), "{name}");
        leave(lab, liar, witness);
    }
    scene.end();
}

#[test]
fn who_lies_about_receive_buffers_receives_no_more_until_it_starts_again() {
    let scene = Scene::new();
    let lab = &scene.lab;
    for (format, (name, lie)) in lies() {
        let (mut liar, mut witness, error) = liar_with(lab, format);
        // One frame more than there are true buffers.
        while liar.queues[RECEIVE].out() > 0 {
            witness.send(&frame(mac(4), mac(3), 60, 3));
            let rings = [RECEIVE];
            liar.wait("a frame", &rings, |liar| liar.take());
        }
        let queue = &mut liar.queues[RECEIVE];
        let (head, _) = queue.add(&Shape::default(), 2048, true).unwrap();
        lie(queue, head);
        queue.publish();
        witness.send(&frame(mac(4), mac(3), 60, 5));
        witness.drain();
        reported(&error);
        scene.goes_on();
        assert!(lab.port("m").drops["fault"] > 0, "{name}");
        liar.send(&frame(mac(3), mac(4), 60, 6));
        assert_eq!(
            witness.receive().frame,
            frame(mac(3), mac(4), 60, 6),
            "{name}"
        );
        leave(lab, liar, witness);
    }
    scene.end();
}

/// Both leave; whoever comes next is served.
fn leave(lab: &Lab, liar: Guest, witness: Guest) {
    drop((liar, witness));
    lab.until("the end of both sessions", |statistics| {
        statistics.ports[2..4].iter().all(|port| !port.connected)
    });
}

#[test]
fn buffers_of_no_bytes_hold_no_bytes() {
    let scene = Scene::new();
    let (mut liar, mut witness, _) = liar_and_witness(&scene.lab);
    while liar.queues[RECEIVE].out() > 0 {
        witness.send(&frame(mac(4), mac(3), 60, 3));
        liar.wait("a frame", &[RECEIVE], |liar| liar.take());
    }
    // Bytes for one frame, and then nothing for another.
    let queue = &mut liar.queues[RECEIVE];
    let (_, good) = queue.add(&Shape::default(), 2048, true).unwrap();
    for _ in 0..3 {
        queue
            .ring
            .add(&[], &[(good.pieces[0].0, 0)], false)
            .unwrap();
    }
    queue.publish();
    for number in 0..2 {
        let sent = frame(mac(4), mac(3), 1500, number);
        witness.stage(0, Default::default(), &sent, &Shape::default());
    }
    witness.queues[TRANSMIT].publish();
    witness.drain();
    let first = liar.take().unwrap();
    assert_eq!(first.frame, frame(mac(4), mac(3), 1500, 0));
    assert_eq!(scene.lab.port("m").drops["no_buffers"], 1);
    scene.goes_on();
    leave(&scene.lab, liar, witness);
    scene.end();
}

#[test]
fn an_available_index_that_jumps_breaks_the_ring() {
    let scene = Scene::new();
    let (mut liar, witness, error) = liar_and_witness(&scene.lab);
    liar.drain();
    let queue = &mut liar.queues[TRANSMIT];
    let layout = queue.layout();
    write(
        &queue.memory,
        layout.available + 2,
        &0x4000u16.to_le_bytes(),
    );
    queue.kick();
    reported(&error);
    scene.goes_on();
    leave(&scene.lab, liar, witness);
    scene.end();
}

#[test]
fn a_ring_that_was_broken_starts_again_in_the_same_session() {
    let scene = Scene::new();
    let (mut liar, mut witness, error) = liar_and_witness(&scene.lab);
    let queue = &mut liar.queues[TRANSMIT];
    let (head, _) = queue.add(&Shape::default(), 100, false).unwrap();
    set_descriptor(queue, head, (1 << 40, 100), 0, 0);
    queue.publish();
    queue.kick();
    reported(&error);
    // The driver is reset: new rings in the same memory.
    for ring in 0..2 {
        liar.stop_ring(ring);
    }
    let options = liar.options.clone();
    let fresh = mock::Nic::new(options);
    liar.nic = fresh;
    liar.nic.fill();
    let Guest { front, nic } = &mut liar;
    front.set_mem_table(&nic.regions).unwrap();
    for ring in 0..2 {
        liar.start_ring(ring);
    }
    honest(&mut liar, &mut witness);
    scene.goes_on();
    leave(&scene.lab, liar, witness);
    scene.end();
}

#[test]
fn memory_that_disappears_costs_its_port_alone() {
    let scene = Scene::new();
    // The regions hold the rings and what is sent, what is sent and received, what is received.
    for region in 0..3 {
        let (mut liar, mut witness, error) = liar_and_witness(&scene.lab);
        // Wherever the places of frames begin, these frames lie in the region or span its borders.
        let sent = frame(mac(3), mac(4), 60_000, 3);
        for _ in 0..8 {
            liar.stage(0, Default::default(), &sent, &Shape::default());
        }
        rustix::fs::ftruncate(&liar.regions[region].file, 0).unwrap();
        if region < 2 {
            liar.queues[TRANSMIT].publish();
            liar.queues[TRANSMIT].kick();
        } else {
            for number in 0..300 {
                witness.send(&frame(mac(4), mac(3), 1500, number));
            }
            witness.drain();
        }
        reported(&error);
        scene.goes_on();
        // Nothing half-read was delivered.
        while let Some(received) = witness.try_receive() {
            assert!(received.frame == sent);
        }
        leave(&scene.lab, liar, witness);
    }
    // The next front-end at that port brings memory of its own.
    let (liar, witness, _) = liar_and_witness(&scene.lab);
    leave(&scene.lab, liar, witness);
    scene.end();
}

#[test]
fn a_second_front_end_is_turned_away_and_the_first_one_stays() {
    let scene = Scene::new();
    let (mut liar, mut witness, _) = liar_and_witness(&scene.lab);
    for _ in 0..20 {
        let mut second = Frontend::connect(&scene.lab.path("m"), PATIENCE).unwrap();
        assert!(second.get_features().is_err());
    }
    honest(&mut liar, &mut witness);
    leave(&scene.lab, liar, witness);
    scene.end();
}

#[test]
fn nonsense_on_the_socket_ends_that_session_with_its_rings() {
    let scene = Scene::new();
    let header =
        |request: u32, flags: u32, size: u32| [request, flags, size].map(u32::to_le_bytes).concat();
    let nonsense = [
        vec![0xff; 64],
        header(1, 2, 0),
        header(5, 1, 1 << 30),
        header(8, 1, 3),
        [header(8, 1, 8), vec![0xff; 8]].concat(),
    ];
    for bytes in nonsense {
        let (mut liar, witness, _) = liar_and_witness(&scene.lab);
        let request = RequestId(0);
        liar.front.send_raw(request, &bytes, &[]).unwrap();
        assert!(liar.front.receive_raw(request).is_err(), "{bytes:?}");
        scene.goes_on();
        leave(&scene.lab, liar, witness);
    }
    scene.end();
}

#[test]
fn half_a_message_is_not_waited_for_for_ever() {
    let scene = Scene::new();
    let (mut liar, witness, _) = liar_and_witness(&scene.lab);
    let request = RequestId(1);
    liar.front.send_raw(request, &[1, 0, 0], &[]).unwrap();
    let start = Instant::now();
    assert!(liar.front.receive_raw(request).is_err());
    assert!(
        start.elapsed() < PATIENCE / 2,
        "the session ended by our patience, not theirs"
    );
    scene.goes_on();
    leave(&scene.lab, liar, witness);
    scene.end();
}

#[test]
fn rings_outside_of_memory_are_refused() {
    let scene = Scene::new();
    let (mut liar, mut witness, _) = liar_and_witness(&scene.lab);
    let layout = liar.queues[TRANSMIT].layout();
    let good = RingAddresses {
        descriptors: layout.descriptors,
        available: layout.available,
        used: layout.used,
        log: 0,
        logged: false,
    };
    let bad = [
        RingAddresses {
            descriptors: 1 << 40,
            ..good
        },
        RingAddresses {
            available: u64::MAX - 3,
            ..good
        },
        RingAddresses {
            used: good.used + 1,
            ..good
        },
        RingAddresses {
            descriptors: good.descriptors + 8,
            ..good
        },
    ];
    for bad in bad {
        let refused = liar.front.set_vring_addr(1, &bad);
        assert!(
            matches!(refused, Err(FrontendError::Refused { .. })),
            "{refused:?}"
        );
    }
    liar.front.set_vring_addr(1, &good).unwrap();
    honest(&mut liar, &mut witness);
    leave(&scene.lab, liar, witness);
    scene.end();
}

#[test]
fn eventfds_that_are_full_or_never_quiet_hold_nobody_up() {
    let scene = Scene::new();
    let (mut liar, mut witness, _) = liar_and_witness(&scene.lab);
    // A call that cannot be counted any further; the driver polls.
    for ring in 0..2 {
        let call = &liar.queues[ring].call;
        while rustix::io::write(call, &(u64::MAX - 1).to_ne_bytes()).is_err() {
            // It was called before.
            let _ = rustix::io::read(call, &mut [0; 8]);
        }
    }
    let noise = liar.queues[TRANSMIT].kick.try_clone().unwrap();
    for number in 0..2000 {
        rustix::io::write(&noise, &1u64.to_ne_bytes()).unwrap();
        witness.send(&frame(mac(4), mac(3), 60, number));
        witness.drain();
        assert_eq!(
            liar.try_receive().unwrap().frame,
            frame(mac(4), mac(3), 60, number)
        );
    }
    scene.goes_on();
    assert!(liar.options.features & features::EVENT != 0);
    leave(&scene.lab, liar, witness);
    scene.end();
}
