//! `ringway doctor` and what a guest notices of faults in its command line: it is booted with them, what people would see is seen, the
//! printed lines are followed one after the other, and the guest that the last of them boots is well.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use ringway_tests::{
    Guest, Lab, Need, Netns,
    doctor::{Doctor, RECONNECT, bridge, mac, name, nic, tap, tap_nic},
    guest::Nic,
};

/// The interface that has this address.
fn interface(guest: &Guest, mac: &str) -> Result<String> {
    let path = guest.sh(&format!(
        "dirname $(grep -l {mac} /sys/class/net/*/address)"
    ))?;
    let name = path.trim().rsplit('/').next();
    Ok(name.context("no name")?.to_owned())
}

/// `ethtool -l`: the most queue pairs, and those in use. An interface that has none of them has an error.
fn queues(guest: &Guest, interface: &str) -> Result<[u32; 2]> {
    let said = guest.run(&format!("ethtool -l {interface}"))?;
    ensure!(said.status == 0, "{said:?}");
    let lines = said
        .stdout
        .lines()
        .filter_map(|line| line.strip_prefix("Combined:"));
    let numbers: Vec<u32> = lines.filter_map(|it| it.trim().parse().ok()).collect();
    numbers.try_into().ok().with_context(|| said.stdout)
}

/// Lines of /proc/interrupts that are of queues of an interface.
fn interrupts(guest: &Guest, interface: &str) -> Result<usize> {
    let device = format!("$(basename $(readlink /sys/class/net/{interface}/device))");
    let count = guest.sh(&format!(
        "grep -cE \" {device}-(virtqueues|(in|out)put[.].*)$\" /proc/interrupts"
    ))?;
    Ok(count.trim().parse()?)
}

/// Names of the faults that are found, in the order in which they are printed.
fn names(found: &[ringway_tests::doctor::Finding]) -> Vec<&str> {
    found.iter().map(|it| it.fault.as_str()).collect()
}

#[test]
fn several_faults_of_one_machine_are_cured_one_after_another() -> Result<()> {
    let needs = [Need::FullGuest, Need::Namespaces, Need::Root];
    let Some(lab) = Lab::with("doctor-several", &needs)? else {
        return Ok(());
    };
    let place = Netns::new()?;
    let doctor = Doctor::new(&place)?;
    let bridge = bridge(&place)?;
    let kernel = tap(&place, &bridge, "multi_queue")?;
    place.tap("uplink", 1, "10.22.0.1/24")?;
    let [off, missing, beyond, vectors, address, sound] =
        ["off", "one", "beyond", "vectors", "mac", "sound"].map(name);
    let macs: BTreeMap<&str, String> =
        [&kernel, &off, &missing, &beyond, &vectors, &address, &sound]
            .map(|name| (name.as_str(), mac()))
            .into();
    let own = mac();
    let mut switch = lab
        .switch()
        .within(&place)
        .vhost_user(&off, 2)
        .vhost_user(&missing, 2)
        .vhost_user(&beyond, 4)
        .vhost_user(&vectors, 2)
        .vhost_user(&sound, 2)
        .port(&format!(
            "vhost-user,path={},name={address},mac={own}",
            lab.path(&address).display()
        ))
        .port("tap,name=uplink")
        .start()?;

    let user = |name: &str, netdev: &str, device: &str| {
        let device = format!("{device},mac={}", macs[name]);
        nic(
            name,
            &lab.path(name).display().to_string(),
            RECONNECT,
            netdev,
            &device,
        )
    };
    let sick = [
        tap_nic(
            &kernel,
            ",queues=2",
            &format!(",mac={}", macs[kernel.as_str()]),
        )
        .replace("virtio-net-pci", "e1000"),
        user(&off, ",queues=2", ""),
        user(&missing, "", ",mq=on"),
        user(&beyond, ",queues=4", ",mq=on,vectors=10"),
        user(&vectors, ",queues=2", ",mq=on,vectors=4"),
        user(&address, "", ""),
    ]
    .join(" ");
    let description = || {
        let guest = lab.guest("several").variant("full").processors(2);
        guest.one_thread().within(&place)
    };
    let flags: Vec<&str> = sick.split_whitespace().collect();
    let well = Nic::vhost_user(lab.path(&sound))
        .queues(2)
        .mac(&macs[sound.as_str()]);
    let mut guest = description().further(&flags).nic(well).boot()?;
    let of = |guest: &Guest, name: &str| interface(guest, &macs[name]);

    // What a person sees in it.
    let said = guest.run(&format!("ethtool -l {}", of(&guest, &kernel)?))?;
    ensure!(said.stderr.contains("Operation not supported"), "{said:?}");
    for name in [&off, &missing] {
        let has = queues(&guest, &of(&guest, name)?)?;
        ensure!(has == [1, 1], "{has:?}");
    }
    let wide = of(&guest, &beyond)?;
    let has = queues(&guest, &wide)?;
    ensure!(has == [4, 2], "{has:?}");
    let shared = interrupts(&guest, &of(&guest, &vectors)?)?;
    ensure!(shared == 1, "{shared} lines");
    let lost = of(&guest, &address)?;
    guest.configure(&lost, "10.22.0.2/24")?;
    let ping = "ping -q -c 2 -W 2 10.22.0.1";
    let answered = guest.run(ping)?;
    ensure!(answered.status == 1, "{answered:?}");
    switch.await_statistics("refused frames", |it| {
        it.port(&address)
            .is_ok_and(|port| port.drops["spoofed_mac"] > 0)
    })?;
    // The twin.
    let fit = of(&guest, &sound)?;
    let has = (queues(&guest, &fit)?, interrupts(&guest, &fit)?);
    ensure!(has == ([2, 2], 4), "{has:?}");

    let mut left = vec![
        "queues-need-virtio",
        "queues-mq-off",
        "queues-missing",
        "queues-beyond-cpus",
        "vectors-too-few",
        "wrong-mac",
    ];
    let mut arguments = format!("--pid {}", guest.process().id());
    let mut last = None;
    loop {
        let found = doctor.asks(&arguments)?;
        ensure!(names(&found) == left, "{found:#?}");
        let Some(first) = found.first() else { break };
        left.remove(0);
        arguments = format!("-- {}", first.line()?);
        last = Some(first.clone());
    }
    let words = last.context("no line")?.words()?;
    drop(guest);

    let mut guest = description().flags(words[1..].to_vec()).boot()?;
    for name in [&kernel, &off, &missing, &beyond, &vectors, &sound] {
        let it = of(&guest, name)?;
        let has = (queues(&guest, &it)?, interrupts(&guest, &it)?);
        ensure!(has == ([2, 2], 4), "{name}: {has:?}");
    }
    let found = interface(&guest, &own)?;
    guest.configure(&found, "10.22.0.2/24")?;
    guest.sh(ping)?;
    doctor.is_silent(&format!("--pid {}", guest.process().id()))
}
