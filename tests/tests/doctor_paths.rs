//! `ringway doctor` and what frames meet on their way through the host: each fault is made in a namespace, pings fail as people see
//! it, the fault alone is found though a healthy twin is beside it, its cure is carried out as it stands, and pings pass.

use anyhow::{Result, ensure};
use ringway_tests::{
    Lab, Need, Netns,
    doctor::{ALONE, Doctor, bridge, command, mac, name, tap, tap_nic},
};

const NEEDS: [Need; 5] = [
    Need::Guests,
    Need::Namespaces,
    Need::Root,
    Need::Program("nft"),
    Need::Program("ping"),
];

/// A host with two machines' taps, each in a bridge of its own: one that something is wrong with, and one that is sound.
struct Host {
    place: Netns,
    sick: Side,
    well: Side,
}

/// A bridge and the tap of a machine.
struct Side {
    bridge: String,
    tap: String,
}

impl Host {
    fn new() -> Result<Self> {
        let place = Netns::new()?;
        let side = || -> Result<Side> {
            let bridge = bridge(&place)?;
            let tap = tap(&place, &bridge, "")?;
            Ok(Side { bridge, tap })
        };
        let (sick, well) = (side()?, side()?);
        Ok(Self { place, sick, well })
    }

    /// A command line of both machines in one, with what more the sick one's NIC has.
    fn line(&self, device: &str) -> String {
        command(&(tap_nic(&self.sick.tap, "", device) + &tap_nic(&self.well.tap, "", "")))
    }

    /// The arguments of doctor for both machines.
    fn both(&self) -> String {
        format!("-- {}", self.line(""))
    }

    /// A namespace whose `eth0` is joined to a bridge by a link of this name, and has this address.
    fn guest(&self, bridge: &str, link: &str, address: &str) -> Result<Netns> {
        let guest = self.joined(link, address)?;
        self.place
            .sh(&format!("ip link set {link} master {bridge}"))?;
        Ok(guest)
    }

    /// A namespace with `eth0` at the other end of a link.
    fn joined(&self, link: &str, address: &str) -> Result<Netns> {
        let guest = Netns::new()?;
        self.place.sh(&format!(
            "ip link add {link} type veth peer name eth0 netns {} && ip link set {link} up",
            guest.id()
        ))?;
        guest.sh(&format!(
            "ip address add {address} dev eth0 && ip link set eth0 up"
        ))?;
        Ok(guest)
    }

    /// A way out: a default route, and the namespace at its end, 198.51.100.2.
    fn outside(&self) -> Result<Netns> {
        let link = name("up");
        let outside = self.joined(&link, "198.51.100.2/24")?;
        self.place.sh(&format!(
            "ip address add 198.51.100.1/24 dev {link} && ip route add default via 198.51.100.2"
        ))?;
        outside.sh("ip route add default via 198.51.100.1")?;
        Ok(outside)
    }
}

fn pings(from: &Netns, to: &str) -> bool {
    from.sh(&format!("ping -q -c 1 -W 1 {to}")).is_ok()
}

fn passes(from: &Netns, to: &str, passes: bool) -> Result<()> {
    // Neighbours may have to be found first.
    let seen = pings(from, to) || (passes && pings(from, to));
    ensure!(seen == passes, "ping {to}: {seen}");
    Ok(())
}

#[test]
fn an_mtu_that_differs_swallows_large_frames() -> Result<()> {
    let Some(_lab) = Lab::with("doctor-mtu", &NEEDS)? else {
        return Ok(());
    };
    let host = Host::new()?;
    let doctor = Doctor::new(&host.place)?;
    let (one, odd) = (name("p"), name("p"));
    let guest = host.guest(&host.sick.bridge, &one, "10.1.0.1/24")?;
    let _other = host.guest(&host.sick.bridge, &odd, "10.1.0.2/24")?;
    doctor.is_silent(&host.both())?;
    host.place.sh(&format!("ip link set {odd} mtu 1400"))?;
    let large = "-s 1450 10.1.0.2";
    passes(&guest, "10.1.0.2", true)?;
    passes(&guest, large, false)?;
    doctor.mends(&host.both(), "mtu-differs", &odd)?;
    passes(&guest, large, true)?;
    // A tap alone, and a guest that is told more than its tap carries.
    host.place
        .sh(&format!("ip link set {} mtu 1300", host.sick.tap))?;
    doctor.mends(&host.both(), "mtu-differs", &host.sick.tap)?;
    let told = format!("-- {}", host.line(",host_mtu=1600"));
    doctor.mends(&told, "mtu-differs", &host.sick.tap)?;
    Ok(())
}

#[test]
fn spanning_tree_keeps_a_new_machine_waiting() -> Result<()> {
    let Some(_lab) = Lab::with("doctor-stp", &NEEDS)? else {
        return Ok(());
    };
    let host = Host::new()?;
    let doctor = Doctor::new(&host.place)?;
    let bridge = &host.sick.bridge;
    let stp = format!("ip link set {bridge} type bridge stp_state 1 forward_delay 1500");
    host.place.sh(&stp)?;
    let guest = host.guest(bridge, &name("p"), "10.2.0.1/24")?;
    host.place
        .sh(&format!("ip address add 10.2.0.9/24 dev {bridge}"))?;
    passes(&guest, "10.2.0.9", false)?;
    doctor.mends(&host.both(), "stp-delay", bridge)?;
    passes(&guest, "10.2.0.9", true)?;
    // Where there may be loops it stays on, and waits as short as may be.
    let _second = host.guest(bridge, &name("p"), "10.2.0.2/24")?;
    host.place.sh(&stp)?;
    let found = doctor.mends(&host.both(), "stp-delay", bridge)?;
    ensure!(found.cure[0].contains("forward_delay"), "{found:?}");
    Ok(())
}

#[test]
fn what_shall_cross_the_host_is_stopped_by_it_or_by_a_firewall() -> Result<()> {
    let Some(_lab) = Lab::with("doctor-forward", &NEEDS)? else {
        return Ok(());
    };
    let host = Host::new()?;
    let doctor = Doctor::new(&host.place)?;
    let _outside = host.outside()?;
    let bridge = &host.sick.bridge;
    let guest = host.guest(bridge, &name("p"), "10.3.0.2/24")?;
    host.place
        .sh(&format!("ip address add 10.3.0.1/24 dev {bridge}"))?;
    guest.sh("ip route add default via 10.3.0.1")?;
    let beyond = "198.51.100.2";
    host.place.sh("sysctl -qw net.ipv4.ip_forward=0")?;
    passes(&guest, "10.3.0.1", true)?;
    passes(&guest, beyond, false)?;
    doctor.mends(&host.both(), "forwarding-off", bridge)?;
    passes(&guest, beyond, true)?;

    // As Docker leaves it; the twin has its rules.
    let well = &host.well.bridge;
    host.place
        .sh(&format!("ip address add 10.4.0.1/24 dev {well}"))?;
    doctor.is_silent(&host.both())?;
    host.place.sh(&format!(
        "nft 'table ip filter {{ chain DOCKER-USER {{ iifname {well} accept; oifname {well} accept; }}; \
         chain FORWARD {{ type filter hook forward priority filter; policy drop; counter jump DOCKER-USER; }}; }}'"
    ))?;
    passes(&guest, beyond, false)?;
    let found = doctor.mends(&host.both(), "forward-dropped", bridge)?;
    ensure!(found.cure[0].contains("DOCKER-USER"), "{found:?}");
    passes(&guest, beyond, true)?;
    // What a firewall accepts in another way is not said to be dropped.
    for rule in [
        "ip saddr 10.3.0.0/24 accept; ct state established,related accept",
        "iifname br* accept; ct state established,related accept",
        "jump others",
    ] {
        host.place.sh(&format!(
            "nft 'flush ruleset; table inet own {{ chain others {{ ip saddr 10.0.0.0/8 accept; ip daddr 10.0.0.0/8 accept; }}; \
             chain pass {{ type filter hook forward priority filter; policy drop; {rule}; }}; }}'"
        ))?;
        passes(&guest, beyond, true)?;
        doctor.is_silent(&host.both())?;
    }
    Ok(())
}

#[test]
fn a_firewall_is_shown_what_stays_within_a_bridge() -> Result<()> {
    let Some(_lab) = Lab::with("doctor-bridged", &NEEDS)? else {
        return Ok(());
    };
    let host = Host::new()?;
    let doctor = Doctor::new(&host.place)?;
    let bridge = &host.sick.bridge;
    let guest = host.guest(bridge, &name("p"), "10.5.0.1/24")?;
    let _other = host.guest(bridge, &name("p"), "10.5.0.2/24")?;
    let well = &host.well.bridge;
    host.place.sh(&format!(
        "nft 'table ip filter {{ chain FORWARD {{ type filter hook forward priority filter; policy drop; iifname {well} accept; }}; }}'"
    ))?;
    // Where bridges have nothing to do with it, nothing is wrong.
    let setting = "net.bridge.bridge-nf-call-iptables";
    host.place.sh(&format!("sysctl -qw {setting}=0"))?;
    passes(&guest, "10.5.0.2", true)?;
    doctor.is_silent(&host.both())?;
    for spoil in [
        format!("sysctl -qw {setting}=1"),
        format!("ip link set {bridge} type bridge nf_call_iptables 1"),
    ] {
        host.place.sh(&spoil)?;
        passes(&guest, "10.5.0.2", false)?;
        doctor.mends(&host.both(), "bridge-filtered", bridge)?;
        passes(&guest, "10.5.0.2", true)?;
    }
    Ok(())
}

#[test]
fn answers_that_would_leave_another_way_are_not_waited_for() -> Result<()> {
    let Some(_lab) = Lab::with("doctor-strict", &NEEDS)? else {
        return Ok(());
    };
    let host = Host::new()?;
    let doctor = Doctor::new(&host.place)?;
    let (bridge, other) = (&host.sick.bridge, name("p"));
    // A guest with two ways to the host, which answers by the second.
    let guest = host.guest(bridge, &name("p"), "10.6.0.2/24")?;
    host.place.sh(&format!(
        "ip address add 10.6.0.1/24 dev {bridge}; ip address add 10.4.0.1/24 dev {}; \
         ip link add {other} type veth peer name eth1 netns {}; ip link set {other} up",
        host.well.bridge,
        guest.id()
    ))?;
    guest.sh("ip link set eth1 up; sysctl -qw net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.eth1.rp_filter=0")?;
    for link in ["all", bridge, &host.well.bridge] {
        host.place
            .sh(&format!("sysctl -qw net.ipv4.conf.{link}.rp_filter=1"))?;
    }
    doctor.is_silent(&host.both())?;
    passes(&guest, "10.6.0.1", true)?;
    host.place
        .sh(&format!("ip route add 10.6.0.0/28 dev {other}"))?;
    passes(&guest, "10.6.0.1", false)?;
    doctor.mends(&host.both(), "rp-filter-strict", bridge)?;
    passes(&guest, "10.6.0.1", true)?;
    Ok(())
}

#[test]
fn offloads_that_somebody_switched_off_are_named() -> Result<()> {
    let needs = [&NEEDS[..], &[Need::Program("ethtool")]].concat();
    let Some(_lab) = Lab::with("doctor-offloads", &needs)? else {
        return Ok(());
    };
    let host = Host::new()?;
    let doctor = Doctor::new(&host.place)?;
    let port = name("p");
    let _guest = host.guest(&host.sick.bridge, &port, "10.7.0.1/24")?;
    doctor.is_silent(&host.both())?;
    for (link, features) in [
        (&port, "tso off"),
        (&port, "tx off sg off tso off gso off"),
        (&host.sick.bridge, "gso off"),
        (&host.sick.tap, "gso off"),
    ] {
        host.place.sh(&format!("ethtool -K {link} {features}"))?;
        doctor.mends(&host.both(), "offload-off", link)?;
    }
    // The guest's NIC itself: what is printed is the command line without it.
    for key in ["mrg_rxbuf", "guest_tso4", "csum"] {
        let spoilt = host.line(&format!(",{key}=off"));
        doctor.starts(&spoilt)?;
        let found = doctor.finds(&format!("-- {spoilt}"), "nic-offload-off", &host.sick.tap)?;
        ensure!(found.what.contains(key), "{found:?}");
        let mended = found.line()?;
        doctor.starts(mended)?;
        doctor.is_silent(&format!("-- {mended}"))?;
    }
    Ok(())
}

/// QEMU itself completes DHCP's checksums for a tap that it reads (work_around_broken_dhclient in hw/net/virtio-net.c), vhost-net does
/// not, and is not to be had in a namespace: a virtual link stands for it, which hands frames over in the same way.
#[test]
fn a_dhcp_client_that_refuses_half_checksums() -> Result<()> {
    let programs = ["dnsmasq", "iptables"].map(Need::Program);
    let Some(lab) = Lab::with("doctor-dhcp", &[&NEEDS[..], &programs].concat())? else {
        return Ok(());
    };
    let host = Host::new()?;
    let doctor = Doctor::new(&host.place)?;
    let Host { place, sick, well } = &host;
    place.sh(&format!("ip address add 10.21.0.1/24 dev {}", sick.bridge))?;
    let dnsmasq = format!(
        "PATH=$PATH:/usr/sbin exec dnsmasq -k --conf-file=/dev/null --port=0 --user=root --pid-file= --bind-interfaces --no-ping \
         --interface={} --dhcp-authoritative --dhcp-range=10.21.0.10,10.21.0.99 --dhcp-leasefile={} --log-facility={}",
        sick.bridge,
        lab.path("leases").display(),
        lab.log("dnsmasq.log").display()
    );
    let _server = place.keep("dnsmasq", &dnsmasq)?;
    let guest = host.guest(&sick.bridge, &name("p"), "10.21.0.2/32")?;
    let mac = mac();
    guest.sh(&format!(
        "ip address flush dev eth0; ip link set eth0 address {mac}; ip route add 255.255.255.255 dev eth0"
    ))?;
    let said = lab.path("said").display().to_string();
    let client = env!("CARGO_BIN_EXE_old-dhcp-client");
    let asks = || guest.sh(&format!("{client} {mac} | tee {said}"));

    let answer = asks()?;
    ensure!(
        answer.contains("5 bad udp checksums in 5 packets"),
        "{answer}"
    );
    let messages = format!("--messages {said}");
    // The twin's guest is told nothing of half checksums, and gets none.
    let whole = ",guest_csum=off,guest_tso4=off,guest_tso6=off,guest_ecn=off,guest_ufo=off";
    let line = command(&(tap_nic(&sick.tap, "", "") + &tap_nic(&well.tap, "", whole)));
    let found = doctor.finds(&format!("{messages} -- {line}"), "dhcp-checksum", &sick.tap)?;
    ensure!(!found.what.contains(&well.tap), "{found:?}");
    let mended = found.line()?;
    doctor.starts(mended)?;
    doctor.is_silent(&format!("{messages} -- {mended}"))?;
    // Whose line is not known is cured on the host of the server.
    let alone = doctor.clone().after(ALONE);
    let found = alone.finds(&messages, "dhcp-checksum", "DHCP")?;
    doctor.cures(&found)?;
    let answer = asks()?;
    ensure!(answer.starts_with("bound to 10.21.0."), "{answer}");
    alone.is_silent(&messages)
}

#[test]
fn a_macvtap_and_its_host_do_not_hear_each_other() -> Result<()> {
    let Some(_lab) = Lab::with("doctor-macvtap", &NEEDS)? else {
        return Ok(());
    };
    let place = Netns::new()?;
    let doctor = Doctor::new(&place)?;
    let (link, bare) = (name("e"), name("e"));
    let lan = Netns::new()?;
    for (link, address) in [(&link, "10.8.0.1/24"), (&bare, "10.9.0.1/24")] {
        place.sh(&format!(
            "ip link add {link} type veth peer name {link}l netns {}; ip link set {link} up",
            lan.id()
        ))?;
        lan.sh(&format!(
            "ip link set {link}l up; ip address add {address} dev {link}l"
        ))?;
    }
    place.sh(&format!(
        "ip address add 10.8.0.9/24 dev {link}; ip route add default via 10.8.0.1 dev {link}"
    ))?;
    let machine = |link: &str| -> Result<_> {
        let tap = name("m");
        place.sh(&format!(
            "ip link add link {link} name {tap} type macvtap mode bridge; ip link set {tap} up"
        ))?;
        let index = place.sh(&format!(
            "cat /proc/net/dev >/dev/null; ip -o link show {tap}"
        ))?;
        let index = index.split(':').next().unwrap_or_default().to_owned();
        let nic = "-netdev tap,id=n0,fd=3 -device virtio-net-pci,netdev=n0,romfile=";
        let process = place.keep(
            "qemu",
            &format!(
                "exec 3<>/dev/tap{index}; exec {} -monitor none",
                command(nic)
            ),
        )?;
        Ok((tap, process))
    };
    let (sick, process) = machine(&link)?;
    let (_, twin) = machine(&bare)?;
    // What a guest on the macvtap would see, without the guest.
    let guest = Netns::new()?;
    let beside = name("g");
    place.sh(&format!(
        "ip link add link {link} name {beside} type macvlan mode bridge; ip link set {beside} netns {}",
        guest.id()
    ))?;
    guest.sh(&format!(
        "ip link set {beside} up; ip address add 10.8.0.7/24 dev {beside}"
    ))?;
    passes(&guest, "10.8.0.1", true)?;
    passes(&guest, "10.8.0.9", false)?;
    let line = format!("--pid {}", process.id());
    doctor.is_silent(&format!("--pid {}", twin.id()))?;
    doctor.mends(&line, "macvtap-host", &sick)?;
    passes(&guest, "10.8.0.9", true)?;
    passes(&place, "10.8.0.1", true)?;
    ensure!(place.sh("ip route show default")?.contains("10.8.0.1"));
    Ok(())
}
