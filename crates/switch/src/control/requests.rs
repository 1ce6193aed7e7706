//! The control socket: ports are added, changed and removed while frames cross.

use std::os::fd::AsFd;

use ringway_api::control::{Channel, ChannelError, PortInfo, Received, Reply, Request};
use rustix::event::epoll;

use super::{Control, Token, handover};

/// Control connections at once; there is one daemon, and now and then a person.
const MAX_CONNECTIONS: usize = 16;

impl Control {
    /// Somebody connects to the control socket.
    pub(super) fn accept_connection(&mut self) {
        let accepted = self.listener.as_ref().map(super::socket::Listener::accept);
        let Some(Ok(Some(socket))) = accepted else {
            return;
        };
        if self.connections.len() >= MAX_CONNECTIONS {
            tracing::warn!("control: refused a connection, {MAX_CONNECTIONS} are open");
            return;
        }
        match Channel::new(socket) {
            Ok(channel) => {
                let token = self.token(Token::Connection);
                self.watch(channel.as_fd(), token);
                self.connections.insert(token, channel);
            }
            Err(error) => tracing::warn!("control: {error}"),
        }
    }

    /// Requests of one connection, after the replies that still wait to be sent.
    pub(super) fn serve_connection(&mut self, token: u64) {
        let flushed = self.connections.get_mut(&token).map(Channel::flush);
        if let Some(Err(error)) = flushed {
            tracing::debug!("control: {error}");
            return self.close_connection(token);
        }
        loop {
            let Some(channel) = self.connections.get_mut(&token) else {
                return;
            };
            let reply = match channel.receive::<Request>() {
                Ok(None) => return self.watch_for_room(token),
                Ok(Some(Received {
                    message: Request::TakeOver { oldest, newest },
                    ..
                })) => match handover::refusal(oldest, newest) {
                    Some(message) => Reply::Error { message },
                    None => return self.hand_over(token),
                },
                Ok(Some(received)) => self.answer(received.message, received.fds),
                Err(error) if error.is_fatal() => {
                    if !matches!(error, ChannelError::Closed) {
                        tracing::warn!("control: {error}");
                    }
                    return self.close_connection(token);
                }
                Err(error) => refuse(&error),
            };
            let Some(channel) = self.connections.get_mut(&token) else {
                return;
            };
            if let Err(error) = channel.send(&reply, Vec::new()) {
                let message = error.to_string();
                if error.is_fatal() || channel.send(&Reply::Error { message }, Vec::new()).is_err()
                {
                    tracing::warn!("control: {error}");
                    return self.close_connection(token);
                }
            }
        }
    }

    /// A reply longer than the socket takes at once goes on when there is room.
    fn watch_for_room(&self, token: u64) {
        let Some(channel) = self.connections.get(&token) else {
            return;
        };
        let mut events = epoll::EventFlags::IN;
        events.set(epoll::EventFlags::OUT, channel.wants_write());
        let data = epoll::EventData::new_u64(token);
        if let Err(error) = epoll::modify(&self.epoll, channel.as_fd(), data, events) {
            tracing::error!("control: cannot wait for a socket: {error}");
        }
    }

    pub(super) fn close_connection(&mut self, token: u64) {
        // Ours is the only descriptor of this end: closing it takes it out of the epoll.
        self.connections.remove(&token);
        self.tokens.remove(&token);
    }

    fn answer(&mut self, request: Request, fds: Vec<std::os::fd::OwnedFd>) -> Reply {
        match request {
            Request::AddPort { spec, passed } => match self.add(spec, passed, fds) {
                Ok(name) => Reply::Added { name },
                Err(error) => refuse(&error),
            },
            Request::ChangePort { name, change } => {
                let Some(port) = self.ports.values_mut().find(|port| port.name == name) else {
                    return no_port(&name);
                };
                match change.apply(&port.spec) {
                    Ok(spec) => {
                        port.change(spec);
                        let slot = port.slot;
                        self.publish();
                        // What was learned in another VLAN says nothing any more.
                        self.shared.table.forget_port(slot);
                        Reply::Ok
                    }
                    Err(error) => refuse(&error),
                }
            }
            Request::RemovePort { name } => {
                let found = self.ports.iter().find(|(_, port)| port.name == name);
                let Some((&number, _)) = found else {
                    return no_port(&name);
                };
                self.remove(number);
                Reply::Ok
            }
            Request::ListPorts => Reply::Ports {
                ports: self
                    .ports
                    .values()
                    .map(|port| PortInfo {
                        name: port.name.clone(),
                        spec: port.spec.clone(),
                        connected: port.connected(),
                        features: port.features(),
                    })
                    .collect(),
            },
            Request::Statistics { port } => {
                let statistics = self.statistics(port.as_deref());
                match port {
                    Some(name) if statistics.ports.is_empty() => no_port(&name),
                    _ => Reply::Statistics { statistics },
                }
            }
            Request::Capture { port } => {
                let found = self.ports.values().find(|there| there.name == port);
                let Some(number) = found.map(|port| port.number) else {
                    return no_port(&port);
                };
                match self.capture(number, fds) {
                    Ok(()) => Reply::Ok,
                    Err(error) => refuse(&error),
                }
            }
            Request::ListAddresses { port } => {
                let known = |name: &String| self.ports.values().any(|port| port.name == *name);
                match port {
                    Some(name) if !known(&name) => no_port(&name),
                    port => self.addresses(port.as_deref()),
                }
            }
            // Not answered but done, by who serves the connection.
            Request::TakeOver { .. } => Reply::Ok,
            Request::Shutdown => {
                self.leaving = true;
                Reply::Ok
            }
        }
    }
}

/// The error and what caused it, in one sentence.
fn refuse(error: &dyn std::error::Error) -> Reply {
    let mut message = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        message = format!("{message}: {error}");
        cause = error.source();
    }
    Reply::Error { message }
}

fn no_port(name: &str) -> Reply {
    Reply::Error {
        message: format!("there is no port {name}; list the ports to see which there are"),
    }
}
