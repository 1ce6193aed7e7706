//! A blocking client of the daemon, for commands and tests.
//!
//! One connection per request: the daemon is on the same machine, and a command asks for one or two things. What is spoken is
//! HTTP/1.0, in which an answer ends where its connection does, so there are no chunks and nothing is kept alive.

mod find;
mod http;

use std::{
    fmt::Display,
    io,
    net::Ipv4Addr,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Serialize, de::DeserializeOwned};

use super::{
    Addresses, Applied, CaptureRequest, DaemonInfo, Document, Failure, Forward, ForwardSpec, Lease,
    Name, NetworkInfo, NetworkSpec, PortInfo, PortPatch, PortRequest, StaticLease, Stats,
};
pub use find::{SOCKET_VARIABLE, run_directory, socket, socket_of_environment};

/// How long a request may take, from connecting to the end of the answer. Applying a large document is what takes longest.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// Requests to the daemon at a socket.
#[derive(Debug, Clone)]
pub struct Client {
    socket: PathBuf,
    deadline: Duration,
}

/// An answer that goes on.
#[derive(Debug)]
pub struct Stream {
    /// What came already.
    pub begin: Vec<u8>,
    /// Where more comes from.
    pub rest: UnixStream,
}

/// Why there is no answer that could be used.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The daemon does not do it.
    #[error(transparent)]
    Refused(#[from] Failure),
    /// There is no socket, or nobody listens.
    #[error(
        "no daemon answers at {}: start one with `ringway daemon`, or name another socket with --socket or {SOCKET_VARIABLE}",
        .0.display()
    )]
    NoDaemon(PathBuf),
    /// The socket may not be opened.
    #[error(
        "no right to open {}: run as root, or as a member of the socket's group (see `ls -l {}`)",
        .0.display(), .0.display()
    )]
    Denied(PathBuf),
    /// The path does not fit a socket address.
    #[error("{}: a socket path has at most 107 bytes; choose a shorter one", .0.display())]
    TooLong(PathBuf),
    /// The answer did not come in time. Whether the daemon did what was asked is not known.
    #[error(
        "the daemon at {} has not answered within {} s; what was asked may still be done, look with `ringway net list`",
        .socket.display(), .deadline.as_secs_f64()
    )]
    TimedOut {
        /// Where it listens.
        socket: PathBuf,
        /// How long was waited.
        deadline: Duration,
    },
    /// The connection failed under way.
    #[error("the daemon at {} broke off ({error}); see what it said, and ask again", .socket.display())]
    Broken {
        /// Where it listens.
        socket: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// It is no Ringway daemon, or one of another version.
    #[error(
        "what answers at {} is no ringway daemon of this version ({found}); `ringway --version` says which one this is",
        .socket.display()
    )]
    Foreign {
        /// Where it listens.
        socket: PathBuf,
        /// What was wrong with the answer.
        found: String,
    },
}

type Answer<T> = Result<T, ClientError>;

impl Client {
    /// For the daemon at this socket. Nothing is connected yet.
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self {
            socket: socket.into(),
            deadline: DEADLINE,
        }
    }

    /// With another limit for the time a request takes.
    pub fn with_deadline(self, deadline: Duration) -> Self {
        Self { deadline, ..self }
    }

    /// Where the daemon is asked.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// The daemon and its switch.
    pub fn info(&self) -> Answer<DaemonInfo> {
        self.get("/v1/info")
    }

    /// All networks.
    pub fn networks(&self) -> Answer<Vec<NetworkInfo>> {
        self.get("/v1/networks")
    }

    /// One network.
    pub fn network(&self, network: &Name) -> Answer<NetworkInfo> {
        self.get(&format!("/v1/networks/{network}"))
    }

    /// Makes a network.
    pub fn create_network(&self, spec: &NetworkSpec) -> Answer<NetworkInfo> {
        self.send("POST", "/v1/networks", spec)
    }

    /// Deletes a network; with its ports if `force`.
    pub fn delete_network(&self, network: &Name, force: bool) -> Answer<()> {
        self.delete(&format!("/v1/networks/{network}?force={force}"))
    }

    /// Makes networks as a document has them, or says what would be done.
    pub fn apply(&self, document: &Document, dry_run: bool) -> Answer<Applied> {
        self.send("POST", &format!("/v1/apply?dry_run={dry_run}"), document)
    }

    /// Ports, of one network or all.
    pub fn ports(&self, network: Option<&Name>) -> Answer<Vec<PortInfo>> {
        self.get(&of("/v1/ports", network))
    }

    /// One port.
    pub fn port(&self, network: &Name, port: &Name) -> Answer<PortInfo> {
        self.get(&format!("/v1/networks/{network}/ports/{port}"))
    }

    /// Makes a port.
    pub fn create_port(&self, network: &Name, request: &PortRequest) -> Answer<PortInfo> {
        self.send("POST", &format!("/v1/networks/{network}/ports"), request)
    }

    /// Changes a port.
    pub fn patch_port(&self, network: &Name, port: &Name, patch: &PortPatch) -> Answer<PortInfo> {
        let path = format!("/v1/networks/{network}/ports/{port}");
        self.send("PATCH", &path, patch)
    }

    /// Deletes a port.
    pub fn delete_port(&self, network: &Name, port: &Name) -> Answer<()> {
        self.delete(&format!("/v1/networks/{network}/ports/{port}"))
    }

    /// Leases, of one network or all.
    pub fn leases(&self, network: Option<&Name>) -> Answer<Vec<Lease>> {
        self.get(&of("/v1/leases", network))
    }

    /// Leases of a name such as `web`, `web.lan` or `web.lan.ringway`.
    pub fn resolve(&self, name: &str) -> Answer<Vec<Lease>> {
        self.get(&format!("/v1/leases/resolve?name={}", http::encoded(name)))
    }

    /// Binds an address to a client.
    pub fn bind(&self, network: &Name, lease: &StaticLease) -> Answer<Lease> {
        self.send("POST", &format!("/v1/networks/{network}/leases"), lease)
    }

    /// Undoes a binding.
    pub fn unbind(&self, network: &Name, address: Ipv4Addr) -> Answer<()> {
        self.delete(&format!("/v1/networks/{network}/leases/{address}"))
    }

    /// Forwards, of one network or all.
    pub fn forwards(&self, network: Option<&Name>) -> Answer<Vec<Forward>> {
        self.get(&of("/v1/forwards", network))
    }

    /// Makes a forward.
    pub fn add_forward(&self, network: &Name, spec: &ForwardSpec) -> Answer<Forward> {
        self.send("POST", &format!("/v1/networks/{network}/forwards"), spec)
    }

    /// Deletes a forward.
    pub fn delete_forward(&self, network: &Name, id: u64) -> Answer<()> {
        self.delete(&format!("/v1/networks/{network}/forwards/{id}"))
    }

    /// What was counted.
    pub fn stats(&self) -> Answer<Stats> {
        self.get("/v1/stats")
    }

    /// Addresses that the switch learned, of one of its ports or of all.
    pub fn addresses(&self, port: Option<&str>) -> Answer<Addresses> {
        match port {
            None => self.get("/v1/addresses"),
            Some(port) => self.get(&format!("/v1/addresses?port={}", http::encoded(port))),
        }
    }

    /// What crosses a port from now on, as pcapng. It ends when the stream is closed, by either side.
    pub fn capture(&self, request: &CaptureRequest) -> Answer<Stream> {
        let body = serde_json::to_vec(request).map_err(|error| self.foreign(error))?;
        let limit = self.deadline;
        let begun = http::stream(&self.socket, limit, "POST", "/v1/capture", Some(&body));
        let (response, stream) = begun.map_err(|error| self.no_answer(error))?;
        match (response.status, stream) {
            (200..300, Some(stream)) => Ok(Stream {
                begin: response.body,
                rest: stream,
            }),
            (status, _) => Err(match serde_json::from_slice::<Failure>(&response.body) {
                Ok(failure) => failure.into(),
                Err(_) => self.foreign(format_args!("HTTP status {status} to a capture")),
            }),
        }
    }

    fn get<T: DeserializeOwned>(&self, path: &str) -> Answer<T> {
        self.parsed(self.request("GET", path, None)?)
    }

    fn send<T: DeserializeOwned>(
        &self,
        method: &str,
        path: &str,
        body: &impl Serialize,
    ) -> Answer<T> {
        let body = serde_json::to_vec(body).map_err(|error| self.foreign(error))?;
        self.parsed(self.request(method, path, Some(body))?)
    }

    fn delete(&self, path: &str) -> Answer<()> {
        self.request("DELETE", path, None).map(drop)
    }

    fn parsed<T: DeserializeOwned>(&self, body: Vec<u8>) -> Answer<T> {
        serde_json::from_slice(&body).map_err(|error| self.foreign(error))
    }

    /// The body of an answer that says yes.
    fn request(&self, method: &str, path: &str, body: Option<Vec<u8>>) -> Answer<Vec<u8>> {
        let response = http::exchange(&self.socket, self.deadline, method, path, body.as_deref())
            .map_err(|error| self.no_answer(error))?;
        match response.status {
            200..300 => Ok(response.body),
            status => Err(match serde_json::from_slice::<Failure>(&response.body) {
                Ok(failure) => failure.into(),
                Err(_) => self.foreign(format_args!("HTTP status {status} to {method} {path}")),
            }),
        }
    }

    fn no_answer(&self, error: io::Error) -> ClientError {
        let socket = self.socket.clone();
        match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                ClientError::NoDaemon(socket)
            }
            io::ErrorKind::PermissionDenied => ClientError::Denied(socket),
            io::ErrorKind::InvalidInput | io::ErrorKind::InvalidFilename => {
                ClientError::TooLong(socket)
            }
            io::ErrorKind::TimedOut => ClientError::TimedOut {
                socket,
                deadline: self.deadline,
            },
            io::ErrorKind::InvalidData => self.foreign(error),
            _ => ClientError::Broken { socket, error },
        }
    }

    fn foreign(&self, found: impl Display) -> ClientError {
        ClientError::Foreign {
            socket: self.socket.clone(),
            found: found.to_string(),
        }
    }
}

fn of(path: &str, network: Option<&Name>) -> String {
    network.map_or_else(
        || path.to_owned(),
        |network| format!("{path}?network={network}"),
    )
}

#[cfg(test)]
mod tests;
