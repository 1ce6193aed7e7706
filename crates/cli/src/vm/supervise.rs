//! The supervisor: a process in a session of its own that makes what a machine needs, has QEMU as its child, and takes everything
//! back when that ends, however it ends.

use std::{
    fs::File,
    io::{self, Read, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context;
use ringway_api::v1::client::Client;
use ringway_vmm::{
    Accel, Console, Disk, Format, Machine, NicRequest, Qemu, Qmp, Record,
    disk::Writes,
    folder::{Claim, Folder},
    overlay,
    pin::{Pinning, Threads},
    process::Process,
    qemu,
    seed::Seed,
};
use rustix::event::{PollFd, PollFlags, poll};
use serde::{Deserialize, Serialize};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use super::{machine::Runner, nics, nics::Taps, undo};
use crate::Failure;

/// How long QEMU may take until its monitor answers: it reserves memory, and connects to switches.
const START: Duration = Duration::from_secs(30);
/// How long a guest may take to power down when the supervisor is told to end.
const POWER_DOWN: Duration = Duration::from_secs(10);

/// How the line of a machine's log begins that says how QEMU ended, if not by itself.
pub(super) const ENDED: &str = "QEMU ended";

/// What is to be run; comes as JSON on standard input.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Plan {
    /// Without NICs, sockets, seed and overlay, which are made here.
    pub(super) machine: Machine,
    pub(super) nets: Vec<NicRequest>,
    pub(super) qemu: Qemu,
    pub(super) accel: Accel,
    /// The run directory.
    pub(super) run: PathBuf,
    /// The daemon's socket.
    pub(super) daemon: PathBuf,
    /// A file to be made upon the image, and its size in MiB if it shall be larger.
    pub(super) overlay: Option<(PathBuf, Option<u64>)>,
    pub(super) seed: Option<Seed>,
    pub(super) user: String,
    pub(super) key: Option<PathBuf>,
}

/// What is said on standard output, as one line of JSON.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Report {
    Started,
    Failed(String),
}

pub(super) fn run() -> Result<(), Failure> {
    let mut text = Vec::new();
    io::stdin().read_to_end(&mut text)?;
    let plan: Plan = serde_json::from_slice(&text).context("no plan on standard input")?;
    // Signals of the terminal are for whoever looks at the machine, not for the machine.
    let _ = rustix::process::setsid();
    let (told, tell) = UnixStream::pair()?;
    for signal in [SIGTERM, SIGINT, SIGHUP] {
        signal_hook::low_level::pipe::register(signal, tell.try_clone()?)?;
    }
    let client = Client::new(&plan.daemon);
    let name = plan.machine.name.parse().context("the machine's name")?;
    let folder = Folder::new(&plan.run, &name);
    let claim = match folder.claim() {
        Ok(claim) => claim,
        Err(error) => return report(&Report::Failed(error.to_string())),
    };
    // What a supervisor left that was killed.
    if let Ok(stale) = folder.record() {
        undo::end_process(&folder, &stale);
        undo::made(&stale, &client);
    }
    let mut record = Record {
        machine: plan.machine.clone(),
        qemu: plan.qemu.clone(),
        accel: plan.accel,
        pid: None,
        supervisor: rustix::process::getpid().as_raw_nonzero().get(),
        overlay: None,
        ports: Vec::new(),
        daemon: plan.daemon.clone(),
        user: plan.user.clone(),
        key: plan.key.clone(),
    };
    let ended = match start(&plan, &claim, &client, &mut record) {
        Ok(mut process) => match report(&Report::Started) {
            // Nobody waits for it any more.
            Err(error) => Err(error),
            Ok(()) => {
                leave_the_terminal(&folder);
                watch(&mut process, &told, &folder);
                Ok(())
            }
        },
        Err(Failure::Failed(error)) => report(&Report::Failed(format!("{error:#}"))),
        Err(Failure::Usage(sentence)) => report(&Report::Failed(sentence)),
    };
    undo::made(&record, &client);
    claim.remove()?;
    ended
}

fn report(report: &Report) -> Result<(), Failure> {
    let mut out = io::stdout();
    writeln!(out, "{}", serde_json::to_string(report)?)?;
    Ok(out.flush()?)
}

/// Makes everything and starts QEMU. What was made is in the record, also when it fails.
fn start(
    plan: &Plan,
    claim: &Claim,
    client: &Client,
    record: &mut Record,
) -> Result<Process, Failure> {
    let (folder, machine) = (claim.folder(), &plan.machine);
    claim.write(record)?;
    if let (Some((path, size)), Some(disk)) = (&plan.overlay, record.machine.disks.first_mut()) {
        record.overlay = Some(path.clone());
        overlay::create(path, &disk.path, disk.format, *size)?;
        *disk = Disk {
            path: path.clone(),
            format: Format::Qcow2,
            writes: Writes::Kept,
        };
    }
    if let Some(seed) = &plan.seed {
        let path = folder.seed();
        let _ = std::fs::remove_file(&path);
        seed.write(&path)?;
        record.machine.disks.push(Disk {
            path,
            format: Format::Raw,
            writes: Writes::Refused,
        });
    }
    let name = folder.name();
    let resolved = nics::resolve(
        &plan.nets,
        name,
        machine.cpus,
        Taps::Opened,
        client,
        &mut record.ports,
    );
    claim.write(record)?;
    let mut handed = Vec::new();
    for resolved in resolved? {
        record.machine.nics.push(resolved.nic);
        handed.extend(resolved.descriptors);
    }
    record.machine.console = Console::Socket {
        path: folder.console(),
    };
    record.machine.monitor = Some(folder.monitor());
    let runner = Runner {
        qemu: plan.qemu.clone(),
        accel: plan.accel,
    };
    runner.check(&record.machine)?;
    for socket in [folder.console(), folder.monitor()] {
        let _ = std::fs::remove_file(socket);
    }
    let arguments = qemu::arguments(&plan.qemu, plan.accel, &record.machine);
    let mut process = Process::start(&plan.qemu.program, &arguments, &folder.log(), handed)?;
    record.pid = Some(process.id());
    claim.write(record)?;
    let mut monitor = process.await_monitor(&folder.monitor(), START)?;
    if let Some(pin) = &machine.pin {
        let pinning = Pinning {
            vcpus: Some(pin.clone()),
            ..Pinning::default()
        };
        let threads = Threads::by_monitor(process.id(), &mut monitor)?;
        threads.pin(&pinning, &folder.pinned())?;
    }
    Ok(process)
}

/// Whoever started us may close its terminal.
fn leave_the_terminal(folder: &Folder) {
    let log = File::options().append(true).open(folder.log());
    if let Ok(log) = log {
        let _ = rustix::stdio::dup2_stdout(&log);
        let _ = rustix::stdio::dup2_stderr(&log);
    }
    let _ = std::env::set_current_dir(Path::new("/"));
}

/// Until QEMU has ended. Told to end, the guest is asked to power down first.
fn watch(process: &mut Process, told: &UnixStream, folder: &Folder) {
    let fds = &mut [
        PollFd::new(process.pidfd(), PollFlags::IN),
        PollFd::new(told, PollFlags::IN),
    ];
    while let Err(rustix::io::Errno::INTR) = poll(fds, None) {}
    let signalled = !fds[1].revents().is_empty();
    if signalled && fds[0].revents().is_empty() {
        let asked = Qmp::connect(&folder.monitor()).and_then(|mut monitor| monitor.power_down());
        if asked.is_err() || !ringway_vmm::process::ended(process.pidfd(), POWER_DOWN) {
            process.kill();
        }
    }
    match process.wait() {
        // Into the machine's log, for whoever is at its console.
        Ok(status) if !status.success() && !signalled => {
            let words = process.last_words();
            let _ = writeln!(io::stderr(), "{ENDED} ({status}): {words}");
        }
        _ => (),
    }
}
