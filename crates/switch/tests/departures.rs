//! Every way in which a front-end can leave its session hanging: within a second or so it is over, nothing of it stays,
//! and the port serves the next one. It counts what the process holds, so it is a process of its own.

mod mock;

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use mock::frames::{BROADCAST, frame, mac};
use mock::{Guest, Lab, Options, PATIENCE, Setup, features};
use ringway_vhost::user::frontend::Frontend;
use ringway_vhost::user::message::RequestId;
use rustix::net::{Shutdown, shutdown};

/// What a session may outlast its front-end's last sign of life by, on a machine with other work.
const SOON: Duration = Duration::from_secs(3);

/// Open descriptors, and mappings of guests' memory.
fn holdings(lab: &Lab) -> [usize; 2] {
    lab.statistics();
    lab.statistics();
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let memory = maps.lines().filter(|line| line.contains("/memfd:"));
    [
        std::fs::read_dir("/proc/self/fd").unwrap().count(),
        memory.count(),
    ]
}

const REQUEST: RequestId = RequestId(1);

fn message(request: u32, flags: u32, payload: &[u8]) -> Vec<u8> {
    let size = u32::try_from(payload.len()).unwrap();
    let words = [request, flags, size].map(u32::to_le_bytes);
    [&words.concat(), payload].concat()
}

/// A way to leave, and whether the connection stays open over it.
type Departure = (&'static str, fn(&mut Guest));

const DEPARTURES: [Departure; 8] = [
    // A process that is killed leaves nothing but this behind.
    ("the connection is closed", |guest| {
        shutdown(&guest.front, Shutdown::Both).unwrap();
    }),
    ("it is closed for writing", |guest| {
        shutdown(&guest.front, Shutdown::Write).unwrap();
    }),
    ("half a header", |guest| {
        let bytes = &message(1, 1, &[])[..7];
        guest.front.send_raw(REQUEST, bytes, &[]).unwrap();
    }),
    ("a header without its payload", |guest| {
        let bytes = &message(2, 1, &[0; 8])[..12];
        guest.front.send_raw(REQUEST, bytes, &[]).unwrap();
    }),
    ("half a payload, with descriptors", |guest| {
        let kick = guest.queues[0].kick.try_clone().unwrap();
        let bytes = &message(12, 1, &[0; 8])[..15];
        let files = [kick.as_fd(), kick.as_fd()];
        guest.front.send_raw(REQUEST, bytes, &files).unwrap();
    }),
    ("a message, and half of another", |guest| {
        let bytes = [&message(1, 1, &[])[..], &message(1, 1, &[])[..7]].concat();
        guest.front.send_raw(REQUEST, &bytes, &[]).unwrap();
    }),
    ("questions whose answers are never read", |guest| {
        ask_and_never_read(guest, u32::MAX);
    }),
    ("questions, and then nothing", |guest| {
        shutdown(&guest.front, Shutdown::Read).unwrap();
        let _ = guest.front.send_raw(REQUEST, &message(1, 1, &[]), &[]);
    }),
];

/// Until the switch has had enough.
fn ask_and_never_read(guest: &mut Guest, count: u32) {
    let questions = message(1, 1, &[]).repeat(64);
    for _ in 0..count {
        if guest.front.send_raw(REQUEST, &questions, &[]).is_err() {
            return;
        }
    }
}

fn leaves_nothing(lab: &Lab, what: &str, begin: [usize; 2], since: Instant) {
    lab.until(what, |statistics| !statistics.ports[0].connected);
    let took = since.elapsed();
    println!("{what}: over after {} ms", took.as_millis());
    assert!(took < SOON, "{what}: {took:?}");
    assert_eq!(holdings(lab), begin, "{what}");
}

#[test]
fn whoever_leaves_however_leaves_nothing_behind() {
    let lab = Lab::start(&["m", "w"]);
    let mut witness = lab.guest("w", Options::default());
    let options = |format| Options {
        features: features::USUAL | format,
        ..Options::default()
    };
    let begin = holdings(&lab);
    for format in [0, features::PACKED] {
        for (what, depart) in DEPARTURES {
            let mut guest = lab.guest("m", options(format));
            guest.send(&frame(mac(1), BROADCAST, 60, 1));
            assert_eq!(witness.receive().frame, frame(mac(1), BROADCAST, 60, 1));
            depart(&mut guest);
            let since = Instant::now();
            // The guest's own end stays open until the switch has closed its.
            lab.until(what, |statistics| !statistics.ports[0].connected);
            drop(guest);
            leaves_nothing(&lab, what, begin, since);
        }
        // After every step of setting up.
        let steps = Setup::of(&mock::Nic::new(options(format))).steps().len();
        for count in 0..steps {
            let nic = mock::Nic::new(options(format));
            let setup = Setup::of(&nic);
            let mut front = Frontend::connect(&lab.path("m"), PATIENCE).unwrap();
            setup.steps()[..count]
                .iter()
                .for_each(|step| step(&mut front));
            let since = Instant::now();
            drop((front, setup, nic));
            leaves_nothing(&lab, &format!("after step {count}"), begin, since);
        }
    }
    let mut guest = lab.guest("m", Options::default());
    guest.send(&frame(mac(1), BROADCAST, 60, 2));
    assert_eq!(witness.receive().frame, frame(mac(1), BROADCAST, 60, 2));
}
