//! What the switch writes to a guest is marked in the log that its front-end shares: every page that
//! changed, and none that was not written.

mod mock;

use std::os::fd::AsFd;

use mock::frames::{BROADCAST, frame, mac};
use mock::{Guest, Lab, Options, Received, Shape, features, queue};
use ringway_mem::{GuestMemory, RegionRequest};
use ringway_vhost::user::RingAddresses;
use ringway_vhost::user::features::{VHOST_F_LOG_ALL, mask};
use ringway_wire::VnetHeader;

const PAGE: u64 = 4096;
const LOG_ALL: u64 = mask(&[VHOST_F_LOG_ALL]);
/// Frames per direction of one round.
const FRAMES: u64 = 40;

/// A front-end's dirty log.
struct Log {
    bytes: GuestMemory,
    region: RegionRequest,
}

impl Log {
    fn new() -> Self {
        // A bit for each page of 4 GiB.
        let (bytes, mut regions) = GuestMemory::memfd(&[(0, 0x2_0000)]).unwrap();
        let region = regions.remove(0);
        Self { bytes, region }
    }

    fn give_to(&self, guest: &mut Guest) {
        let file = self.region.file.as_fd();
        let size = self.region.size;
        guest.front.set_log_base(file, size, 0).unwrap();
    }

    /// Takes all marks away.
    fn reset(&self) {
        queue::write(&self.bytes, 0, &[0; 0x2_0000]);
    }

    /// Pages that are marked.
    fn pages(&self) -> Vec<u64> {
        let bytes = queue::read(&self.bytes, 0, 0x2_0000);
        let marked = (0..bytes.len() * 8).filter(|page| bytes[page / 8] & 1 << (page % 8) != 0);
        marked.map(|page| page as u64).collect()
    }
}

/// Switches logging, as QEMU does: the features, then each ring's addresses.
fn switch(guest: &mut Guest, on: bool) {
    let features = guest.options.features | if on { LOG_ALL } else { 0 };
    guest.front.set_features(features).unwrap();
    for ring in 0..guest.queues.len() {
        let layout = guest.queues[ring].layout();
        let addresses = RingAddresses {
            descriptors: layout.descriptors,
            available: layout.available,
            used: layout.used,
            log: layout.used,
            logged: on,
        };
        let index = u32::try_from(ring).unwrap();
        guest.front.set_vring_addr(index, &addresses).unwrap();
    }
}

/// A guest's memory.
fn snapshot(guest: &Guest) -> Vec<u8> {
    let end = guest.regions.last().unwrap();
    let end = end.guest_address + end.size;
    queue::read(&guest.memory, 0, usize::try_from(end).unwrap())
}

/// Pages on which two states of a guest's memory differ.
fn changed(before: &[u8], after: &[u8]) -> Vec<u64> {
    let page = usize::try_from(PAGE).unwrap();
    let pages = before.chunks(page).zip(after.chunks(page)).zip(0..);
    let changed = pages.filter(|((before, after), _)| before != after);
    changed.map(|(_, page)| page).collect()
}

fn length(number: u64, longest: u64) -> usize {
    usize::try_from(60 + number * 397 % (longest - 60)).unwrap()
}

/// Frames both ways, while the driver of `b` does nothing but show what it sends. Returns the state of
/// its memory before and after, its rings being stopped in the end.
fn exchange(lab: &Lab, a: &mut Guest, b: &mut Guest, longest: u64) -> [Vec<u8>; 2] {
    let before_all = lab.statistics().attempted;
    for number in 0..FRAMES {
        let sent = frame(mac(2), BROADCAST, length(number, longest), number);
        b.stage(0, VnetHeader::default(), &sent, &Shape::default());
    }
    let before = snapshot(b);
    b.queues[1].publish();
    for number in 0..FRAMES {
        a.send(&frame(mac(1), BROADCAST, length(number, longest), number));
    }
    let statistics = lab.settled(before_all + 2 * FRAMES);
    assert_eq!(statistics.dropped, 0);
    for ring in 0..2 {
        b.stop_ring(ring);
    }
    let after = snapshot(b);
    a.receive_all(usize::try_from(FRAMES).unwrap());
    a.drain();
    [before, after]
}

/// Takes in what came, and starts the rings again.
fn resume(b: &mut Guest) -> Vec<Received> {
    let received: Vec<_> = std::iter::from_fn(|| b.take()).collect();
    b.drain();
    b.fill();
    for ring in 0..2 {
        b.start_ring(ring);
    }
    received
}

/// Pages that the device may write: what the driver shows when it publishes lies on the same ones.
fn allowed(guest: &Guest) -> impl Fn(u64) -> bool + use<> {
    let [receive, transmit] = [0, 1].map(|ring| guest.queues[ring].layout());
    let packed = guest.queues[0].is_packed();
    let rings: Vec<_> = [receive, transmit]
        .iter()
        .flat_map(|layout| {
            let size = u64::from(layout.size);
            if packed {
                vec![(layout.descriptors, 16 * size), (layout.used, 4)]
            } else {
                vec![(layout.used, 6 + 8 * size)]
            }
        })
        .collect();
    let buffers = guest.queues[0].room();
    move |page| {
        let mut runs = rings.iter().chain([&buffers]);
        runs.any(|&(start, len)| (start / PAGE..=(start + len - 1) / PAGE).contains(&page))
    }
}

fn every_changed_page_is_marked(options: Options, longest: u64) {
    let lab = Lab::start(&["a", "b"]);
    let mut a = lab.guest("a", Options::default());
    let mut b = lab.guest("b", options);
    let log = Log::new();
    log.give_to(&mut b);
    for _ in 0..3 {
        // Anew each time: a ring that is started comes with its addresses.
        switch(&mut b, true);
        log.reset();
        let [before, after] = exchange(&lab, &mut a, &mut b, longest);
        let (changed, marked) = (changed(&before, &after), log.pages());
        assert!(changed.len() > 5, "{changed:?}");
        for page in &changed {
            assert!(marked.contains(page), "page {page} of {marked:?}");
        }
        let allowed = allowed(&b);
        for &page in &marked {
            assert!(allowed(page), "page {page} was not written");
        }
        let received = resume(&mut b);
        assert_eq!(received.len() as u64, FRAMES);
        for (number, received) in (0..).zip(received) {
            let sent = frame(mac(1), BROADCAST, length(number, longest), number);
            assert_eq!(received.frame, sent);
        }
    }

    // The same again without logging marks nothing: what changes is not marked by somebody else.
    switch(&mut b, false);
    log.reset();
    let [before, after] = exchange(&lab, &mut a, &mut b, longest);
    assert!(changed(&before, &after).len() > 5);
    assert_eq!(log.pages(), [0; 0]);
}

fn with(features: u64) -> Options {
    Options {
        features,
        ..Options::default()
    }
}

#[test]
fn whole_buffers_of_split_rings() {
    every_changed_page_is_marked(with(features::USUAL), 1500);
    every_changed_page_is_marked(with(features::LEGACY), 1500);
    every_changed_page_is_marked(with(features::BASE | features::IN_ORDER), 1500);
}

#[test]
fn whole_buffers_of_packed_rings() {
    every_changed_page_is_marked(with(features::USUAL | features::PACKED), 1500);
    every_changed_page_is_marked(with(features::BASE | features::PACKED), 1500);
    let in_order = features::USUAL | features::PACKED | features::IN_ORDER;
    every_changed_page_is_marked(with(in_order), 1500);
}

#[test]
fn frames_over_several_buffers_and_buffers_in_pieces() {
    for format in [0, features::PACKED] {
        for shape in [
            Shape::default(),
            Shape {
                pieces: vec![5, 0, 300],
                indirect: true,
                backwards: true,
            },
        ] {
            let options = Options {
                size: 1024,
                buffer: 600,
                buffers: 250,
                shape,
                ..with(features::USUAL | format)
            };
            every_changed_page_is_marked(options, 3000);
        }
    }
}

#[test]
fn a_log_that_is_replaced_is_written_no_more_once_that_was_answered() {
    for format in [0, features::PACKED] {
        for acks in [false, true] {
            let lab = Lab::start(&["a", "b"]);
            let mut a = lab.guest("a", Options::default());
            let mut b = lab.guest("b", with(features::USUAL | format));
            b.front.ask_for_acks(acks);
            let logs = [Log::new(), Log::new(), Log::new()];
            logs[0].give_to(&mut b);
            for round in 1..3 {
                switch(&mut b, true);
                // Any answer, so that the switch has come so far.
                b.front.get_features().unwrap();
                a.send(&frame(mac(1), BROADCAST, 1000, 0));
                b.receive();
                logs[round].give_to(&mut b);
                let before = logs[round - 1].pages();
                assert!(!before.is_empty());
                a.send(&frame(mac(1), BROADCAST, 1000, 0));
                b.receive();
                let [first, second] = exchange(&lab, &mut a, &mut b, 1500);
                assert_eq!(logs[round - 1].pages(), before);
                let marked = logs[round].pages();
                let changed = changed(&first, &second);
                assert!(changed.iter().all(|page| marked.contains(page)));
                resume(&mut b);
            }
        }
    }
}

#[test]
fn rings_run_on_while_logging_is_switched() {
    for format in [0, features::PACKED] {
        let lab = Lab::start(&["a", "b"]);
        let mut a = lab.guest("a", Options::default());
        let mut b = lab.guest("b", with(features::USUAL | format));
        let log = Log::new();
        log.give_to(&mut b);
        for round in 0..100 {
            for number in 0..4 {
                a.send(&frame(mac(1), BROADCAST, 600, 4 * round + number));
                b.send(&frame(mac(2), BROADCAST, 600, 4 * round + number));
            }
            switch(&mut b, round % 2 == 0);
            for number in 0..4 {
                let sent = frame(mac(1), BROADCAST, 600, 4 * round + number);
                assert_eq!(b.receive().frame, sent);
                let sent = frame(mac(2), BROADCAST, 600, 4 * round + number);
                assert_eq!(a.receive().frame, sent);
            }
        }
        b.drain();
        assert_eq!(lab.settled(800).dropped, 0);
        assert!(!log.pages().is_empty());
    }
}

#[test]
fn a_log_that_is_too_short_is_not_left() {
    let lab = Lab::start(&["a", "b"]);
    let mut a = lab.guest("a", Options::default());
    let mut b = lab.guest("b", with(features::USUAL));
    let log = Log::new();
    // Two bytes in the middle: pages 0 to 15, and the rings begin with page 16.
    b.front
        .set_log_base(log.region.file.as_fd(), 2, 0x1_0000)
        .unwrap();
    switch(&mut b, true);
    a.send(&frame(mac(1), BROADCAST, 600, 0));
    b.receive();
    assert_eq!(log.pages(), [0; 0]);
    // And one page more.
    b.front
        .set_log_base(log.region.file.as_fd(), 3, 0x1_0000)
        .unwrap();
    exchange(&lab, &mut a, &mut b, 1500);
    let marked = log.pages();
    assert!(!marked.is_empty());
    let inside = 0x1_0000 * 8 + 16..0x1_0000 * 8 + 24;
    assert!(
        marked.iter().all(|page| inside.contains(page)),
        "{marked:?}"
    );
}

#[test]
fn a_log_whose_file_shrinks_costs_this_port_alone() {
    let lab = Lab::start(&["a", "b", "c"]);
    let mut a = lab.guest("a", Options::default());
    let mut b = lab.guest("b", with(features::USUAL));
    let mut c = lab.guest("c", Options::default());
    let log = Log::new();
    log.give_to(&mut b);
    switch(&mut b, true);
    rustix::fs::ftruncate(&log.region.file, 0).unwrap();
    for number in 0..10 {
        let sent = frame(mac(1), BROADCAST, 600, number);
        a.send(&sent);
        assert_eq!(c.receive().frame, sent);
    }
    let statistics = lab.settled(20);
    assert_eq!(statistics.delivered, 10);
    assert!(
        b.take().is_none(),
        "nothing is delivered that is not marked"
    );
}
