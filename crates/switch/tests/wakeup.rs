//! How long a frame takes when everybody sleeps: from the kick to the frame in the other guest's ring.

mod mock;

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use mock::frames::{BROADCAST, frame, mac};
use mock::{Lab, PATIENCE, Shape};
use ringway_wire::VnetHeader;

const FRAMES: u64 = 2000;

#[test]
fn a_sleeping_worker_delivers_soon_after_the_kick() {
    let lab = Lab::start(&["a", "b"]);
    let worker = thread_named("worker-0");
    let (mut a, mut b) = lab.pair();
    b.send(&frame(mac(2), BROADCAST, 60, 0));
    a.receive();
    let mut waits = Vec::new();
    for number in 0..FRAMES {
        until_asleep(&worker);
        let sent = frame(mac(1), mac(2), 60, number);
        a.stage(0, VnetHeader::default(), &sent, &Shape::default());
        let owed = a.queues[1].ring.publish();
        let begin = Instant::now();
        if owed {
            a.queues[1].kick();
        }
        let received = loop {
            if let Some(received) = b.take() {
                break received;
            }
            assert!(begin.elapsed() < PATIENCE, "frame {number} is lost");
            std::hint::spin_loop();
        };
        if owed {
            waits.push(begin.elapsed());
        }
        assert_eq!(received.frame, sent);
        b.fill();
        a.drain();
    }
    lab.settled(FRAMES + 1);
    // The worker slept, so it was to be kicked, but for a look that it took at the same moment.
    assert!(waits.len() as u64 > FRAMES / 2, "{} kicks", waits.len());
    waits.sort_unstable();
    let at = |percent: usize| waits[waits.len() * percent / 100];
    let (median, p99) = (at(50), at(99));
    println!(
        "kick to frame: median {median:?}, 99 % {p99:?}, {} frames",
        waits.len()
    );
    assert!(median < Duration::from_millis(5), "{median:?}");
}

/// The folder of a thread of this process.
fn thread_named(name: &str) -> PathBuf {
    let tasks = fs::read_dir("/proc/self/task").unwrap().flatten();
    let mut folders = tasks.map(|task| task.path());
    let named = |folder: &PathBuf| fs::read_to_string(folder.join("comm")).unwrap().trim() == name;
    folders.find(named).unwrap()
}

/// Until the system says that a thread sleeps.
fn until_asleep(thread: &std::path::Path) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let stat = fs::read_to_string(thread.join("stat")).unwrap();
        if stat.rsplit(") ").next().unwrap().starts_with('S') {
            return;
        }
        assert!(Instant::now() < deadline, "{stat}");
        std::thread::yield_now();
    }
}
