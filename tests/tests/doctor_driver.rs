//! `ringway doctor` and what a guest's driver made of its NIC: a guest that boots, uses fewer queues than it might, and loses its
//! driver; QEMU's monitor and the tap tell.

use std::{fs, time::Duration};

use anyhow::{Context, Result, ensure};
use ringway_tests::{
    Endpoint, Lab, Need, Netns, Nic,
    doctor::{Doctor, Finding},
    switch::binary,
};
use serde_json::{Value, json};

/// For a look at the machine.
const LIMIT: Duration = Duration::from_secs(60);

#[test]
fn queues_that_a_guest_leaves_and_a_driver_that_is_gone() -> Result<()> {
    let needs = [Need::Guests, Need::Root, Need::Namespaces];
    let Some(lab) = Lab::with("doctor-driver", &needs)? else {
        return Ok(());
    };
    let place = Netns::new()?;
    place.tap("rw0", 2, "10.0.0.254/24")?;
    let mut guest = lab
        .guest("a")
        .processors(2)
        .nic(Nic::tap("rw0").queues(2))
        .within(&place)
        .boot()?;
    let this = format!("--pid {}", guest.process().id());
    let doctor = Doctor::new(&place)?;
    doctor.is_silent(&this)?;

    let file = lab.path("facts");
    let ask = format!(
        "{} doctor {this} --save {}",
        binary()?.display(),
        file.display()
    );
    let machine = || -> Result<Value> {
        place.start(&ask)?.wait(LIMIT)?;
        let facts: Value = serde_json::from_str(&fs::read_to_string(&file)?)?;
        Ok(facts["machines"][0].clone())
    };
    let seen = machine()?;
    let nic = &seen["virtio"][0];
    ensure!(
        seen["state"] == "running" && seen["unasked"].is_null(),
        "{seen}"
    );
    let has = |list: &str, name: &str| {
        let list = nic[list].as_array().into_iter().flatten();
        list.filter(|it| *it == name).count() == 1
    };
    ensure!(has("status", "DRIVER_OK"), "{nic}");
    ensure!(
        has("offered", "VIRTIO_NET_F_MQ") && has("acked", "VIRTIO_NET_F_MQ"),
        "{nic}"
    );
    ensure!(has("acked", "VIRTIO_F_VERSION_1"), "{nic}");
    let ready = json!({"size": 256, "ready": true});
    ensure!(nic["queues"][3] == ready && nic["vectors"] == 6, "{nic}");

    guest.sh("ethtool -L eth0 combined 1")?;
    let found = doctor.finds(&this, "queues-unused", "")?;
    let cure = found.cure[0].strip_prefix("# in the guest: ");
    guest.sh(cure.context("not for the guest")?)?;
    doctor.is_silent(&this)?;

    // Who has the monitor keeps it, and the tap tells as well.
    let mut monitor = guest.monitor()?;
    let seen = machine()?;
    ensure!(seen["unasked"] == "somebody has its monitor", "{seen}");
    ensure!(seen["virtio"] == json!([]), "{seen}");
    monitor.execute("query-status", json!({}))?;
    drop(monitor);

    // Nobody waits here until a driver is late enough to be missed: the facts are made older.
    let older = || -> Result<Vec<Finding>> {
        place.start(&ask)?.wait(LIMIT)?;
        let mut facts: Value = serde_json::from_str(&fs::read_to_string(&file)?)?;
        facts["machines"][0]["age"] = 3600.into();
        fs::write(&file, facts.to_string())?;
        doctor.asks(&format!("--from {}", file.display()))
    };
    ensure!(older()?.is_empty());
    guest.sh("basename $(readlink /sys/class/net/eth0/device) > /tmp/nic")?;
    guest.sh("cat /tmp/nic > /sys/bus/virtio/drivers/virtio_net/unbind")?;
    doctor.is_silent(&this)?;
    let found = older()?;
    ensure!(
        found.len() == 1 && found[0].fault == "driver-missing",
        "{found:?}"
    );
    guest.sh("cat /tmp/nic > /sys/bus/virtio/drivers/virtio_net/bind")?;
    ensure!(older()?.is_empty());
    Ok(())
}
