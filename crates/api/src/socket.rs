//! Unix sockets at a path: made so that a stale one is replaced and a used one is not.

use std::{
    io,
    os::{
        fd::OwnedFd,
        unix::fs::{FileTypeExt, PermissionsExt},
    },
    path::{Path, PathBuf},
};

use rustix::{
    io::Errno,
    net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType},
};

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 16;

/// Why there is no socket at a path.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Somebody listens there.
    #[error(
        "{path} is in use: somebody listens there already; stop that process or choose another path"
    )]
    InUse {
        /// The path.
        path: PathBuf,
    },
    /// There is something else.
    #[error("{path} exists and is no socket; remove it or choose another path")]
    NoSocket {
        /// The path.
        path: PathBuf,
    },
    /// The directory is missing.
    #[error(
        "{path}: the directory {directory} does not exist; make it with `mkdir -p {directory}`"
    )]
    NoDirectory {
        /// The path.
        path: PathBuf,
        /// Its directory.
        directory: PathBuf,
    },
    /// The directory may not be written.
    #[error(
        "{path}: no right to make a socket in {directory}; choose a directory you may write to, or run as its owner"
    )]
    Denied {
        /// The path.
        path: PathBuf,
        /// Its directory.
        directory: PathBuf,
    },
    /// The path does not fit a socket address.
    #[error(
        "{path}: a socket path has at most 107 bytes and this one has {len}; choose a shorter one"
    )]
    TooLong {
        /// The path.
        path: PathBuf,
        /// Its length in bytes.
        len: usize,
    },
    /// There is no such group.
    #[error("there is no group {group}; see `getent group`, or give its number")]
    NoGroup {
        /// The name that was given.
        group: String,
    },
    /// Something else failed.
    #[error("{path}: {action}: {error}; choose another path, for example below /run")]
    Other {
        /// The path.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// What the system said.
        error: io::Error,
    },
}

/// Listens at `path`, with these mode bits and, if given, this group. The socket does not block; its file stays until somebody
/// removes it.
pub fn listen(path: &Path, mode: u32, group: Option<&str>) -> Result<OwnedFd, SocketError> {
    let group = group.map(group_number).transpose()?;
    let address = address(path)?;
    let other = |action: &'static str| {
        move |error: Errno| SocketError::Other {
            path: path.into(),
            action,
            error: error.into(),
        }
    };
    let socket = stream().map_err(other("making a socket"))?;
    if let Err(error) = rustix::net::bind(&socket, &address) {
        if error != Errno::ADDRINUSE {
            return Err(bind_error(path, error));
        }
        remove_stale(path, &address)?;
        rustix::net::bind(&socket, &address).map_err(|error| bind_error(path, error))?;
    }
    let finish = || {
        // Nobody can connect before `listen`, so the mode is right when the first one does.
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
            .and_then(|()| std::os::unix::fs::chown(path, None, group))
            .map_err(|error| SocketError::Other {
                path: path.into(),
                action: "setting mode and group",
                error,
            })?;
        rustix::net::listen(&socket, BACKLOG).map_err(other("listening"))
    };
    if let Err(error) = finish() {
        let _ = std::fs::remove_file(path);
        return Err(error);
    }
    Ok(socket)
}

/// Connects to a socket, without waiting: a unix socket connects at once or not at all.
pub fn connect(path: &Path) -> io::Result<OwnedFd> {
    let address = SocketAddrUnix::new(path)?;
    let socket = stream()?;
    rustix::net::connect(&socket, &address)?;
    Ok(socket)
}

/// Removes the socket at `path` if nobody listens there.
pub fn remove_unused(path: &Path) -> Result<(), SocketError> {
    remove_stale(path, &address(path)?)
}

fn stream() -> rustix::io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)
}

fn address(path: &Path) -> Result<SocketAddrUnix, SocketError> {
    SocketAddrUnix::new(path).map_err(|_| SocketError::TooLong {
        path: path.into(),
        len: path.as_os_str().len(),
    })
}

fn bind_error(path: &Path, error: Errno) -> SocketError {
    let directory = match path.parent() {
        Some(parent) if parent != Path::new("") => parent.to_owned(),
        _ => PathBuf::from("."),
    };
    let path = path.to_owned();
    match error {
        Errno::NOENT | Errno::NOTDIR if !directory.is_dir() => {
            SocketError::NoDirectory { path, directory }
        }
        Errno::ACCESS | Errno::PERM | Errno::ROFS => SocketError::Denied { path, directory },
        Errno::ADDRINUSE => SocketError::InUse { path },
        error => SocketError::Other {
            path,
            action: "making a socket",
            error: error.into(),
        },
    }
}

fn remove_stale(path: &Path, address: &SocketAddrUnix) -> Result<(), SocketError> {
    let kind = path.symlink_metadata().map(|metadata| metadata.file_type());
    if !kind.is_ok_and(|kind| kind.is_socket()) {
        return Err(SocketError::NoSocket { path: path.into() });
    }
    let other = |action, error| SocketError::Other {
        path: path.to_owned(),
        action,
        error,
    };
    let probe = stream().map_err(|error| other("making a socket", error.into()))?;
    match rustix::net::connect(&probe, address) {
        Err(Errno::CONNREFUSED) => std::fs::remove_file(path)
            .map_err(|error| other("removing the socket nobody listens at", error)),
        _ => Err(SocketError::InUse { path: path.into() }),
    }
}

/// A group's number, from its number or its name.
fn group_number(group: &str) -> Result<u32, SocketError> {
    if let Ok(number) = group.parse() {
        return Ok(number);
    }
    let groups = std::fs::read_to_string("/etc/group").unwrap_or_default();
    groups
        .lines()
        .filter_map(|line| {
            let mut fields = line.split(':');
            (fields.next()? == group).then(|| fields.nth(1)?.parse().ok())?
        })
        .next()
        .ok_or_else(|| SocketError::NoGroup {
            group: group.into(),
        })
}
