//! A network namespace that lives as long as its value, with or without root.

use std::{
    fs::File,
    io::{BufRead, BufReader},
    os::fd::AsFd,
    path::Path,
    process::{Command, Stdio},
    sync::{Mutex, PoisonError, mpsc},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::{
    Endpoint,
    guest::{Job, Output},
    lines::Lines,
    process::{Process, command, output, readable},
};

const LIMIT: Duration = Duration::from_secs(10);

/// An anonymous network namespace with its loopback up. Devices made in it vanish with it.
///
/// It is held by a process that ends when the value is dropped or when we die, so that nothing is left behind in either case.
/// Without root a user namespace is put around it.
#[derive(Debug)]
pub struct Netns {
    holder: Process,
    user: bool,
    servers: Mutex<Vec<(u16, Process)>>,
}

impl Netns {
    /// Makes one.
    pub fn new() -> Result<Self> {
        let user = !rustix::process::geteuid().is_root();
        let mut unshare = command("unshare", None);
        unshare.arg("--net");
        if user {
            unshare.args(["--user", "--map-root-user"]);
        }
        // Reads from us until we are gone.
        unshare
            .args([
                "--",
                "sh",
                "-c",
                "ip link set lo up && echo made && exec cat",
            ])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut holder = Process::spawn("network namespace", &mut unshare)?;
        let pipe = holder.child().stdout.take().context("no pipe")?;
        let mut line = String::new();
        if readable(&pipe, LIMIT)? {
            BufReader::new(pipe).read_line(&mut line)?;
        }
        if line.trim() != "made" {
            bail!(
                "cannot make a network namespace; without root this needs unprivileged user namespaces \
                 (sysctl kernel.unprivileged_userns_clone=1)"
            );
        }
        Ok(Self {
            holder,
            user,
            servers: Mutex::default(),
        })
    }

    /// The beginning of a command line that runs what follows inside.
    pub(crate) fn enter(&self) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--target={}", self.holder.id()));
        if self.user {
            command.args(["--user", "--preserve-credentials"]);
        }
        command.args(["--net", "--"]);
        command
    }

    /// The process that holds it: `/proc/ID/ns/net` is the namespace.
    pub fn id(&self) -> u32 {
        self.holder.id()
    }

    /// Runs a shell command inside; what it printed, or an error with its error output.
    pub fn sh(&self, line: &str) -> Result<String> {
        output(self.enter().args(["sh", "-c", line]).stdin(Stdio::null()))
    }

    /// Does `work` inside, in a thread of its own, which alone is there. Sockets that are opened so stay in the namespace.
    pub fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let namespace = File::open(format!("/proc/{}/ns/net", self.id()))?;
        let thread = thread::spawn(move || {
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
            work()
        });
        thread.join().ok().context("the thread panicked")?
    }

    /// Starts a shell command inside that lasts until its value is dropped; it should `exec` what it runs.
    pub fn keep(&self, name: &str, line: &str) -> Result<Process> {
        let mut shell = command("sh", Some(self));
        Process::spawn(name, shell.args(["-c", line]).stdin(Stdio::null()))
    }

    /// Adds a tap that belongs to this namespace, sets its address (`10.0.0.1/24`) and brings it up.
    pub fn tap(&self, name: &str, queues: u16, address: &str) -> Result<()> {
        let mode = if queues > 1 { " multi_queue" } else { "" };
        self.sh(&format!(
            "ip tuntap add dev {name} mode tap{mode} && sysctl -qw net.ipv6.conf.{name}.disable_ipv6=1 && \
             ip address add {address} dev {name} && ip link set {name} up"
        ))?;
        Ok(())
    }
}

impl Endpoint for Netns {
    fn start(&self, line: &str) -> Result<Job> {
        let mut shell = command("sh", Some(self));
        shell.args(["-c", line]).stdin(Stdio::null());
        let (sender, receiver) = mpsc::channel();
        // In a thread of its own, which the kernel takes down with its child.
        thread::spawn(move || {
            let Ok(output) = shell.output() else { return };
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            let _ = sender.send(Output {
                status: output.status.code().unwrap_or(-1),
                stdout: text(&output.stdout),
                stderr: text(&output.stderr),
            });
        });
        Ok(Job::new("the host", line, receiver))
    }

    fn serve_iperf3(&self, port: u16) -> Result<()> {
        let mut servers = self.servers.lock().unwrap_or_else(PoisonError::into_inner);
        if servers.iter().any(|(other, _)| *other == port) {
            return Ok(());
        }
        let mut iperf3 = command("iperf3", Some(self));
        iperf3
            .args(["-s", "--forceflush", "-p", &port.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        let mut server = Process::spawn("iperf3 server", &mut iperf3)?;
        let stdout = server.child().stdout.take().context("no pipe")?;
        Lines::read("iperf3", stdout, Path::new("/dev/null"))?.await_line(
            "that it listens",
            LIMIT,
            |line| line.contains("listening"),
        )?;
        servers.push((port, server));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_has_its_own_devices_and_vanishes() {
        let netns = Netns::new().unwrap();
        netns.tap("rw-test0", 2, "10.9.8.7/24").unwrap();
        assert!(netns.sh("ip -o address").unwrap().contains("10.9.8.7/24"));
        assert!(!Path::new("/sys/class/net/rw-test0").exists());
        assert!(netns.sh("exit 3").is_err());
        let holder = format!("/proc/{}", netns.holder.id());
        drop(netns);
        assert!(!Path::new(&holder).exists());
    }
}
