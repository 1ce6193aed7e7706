//! DPDK's testpmd: a virtio driver that is not ours (and, for trying out the guests alone, a back-end that is not ours).

use std::{
    io::{Read, Write},
    path::Path,
    process::Stdio,
    sync::mpsc::{self, Receiver, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use crate::{
    Lab,
    process::{Process, command},
};

const PROMPT: &str = "testpmd> ";
const LIMIT: Duration = Duration::from_secs(60);

/// A virtio-user device: a NIC's driver in user space, at the vhost-user socket `path`.
#[derive(Debug, Clone)]
pub struct VirtioUser {
    arguments: String,
}

impl VirtioUser {
    /// With one queue pair and DPDK's defaults.
    pub fn new(path: &Path) -> Self {
        Self {
            arguments: format!("path={}", path.display()),
        }
    }

    /// A device argument, for example `mrg_rxbuf=0`.
    pub fn with(mut self, argument: &str) -> Self {
        self.arguments.push(',');
        self.arguments.push_str(argument);
        self
    }

    /// The device as `--vdev` and `port attach` take it.
    pub fn device(&self, index: usize) -> String {
        format!("net_virtio_user{index},{}", self.arguments)
    }
}

/// A testpmd that waits for commands.
#[derive(Debug)]
pub struct Testpmd {
    process: Process,
    output: Receiver<Vec<u8>>,
}

/// Counters of one port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortCounters {
    /// Frames received.
    pub rx: u64,
    /// Frames sent.
    pub tx: u64,
}

impl Testpmd {
    /// Starts it with virtual devices, each with `queues` queues per direction. `name` tells several apart.
    pub fn start(lab: &Lab, name: &str, devices: &[String], queues: u16) -> Result<Self> {
        Self::start_with(lab, name, devices, queues, &[])
    }

    /// As [`Self::start`], with further options of testpmd.
    pub fn start_with(
        lab: &Lab,
        name: &str,
        devices: &[String],
        queues: u16,
        options: &[&str],
    ) -> Result<Self> {
        let queues = queues.to_string();
        let prefix = format!("ringway-{}-{name}", std::process::id());
        // It prints its prompt past the buffer of its output, which would come after it.
        let mut testpmd = command("stdbuf", None);
        testpmd
            .args(["-oL", "dpdk-testpmd"])
            // Two threads, on whichever processor is free; one forwards, one waits for us.
            .args(["--lcores", "0@(0-1),1@(0-1)", "--main-lcore", "0"])
            .args(["-m", "192", "--no-huge", "--no-pci", "--no-telemetry"])
            .args(["--no-shconf", "--force-max-simd-bitwidth=512"])
            .args(["--file-prefix", &prefix, "--log-level", "4"]);
        for device in devices {
            testpmd.args(["--vdev", device]);
        }
        testpmd
            .args(["--", "-i", "--nb-cores=1", "--total-num-mbufs=16384"])
            .args(["--rxq", &queues, "--txq", &queues])
            .args(["--rxd=1024", "--txd=1024"])
            .args(options)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(std::fs::File::create(lab.log(&format!("{name}.testpmd")))?);
        let mut process = Process::spawn("dpdk-testpmd", &mut testpmd)
            .context("scripts/setup installs DPDK's testpmd")?;
        let mut stdout = process.child().stdout.take().context("no pipe")?;
        let (sender, output) = mpsc::channel();
        thread::spawn(move || {
            let mut buffer = vec![0; 65_536];
            while let Ok(length @ 1..) = stdout.read(&mut buffer) {
                if sender.send(buffer[..length].to_vec()).is_err() {
                    break;
                }
            }
        });
        let mut testpmd = Self { process, output };
        testpmd
            .await_prompt()
            .with_context(|| format!("see {}", lab.log(&format!("{name}.testpmd")).display()))?;
        Ok(testpmd)
    }

    /// Gives a command; what it printed.
    pub fn command(&mut self, line: &str) -> Result<String> {
        let stdin = self.process.child().stdin.as_mut().context("no pipe")?;
        writeln!(stdin, "{line}").with_context(|| format!("testpmd: cannot send {line:?}"))?;
        let text = self
            .await_prompt()
            .with_context(|| format!("testpmd: {line}"))?;
        if text.contains("Bad arguments") || text.contains("Command not found") {
            bail!("testpmd: {line}: {text}");
        }
        Ok(text)
    }

    /// Counters of port `index` since its start.
    pub fn counters(&mut self, index: usize) -> Result<PortCounters> {
        let text = self.command(&format!("show port stats {index}"))?;
        let number = |label: &str| -> Result<u64> {
            text.split(label)
                .nth(1)
                .and_then(|rest| rest.split_whitespace().next()?.parse().ok())
                .with_context(|| format!("no {label} in {text}"))
        };
        Ok(PortCounters {
            rx: number("RX-packets:")?,
            tx: number("TX-packets:")?,
        })
    }

    /// Asks until the counters of port `index` satisfy `wanted`.
    pub fn await_counters(
        &mut self,
        index: usize,
        what: &str,
        wanted: impl Fn(PortCounters) -> bool,
    ) -> Result<PortCounters> {
        let end = Instant::now() + LIMIT;
        loop {
            let counters = self.counters(index)?;
            if wanted(counters) {
                return Ok(counters);
            }
            if Instant::now() > end {
                bail!("testpmd: not within {LIMIT:?}: {what}; last: {counters:?}");
            }
        }
    }

    /// The process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Stops forwarding, closes all devices and ends.
    pub fn quit(mut self) -> Result<()> {
        let stdin = self.process.child().stdin.as_mut().context("no pipe")?;
        writeln!(stdin, "quit")?;
        let status = self.process.wait(LIMIT)?;
        if !status.success() {
            bail!("testpmd ended with {status}");
        }
        Ok(())
    }

    fn await_prompt(&mut self) -> Result<String> {
        let end = Instant::now() + LIMIT;
        let mut text = String::new();
        while !text.ends_with(PROMPT) {
            match self
                .output
                .recv_timeout(end.saturating_duration_since(Instant::now()))
            {
                Ok(bytes) => text.push_str(&String::from_utf8_lossy(&bytes)),
                Err(RecvTimeoutError::Timeout) => {
                    bail!("testpmd: no prompt within {LIMIT:?}: {text}")
                }
                Err(RecvTimeoutError::Disconnected) => bail!("testpmd ended: {text}"),
            }
        }
        Ok(text)
    }
}
