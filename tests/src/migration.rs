//! A guest that migrates from one switch to another, and the network in which both switches are.

use std::{path::Path, time::Duration};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::{
    Endpoint, Guest, Lab, Netns, Switch,
    gate::Gate,
    guest::Job,
    pcap,
    pings::Pings,
    qmp::Qmp,
    stream::{BLOCK, Stream, hash},
};

const LIMIT: Duration = Duration::from_secs(60);
/// Bytes per second of the first pass.
const FIRST_PASS: u64 = 40 << 20;
/// Bytes per second after that, far less than the guest changes.
const HOLD: u64 = 1 << 20;
/// Bytes per second when it may end.
const UNLIMITED: u64 = 4 << 30;

/// Places of the host: its end of the bridge, a port of the old switch and one of the new. Each has a network of its own, so that
/// packets to the guest take that way.
pub const PLACES: [&str; 3] = ["bridge", "near", "far"];

/// The guest's address in the network of a place.
pub fn address(place: usize) -> String {
    format!("10.0.{place}.1")
}

/// Two switches joined by a bridge of the kernel.
#[derive(Debug)]
pub struct Network {
    /// The guest's first switch: port `a`, the host's `near`, and the bridge.
    pub old: Switch,
    /// Its second switch: port `b`, the host's `far`, and the bridge.
    pub new: Switch,
    /// Where the host's ends are.
    pub netns: Netns,
}

impl Network {
    /// Sets it up, every device with `queues` queue pairs.
    pub fn new(lab: &Lab, queues: u16) -> Result<Self> {
        let netns = Netns::new()?;
        let mode = if queues > 1 { "multi_queue" } else { "" };
        // Each network's addresses are known behind its own device only.
        netns.sh(&format!(
            "set -e; sysctl -qw net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.default.disable_ipv6=1 net.ipv4.conf.all.arp_ignore=1
             ip link add bridge type bridge
             for tap in old new near far; do ip tuntap add dev $tap mode tap {mode}; done
             for tap in old new; do ip link set $tap master bridge up; done
             place=0
             for device in {}; do
                 ip address add 10.0.$place.254/24 dev $device
                 ip link set $device up
                 place=$((place + 1))
             done",
            PLACES.join(" ")
        ))?;
        let switch = |name: &str, port, host| {
            lab.switch()
                .named(&format!("switch-{name}"))
                .vhost_user(port, queues)
                .port(&format!("tap,name={name},queues={queues}"))
                .port(&format!("tap,name={host},queues={queues}"))
                .within(&netns)
                .start()
        };
        Ok(Self {
            old: switch("old", "a", "near")?,
            new: switch("new", "b", "far")?,
            netns,
        })
    }

    /// Gives the guest its address in every network.
    pub fn configure(&self, guest: &Guest) -> Result<()> {
        for place in 0..PLACES.len() {
            guest.configure("eth0", &format!("{}/24", address(place)))?;
        }
        Ok(())
    }

    /// Pings the guest from every place.
    pub fn ping(&self, lab: &Lab) -> Result<[Pings; 3]> {
        let [bridge, near, far] =
            [0, 1, 2].map(|place| Pings::start(lab, PLACES[place], &self.netns, &address(place)));
        Ok([bridge?, near?, far?])
    }

    /// Which of the bridge's ports the guest's address was last seen behind.
    pub fn learned(&self, mac: &str) -> Result<String> {
        let text = self
            .netns
            .sh(&format!("bridge fdb show | grep -i ^{mac}"))?;
        let mut words = text.split_whitespace().skip_while(|word| *word != "dev");
        let port = words.nth(1).with_context(|| format!("no port in {text}"))?;
        Ok(port.to_owned())
    }
}

/// The heads of the frames that pass the bridge's port to the new switch.
#[derive(Debug)]
pub struct Recording {
    gate: Gate,
    job: Job,
    file: std::path::PathBuf,
}

impl Recording {
    /// Records from now on.
    pub fn start(lab: &Lab, network: &Network) -> Result<Self> {
        let gate = Gate::new(lab, "recording")?;
        let file = lab.path("new.pcap");
        let job = network.netns.start(&format!(
            "setpriv --pdeathsig KILL -- tcpdump -i new --immediate-mode -s 64 -B 8192 -Z root -w {} & recording=$!; {}; kill -INT $recording; wait $recording",
            file.display(),
            gate.wait()
        ))?;
        Ok(Self { gate, job, file })
    }

    /// The frames, each with its time of day.
    pub fn stop(mut self) -> Result<Vec<(Duration, Vec<u8>)>> {
        self.gate.open()?;
        self.job.success(LIMIT)?;
        pcap::read_timed(&self.file)
    }
}

/// A stream that is sent until it is stopped, and hashed at both ends.
#[derive(Debug)]
pub struct Running {
    stop: std::path::PathBuf,
    sender: Job,
    receiver: Job,
}

impl Running {
    /// Sends from the bridge to the guest.
    pub fn start(lab: &Lab, network: &Network, guest: &Guest) -> Result<Self> {
        let receiver =
            guest.start("socat -u -b 262144 TCP-LISTEN:5101 - | openssl dgst -sha256 -r")?;
        let (stop, copy) = (lab.path("stop"), lab.path("copy"));
        let (address, copy) = (address(0), copy.display());
        // Whoever cannot send for so long has lost the guest.
        let sender = network.netns.start(&format!(
            "mkfifo {copy}; openssl dgst -sha256 -r <{copy} >{copy}.hash & i=0
             while [ ! -e {stop} ]; do
                 dd if=/dev/zero bs={BLOCK} count=1 2>/dev/null |
                     openssl enc -aes-128-ctr -bufsize 262144 -K {:032x} -iv $(printf %016x $i)0000000000000000 || break
                 i=$((i + 1))
             done | tee {copy} | socat -T 15 -u -b 262144 - TCP:{address}:5101,retry=100,interval=0.1
             status=$?; wait; cat {copy}.hash; exit $status",
            77,
            stop = stop.display(),
        ))?;
        Ok(Self {
            stop,
            sender,
            receiver,
        })
    }

    /// Ends it; whether the bytes that arrived are those that were sent.
    pub fn finish(self) -> Result<bool> {
        std::fs::write(&self.stop, "")?;
        let sent = hash(&self.sender.success(LIMIT)?)?;
        Ok(sent == hash(&self.receiver.success(LIMIT)?)?)
    }
}

/// A stream that nobody reads until we say so: the guest's kernel keeps it, in the buffers it was received to.
#[derive(Debug)]
pub struct Parked {
    stream: Stream,
    receiver: Job,
}

impl Parked {
    /// Has the guest listen for it.
    pub fn listen(guest: &Guest, stream: Stream) -> Result<Self> {
        // Room for all of it, with the kernel's own needs.
        let room = 4 * stream.blocks * BLOCK;
        guest.sh(&format!(
            "cd /proc/sys/net && echo {room} >core/rmem_max && echo 65536 131072 262144 >ipv4/tcp_mem && mkfifo /tmp/gate"
        ))?;
        let receiver = guest.start(&format!(
            "socat -u -b 262144 TCP-LISTEN:5102,rcvbuf={room} - | {{ read -r _ </tmp/gate; openssl dgst -sha256 -r; }}"
        ))?;
        Ok(Self { stream, receiver })
    }

    /// Sends it to the guest from the old switch, and waits until the last byte has arrived.
    pub fn fill(&self, network: &Network, guest: &Guest) -> Result<()> {
        let sender = network.netns.start(&format!(
            "{} | socat -u -b 262144 - TCP:{}:5102,retry=100,interval=0.1",
            self.stream.source(),
            address(1)
        ))?;
        sender.success(LIMIT)?;
        guest.sh("until ss -Htn state close-wait | grep -q :5102; do sleep 0.02; done")?;
        Ok(())
    }

    /// Has it read; whether the bytes are those that were sent.
    pub fn read(self, guest: &Guest) -> Result<bool> {
        guest.sh("echo >/tmp/gate")?;
        let arrived = hash(&self.receiver.success(LIMIT)?)?;
        Ok(arrived == self.stream.hash()?)
    }
}

/// A migration under way.
#[derive(Debug)]
pub struct Migration {
    source: Qmp,
    destination: Qmp,
}

/// How it went.
#[derive(Debug)]
pub struct Moved {
    /// Time without the guest, as QEMU tells.
    pub downtime: Duration,
    /// Time of day at which the guest stopped at its old place.
    pub stopped: Duration,
    /// Time of day at which it went on at its new one.
    pub resumed: Duration,
    /// How often QEMU looked for pages that had changed.
    pub passes: u64,
    /// Bytes of guest memory that were carried over.
    pub bytes: u64,
}

impl Migration {
    /// Begins to carry the memory over; returns when every page has been copied once. The guest is kept busy, so that it does not end
    /// before [`Self::complete`].
    pub fn begin(from: &Guest, to: &Guest, path: &Path) -> Result<Self> {
        // Something to carry over at any time.
        let _never = from.start(
            "while [ ! -e /tmp/moved ]; do nice -n 19 dd if=/dev/zero of=/tmp/changing bs=64k count=64 conv=notrunc; done 2>/dev/null",
        )?;
        let (mut source, destination) = (from.monitor()?, to.monitor()?);
        limits(&mut source, FIRST_PASS, 1)?;
        let uri = format!("unix:{}", path.display());
        source.execute("migrate", json!({ "uri": uri }))?;
        source.await_answer("query-migrate", "past the first pass", LIMIT, |answer| {
            active(answer)?;
            Ok(answer["ram"]["dirty-sync-count"].as_u64() >= Some(2))
        })?;
        limits(&mut source, HOLD, 1)?;
        Ok(Self {
            source,
            destination,
        })
    }

    /// Lets it end, with the guest at `to`.
    pub fn complete(mut self, to: &Guest) -> Result<Moved> {
        let source = &mut self.source;
        active(&source.execute("query-migrate", json!({}))?)?;
        limits(source, UNLIMITED, 300)?;
        let answer = source.await_answer("query-migrate", "completed", LIMIT, |answer| {
            Ok(answer["status"] == "completed" || active(answer).map(|()| false)?)
        })?;
        let number = |value: &Value| {
            let number = value.as_u64();
            number.with_context(|| format!("no figures in {answer}"))
        };
        let resumed = self.destination.await_event("RESUME")?.at;
        let _awaited_by_nobody = to.start("touch /tmp/moved")?;
        Ok(Moved {
            downtime: Duration::from_millis(number(&answer["downtime"])?),
            stopped: self.source.await_event("STOP")?.at,
            resumed,
            passes: number(&answer["ram"]["dirty-sync-count"])?,
            bytes: number(&answer["ram"]["transferred"])?,
        })
    }
}

/// Bytes per second that may be carried, and milliseconds for which the guest may stop.
fn limits(source: &mut Qmp, bandwidth: u64, downtime: u32) -> Result<()> {
    let limits = json!({ "max-bandwidth": bandwidth, "downtime-limit": downtime });
    source.execute("migrate-set-parameters", limits).map(drop)
}

fn active(answer: &Value) -> Result<()> {
    match answer["status"].as_str() {
        Some("setup" | "active" | "device") => Ok(()),
        status => bail!("the migration is {status:?}"),
    }
}
