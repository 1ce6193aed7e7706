//! Linux guests in QEMU, driven by commands.

use std::{
    fs::{self, File},
    os::unix::net::UnixListener,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use rustix::event::{PollFd, PollFlags};

use crate::{
    Lab, Netns,
    agent::Agent,
    archive, emulator,
    endpoint::Endpoint,
    process::{Process, command, first_readable},
    qemu::{self, Accel},
    qmp::Qmp,
};
pub use crate::{
    endpoint::{Job, Output},
    nic::Nic,
};

/// For commands that should end at once; an emulated guest on a busy machine is slow.
const COMMAND: Duration = Duration::from_secs(60);
/// How long a guest may take to boot.
pub const BOOT: Duration = Duration::from_secs(120);

/// A guest before it boots.
#[derive(Debug, Clone)]
pub struct Builder<'a> {
    lab: &'a Lab,
    name: String,
    nics: Vec<Nic>,
    processors: u16,
    memory: u32,
    append: String,
    files: Vec<(PathBuf, String)>,
    accel: Option<Accel>,
    netns: Option<&'a Netns>,
    variant: &'static str,
    boot_limit: Duration,
    reboots: bool,
    one_thread: bool,
    flags: Option<Vec<String>>,
    further: Vec<String>,
    program: Option<PathBuf>,
}

impl<'a> Builder<'a> {
    pub(crate) fn new(lab: &'a Lab, name: &str) -> Self {
        Self {
            lab,
            name: name.into(),
            nics: Vec::new(),
            processors: 1,
            memory: 384,
            append: String::new(),
            files: Vec::new(),
            accel: None,
            netns: None,
            variant: "cloud",
            boot_limit: BOOT,
            reboots: false,
            one_thread: false,
            flags: None,
            further: Vec::new(),
            program: None,
        }
    }

    /// Adds a network card: `eth0`, `eth1` and so on.
    pub fn nic(mut self, nic: Nic) -> Self {
        self.nics.push(nic);
        self
    }

    /// Number of processors.
    pub fn processors(mut self, count: u16) -> Self {
        self.processors = count;
        self
    }

    /// Memory in MiB.
    pub fn memory(mut self, mebibytes: u32) -> Self {
        self.memory = mebibytes;
        self
    }

    /// More for the kernel's command line, for example `ringway.dhcp=eth0`.
    pub fn append(mut self, words: &str) -> Self {
        self.append.push(' ');
        self.append.push_str(words);
        self
    }

    /// Puts a file into the guest, into one of its directories: `bin/ringway`.
    pub fn file(mut self, path: PathBuf, name: &str) -> Self {
        self.files.push((path, name.into()));
        self
    }

    /// Runs QEMU in this network namespace.
    pub fn within(mut self, netns: &'a Netns) -> Self {
        self.netns = Some(netns);
        self
    }

    /// Boots another variant of `guest/build`.
    pub fn variant(mut self, variant: &'static str) -> Self {
        self.variant = variant;
        self
    }

    /// Lets the guest boot again; else QEMU ends when it tries, so that a crash is noticed at once.
    pub fn reboots(mut self) -> Self {
        self.reboots = true;
        self
    }

    /// Runs all processors in one thread of QEMU, for guests that set up devices again and again (see [`Self::booted`]).
    pub fn one_thread(mut self) -> Self {
        self.one_thread = true;
        self
    }

    /// Starts QEMU with these flags alone, and what the agent and the monitor need unless it is among them, as when they come of an
    /// earlier guest of this name; what else was said of the guest is not heeded.
    pub fn flags(mut self, flags: Vec<String>) -> Self {
        self.flags = Some(flags);
        self
    }

    /// Adds these flags to its own, before its NICs.
    pub fn further(mut self, flags: &[&str]) -> Self {
        self.further = flags.iter().map(|&flag| flag.to_owned()).collect();
        self
    }

    /// Starts it with another program than QEMU, which hands QEMU the last of its words.
    pub fn program(mut self, program: PathBuf) -> Self {
        self.program = Some(program);
        self
    }

    pub(crate) fn accel(mut self, accel: Accel) -> Self {
        self.accel = Some(accel);
        self
    }

    pub(crate) fn boot_limit(mut self, limit: Duration) -> Self {
        self.boot_limit = limit;
        self
    }

    /// Starts the guest and waits until it has booted.
    pub fn boot(self) -> Result<Guest> {
        let guest = self.clone().start()?;
        self.booted(guest)
    }

    /// Waits until `guest`, which was started from this description, has booted.
    ///
    /// QEMU aborts now and then when several emulated processors run while one of them sets up devices. That is none of ours, so
    /// the guest is started again.
    pub(crate) fn booted(self, mut guest: Guest) -> Result<Guest> {
        const ATTEMPTS: u32 = 3;
        for _ in 1..ATTEMPTS {
            let outcome = guest.await_ready(self.boot_limit);
            if outcome.is_err() && self.program.is_some() {
                // It takes back what it made, and says what QEMU said.
                let _ = guest.process.wait(COMMAND);
            }
            match outcome {
                Err(_) if guest.emulator_aborted() => {
                    drop(guest);
                    guest = self.clone().start()?;
                }
                outcome => return outcome.map(|_| guest),
            }
        }
        guest.await_ready(self.boot_limit)?;
        Ok(guest)
    }

    /// Starts the guest. It must be awaited with [`Guest::await_ready`] before it is given commands.
    pub fn start(self) -> Result<Guest> {
        self.launch(None)
    }

    /// Starts a QEMU that waits at the socket `path` for `guest` to migrate to it. The description must be that of `guest`, but for
    /// its name and the back-ends of its NICs. Commands that run in `guest` meanwhile are answered by whoever has it in the end.
    pub fn start_incoming(self, guest: &Guest, path: &Path) -> Result<Guest> {
        self.launch(Some((guest, path)))
    }

    fn launch(self, incoming: Option<(&Guest, &Path)>) -> Result<Guest> {
        let accel = match self.accel {
            Some(accel) => accel,
            None => qemu::accel(self.lab)?,
        };
        if self.nics.iter().any(Nic::is_vhost_user) {
            qemu::check_vhost_user(qemu::version()?, accel)?;
        }
        let socket = self.lab.path(&format!("{}.agent", self.name));
        let _ = fs::remove_file(&socket);
        let listener = UnixListener::bind(&socket)
            .with_context(|| format!("cannot listen at {}", socket.display()))?;
        let console = self.lab.log(&format!("{}.console", self.name));
        let messages = self.lab.log(&format!("{}.qemu", self.name));

        let program = self.program.clone();
        let mut qemu = command(
            program.unwrap_or_else(|| qemu::program().into()),
            self.netns,
        );
        self.arguments(&mut qemu, accel, &socket, &console)?;
        let monitor = self.lab.path(&format!("{}.qmp", self.name));
        if !self.is_in_flags(&monitor) {
            qemu.arg("-qmp")
                .arg(format!("unix:{},server=on,wait=off", monitor.display()));
        }
        if let Some((_, path)) = incoming {
            qemu.arg("-incoming")
                .arg(format!("unix:{}", path.display()));
        }
        let log = File::create(&messages)?;
        qemu.stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        let process = Process::spawn(&format!("guest {}", self.name), &mut qemu)?;

        // QEMU connects before it starts the guest; if it ends instead, it said why.
        let fds = &mut [
            PollFd::new(process.pidfd(), PollFlags::IN),
            PollFd::new(&listener, PollFlags::IN),
        ];
        if first_readable(fds, COMMAND)? != Some(1) {
            bail!(
                "guest {}: QEMU did not start: {}",
                self.name,
                tail(&messages, 10)
            );
        }
        let (stream, _) = listener.accept()?;
        let agent = match incoming {
            Some((guest, _)) => guest.lock().moving(&self.name, stream)?,
            None => Agent::new(&self.name, stream)?,
        };
        Ok(Guest {
            agent: Mutex::new(agent),
            name: self.name,
            process,
            monitor,
            console,
            messages,
            accel,
            started: Instant::now(),
        })
    }

    fn is_in_flags(&self, path: &Path) -> bool {
        let path = path.display().to_string();
        let mut flags = self.flags.iter().flatten();
        flags.any(|flag| flag.contains(&path))
    }

    fn arguments(
        &self,
        qemu: &mut Command,
        accel: Accel,
        agent: &Path,
        console: &Path,
    ) -> Result<()> {
        if let Some(flags) = &self.flags {
            qemu.args(flags);
            if !self.is_in_flags(agent) {
                agent_port(qemu, agent);
            }
            return Ok(());
        }
        let [kernel, mut initramfs] = qemu::image(self.variant)?;
        if !self.files.is_empty() {
            let whole = self.lab.path(&format!("{}.initramfs", self.name));
            archive::append(&initramfs, &self.files, &whole)?;
            initramfs = whole;
        }
        let memory = self.memory;
        let cpu = match accel {
            Accel::Kvm => "host",
            Accel::Tcg => "max",
        };
        let threads = match accel {
            Accel::Tcg if self.one_thread => ",thread=single",
            _ => "",
        };
        // Calibrating clocks and mitigating an emulated processor costs a second of every boot.
        let mut append = format!(
            "console=ttyS0 panic=-1 quiet mitigations=off tsc=reliable no_timer_check nokaslr{}",
            self.append
        );
        if let Some(disk) = qemu::disk(self.variant) {
            append.push_str(" ringway.root=/dev/vda");
            // What is written is forgotten.
            qemu.arg("-drive")
                .arg(format!(
                    "file={},format=raw,if=none,id=disk,snapshot=on",
                    disk.display()
                ))
                .args(["-device", "virtio-blk-pci,drive=disk"]);
        }
        if !self.reboots {
            qemu.arg("-no-reboot");
        }
        qemu.args(["-nodefaults", "-no-user-config"])
            .args(["-display", "none"])
            .args(["-M", "q35,memory-backend=mem", "-cpu", cpu])
            .args(["-accel", &format!("{accel}{threads}")])
            .args(["-m", &memory.to_string()])
            .args(["-smp", &self.processors.to_string()])
            .arg("-object")
            .arg(format!(
                "memory-backend-memfd,id=mem,size={memory}M,share=on"
            ))
            .arg("-kernel")
            .arg(kernel)
            .arg("-initrd")
            .arg(initramfs)
            .args(["-append", &append])
            .args(["-serial", &format!("file:{}", console.display())]);
        qemu.args(&self.further);
        agent_port(qemu, agent);
        for (index, nic) in self.nics.iter().enumerate() {
            qemu.args(nic.arguments(index, &self.name));
        }
        Ok(())
    }
}

fn agent_port(qemu: &mut Command, agent: &Path) {
    qemu.args(["-device", "virtio-serial-pci"])
        .arg("-chardev")
        .arg(format!("socket,id=agent,path={}", agent.display()))
        .args(["-device", "virtserialport,chardev=agent,name=agent"]);
}

/// A running guest. Dropped, its QEMU is killed; if that happens in a panic, the end of its console is shown.
#[derive(Debug)]
pub struct Guest {
    name: String,
    agent: Mutex<Agent>,
    process: Process,
    monitor: PathBuf,
    console: PathBuf,
    messages: PathBuf,
    accel: Accel,
    started: Instant,
}

impl Guest {
    pub(crate) fn builder<'a>(lab: &'a Lab, name: &str) -> Builder<'a> {
        Builder::new(lab, name)
    }

    /// Waits until the guest has booted; how long that took from its start.
    pub fn await_ready(&self, limit: Duration) -> Result<Duration> {
        self.lock()
            .await_ready(limit)
            .with_context(|| format!("guest {}: {}", self.name, self.last_words()))?;
        Ok(self.started.elapsed())
    }

    /// The guest's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How it is executed.
    pub fn accel(&self) -> Accel {
        self.accel
    }

    /// QEMU's process, or that of [`Builder::program`].
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Connects to QEMU's monitor, which takes one connection at a time.
    pub fn monitor(&self) -> Result<Qmp> {
        Qmp::connect(&self.name, &self.monitor)
    }

    /// Runs a command line in the guest's shell.
    pub fn run(&self, line: &str) -> Result<Output> {
        self.run_for(line, COMMAND)
    }

    /// As [`Self::run`], with a deadline of its own.
    pub fn run_for(&self, line: &str, limit: Duration) -> Result<Output> {
        self.start(line)?
            .wait(limit)
            .with_context(|| self.last_words())
    }

    /// Runs a command line that must succeed; what it printed.
    pub fn sh(&self, line: &str) -> Result<String> {
        self.sh_for(line, COMMAND)
    }

    /// As [`Self::sh`], with a deadline of its own.
    pub fn sh_for(&self, line: &str, limit: Duration) -> Result<String> {
        self.start(line)?
            .success(limit)
            .with_context(|| self.last_words())
    }

    /// Starts a command line; several may run side by side.
    pub fn start(&self, line: &str) -> Result<Job> {
        self.lock().start(line)
    }

    /// Boots again, as after `reboot`, and waits for it. The guest must be allowed to: [`Builder::reboots`].
    pub fn reboot(&self) -> Result<()> {
        // The command's end is never told.
        let _never = self.start("reboot -f")?;
        self.await_ready(BOOT)?;
        Ok(())
    }

    /// Gives an interface an address (`10.0.0.1/24`) and brings it up.
    pub fn configure(&self, interface: &str, address: &str) -> Result<()> {
        self.sh(&format!(
            "ip address add {address} dev {interface} && ip link set {interface} up"
        ))?;
        Ok(())
    }

    /// Whether the driver of `interface` negotiated a virtio feature, as the guest's kernel tells.
    pub fn negotiated(&self, interface: &str, bit: usize) -> Result<bool> {
        let bits = self.sh(&format!("cat /sys/class/net/{interface}/device/features"))?;
        let digit = bits.trim().as_bytes().get(bit);
        digit
            .map(|&digit| digit == b'1')
            .with_context(|| format!("no bit {bit} in {bits:?}"))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Agent> {
        self.agent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// QEMU's own assertion about its memory map failed.
    fn emulator_aborted(&self) -> bool {
        tail(&self.messages, 10).contains("iotlb_to_section: Assertion")
    }

    fn last_words(&self) -> String {
        format!(
            "guest {}: end of its console ({}):\n{}\nQEMU: {}",
            self.name,
            self.console.display(),
            tail(&self.console, 15),
            tail(&self.messages, 5)
        )
    }
}

impl Endpoint for Guest {
    fn start(&self, line: &str) -> Result<Job> {
        Self::start(self, line)
    }

    fn serve_iperf3(&self, port: u16) -> Result<()> {
        self.sh(&format!("serve-iperf3 {port}")).map(drop)
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("{}", self.last_words());
        }
        let said = [&self.console, &self.messages].map(|path| tail(path, 80));
        emulator::examine(&self.name, &self.monitor, &said.concat());
        self.process.kill();
    }
}

fn tail(path: &Path, lines: usize) -> String {
    let text = fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}
