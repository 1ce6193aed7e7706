//! Macvtaps: their queues are opens of `/dev/tapN`, N being the interface's number.

use std::{
    io,
    os::{
        fd::OwnedFd,
        unix::fs::{FileTypeExt, PermissionsExt},
    },
    path::PathBuf,
};

use rustix::{
    fs::{Mode, OFlags},
    io::Errno,
};

use super::{Owner, TapError, links};

/// The driver's name as `ethtool -i` has it; macvtaps share it with macvlans.
const DRIVER: &str = "macvlan";

/// Queues of a macvtap; `None` = the interface is none.
pub(super) fn open(name: &str, queues: u16) -> Result<Option<Vec<OwnedFd>>, TapError> {
    let Some(device) = device(name)? else {
        return Ok(None);
    };
    let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let opened: Result<Vec<OwnedFd>, Errno> = (0..queues)
        .map(|_| rustix::fs::open(&device, flags, Mode::empty()))
        .collect();
    match opened {
        Ok(opened) => Ok(Some(opened)),
        Err(source) => Err(failed(name, "open", source.into())),
    }
}

/// Lets somebody besides root open a macvtap.
pub fn own(name: &str, owner: Owner) -> Result<(), TapError> {
    let missing = || io::Error::from(io::ErrorKind::NotFound);
    let device = device(name)?.ok_or_else(|| failed(name, "find the device of", missing()))?;
    let mode = if owner.group.is_some() { 0o660 } else { 0o600 };
    std::os::unix::fs::chown(&device, owner.user, owner.group)
        .and_then(|()| std::fs::set_permissions(&device, std::fs::Permissions::from_mode(mode)))
        .map_err(|source| failed(name, "set the owner of", source))
}

/// The device of a macvtap.
fn device(name: &str) -> Result<Option<PathBuf>, TapError> {
    let links = links(name)?;
    let Ok(index) = links.index(name) else {
        return Ok(None);
    };
    if links.driver(name).ok().as_deref() != Some(DRIVER) {
        return Ok(None);
    }
    let device = PathBuf::from(format!("/dev/tap{index}"));
    let is_there = device
        .metadata()
        .is_ok_and(|data| data.file_type().is_char_device());
    Ok(is_there.then_some(device))
}

fn failed(name: &str, action: &'static str, source: io::Error) -> TapError {
    TapError::System {
        name: name.to_owned(),
        action,
        source,
    }
}
