//! A kick that the driver owed and never sent.

mod mock;

use mock::frames::{BROADCAST, frame, mac};
use mock::{Lab, Options, Shape};
use ringway_switch::Poll;
use ringway_wire::VnetHeader;

#[test]
fn a_kick_that_never_came_is_counted_and_its_frame_delivered() {
    let lab = Lab::with(1, Poll::Adaptive, &["a", "b"]);
    let mut a = lab.guest("a", Options::default());
    let mut b = lab.guest("b", Options::default());
    // No kick is owed while the worker polls, and one that it asks for may be overtaken by its last look.
    let mut frames = 0;
    let missed = (0..10_000).any(|_| {
        let sent = frame(mac(1), BROADCAST, 60, frames);
        a.stage(0, VnetHeader::default(), &sent, &Shape::default());
        frames += 1;
        let owed = a.queues[1].ring.publish();
        assert_eq!(b.receive().frame, sent);
        owed && lab.statistics().ports[0].queues[0].missed_kicks > 0
    });
    assert!(missed, "the worker never slept");
    let statistics = lab.settled(frames);
    assert_eq!(statistics.ports[1].queues[0].tx_frames, frames);
}
