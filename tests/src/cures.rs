//! Faults that are made, named by `ringway doctor`, and cured by the commands it prints.

use std::{
    env,
    fs::{self, File},
    io::{BufRead, BufReader, Write},
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::OnceLock,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use rustix::{event::PollFd, event::PollFlags, process::Signal};
use serde::Deserialize;

use crate::{
    Lab,
    process::{Process, command, first_readable, output},
    qemu,
    switch::binary,
};

const LIMIT: Duration = Duration::from_secs(30);

/// What `ringway doctor --json` finds.
#[derive(Debug, Clone, Deserialize, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Finding {
    pub fault: String,
    pub machine: Option<String>,
    pub subject: String,
    pub what: String,
    pub cure: Vec<String>,
}

/// Findings for these words after `doctor`.
pub fn findings(words: &[&str]) -> Result<Vec<Finding>> {
    let mut command = Command::new(binary()?);
    let ignored = words_to_ignore()?;
    findings_of(command.arg("doctor").args(ignored).args(words))
}

/// The words that leave out what is so on all of this machine: whether the processor is emulated.
pub fn words_to_ignore() -> Result<Vec<String>> {
    const OF_THE_HOST: [&str; 2] = ["kvm-unusable", "tcg-chosen"];
    static KNOWN: OnceLock<String> = OnceLock::new();
    if KNOWN.get().is_none() {
        let table = output(Command::new(binary()?).args(["doctor", "--table"]))?;
        KNOWN.get_or_init(|| table);
    }
    let table = KNOWN.get().map_or("", String::as_str);
    let known = OF_THE_HOST
        .iter()
        .filter(|name| table.contains(&format!("### {name}\n")));
    Ok(known
        .flat_map(|name| ["--ignore".to_owned(), (*name).to_owned()])
        .collect())
}

/// Findings of a command that has `doctor` in it, and gets `--json` put behind that.
pub fn findings_of(command: &mut Command) -> Result<Vec<Finding>> {
    // No daemon or machine of this host has a part in it.
    let output = command.stdin(Stdio::null()).output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let found: Vec<Finding> = serde_json::from_str(&text).with_context(|| {
        let said = String::from_utf8_lossy(&output.stderr);
        format!("{command:?}: {text}{said}")
    })?;
    let wanted = Some(i32::from(!found.is_empty()));
    ensure!(
        output.status.code() == wanted,
        "{}: {found:?}",
        output.status
    );
    Ok(found)
}

/// What is found in a command line before it runs.
pub fn before(line: &str) -> Result<Vec<Finding>> {
    let words = words(line)?;
    let mut all = vec!["--json", "--"];
    all.extend(words.iter().map(String::as_str));
    findings(&all)
}

/// The one finding that there is, which is this fault.
pub fn only<'a>(found: &'a [Finding], fault: &str) -> Result<&'a Finding> {
    match found {
        [one] if one.fault == fault => Ok(one),
        other => bail!("not {fault} alone: {other:#?}"),
    }
}

/// The words of a line, as a shell divides them.
pub fn words(line: &str) -> Result<Vec<String>> {
    let script = format!("printf '%s\\0' {line}");
    let output = Command::new("sh").args(["-c", &script]).output()?;
    ensure!(output.status.success(), "no shell line: {line}");
    let text = String::from_utf8(output.stdout)?;
    Ok(text.split_terminator('\0').map(str::to_owned).collect())
}

/// A name that no other test and no program has.
pub fn random_name() -> Result<String> {
    let mut bytes = [0; 7];
    std::io::Read::read_exact(&mut File::open("/dev/urandom")?, &mut bytes)?;
    let letters = bytes.map(|byte| char::from(b'a' + byte % 26));
    Ok(letters.into_iter().collect())
}

/// An Ethernet address that nobody has.
pub fn random_mac() -> Result<String> {
    let mut bytes = [0; 5];
    std::io::Read::read_exact(&mut File::open("/dev/urandom")?, &mut bytes)?;
    let bytes = bytes.map(|byte| format!("{byte:02x}"));
    Ok(format!("02:{}", bytes.join(":")))
}

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

/// A machine with a sick NIC and a sound one, each at a socket of its name.
#[derive(Debug)]
pub struct Scene<'a> {
    lab: &'a Lab,
    /// Where it is played.
    pub shell: Shell<'a>,
    /// The name of the one, and of the machine.
    pub sick: String,
    /// The name of the other.
    pub sound: String,
}

impl<'a> Scene<'a> {
    /// With names by chance.
    pub fn new(lab: &'a Lab) -> Result<Self> {
        let (sick, sound) = (random_name()?, random_name()?);
        Ok(Self {
            lab,
            shell: Shell::new(lab)?,
            sick,
            sound,
        })
    }

    /// The path of that name, as text.
    pub fn path(&self, name: &str) -> String {
        self.lab.path(name).display().to_string()
    }

    /// A QEMU that has not begun to run its guest, with these options more, and the sound NIC.
    pub fn line(&self, more: &str) -> String {
        self.line_of("qemu-system-x86_64 -S", more)
    }

    /// The same of another program.
    pub fn line_of(&self, program: &str, more: &str) -> String {
        let (name, sound) = (&self.sick, &self.sound);
        format!(
            "{program} -name {name} -nodefaults -display none -accel tcg {} {} {more}",
            self.shell.monitor(),
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

/// Where lines are run.
#[derive(Debug)]
pub struct Shell<'a> {
    lab: &'a Lab,
    monitors: UnixListener,
}

impl<'a> Shell<'a> {
    /// In this lab.
    pub fn new(lab: &'a Lab) -> Result<Self> {
        let monitors = UnixListener::bind(lab.path("monitors"))?;
        Ok(Self { lab, monitors })
    }

    /// The option by which a QEMU says that it runs.
    pub fn monitor(&self) -> String {
        format!("-qmp unix:{}", self.lab.path("monitors").display())
    }

    /// Starts a QEMU whose line has [`Self::monitor`], and waits until it runs or ends, or for so long.
    pub fn qemu_for(&self, line: &str, patience: Duration) -> Result<Outcome> {
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
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => {
                    return running.ended();
                }
                Err(_) => return Ok(Outcome::Waits(running)),
            }
        }
    }

    /// Starts a QEMU that runs.
    pub fn qemu(&self, line: &str) -> Result<Running> {
        match self.qemu_for(line, LIMIT)? {
            Outcome::Runs(running) => Ok(running),
            other => bail!("{line}: {other:?}"),
        }
    }

    /// Starts a QEMU that ends at once; what it said.
    pub fn refused(&self, line: &str) -> Result<String> {
        match self.qemu_for(line, LIMIT)? {
            Outcome::Ended(said) => Ok(said),
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

    /// Runs a cure: what it leaves running. Lines for people are passed over, as are those that only they could have meant.
    pub fn cure(&self, lines: &[String]) -> Result<Vec<Running>> {
        let mut running = Vec::new();
        for line in lines.iter().filter(|line| !line.starts_with('#')) {
            if line.starts_with("ringway switch ") {
                running.push(self.switch(line)?);
            } else if line.contains("qemu-system-") {
                running.push(self.qemu(line)?);
            } else {
                let status = self.sh(line)?.status()?;
                ensure!(status.success(), "{line}: {status}");
            }
        }
        Ok(running)
    }

    fn sh(&self, line: &str) -> Result<Command> {
        let binary = fs::canonicalize(binary()?)?;
        let folder = binary.parent().unwrap_or(Path::new("/"));
        let path = env::var("PATH").unwrap_or_default();
        let mut sh = command("sh", None);
        sh.args(["-c", line]).stdin(Stdio::null());
        sh.env("PATH", format!("{}:{path}", folder.display()));
        Ok(sh)
    }

    fn spawn(&self, name: &str, line: &str) -> Result<Running> {
        let messages = self.lab.log(&format!("{name}-{}", random_name()?));
        let mut sh = self.sh(&format!("exec {line}"))?;
        sh.stdout(Stdio::piped()).stderr(File::create(&messages)?);
        Ok(Running {
            process: Process::spawn(name, &mut sh)?,
            messages,
            monitor: None,
        })
    }
}

impl Running {
    /// The process.
    pub fn pid(&self) -> String {
        self.process.id().to_string()
    }

    /// Where its messages are.
    pub fn messages(&self) -> &Path {
        &self.messages
    }

    /// What it said so far.
    pub fn said(&self) -> String {
        fs::read_to_string(&self.messages).unwrap_or_default()
    }

    /// Waits until it has said this.
    pub fn await_said(&mut self, text: &str) -> Result<()> {
        self.until(text, |running| Ok(running.said().contains(text)))
    }

    /// Waits until nothing is found in it any more.
    pub fn await_silence(&mut self) -> Result<()> {
        self.until("silence", |running| Ok(running.findings()?.is_empty()))
    }

    fn until(&mut self, what: &str, wanted: impl Fn(&Self) -> Result<bool>) -> Result<()> {
        let end = Instant::now() + LIMIT;
        while !wanted(self)? {
            // Nobody tells; an end would be told.
            let ended = self.process.wait(Duration::from_millis(100)).is_ok();
            ensure!(!ended, "it ended before {what}: {}", self.said());
            let late = Instant::now() > end;
            ensure!(!late, "no {what}: {}{:?}", self.said(), self.findings());
        }
        Ok(())
    }

    /// What is found in it as it runs.
    pub fn findings(&self) -> Result<Vec<Finding>> {
        findings(&["--json", "--pid", &self.pid()])
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
