//! What a port may do to the others: rates, floods, addresses.

mod mock;

use std::time::{Duration, Instant};

use mock::frames::{BROADCAST, frame, mac};
use mock::{Guest, Lab, Options, agree};
use ringway_api::control::{PortChange, Setting};
use ringway_api::port_spec::{Rate, Storm};
use ringway_wire::MacAddress;

fn guests<const N: usize>(lab: &Lab, names: [&str; N]) -> [Guest; N] {
    names.map(|name| lab.guest(name, Options::default()))
}

fn change(lab: &Lab, name: &str, change: PortChange) {
    lab.ask(|client| client.change_port(name, change)).unwrap();
}

/// Sends frames while the others take what comes; then everything sent has been dealt with.
fn pour(from: &mut Guest, to: &mut [&mut Guest], frames: impl Iterator<Item = Vec<u8>>) {
    let take = |to: &mut [&mut Guest]| {
        for guest in to {
            while guest.try_receive().is_some() {}
        }
    };
    for frame in frames {
        from.send(&frame);
        take(to);
    }
    from.drain();
    take(to);
}

#[test]
fn a_storm_is_cut_at_its_sender_counted_and_can_be_permitted() {
    let lab = Lab::start(&["a,storm=50", "b", "c"]);
    let [mut a, mut b, mut c] = guests(&lab, ["a", "b", "c"]);
    let start = Instant::now();
    let storm = || (0..500).map(|number| frame(mac(1), BROADCAST, 60, number));
    pour(&mut a, &mut [&mut b, &mut c], storm());
    let flooded = b.received;
    assert_eq!(c.received, flooded);
    let allowed = 50.0 + 50.0 * start.elapsed().as_secs_f64();
    assert!(flooded >= 50 && flooded as f64 <= allowed, "{flooded}");
    let cut = 500 - flooded;
    let statistics = lab.settled(cut + 2 * flooded);
    assert_eq!(statistics.ports[0].drops["storm_limited"], cut);
    // To whom nothing was learned of is flooded too, others are not concerned.
    b.send(&frame(mac(2), BROADCAST, 60, 1));
    a.receive();
    c.receive();
    let before = b.received;
    let known = (0..500).map(|number| frame(mac(1), mac(2), 60, number));
    pour(&mut a, &mut [&mut b], known);
    assert_eq!(b.received, before + 500);
    // At run time it is permitted, and limited again.
    let set = |storm| PortChange {
        storm,
        ..PortChange::default()
    };
    change(&lab, "a", set(Setting::Set(Storm::Off)));
    pour(&mut a, &mut [&mut b, &mut c], storm());
    assert_eq!(b.received, before + 1000);
    change(&lab, "a", set(Setting::Set(Storm::FramesPerSecond(1))));
    pour(&mut a, &mut [&mut b, &mut c], storm());
    assert!(b.received < before + 1100, "{}", b.received - before);
    change(&lab, "a", set(Setting::Clear));
    pour(&mut a, &mut [&mut b, &mut c], storm());
    assert!(b.received >= before + 1500, "10,000 is the default");
}

#[test]
fn a_port_fills_the_table_up_to_its_limit_and_no_further() {
    let lab = Lab::start(&["a,macs=10", "b", "c"]);
    let [mut a, mut b, mut c] = guests(&lab, ["a", "b", "c"]);
    b.send(&frame(mac(2), BROADCAST, 60, 0));
    a.receive();
    c.receive();
    let from = |number: u8| MacAddress([2, 0, 0, 0, 1, number]);
    let flood = (0..100).map(|number| frame(from(number), mac(2), 60, 0));
    pour(&mut a, &mut [&mut b], flood);
    let port = lab.port("a");
    assert_eq!((port.addresses, port.unlearned), (10, 90));
    c.send(&frame(mac(3), from(9), 60, 1));
    c.send(&frame(mac(3), from(10), 60, 2));
    assert_eq!(a.receive().frame, frame(mac(3), from(9), 60, 1));
    assert_eq!(
        b.receive().frame,
        frame(mac(3), from(10), 60, 2),
        "is flooded"
    );
    let macs = Setting::Set(20);
    change(
        &lab,
        "a",
        PortChange {
            macs,
            ..PortChange::default()
        },
    );
    let flood = (0..100).map(|number| frame(from(number), mac(2), 60, 0));
    pour(&mut a, &mut [&mut b], flood);
    assert_eq!(lab.port("a").addresses, 20);
}

#[test]
fn the_address_of_a_running_port_cannot_be_taken_by_another() {
    let lab = Lab::start(&["a,mac=02:00:00:00:00:01", "b", "c"]);
    let [mut a, mut b, mut c] = guests(&lab, ["a", "b", "c"]);
    // Before the owner has said a word, and after.
    for round in 0..2 {
        b.send(&frame(mac(1), mac(9), 60, 1));
        b.drain();
        assert_eq!((a.try_receive(), c.try_receive()), (None, None));
        let statistics = lab.until("the drop", |s| {
            s.ports[1].drops.get("spoofed_mac") == Some(&(round + 1))
        });
        agree(&statistics);
        a.send(&frame(mac(1), BROADCAST, 60, 2));
        b.receive();
        c.receive();
        c.send(&frame(mac(3), mac(1), 60, 3));
        assert_eq!(a.receive().frame, frame(mac(3), mac(1), 60, 3));
        assert_eq!(b.try_receive(), None);
    }
    // It went elsewhere: the address may follow.
    drop(a);
    lab.until("the end of the session", |s| !s.ports[0].connected);
    b.send(&frame(mac(1), BROADCAST, 60, 4));
    c.receive();
    c.send(&frame(mac(3), mac(1), 60, 5));
    assert_eq!(b.receive().frame, frame(mac(3), mac(1), 60, 5));
}

/// Bytes that reach `to` in `window`, after what may pass at once has passed.
fn measure(from: &mut Guest, to: &mut Guest, burst: u64, window: Duration) -> f64 {
    let mut began = None;
    loop {
        from.send(&frame(mac(1), mac(2), 1250, 0));
        while to.try_receive().is_some() {}
        match began {
            None if to.received_bytes > burst + 50_000 => {
                began = Some((Instant::now(), to.received_bytes));
            }
            Some((start, bytes)) if start.elapsed() > window => {
                let bits = (to.received_bytes - bytes) * 8;
                return bits as f64 / start.elapsed().as_secs_f64();
            }
            _ => {}
        }
    }
}

#[test]
fn a_rate_is_exact_in_both_directions() {
    // Half a second may be missed and made up for: the machine may be busy with other things.
    for [first, second] in [
        ["a,rate=20M,burst=1250k", "b"],
        ["a", "b,rate=20M,burst=1250k"],
    ] {
        let lab = Lab::start(&[first, second]);
        let [mut a, mut b] = guests(&lab, ["a", "b"]);
        b.send(&frame(mac(2), BROADCAST, 60, 0));
        a.receive();
        let rate = measure(&mut a, &mut b, 1_250_000, Duration::from_secs(1)) / 20e6;
        println!("{first} to {second}: {rate:.4} of the rate");
        assert!((0.95..1.05).contains(&rate), "{rate}");
        let delays = lab.port("a").queues[0].rate_delays;
        let drops = lab.port("b").drops.get("rate_limited").copied();
        assert_eq!((delays > 0, drops.is_some()), (second == "b", first == "a"));
    }
}

#[test]
fn a_guest_that_rests_goes_on_when_its_rate_is_raised() {
    let lab = Lab::start(&["a,rate=8k", "b"]);
    let [mut a, mut b] = guests(&lab, ["a", "b"]);
    // A kilobyte per second: the rest would take minutes.
    for number in 0..40 {
        a.send(&frame(mac(1), mac(2), 9000, number));
    }
    lab.until("a rest", |s| s.ports[0].queues[0].rate_delays > 0);
    assert!(b.received_bytes < 360_000);
    let rate = Setting::Set(Rate::new(1_000_000_000).unwrap());
    change(
        &lab,
        "a",
        PortChange {
            rate,
            ..PortChange::default()
        },
    );
    b.receive_all(40);
    a.drain();
    assert_eq!(lab.settled(40).dropped, 0);
}
