//! The `ringway daemon` under test, and a client of its networks.

use std::{fs, os::fd::OwnedFd, path::PathBuf, process::Stdio, time::Duration};

use anyhow::{Context, Result, ensure};
use ringway_api::control::{Client, Passed};
use rustix::process::Signal;

use crate::{
    Lab, Netns,
    lines::Lines,
    process::{Process, command},
    switch::binary,
};

const LIMIT: Duration = Duration::from_secs(30);

/// A daemon in a network namespace. Dropped, it is killed, and its switch ended.
#[derive(Debug)]
pub struct Daemon<'a> {
    lab: &'a Lab,
    netns: &'a Netns,
    process: Process,
    stderr: Lines,
}

impl<'a> Daemon<'a> {
    /// Starts one and waits until it is ready.
    pub fn start(lab: &'a Lab, netns: &'a Netns) -> Result<Self> {
        let (process, stderr) = start(lab, netns, &[])?;
        Ok(Self {
            lab,
            netns,
            process,
            stderr,
        })
    }

    /// Starts one with settings (TOML), and waits until it is ready.
    pub fn configured(lab: &'a Lab, netns: &'a Netns, settings: &str) -> Result<Self> {
        fs::write(settings_file(lab), settings)?;
        Self::start(lab, netns)
    }

    /// Kills it (SIGKILL).
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Starts another one after it.
    pub fn start_again(&mut self) -> Result<()> {
        self.start_again_with(&[])
    }

    /// The same with something in its environment.
    pub fn start_again_with(&mut self, environment: &[(&str, String)]) -> Result<()> {
        self.process.kill();
        (self.process, self.stderr) = start(self.lab, self.netns, environment)?;
        Ok(())
    }

    /// Waits for the next line that it says for which `wanted` holds.
    pub fn await_message(&mut self, what: &str, wanted: impl FnMut(&str) -> bool) -> Result<()> {
        self.stderr.await_line(what, LIMIT, wanted).map(drop)
    }

    /// Runs `ringway` with these arguments against it; what it printed.
    pub fn ringway(&self, arguments: &str) -> Result<String> {
        let (socket, binary) = (socket(self.lab), binary()?);
        self.netns.sh(&format!(
            "RINGWAY_SOCKET={} {} {arguments}",
            socket.display(),
            binary.display()
        ))
    }

    /// The same with `--json`, whose one line is read.
    pub fn json(&self, arguments: &str) -> Result<serde_json::Value> {
        let printed = self.ringway(&format!("{arguments} --json"))?;
        ensure!(printed.lines().count() == 1, "not one line: {printed}");
        serde_json::from_str(&printed).with_context(|| format!("{arguments}: {printed}"))
    }

    /// Its API's socket.
    pub fn socket(&self) -> String {
        socket(self.lab).display().to_string()
    }

    /// Sends a signal that ends it; it must exit with 0 and take its socket along.
    pub fn end_by(mut self, signal: Signal) -> Result<()> {
        self.process.signal(signal)?;
        let status = self.process.wait(LIMIT)?;
        let said = self.stderr.rest(LIMIT)?.join("\n");
        ensure!(status.success(), "ended with {status}: {said}");
        ensure!(!socket(self.lab).exists(), "the socket stayed");
        Ok(())
    }

    /// The control socket of its switch.
    pub fn control(&self) -> PathBuf {
        self.lab.path("run").join("switch.sock")
    }

    /// Its switch's process id.
    pub fn switch_id(&self) -> Result<i32> {
        let socket = std::os::unix::net::UnixStream::connect(self.control())?;
        let peer = rustix::net::sockopt::socket_peercred(&socket)?;
        Ok(peer.pid.as_raw_nonzero().get())
    }

    /// Gives the switch a tap in `netns` as a port of `vlan`, made by `make` there: a guest without a virtual machine.
    pub fn add_tap(
        &self,
        netns: &Netns,
        name: &str,
        vlan: u16,
        make: impl FnOnce(&str) -> Result<Vec<OwnedFd>> + Send + 'static,
    ) -> Result<()> {
        let tap = name.to_owned();
        let queues = netns.run(move || make(&tap))?;
        let mut client = Client::connect(&self.control(), LIMIT)?;
        let spec = format!("tap,name={name},vlan={vlan}").parse()?;
        client.add_port(spec, Passed::TapQueues, queues)?;
        netns.sh(&format!("ip link set {name} up"))?;
        Ok(())
    }
}

impl Drop for Daemon<'_> {
    fn drop(&mut self) {
        self.process.kill();
        // It outlives the daemon, as it shall.
        if let Ok(mut client) = Client::connect(&self.control(), LIMIT) {
            let _ = client.shutdown();
        }
    }
}

fn socket(lab: &Lab) -> PathBuf {
    lab.path("api.sock")
}

fn settings_file(lab: &Lab) -> PathBuf {
    lab.path("daemon.toml")
}

fn start(lab: &Lab, netns: &Netns, environment: &[(&str, String)]) -> Result<(Process, Lines)> {
    let mut daemon = command(binary()?, Some(netns));
    daemon
        .envs(environment.iter().map(|(name, value)| (name, value)))
        .arg("daemon")
        .arg("--socket")
        .arg(socket(lab))
        .arg("--run")
        .arg(lab.path("run"))
        .arg("--state")
        .arg(lab.path("state"));
    if settings_file(lab).exists() {
        daemon.arg("--config").arg(settings_file(lab));
    }
    daemon
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut process = Process::spawn("ringway daemon", &mut daemon)?;
    let (stdout, stderr) = (process.child().stdout.take(), process.child().stderr.take());
    let mut stdout = Lines::read(
        "ringway daemon",
        stdout.context("no pipe")?,
        &lab.log("daemon.stdout"),
    )?;
    let mut stderr = Lines::read(
        "ringway daemon",
        stderr.context("no pipe")?,
        &lab.log("daemon.stderr"),
    )?;
    if let Err(error) = stdout.await_line("`ready`", LIMIT, |line| line == "ready") {
        process.kill();
        let said = stderr.rest(LIMIT)?.join("\n");
        return Err(error.context(said));
    }
    Ok((process, stderr))
}
