//! Two guests in conversation, and one that talks without being answered.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Instant;

use super::frames::{BROADCAST, frame, mac, seed};
use super::nic::sleep;
use super::{Nic, PATIENCE};

/// Frames under way at once.
const WINDOW: u64 = 24;

/// Frames that go there and back at least, however soon a conversation is ended.
const LEAST: u64 = 200;

/// A conversation on a thread of its own: the first guest sends, the second sends everything back,
/// the first checks every byte and the order. A frame that is lost ends it with a panic.
pub struct Talk {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<(Nic, Nic, u64)>,
}

impl Talk {
    /// Guests 1 and 2 begin to talk.
    pub fn start(mut first: Nic, mut second: Nic) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        introduce(&mut first, &mut second);
        let thread = std::thread::spawn(move || {
            let count = talk(&mut first, &mut second, &stopped);
            (first, second, count)
        });
        Self { stop, thread }
    }

    /// Ends it; frames that went there and back.
    pub fn end(self) -> (Nic, Nic, u64) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

/// Both addresses are learned, so nothing of what follows is flooded.
fn introduce(first: &mut Nic, second: &mut Nic) {
    second.send(&frame(mac(2), BROADCAST, 60, 0));
    first.receive();
    first.send(&frame(mac(1), BROADCAST, 60, 0));
    second.receive();
}

fn length(number: u64) -> usize {
    match number % 32 {
        0 => 9014,
        1 => 1514,
        n => 60 + 40 * usize::try_from(n).unwrap(),
    }
}

fn talk(first: &mut Nic, second: &mut Nic, stop: &AtomicBool) -> u64 {
    let (mut sent, mut back) = (0, 0);
    let mut deadline = Instant::now() + PATIENCE;
    loop {
        let mut progress = false;
        let stopped = stop.load(Ordering::Relaxed) && sent >= LEAST;
        while sent < back + WINDOW && !stopped {
            first.send(&frame(mac(1), mac(2), length(sent), sent));
            sent += 1;
        }
        while let Some(received) = second.try_receive() {
            let mut answer = received.frame;
            answer[..12].rotate_left(6);
            second.send(&answer);
            progress = true;
        }
        while let Some(received) = first.try_receive() {
            let expected = frame(mac(2), mac(1), length(back), back);
            assert!(received.frame == expected, "frame {back} of {sent}");
            back += 1;
            progress = true;
        }
        first.reclaim();
        second.reclaim();
        if back == sent && stopped {
            first.drain();
            second.drain();
            return back;
        }
        if progress {
            deadline = Instant::now() + PATIENCE;
            continue;
        }
        // Completions of what was sent are looked at after every frame; they need no calls.
        let more = [&mut *first, &mut *second].map(|nic| nic.queues[0].ring.enable_calls());
        if more == [false; 2] {
            let calls = [first.queues[0].call(), second.queues[0].call()];
            assert!(sleep(&calls, deadline), "{back} of {sent} frames came back");
            first.queues[0].hear();
            second.queues[0].hear();
        }
    }
}

/// Numbered frames one way, on a thread of its own, as fast as they are taken. Frames may be lost:
/// what arrives must be whole, in order and nothing twice.
pub struct Stream {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<(Nic, Nic)>,
}

impl Stream {
    /// Guest 1 begins to send to guest 2, which is known.
    pub fn start(mut first: Nic, mut second: Nic) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        introduce(&mut first, &mut second);
        let thread = std::thread::spawn(move || {
            let mut number = 1;
            let mut checker = Checker::default();
            while !stopped.load(Ordering::Relaxed) {
                first.send(&frame(mac(1), mac(2), length(number), number));
                number += 1;
                checker.look(&mut second);
            }
            first.drain();
            checker.look(&mut second);
            (first, second)
        });
        Self { stop, thread }
    }

    /// Ends it, when everything has left the sender. `sent` and `received` of the guests say how
    /// many frames.
    pub fn end(self) -> (Nic, Nic) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

/// Checks that numbered frames arrive in order, none twice, all whole.
#[derive(Default)]
pub struct Checker {
    last: u64,
}

impl Checker {
    pub fn look(&mut self, nic: &mut Nic) {
        while let Some(received) = nic.try_receive() {
            self.check(&received.frame);
        }
    }

    pub fn check(&mut self, received: &[u8]) {
        let number = seed(received);
        assert!(number > self.last, "{number} after {}", self.last);
        assert!(received == frame(mac(1), mac(2), length(number), number));
        self.last = number;
    }
}
