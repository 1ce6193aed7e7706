//! Guests that leave and come back: driver, kernel, QEMU; to the same socket, while others go on.

use anyhow::{Result, ensure};
use ringway_tests::{
    Guest, Lab, Need, Netns, Nic, Pair, Switch,
    audit::audit,
    iperf::{Iperf, Measured},
    pair::{A, B, ping},
    stream::Stream,
    switch::PortStatistics,
};

const HOST: &str = "10.0.0.254";
const QUEUES: u16 = 2;
/// VIRTIO_F_RING_PACKED
const RING_PACKED: usize = 34;

#[test]
fn a_guest_leaves_and_comes_back_while_the_other_goes_on() -> Result<()> {
    let needs = [
        Need::Guests,
        Need::Namespaces,
        Need::Program("socat"),
        Need::Program("openssl"),
    ];
    let Some(lab) = Lab::with("comeback", &needs)? else {
        return Ok(());
    };
    let netns = Netns::new()?;
    netns.tap("rw0", 1, &format!("{HOST}/24"))?;
    let switch = lab
        .switch()
        .vhost_user("a", QUEUES)
        .vhost_user("b", QUEUES)
        .port("tap,name=rw0")
        // Names every message.
        .arguments(&["-vv"])
        .within(&netns)
        .start()?;
    let with = |name, nic: Nic| {
        let guest = lab.guest(name).processors(QUEUES).reboots();
        guest.one_thread().nic(nic.queues(QUEUES))
    };
    let guest = |name| with(name, lab.nic(name));
    let Pair {
        mut a,
        b,
        mut switch,
    } = Pair::boot(switch, guest("a"), guest("b"))?;
    both_carry(&a, &b, 1)?;
    let fresh = switch.footprint()?;

    // The other guest keeps the switch busy with the host all the while.
    let traffic = |seconds| {
        Iperf::new(&b, &netns, HOST)
            .streams(2)
            .seconds(seconds)
            .start()
    };

    let busy = traffic(8)?;
    for _ in 0..3 {
        rebind(&a)?;
        a.configure("eth0", &format!("{A}/24"))?;
        both_carry(&a, &b, 2)?;
    }
    going_on(&lab, "driver unbound and bound 3 times", busy.finish()?)?;
    one_pair_and_both(&a, &b)?;

    let busy = traffic(12)?;
    a.reboot()?;
    switch.await_message("that the guest's reset resets the device", |line| {
        line.contains("RESET_DEVICE")
    })?;
    a.configure("eth0", &format!("{A}/24"))?;
    both_carry(&a, &b, 3)?;
    going_on(&lab, "guest rebooted", busy.finish()?)?;

    let busy = traffic(12)?;
    // As from `kill -9`, in the middle of a stream.
    let stream = Iperf::new(&a, &b, B).seconds(30).start()?;
    await_frames(&mut switch, "a", 1000)?;
    a.process().kill();
    ensure!(stream.finish().is_err());
    await_left(&mut switch)?;
    drop(a);
    let a = with("a", lab.nic("a").packed()).boot()?;
    a.configure("eth0", &format!("{A}/24"))?;
    ensure!(a.negotiated("eth0", RING_PACKED)?);
    both_carry(&a, &b, 4)?;
    going_on(&lab, "QEMU killed and started anew, packed", busy.finish()?)?;

    for round in [1, 2] {
        rebind(&a)?;
        a.configure("eth0", &format!("{A}/24"))?;
        both_carry(&a, &b, 8 + round)?;
    }
    one_pair_and_both(&a, &b)?;
    a.reboot()?;
    a.configure("eth0", &format!("{A}/24"))?;
    both_carry(&a, &b, 11)?;

    let now = switch.footprint()?;
    lab.report(&format!(
        "the switch held {fresh:?} at first, holds {now:?}"
    ));
    ensure!(now.files == fresh.files && now.threads == fresh.threads);
    ensure!(now.mappings <= fresh.mappings + 2);
    let statistics = switch.statistics()?;
    statistics.check()?;
    lab.report(&format!(
        "drops of a: {:?}, of b: {:?}",
        statistics.port("a")?.drops,
        statistics.port("b")?.drops
    ));
    for guest in [&a, &b] {
        ping(guest, HOST, 50)?;
    }
    Ok(())
}

/// A switch that dies takes nothing along: the guests connect to the next one, whoever of both listens.
#[test]
fn the_switch_dies_and_guests_go_on_with_the_next_one() -> Result<()> {
    let Some(lab) = Lab::with("switch-dies", &[Need::Guests, Need::Program("openssl")])? else {
        return Ok(());
    };
    let start = || {
        let b = lab.path("b");
        lab.switch()
            .vhost_user("a", QUEUES)
            .port(&format!(
                "vhost-user,name=b,path={},mode=client,queues={QUEUES}",
                b.display()
            ))
            .start()
    };
    let b = Nic::vhost_user_listening(lab.path("b")).queues(QUEUES);
    let guest = |name, nic| lab.guest(name).processors(QUEUES).nic(nic);
    let Pair { a, b, switch } = Pair::boot(
        start()?,
        guest("a", lab.nic("a").queues(QUEUES)),
        guest("b", b),
    )?;
    both_carry(&a, &b, 7)?;

    let stream = Iperf::new(&a, &b, B).seconds(8).start()?;
    switch.kill();
    let mut switch = start()?;
    for name in ["a", "b"] {
        await_frames(&mut switch, name, 100)?;
    }
    // The connection outlives the switch.
    let measured = stream.finish()?;
    lab.report(&format!(
        "TCP over the death of the switch: {:.0} Mbit/s",
        measured.megabits
    ));
    both_carry(&a, &b, 8)?;
    switch.statistics()?.check()
}

/// Driver variants: no merged buffers (every buffer holds the largest frame), and a driver older than VERSION_1, whose header has
/// 10 bytes; neither indirect descriptors nor event indices.
#[test]
fn other_layouts_of_buffers_and_headers() -> Result<()> {
    let Some(lab) = Lab::with("layouts", &[Need::Guests, Need::Program("openssl")])? else {
        return Ok(());
    };
    let plain = |name| lab.nic(name).property("mrg_rxbuf=off");
    let legacy = plain("b")
        .property("disable-modern=on,disable-legacy=off")
        .property("indirect_desc=off,event_idx=off");
    let mut pair = Pair::with(&lab, 1, plain("a"), legacy)?;
    let statistics = pair.statistics()?;
    let (mergeable, version_1, indirect_and_event) = (1 << 15, 1 << 32, 0b11 << 28);
    let [a, b] = [statistics.port("a")?, statistics.port("b")?];
    ensure!(
        a.features()? & (mergeable | version_1 | indirect_and_event)
            == version_1 | indirect_and_event,
        "{a:?}"
    );
    ensure!(
        b.features()? & (mergeable | version_1 | indirect_and_event) == 0,
        "{b:?}"
    );
    both_carry(&pair.a, &pair.b, 5)?;
    pair.ping(50, 1472)?;
    let statistics = audit(&mut pair.switch, &[&pair.a, &pair.b])?;
    lab.report(&format!(
        "drops: {:?}",
        statistics
            .ports
            .iter()
            .map(|port| &port.drops)
            .collect::<Vec<_>>()
    ));
    Ok(())
}

/// Takes the driver from the device and gives it back, as for a device that is handed to another driver.
fn rebind(guest: &Guest) -> Result<()> {
    guest.sh(
        "device=$(basename $(readlink /sys/class/net/eth0/device)) && cd /sys/bus/virtio/drivers/virtio_net && \
         echo $device >unbind && [ ! -e /sys/class/net/eth0 ] && echo $device >bind && [ -e /sys/class/net/eth0 ]",
    )?;
    Ok(())
}

/// Changes the number of queue pairs while a guest runs.
fn one_pair_and_both(a: &Guest, b: &Guest) -> Result<()> {
    for pairs in [1, QUEUES] {
        a.sh(&format!("ethtool -L eth0 combined {pairs}"))?;
        both_carry(a, b, 6)?;
    }
    Ok(())
}

fn both_carry(a: &Guest, b: &Guest, key: u8) -> Result<()> {
    ping(a, B, 20)?;
    ping(b, A, 20)?;
    let stream = Stream { blocks: 4, key };
    stream.send(a, b, B)?;
    stream.send(b, a, A)?;
    Ok(())
}

fn going_on(lab: &Lab, what: &str, measured: Measured) -> Result<()> {
    lab.report(&format!(
        "{what}; meanwhile the other guest sent its host {:.0} Mbit/s",
        measured.megabits
    ));
    ensure!(measured.megabits > 1.0, "{measured:?}");
    Ok(())
}

fn await_frames(switch: &mut Switch, port: &str, frames: u64) -> Result<()> {
    let count = |port: &PortStatistics| port.sum().rx_frames;
    let before = count(switch.statistics()?.port(port)?);
    switch.await_statistics("frames from the guest", |statistics| {
        statistics
            .port(port)
            .is_ok_and(|port| count(port) >= before + frames)
    })?;
    Ok(())
}

/// The switch notices, says so, and stays usable.
fn await_left(switch: &mut Switch) -> Result<()> {
    switch.await_statistics("the guest's leaving", |statistics| {
        statistics.port("a").is_ok_and(|port| !port.connected)
    })?;
    switch.await_message("that the front-end left", |line| {
        line.contains("port a: front-end disconnected")
    })?;
    Ok(())
}
