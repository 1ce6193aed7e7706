//! A real guest at a daemon's network, whose switch is killed.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ringway_tests::{
    Daemon, Lab, Need, Nic,
    house::{House, OUTSIDE},
    stream::Stream,
};

const NEEDS: [Need; 6] = [
    Need::Root,
    Need::Namespaces,
    Need::Guests,
    Need::Program("nft"),
    Need::Program("socat"),
    Need::Program("openssl"),
];

#[test]
fn a_guests_connection_outlives_the_switch() -> Result<()> {
    let Some(lab) = Lab::with("daemon-guest", &NEEDS)? else {
        return Ok(());
    };
    let house = House::new()?;
    let mut daemon = Daemon::configured(&lab, &house.host, "default_network = false")?;
    daemon.ringway("net create lan --subnet 10.66.0.0/24")?;
    let port = daemon.json("port create lan vm --address 10.66.0.10")?;
    let text = |key: &str| port[key].as_str().context("not said");
    let nic = Nic::vhost_user(text("socket")?).mac(text("mac")?);
    let guest = lab.guest("vm").nic(nic).boot()?;
    guest.configure("eth0", "10.66.0.10/24")?;
    guest.sh("ip route add default via 10.66.0.1")?;
    guest.sh(&format!("ping -c 1 -W 10 {OUTSIDE}"))?;

    let ticks = guest.start(&format!("ping -q -i 0.05 -c 120 -W 5 {OUTSIDE}"))?;
    let stream = Stream { blocks: 48, key: 5 };
    let sending = stream.start(&guest, &house.outside, OUTSIDE)?;
    let killed = daemon.switch_id()?;
    house.host.sh(&format!("kill -KILL {killed}"))?;
    daemon.await_message("that the switch is back", |line| {
        line.contains("the switch runs again")
    })?;
    ensure!(daemon.switch_id()? != killed);
    let arrived = sending.finish()?;
    let pinged = ticks.wait(Duration::from_secs(60))?.stdout;
    let summary = pinged.lines().find(|line| line.contains("received"));
    lab.report(&format!("{arrived}; {}", summary.unwrap_or_default()));
    let info = daemon.json("info")?;
    ensure!(info["switch_restarts"] == 1, "{info}");
    Ok(())
}
