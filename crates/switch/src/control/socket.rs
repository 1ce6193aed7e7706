//! Listening unix sockets: made so that a stale one is replaced and a used one is not, removed when
//! their owner goes.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 16;

/// A socket others connect to.
pub(crate) struct Listener {
    socket: OwnedFd,
    /// Removed with the listener, unless somebody put another file there.
    file: Option<(PathBuf, u64)>,
}

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

impl Listener {
    /// Listens at `path`, with these mode bits and, if given, this group.
    pub(crate) fn bind(path: &Path, mode: u32, group: Option<&str>) -> Result<Self, SocketError> {
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
        let inode = path.symlink_metadata().map_or(0, |metadata| metadata.ino());
        let listener = Self {
            socket,
            file: Some((path.into(), inode)),
        };
        // Nobody can connect before `listen`, so the mode is right when the first one does.
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
            .and_then(|()| std::os::unix::fs::chown(path, None, group))
            .map_err(|error| SocketError::Other {
                path: path.into(),
                action: "setting mode and group",
                error,
            })?;
        rustix::net::listen(&listener.socket, BACKLOG).map_err(other("listening"))?;
        Ok(listener)
    }

    /// A listening socket somebody else made and keeps.
    pub(crate) fn adopt(socket: OwnedFd) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&socket, true)?;
        Ok(Self { socket, file: None })
    }

    /// The next connection, if one waits.
    pub(crate) fn accept(&self) -> io::Result<Option<OwnedFd>> {
        match rustix::net::accept_with(&self.socket, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
            Ok(socket) => Ok(Some(socket)),
            Err(Errno::AGAIN | Errno::INTR | Errno::CONNABORTED) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Where it listens, unless somebody else made it.
    pub(crate) fn path(&self) -> Option<&Path> {
        self.file.as_ref().map(|(path, _)| path.as_path())
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Some((path, inode)) = &self.file
            && path
                .symlink_metadata()
                .is_ok_and(|metadata| metadata.ino() == *inode)
        {
            let _ = std::fs::remove_file(path);
        }
    }
}

/// Connects to a socket, without waiting: a unix socket connects at once or not at all.
pub(crate) fn connect(path: &Path) -> io::Result<OwnedFd> {
    let address = SocketAddrUnix::new(path)?;
    let socket = stream()?;
    rustix::net::connect(&socket, &address)?;
    Ok(socket)
}

/// The process at the other end, for log lines.
pub(crate) fn peer(socket: &OwnedFd) -> String {
    match rustix::net::sockopt::socket_peercred(socket) {
        Ok(peer) => {
            let pid = peer.pid.as_raw_nonzero();
            // In the sandbox there is no looking at other processes.
            match std::fs::read_to_string(format!("/proc/{pid}/comm")) {
                Ok(name) => format!("{} pid {pid}", name.trim_end()),
                Err(_) => format!("pid {pid}"),
            }
        }
        Err(_) => "an unknown process".into(),
    }
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

/// Removes the socket at `path` if nobody listens there.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stale_socket_is_replaced_and_a_used_one_is_not() {
        let directory = std::env::temp_dir().join(format!("ringway-socket-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let path = directory.join("s");
        let first = Listener::bind(&path, 0o600, None).unwrap();
        assert!(matches!(
            Listener::bind(&path, 0o600, None),
            Err(SocketError::InUse { .. })
        ));
        assert_eq!(path.metadata().unwrap().mode() & 0o777, 0o600);
        drop(first);
        assert!(!path.exists());

        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists(), "left behind");
        drop(Listener::bind(&path, 0o666, Some("0")).unwrap());

        std::fs::write(&path, "precious").unwrap();
        assert!(matches!(
            Listener::bind(&path, 0o600, None),
            Err(SocketError::NoSocket { .. })
        ));
        assert_eq!(std::fs::read(&path).unwrap(), b"precious");

        let missing = directory.join("no/s");
        assert!(matches!(
            Listener::bind(&missing, 0o600, None),
            Err(SocketError::NoDirectory { .. })
        ));
        let nobody = Listener::bind(&directory.join("t"), 0o600, Some("no-such-group"));
        assert!(matches!(nobody, Err(SocketError::NoGroup { .. })));
        let long = directory.join("x".repeat(120));
        assert!(matches!(
            Listener::bind(&long, 0o600, None),
            Err(SocketError::TooLong { .. })
        ));
        std::fs::remove_dir_all(&directory).unwrap();
    }
}
