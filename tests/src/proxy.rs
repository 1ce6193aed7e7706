//! A vhost-user connection with somebody in between: messages go on with their descriptors, written down and, if asked for, changed.

use std::{
    io::{IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::{UnixListener, UnixStream},
    },
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    thread,
};

use anyhow::{Context, Result, bail};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, Shutdown, recvmsg, sendmsg, shutdown,
};

/// Bytes before every payload: request, flags, size.
const HEADER: usize = 12;
/// Most descriptors of one message.
const DESCRIPTORS: usize = 8;
/// Longest payload: longer ones are no message.
const PAYLOAD: usize = 4096;

/// A message of the front-end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// The request's number.
    pub request: u32,
    /// The header's flags.
    pub flags: u32,
    /// What follows the header.
    pub payload: Vec<u8>,
}

/// Listens for a front-end and brings its messages to a back-end.
#[derive(Debug)]
pub struct Proxy {
    seen: Arc<Mutex<Vec<Message>>>,
}

impl Proxy {
    /// Listens at `front`; who connects there speaks to the back-end at `back`. `edit` may change each message of the front-end
    /// before it goes on.
    pub fn start(front: &Path, back: &Path, edit: fn(&mut Message)) -> Result<Self> {
        let listener = UnixListener::bind(front)
            .with_context(|| format!("cannot listen at {}", front.display()))?;
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (back, writes) = (back.to_owned(), Arc::clone(&seen));
        // One connection is what a test has; a front-end that comes again is refused, which a test would notice.
        thread::spawn(move || {
            let Ok((front, _)) = listener.accept() else {
                return;
            };
            drop(listener);
            let Ok(back) = UnixStream::connect(back) else {
                return;
            };
            let (Ok(front_too), Ok(back_too)) = (front.try_clone(), back.try_clone()) else {
                return;
            };
            thread::spawn(move || carry(&back_too, &front_too, |_| {}));
            carry(&front, &back, |message| {
                lock(&writes).push(message.clone());
                edit(message);
            });
        });
        Ok(Self { seen })
    }

    /// What the front-end sent so far, as it sent it.
    pub fn seen(&self) -> Vec<Message> {
        lock(&self.seen).clone()
    }
}

impl Message {
    /// The payload's bytes from `at` on as a number.
    pub fn number(&self, at: usize) -> Option<u64> {
        let bytes = self.payload.get(at..at + 8)?;
        Some(u64::from_ne_bytes(bytes.try_into().ok()?))
    }

    /// Takes bits out of the number at `at`, if there is one.
    pub fn clear(&mut self, at: usize, bits: u64) {
        if let Some(number) = self.number(at) {
            self.payload[at..at + 8].copy_from_slice(&(number & !bits).to_ne_bytes());
        }
    }
}

fn lock(seen: &Mutex<Vec<Message>>) -> std::sync::MutexGuard<'_, Vec<Message>> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Carries messages one way until either end is gone; then the other one learns of it.
fn carry(from: &UnixStream, to: &UnixStream, mut edit: impl FnMut(&mut Message)) {
    while let Ok(Some((mut message, descriptors))) = receive(from) {
        edit(&mut message);
        if send(to, &message, &descriptors).is_err() {
            break;
        }
    }
    for end in [from, to] {
        let _ = shutdown(end, Shutdown::Both);
    }
}

/// The next message and its descriptors; `None` at the end of the stream.
fn receive(from: &UnixStream) -> Result<Option<(Message, Vec<OwnedFd>)>> {
    let mut descriptors = Vec::new();
    let mut header = [0; HEADER];
    if !fill(from, &mut header, &mut descriptors)? {
        return Ok(None);
    }
    let [request, flags, size] = [0, 4, 8].map(|at| {
        let word = [header[at], header[at + 1], header[at + 2], header[at + 3]];
        u32::from_ne_bytes(word)
    });
    let size = usize::try_from(size)?;
    if size > PAYLOAD {
        bail!("a payload of {size} bytes");
    }
    let mut payload = vec![0; size];
    if !fill(from, &mut payload, &mut descriptors)? {
        return Ok(None);
    }
    let message = Message {
        request,
        flags,
        payload,
    };
    Ok(Some((message, descriptors)))
}

/// Fills `into`; false when the stream ends before.
fn fill(from: &UnixStream, into: &mut [u8], descriptors: &mut Vec<OwnedFd>) -> Result<bool> {
    let mut filled = 0;
    while filled < into.len() {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let slice = &mut [IoSliceMut::new(&mut into[filled..])];
        let read = recvmsg(from, slice, &mut control, RecvFlags::CMSG_CLOEXEC)?;
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(received) = message {
                descriptors.extend(received);
            }
        }
        if read.bytes == 0 {
            return Ok(false);
        }
        filled += read.bytes;
    }
    Ok(true)
}

fn send(to: &UnixStream, message: &Message, descriptors: &[OwnedFd]) -> Result<()> {
    let mut bytes = Vec::with_capacity(HEADER + message.payload.len());
    let size = u32::try_from(message.payload.len())?;
    for word in [message.request, message.flags, size] {
        bytes.extend(word.to_ne_bytes());
    }
    bytes.extend(&message.payload);
    let borrowed: Vec<_> = descriptors.iter().map(AsFd::as_fd).collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
    let mut sent = 0;
    while sent < bytes.len() {
        let mut control = SendAncillaryBuffer::new(&mut space);
        // The descriptors ride on the first byte.
        if sent == 0 && !borrowed.is_empty() {
            control.push(SendAncillaryMessage::ScmRights(&borrowed));
        }
        let slice = &[IoSlice::new(&bytes[sent..])];
        sent += sendmsg(to, slice, &mut control, SendFlags::NOSIGNAL)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{
        fs::File,
        io::{Read, Write},
    };

    use super::*;

    #[test]
    fn messages_arrive_with_their_descriptors_and_answers_come_back() {
        let path = |end| std::env::temp_dir().join(format!("ringway-{end}-{}", std::process::id()));
        let (front, back) = (path("front"), path("back"));
        let listener = UnixListener::bind(&back).unwrap();
        let proxy = Proxy::start(&front, &back, |message| message.clear(0, 0b10)).unwrap();
        let mut front_end = UnixStream::connect(&front).unwrap();
        let (mut back_end, _) = listener.accept().unwrap();
        for path in [front, back] {
            std::fs::remove_file(path).unwrap();
        }

        let message = Message {
            request: 2,
            flags: 1,
            payload: 7u64.to_ne_bytes().to_vec(),
        };
        let file = File::open("/dev/zero").unwrap();
        send(&front_end, &message, &[file.into()]).unwrap();
        let (arrived, descriptors) = receive(&back_end).unwrap().unwrap();
        assert_eq!((arrived.request, arrived.number(0)), (2, Some(0b101)));
        let mut file = File::from(descriptors.into_iter().next().unwrap());
        let mut byte = [1];
        file.read_exact(&mut byte).unwrap();
        assert_eq!(byte, [0]);
        assert_eq!(proxy.seen().as_slice(), std::slice::from_ref(&message));

        send(&back_end, &message, &[]).unwrap();
        assert_eq!(receive(&front_end).unwrap().unwrap().0, message);
        back_end.write_all(&[0; HEADER - 1]).unwrap();
        drop(back_end);
        assert_eq!(front_end.read(&mut [0]).unwrap(), 0);
    }
}
