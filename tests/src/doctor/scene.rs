//! Machines with a sick NIC and a sound one at vhost-user sockets, which run as their lines say.

use std::{
    env,
    fs::{self, File},
    io::{BufRead, BufReader, ErrorKind, Write},
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use rustix::{event::PollFd, event::PollFlags, process::Signal};

use super::{Doctor, Finding, commands, name};
use crate::{
    Lab, Need, Netns,
    process::{Process, command, first_readable},
    qemu,
    switch::binary,
};

const LIMIT: Duration = Duration::from_secs(30);
/// A QEMU that asks a socket again and again does so for ever.
const SHORT: Duration = Duration::from_millis(300);

/// Shared memory of 64 MiB.
pub const MEMORY: &str =
    "-M q35,memory-backend=m -m 64 -object memory-backend-memfd,id=m,size=64M,share=on";
/// The option of a socket with which QEMU connects again.
pub const RECONNECT: &str = "reconnect-ms=1000";

/// The three options of a vhost-user NIC, each with what more it has.
pub fn nic(id: &str, path: &str, socket: &str, netdev: &str, device: &str) -> String {
    format!(
        "-chardev socket,id=c{id},path={path},{socket} -netdev vhost-user,id={id},chardev=c{id}{netdev} \
         -device virtio-net-pci,netdev={id},romfile={device}"
    )
}

/// Where a machine with two NICs is made, found sick, and cured.
#[derive(Debug)]
pub struct Scene {
    /// Its surroundings.
    pub lab: Lab,
    /// Where it is played.
    pub place: Netns,
    /// The name of the NIC that something is wrong with, and of the machine.
    pub sick: String,
    /// The name of the other.
    pub sound: String,
    monitors: UnixListener,
}

/// A QEMU that was started by a line, or a switch.
#[derive(Debug)]
pub struct Running {
    process: Process,
    messages: PathBuf,
    monitor: Option<BufReader<UnixStream>>,
}

/// What became of a line.
#[derive(Debug)]
pub enum Outcome {
    /// It runs, and answers at its monitor.
    Runs(Running),
    /// It waits for something before it begins.
    Waits(Running),
    /// It ended, and said this.
    Ended(String),
}

impl Scene {
    /// With names by chance; `None` where the machine lacks what it needs, and the test is skipped.
    pub fn with(test: &str, more: &[Need]) -> Result<Option<Self>> {
        let needs = [&[Need::Guests, Need::Namespaces], more].concat();
        let Some(lab) = Lab::with(test, &needs)? else {
            return Ok(None);
        };
        Ok(Some(Self {
            place: Netns::new()?,
            sick: name("n"),
            sound: name("n"),
            monitors: UnixListener::bind(lab.path("monitors"))?,
            lab,
        }))
    }

    /// The path of that name, as text.
    pub fn path(&self, name: &str) -> String {
        self.lab.path(name).display().to_string()
    }

    /// The options of the sick NIC, each with what more it has.
    pub fn nic(&self, socket: &str, netdev: &str, device: &str) -> String {
        nic(&self.sick, &self.path(&self.sick), socket, netdev, device)
    }

    /// A QEMU that has not begun to run its guest, with these options more, and the sound NIC.
    pub fn line(&self, more: &str) -> String {
        self.line_of("qemu-system-x86_64 -S", more)
    }

    /// The same of another program.
    pub fn line_of(&self, program: &str, more: &str) -> String {
        let (name, sound) = (&self.sick, &self.sound);
        format!(
            "{program} -name {name} -nodefaults -display none -accel tcg -qmp unix:{} {} {more}",
            self.path("monitors"),
            nic(sound, &self.path(sound), RECONNECT, "", "")
        )
    }

    /// A QEMU whose guest boots, with these options more, and the sound NIC.
    pub fn guest(&self, more: &str) -> Result<String> {
        let [kernel, initramfs] = qemu::image("cloud")?;
        // The guest powers down without somebody at its agent's port: nobody, who stays.
        let guest = format!(
            "-cpu max -no-reboot -kernel {} -initrd {} -append 'panic=-1 quiet mitigations=off tsc=reliable no_timer_check nokaslr' \
             -device virtio-serial-pci -chardev null,id=agent -device virtserialport,chardev=agent,name=agent",
            kernel.display(),
            initramfs.display()
        );
        Ok(self.line_of("qemu-system-x86_64", &format!("{guest} {more}")))
    }

    /// It finds this fault of the sick NIC alone.
    pub fn finds(&self, arguments: &str, fault: &str) -> Result<Finding> {
        let found = Doctor::new(&self.place)?.finds(arguments, fault, &self.sick)?;
        let names_sound = found.subject.contains(&self.sound) || found.what.contains(&self.sound);
        ensure!(!names_sound, "the sound NIC: {found:#?}");
        Ok(found)
    }

    /// It finds nothing.
    pub fn is_silent(&self, arguments: &str) -> Result<()> {
        Doctor::new(&self.place)?.is_silent(arguments)
    }

    /// Runs a cure; what it leaves running.
    pub fn cures(&self, finding: &Finding) -> Result<Vec<Running>> {
        let mut running = Vec::new();
        for line in commands(finding) {
            if line.starts_with("ringway switch ") {
                running.push(self.switch(line)?);
            } else if line.contains("qemu-system-") {
                running.push(self.runs(line)?);
            } else {
                let status = self.sh(line)?.status()?;
                ensure!(status.success(), "{line}: {status}");
            }
        }
        Ok(running)
    }

    /// Runs the cure of what was found in `line`, and starts the machine if that did not: in the machine that runs, the last of what
    /// is returned, and in its line nothing is found any more.
    pub fn heals(&self, line: &str, finding: &Finding) -> Result<Vec<Running>> {
        let mut running = self.cures(finding)?;
        let mut line = line;
        match finding.line()? {
            mended if mended.contains("qemu-system-") => line = mended,
            _ => running.push(self.runs(line)?),
        }
        let machine = running.last().context("nothing runs")?;
        let silent = self
            .is_silent(&format!("--pid {}", machine.pid()))
            .and_then(|()| self.is_silent(&format!("-- {line}")));
        silent.with_context(|| format!("after {:#?}", finding.cure))?;
        Ok(running)
    }

    /// Finds a fault in a line before it runs, and cures it as [`Self::heals`] does.
    pub fn mends(&self, line: &str, fault: &str) -> Result<Vec<Running>> {
        let found = self.finds(&format!("-- {line}"), fault)?;
        self.heals(line, &found)
    }

    /// Starts a QEMU of [`Self::line`], and waits until it runs or ends, or for so long.
    pub fn qemu(&self, line: &str, patience: Duration) -> Result<Outcome> {
        let mut running = self.spawn("qemu", line)?;
        let fds = &mut [
            PollFd::new(running.process.pidfd(), PollFlags::IN),
            PollFd::new(&self.monitors, PollFlags::IN),
        ];
        if first_readable(fds, LIMIT)? != Some(1) {
            return running.ended();
        }
        let (mut stream, _) = self.monitors.accept()?;
        // It answers when it has begun; before, it only greets.
        let asked = "{\"execute\":\"qmp_capabilities\"}\n{\"execute\":\"query-status\"}\n";
        let _ = stream.write_all(asked.as_bytes());
        stream.set_read_timeout(Some(patience))?;
        let mut reader = BufReader::new(stream);
        loop {
            let mut text = String::new();
            match reader.read_line(&mut text) {
                Ok(0) => return running.ended(),
                Ok(_) if text.contains("\"status\"") => {
                    running.monitor = Some(reader);
                    return Ok(Outcome::Runs(running));
                }
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return running.ended(),
                Err(_) => return Ok(Outcome::Waits(running)),
            }
        }
    }

    /// Starts a QEMU that runs.
    pub fn runs(&self, line: &str) -> Result<Running> {
        match self.qemu(line, LIMIT)? {
            Outcome::Runs(running) => Ok(running),
            other => bail!("{line}: {other:?}"),
        }
    }

    /// Starts a QEMU that waits for its socket.
    pub fn waits(&self, line: &str) -> Result<Running> {
        match self.qemu(line, SHORT)? {
            Outcome::Waits(running) => Ok(running),
            other => bail!("{line}: {other:?}"),
        }
    }

    /// Starts a QEMU that ends at once; it says this.
    pub fn refused(&self, line: &str, says: &str) -> Result<()> {
        match self.qemu(line, LIMIT)? {
            Outcome::Ended(said) if said.contains(says) => Ok(()),
            other => bail!("{line}: {other:?}"),
        }
    }

    /// Starts a switch of ours, or another back-end, by its line.
    pub fn switch(&self, line: &str) -> Result<Running> {
        let mut running = self.spawn("switch", line)?;
        let stdout = running.process.child().stdout.take().context("no pipe")?;
        let mut first = String::new();
        BufReader::new(stdout).read_line(&mut first)?;
        ensure!(first == "ready\n", "{line}: {}", running.said());
        Ok(running)
    }

    fn sh(&self, line: &str) -> Result<Command> {
        let binary = fs::canonicalize(binary()?)?;
        let folder = binary.parent().unwrap_or(Path::new("/"));
        let path = env::var("PATH").unwrap_or_default();
        let mut sh = command("sh", Some(&self.place));
        sh.args(["-c", line]).stdin(Stdio::null());
        sh.env("PATH", format!("{}:{path}", folder.display()));
        Ok(sh)
    }

    fn spawn(&self, what: &str, line: &str) -> Result<Running> {
        let messages = self.lab.log(&name(&format!("{what}-")));
        let mut sh = self.sh(&format!("exec {line}"))?;
        sh.stdout(Stdio::piped()).stderr(File::create(&messages)?);
        Ok(Running {
            process: Process::spawn(what, &mut sh)?,
            messages,
            monitor: None,
        })
    }
}

impl Running {
    /// The process.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// What it said so far.
    pub fn said(&self) -> String {
        fs::read_to_string(&self.messages).unwrap_or_default()
    }

    /// Waits until it has said this.
    pub fn await_said(&mut self, text: &str) -> Result<()> {
        self.until(text, |running| Ok(running.said().contains(text)))
    }

    /// Waits until something is so, which nobody tells.
    pub fn until(&mut self, what: &str, wanted: impl Fn(&Self) -> Result<bool>) -> Result<()> {
        let end = Instant::now() + LIMIT;
        while !wanted(self)? {
            // An end would be told.
            let ended = self.process.wait(Duration::from_millis(100)).is_ok();
            ensure!(!ended, "it ended before {what}: {}", self.said());
            ensure!(Instant::now() < end, "no {what}: {}", self.said());
        }
        Ok(())
    }

    /// Ends it without its consent: its sockets stay.
    pub fn kill(mut self) {
        self.process.kill();
    }

    /// Has it end in its own way.
    pub fn end(mut self) -> Result<()> {
        self.process.signal(Signal::TERM)?;
        self.process.wait(LIMIT).map(drop)
    }

    fn ended(mut self) -> Result<Outcome> {
        self.process.wait(LIMIT)?;
        Ok(Outcome::Ended(self.said()))
    }
}
