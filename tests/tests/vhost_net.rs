//! Taps behind the kernel's vhost-net, and beside them taps that the switch reads and writes itself: two switches in a guest, because
//! that is where the kernel has vhost-net for sure.

use anyhow::{Result, ensure};
use ringway_tests::{Guest, Lab, Need, iperf::Measured, switch::binary};

const NEEDS: [Need; 1] = [Need::FullGuest];
/// Seconds of one measurement.
const SECONDS: u32 = 2;

/// How often each is compared, in turns: once shows that it works, `RINGWAY_TEST_ROUNDS=9` which is faster.
fn rounds() -> usize {
    let rounds = std::env::var("RINGWAY_TEST_ROUNDS").ok();
    rounds
        .and_then(|text| text.parse().ok())
        .filter(|&rounds| rounds > 0)
        .unwrap_or(1)
}

/// A switch with two taps, each in a namespace of its own.
struct Side {
    name: &'static str,
    vhost: &'static str,
}

const SIDES: [Side; 2] = [
    Side {
        name: "v",
        vhost: "on",
    },
    Side {
        name: "p",
        vhost: "off",
    },
];

impl Side {
    /// Taps, switch and namespaces; the addresses are 10.0.0.1 and 10.0.0.2.
    fn set_up(&self, guest: &Guest) -> Result<()> {
        let Self { name, vhost } = self;
        let ports: String = (1..=2)
            .map(|i| format!(" --port tap,name={name}{i},vhost={vhost}"))
            .collect();
        for i in 1..=2 {
            guest.sh(&format!(
                "ip netns add {name}{i} && ip tuntap add dev {name}{i} mode tap && ip link set {name}{i} up"
            ))?;
        }
        guest.sh(&start(name, &ports))?;
        for i in 1..=2 {
            guest.sh(&format!(
                "ip link set {name}{i} netns {name}{i} && ip netns exec {name}{i} sh -c \
                 'ip link set lo up; ip address add 10.0.0.{i}/24 dev {name}{i}; ip link set {name}{i} up'"
            ))?;
        }
        guest.sh(&format!(
            "(ip netns exec {name}2 iperf3 -s >/dev/null 2>&1) & ip netns exec {name}1 ping -q -c 3 -i 0.2 -W 5 10.0.0.2"
        ))?;
        Ok(())
    }

    fn iperf(&self, guest: &Guest, options: &str) -> Result<Measured> {
        let name = self.name;
        let said = guest.sh(&format!(
            "ip netns exec {name}1 iperf3 -c 10.0.0.2 -t {SECONDS} -J {options}"
        ))?;
        Measured::parse(&said)
    }
}

#[test]
fn vhost_net_moves_the_frames_of_taps_between_two_namespaces() -> Result<()> {
    let Some(lab) = Lab::with("vhost-net", &NEEDS)? else {
        return Ok(());
    };
    let guest = lab
        .guest("a")
        .variant("full")
        .processors(2)
        .memory(1024)
        .file(binary()?, "bin/ringway")
        .file(
            "/lib/x86_64-linux-gnu/libgcc_s.so.1".into(),
            "lib/libgcc_s.so.1",
        )
        .boot()?;
    for side in &SIDES {
        side.set_up(&guest)?;
    }
    let said = guest.sh("cat /tmp/v.log")?;
    ensure!(said.contains("vhost-net moves its frames"), "{said}");
    let said = guest.sh("cat /tmp/p.log")?;
    ensure!(!said.contains("vhost-net"), "{said}");

    for (what, options) in [("TCP", ""), ("UDP, 1,472 B", "-u -l 1472 -b 0")] {
        let mut ratios = Vec::new();
        let mut seen = Vec::new();
        for _ in 0..rounds() {
            let [vhost, plain] = [&SIDES[0], &SIDES[1]].map(|side| side.iperf(&guest, options));
            let (vhost, plain) = (vhost?.megabits, plain?.megabits);
            ensure!(vhost > 0.0 && plain > 0.0, "{what}: nothing arrived");
            ratios.push(vhost / plain);
            seen.push(format!("{vhost:.0}/{plain:.0}"));
        }
        ratios.sort_by(f64::total_cmp);
        let median = ratios[ratios.len() / 2];
        lab.report(&format!(
            "{what}: vhost-net/plain tap {} Mbit/s, median of ratios {median:.2}",
            seen.join(", ")
        ));
    }
    for Side { name, .. } in &SIDES {
        end(&guest, name)?;
    }
    uplink_alone(&lab, &guest)
}

/// Frames of a generator to a tap: no sender and no receiver takes the processors' time.
fn uplink_alone(lab: &Lab, guest: &Guest) -> Result<()> {
    let mut ratios = Vec::new();
    let mut seen = Vec::new();
    for _ in 0..rounds() {
        let mut frames = [0.0; 2];
        for (frames, Side { name, vhost }) in frames.iter_mut().zip(&SIDES) {
            let ports = format!(" --port generator,size=60 --port tap,name={name}g,vhost={vhost}");
            let count = format!("cat /sys/class/net/{name}g/statistics/rx_packets");
            guest.sh(&format!(
                "ip tuntap add dev {name}g mode tap && ip link set {name}g up"
            ))?;
            guest.sh(&start(name, &ports))?;
            let counted = guest.sh(&format!(
                "a=$({count}); sleep {SECONDS}; b=$({count}); echo $((b - a))"
            ))?;
            *frames = counted.trim().parse::<f64>()? / f64::from(SECONDS);
            end(guest, name)?;
            guest.sh(&format!("ip link del {name}g"))?;
        }
        ensure!(frames.iter().all(|&frames| frames > 0.0), "{frames:?}");
        ratios.push(frames[0] / frames[1]);
        seen.push(format!("{:.0}/{:.0}", frames[0] / 1e3, frames[1] / 1e3));
    }
    ratios.sort_by(f64::total_cmp);
    lab.report(&format!(
        "60 B to a tap: vhost-net/plain {} thousand frames/s, median of ratios {:.2}",
        seen.join(", "),
        ratios[ratios.len() / 2]
    ));
    Ok(())
}

/// The command line that starts a switch and waits until it is ready.
fn start(name: &str, ports: &str) -> String {
    format!(
        "rm -f /tmp/{name}.ready; mkfifo /tmp/{name}.ready /tmp/{name}.ended; \
         (ringway switch --workers 1{ports} >/tmp/{name}.ready 2>/tmp/{name}.log & echo $! >/tmp/{name}.pid; \
         wait $!; echo ended $? >/tmp/{name}.ended) >/dev/null 2>&1 & \
         read -r line </tmp/{name}.ready; [ \"$line\" = ready ] || {{ cat /tmp/{name}.log >&2; exit 1; }}"
    )
}

/// Ends it; it has to end orderly and without a complaint.
fn end(guest: &Guest, name: &str) -> Result<()> {
    let said = guest.sh(&format!(
        "kill -TERM $(cat /tmp/{name}.pid); cat /tmp/{name}.ended; rm /tmp/{name}.ended; cat /tmp/{name}.log"
    ))?;
    ensure!(said.starts_with("ended 0\n"), "{said}");
    let complaint = said.lines().find(|line| line.contains("ERROR"));
    ensure!(complaint.is_none(), "{complaint:?} in {said}");
    Ok(())
}
