//! `ringway doctor` and faults of taps, made for real in a namespace: QEMU fails, the fault and nothing else is found though its
//! healthy twin is beside it, the printed cure is carried out as it stands, nothing is found any more, and QEMU starts.

use std::{process::Command, time::Duration};

use anyhow::{Result, ensure};
use ringway_tests::{
    Lab, Need, Netns, Process,
    doctor::{Doctor, bridge, command, name, tap, tap_nic},
};

const NEEDS: [Need; 5] = [
    Need::Guests,
    Need::Namespaces,
    Need::Root,
    Need::Program("setpriv"),
    Need::Program("ip"),
];
const LIMIT: Duration = Duration::from_secs(20);
/// Root's user, and none of its right to set up networks.
const NO_ADMIN: &str =
    "setpriv --bounding-set -net_admin --inh-caps -net_admin --ambient-caps -net_admin";

/// A NIC on a tap, with that many queues.
fn nic(tap: &str, queues: u16) -> String {
    let vectors = 2 * queues + 2;
    match queues {
        1 => tap_nic(tap, "", ""),
        _ => tap_nic(
            tap,
            &format!(",queues={queues}"),
            &format!(",mq=on,vectors={vectors}"),
        ),
    }
}

/// A namespace with a bridge.
fn bridged() -> Result<(Netns, String)> {
    let place = Netns::new()?;
    let bridge = bridge(&place)?;
    Ok((place, bridge))
}

/// A QEMU that stays, with its process.
fn stays(place: &Netns, flags: &str) -> Result<Process> {
    let started = place.keep("qemu", &format!("exec {}", command(flags)))?;
    // Its taps are open as soon as it listens; until then /proc says it is still a shell.
    let end = std::time::Instant::now() + LIMIT;
    loop {
        let open = Command::new("sh")
            .args([
                "-c",
                &format!("grep -sq iff: /proc/{}/fdinfo/*", started.id()),
            ])
            .status()?;
        if open.success() {
            return Ok(started);
        }
        ensure!(std::time::Instant::now() < end, "QEMU did not open its tap");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn taps_that_cannot_be_opened_are_told_apart() -> Result<()> {
    let Some(_lab) = Lab::with("doctor-taps", &NEEDS)? else {
        return Ok(());
    };
    let (place, bridge) = bridged()?;
    let root = Doctor::new(&place)?;
    let user = root.clone().after(NO_ADMIN);
    const INVALID: &str = "Invalid argument";
    const DENIED: &str = "Operation not permitted";

    let tap = |options: &str| tap(&place, &bridge, options);
    let revives = |doctor: &Doctor<'_>, sick: &str, well: &str, queues, fault, says| {
        let flags = nic(sick, queues) + &nic(well, queues);
        doctor.revives(&flags, fault, sick, says)
    };

    // Several queues of a tap of one, and the other way round.
    let (one, several) = (tap("")?, tap("multi_queue")?);
    revives(&root, &tap("")?, &several, 2, "tap-queues", INVALID)?;
    revives(&root, &tap("multi_queue")?, &one, 1, "tap-queues", INVALID)?;
    // A tun in place of a tap.
    let tun = name("t");
    place.sh(&format!("ip tuntap add dev {tun} mode tun"))?;
    revives(&root, &tun, &one, 1, "not-a-tap", INVALID)?;
    // A tap of somebody else, and one that nobody made.
    let well = tap("user 0")?;
    revives(&user, &tap("user 4711")?, &well, 1, "tap-owner", DENIED)?;
    let (sick, well) = (tap("group 4711")?, tap("group 0")?);
    // That group may open it, and that is so for all who have the right to set up networks.
    let line = command(&(nic(&sick, 1) + &nic(&well, 1)));
    root.is_silent(&format!("-- {line}"))?;
    root.starts(&line)?;
    revives(&user, &sick, &well, 1, "tap-owner", DENIED)?;
    let well = tap("multi_queue user 0")?;
    revives(&user, &name("t"), &well, 2, "tap-missing", DENIED)
}

#[test]
fn who_has_a_tap_open_is_named() -> Result<()> {
    let Some(_lab) = Lab::with("doctor-busy", &NEEDS)? else {
        return Ok(());
    };
    let (place, bridge) = bridged()?;
    let doctor = Doctor::new(&place)?;
    let (sick, well) = (tap(&place, &bridge, "")?, tap(&place, &bridge, "")?);
    let line = command(&(nic(&sick, 1) + &nic(&well, 1)));
    let mut other = stays(&place, &nic(&sick, 1))?;
    doctor.refuses(&line, "Device or resource busy")?;
    let found = doctor.mends(&format!("-- {line}"), "tap-busy", &sick)?;
    ensure!(found.what.contains(&other.id().to_string()), "{found:?}");
    other.wait(LIMIT)?;
    doctor.starts(&line)
}

#[test]
fn taps_that_lead_nowhere_are_found_before_and_while_they_are_used() -> Result<()> {
    let Some(lab) = Lab::with("doctor-loose", &NEEDS)? else {
        return Ok(());
    };
    let (place, bridge) = bridged()?;
    let doctor = Doctor::new(&place)?;
    let well = tap(&place, &bridge, "")?;
    // With an address it is a way of its own; no other thing is said of it.
    let routed = name("t");
    place.sh(&format!(
        "ip tuntap add dev {routed} mode tap && ip address add 192.0.2.1/24 dev {routed} && ip link set {routed} up"
    ))?;
    let make = |spoil: &str| -> Result<String> {
        let sick = tap(&place, &bridge, "")?;
        place.sh(&spoil.replace("TAP", &sick))?;
        Ok(sick)
    };
    for spoil in [
        "ip link set TAP down",
        "ip link set TAP nomaster",
        "ip link set TAP down && ip link set TAP nomaster",
    ] {
        let sick = make(spoil)?;
        let flags = nic(&sick, 1) + &nic(&well, 1) + &nic(&routed, 1);
        let found = doctor.mends(
            &format!("-- {}", command(&flags)),
            "tap-not-connected",
            &sick,
        )?;
        ensure!(
            found.cure.iter().all(|line| !line.starts_with('#')),
            "{found:?}"
        );

        // The same of a machine that runs, told by its tap and from its namespace and from without.
        let sick = make(spoil)?;
        let machine = stays(&place, &nic(&sick, 1))?;
        let twin = stays(&place, &nic(&well, 1))?;
        doctor.is_silent(&format!("--pid {}", twin.id()))?;
        doctor.mends(
            &format!("--pid {}", machine.id()),
            "tap-not-connected",
            &sick,
        )?;
        let outside = Netns::new()?;
        let doctor = Doctor::new(&outside)?;
        place.sh(&spoil.replace("TAP", &sick))?;
        doctor.is_silent(&format!("--pid {}", twin.id()))?;
        let found = doctor.mends(
            &format!("--pid {}", machine.id()),
            "tap-not-connected",
            &sick,
        )?;
        ensure!(found.cure[0].starts_with("nsenter"), "{found:?}");
    }

    // What was saved is judged elsewhere in the same way.
    let sick = make("ip link set TAP down")?;
    let file = lab.path("facts.json");
    let line = command(&(nic(&sick, 1) + &nic(&well, 1)));
    doctor.finds(
        &format!("--save {} -- {line}", file.display()),
        "tap-not-connected",
        &sick,
    )?;
    doctor.mends(&format!("-- {line}"), "tap-not-connected", &sick)?;
    let elsewhere = Netns::new()?;
    let elsewhere = Doctor::new(&elsewhere)?;
    elsewhere.finds(
        &format!("--from {}", file.display()),
        "tap-not-connected",
        &sick,
    )?;
    Ok(())
}
