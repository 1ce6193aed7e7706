//! What a port needs and a switch in its sandbox cannot open, opened by whoever asks for the port.

use std::{
    fs::File,
    io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use super::{Client, ClientError, Passed};
use crate::{
    port_spec::{Mode, PortKind, PortSpec, VhostUser},
    socket::{self, SocketError},
};

/// Why a port could not be opened by the one who asks for it.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// No socket to listen at.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// Nobody to connect to.
    #[error(
        "{path}: nobody to connect to: {error}; start the virtual machine first, its socket with server=on"
    )]
    Connect {
        /// The path.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// No file to write to.
    #[error(
        "{path}: cannot write the capture there: {error}; give a file in a directory that exists and that you may write to"
    )]
    File {
        /// The path.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// The kind is opened elsewhere.
    #[error("a {kind} port is not opened by its path: open it and pass its descriptors")]
    Kind {
        /// The kind.
        kind: &'static str,
    },
}

/// What was opened for a port, to be sent along with it.
#[derive(Debug)]
pub struct Opened {
    /// What the descriptors are.
    pub passed: Passed,
    /// The descriptors.
    pub fds: Vec<OwnedFd>,
}

impl Opened {
    /// Opens what a port of this specification needs, with the rights of this process.
    pub fn new(spec: &PortSpec) -> Result<Self, OpenError> {
        let (passed, fd) = match &spec.kind {
            PortKind::VhostUser(user) => match user.mode {
                Mode::Server => (Passed::Listener, listen(user)?),
                Mode::Client => (Passed::Connection, connect(&user.path)?),
            },
            PortKind::Pcap { path } => (Passed::File, create(path)?),
            PortKind::Tap { .. } | PortKind::AfPacket { .. } => {
                return Err(OpenError::Kind {
                    kind: spec.kind.label(),
                });
            }
            PortKind::Sink | PortKind::Generator(_) => {
                return Ok(Self {
                    passed: Passed::Nothing,
                    fds: Vec::new(),
                });
            }
        };
        Ok(Self {
            passed,
            fds: vec![fd],
        })
    }
}

impl Client {
    /// Opens here what a port needs, and adds it; gives its name. It works with a switch in its sandbox and without.
    ///
    /// The file of a listening socket stays as long as the switch serves the port; [`close_port`](Self::close_port) removes it. A
    /// port in client mode is not connected again after its front-end left.
    pub fn open_port(&mut self, spec: PortSpec) -> Result<String, ClientError> {
        let listens = listening_at(&spec).map(Path::to_owned);
        let Opened { passed, fds } = Opened::new(&spec)?;
        let added = self.add_port(spec, passed, fds);
        if let (Err(_), Some(path)) = (&added, listens) {
            let _ = socket::remove_unused(&path);
        }
        added
    }

    /// Removes a port and the file of the socket that [`open_port`](Self::open_port) made for it.
    pub fn close_port(&mut self, name: &str) -> Result<(), ClientError> {
        let ports = self.ports()?;
        let port = ports.iter().find(|port| port.name == name);
        self.remove_port(name)?;
        if let Some(path) = port.and_then(|port| listening_at(&port.spec)) {
            let _ = socket::remove_unused(path);
        }
        Ok(())
    }
}

fn listening_at(spec: &PortSpec) -> Option<&Path> {
    match &spec.kind {
        PortKind::VhostUser(user) if user.mode == Mode::Server => Some(&user.path),
        _ => None,
    }
}

fn listen(user: &VhostUser) -> Result<OwnedFd, OpenError> {
    Ok(socket::listen(
        &user.path,
        user.permissions,
        user.group.as_deref(),
    )?)
}

fn connect(path: &Path) -> Result<OwnedFd, OpenError> {
    socket::connect(path).map_err(|error| OpenError::Connect {
        path: path.to_owned(),
        error,
    })
}

fn create(path: &Path) -> Result<OwnedFd, OpenError> {
    let file = File::create(path).map_err(|error| OpenError::File {
        path: path.to_owned(),
        error,
    })?;
    Ok(file.into())
}
