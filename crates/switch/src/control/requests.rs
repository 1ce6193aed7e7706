//! The control socket: ports are added, changed and removed while frames cross.

use std::os::fd::AsFd;

use ringway_api::control::{Channel, ChannelError, PortInfo, Reply, Request};

use super::{Control, Token};

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

    /// Requests of one connection.
    pub(super) fn serve_connection(&mut self, token: u64) {
        loop {
            let Some(channel) = self.connections.get_mut(&token) else {
                return;
            };
            let reply = match channel.receive::<Request>() {
                Ok(None) => return,
                Ok(Some(received)) => self.answer(received.message, received.fds),
                Err(error) if error.is_fatal() => {
                    if !matches!(error, ChannelError::Closed) {
                        tracing::warn!("control: {error}");
                    }
                    return self.close_connection(token);
                }
                Err(error) => Reply::Error {
                    message: error.to_string(),
                },
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

    fn close_connection(&mut self, token: u64) {
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
            Request::Shutdown => {
                self.leaving = true;
                Reply::Ok
            }
        }
    }
}

fn refuse(error: &dyn std::error::Error) -> Reply {
    Reply::Error {
        message: error.to_string(),
    }
}

fn no_port(name: &str) -> Reply {
    Reply::Error {
        message: format!("there is no port {name}; list the ports to see which there are"),
    }
}
