//! The switch between two guests: a child of this very program.

use std::{
    io::{BufRead, BufReader, Read},
    process::{Child, Command, Stdio},
};

use anyhow::{Context, Result, bail};
use ringway_vmm::CpuList;
use rustix::process::{Pid, Signal, kill_process};

use super::Folder;

/// A running `ringway switch` with the ports `a` and `b`. Dropped, it is ended.
#[derive(Debug)]
pub(super) struct Switch(Child);

impl Switch {
    /// Starts it; its sockets are in the folder.
    pub(super) fn start(folder: &Folder, queues: u16, cpus: Option<&CpuList>) -> Result<Self> {
        // By number, because `self` would be setpriv; and what runs, even if its file was replaced since.
        let program = format!("/proc/{}/exe", std::process::id());
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]);
        command.arg(program).arg("switch");
        for name in ["a", "b"] {
            let path = folder.file(name).display().to_string().replace(',', ",,");
            command.arg("--port").arg(format!(
                "vhost-user,path={path},queues={queues},name={name}"
            ));
        }
        if let Some(cpus) = cpus {
            command.arg("--cpus").arg(cpus.to_string());
        }
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("setpriv (of util-linux) cannot be started")?;
        let mut switch = Self(child);
        let mut line = String::new();
        let stdout = switch.0.stdout.take().context("no pipe")?;
        BufReader::new(stdout).read_line(&mut line)?;
        if line.trim() != "ready" {
            let mut said = String::new();
            if let Some(mut stderr) = switch.0.stderr.take() {
                stderr.read_to_string(&mut said)?;
            }
            bail!("the switch does not start: {}", said.trim());
        }
        Ok(switch)
    }

    /// Its process.
    pub(super) fn id(&self) -> i32 {
        Pid::from_child(&self.0).as_raw_nonzero().get()
    }
}

impl Drop for Switch {
    fn drop(&mut self) {
        // It removes its sockets when it is asked to end.
        let _ = kill_process(Pid::from_child(&self.0), Signal::TERM);
        let _ = self.0.wait();
    }
}
