use std::time::Duration;

use ringway_api::stats::{PortStatistics, QueueStatistics};

use super::*;
use crate::live::Thread;

/// `frames` from the guest, of 100 bytes each, and twice as many to it.
fn port(name: &str, frames: u64, dropped: u64) -> PortStatistics {
    PortStatistics {
        name: name.into(),
        kind: "vhost-user".into(),
        connected: true,
        queues: vec![QueueStatistics {
            rx_frames: frames,
            rx_bytes: 100 * frames,
            tx_frames: 2 * frames,
            tx_bytes: 200 * frames,
            kicks: frames / 10,
            calls: 0,
            ..QueueStatistics::default()
        }],
        drops: BTreeMap::from([("no_buffers".into(), dropped), ("too_long".into(), 7)]),
        ..PortStatistics::default()
    }
}

fn sample(at: u64, frames: u64) -> Sample {
    Sample {
        at: Duration::from_millis(at),
        switch: Some(5),
        counted: true,
        delivered: 2 * frames,
        dropped: frames / 2,
        ports: vec![port("a", frames, frames / 2)],
        threads: vec![Thread {
            process: 5,
            id: 6,
            owner: "switch".into(),
            role: Role::Worker,
            name: "worker-0".into(),
            used: frames * 1_000_000,
            cpu: Some(1),
        }],
        ..Sample::default()
    }
}

#[test]
fn counters_become_rates_by_the_samples_own_clock() {
    let rates = Rates::between(Some(&sample(1000, 100)), &sample(3000, 300));
    assert_eq!((rates.seconds, rates.delivered), (2.0, Some(200.0)));
    assert_eq!(rates.dropped, Some(50.0));
    let port = &rates.ports[0];
    let flow = |frames, bits| Some(Flow { frames, bits });
    assert_eq!(
        (port.rx, port.tx),
        (flow(100.0, 80_000.0), flow(200.0, 160_000.0))
    );
    // What did not happen is not among the reasons.
    assert_eq!(port.drops, BTreeMap::from([("no_buffers".into(), 50.0)]));
    assert_eq!((port.dropped(), port.bits()), (Some(50.0), 240_000.0));
    assert_eq!(
        (port.queues[0].rx, port.queues[0].kicks),
        (port.rx, Some(10.0))
    );
    // 200 ms of CPU in 2 s.
    assert_eq!(rates.threads[0].percent, Some(10.0));
}

#[test]
fn the_first_sample_has_everything_but_rates() {
    let now = sample(1000, 100);
    for before in [None, Some(&now)] {
        let rates = Rates::between(before, &now);
        assert_eq!((rates.delivered, rates.ports[0].rx), (None, None));
        assert_eq!(rates.ports[0].queues[0].kicks, None);
        assert_eq!(
            (rates.threads[0].percent, rates.threads[0].cpu),
            (None, Some(1))
        );
        assert_eq!(rates.ports[0].dropped(), None);
    }
}

#[test]
fn a_switch_that_begins_anew_has_no_rates_for_one_interval() {
    let (first, second) = (sample(1000, 100), sample(2000, 10));
    let rates = Rates::between(Some(&first), &second);
    assert_eq!((rates.delivered, rates.ports[0].rx), (None, None));
    assert!(rates.ports[0].drops.is_empty());
    assert_eq!(rates.threads[0].percent, None);
    // Another process that has counted more already.
    let mut other = sample(2000, 200);
    other.switch = Some(9);
    let rates = Rates::between(Some(&first), &other);
    assert_eq!((rates.delivered, rates.ports[0].rx), (None, None));
    let rates = Rates::between(Some(&second), &sample(3000, 20));
    assert_eq!(rates.delivered, Some(20.0));
}

#[test]
fn a_port_that_was_made_again_or_is_new_has_no_rates_while_others_do() {
    let first = sample(1000, 100);
    let mut second = sample(2000, 200);
    second.ports = vec![port("a", 3, 0), port("b", 5, 0)];
    let rates = Rates::between(Some(&first), &second);
    assert_eq!(rates.delivered, Some(200.0));
    assert_eq!((rates.ports[0].rx, rates.ports[1].rx), (None, None));
    // Drops alone tell, too.
    second.ports = vec![port("a", 100, 49)];
    assert_eq!(Rates::between(Some(&first), &second).ports[0].rx, None);
    // A queue that came with a driver began at nothing.
    second.ports = vec![port("a", 100, 50)];
    let more = second.ports[0].queues[0];
    second.ports[0].queues.push(more);
    let rates = Rates::between(Some(&first), &second);
    assert_eq!(rates.ports[0].rx.map(|flow| flow.frames), Some(100.0));
}

#[test]
fn taps_of_the_kernel_have_rates_while_the_switch_is_away() {
    let with_tap = |at, frames| Sample {
        counted: false,
        ports: Vec::new(),
        taps: vec![port("lan/web", frames, 50)],
        ..sample(at, frames)
    };
    let rates = Rates::between(Some(&with_tap(1000, 100)), &with_tap(2000, 200));
    assert_eq!(rates.delivered, None);
    assert_eq!(rates.ports[0].rx.map(|flow| flow.frames), Some(100.0));
}
