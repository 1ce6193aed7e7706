//! Traffic of a guest: plain sockets, a thread each.

use std::{
    io::{self, ErrorKind, Read, Write},
    net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow};

use crate::{
    paths::protocol::{Counters, Load},
    statistics::percentile,
};

const STREAM: u16 = 7001;
const DATAGRAM: u16 = 7002;
const EXCHANGE: u16 = 7003;
/// Written at once; a guest that can segments it later, or has it done outside.
const CHUNK: usize = 128 << 10;
const REQUEST: usize = 64;
/// After this a blocked sender looks whether it shall end.
const LOOK: Duration = Duration::from_millis(200);
/// How long the first packets may take: addresses have to be resolved.
const CONNECT: Duration = Duration::from_secs(10);

#[derive(Default)]
struct Received {
    bytes: AtomicU64,
    datagrams: AtomicU64,
}

/// Everything that takes what comes, from the beginning to the end of the guest.
pub(super) struct Receivers(Arc<Received>);

impl Receivers {
    pub(super) fn start() -> Result<Self> {
        let received = Arc::new(Received::default());
        let any = Ipv4Addr::UNSPECIFIED;
        let streams = TcpListener::bind((any, STREAM)).context("a port to listen at")?;
        let exchanges = TcpListener::bind((any, EXCHANGE)).context("a port to listen at")?;
        let datagrams = UdpSocket::bind((any, DATAGRAM)).context("a port to receive at")?;
        let counts = received.clone();
        serve(streams, move |stream| take_stream(stream, &counts));
        serve(exchanges, answer);
        let counts = received.clone();
        thread::spawn(move || {
            let mut buffer = [0; 2048];
            loop {
                if let Ok(len) = datagrams.recv(&mut buffer) {
                    counts.bytes.fetch_add(len as u64, Relaxed);
                    counts.datagrams.fetch_add(1, Relaxed);
                }
            }
        });
        Ok(Self(received))
    }

    pub(super) fn count(&self) -> Counters {
        Counters {
            bytes: self.0.bytes.load(Relaxed),
            datagrams: self.0.datagrams.load(Relaxed),
            ..Counters::default()
        }
    }
}

/// Each connection has a thread; one that breaks is the sender's to notice.
fn serve(
    listener: TcpListener,
    work: impl Fn(TcpStream) -> io::Result<()> + Clone + Send + 'static,
) {
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let work = work.clone();
            thread::spawn(move || work(stream));
        }
    });
}

fn take_stream(mut stream: TcpStream, received: &Received) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK];
    loop {
        match stream.read(&mut buffer)? {
            0 => return Ok(()),
            len => received.bytes.fetch_add(len as u64, Relaxed),
        };
    }
}

fn answer(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut request = [0; REQUEST];
    loop {
        stream.read_exact(&mut request)?;
        stream.write_all(&request)?;
    }
}

#[derive(Default)]
struct Shared {
    over: AtomicBool,
    sent: AtomicU64,
    /// Nanoseconds of each request since the last fresh count.
    times: Mutex<Vec<u32>>,
}

type Work = Box<dyn FnOnce(&Shared) -> io::Result<()> + Send>;

/// What sends.
pub(super) struct Sender {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<io::Result<()>>>,
}

impl Sender {
    pub(super) fn start(load: Load, to: Ipv4Addr) -> Result<Self> {
        let shared = Arc::new(Shared::default());
        let mut threads = Vec::new();
        let mut spawn = |work: Work| {
            let shared = shared.clone();
            threads.push(thread::spawn(move || work(&shared)));
        };
        match load {
            Load::Tcp { streams } => {
                for _ in 0..streams {
                    let stream = connect(to, STREAM)?;
                    spawn(Box::new(move |shared| send_stream(stream, shared)));
                }
            }
            Load::Udp { size, flows } => {
                for _ in 0..flows {
                    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
                    socket.connect((to, DATAGRAM))?;
                    let datagram = vec![0; size.into()];
                    spawn(Box::new(move |shared| {
                        send_datagrams(&socket, &datagram, shared);
                        Ok(())
                    }));
                }
            }
            Load::Exchange => {
                let stream = connect(to, EXCHANGE)?;
                stream.set_nodelay(true)?;
                spawn(Box::new(move |shared| exchange(stream, shared)));
            }
        }
        Ok(Self { shared, threads })
    }

    pub(super) fn count(&self, counters: &mut Counters, fresh: bool) {
        counters.sent = self.shared.sent.load(Relaxed);
        let mut times = self
            .shared
            .times
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if fresh {
            times.clear();
        }
        counters.exchanges = times.len() as u64;
        counters.p50 = percentile(&times, 50);
        counters.p99 = percentile(&times, 99);
    }

    pub(super) fn stop(self) -> Result<()> {
        self.shared.over.store(true, Relaxed);
        for thread in self.threads {
            let ended = thread.join().map_err(|_| anyhow!("a sender panicked"))?;
            ended.context("sending broke off")?;
        }
        Ok(())
    }
}

fn connect(to: Ipv4Addr, port: u16) -> Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&(to, port).into(), CONNECT)
        .with_context(|| format!("the other guest, {to}, does not answer"))?;
    stream.set_write_timeout(Some(LOOK))?;
    stream.set_read_timeout(Some(LOOK))?;
    Ok(stream)
}

fn send_stream(mut stream: TcpStream, shared: &Shared) -> io::Result<()> {
    let chunk = vec![0; CHUNK];
    while !shared.over.load(Relaxed) {
        match stream.write(&chunk) {
            Err(error) if is_pause(&error) => (),
            written => drop(written?),
        }
    }
    Ok(())
}

fn send_datagrams(socket: &UdpSocket, datagram: &[u8], shared: &Shared) {
    while !shared.over.load(Relaxed) {
        // A full queue, or nobody there yet, is what happens to datagrams.
        if socket.send(datagram).is_ok() {
            shared.sent.fetch_add(1, Relaxed);
        }
    }
}

fn exchange(mut stream: TcpStream, shared: &Shared) -> io::Result<()> {
    let mut bytes = [0; REQUEST];
    while !shared.over.load(Relaxed) {
        let begin = Instant::now();
        stream.write_all(&bytes)?;
        let mut have = 0;
        while have < REQUEST {
            match stream.read(&mut bytes[have..]) {
                Err(error) if is_pause(&error) => {
                    if shared.over.load(Relaxed) {
                        return Ok(());
                    }
                }
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                read => have += read?,
            }
        }
        let took = u32::try_from(begin.elapsed().as_nanos()).unwrap_or(u32::MAX);
        let mut times = shared.times.lock().unwrap_or_else(PoisonError::into_inner);
        times.push(took);
    }
    Ok(())
}

fn is_pause(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All kinds of load after each other, with ourselves on the loopback: the ports are fixed.
    #[test]
    fn what_is_sent_is_received_and_counted() {
        let receivers = Receivers::start().unwrap();
        let home = Ipv4Addr::LOCALHOST;
        let until = |what: &dyn Fn() -> bool| {
            let end = Instant::now() + Duration::from_secs(30);
            while !what() {
                assert!(Instant::now() < end, "nothing came");
                thread::yield_now();
            }
        };
        let streams = Sender::start(Load::Tcp { streams: 2 }, home).unwrap();
        until(&|| receivers.count().bytes > 4 * CHUNK as u64);
        streams.stop().unwrap();
        assert_eq!(receivers.count().datagrams, 0);

        let datagrams = Sender::start(Load::Udp { size: 64, flows: 1 }, home).unwrap();
        until(&|| receivers.count().datagrams > 10);
        datagrams.stop().unwrap();

        let exchange = Sender::start(Load::Exchange, home).unwrap();
        let mut counters = Counters::default();
        until(&|| {
            let mut counters = Counters::default();
            exchange.count(&mut counters, false);
            counters.exchanges > 100
        });
        exchange.count(&mut counters, false);
        assert!(
            counters.p50 > 0 && counters.p50 <= counters.p99,
            "{counters:?}"
        );
        exchange.count(&mut counters, true);
        assert!(counters.exchanges < 100, "{counters:?}");
        exchange.stop().unwrap();
    }
}
