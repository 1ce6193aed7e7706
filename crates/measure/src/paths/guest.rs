//! One guest: booted, pinned, asked.

use std::{
    fs,
    io::{ErrorKind, Read, Write},
    net::Ipv4Addr,
    os::{
        fd::OwnedFd,
        unix::net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use ringway_vmm::{
    Accel, Boot, Console, Disk, Format, Machine, Nic, Qemu,
    disk::{self, Writes},
    pin::{Pinning, Threads},
    process::{Process, ended},
    qemu,
    seed::{Login, Seed},
};

use super::{
    Folder,
    parcel::{self, Parcel},
    place::Place,
    protocol::{Counters, Load, PORT, Reply, Request},
    run::Interrupt,
};

/// MiB; enough for a Debian and for the archive it boots from.
const MEMORY: u64 = 384;
const MEMORY_OF_IMAGE: u64 = 1024;
/// How long QEMU may take until its monitor answers.
const START: Duration = Duration::from_secs(30);
/// How long an agent may take to answer; its guest may be flooded.
const ANSWER: Duration = Duration::from_secs(30);
/// Bytes of a reply at most; a guest may be anybody's.
const LONGEST: usize = 1 << 16;
/// Between two looks at whether somebody wants to end it all.
const LOOK: Duration = Duration::from_millis(100);
/// Serial number of the disk with the agent.
const SERIAL: &str = "ringway-bench";

/// What guests boot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Image {
    /// A kernel and an initramfs as `guest/build` makes them, which hand over to `/bin/agent`.
    Built {
        /// The kernel.
        kernel: PathBuf,
        /// The initramfs.
        initrd: PathBuf,
    },
    /// A disk with cloud-init; it stays as it is.
    Disk {
        /// The image.
        path: PathBuf,
        /// A kernel, where it has no boot loader.
        boot: Option<Boot>,
    },
}

impl Image {
    /// What QEMU boots without a boot loader.
    pub fn kernel(&self) -> Option<&Path> {
        match self {
            Self::Built { kernel, .. } => Some(kernel),
            Self::Disk { boot, .. } => boot.as_ref().map(|boot| boot.kernel.as_path()),
        }
    }

    /// How long it may take to boot.
    fn patience(&self, accel: Accel) -> Duration {
        Duration::from_secs(match (self, accel) {
            (Self::Built { .. }, _) => 120,
            (Self::Disk { .. }, Accel::Kvm) => 180,
            (Self::Disk { .. }, Accel::Tcg) => 600,
        })
    }
}

/// What all guests of a run have in common.
#[derive(Debug)]
pub(super) struct Maker {
    qemu: Qemu,
    accel: Accel,
    image: Image,
    boot: Option<Boot>,
}

impl Maker {
    /// Puts into the folder what guests boot from.
    pub(super) fn new(qemu: Qemu, accel: Accel, image: Image, folder: &Folder) -> Result<Self> {
        let parcel = Parcel::of_this_program()?;
        let boot = match &image {
            Image::Built { kernel, initrd } => {
                let whole = folder.file("initramfs");
                parcel::append(initrd, &parcel.cpio()?, &whole)?;
                Some(Boot {
                    kernel: kernel.clone(),
                    initrd: Some(whole),
                    append: Some(kernel_line(accel)),
                })
            }
            Image::Disk { boot, .. } => {
                parcel::write(&folder.file("agent-disk"), &parcel.tar()?)?;
                boot.clone()
            }
        };
        Ok(Self {
            qemu,
            accel,
            image,
            boot,
        })
    }

    /// Starts a guest, which still has to be awaited.
    pub(super) fn start(
        &self,
        folder: &Folder,
        name: &str,
        vcpus: u16,
        nic: Nic,
        handed: Vec<OwnedFd>,
    ) -> Result<Guest> {
        let socket = folder.file(&format!("{name}.agent"));
        let [monitor, console] =
            ["monitor", "console"].map(|it| folder.file(&format!("{name}.{it}")));
        for path in [&socket, &monitor] {
            let _ = fs::remove_file(path);
        }
        let listener = UnixListener::bind(&socket)?;
        let machine = self.machine(folder, name, vcpus, nic, &console)?;
        qemu::check(&self.qemu, self.accel, &machine)?;
        // Whatever becomes of us, QEMU ends with us.
        let mut words = ["--pdeathsig", "KILL", "--"].map(str::to_owned).to_vec();
        words.push(self.qemu.program.display().to_string());
        words.extend(qemu::arguments(&self.qemu, self.accel, &machine));
        let log = folder.file(&format!("{name}.log"));
        let mut process = Process::start(Path::new("setpriv"), &words, &log, handed)?;
        let mut qmp = process.await_monitor(&monitor, START)?;
        let threads = Threads::by_monitor(process.id(), &mut qmp)?;
        let vcpus = qmp.vcpus()?.iter().map(|vcpu| vcpu.thread).collect();
        // QEMU connected before its monitor answered.
        let (stream, _) = listener.accept()?;
        stream.set_read_timeout(Some(LOOK))?;
        Ok(Guest {
            name: name.to_owned(),
            patience: self.image.patience(self.accel),
            process,
            threads,
            vcpus,
            stream,
            line: Vec::new(),
            console,
        })
    }

    fn machine(
        &self,
        folder: &Folder,
        name: &str,
        vcpus: u16,
        nic: Nic,
        console: &Path,
    ) -> Result<Machine> {
        let path = |path: &Path| path.display().to_string().replace(',', ",,");
        let agent = path(&folder.file(&format!("{name}.agent")));
        let mut more = vec!["-no-reboot".to_owned()];
        let mut option = |option: &str, value: String| more.extend([option.to_owned(), value]);
        option("-serial", format!("file:{}", console.display()));
        option("-device", "virtio-serial-pci".into());
        option("-chardev", format!("socket,id=bench,path={agent}"));
        option(
            "-device",
            format!("virtserialport,chardev=bench,name={PORT}"),
        );
        let mut disks = Vec::new();
        if let Image::Disk { path: image, .. } = &self.image {
            let seed = folder.file(&format!("{name}.seed"));
            let _ = fs::remove_file(&seed);
            let text = Parcel::cloud_config(SERIAL);
            let seed_of = Seed {
                name: format!("bench-{name}"),
                instance: format!("ringway-bench-{name}"),
                login: Login::Given(text),
            };
            seed_of.write(&seed)?;
            let format = disk::format_of(image)?;
            let writes = Writes::Forgotten;
            disks.push(Disk {
                path: image.clone(),
                format,
                writes,
            });
            disks.push(Disk {
                path: seed,
                format: Format::Raw,
                writes: Writes::Refused,
            });
            let disk = path(&folder.file("agent-disk"));
            option(
                "-drive",
                format!("file={disk},format=raw,if=none,id=agent,readonly=on"),
            );
            option(
                "-device",
                format!("virtio-blk-pci,drive=agent,serial={SERIAL}"),
            );
        }
        Ok(Machine {
            name: format!("bench-{name}"),
            cpus: vcpus,
            memory: if disks.is_empty() {
                MEMORY
            } else {
                MEMORY_OF_IMAGE
            },
            hugepages: false,
            numa_node: None,
            pin: None,
            boot: self.boot.clone(),
            disks,
            nics: vec![nic],
            console: Console::Socket {
                path: folder.file(&format!("{name}.serial")),
            },
            monitor: Some(folder.file(&format!("{name}.monitor"))),
            paused: false,
            more,
        })
    }
}

/// Of guests that `guest/build` made.
fn kernel_line(accel: Accel) -> String {
    let line = "console=ttyS1 panic=-1 quiet mitigations=off";
    match accel {
        Accel::Kvm => line.to_owned(),
        // Calibrating clocks costs a second of every boot; a processor that loses its one timer sleeps for ever, with periodic ones the
        // next wakes it.
        Accel::Tcg => format!("{line} tsc=reliable no_timer_check nokaslr nohz=off highres=off"),
    }
}

/// What a guest says it cannot do.
#[derive(Debug)]
pub(super) struct Refused(String);

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Refused {}

/// A running guest. Dropped, its QEMU is killed.
#[derive(Debug)]
pub(super) struct Guest {
    name: String,
    patience: Duration,
    process: Process,
    threads: Threads,
    vcpus: Vec<i32>,
    stream: UnixStream,
    /// What came of the next line.
    line: Vec<u8>,
    console: PathBuf,
}

impl Guest {
    /// Waits until its agent answers; the guest's kernel.
    pub(super) fn await_ready(&mut self, interrupt: &Interrupt) -> Result<String> {
        match self.reply(self.patience, interrupt)? {
            Reply::Ready { kernel } => Ok(kernel),
            other => bail!(
                "guest {}: {other:?} came before anything was asked",
                self.name
            ),
        }
    }

    /// Pins its threads, as guest A (0) or B (1).
    pub(super) fn pin(&self, place: &Place, index: usize, folder: &Folder) -> Result<()> {
        let pinning = Pinning {
            vcpus: Some(place.vcpus[index].clone()),
            emulator: Some(place.others[index].clone()),
            io: None,
        };
        let saved = folder.file(&format!("{}.pinned", self.name));
        Ok(self.threads.pin(&pinning, &saved)?)
    }

    pub(super) fn configure(
        &mut self,
        mac: String,
        address: Ipv4Addr,
        interrupt: &Interrupt,
    ) -> Result<()> {
        self.done(&Request::Configure { mac, address }, interrupt)
    }

    pub(super) fn send(&mut self, load: Load, to: Ipv4Addr, interrupt: &Interrupt) -> Result<()> {
        self.done(&Request::Send { load, to }, interrupt)
    }

    pub(super) fn stop(&mut self, interrupt: &Interrupt) -> Result<()> {
        self.done(&Request::Stop, interrupt)
    }

    pub(super) fn count(&mut self, fresh: bool, interrupt: &Interrupt) -> Result<Counters> {
        match self.ask(&Request::Count { fresh }, interrupt)? {
            Reply::Counted(counters) => Ok(counters),
            other => bail!("guest {}: {other:?} is no count", self.name),
        }
    }

    /// QEMU's process.
    pub(super) fn process(&self) -> i32 {
        self.process.id()
    }

    /// Its threads that execute virtual processors.
    pub(super) fn vcpus(&self) -> &[i32] {
        &self.vcpus
    }

    fn done(&mut self, request: &Request, interrupt: &Interrupt) -> Result<()> {
        match self.ask(request, interrupt)? {
            Reply::Done => Ok(()),
            other => bail!("guest {}: {other:?} where it should be done", self.name),
        }
    }

    fn ask(&mut self, request: &Request, interrupt: &Interrupt) -> Result<Reply> {
        let line = format!("{}\n", serde_json::to_string(request)?);
        self.stream
            .write_all(line.as_bytes())
            .with_context(|| self.last_words("does not listen"))?;
        match self.reply(ANSWER, interrupt)? {
            Reply::Failed(why) => Err(Refused(format!("guest {}: {why}", self.name)).into()),
            reply => Ok(reply),
        }
    }

    fn reply(&mut self, limit: Duration, interrupt: &Interrupt) -> Result<Reply> {
        let end = Instant::now() + limit;
        let mut part = [0; 4096];
        loop {
            if let Some(len) = self.line.iter().position(|&byte| byte == b'\n') {
                let line: Vec<u8> = self.line.drain(..=len).collect();
                return serde_json::from_slice(&line)
                    .with_context(|| format!("guest {}: no reply", self.name));
            }
            if self.line.len() > LONGEST {
                bail!("guest {}: a reply of over {LONGEST} bytes", self.name);
            }
            interrupt.check()?;
            match self.stream.read(&mut part) {
                Ok(0) => bail!(self.last_words("ended")),
                Ok(len) => self.line.extend_from_slice(&part[..len]),
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) =>
                {
                    if ended(self.process.pidfd(), Duration::ZERO) {
                        bail!(self.last_words("ended"));
                    }
                }
                Err(error) => return Err(error.into()),
            }
            if Instant::now() > end {
                bail!(self.last_words(&format!("says nothing for {} s", limit.as_secs())));
            }
        }
    }

    fn last_words(&self, what: &str) -> String {
        let console = fs::read(&self.console).unwrap_or_default();
        let console = String::from_utf8_lossy(&console);
        let mut lines: Vec<&str> = console.lines().rev().take(5).map(str::trim).collect();
        lines.reverse();
        format!(
            "guest {} {what}; QEMU: {}; the guest's console: {}",
            self.name,
            self.process.last_words(),
            lines.join(" / ")
        )
    }
}
