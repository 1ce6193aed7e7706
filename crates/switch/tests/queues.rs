//! Many queues and many guests at once, and what becomes of frames when buffers are short.

mod mock;

use std::collections::{HashMap, HashSet};
use std::net::Ipv4Addr;

use mock::frames::{BROADCAST, frame, mac, seed};
use mock::{Guest, Lab, Options, Shape, features};
use ringway_switch::Poll;
use ringway_wire::VnetHeader;
use ringway_wire::build::FrameBuilder;

/// The longest frame carried: 65,535 bytes of IP behind an Ethernet header with two VLAN tags.
const LONGEST: usize = 65_535 + 14 + 8;

/// The first guest learns of the others, and they of it.
fn introduce(guests: &mut [Guest]) {
    for n in 0..guests.len() {
        let from = mac(u8::try_from(n + 1).unwrap());
        guests[n].send(&frame(from, BROADCAST, 60, 0));
        for (k, guest) in guests.iter_mut().enumerate() {
            if k != n {
                guest.receive();
            }
        }
    }
}

fn pair(lab: &Lab, options: [Options; 2]) -> [Guest; 2] {
    let [first, second] = options;
    let mut guests = [lab.guest("a", first), lab.guest("b", second)];
    introduce(&mut guests);
    guests
}

#[test]
fn a_flow_stays_on_one_queue_and_flows_use_all_queues() {
    let lab = Lab::with(2, Poll::Adaptive, &["a,queues=4", "b,queues=4"]);
    let options = Options {
        pairs: 4,
        ..Options::default()
    };
    let [mut a, mut b] = pair(&lab, [options.clone(), options]);
    let (flows, rounds) = (64u16, 10u8);
    for round in 0..rounds {
        for flow in 0..flows {
            let packet = FrameBuilder::ipv4(Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2))
                .macs(mac(1), mac(2))
                .udp(1024 + flow, 5001)
                .build(&[round; 100]);
            let pair = usize::from(flow % 4);
            a.stage(pair, VnetHeader::default(), &packet, &Shape::default());
        }
        a.queues
            .iter_mut()
            .skip(1)
            .step_by(2)
            .for_each(|queue| queue.publish());
        let mut places: HashMap<u16, usize> = HashMap::new();
        for received in b.receive_all(flows.into()) {
            assert_eq!(received.frame.len(), 142);
            assert_eq!(received.frame[141], round);
            let port = u16::from_be_bytes([received.frame[34], received.frame[35]]);
            assert_eq!(places.insert(port, received.pair), None);
        }
        let used: HashSet<_> = places.values().collect();
        assert_eq!(used.len(), 4, "{places:?}");
        lab.settled(2 + u64::from(flows) * (u64::from(round) + 1));
    }
    let statistics = lab.statistics();
    let [from, to] = [0, 1].map(|n| &statistics.ports[n].queues);
    assert!(from.iter().all(|queue| queue.rx_frames >= 160), "{from:?}");
    assert!(to.iter().all(|queue| queue.tx_frames > 0), "{to:?}");
    let frames: u64 = to.iter().map(|queue| queue.tx_frames).sum();
    assert_eq!(frames, b.received);
}

#[test]
fn an_answer_goes_to_the_queue_that_asked() {
    let lab = Lab::with(1, Poll::Adaptive, &["a,queues=4", "b,queues=4"]);
    let options = Options {
        pairs: 4,
        ..Options::default()
    };
    let [mut a, mut b] = pair(&lab, [options.clone(), options]);
    let ends = [Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2)];
    let send = |guest: &mut Guest, pair: usize, way: [usize; 2], ports: [u16; 2]| {
        let packet = FrameBuilder::ipv4(ends[way[0]], ends[way[1]])
            .macs([mac(1), mac(2)][way[0]], [mac(1), mac(2)][way[1]])
            .udp(ports[0], ports[1])
            .build(&[0; 20]);
        guest.stage(pair, VnetHeader::default(), &packet, &Shape::default());
        guest.queues[2 * pair + 1].publish();
    };
    let mut frames = 2;
    for (flow, asks) in (1000..).zip([3, 1, 0, 2, 1]) {
        // The first one goes to the queue with the number of the sender's: nobody knows better.
        send(&mut a, asks, [0, 1], [flow, 53]);
        assert_eq!(b.receive().pair, asks);
        // The answer is given by another processor.
        let answers = (asks + 1) % 4;
        send(&mut b, answers, [1, 0], [53, flow]);
        assert_eq!(a.receive().pair, asks);
        send(&mut a, asks, [0, 1], [flow, 53]);
        assert_eq!(b.receive().pair, answers);
        // Who asked moves to another processor, and the answers with it.
        let moved = (asks + 2) % 4;
        send(&mut a, moved, [0, 1], [flow, 53]);
        assert_eq!(b.receive().pair, answers);
        send(&mut b, answers, [1, 0], [53, flow]);
        assert_eq!(a.receive().pair, moved);
        frames += 5;
        lab.settled(frames);
    }
}

#[test]
fn everybody_talks_to_everybody_and_nothing_is_unaccounted_for() {
    const GUESTS: u8 = 6;
    const FRAMES: u64 = 1500;
    for workers in 1..=2 {
        let names: Vec<_> = (1..=GUESTS).map(|n| format!("g{n}")).collect();
        let ports: Vec<_> = names.iter().map(String::as_str).collect();
        let lab = Lab::with(workers, Poll::Adaptive, &ports);
        let mut guests: Vec<_> = ports
            .iter()
            .map(|name| lab.guest(name, Options::default()))
            .collect();
        introduce(&mut guests);
        let threads = (1..=GUESTS).zip(guests).map(|(n, mut guest)| {
            std::thread::spawn(move || {
                let mut orders = HashMap::new();
                for number in 0..FRAMES {
                    let step = 1 + u8::try_from(number % u64::from(GUESTS - 1)).unwrap();
                    let to = mac((n - 1 + step) % GUESTS + 1);
                    let len = 60 + usize::try_from(number * 7 % 1400).unwrap();
                    guest.send(&frame(mac(n), to, len, number));
                    take_in_order(&mut guest, &mut orders);
                }
                guest.drain();
                (guest, orders)
            })
        });
        let threads: Vec<_> = threads.collect();
        let guests = threads.into_iter().map(|thread| thread.join().unwrap());
        let mut guests: Vec<_> = guests.collect();
        let hellos = u64::from(GUESTS) * u64::from(GUESTS - 1);
        let statistics = lab.settled(hellos + u64::from(GUESTS) * FRAMES);
        for ((guest, orders), port) in guests.iter_mut().zip(&statistics.ports) {
            take_in_order(guest, orders);
            assert_eq!(port.queues[0].rx_frames, guest.sent);
            assert_eq!(port.queues[0].tx_frames, guest.received);
            assert_eq!(port.queues[0].tx_bytes, guest.received_bytes);
            assert!(port.drops.keys().all(|reason| reason == "no_buffers"));
        }
        let received: u64 = guests.iter().map(|(guest, _)| guest.received).sum();
        assert_eq!(statistics.delivered, received);
        let bytes: u64 = guests.iter().map(|(guest, _)| guest.received_bytes).sum();
        assert_eq!(statistics.copied_bytes, bytes);
    }
}

/// Takes what is there; between two guests numbers rise.
fn take_in_order(guest: &mut Guest, orders: &mut HashMap<Vec<u8>, u64>) {
    while let Some(received) = guest.try_receive() {
        let number = seed(&received.frame);
        let before = orders.insert(received.frame[6..12].to_vec(), number);
        assert!(
            before.is_none_or(|before| before < number),
            "{before:?} {number}"
        );
    }
}

#[test]
fn without_buffers_whole_frames_are_dropped_and_later_ones_arrive() {
    let lab = Lab::start(&["a", "b"]);
    let small = Options {
        buffer: 512,
        buffers: 8,
        ..Options::default()
    };
    let [mut a, mut b] = pair(&lab, [Options::default(), small]);
    // Five buffers, then five that are not there, then three.
    let frames = [2500, 2501, 1500].map(|len| frame(mac(1), mac(2), len, 7));
    for frame in &frames {
        a.stage(0, VnetHeader::default(), frame, &Shape::default());
    }
    a.queues[1].publish();
    a.drain();
    assert_eq!(
        b.buffers(),
        8,
        "taken ones are not given back before they are filled"
    );
    for (frame, buffers) in [(&frames[0], 5), (&frames[2], 3)] {
        let received = b.take().unwrap();
        assert!(received.frame == *frame);
        assert_eq!(received.buffers, buffers);
    }
    assert!(b.take().is_none());
    a.send(&frames[2]);
    a.drain();
    assert_eq!(b.take(), None, "no buffer is left");
    b.fill();
    a.send(&frames[1]);
    assert!(b.receive().frame == frames[1]);
    let statistics = lab.settled(2 + 5);
    assert_eq!(statistics.ports[1].drops["no_buffers"], 2);
    assert_eq!(statistics.dropped, 2);
}

#[test]
fn a_frame_that_fits_no_single_buffer_needs_a_guest_that_merges() {
    let lab = Lab::start(&["a", "b"]);
    let whole = Options {
        features: features::BASE,
        buffer: 1526,
        ..Options::default()
    };
    let [mut a, mut b] = pair(&lab, [Options::default(), whole]);
    let frames = [1514, 1515, 60].map(|len| frame(mac(1), mac(2), len, 1));
    frames.iter().for_each(|frame| a.send(frame));
    for frame in [&frames[0], &frames[2]] {
        assert!(b.receive().frame == *frame);
    }
    let statistics = lab.settled(2 + 3);
    assert_eq!(statistics.ports[1].drops["buffer_too_small"], 1);
}

#[test]
fn frames_of_every_length_up_to_the_longest_are_carried() {
    let lab = Lab::start(&["a", "b"]);
    let [mut a, mut b] = pair(&lab, [Options::default(), Options::default()]);
    let lengths = [14, 15, 59, 127, 128, 129, 9014, 65_535, 65_549, LONGEST];
    for len in lengths {
        let sent = frame(mac(1), mac(2), len, 3);
        a.send(&sent);
        assert!(b.receive().frame == sent, "{len}");
    }
    a.send(&frame(mac(1), mac(2), LONGEST + 1, 3));
    a.send(&frame(mac(1), mac(2), 14, 3)[..13]);
    a.drain();
    let statistics = lab.settled(2 + 10 + 2);
    let drops = &statistics.ports[0].drops;
    assert_eq!((drops["too_long"], drops["too_short"]), (1, 1));
    assert_eq!(b.try_receive(), None);
}
