//! Machines that `ringway vm run` starts, and what they leave behind.

use std::{
    fs,
    os::fd::OwnedFd,
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde_json::Value;

use crate::{
    Lab, Process,
    guest::Builder,
    process::{command, output, readable},
    qemu,
    switch::binary,
};

const LIMIT: Duration = Duration::from_secs(60);

/// The directories that machines of a lab are written down in, and what is asked about them. Dropped, it ends those that still run.
#[derive(Debug)]
pub struct Machines<'a> {
    lab: &'a Lab,
}

impl<'a> Machines<'a> {
    /// Those of this lab.
    pub fn new(lab: &'a Lab) -> Self {
        Self { lab }
    }

    /// `vm` and its options, with these words, which may be several in one.
    pub fn words(&self, line: &str) -> Vec<String> {
        let run = self.lab.path("machines").display().to_string();
        let words = ["vm".to_owned(), "--run".to_owned(), run].into_iter();
        words.chain(line.split(' ').map(str::to_owned)).collect()
    }

    /// The words after `vm run` that boot the test guest upon a disk of its own.
    pub fn boot(&self, name: &str, more: &str) -> Result<Vec<String>> {
        let [kernel, initramfs] = qemu::image("cloud")?;
        let disk = self.lab.path("disk.img");
        if !disk.exists() {
            fs::File::create(&disk)?.set_len(16 << 20)?;
        }
        let mut words = self.words(&format!(
            "run {} --state {} --kernel {} --initrd {} --memory 384M --name {name} {more} --append",
            disk.display(),
            self.lab.path("overlays").display(),
            kernel.display(),
            initramfs.display(),
        ));
        words.push("console=ttyS0 panic=-1 mitigations=off tsc=reliable no_timer_check nokaslr ringway.dhcp=eth0".into());
        // The guest powers down without somebody at its agent's port: nobody, who stays.
        let agent = "-- -device virtio-serial-pci -chardev null,id=agent -device virtserialport,chardev=agent,name=agent";
        words.extend(agent.split(' ').map(str::to_owned));
        Ok(words)
    }

    /// A guest that `vm run` starts, with these words, and stays the console of; of a variant of `guest/build`.
    pub fn guest(&self, name: &str, variant: &str, more: &str) -> Result<Builder<'a>> {
        let [kernel, initramfs] = qemu::image(variant)?;
        let mut words = self.words(&format!(
            "run --socket {} --kernel {} --initrd {} --memory 384M --name {name} {more} --append",
            self.lab.path("api.sock").display(),
            kernel.display(),
            initramfs.display(),
        ));
        // An emulated processor that loses its one timer sleeps for ever; with periodic ones the next wakes it.
        words.push(
            "console=ttyS0 panic=-1 quiet mitigations=off tsc=reliable no_timer_check nokaslr nohz=off highres=off"
                .into(),
        );
        words.extend(["--", "-no-reboot"].map(str::to_owned));
        Ok(self.lab.guest(name).program(binary()?).flags(words))
    }

    /// Runs a command to its end; what it printed.
    pub fn ringway(&self, words: &[String]) -> Result<String> {
        let mut command = Command::new(binary()?);
        // No daemon of this machine has a part in it.
        let command = command
            .args(words)
            .env("RINGWAY_SOCKET", self.lab.path("api.sock"));
        output(command.stdin(Stdio::null()))
    }

    /// The answer to a line that ends with `--json`.
    pub fn json(&self, line: &str) -> Result<Value> {
        let printed = self.ringway(&self.words(&format!("{line} --json")))?;
        serde_json::from_str(&printed).with_context(|| format!("{line}: {printed}"))
    }

    /// Starts a command that stays.
    pub fn start(&self, words: &[String]) -> Result<Process> {
        let mut ringway = command(binary()?, None);
        let log = fs::File::create(self.lab.log("machine"))?;
        ringway
            .args(words)
            .env("RINGWAY_SOCKET", self.lab.path("api.sock"))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        Process::spawn("ringway vm", &mut ringway)
    }

    /// The machine's supervisor, to be waited for: when it has ended, everything is taken back.
    pub fn supervisor(&self, name: &str) -> Result<OwnedFd> {
        let pid = self.json(&format!("show {name}"))?["supervisor"].as_i64();
        let pid = pid.context("no supervisor")?;
        let pid = Pid::from_raw(i32::try_from(pid)?).context("no process")?;
        Ok(pidfd_open(pid, PidfdFlags::empty())?)
    }

    /// Waits for it.
    pub fn await_end(&self, supervisor: &OwnedFd) -> Result<()> {
        ensure!(readable(supervisor, LIMIT)?, "the supervisor goes on");
        Ok(())
    }

    /// Files and sockets of machines, and processes that name this lab, ours excepted. Empty when nothing was left.
    pub fn left(&self) -> Result<Vec<String>> {
        let mut left = Vec::new();
        for folder in ["machines/vm", "overlays"] {
            let entries = fs::read_dir(self.lab.path(folder)).into_iter().flatten();
            left.extend(
                entries
                    .flatten()
                    .map(|entry| entry.path().display().to_string()),
            );
        }
        let folder = self.lab.path("machines").display().to_string();
        for entry in fs::read_dir("/proc")?.flatten() {
            let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line).replace('\0', " ");
            if line.contains(&folder) {
                left.push(line);
            }
        }
        Ok(left)
    }
}

impl Drop for Machines<'_> {
    fn drop(&mut self) {
        let entries = fs::read_dir(self.lab.path("machines/vm"));
        for entry in entries.into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let _ = self.ringway(&self.words(&format!("stop {name} --force")));
        }
    }
}

/// Where a thread may run, as the kernel tells.
pub fn allowed(thread: i64) -> Result<String> {
    let status = fs::read_to_string(format!("/proc/{thread}/status"))?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    match line {
        Some(list) => Ok(list.trim().to_owned()),
        None => bail!("no list in {status}"),
    }
}
