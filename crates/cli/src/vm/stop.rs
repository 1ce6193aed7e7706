//! `ringway vm stop`: a machine powers down, or is ended.

use std::time::Duration;

use anyhow::anyhow;
use clap::Args;
use ringway_api::v1::{Name, client::Client};
use ringway_vmm::{Folder, Qmp, folder::FolderError, process};

use super::{Run, undo};
use crate::Failure;

/// How long a guest may take to power down.
pub(super) const GRACE: Duration = Duration::from_secs(30);
/// How long everything may take to be taken back after QEMU was ended.
pub(super) const CLEAN: Duration = Duration::from_secs(20);

/// Power a machine down, and end it if it does not
#[derive(Args)]
pub(crate) struct Arguments {
    /// The machine
    name: Name,
    /// Do not ask the guest
    #[arg(long)]
    force: bool,
    /// Seconds that the guest may take to power down
    #[arg(long, value_name = "SECONDS", default_value_t = GRACE.as_secs())]
    timeout: u64,
}

pub(super) fn run(arguments: &Arguments, run: &Run) -> Result<(), Failure> {
    let folder = Folder::new(&run.directory(), &arguments.name);
    let grace = match arguments.force {
        true => Duration::ZERO,
        false => Duration::from_secs(arguments.timeout),
    };
    stop(&folder, grace)
}

/// Asks the guest, then ends QEMU; returns when its supervisor has taken everything back.
pub(super) fn stop(folder: &Folder, grace: Duration) -> Result<(), Failure> {
    let record = folder.record()?;
    // Nobody watches over it: that is for us, then.
    match folder.claim() {
        Ok(claim) => {
            undo::end_process(folder, &record);
            undo::made(&record, &Client::new(&record.daemon));
            return Ok(claim.remove()?);
        }
        Err(FolderError::Taken(_)) => (),
        Err(error) => return Err(error.into()),
    }
    let asked = !grace.is_zero()
        && Qmp::connect(&folder.monitor()).is_ok_and(|mut monitor| monitor.power_down().is_ok());
    if asked && await_end(folder, grace)? {
        return Ok(());
    }
    if asked {
        tracing::warn!(
            "{} has not powered down within {} s, and is ended",
            folder.name(),
            grace.as_secs()
        );
    }
    // An error here is its end.
    let _ = Qmp::connect(&folder.monitor()).map(|mut monitor| monitor.quit());
    if await_end(folder, CLEAN)? {
        return Ok(());
    }
    let pid = record.pid.unwrap_or_default();
    Err(anyhow!("{} does not end: see process {pid}", folder.name()).into())
}

/// Whether the supervisor has ended in time; it does when nothing is left.
pub(super) fn await_end(folder: &Folder, limit: Duration) -> Result<bool, Failure> {
    let record = match folder.record() {
        Ok(record) => record,
        Err(FolderError::NoMachine(_)) => return Ok(true),
        Err(error) => return Err(error.into()),
    };
    let supervisor = process::open(record.supervisor);
    Ok(supervisor.is_none_or(|pidfd| process::ended(&pidfd, limit)))
}
