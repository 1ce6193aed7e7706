//! Other resolvers: those of the network, or else the host's.
//!
//! No query may come back to where it came from, however resolvers are set up (decision 0025): what the host asks us is asked of no
//! resolver on the host, and no client is asked what it asked us.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime};

use ringway_service::dns::{Pending, Resolver};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use super::dns::{PORT, monotonic};
use super::lock;

/// How long one resolver may take, and how often all are asked.
const PATIENCE: Duration = Duration::from_secs(2);
const ROUNDS: usize = 2;
/// Resolvers that are asked: as many as the C library's.
const MOST: usize = 3;
/// How often the host's list is looked at, at most.
const LOOK: Duration = Duration::from_secs(1);

/// Whom to ask.
#[derive(Debug)]
pub(super) struct Upstream {
    /// By the person's word; the host's if empty.
    given: Vec<IpAddr>,
    /// Never asked: ourselves.
    gateway: Ipv4Addr,
    /// Where the host names its resolvers, as resolv.conf(5). With systemd-resolved that is its stub at 127.0.0.53, which answers
    /// us as it answers any program of the host, with what it knows about which name is asked where.
    resolv_conf: PathBuf,
    host: Mutex<Host>,
    /// The resolver that answered last is asked first.
    first: AtomicUsize,
}

/// The host's resolvers as last read.
#[derive(Debug, Default)]
struct Host {
    looked: Option<Instant>,
    version: Version,
    servers: Vec<IpAddr>,
}

/// What tells one file, or one state of it, from another.
type Version = Option<(u64, u64, SystemTime)>;

impl Upstream {
    pub(super) fn new(mut given: Vec<IpAddr>, gateway: Ipv4Addr, resolv_conf: PathBuf) -> Self {
        let only_us = !given.is_empty() && given.iter().all(|server| *server == gateway);
        if only_us {
            tracing::warn!("{gateway} is named as its own resolver: other names are not resolved");
        } else {
            given.retain(|server| *server != gateway);
        }
        Self {
            given,
            gateway,
            resolv_conf,
            host: Mutex::default(),
            first: AtomicUsize::new(0),
        }
    }

    /// Asks one after the other until there is an answer to what `client` asked, and gives what to tell it.
    pub(super) async fn ask(
        &self,
        resolver: &Mutex<Resolver>,
        pending: &Pending,
        client: IpAddr,
    ) -> Vec<u8> {
        let servers = self.servers();
        let first = self.first.load(Ordering::Relaxed);
        let (mut circles, mut last) = (0, None);
        for turn in 0..ROUNDS * servers.len() {
            let number = (first + turn) % servers.len();
            let server = servers[number];
            let asked = async {
                let socket = match self.socket(server, client).await? {
                    Some(socket) => socket,
                    None => return Ok(None),
                };
                ask(&socket, SocketAddr::new(server, PORT), pending)
                    .await
                    .map(Some)
            };
            match timeout(PATIENCE, asked).await {
                Ok(Ok(None)) => circles += 1,
                Ok(Ok(Some(answer))) if Pending::is_no_help(&answer) => last = Some(answer),
                Ok(Ok(Some(answer))) => {
                    self.first.store(number, Ordering::Relaxed);
                    return lock(resolver).response(pending, &answer, monotonic());
                }
                _ => lock(resolver).count("dns_upstream_failed"),
            }
        }
        let mut resolver = lock(resolver);
        match last {
            Some(answer) => resolver.response(pending, &answer, monotonic()),
            None if circles > 0 && circles == ROUNDS * servers.len() => {
                resolver.count("dns_circles");
                pending.refuse()
            }
            None => {
                resolver.count("dns_unanswered");
                pending.give_up()
            }
        }
    }

    /// A port of its own for a question, which the kernel picks at random, and which hears only whom it asks; `None` if the
    /// question would go round in a circle.
    async fn socket(&self, server: IpAddr, client: IpAddr) -> io::Result<Option<UdpSocket>> {
        let any: IpAddr = match server {
            IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let socket = UdpSocket::bind((any, 0)).await?;
        socket.connect((server, PORT)).await?;
        // Who asks an address of the host's own asks from the same one.
        let ours = server.is_loopback() || socket.local_addr()?.ip() == server;
        let circle = server == client || server == self.gateway || ours && client == self.gateway;
        Ok((!circle).then_some(socket))
    }

    /// Looks whether the host has other resolvers by now; what those before said is forgotten then.
    pub(super) fn look(&self, resolver: &Mutex<Resolver>) {
        if !self.given.is_empty() {
            return;
        }
        let mut host = lock(&self.host);
        if host.looked.is_some_and(|looked| looked.elapsed() < LOOK) {
            return;
        }
        let before = host.looked.replace(Instant::now());
        let version = version(&self.resolv_conf);
        if version.is_some() && version == host.version {
            return;
        }
        let text = std::fs::read_to_string(&self.resolv_conf).unwrap_or_default();
        let servers = servers(&text);
        if servers != host.servers {
            host.servers = servers;
            if before.is_some() {
                lock(resolver).forget();
            }
        }
        host.version = version;
    }

    fn servers(&self) -> Vec<IpAddr> {
        if self.given.is_empty() {
            lock(&self.host).servers.clone()
        } else {
            self.given.clone()
        }
    }
}

fn version(path: &Path) -> Version {
    let data = path.metadata().ok()?;
    Some((data.ino(), data.len(), data.modified().ok()?))
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
async fn ask(socket: &UdpSocket, server: SocketAddr, pending: &Pending) -> io::Result<Vec<u8>> {
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
