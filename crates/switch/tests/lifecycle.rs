//! Rings stop and start, memory comes and goes, front-ends leave and come back, all in the middle of
//! traffic: nothing is lost or repeated that was not in flight, and what is lost is counted.

mod mock;

use std::os::unix::net::UnixListener;

use mock::frames::{BROADCAST, frame, mac};
use mock::{Guest, Lab, Nic, Options, PATIENCE, Setup, Shape, Stream, Talk, features};
use ringway_mem::{GuestMemory, RegionRequest};
use ringway_vhost::user::frontend::Frontend;
use ringway_wire::VnetHeader;

const RECEIVE: usize = 0;
const TRANSMIT: usize = 1;

/// Split rings and packed ones.
const FORMATS: [u64; 2] = [0, features::PACKED];

fn options(format: u64) -> Options {
    Options {
        features: features::USUAL | format,
        ..Options::default()
    }
}

/// Two guests, the first of which sends to the second, and their front-ends.
struct Scene {
    lab: Lab,
    stream: Stream,
    fronts: [Frontend; 2],
    setups: [Setup; 2],
}

impl Scene {
    fn new(format: u64) -> Self {
        let lab = Lab::start(&["a,storm=off", "b,storm=off"]);
        let [a, b] = ["a", "b"].map(|name| lab.guest(name, options(format)));
        let setups = [&a.nic, &b.nic].map(Setup::of);
        Self {
            stream: Stream::start(a.nic, b.nic),
            lab,
            fronts: [a.front, b.front],
            setups,
        }
    }

    /// Frames still arrive.
    fn goes_on(&self) {
        let before = self.lab.port("b").queues[0].tx_frames;
        self.lab.until("the stream to go on", |statistics| {
            statistics.ports[1].queues[0].tx_frames > before + 10
        });
    }

    /// Ends the stream and accounts for every frame. Frames may have been lost for these reasons, at
    /// either port, and because there were no buffers.
    fn end(self, reasons: &[&str]) -> (Nic, Nic) {
        let Self {
            lab,
            stream,
            fronts: _fronts,
            ..
        } = self;
        let (a, b) = stream.end();
        let statistics = lab.settled(a.sent + b.sent);
        assert_eq!(statistics.delivered, a.received + b.received);
        assert_eq!(statistics.copied_bytes, a.received_bytes + b.received_bytes);
        let [of_a, of_b] = [0, 1].map(|n| &statistics.ports[n]);
        let discarded = of_a.drops.get("ring_disabled").copied().unwrap_or(0);
        assert_eq!(of_a.queues[0].rx_frames + discarded, a.sent);
        assert_eq!(of_b.queues[0].tx_frames, b.received);
        assert_eq!(of_b.queues[0].tx_bytes, b.received_bytes);
        let drops = of_a.drops.iter().chain(&of_b.drops);
        for (reason, count) in drops {
            let known = reasons.contains(&reason.as_str()) || reason == "no_buffers";
            assert!(known, "{count} {reason}");
        }
        assert!(b.received > 10);
        (a, b)
    }
}

/// Why frames are lost while the receiver is not there.
const AWAY: [&str; 2] = ["not_connected", "no_destination"];

#[test]
fn rings_that_stop_and_start_lose_and_repeat_nothing() {
    for format in FORMATS {
        let mut scene = Scene::new(format);
        for round in 0..120 {
            let (guest, ring) = (round / 2 % 2, round % 2);
            scene.setups[guest].rings[ring].restart(&mut scene.fronts[guest]);
            if round % 20 == 0 {
                scene.goes_on();
            }
        }
        scene.goes_on();
        scene.end(&AWAY);
    }
}

#[test]
fn a_sender_whose_ring_stops_and_starts_loses_nothing_at_all() {
    for format in FORMATS {
        let mut scene = Scene::new(format);
        for _ in 0..120 {
            scene.setups[0].rings[TRANSMIT].restart(&mut scene.fronts[0]);
        }
        scene.goes_on();
        scene.end(&[]);
    }
}

#[test]
fn devices_that_are_reset_by_their_status_go_on_where_they_stood() {
    for format in FORMATS {
        let mut scene = Scene::new(format);
        for round in 0..60 {
            let (front, setup) = (&mut scene.fronts[round % 2], &scene.setups[round % 2]);
            front.set_status(0).unwrap();
            // After it, as one front-end does, the rings are asked where they stand.
            for ring in &setup.rings {
                ring.restart(front);
            }
            front.set_status(0xf).unwrap();
        }
        scene.goes_on();
        scene.end(&AWAY);
    }
}

#[test]
fn a_disabled_receive_ring_takes_nothing_and_a_disabled_transmit_ring_is_emptied() {
    for format in FORMATS {
        let mut scene = Scene::new(format);
        for round in 0..60 {
            let (guest, ring) = if round % 2 == 0 { (0, 1) } else { (1, 0) };
            scene.fronts[guest].set_vring_enable(ring, false).unwrap();
            scene.fronts[guest].set_vring_enable(ring, true).unwrap();
        }
        scene.goes_on();
        scene.end(&["not_connected", "no_destination", "ring_disabled"]);
    }
}

#[test]
fn memory_comes_and_goes_under_traffic() {
    for format in FORMATS {
        let mut scene = Scene::new(format);
        for round in 0..90u64 {
            let guest = usize::from(round % 2 == 0);
            let (front, setup) = (&mut scene.fronts[guest], &scene.setups[guest]);
            if round % 3 == 0 {
                front.set_mem_table(&setup.regions).unwrap();
            } else {
                let place = (1 << 36) + (round << 20);
                let (_, mut added) = GuestMemory::memfd(&[(place, 64 << 10)]).unwrap();
                let added: RegionRequest = added.remove(0);
                front.add_mem_reg(&added).unwrap();
                if round % 3 == 1 {
                    front.rem_mem_reg(&added).unwrap();
                }
            }
        }
        scene.goes_on();
        scene.end(&AWAY);
    }
}

#[test]
fn front_ends_leave_and_come_back_in_the_middle() {
    let mut scene = Scene::new(0);
    for round in 0..40 {
        let guest = round % 2;
        let path = scene.lab.path(["a", "b"][guest]);
        // The old connection is closed first; the switch may learn of it with the next one.
        let (gone, _) = std::os::unix::net::UnixStream::pair().unwrap();
        scene.fronts[guest] = Frontend::new(gone.into(), PATIENCE).unwrap();
        let mut front = Frontend::connect(&path, PATIENCE).unwrap();
        scene.setups[guest].apply(&mut front);
        scene.fronts[guest] = front;
        if round % 8 < 2 {
            scene.goes_on();
        }
    }
    scene.goes_on();
    scene.end(&AWAY);
}

#[test]
fn a_front_end_that_knows_where_its_packed_rings_stand_goes_on_there() {
    let lab = Lab::start(&["a", "b"]);
    let [mut a, mut b] = ["a", "b"].map(|name| lab.guest(name, options(features::PACKED)));
    let mut number = 0;
    for round in 0..10 {
        for _ in 0..50 {
            number += 1;
            a.send(&frame(mac(1), mac(2), 100, number));
            assert_eq!(b.receive().frame, frame(mac(1), mac(2), 100, number));
        }
        let (guest, name) = if round % 2 == 0 {
            (&mut a, "a")
        } else {
            (&mut b, "b")
        };
        guest.drain();
        let (gone, _) = std::os::unix::net::UnixStream::pair().unwrap();
        guest.front = Frontend::new(gone.into(), PATIENCE).unwrap();
        lab.until("the end of the session", |statistics| {
            !statistics.ports[round % 2].connected
        });
        // Sent while nobody is there.
        number += 1;
        let waiting = frame(mac(1), mac(2), 100, number);
        if round % 2 == 0 {
            guest.send(&waiting);
        }
        guest.front = Frontend::connect(&lab.path(name), PATIENCE).unwrap();
        guest.set_up();
        if round % 2 == 0 {
            assert_eq!(b.receive().frame, waiting);
        }
    }
    assert_eq!(lab.settled(number - 5).dropped, 0);
}

#[test]
fn a_front_end_may_leave_after_any_message() {
    let lab = Lab::start(&["a", "b", "m,vlan=9"]);
    let [a, b] = ["a", "b"].map(|name| lab.guest(name, Options::default()));
    let talk = Talk::start(a.nic, b.nic);
    let mut nic = Nic::new(Options::default());
    nic.fill();
    let setup = Setup::of(&nic);
    let steps = setup.steps();
    for count in 0..=steps.len() {
        let mut front = Frontend::connect(&lab.path("m"), PATIENCE).unwrap();
        steps[..count].iter().for_each(|step| step(&mut front));
        if count % 2 == 0 {
            nic.stage(
                0,
                VnetHeader::default(),
                &frame(mac(3), BROADCAST, 60, 0),
                &Shape::default(),
            );
            nic.queues[TRANSMIT].publish();
        }
        drop(front);
        nic.reclaim();
    }
    let mut last = Frontend::connect(&lab.path("m"), PATIENCE).unwrap();
    setup.apply(&mut last);
    nic.drain();
    let (.., count) = talk.end();
    assert!(count >= 200);
    let statistics = lab.statistics();
    assert_eq!(statistics.ports[2].queues[0].rx_frames, nic.sent);
    assert!(
        statistics.ports[..2]
            .iter()
            .all(|port| port.drops.is_empty())
    );
}

#[test]
fn what_a_driver_adds_while_its_ring_is_stopped_waits() {
    for format in FORMATS {
        let lab = Lab::start(&["a", "b"]);
        let [mut a, mut b] = ["a", "b"].map(|name| lab.guest(name, options(format)));
        b.send(&frame(mac(2), BROADCAST, 60, 0));
        a.receive();
        let mut number = 0;
        for _ in 0..20 {
            let base = a.stop_ring(TRANSMIT);
            // The driver has taken back all that the device says it is done with.
            a.reclaim();
            assert_eq!(base, a.queues[TRANSMIT].ring.base().to_vhost());
            assert_eq!(a.queues[TRANSMIT].out(), 0);
            for _ in 0..10 {
                number += 1;
                a.send(&frame(mac(1), mac(2), 100, number));
            }
            assert_eq!(b.try_receive(), None);
            a.start_ring(TRANSMIT);
            for (received, number) in b.receive_all(10).iter().zip(number - 9..) {
                assert_eq!(received.frame, frame(mac(1), mac(2), 100, number));
            }
            a.drain();
        }
        // The same for buffers: those that were there when the ring stopped are used in order later.
        let before = b.buffers();
        let base = b.stop_ring(RECEIVE);
        assert_eq!(base, b.queues[RECEIVE].ring.base().to_vhost());
        a.send(&frame(mac(1), mac(2), 100, 1));
        a.drain();
        b.start_ring(RECEIVE);
        assert_eq!((b.try_receive(), b.buffers()), (None, before));
        a.send(&frame(mac(1), mac(2), 100, 2));
        assert_eq!(b.receive().frame, frame(mac(1), mac(2), 100, 2));
        assert_eq!(lab.settled(1 + 200 + 2).dropped, 1);
    }
}

#[test]
fn a_port_in_client_mode_connects_and_connects_again() {
    // Also from its sandbox, where the socket is there only after the switch.
    let lab = Lab::confined(&["b", "vhost-user,path=DIR/qemu.sock,mode=client,name=a"]);
    let path = lab.path("qemu.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let mut b = lab.guest("b", Options::default());
    for round in 0..3 {
        let (connection, _) = listener.accept().unwrap();
        let front = Frontend::new(connection.into(), PATIENCE).unwrap();
        let mut a = Guest::over(front, Options::default());
        a.send(&frame(mac(1), BROADCAST, 60, round));
        assert_eq!(b.receive().frame, frame(mac(1), BROADCAST, 60, round));
        b.send(&frame(mac(2), mac(1), 60, round));
        assert_eq!(a.receive().frame, frame(mac(2), mac(1), 60, round));
    }
    drop(listener);
    std::fs::remove_file(path).unwrap();
}
