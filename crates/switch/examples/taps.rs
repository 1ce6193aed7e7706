//! How fast frames go from one tap to another: the switch next to a loop of read and write.
//!
//! `cargo run --release -p ringway-switch --example taps [ROUNDS]`, as root, on two idle processors. In
//! a network namespace of its own, a packet socket sends into the first tap of each pair in turns, and
//! what arrives at the second is counted. The forwarders share the second processor; whoever gets
//! nothing sleeps. Printed are medians, and those of the ratios of two windows of one round.

use std::error::Error;
use std::fmt::Write as _;
use std::fs::read_to_string;
use std::io;
use std::mem::zeroed;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use ringway_api::control::Passed;
use ringway_host::tap;
use ringway_switch::{Config, NewPort, Switch};
use ringway_wire::build::{FrameBuilder, TcpFields};
use ringway_wire::{MacAddress, VnetHeader};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::thread::{CpuSet, sched_setaffinity};

type Outcome<T> = Result<T, Box<dyn Error>>;

/// Ends of the pairs: the first is sent into, the second counted.
const PAIRS: [[&str; 2]; 2] = [["loop-a", "loop-b"], ["switch-a", "switch-b"]];
const WINDOW: Duration = Duration::from_millis(150);
const SETTLING: Duration = Duration::from_millis(20);
const BURST: u32 = 32;

fn main() -> Outcome<()> {
    let rounds = std::env::args()
        .nth(1)
        .map_or(Ok(11), |text| text.parse())?;
    // SAFETY: changes only which network namespace this process uses; no memory is involved.
    if unsafe { libc::unshare(libc::CLONE_NEWNET) } != 0 {
        return Err(io::Error::last_os_error().into());
    }
    let [looped, switched] = PAIRS;
    let ends = [open(looped[0])?, open(looped[1])?];
    std::thread::spawn(move || pin(1).map(|()| forward(&ends)));
    let port = |name: &str| -> Outcome<NewPort> {
        Ok(NewPort {
            spec: format!("tap,name={name}").parse()?,
            passed: Passed::TapQueues,
            fds: vec![open(name)?],
        })
    };
    let switch = Switch::embed(Config {
        ports: vec![port(switched[0])?, port(switched[1])?],
        workers: 1,
        cpus: vec![1],
        ..Config::default()
    })?;
    let ender = switch.ender();
    let running = std::thread::spawn(move || switch.run(&mut io::sink()));
    pin(0)?;
    // The receiver's address is learned, so nothing is flooded. A worker may take a while to begin.
    let (from, to) = (
        MacAddress([2, 0, 0, 0, 0, 1]),
        MacAddress([2, 0, 0, 0, 0, 2]),
    );
    let hello = [&to.0[..], &to.0, &[0x88, 0xb5], &[0; 46]].concat();
    sleep(SETTLING);
    Sender::new(switched[1])?.send(&with(VnetHeader::default(), &hello))?;
    let senders = [Sender::new(looped[0])?, Sender::new(switched[0])?];
    let network = FrameBuilder::ipv4([10, 0, 0, 1].into(), [10, 0, 0, 2].into()).macs(from, to);
    let tcp = network.clone().tcp(TcpFields::default(), &[]);
    let (large, header) = tcp.build_gso(&vec![0; 65_160], 1448);
    let plain = |len: usize| (VnetHeader::default(), network.build(&vec![0; len - 42]));
    for (header, frame) in [plain(60), plain(1514), (header, large)] {
        let bytes = with(header, &frame);
        let mut rates = [Vec::new(), Vec::new()];
        for _ in 0..rounds {
            for (side, sender) in senders.iter().enumerate() {
                rates[side].push(window(sender, PAIRS[side][1], &bytes)?);
            }
        }
        let ratios = rates[1].iter().zip(&rates[0]).map(|(a, b)| a / b).collect();
        let mut line = format!("{:>6} B", frame.len());
        for (name, rates) in ["loop", "switch"].into_iter().zip(rates) {
            let rate = median(rates);
            let gigabits = rate * frame.len() as f64 * 8e-9;
            write!(
                line,
                "   {name} {:.0} k/s, {gigabits:.2} Gbit/s",
                rate / 1e3
            )?;
        }
        println!("{line}   ratio {:.2}", median(ratios));
    }
    ender.end();
    running.join().map_err(|_| "the switch panicked")??;
    Ok(())
}

/// Frames per second that arrive at `name` while a sender sends all it can.
fn window(sender: &Sender, name: &str, bytes: &[u8]) -> Outcome<f64> {
    let keep_sending = |duration| -> io::Result<Duration> {
        let start = Instant::now();
        while start.elapsed() < duration {
            sender.send(bytes)?;
        }
        Ok(start.elapsed())
    };
    keep_sending(SETTLING)?;
    let before = arrived(name)?;
    let elapsed = keep_sending(WINDOW)?;
    let count = arrived(name)? - before;
    sleep(SETTLING);
    Ok(count as f64 / elapsed.as_secs_f64())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Frames that the kernel got from a tap.
fn arrived(name: &str) -> Outcome<u64> {
    let table = read_to_string("/proc/thread-self/net/dev")?;
    let start = format!("{name}:");
    let line = table
        .lines()
        .find_map(|line| line.trim().strip_prefix(&start));
    let count = line.and_then(|line| line.split_whitespace().nth(1));
    Ok(count.ok_or("no such tap")?.parse()?)
}

/// A tap that hands out frames whole. It goes with the namespace.
fn open(name: &str) -> Outcome<OwnedFd> {
    tap::create_persistent(name, false, None)?;
    let queue = tap::open(name, 1)?.queues.remove(0);
    tap::set_offload(queue.as_fd(), tap::Offloads::ALL)?;
    for settings in ["addrgenmode none", "mtu 65521 up"] {
        let words = ["link", "set", name].into_iter().chain(settings.split(' '));
        if !Command::new("ip").args(words).status()?.success() {
            return Err(format!("ip link set {name} {settings} failed").into());
        }
    }
    Ok(queue)
}

/// What anybody would write first.
fn forward([from, to]: &[OwnedFd; 2]) {
    let mut buffer = vec![0; 70_000];
    loop {
        match rustix::io::read(from, &mut buffer) {
            // What is not taken is lost, as in the switch.
            Ok(len) => drop(rustix::io::write(to, &buffer[..len])),
            Err(_) => drop(poll(&mut [PollFd::new(from, PollFlags::IN)], None)),
        }
    }
}

fn pin(processor: usize) -> io::Result<()> {
    let mut set = CpuSet::new();
    set.set(processor);
    Ok(sched_setaffinity(None, &set)?)
}

/// A frame as a packet socket takes it, with a header of ten bytes.
fn with(header: VnetHeader, frame: &[u8]) -> Vec<u8> {
    [&header.to_bytes()[..10], frame].concat()
}

/// A packet socket that sends out of one interface.
struct Sender(OwnedFd);

impl Sender {
    fn new(name: &str) -> Outcome<Self> {
        let name = std::ffi::CString::new(name)?;
        // SAFETY: no memory is involved.
        let socket = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW, 0) };
        if socket < 0 {
            return Err(io::Error::last_os_error().into());
        }
        // SAFETY: the socket was just made and is nobody else's.
        let socket = unsafe { OwnedFd::from_raw_fd(socket) };
        let one: libc::c_int = 1;
        let len = libc::socklen_t::try_from(size_of_val(&one))?;
        for option in [libc::PACKET_VNET_HDR, libc::PACKET_QDISC_BYPASS] {
            let value = (&raw const one).cast();
            let level = libc::SOL_PACKET;
            // SAFETY: the kernel reads `len` bytes of `one`, which lives on.
            let done = unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, value, len) };
            if done != 0 {
                return Err(io::Error::last_os_error().into());
            }
        }
        // SAFETY: a structure of numbers, for which zeros are valid.
        let mut address: libc::sockaddr_ll = unsafe { zeroed() };
        address.sll_family = u16::try_from(libc::AF_PACKET)?;
        // SAFETY: the name ends with a zero and lives on.
        address.sll_ifindex = i32::try_from(unsafe { libc::if_nametoindex(name.as_ptr()) })?;
        let len = libc::socklen_t::try_from(size_of_val(&address))?;
        // SAFETY: the kernel reads `len` bytes of `address`, which lives on.
        let done = unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), len) };
        if done != 0 {
            return Err(io::Error::last_os_error().into());
        }
        Ok(Self(socket))
    }

    /// Sends a frame many times; a full queue is no error.
    fn send(&self, bytes: &[u8]) -> io::Result<()> {
        let mut piece = libc::iovec {
            iov_base: bytes.as_ptr().cast_mut().cast(),
            iov_len: bytes.len(),
        };
        // SAFETY: structures of numbers and pointers, for which zeros are valid.
        let mut messages: [libc::mmsghdr; BURST as usize] = unsafe { zeroed() };
        for message in &mut messages {
            message.msg_hdr.msg_iov = &raw mut piece;
            message.msg_hdr.msg_iovlen = 1;
        }
        let (socket, list) = (self.0.as_raw_fd(), messages.as_mut_ptr());
        // SAFETY: `BURST` messages, each of one piece, whose bytes the kernel only reads; all live on.
        let sent = unsafe { libc::sendmmsg(socket, list, BURST, 0) };
        match io::Error::last_os_error() {
            error if sent < 0 && error.raw_os_error() != Some(libc::ENOBUFS) => Err(error),
            _ => Ok(()),
        }
    }
}
