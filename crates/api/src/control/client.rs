//! The asking side: one request at a time, each with a deadline.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with, sockopt},
};

use super::{
    Address, Channel, ChannelError, OpenError, Passed, PassedError, PortChange, PortInfo, Reply,
    Request,
};
use super::{handover, handover::Line};
use crate::{port_spec::PortSpec, stats::Statistics};

/// A connection to a switch's control socket.
#[derive(Debug)]
pub struct Client {
    /// `None` once a reply was missed: the next one read would answer another question.
    channel: Option<Channel>,
    timeout: Duration,
}

/// Why a request was not done.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody there.
    #[error("no switch answers at {}: start one with `ringway switch --control {}`", path.display(), path.display())]
    Connect {
        /// The control socket.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// No answer in time.
    #[error(
        "the switch did not answer {request} within {after:?}: it may be stopped or overloaded"
    )]
    Timeout {
        /// What was asked.
        request: &'static str,
        /// How long it was waited.
        after: Duration,
    },
    /// The switch said no.
    #[error("{0}")]
    Refused(String),
    /// The answer belongs to another question.
    #[error("the switch answered {request} with something else")]
    UnexpectedReply {
        /// What was asked.
        request: &'static str,
    },
    /// An earlier request failed in a way that left the connection out of step.
    #[error("the control connection ended with an earlier error: connect again")]
    Disconnected,
    /// Descriptors that do not fit the port.
    #[error(transparent)]
    Passed(#[from] PassedError),
    /// What the port needs cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The connection failed.
    #[error(transparent)]
    Channel(ChannelError),
}

impl Client {
    /// Connects and exchanges hellos, each within `timeout`, which holds for every later request too.
    pub fn connect(path: &Path, timeout: Duration) -> Result<Self, ClientError> {
        let connected = || {
            let address = SocketAddrUnix::new(path)?;
            let socket = socket_with(
                AddressFamily::UNIX,
                SocketType::STREAM,
                SocketFlags::CLOEXEC,
                None,
            )?;
            // Bounds the wait for room in the switch's accept queue.
            sockopt::set_socket_timeout(&socket, sockopt::Timeout::Send, Some(timeout))?;
            connect(&socket, &address)?;
            Ok(socket)
        };
        let socket = connected().map_err(|error: Errno| ClientError::Connect {
            path: path.to_owned(),
            source: error.into(),
        })?;
        Self::from_socket(socket, timeout)
    }

    /// As [`connect`](Self::connect), on a stream socket that is connected already.
    pub fn from_socket(socket: OwnedFd, timeout: Duration) -> Result<Self, ClientError> {
        let mut channel = Channel::new(socket).map_err(ClientError::Channel)?;
        let deadline = Instant::now() + timeout;
        while !channel.receive_hello().map_err(ClientError::Channel)? {
            wait(&channel, deadline, "hello", timeout)?;
            channel.flush().map_err(ClientError::Channel)?;
        }
        Ok(Self {
            channel: Some(channel),
            timeout,
        })
    }

    /// Adds a port and gives its name. The descriptors, of which `passed` says what they are, are closed here.
    pub fn add_port(
        &mut self,
        spec: PortSpec,
        passed: Passed,
        fds: Vec<OwnedFd>,
    ) -> Result<String, ClientError> {
        passed.check(&spec.kind, fds.len())?;
        self.ask(
            "add-port",
            &Request::AddPort { spec, passed },
            fds,
            |reply| match reply {
                Reply::Added { name } => Some(name),
                _ => None,
            },
        )
    }

    /// Changes settings of a port.
    pub fn change_port(&mut self, name: &str, change: PortChange) -> Result<(), ClientError> {
        self.ask(
            "change-port",
            &Request::ChangePort {
                name: name.to_owned(),
                change,
            },
            Vec::new(),
            done,
        )
    }

    /// Removes a port.
    pub fn remove_port(&mut self, name: &str) -> Result<(), ClientError> {
        self.ask(
            "remove-port",
            &Request::RemovePort {
                name: name.to_owned(),
            },
            Vec::new(),
            done,
        )
    }

    /// The ports there are.
    pub fn ports(&mut self) -> Result<Vec<PortInfo>, ClientError> {
        self.ask(
            "list-ports",
            &Request::ListPorts,
            Vec::new(),
            |reply| match reply {
                Reply::Ports { ports } => Some(ports),
                _ => None,
            },
        )
    }

    /// The counters, of one port or of all.
    pub fn statistics(&mut self, port: Option<&str>) -> Result<Statistics, ClientError> {
        let request = Request::Statistics {
            port: port.map(str::to_owned),
        };
        self.ask("statistics", &request, Vec::new(), |reply| match reply {
            Reply::Statistics { statistics } => Some(statistics),
            _ => None,
        })
    }

    /// Addresses that were learned, of one port or of all, and how many there are; beyond some thousands only the newest.
    pub fn addresses(&mut self, port: Option<&str>) -> Result<(Vec<Address>, usize), ClientError> {
        let request = Request::ListAddresses {
            port: port.map(str::to_owned),
        };
        self.ask(
            "list-addresses",
            &request,
            Vec::new(),
            |reply| match reply {
                Reply::Addresses { addresses, learned } => Some((addresses, learned)),
                _ => None,
            },
        )
    }

    /// Has what crosses a port written to the pipe whose writing end is given.
    pub fn capture(&mut self, port: &str, pipe: OwnedFd) -> Result<(), ClientError> {
        let request = Request::Capture {
            port: port.to_owned(),
        };
        self.ask("capture", &request, vec![pipe], done)
    }

    /// Ends the switch.
    pub fn shutdown(&mut self) -> Result<(), ClientError> {
        self.ask("shutdown", &Request::Shutdown, Vec::new(), done)
    }

    /// Asks the switch to hand everything over, and begins to.
    pub fn take_over(mut self) -> Result<Line, ClientError> {
        let request = Request::TakeOver {
            oldest: handover::OLDEST_FORMAT,
            newest: handover::FORMAT,
        };
        let readable = handover::OLDEST_FORMAT..=handover::FORMAT;
        self.ask("take-over", &request, Vec::new(), |reply| match reply {
            Reply::HandingOver { format } => readable.contains(&format).then_some(()),
            _ => None,
        })?;
        let channel = self.channel.ok_or(ClientError::Disconnected)?;
        Ok(Line::new(channel, Instant::now() + self.timeout))
    }

    fn ask<T>(
        &mut self,
        name: &'static str,
        request: &Request,
        fds: Vec<OwnedFd>,
        pick: impl FnOnce(Reply) -> Option<T>,
    ) -> Result<T, ClientError> {
        let mut channel = self.channel.take().ok_or(ClientError::Disconnected)?;
        match channel.send(request, fds) {
            Ok(()) => {}
            Err(error) => {
                // A request that cannot be encoded was never sent; the connection is as good as before.
                if !error.is_fatal() {
                    self.channel = Some(channel);
                }
                return Err(ClientError::Channel(error));
            }
        }
        let deadline = Instant::now() + self.timeout;
        let reply = loop {
            match channel.receive::<Reply>().map_err(ClientError::Channel)? {
                Some(received) => break received.message,
                None => wait(&channel, deadline, name, self.timeout)?,
            }
            channel.flush().map_err(ClientError::Channel)?;
        };
        if let Reply::Error { message } = reply {
            self.channel = Some(channel);
            return Err(ClientError::Refused(message));
        }
        let picked = pick(reply).ok_or(ClientError::UnexpectedReply { request: name })?;
        self.channel = Some(channel);
        Ok(picked)
    }
}

fn done(reply: Reply) -> Option<()> {
    matches!(reply, Reply::Ok).then_some(())
}

/// Until the socket is ready for what the channel wants next, or the deadline.
fn wait(
    channel: &Channel,
    deadline: Instant,
    request: &'static str,
    after: Duration,
) -> Result<(), ClientError> {
    let write = if channel.wants_write() {
        PollFlags::OUT
    } else {
        PollFlags::empty()
    };
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(ClientError::Timeout { request, after });
        }
        let timeout = Timespec::try_from(left).unwrap_or(Timespec {
            tv_sec: i64::MAX,
            tv_nsec: 0,
        });
        match poll(
            &mut [PollFd::from_borrowed_fd(
                channel.as_fd(),
                PollFlags::IN | write,
            )],
            Some(&timeout),
        ) {
            Ok(0) | Err(Errno::INTR) => {}
            Ok(_) => return Ok(()),
            Err(error) => return Err(ClientError::Channel(ChannelError::Io(error.into()))),
        }
    }
}
