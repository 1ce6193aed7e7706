//! A network whose names are asked for: a host with the daemon, a guest at a tap, and an outside with resolvers of its own.

use std::{
    fs,
    os::fd::OwnedFd,
    path::PathBuf,
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};

use crate::{Daemon, Endpoint, Lab, Netns, Process, process::command};

const LIMIT: Duration = Duration::from_secs(60);
/// The gateway of the network `lan`.
pub const GATEWAY: &str = "10.66.0.1";
/// The first resolver outside; others have the addresses behind it.
pub const OUTSIDE: &str = "203.0.113.2";

/// The three places.
#[derive(Debug)]
pub struct Places {
    /// Where the daemon runs; `out0` leads outside.
    pub host: Netns,
    /// At 10.66.0.50, with the gateway as its router.
    pub guest: Netns,
    /// At [`OUTSIDE`] and the next addresses up to .9.
    pub outside: Netns,
}

impl Places {
    /// Makes them, the guest still without a network.
    pub fn new() -> Result<Self> {
        let places = Self {
            host: Netns::new()?,
            guest: Netns::new()?,
            outside: Netns::new()?,
        };
        places.host.sh(&format!(
            "ip link add out0 type veth peer name out1 netns {} && \
             ip address add 203.0.113.1/24 dev out0 && ip link set out0 up",
            places.outside.id()
        ))?;
        places.outside.sh(
            "for n in 2 3 4 5 6 7 8 9; do ip address add 203.0.113.$n/24 dev out1; done; ip link set out1 up",
        )?;
        Ok(places)
    }

    /// A daemon with the network `lan` and what `dns` says of its names (TOML), and the guest in it, at a tap that `tap`
    /// makes. Its resolvers are those of [`set_resolvers`].
    pub fn daemon<'a>(
        &'a self,
        lab: &'a Lab,
        dns: &str,
        tap: fn(&str) -> Result<Vec<OwnedFd>>,
    ) -> Result<Daemon<'a>> {
        let daemon = Daemon::configured(
            lab,
            &self.host,
            &format!(
                "default_network = false\nresolv_conf = {:?}\n",
                resolv_conf(lab)
            ),
        )?;
        let file = lab.path("lan.toml");
        fs::write(
            &file,
            format!("[[network]]\nname = 'lan'\nsubnet = '10.66.0.0/24'\n[network.dns]\n{dns}\n"),
        )?;
        daemon.ringway(&format!("net apply {}", file.display()))?;
        daemon.ringway("lease bind lan 10.66.0.9 --mac 02:00:00:00:00:09 --name web")?;
        daemon.add_tap(&self.guest, "guest0", 1, tap)?;
        self.guest.sh(&format!(
            "ip address add 10.66.0.50/24 dev guest0 && ip route add default via {GATEWAY}"
        ))?;
        Ok(daemon)
    }
}

/// What `dig` was told by the gateway, words apart by one space.
pub fn dig(from: &Netns, what: &str) -> Result<String> {
    ask(from, GATEWAY, what)
}

/// What `dig` was told by a server.
pub fn ask(from: &Netns, server: &str, what: &str) -> Result<String> {
    let line = format!("dig +tries=4 +timeout=5 +nocookie @{server} {what}");
    let said = from.start(&line)?.success(LIMIT)?;
    let lines = said
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "));
    Ok(lines.collect::<Vec<_>>().join("\n"))
}

/// The daemon's resolvers from now on; the file is exchanged as a whole, as those who write it do.
pub fn set_resolvers(lab: &Lab, servers: &[&str]) -> Result<()> {
    let lines: String = servers
        .iter()
        .map(|server| format!("nameserver {server}\n"))
        .collect();
    let new = lab.path("resolv.new");
    fs::write(&new, lines)?;
    fs::rename(new, resolv_conf(lab))?;
    Ok(())
}

fn resolv_conf(lab: &Lab) -> PathBuf {
    lab.path("resolv.conf")
}

/// A dnsmasq that ends with the test.
#[derive(Debug)]
pub struct Dnsmasq {
    log: PathBuf,
    _process: Process,
}

impl Dnsmasq {
    /// Starts one at an address of `place` with further options, and waits until it answers.
    pub fn start(lab: &Lab, place: &Netns, address: &str, options: &str) -> Result<Self> {
        let log = lab.log(&format!("dnsmasq-{address}.log"));
        fs::write(&log, "")?;
        let mut dnsmasq = command("sh", Some(place));
        dnsmasq
            .arg("-c")
            .arg(format!(
                "PATH=$PATH:/usr/sbin exec dnsmasq -k --conf-file=/dev/null --no-resolv --no-hosts --user=root --pid-file= \
                 --bind-interfaces --listen-address={address} --log-queries --log-facility={} {options}",
                log.display()
            ))
            .stdin(Stdio::null());
        let process = Process::spawn("dnsmasq", &mut dnsmasq)?;
        let end = Instant::now() + LIMIT;
        while ask(place, address, "+timeout=1 nobody.invalid").is_err() {
            ensure!(
                Instant::now() < end,
                "dnsmasq at {address}: {}",
                fs::read_to_string(&log)?
            );
        }
        Ok(Self {
            log,
            _process: process,
        })
    }

    /// How often it was asked for a name.
    pub fn asked(&self, name: &str) -> Result<usize> {
        let log = fs::read_to_string(&self.log)?;
        let asked = |line: &&str| line.contains(&format!("] {name} from "));
        Ok(log.lines().filter(asked).count())
    }
}

/// The time to live of the first answer.
pub fn ttl(answer: &str) -> Result<u32> {
    let mut lines = answer
        .lines()
        .skip_while(|line| *line != ";; ANSWER SECTION:");
    let record = lines.nth(1).context("no answer")?;
    match record.split(' ').nth(1) {
        Some(ttl) => Ok(ttl.parse()?),
        None => bail!("no record: {record}"),
    }
}
