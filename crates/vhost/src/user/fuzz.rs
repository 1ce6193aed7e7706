//! A hostile front-end made from arbitrary bytes: the entry of the fuzzer and of the tests like it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::LazyLock;

use rustix::event::{EventfdFlags, epoll, eventfd};
use rustix::fs::{
    CWD, MemfdFlags, Mode, OFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create, openat,
};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::pipe::pipe;

use super::message::{
    HEADER_SIZE, Header, InflightArea, MAX_TABLE_REGIONS, MemoryTable, PayloadSize, Region,
    Request, RequestId, SingleRegion,
};
use super::session::PROTOCOL_FEATURES;
use super::socket::Socket;
use super::{Event, Offer, Session};

/// Most steps that one input makes.
const MAX_STEPS: usize = 512;
/// Size of the memory file that inputs can offer as guest memory.
const MEMORY_SIZE: u64 = 1 << 20;

/// Lets a session read what `input` says and returns how many messages it applied.
///
/// The input is a series of steps. A step's first byte says how many file descriptors come along
/// (bits 0-2), whether they are all memory files (bit 3), whether the bytes are raw or dressed up
/// as a request of the right size (bit 4), whether answers are read (bit 5) and whether the data
/// path follows (bit 6). Then come the bytes, the kind of the first descriptor, be there one or not,
/// and of each further one how far its kind is from the first.
///
/// # Panics
///
/// When the session does, or when the process has no file descriptors left.
pub fn exercise(input: &[u8]) -> usize {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None)
        .expect("no file descriptor for a socket pair");
    let offer = Offer {
        features: u64::MAX,
        protocol_features: PROTOCOL_FEATURES,
        queue_pairs: 2,
        max_memory_slots: 4,
    };
    let mut session = Session::new(ours, offer).expect("a new socket takes its flags");
    let mut frontend = Socket::new(theirs).expect("a new socket takes its flags");
    LazyLock::force(&FILES);
    let mut script = Script(input);
    let mut applied = 0;
    for _ in 0..MAX_STEPS {
        let Some(step) = script.byte() else { break };
        let (bytes, cut) = if step & 0x10 == 0 {
            (script.raw(), None)
        } else {
            script.request()
        };
        let sent = FILES.pick(step, &mut script);
        let follows = if step & 0x40 == 0 { Ok(()) } else { Err(()) };
        let (first, rest) = bytes.split_at(cut.unwrap_or(bytes.len()).min(bytes.len()));
        if frontend.send_some(first, &sent).is_err() {
            break;
        }
        if !serve(&mut session, follows, &mut applied) {
            break;
        }
        if !rest.is_empty()
            && (frontend.send_some(rest, &[]).is_err()
                || !serve(&mut session, follows, &mut applied))
        {
            break;
        }
        if step & 0x20 == 0 {
            read_answers(&mut frontend);
        }
    }
    applied
}

/// Handles what has arrived; false when the session has ended.
fn serve(session: &mut Session, follows: Result<(), ()>, applied: &mut usize) -> bool {
    loop {
        match session.receive() {
            Ok(Some(event)) => {
                *applied += 1;
                if let Event::StopRing(ring) = event
                    && let Some(vring) = session.state_mut().vrings.get_mut(usize::from(ring))
                {
                    vring.base = vring.base.wrapping_add(1);
                }
                if session.finish(follows).is_err() {
                    return false;
                }
            }
            Ok(None) => return true,
            Err(_) => return false,
        }
    }
}

fn read_answers(frontend: &mut Socket) {
    while let Ok(Some(header)) = frontend.header() {
        if !matches!(frontend.message(header), Ok(Some(_))) {
            break;
        }
    }
}

/// What can be sent along; opened once for the process.
static FILES: LazyLock<Files> = LazyLock::new(Files::new);

struct Files {
    kinds: Vec<OwnedFd>,
}

impl Files {
    fn new() -> Self {
        let memory = |size: u64| {
            let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
            let memory = memfd_create("fuzz", flags).expect("no file descriptor");
            ftruncate(&memory, size).expect("no memory");
            memory
        };
        let event = |count, flags| {
            eventfd(count, EventfdFlags::CLOEXEC | flags).expect("no file descriptor")
        };
        let (reader, writer) = pipe().expect("no file descriptor");
        let (socket, _) = socketpair(
            AddressFamily::UNIX,
            SocketType::STREAM,
            SocketFlags::CLOEXEC,
            None,
        )
        .expect("no file descriptor");
        let open = |path: &str, flags| {
            openat(CWD, path, flags | OFlags::CLOEXEC, Mode::empty()).expect("no such file")
        };
        let sealed = memory(MEMORY_SIZE);
        fcntl_add_seals(&sealed, SealFlags::WRITE | SealFlags::SHRINK).expect("seals are allowed");
        Self {
            kinds: vec![
                memory(MEMORY_SIZE),
                event(0, EventfdFlags::empty()),
                reader,
                writer,
                socket,
                memory(0),
                // Ends inside a page.
                memory(0x1801),
                sealed,
                // Larger than anybody's address space, and takes no memory.
                memory(1 << 48),
                event(u32::MAX, EventfdFlags::SEMAPHORE),
                open("/dev/null", OFlags::RDWR),
                open("/", OFlags::RDONLY),
                epoll::create(epoll::CreateFlags::CLOEXEC).expect("no file descriptor"),
            ],
        }
    }

    fn pick(&self, step: u8, script: &mut Script<'_>) -> Vec<BorrowedFd<'_>> {
        let (count, same) = (usize::from(step & 0x7), step & 0x8 != 0);
        let first = usize::from(script.byte().unwrap_or(0));
        let kind = |i: usize| {
            let further = match i {
                0 => 0,
                _ => usize::from(script.byte().unwrap_or(0)),
            };
            let kind = if same { 0 } else { first + further };
            self.kinds[kind % self.kinds.len()].as_fd()
        };
        (0..count).map(kind).collect()
    }
}

struct Script<'a>(&'a [u8]);

impl Script<'_> {
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn take(&mut self, count: usize) -> Vec<u8> {
        let (taken, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        taken.to_vec()
    }

    /// Up to 256 bytes as they are.
    fn raw(&mut self) -> Vec<u8> {
        let count = usize::from(self.byte().unwrap_or(0)) + 1;
        self.take(count)
    }

    /// A request with a payload of its size, and where it is cut in two, if it is. Numbers are small,
    /// so that many of them are right.
    fn request(&mut self) -> (Vec<u8>, Option<usize>) {
        let id = RequestId(u32::from(self.byte().unwrap_or(0) % 48));
        let flags = self.byte().unwrap_or(0);
        let need_reply = flags & 1 != 0;
        let cut = (flags & 2 != 0).then(|| 1 + usize::from(flags >> 2));
        let known = Request::from_id(id).map(Request::payload_size);
        let size = match known {
            Some(PayloadSize::Exactly(size)) => size,
            Some(PayloadSize::Inflight) => InflightArea::SIZE,
            Some(PayloadSize::MemoryTable) => {
                // One more than there may be.
                let regions = usize::from(self.byte().unwrap_or(0)) % (MAX_TABLE_REGIONS + 2);
                MemoryTable::HEAD + regions * Region::SIZE
            }
            _ => SingleRegion::SIZE,
        };
        let mut payload = self.take(size.div_ceil(4));
        payload.resize(size.div_ceil(4), 0);
        // Each byte becomes a word of its own: index, count, size in pages, half an address, or a
        // feature's bit, alone or with the one without which rings cannot be enabled.
        let words = payload.iter().flat_map(|&byte| {
            let word = match byte {
                0xc0.. => u32::from(byte) << 12,
                0xa0.. => 1 << 30 | 1 << (byte & 0x1f),
                0x80.. => 1 << (byte & 0x1f),
                _ => u32::from(byte & 0x3f),
            };
            word.to_ne_bytes()
        });
        let size_on_wire = u32::try_from(size).unwrap_or(u32::MAX);
        let mut bytes = Vec::with_capacity(HEADER_SIZE + size);
        bytes.extend_from_slice(&Header::request(id, size_on_wire, need_reply).bytes());
        bytes.extend(words.take(size));
        (bytes, cut)
    }
}
