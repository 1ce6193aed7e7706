//! Other resolvers: those of the network, or else the host's.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::sync::Mutex;
use std::time::{Duration, SystemTime};

use ringway_service::dns::{Pending, Resolver};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use super::dns::monotonic;
use super::lock;

/// Where the host says which resolvers it asks. With systemd-resolved that is its stub at 127.0.0.53, which answers us as it
/// answers any program of the host, with what it knows about which name is asked where.
const RESOLV_CONF: &str = "/etc/resolv.conf";
/// How long one resolver may take, and how often all are asked.
const PATIENCE: Duration = Duration::from_secs(2);
const ROUNDS: usize = 2;
/// Resolvers that are asked: as many as the C library's.
const MOST: usize = 3;

/// Whom to ask.
#[derive(Debug)]
pub(super) struct Upstream {
    /// By the person's word; the host's if empty.
    given: Vec<IpAddr>,
    /// Never asked: ourselves.
    gateway: Ipv4Addr,
    host: Mutex<Host>,
}

/// The host's resolvers as last read.
#[derive(Debug, Default)]
struct Host {
    changed: Option<SystemTime>,
    servers: Vec<IpAddr>,
}

impl Upstream {
    pub(super) fn new(given: Vec<IpAddr>, gateway: Ipv4Addr) -> Self {
        Self {
            given,
            gateway,
            host: Mutex::default(),
        }
    }

    /// Asks one after the other until there is an answer, and gives what to tell the client.
    pub(super) async fn ask(&self, resolver: &Mutex<Resolver>, pending: &Pending) -> Vec<u8> {
        let servers = self.servers(resolver);
        for _ in 0..ROUNDS {
            for server in &servers {
                let server = SocketAddr::new(*server, 53);
                let answer = timeout(PATIENCE, ask(server, pending)).await;
                if let Ok(Ok(answer)) = answer {
                    return lock(resolver).response(pending, &answer, monotonic());
                }
            }
        }
        pending.give_up()
    }

    fn servers(&self, resolver: &Mutex<Resolver>) -> Vec<IpAddr> {
        if !self.given.is_empty() {
            return self.given.clone();
        }
        let mut host = lock(&self.host);
        let changed = Path::new(RESOLV_CONF).metadata().and_then(|m| m.modified());
        let changed = changed.ok();
        if changed.is_none() || changed != host.changed {
            let text = std::fs::read_to_string(RESOLV_CONF).unwrap_or_default();
            let mut servers = servers(&text);
            servers.retain(|server| *server != IpAddr::V4(self.gateway));
            if host.changed.is_some() && servers != host.servers {
                lock(resolver).forget();
            }
            *host = Host { changed, servers };
        }
        host.servers.clone()
    }
}

/// The resolvers that a resolv.conf(5) names; the host itself if it names none.
fn servers(text: &str) -> Vec<IpAddr> {
    let named = text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        (words.next()? == "nameserver").then(|| words.next()?.parse().ok())?
    });
    let servers: Vec<IpAddr> = named.take(MOST).collect();
    if servers.is_empty() {
        vec![Ipv4Addr::LOCALHOST.into()]
    } else {
        servers
    }
}

/// Asks a resolver, over TCP if the answer does not fit into a datagram.
async fn ask(server: SocketAddr, pending: &Pending) -> io::Result<Vec<u8>> {
    let any: IpAddr = match server {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    // A port of its own for each question, which the kernel picks at random, and only from whom was asked.
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(server).await?;
    let id = random();
    socket.send(&pending.ask(id)).await?;
    let mut buffer = [0; 4096];
    let len = loop {
        let len = socket.recv(&mut buffer).await?;
        if pending.is_answered_by(id, &buffer[..len]) {
            break len;
        }
    };
    if Pending::wants_tcp(&buffer[..len]) {
        return ask_stream(server, pending).await;
    }
    Ok(buffer[..len].to_vec())
}

async fn ask_stream(server: SocketAddr, pending: &Pending) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await?;
    let id = random();
    let query = pending.ask(id);
    let len = u16::try_from(query.len()).map_err(io::Error::other)?;
    stream
        .write_all(&[&len.to_be_bytes()[..], &query].concat())
        .await?;
    let mut answer = vec![0; usize::from(stream.read_u16().await?)];
    stream.read_exact(&mut answer).await?;
    if pending.is_answered_by(id, &answer) {
        Ok(answer)
    } else {
        Err(io::Error::other("an answer to something else"))
    }
}

/// A number nobody foresees: SipHash under keys that the standard library takes from the kernel's random numbers.
fn random() -> u16 {
    let [a, b, ..] = RandomState::new().build_hasher().finish().to_be_bytes();
    u16::from_be_bytes([a, b])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolv_conf_names_resolvers() {
        let text = "# nameserver 10.9.9.9\nsearch lan\nnameserver 10.0.0.2 \n\tnameserver fd00::2\nnameserver fe80::1%eth0\nnameserver 10.0.0.3\nnameserver 10.0.0.4\n";
        let expected: [IpAddr; 3] = [
            [10, 0, 0, 2].into(),
            "fd00::2".parse().unwrap(),
            [10, 0, 0, 3].into(),
        ];
        assert_eq!(servers(text), expected);
        assert_eq!(servers("options edns0\n"), [IpAddr::from([127, 0, 0, 1])]);
    }
}
