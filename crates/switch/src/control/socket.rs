//! Listening unix sockets, removed when their owner goes.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use rustix::net::SocketFlags;

pub use ringway_api::socket::SocketError;

/// A socket others connect to.
pub(crate) struct Listener {
    socket: OwnedFd,
    /// Removed with the listener, unless somebody put another file there.
    file: Option<(PathBuf, u64)>,
}

impl Listener {
    /// Listens at `path`, with these mode bits and, if given, this group.
    pub(crate) fn bind(path: &Path, mode: u32, group: Option<&str>) -> Result<Self, SocketError> {
        let socket = ringway_api::socket::listen(path, mode, group)?;
        let inode = path.symlink_metadata().map_or(0, |metadata| metadata.ino());
        Ok(Self {
            socket,
            file: Some((path.into(), inode)),
        })
    }

    /// A listening socket somebody else made and keeps.
    pub(crate) fn adopt(socket: OwnedFd) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&socket, true)?;
        Ok(Self { socket, file: None })
    }

    /// A listening socket that another process made and leaves to us. Its file is not ours yet.
    pub(crate) fn resume(socket: OwnedFd) -> Self {
        Self { socket, file: None }
    }

    /// The file that is removed with the listener, and the inode by which it is known.
    pub(crate) fn file(&self) -> Option<&(PathBuf, u64)> {
        self.file.as_ref()
    }

    /// From now on this file is removed with the listener, or none is.
    pub(crate) fn set_file(&mut self, file: Option<(PathBuf, u64)>) {
        self.file = file;
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
