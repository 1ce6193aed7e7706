//! `ringway vm pin`: which CPUs the threads of a QEMU run on.

use clap::Args;
use ringway_api::v1::Name;
use ringway_vmm::{
    CpuList, Folder, Qmp,
    pin::{Pinning, Threads},
};

use super::Run;
use crate::{Failure, ask::Form, print};

/// Pin the threads of a machine, or of a QEMU that somebody else started, to CPUs while it runs
///
/// A virtual CPU gets one CPU of the list, the first one the first, and from the beginning again when there are fewer. The emulator
/// and disks get all of theirs. What was before is remembered, and put back by --reset.
#[derive(Args)]
pub(crate) struct Arguments {
    /// The machine
    #[arg(required_unless_present = "pid")]
    name: Option<Name>,
    /// Another QEMU, whose threads have names (-name NAME,debug-threads=on)
    #[arg(long, value_name = "PID", conflicts_with = "name", value_parser = clap::value_parser!(i32).range(1..))]
    pid: Option<i32>,
    /// CPUs for the virtual ones, such as 2-5
    #[arg(long, value_name = "CPUS")]
    vcpus: Option<CpuList>,
    /// CPUs for QEMU's main loop and its helpers
    #[arg(long, value_name = "CPUS")]
    emulator: Option<CpuList>,
    /// CPUs for the threads that serve disks
    #[arg(long, value_name = "CPUS")]
    io: Option<CpuList>,
    /// Put back what was before
    #[arg(long, conflicts_with_all = ["vcpus", "emulator", "io"])]
    reset: bool,
    #[command(flatten)]
    form: Form,
}

pub(super) fn run(arguments: &Arguments, run: &Run) -> Result<(), Failure> {
    let pinning = Pinning {
        vcpus: arguments.vcpus.clone(),
        emulator: arguments.emulator.clone(),
        io: arguments.io.clone(),
    };
    let (read, saved): (Box<dyn Fn() -> Result<Threads, Failure>>, _) =
        match (&arguments.name, arguments.pid) {
            (_, Some(pid)) => (
                Box::new(move || Ok(Threads::by_name(pid)?)),
                run.directory().join("pinned").join(format!("{pid}.json")),
            ),
            (Some(name), None) => {
                let folder = Folder::new(&run.directory(), name);
                let pid = folder.record()?.pid.unwrap_or_default();
                let saved = folder.pinned();
                let read = move || {
                    let mut monitor = Qmp::connect(&folder.monitor())?;
                    Ok(Threads::by_monitor(pid, &mut monitor)?)
                };
                (Box::new(read), saved)
            }
            (None, None) => {
                return Err(Failure::Usage(
                    "vm pin does not say whose threads: give a machine or --pid".into(),
                ));
            }
        };
    let threads = read()?;
    if arguments.reset {
        threads.reset(&saved)?;
    } else if pinning != Pinning::default() {
        threads.pin(&pinning, &saved)?;
    }
    let threads = read()?.threads;
    print::answer(arguments.form.json, &threads, |threads| {
        print::threads(threads)
    })
}
