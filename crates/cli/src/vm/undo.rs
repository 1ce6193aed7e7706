//! Taking back what was made for a machine.

use std::{fs, io, time::Duration};

use ringway_api::v1::client::Client;
use ringway_vmm::{Folder, Qmp, Record, process};

use super::nics;

/// How long QEMU may take to end after it was told to.
const QUIT: Duration = Duration::from_secs(5);

/// Ports and overlay; what stays is said.
pub(super) fn made(record: &Record, client: &Client) {
    nics::delete(&record.ports, client);
    if let Some(overlay) = &record.overlay {
        match fs::remove_file(overlay) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!("{} stays: {error}", overlay.display());
            }
            _ => (),
        }
    }
}

/// Ends a QEMU whose supervisor was killed, by its monitor: its number may be another's by now.
pub(super) fn end_process(folder: &Folder, record: &Record) {
    let Ok(mut monitor) = Qmp::connect(&folder.monitor()) else {
        return;
    };
    let pidfd = record.pid.and_then(process::open);
    let _ = monitor.quit();
    if let Some(pidfd) = pidfd {
        let _ = process::ended(&pidfd, QUIT);
    }
}
