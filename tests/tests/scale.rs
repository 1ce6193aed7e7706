//! A hundred networks with four ports each: how long each change takes, what it costs in memory, and that nothing of it stays.

use std::{
    fs,
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use ringway_api::v1::{Document, Name, NetworkSpec, PortRequest, client::Client};
use ringway_tests::{Daemon, Lab, Need, Netns, picture};
use serde_json::json;

const NETWORKS: usize = 100;
const PORTS: usize = 4;
/// For any one request, on a machine that does many other things as well. Most take a hundredth of that.
const SLOWEST: Duration = Duration::from_secs(25);

/// Times of one kind of change.
#[derive(Default)]
struct Times(Vec<Duration>);

impl Times {
    fn take<T>(&mut self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let begun = Instant::now();
        let done = work()?;
        self.0.push(begun.elapsed());
        Ok(done)
    }

    fn tell(mut self, what: &str) -> Result<String> {
        let first = self.0.first().copied().unwrap_or_default();
        let last = self.0.last().copied().unwrap_or_default();
        let all: Duration = self.0.iter().sum();
        self.0.sort();
        let slowest = self.0.last().copied().unwrap_or_default();
        ensure!(slowest < SLOWEST, "{what}: {slowest:.1?}");
        Ok(format!(
            "{what} {all:.1?} (first {first:.1?}, last {last:.1?}, median {:.1?}, slowest {slowest:.1?})",
            self.0[self.0.len() / 2]
        ))
    }
}

/// Resident memory in MiB.
fn resident(process: u64) -> Result<f64> {
    let status = fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.and_then(|line| line.trim().strip_suffix(" kB"));
    Ok(kilobytes.context("no VmRSS")?.parse::<f64>()? / 1024.0)
}

#[test]
fn a_hundred_networks_come_and_go_and_leave_nothing() -> Result<()> {
    let needs = [Need::Root, Need::Namespaces, Need::Program("nft")];
    let Some(lab) = Lab::with("scale", &needs)? else {
        return Ok(());
    };
    let netns = Netns::new()?;
    let daemon = Daemon::configured(&lab, &netns, "default_network = false")?;
    let client = Client::new(PathBuf::from(daemon.socket()));
    let info = client.info()?;
    let switch = info.switch_pid.context("no switch")?;
    let memory = || -> Result<String> {
        Ok(format!(
            "resident: daemon {:.1} MiB, switch {:.1} MiB",
            resident(info.pid.into())?,
            resident(switch.into())?
        ))
    };
    // Besides what looks, and nft, which runs now and then since the daemon looks after what others change.
    let processes = || {
        netns.sh(
            "here=$(readlink /proc/self/ns/net); for p in /proc/[0-9]*; do \
             [ \"$(readlink $p/ns/net 2>/dev/null)\" != \"$here\" ] || cat $p/comm; done | grep -vxE 'nft|sh|cat|grep|readlink|sort|uniq' | sort | uniq -c",
        )
    };
    let open = || -> Result<usize> {
        Ok(fs::read_dir(format!("/proc/{}/fd", info.pid))?.count()
            + fs::read_dir(format!("/proc/{switch}/fd"))?.count())
    };
    // One comes and goes first: what is made once and for all is there then.
    let spec = |index: usize| -> Result<NetworkSpec> {
        Ok(serde_json::from_value(
            json!({ "name": format!("n{index}") }),
        )?)
    };
    client.create_network(&spec(0)?)?;
    client.delete_network(&"n0".parse()?, true)?;
    let before = picture::all(&netns, &daemon)?;
    let (processes_before, open_before) = (processes()?, open()?);
    lab.report(&format!("empty: {}", memory()?));

    let (mut networks, mut ports) = (Times::default(), Times::default());
    for index in 0..NETWORKS {
        let made = networks.take(|| Ok(client.create_network(&spec(index)?)?))?;
        for port in 0..PORTS {
            let request: PortRequest =
                serde_json::from_value(json!({ "name": format!("p{port}") }))?;
            ports.take(|| Ok(client.create_port(&made.spec.name, &request)?))?;
        }
    }
    lab.report(&networks.tell("100 networks created:")?);
    lab.report(&ports.tell("400 ports created:")?);
    lab.report(&memory()?);
    let mut lists = Times::default();
    ensure!(lists.take(|| Ok(client.networks()?.len()))? == NETWORKS);
    ensure!(lists.take(|| Ok(client.ports(None)?.len()))? == NETWORKS * PORTS);
    lab.report(&lists.tell("listed:")?);
    let mut deletes = Times::default();
    for index in 0..NETWORKS {
        let name: Name = format!("n{index}").parse()?;
        deletes.take(|| Ok(client.delete_network(&name, true)?))?;
    }
    lab.report(&deletes.tell("100 networks deleted with their ports:")?);
    picture::same(&before, &picture::all(&netns, &daemon)?)?;
    ensure!(processes()? == processes_before, "{}", processes()?);
    let limit = Instant::now() + SLOWEST;
    while open()? != open_before {
        let open = open()?;
        ensure!(
            Instant::now() < limit,
            "{open} descriptors, {open_before} before"
        );
        thread::sleep(Duration::from_millis(50));
    }
    lab.report(&memory()?);

    // The same from one document.
    let network = |index: usize| {
        let ports: Vec<_> = (0..PORTS)
            .map(|port| json!({ "name": format!("p{port}") }))
            .collect();
        json!({ "name": format!("n{index}"), "port": ports })
    };
    let all: Vec<_> = (0..NETWORKS).map(network).collect();
    let document: Document = serde_json::from_value(json!({ "network": all }))?;
    let mut applied = Times::default();
    let done = applied.take(|| Ok(client.apply(&document, false)?))?;
    ensure!(
        done.steps.len() > NETWORKS * (PORTS + 3),
        "{}",
        done.steps.len()
    );
    lab.report(&applied.tell("a document with all of it applied:")?);
    let again = client.apply(&document, false)?;
    ensure!(again.steps.is_empty(), "{:?}", again.steps);
    Ok(())
}
