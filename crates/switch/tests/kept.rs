//! Transmit buffers that the switch keeps back for a moment, where the driver polls.

mod mock;

use mock::frames::{BROADCAST, frame, mac};
use mock::{Guest, Lab, Options, Shape, features};
use ringway_switch::Poll;
use ringway_vhost::user::features::{VIRTIO_RING_F_EVENT_IDX, mask};
use ringway_wire::VnetHeader;

const FRAMES: u64 = 40;

/// Sends frames as a driver that polls and sees them arrive.
fn send(a: &mut Guest, b: &mut Guest) {
    a.queues[1].ring.disable_calls();
    for number in 0..FRAMES {
        let sent = frame(mac(1), BROADCAST, 60, number);
        a.stage(0, VnetHeader::default(), &sent, &Shape::default());
    }
    a.queues[1].publish();
    b.receive_all(usize::try_from(FRAMES).unwrap());
}

fn lab(poll: Poll) -> (Lab, Guest, Guest) {
    let lab = Lab::with(1, poll, &["a", "b"]);
    let options = Options {
        features: features::USUAL & !mask(&[VIRTIO_RING_F_EVENT_IDX]),
        ..Options::default()
    };
    let a = lab.guest("a", options);
    let b = lab.guest("b", Options::default());
    (lab, a, b)
}

#[test]
fn all_buffers_come_back_when_nothing_follows() {
    for poll in [Poll::Adaptive, Poll::Always, Poll::Never] {
        let (_lab, mut a, mut b) = lab(poll);
        for _ in 0..20 {
            send(&mut a, &mut b);
            // Asks for calls and sleeps until one comes.
            a.drain();
        }
    }
}

#[test]
fn a_ring_that_stops_or_is_left_counts_every_frame_that_was_delivered() {
    for poll in [Poll::Adaptive, Poll::Always] {
        let (lab, mut a, mut b) = lab(poll);
        for _ in 0..20 {
            send(&mut a, &mut b);
            let stood = a.stop_ring(1);
            a.drain();
            assert_eq!(stood, a.queues[1].ring.base().to_vhost());
            a.start_ring(1);
        }
        send(&mut a, &mut b);
        let Guest { front, mut nic } = a;
        drop(front);
        nic.drain();
        lab.settled(21 * FRAMES);
        assert_eq!(b.received, 21 * FRAMES);
    }
}
