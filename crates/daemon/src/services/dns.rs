//! DNS at the gateway's address: the network's own names at once, others from the host's resolvers.
//!
//! The sockets are bound to the address and to the interface, and only the subnet is answered: this is nobody else's resolver.

use std::collections::HashMap;
use std::io::{self, IoSlice};
use std::net::{IpAddr, SocketAddr, SocketAddrV4, UdpSocket};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use ringway_service::dns::{Decision, Transport};
use rustix::net::addr::SocketAddrArg;
use rustix::net::{MMsgHdr, RecvFlags, SendAncillaryBuffer, SendFlags, Shutdown};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::runtime::Handle;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::upstream::Upstream;
use super::{Answers, lock, now};

pub(super) const PORT: u16 = 53;
/// Queries that wait for other resolvers, at most, and those of one client; further ones are dropped, and their clients ask again.
const PENDING: Room = Room {
    all: 512,
    each: 128,
};
/// Looks for the next datagram before waiting for it.
const LOOKS: usize = 8;
/// Answers sent with one call.
const BATCH: usize = 32;
/// TCP connections, how long one may be silent, and how long it may last; further ones are closed.
const CONNECTIONS: Room = Room { all: 64, each: 8 };
const IDLE: Duration = Duration::from_secs(10);
const LONGEST: Duration = Duration::from_secs(120);

/// Opens the sockets and adds what serves them to `tasks`.
pub(super) fn serve(
    answers: &Arc<Answers>,
    resolv_conf: &Path,
    tasks: &mut JoinSet<()>,
) -> io::Result<()> {
    let interface = answers.service.network.gateway_interface();
    let interface = interface.as_str().as_bytes();
    let address = SocketAddrV4::new(answers.service.gateway, PORT);
    let udp = UdpSocket::bind(address)?;
    udp.set_nonblocking(true)?;
    let udp = tokio::net::UdpSocket::from_std(udp)?;
    udp.bind_device(Some(interface))?;
    let udp = udp.into_std()?;
    udp.set_nonblocking(false)?;
    let tcp = TcpSocket::new_v4()?;
    tcp.bind_device(Some(interface))?;
    // Connections of the daemon before may still linger.
    tcp.set_reuseaddr(true)?;
    tcp.bind(address.into())?;
    let tcp = tcp.listen(16)?;
    let upstream = Arc::new(Upstream::new(
        answers.service.network.spec.dns.upstream.clone(),
        answers.service.gateway,
        resolv_conf.to_owned(),
    ));
    let datagrams = Datagrams::begin(Arc::clone(answers), Arc::clone(&upstream), udp)?;
    tasks.spawn(async move {
        // Until the task is ended from outside.
        let _datagrams = datagrams;
        std::future::pending().await
    });
    tasks.spawn(streams(Arc::clone(answers), upstream, tcp));
    Ok(())
}

/// A thread that answers datagrams: most of them need nothing but what is in memory, and waiting in the call that takes the next
/// one costs the least. What others have to be asked for is asked by tasks. Dropped, the thread has ended and the address is free.
struct Datagrams {
    socket: Arc<UdpSocket>,
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// What the thread needs: it neither recurses nor keeps messages on the stack.
const STACK: usize = 256 << 10;

impl Datagrams {
    fn begin(
        answers: Arc<Answers>,
        upstream: Arc<Upstream>,
        socket: UdpSocket,
    ) -> io::Result<Self> {
        let (socket, ended) = (Arc::new(socket), Arc::new(AtomicBool::new(false)));
        let (theirs, told) = (Arc::clone(&socket), Arc::clone(&ended));
        let runtime = Handle::current();
        let thread = thread::Builder::new()
            .name(format!("dns-{}", answers.service.network.spec.name))
            .stack_size(STACK)
            .spawn(move || datagrams(&answers, &upstream, &theirs, &told, &runtime))?;
        Ok(Self {
            socket,
            ended,
            thread: Some(thread),
        })
    }
}

impl Drop for Datagrams {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        // ENOTCONN, and yet it wakes whoever waits for a datagram (inet_shutdown in net/ipv4/af_inet.c).
        let _ = rustix::net::shutdown(&self.socket, Shutdown::Both);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn datagrams(
    answers: &Arc<Answers>,
    upstream: &Arc<Upstream>,
    socket: &Arc<UdpSocket>,
    ended: &AtomicBool,
    runtime: &Handle,
) {
    let mut buffer = [0; 4096];
    let mut ready = Vec::with_capacity(BATCH);
    let mut asking = JoinSet::new();
    let room = Places::new(PENDING);
    loop {
        let mut received =
            look(socket, &mut buffer, LOOKS).unwrap_or_else(|| socket.recv_from(&mut buffer));
        if ended.load(Ordering::Relaxed) {
            return;
        }
        while asking.try_join_next().is_some() {}
        upstream.look(&answers.dns);
        // Errors are those of answers that did not arrive, such as an ICMP message.
        while let Ok((len, peer)) = received {
            let decision = match is_inside(answers, peer) {
                true => decide(answers, &buffer[..len], Transport::Udp),
                false => Decision::Ignore,
            };
            match decision {
                Decision::Answer(answer) => ready.push((answer, peer)),
                Decision::Ignore => {}
                Decision::Forward(pending) => {
                    let Some(place) = room.take(peer.ip()) else {
                        lock(&answers.dns).count("dns_dropped");
                        break;
                    };
                    let (answers, upstream) = (Arc::clone(answers), Arc::clone(upstream));
                    // The address is free again as soon as nobody listens there, whoever still waits for others.
                    let socket = Arc::downgrade(socket);
                    let ask = async move {
                        let answer = upstream.ask(&answers.dns, &pending, peer.ip()).await;
                        let sent = socket.upgrade().map(|socket| {
                            rustix::net::sendto(&*socket, &answer, SendFlags::DONTWAIT, &peer)
                        });
                        drop((sent, place));
                    };
                    asking.spawn_on(ask, runtime);
                }
            }
            if ready.len() == BATCH {
                break;
            }
            let Some(next) = look(socket, &mut buffer, 1) else {
                break;
            };
            received = next;
        }
        send(socket, &ready);
        ready.clear();
    }
}

/// Looks for a datagram a few times. Where one came just now, others follow: that costs less than to be woken.
fn look(
    socket: &UdpSocket,
    buffer: &mut [u8],
    times: usize,
) -> Option<io::Result<(usize, SocketAddr)>> {
    for _ in 0..times {
        match rustix::net::recvfrom(socket, &mut *buffer, RecvFlags::DONTWAIT) {
            Ok((_, len, peer)) => {
                let peer = peer.and_then(|peer| SocketAddr::try_from(peer).ok());
                return Some(
                    peer.map(|peer| (len, peer))
                        .ok_or_else(|| io::ErrorKind::InvalidData.into()),
                );
            }
            Err(rustix::io::Errno::AGAIN) if times > 1 => thread::yield_now(),
            Err(rustix::io::Errno::AGAIN) => {}
            Err(error) => return Some(Err(error.into())),
        }
    }
    None
}

/// Sends all answers with one call; those that cannot be sent are lost, as datagrams are.
fn send(socket: &UdpSocket, answers: &[(Vec<u8>, SocketAddr)]) {
    if let [(answer, peer)] = answers {
        let _ = socket.send_to(answer, peer);
        return;
    }
    let peers: Vec<_> = answers.iter().map(|(_, peer)| peer.as_any()).collect();
    let bytes = answers.iter().map(|(answer, _)| [IoSlice::new(answer)]);
    let bytes: Vec<_> = bytes.collect();
    let mut controls: Vec<_> = answers
        .iter()
        .map(|_| SendAncillaryBuffer::default())
        .collect();
    let parts = peers.iter().zip(&bytes).zip(&mut controls);
    let mut messages: Vec<_> = parts
        .map(|((peer, bytes), control)| MMsgHdr::new_with_addr(peer, bytes, control))
        .collect();
    let mut left = &mut messages[..];
    while !left.is_empty() {
        // The first one is in the way if none was sent.
        let sent = rustix::net::sendmmsg(socket, left, SendFlags::empty()).unwrap_or(0);
        left = left.split_at_mut(sent.max(1)).1;
    }
}

async fn streams(answers: Arc<Answers>, upstream: Arc<Upstream>, listener: TcpListener) {
    let room = Places::new(CONNECTIONS);
    let mut connections = JoinSet::new();
    loop {
        let accepted = listener.accept().await;
        while connections.try_join_next().is_some() {}
        match accepted {
            Ok((stream, peer)) if is_inside(&answers, peer) => {
                let Some(place) = room.take(peer.ip()) else {
                    lock(&answers.dns).count("dns_connections_refused");
                    continue;
                };
                let (answers, upstream) = (Arc::clone(&answers), Arc::clone(&upstream));
                connections.spawn(async move {
                    let _ = timeout(LONGEST, stream_of(&answers, &upstream, stream, peer)).await;
                    drop(place);
                });
            }
            Ok(_) => {}
            // No descriptors left, or a peer that went: not to be tried again at once.
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

/// Answers one query after another, each with its length in front (RFC 1035 section 4.2.2).
async fn stream_of(
    answers: &Answers,
    upstream: &Upstream,
    mut stream: TcpStream,
    peer: SocketAddr,
) -> io::Result<()> {
    loop {
        let len = timeout(IDLE, stream.read_u16()).await??;
        let mut query = vec![0; usize::from(len)];
        timeout(IDLE, stream.read_exact(&mut query)).await??;
        upstream.look(&answers.dns);
        let answer = match decide(answers, &query, Transport::Tcp) {
            Decision::Answer(answer) => answer,
            Decision::Ignore => return Ok(()),
            Decision::Forward(pending) => upstream.ask(&answers.dns, &pending, peer.ip()).await,
        };
        let len = u16::try_from(answer.len()).map_err(io::Error::other)?;
        let message = [&len.to_be_bytes()[..], &answer].concat();
        timeout(IDLE, stream.write_all(&message)).await??;
    }
}

fn decide(answers: &Answers, query: &[u8], transport: Transport) -> Decision {
    let dhcp = lock(&answers.dhcp);
    lock(&answers.dns).query(query, transport, &(&dhcp.pool, now()), monotonic())
}

fn is_inside(answers: &Answers, peer: SocketAddr) -> bool {
    matches!(peer.ip(), IpAddr::V4(address) if answers.service.subnet.contains(&address))
}

/// How many there may be, of all clients and of each.
#[derive(Clone, Copy, Debug)]
struct Room {
    all: usize,
    each: usize,
}

/// Who has how many places.
#[derive(Debug)]
struct Places {
    room: Room,
    taken: Mutex<HashMap<IpAddr, usize>>,
}

/// One, until it is dropped.
#[derive(Debug)]
struct Place {
    places: Arc<Places>,
    client: IpAddr,
}

impl Places {
    fn new(room: Room) -> Arc<Self> {
        Arc::new(Self {
            room,
            taken: Mutex::default(),
        })
    }

    fn take(self: &Arc<Self>, client: IpAddr) -> Option<Place> {
        let mut taken = lock(&self.taken);
        let own = taken.get(&client).copied().unwrap_or(0);
        if own >= self.room.each || taken.values().sum::<usize>() >= self.room.all {
            return None;
        }
        taken.insert(client, own + 1);
        Some(Place {
            places: Arc::clone(self),
            client,
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = lock(&self.places.taken);
        if let Some(own) = taken.get_mut(&self.client) {
            *own -= 1;
            if *own == 0 {
                taken.remove(&self.client);
            }
        }
    }
}

/// Seconds since the first call: what a cache ages by, whatever is done to the clock.
pub(super) fn monotonic() -> u64 {
    static START: std::sync::LazyLock<Instant> = std::sync::LazyLock::new(Instant::now);
    START.elapsed().as_secs()
}
