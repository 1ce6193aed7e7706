//! The kernel's vhost-net, by which taps are reached without a system call for each frame.

use std::fs::OpenOptions;
use std::io;
use std::os::fd::OwnedFd;

const DEVICE: &str = "/dev/vhost-net";

/// Why vhost-net cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum VhostNetError {
    /// The module is not loaded, or not there.
    #[error("there is no {DEVICE}; `modprobe vhost_net` as root loads it where the kernel has it")]
    Missing,
    /// Somebody else may.
    #[error("no right to open {DEVICE}; be root, or of the group it belongs to (`ls -l {DEVICE}`)")]
    Denied,
    /// Something else.
    #[error("cannot open {DEVICE}: {0}")]
    Open(io::Error),
}

/// Opens as many devices as a tap has queues. The switch sets them up.
pub fn open(queues: u16) -> Result<Vec<OwnedFd>, VhostNetError> {
    let open = || OpenOptions::new().read(true).write(true).open(DEVICE);
    let device = |_| match open() {
        Ok(file) => Ok(file.into()),
        Err(error) => Err(match error.raw_os_error() {
            Some(libc::ENOENT | libc::ENODEV | libc::ENXIO) => VhostNetError::Missing,
            Some(libc::EACCES | libc::EPERM) => VhostNetError::Denied,
            _ => VhostNetError::Open(error),
        }),
    };
    (0..queues).map(device).collect()
}
