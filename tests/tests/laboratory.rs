//! The laboratory itself; but for the last test without Ringway: when these fail, it is not the switch's fault.

use anyhow::Result;
use ringway_tests::{
    Lab, Need, Netns, Nic,
    iperf::Iperf,
    pair::{A, B, boot_both, ping},
    testpmd::Testpmd,
};

#[test]
fn a_guest_boots_and_reaches_its_host_over_a_tap() -> Result<()> {
    let needs = [Need::Guests, Need::Namespaces];
    let Some(lab) = Lab::with("laboratory-tap", &needs)? else {
        return Ok(());
    };
    let netns = Netns::new()?;
    netns.tap("rw0", 2, "10.0.0.254/24")?;
    let guest = lab
        .guest("a")
        .processors(2)
        .nic(Nic::tap("rw0").queues(2).mtu(1400))
        .within(&netns)
        .boot()?;
    guest.configure("eth0", "10.0.0.1/24")?;
    ping(&guest, "10.0.0.254", 20)?;
    assert!(guest.sh("ip link show eth0")?.contains("mtu 1400"));
    assert!(guest.sh("ethtool -l eth0")?.contains("Combined:\t2"));

    let output = guest.run("echo out; echo err >&2; exit 7")?;
    assert_eq!(output.status, 7);
    assert_eq!((output.stdout.trim(), output.stderr.trim()), ("out", "err"));
    let long = guest.sh("seq 1 20000")?;
    assert_eq!(long.lines().count(), 20_000);
    Ok(())
}

#[test]
fn two_guests_meet_over_a_foreign_back_end() -> Result<()> {
    let needs = [Need::Guests, Need::Program("dpdk-testpmd")];
    let Some(lab) = Lab::with("laboratory-vhost-user", &needs)? else {
        return Ok(());
    };
    let device = |index, name| {
        format!(
            "net_vhost{index},iface={},queues=2",
            lab.path(name).display()
        )
    };
    let mut middle = Testpmd::start(&lab, "middle", &[device(0, "a"), device(1, "b")], 2)?;
    middle.command("set fwd io")?;
    middle.command("start")?;
    let guest = |name| lab.guest(name).processors(2).nic(lab.nic(name).queues(2));
    let (a, b) = boot_both(guest("a"), guest("b"))?;
    a.configure("eth0", &format!("{A}/24"))?;
    b.configure("eth0", &format!("{B}/24"))?;
    ping(&a, B, 20)?;
    let measured = Iperf::new(&a, &b, B).run()?;
    assert!(measured.bytes > 1_000_000, "{measured:?}");
    Ok(())
}

/// Of a switch that does not start, the lab tells why; a panic over how it ended would hide that.
#[test]
fn a_switch_that_does_not_start_says_why() -> Result<()> {
    let Some(lab) = Lab::with("laboratory-switch", &[])? else {
        return Ok(());
    };
    let refused = lab.switch().port("tap,name=rw-none0").start();
    let error = format!("{:#}", refused.unwrap_err());
    assert!(error.contains("rw-none0"), "{error}");
    Ok(())
}
