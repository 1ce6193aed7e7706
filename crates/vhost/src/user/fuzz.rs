//! A hostile front-end made from arbitrary bytes: the entry of the fuzzer and of the tests like it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::pipe::pipe;

use super::message::{HEADER_SIZE, Header, PayloadSize, Request, RequestId, SingleRegion};
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
/// path follows (bit 6).
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
    let files = Files::new();
    let mut script = Script(input);
    let mut applied = 0;
    for _ in 0..MAX_STEPS {
        let Some(step) = script.byte() else { break };
        let bytes = if step & 0x10 == 0 {
            script.raw()
        } else {
            script.request()
        };
        let sent = files.pick(step, script.byte().unwrap_or(0));
        if frontend.send_some(&bytes, &sent).is_err() {
            break;
        }
        let follows = if step & 0x40 == 0 { Ok(()) } else { Err(()) };
        if !serve(&mut session, follows, &mut applied) {
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

struct Files {
    kinds: Vec<OwnedFd>,
}

impl Files {
    fn new() -> Self {
        let memory = memfd_create("fuzz", MemfdFlags::CLOEXEC).expect("no file descriptor");
        ftruncate(&memory, MEMORY_SIZE).expect("no memory");
        let event = eventfd(0, EventfdFlags::CLOEXEC).expect("no file descriptor");
        let (reader, writer) = pipe().expect("no file descriptor");
        let (socket, _) = socketpair(
            AddressFamily::UNIX,
            SocketType::STREAM,
            SocketFlags::CLOEXEC,
            None,
        )
        .expect("no file descriptor");
        Self {
            kinds: vec![memory, event, reader, writer, socket],
        }
    }

    fn pick(&self, step: u8, first: u8) -> Vec<BorrowedFd<'_>> {
        let (count, same) = (usize::from(step & 0x7), step & 0x8 != 0);
        let all = self
            .kinds
            .iter()
            .cycle()
            .skip(if same { 0 } else { usize::from(first % 8) });
        all.step_by(if same { self.kinds.len() } else { 1 })
            .take(count)
            .map(AsFd::as_fd)
            .collect()
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

    /// A request with a payload of its size. Numbers are small, so that many of them are right.
    fn request(&mut self) -> Vec<u8> {
        let id = RequestId(u32::from(self.byte().unwrap_or(0) % 48));
        let need_reply = self.byte().unwrap_or(0) & 1 != 0;
        let size = match Request::from_id(id).map(Request::payload_size) {
            Some(PayloadSize::Exactly(size)) => size,
            _ => SingleRegion::SIZE,
        };
        let mut payload = self.take(size.div_ceil(4));
        payload.resize(size.div_ceil(4), 0);
        // Each byte becomes a word of its own: index, count, size in pages, or half an address.
        let words = payload.iter().flat_map(|&byte| match byte & 0xc0 {
            0xc0 => (u32::from(byte) << 12).to_ne_bytes(),
            _ => u32::from(byte & 0x3f).to_ne_bytes(),
        });
        let size_on_wire = u32::try_from(size).unwrap_or(u32::MAX);
        let mut bytes = Vec::with_capacity(HEADER_SIZE + size);
        bytes.extend_from_slice(&Header::request(id, size_on_wire, need_reply).bytes());
        bytes.extend(words.take(size));
        bytes
    }
}
