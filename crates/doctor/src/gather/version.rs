//! Which version of QEMU a machine is, or would be.

use std::{
    fs::{self, File},
    os::{fd::AsRawFd, unix::fs::MetadataExt},
    path::Path,
};

use ringway_vmm::Qemu;
use rustix::process;

use crate::facts::{Machine, Origin};

/// Asks the program. One that runs is asked only if nobody but root and the user who asks could have written it: it might be
/// anything that is called QEMU.
pub(super) fn of(machine: &Machine) -> Option<String> {
    let qemu = match machine.pid {
        Some(pid) => {
            let link = format!("/proc/{pid}/exe");
            let path = fs::read_link(&link).ok()?;
            let name = path.file_name()?.to_string_lossy();
            if !name.starts_with("qemu") && name != "kvm" {
                return None;
            }
            let file = File::open(link).ok()?;
            let about = file.metadata().ok()?;
            let mine = [0, process::geteuid().as_raw()].contains(&about.uid());
            if !mine || about.mode() & 0o022 != 0 {
                return None;
            }
            // The very file that was looked at, whatever is at its path by now.
            Qemu::find(Some(Path::new(&format!(
                "/proc/self/fd/{}",
                file.as_raw_fd()
            ))))
        }
        None if machine.origin == Origin::Command => {
            Qemu::find(Some(Path::new(machine.command.first()?)))
        }
        None => return None,
    };
    Some(qemu.ok()?.version.to_string())
}
