//! A switch takes over from another, both in this process, while mock guests talk: they notice nothing.

mod mock;

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use mock::frames::{BROADCAST, frame, mac, seed};
use mock::queue::{Queue, write};
use mock::{Guest, Lab, Options, PATIENCE, Shape, Talk, agree, features};
use ringway_api::control::Client;
use ringway_api::control::handover::{FromNew, FromOld, Line};
use ringway_switch::Poll;
use ringway_vhost::user::frontend::Frontend;
use ringway_vhost::user::message::{Header, Request, RequestId};
use ringway_wire::VnetHeader;
use rustix::event::{EventfdFlags, eventfd};

/// Split rings and packed ones.
const FORMATS: [u64; 2] = [0, features::PACKED];

fn options(format: u64, pairs: u16) -> Options {
    Options {
        features: features::USUAL | format,
        pairs,
        ..Options::default()
    }
}

fn name(format: u64) -> &'static str {
    if format == 0 { "split" } else { "packed" }
}

/// Two guests that send each other a numbered frame every millisecond.
struct Sequence {
    guests: [Guest; 2],
    pairs: usize,
    sent: u64,
    /// By receiving guest.
    arrived: [u64; 2],
    last_arrival: [Instant; 2],
    longest: Duration,
}

impl Sequence {
    fn new(lab: &Lab, format: u64, pairs: u16) -> Self {
        let mut guests = ["a", "b"].map(|name| lab.guest(name, options(format, pairs)));
        let [a, b] = &mut guests;
        b.send(&frame(mac(2), BROADCAST, 60, 0));
        a.receive();
        a.send(&frame(mac(1), BROADCAST, 60, 0));
        b.receive();
        Self {
            guests,
            pairs: pairs.into(),
            sent: 0,
            arrived: [0; 2],
            last_arrival: [Instant::now(); 2],
            longest: Duration::ZERO,
        }
    }

    /// Sends at 1 kHz until `done`, and then until everything has arrived.
    fn run(&mut self, mut done: impl FnMut() -> bool) {
        let mut next = Instant::now();
        self.last_arrival = [next; 2];
        let mut ending = false;
        let mut deadline = next + PATIENCE;
        loop {
            let now = Instant::now();
            ending = ending || done();
            if now >= next && !ending {
                let pair = usize::try_from(self.sent).unwrap() % self.pairs;
                for (from, to, guest) in [(1, 2, 0), (2, 1, 1)] {
                    let sent = frame(mac(from), mac(to), 200, self.sent);
                    let nic = &mut self.guests[guest].nic;
                    nic.send_as(pair, VnetHeader::default(), &sent, &Shape::default());
                }
                self.sent += 1;
                next += Duration::from_millis(1);
                deadline = now + PATIENCE;
            }
            for (n, guest) in self.guests.iter_mut().enumerate() {
                guest.reclaim();
                while let Some(received) = guest.try_receive() {
                    // One queue pair keeps its order; the other one's frames may pass.
                    if self.pairs == 1 {
                        assert_eq!(
                            seed(&received.frame),
                            self.arrived[n],
                            "lost or out of order"
                        );
                    }
                    self.arrived[n] += 1;
                    let silence = now - self.last_arrival[n];
                    self.longest = self.longest.max(silence);
                    self.last_arrival[n] = now;
                }
            }
            if ending && self.arrived == [self.sent; 2] {
                return;
            }
            assert!(
                Instant::now() < deadline,
                "{:?} of {}",
                self.arrived,
                self.sent
            );
            std::thread::yield_now();
        }
    }
}

#[test]
fn a_sequence_of_frames_both_ways_crosses_takeovers_without_loss() {
    const TAKEOVERS: usize = 5;
    for format in FORMATS {
        for pairs in [1, 2] {
            let ports = ["a", "b"].map(|name| format!("{name},queues={pairs}"));
            let mut lab = Lab::start(&[&ports[0], &ports[1]]);
            let mut sequence = Sequence::new(&lab, format, pairs);
            std::thread::scope(|scope| {
                let taking = scope.spawn(|| {
                    for n in 0..TAKEOVERS {
                        lab.take_over(1 + n % 2, Poll::Adaptive).unwrap();
                    }
                });
                sequence.run(|| taking.is_finished());
            });
            let sent = sequence.guests.iter().map(|guest| guest.sent).sum();
            let statistics = lab.settled(sent);
            assert_eq!(
                statistics.delivered, sent,
                "counters go on: {statistics:#?}"
            );
            println!(
                "{} rings, {pairs} queue pairs: {} frames each way at 1 kHz, {TAKEOVERS} takeovers, none lost, \
                 longest silence {:.2} ms",
                name(format),
                sequence.sent,
                sequence.longest.as_secs_f64() * 1000.0
            );
        }
    }
}

#[test]
fn guests_that_talk_as_fast_as_they_can_lose_nothing_to_takeovers() {
    for format in FORMATS {
        let mut lab = Lab::start(&["a", "b"]);
        let [a, b] = ["a", "b"].map(|name| lab.guest(name, options(format, 1)));
        let _fronts = (a.front, b.front);
        let talk = Talk::start(a.nic, b.nic);
        for poll in [Poll::Always, Poll::Never, Poll::Adaptive] {
            lab.take_over(1, poll).unwrap();
        }
        let (a, b, count) = talk.end();
        let statistics = lab.settled(a.sent + b.sent);
        assert_eq!(statistics.dropped, 0, "{statistics:#?}");
        println!("{} rings: {count} frames there and back", name(format));
    }
}

/// A conversation with a switch whose successors fail.
struct Failing {
    lab: Lab,
    talk: Talk,
    fronts: [Frontend; 2],
}

impl Failing {
    fn new(format: u64) -> Self {
        let lab = Lab::start(&["a", "b"]);
        let [a, b] = ["a", "b"].map(|name| lab.guest(name, options(format, 1)));
        let talk = Talk::start(a.nic, b.nic);
        Self {
            lab,
            talk,
            fronts: [a.front, b.front],
        }
    }

    fn line(&self) -> Line {
        Client::connect(&self.lab.path("control"), PATIENCE)
            .unwrap()
            .take_over()
            .unwrap()
    }

    /// Everything goes on as if nothing had been, and the next successor succeeds.
    fn goes_on(self) {
        let Self {
            mut lab,
            talk,
            mut fronts,
        } = self;
        for front in &mut fronts {
            front.get_features().unwrap();
        }
        let before = lab.statistics().attempted;
        lab.until("the conversation to go on", |now| {
            now.attempted > before + 100
        });
        lab.take_over(1, Poll::Adaptive).unwrap();
        let (a, b, _) = talk.end();
        let statistics = lab.settled(a.sent + b.sent);
        assert_eq!(statistics.dropped, 0, "{statistics:#?}");
    }
}

/// Reads what the switch says up to this message, as a successor would.
fn until(line: &mut Line, last: impl Fn(&FromOld) -> bool) {
    while !last(&line.receive_all().unwrap().0) {}
}

fn until_prepare(line: &mut Line) {
    until(line, |message| matches!(message, FromOld::Prepare));
}

fn until_stopped(line: &mut Line) {
    until_prepare(line);
    line.send(&FromNew::Prepared).unwrap();
    until(line, |message| matches!(message, FromOld::Stopped(_)));
}

#[test]
fn a_successor_that_dies_at_any_point_costs_nothing() {
    for format in FORMATS {
        let scene = Failing::new(format);
        drop(scene.line());
        let mut line = scene.line();
        until_prepare(&mut line);
        drop(line);
        let mut line = scene.line();
        until_stopped(&mut line);
        drop(line);
        scene.goes_on();
    }
}

#[test]
fn a_successor_that_gives_up_or_says_nonsense_costs_nothing() {
    for format in FORMATS {
        let scene = Failing::new(format);
        let mut line = scene.line();
        until_prepare(&mut line);
        let message = "no memory".to_owned();
        line.send(&FromNew::Failed { message }).unwrap();
        let mut line = scene.line();
        until_stopped(&mut line);
        line.send(&FromNew::Running { gap: 1 }).unwrap();
        let end = line.receive_all();
        assert!(end.is_err(), "it is not told to go: {end:?}");
        scene.goes_on();
    }
}

#[test]
fn a_successor_that_falls_silent_is_waited_for_no_longer_than_a_second() {
    for format in FORMATS {
        let scene = Failing::new(format);
        let mut line = scene.line();
        until_stopped(&mut line);
        let end = line.receive_all();
        assert!(end.is_err(), "it is not told to go: {end:?}");
        // Too late: nobody listens.
        let _ = line.send(&FromNew::Ready);
        scene.goes_on();
    }
}

#[test]
fn a_format_that_nobody_reads_is_refused_in_a_sentence() {
    use std::io::{Read, Write};
    let scene = Failing::new(0);
    let mut socket = std::os::unix::net::UnixStream::connect(scene.lab.path("control")).unwrap();
    for text in [
        r#"{"type":"hello","version":1}"#,
        r#"{"type":"take-over","oldest":7,"newest":9}"#,
    ] {
        let length = u32::try_from(text.len()).unwrap();
        socket.write_all(&length.to_le_bytes()).unwrap();
        socket.write_all(text.as_bytes()).unwrap();
    }
    let mut said = String::new();
    for _ in 0..2 {
        let mut length = [0; 4];
        socket.read_exact(&mut length).unwrap();
        let mut text = vec![0; u32::from_le_bytes(length) as usize];
        socket.read_exact(&mut text).unwrap();
        said = String::from_utf8(text).unwrap();
    }
    let refused = "this switch hands over in format 1, the program that asks reads 7 to 9: ";
    assert!(said.contains(refused), "{said}");
    scene.goes_on();
}

#[test]
fn a_successor_that_dies_right_after_it_took_over_costs_the_sessions_only() {
    let lab = Lab::start(&["a", "b"]);
    let (mut a, mut b) = lab.pair();
    let mut line = lab.client().take_over().unwrap();
    until_stopped(&mut line);
    line.send(&FromNew::Ready).unwrap();
    until(&mut line, |message| *message == FromOld::Go);
    drop(line);
    for guest in [&mut a, &mut b] {
        assert!(guest.front.get_features().is_err(), "its session has ended");
    }
    drop((a, b));
    let (mut a, mut b) = lab.pair();
    a.send(&frame(mac(1), BROADCAST, 60, 5));
    assert_eq!(seed(&b.receive().frame), 5);
    b.send(&frame(mac(2), mac(1), 60, 6));
    assert_eq!(seed(&a.receive().frame), 6);
    agree(&lab.statistics());
}

#[test]
fn a_listener_without_front_end_a_capture_and_what_was_learned_survive() {
    let mut lab = Lab::start(&[
        "a",
        "b",
        "late",
        "pcap,path=DIR/all.pcapng,name=all",
        "sink,name=forgets",
    ]);
    let (mut a, mut b) = lab.pair();
    a.send(&frame(mac(1), BROADCAST, 60, 1));
    b.receive();
    b.send(&frame(mac(2), mac(1), 60, 2));
    a.receive();
    for n in 0..3 {
        lab.take_over(1, Poll::Adaptive).unwrap();
        // Known addresses are still known: the sink gets nothing of it.
        a.send(&frame(mac(1), mac(2), 60, 10 + n));
        assert_eq!(seed(&b.receive().frame), 10 + n);
    }
    let before = lab.port("forgets").queues[0].tx_frames;
    assert_eq!(before, 1, "the broadcast alone was flooded");
    assert_eq!(lab.port("late").queues[0].tx_frames, 0);

    let mut late = lab.guest("late", Options::default());
    late.send(&frame(mac(3), mac(1), 60, 20));
    assert_eq!(seed(&a.receive().frame), 20);
    a.send(&frame(mac(1), mac(3), 60, 21));
    assert_eq!(seed(&late.receive().frame), 21);

    let names: Vec<_> = lab
        .statistics()
        .ports
        .iter()
        .map(|port| port.name.clone())
        .collect();
    assert_eq!(names, ["a", "b", "late", "all", "forgets"]);
    lab.ask(|client| client.remove_port("all")).unwrap();
    let file = std::fs::read(lab.path("all.pcapng")).unwrap();
    let blocks = blocks(&file);
    let count = |kind| blocks.iter().filter(|(found, _)| *found == kind).count();
    assert_eq!(count(SECTION_HEADER), 4, "a section for each switch");
    let recorded = blocks.iter().filter(|(kind, _)| *kind == ENHANCED_PACKET);
    let seeds: Vec<_> = recorded.map(|(_, body)| seed(&body[20..])).collect();
    assert_eq!(seeds, [1, 2, 10, 11, 12, 20, 21]);
}

const SECTION_HEADER: u32 = 0x0a0d_0d0a;
const ENHANCED_PACKET: u32 = 6;

/// The blocks of a pcapng file: types and bodies.
fn blocks(mut file: &[u8]) -> Vec<(u32, &[u8])> {
    let mut blocks = Vec::new();
    while !file.is_empty() {
        let word = |at: usize| u32::from_le_bytes(file[at..at + 4].try_into().unwrap());
        let length = word(4) as usize;
        assert_eq!(word(length - 4), word(4), "a block ends with its length");
        blocks.push((word(0), &file[8..length - 4]));
        file = &file[length..];
    }
    blocks
}

#[test]
fn a_ring_that_was_stopped_for_a_lie_stays_stopped() {
    for format in FORMATS {
        let mut lab = Lab::start(&["a", "b"]);
        let [mut a, mut b] = ["a", "b"].map(|name| lab.guest(name, options(format, 1)));
        let error = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).unwrap();
        a.front.set_vring_err(1, Some(error.as_fd())).unwrap();
        a.send(&frame(mac(1), BROADCAST, 60, 1));
        b.receive();
        lie(&mut a.queues[1]);
        let deadline = Instant::now() + PATIENCE;
        assert!(
            mock::sleep(&[error.as_fd()], deadline),
            "no report of the lie"
        );
        rustix::io::read(&error, &mut [0; 8]).unwrap();

        lab.take_over(1, Poll::Adaptive).unwrap();
        a.stage(
            0,
            VnetHeader::default(),
            &frame(mac(1), mac(2), 60, 2),
            &Shape::default(),
        );
        a.queues[1].publish();
        a.queues[1].kick();
        b.send(&frame(mac(2), mac(1), 60, 3));
        assert_eq!(seed(&a.receive().frame), 3, "the other ring is served");
        b.drain();
        lab.take_over(1, Poll::Adaptive).unwrap();
        assert_eq!(lab.port("a").queues[0].rx_frames, 1);
        assert!(rustix::io::read(&error, &mut [0; 8]).is_err(), "said once");
    }
}

/// Sends a chain that lies outside of the guest's memory.
fn lie(queue: &mut Queue) {
    let (head, _) = queue.add(&Shape::default(), 100, false).unwrap();
    let layout = queue.layout();
    let index = if queue.is_packed() {
        (queue.added - 1) % u64::from(layout.size)
    } else {
        head.into()
    };
    let nowhere = (1_u64 << 60).to_le_bytes();
    write(&queue.memory, layout.descriptors + index * 16, &nowhere);
    queue.publish();
}

#[test]
fn a_message_whose_halves_meet_two_switches_is_answered() {
    let mut lab = Lab::start(&["a"]);
    let mut guest = lab.guest("a", Options::default());
    let message = Header::request(Request::GetFeatures.into(), 0, false).bytes();
    let (first, second) = message.split_at(5);
    guest.front.send_raw(RequestId(0), first, &[]).unwrap();
    lab.statistics();
    lab.take_over(1, Poll::Adaptive).unwrap();
    guest.front.send_raw(RequestId(0), second, &[]).unwrap();
    let answer = guest
        .front
        .receive_raw(Request::GetFeatures.into())
        .unwrap();
    assert_eq!(answer.payload.len(), 8);
}

#[test]
fn memory_that_was_shrunk_costs_its_own_session_only() {
    let mut lab = Lab::start(&["a", "b", "c"]);
    let (mut a, mut b) = lab.pair();
    let mut c = lab.guest("c", Options::default());
    rustix::fs::ftruncate(&c.regions[1].file, 0).unwrap();
    lab.take_over(1, Poll::Adaptive).unwrap();
    assert!(c.front.get_features().is_err(), "its session has ended");
    a.send(&frame(mac(1), BROADCAST, 60, 1));
    assert_eq!(seed(&b.receive().frame), 1);
    drop(c);
    let mut c = lab.guest("c", Options::default());
    a.send(&frame(mac(1), BROADCAST, 60, 2));
    assert_eq!(seed(&c.receive().frame), 2);
}
