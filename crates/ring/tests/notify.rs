//! Two threads, one on each side of a ring, that sleep whenever there is nothing to do: a notification that were lost would leave both
//! asleep. Each side is woken only by the other's decision to notify.

mod common;

use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use common::{BUFFERS, Pair, all_features};
use ringway_ring::{DriverRing, ReadBatch, RingFeatures};

/// Chains of one run. They end in lockstep or in bursts, as the scheduler has it.
const CHAINS: usize = 20_000;
const SIZE: u16 = 16;

/// Far more than any scheduler's delay; reached only when a notification was lost.
const LOST: Duration = Duration::from_secs(20);

/// Sends all chains, sleeping when the ring is full, then until all are back. Returns the kicks.
fn drive(mut driver: DriverRing, kick: &Sender<()>, call: &Receiver<()>) -> usize {
    let (mut added, mut back, mut kicks) = (0, 0, 0);
    while back < CHAINS {
        driver.disable_calls();
        while driver.pop_used().unwrap().is_some() {
            back += 1;
        }
        while added < CHAINS && driver.add(&[(BUFFERS, 64)], &[], false).is_ok() {
            added += 1;
            // Publish one by one now and then, so that single chains get their turn.
            if added % 3 == 0 {
                break;
            }
        }
        if driver.publish() {
            kicks += 1;
            kick.send(()).unwrap();
        }
        let idle = added == CHAINS || driver.free() == 0;
        if idle && back < CHAINS && !driver.enable_calls() {
            call.recv_timeout(LOST).expect("a call was lost");
        }
    }
    kicks
}

fn ping(features: RingFeatures) {
    let Pair {
        memory,
        driver,
        mut device,
    } = Pair::start(SIZE, features);
    let (kick, kicked) = channel();
    let (call, called) = channel();
    let other = std::thread::spawn(move || drive(driver, &kick, &called));
    let (mut seen, mut calls) = (0, 0);
    let mut batch = ReadBatch::new();
    while seen < CHAINS {
        device.disable_kicks();
        batch.clear();
        let taken = device.take_readable(&memory, &mut batch, 5).unwrap();
        seen += taken;
        device.complete(&batch.chains);
        if device.publish() {
            calls += 1;
            // The driver may have gone: it has all it waited for.
            let _ = call.send(());
        }
        if taken == 0 && !device.enable_kicks() {
            kicked.recv_timeout(LOST).expect("a kick was lost");
        }
    }
    let kicks = other.join().unwrap();
    assert!(
        calls <= CHAINS && kicks <= CHAINS,
        "{calls} calls, {kicks} kicks"
    );
}

#[test]
fn split_loses_no_notification_virtio_2_7_7_2_and_2_7_13_4_1() {
    for features in all_features(false) {
        ping(features);
    }
}

#[test]
fn packed_loses_no_notification_virtio_2_8_10_and_2_8_21_3_1() {
    for features in all_features(true) {
        ping(features);
    }
}
