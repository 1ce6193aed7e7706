//! A front-end that says what it should not: wrong messages, half ones, far too many, with descriptors of every kind.

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use ringway_vhost::user::frontend::{Frontend, FrontendError};
use ringway_vhost::user::message::{HEADER_SIZE, Header, Request};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, Shutdown, SocketAddrUnix,
    SocketFlags, SocketType, connect, sendmsg, shutdown, socket_with,
};

use super::crooked::{Crooked, File, Outfit, PATIENCE, RECEIVE, TRANSMIT, event, readable};
use super::message_lies::{self, Fate, Message};

/// How long the switch lets a session hang, and what a busy machine adds.
const DEADLINE: Duration = Duration::from_secs(1);
const SLACK: Duration = Duration::from_secs(4);

/// Asks for an acknowledgement.
const NEED_REPLY: u32 = 1 << 3;

/// A front-end at a port of its own.
pub struct Liar {
    path: PathBuf,
    number: u64,
}

impl Liar {
    /// It will speak at this socket.
    pub fn new(path: PathBuf) -> Self {
        Self { path, number: 0 }
    }

    /// A guest whose rings run, of one format and the other in turn.
    fn guest(&mut self) -> Result<Crooked> {
        self.number += 1;
        let start = u16::try_from(self.number % 0x1_0000)?;
        Crooked::start(
            &self.path,
            &Outfit::new(self.number.is_multiple_of(2), start),
        )
    }

    /// Every wrong message, to who asks for an answer and to who does not. How many.
    pub fn wrong_messages(&mut self, enough: &dyn Fn() -> bool) -> Result<u64> {
        let mut played = 0;
        for message in message_lies::all()? {
            for ask in [true, false] {
                if enough() {
                    return Ok(played);
                }
                self.play(&message, ask)
                    .with_context(|| format!("{} (asking: {ask})", message.what))?;
                played += 1;
            }
        }
        Ok(played)
    }

    fn play(&mut self, message: &Message, ask: bool) -> Result<()> {
        let mut guest = self.guest()?;
        let mut header = message.header;
        if ask {
            header.flags |= NEED_REPLY;
        }
        let mut bytes = header.bytes().to_vec();
        bytes.extend(&message.payload);
        send(&guest.front, &bytes, &message.files)?;
        let refused = |front: &mut Frontend| {
            let answer = front.receive_raw(header.request)?;
            ensure!(
                answer.header == Header::reply(header.request, 8),
                "answered with {:?}",
                answer.header
            );
            ensure!(answer.payload != [0; 8], "it was accepted");
            Ok(())
        };
        match message.fate {
            Fate::Refused | Fate::Unfit if ask => refused(&mut guest.front)?,
            Fate::Unfit => {}
            Fate::Answered => drop(guest.front.receive_raw(header.request)?),
            Fate::Ends | Fate::Refused => return ends(&guest.front, SLACK),
        }
        guest.front.get_features().context("the session ended")?;
        Ok(())
    }

    /// Messages that stop in the middle: who leaves then, who closes its half, who says nothing more.
    pub fn half_messages(&mut self) -> Result<u64> {
        let whole = [header(Request::SetVringNum, 8), vec![0; 8]].concat();
        let mut played = 0;
        for len in [1, HEADER_SIZE - 1, HEADER_SIZE, whole.len() - 1] {
            let guest = self.guest()?;
            send(&guest.front, &whole[..len], &[])?;
            drop(guest);
            let guest = self.guest()?;
            send(&guest.front, &whole[..len], &[event()?])?;
            shutdown(&guest.front, Shutdown::Write)?;
            ends(&guest.front, SLACK)?;
            let guest = self.guest()?;
            send(&guest.front, &whole[..len], &[])?;
            let start = Instant::now();
            ends(&guest.front, DEADLINE + SLACK)?;
            ensure!(
                start.elapsed() >= DEADLINE / 2,
                "half a message is waited for"
            );
            played += 3;
        }
        let guest = self.guest()?;
        shutdown(&guest.front, Shutdown::Write)?;
        ends(&guest.front, SLACK)?;
        let guest = self.guest()?;
        shutdown(&guest.front, Shutdown::Read)?;
        send(&guest.front, &header(Request::GetFeatures, 0), &[])?;
        ends(&guest.front, SLACK)?;
        // A byte now and then is no progress.
        let guest = self.guest()?;
        let start = Instant::now();
        for byte in whole.iter().take(HEADER_SIZE - 1) {
            if send(&guest.front, &[*byte], &[]).is_err()
                || readable(&guest.front, Duration::from_millis(200))?
            {
                break;
            }
        }
        ends(&guest.front, SLACK)?;
        ensure!(start.elapsed() < DEADLINE + SLACK, "bytes keep it alive");
        Ok(played + 3)
    }

    /// Questions whose answers nobody reads.
    pub fn unread_answers(&mut self) -> Result<u64> {
        let guest = self.guest()?;
        let question = header(Request::GetFeatures, 0);
        let deadline = Instant::now() + PATIENCE;
        // Its socket is full before it gives up, so we are held up now and then.
        loop {
            match sendmsg(
                &guest.front,
                &[IoSlice::new(&question)],
                &mut SendAncillaryBuffer::default(),
                SendFlags::NOSIGNAL | SendFlags::DONTWAIT,
            ) {
                Ok(_) => {}
                Err(Errno::PIPE | Errno::CONNRESET) => return Ok(1),
                Err(Errno::AGAIN) => writable(&guest.front)?,
                Err(error) => return Err(error.into()),
            }
            if Instant::now() > deadline {
                bail!("answers that nobody reads are kept for ever");
            }
        }
    }

    /// Thousands of messages that are right, each of which costs the switch something.
    pub fn message_floods(&mut self, count: u32) -> Result<u64> {
        let mut guest = self.guest()?;
        for _ in 0..count {
            guest.front.get_features()?;
        }
        // Workers have to come round for each of these.
        for turn in 0..count / 4 {
            guest.front.set_vring_enable(0, turn % 2 == 1)?;
        }
        for _ in 0..count / 8 {
            let base = guest.front.get_vring_base(1)?;
            guest.front.set_vring_base(1, base)?;
            let kick = guest.rings[TRANSMIT].kick.as_fd();
            guest.front.set_vring_kick(1, Some(kick))?;
        }
        guest.front.set_vring_enable(0, true)?;
        Ok(3)
    }

    /// Descriptors by the thousand: those that are in use, those that are refused, more than a message may have.
    pub fn descriptor_floods(&mut self, count: u32) -> Result<u64> {
        let mut guest = self.guest()?;
        for _ in 0..count {
            guest.front.set_vring_call(0, Some(event()?.as_fd()))?;
            guest.front.set_vring_err(1, Some(event()?.as_fd()))?;
        }
        for _ in 0..count / 8 {
            let log = File::Memfd.make(1 << 16)?;
            guest.front.set_log_base(log.as_fd(), 1 << 16, 0)?;
            let regions = super::crooked::requests(&guest.files)?;
            guest.front.set_mem_table(&regions)?;
        }
        self.memory_slots(guest)?;
        for many in [9, 64, 253] {
            let guest = self.guest()?;
            let files = (0..many).map(|_| event()).collect::<Result<Vec<_>>>()?;
            send(&guest.front, &header(Request::GetFeatures, 0), &files)?;
            ends(&guest.front, SLACK)?;
        }
        // So many in each piece of one message.
        let guest = self.guest()?;
        let files = (0..8).map(|_| event()).collect::<Result<Vec<_>>>()?;
        for byte in header(Request::SetVringNum, 8) {
            // It may end before all is said.
            let _ = send(&guest.front, &[byte], &files);
        }
        ends(&guest.front, SLACK)?;
        Ok(7)
    }

    /// Regions until there is no slot left.
    fn memory_slots(&mut self, mut guest: Crooked) -> Result<()> {
        let slots = guest.front.get_max_mem_slots()?;
        let file = File::Memfd.make(4096)?;
        let region = |number: u64| -> Result<_> {
            Ok(ringway_mem::RegionRequest {
                guest_address: (1 << 41) + number * 4096,
                size: 4096,
                user_address: (1 << 42) + number * 4096,
                mmap_offset: 0,
                file: file.try_clone()?,
            })
        };
        // Stopped, or every region would exchange the rings.
        for ring in [RECEIVE, TRANSMIT] {
            guest.front.get_vring_base(u32::try_from(ring)?)?;
        }
        let there = u64::try_from(guest.memory.regions().count())?;
        for number in there..slots {
            guest.front.add_mem_reg(&region(number)?)?;
        }
        match guest.front.add_mem_reg(&region(slots)?) {
            Err(FrontendError::Refused { .. }) => {}
            other => bail!("one region too many: {other:?}"),
        }
        guest.front.rem_mem_reg(&region(there)?)?;
        guest.front.add_mem_reg(&region(there)?)?;
        Ok(())
    }

    /// Connections: one after the other, and many beside one that is served.
    pub fn connection_floods(&mut self, count: u32) -> Result<u64> {
        for _ in 0..count {
            drop(open(&self.path)?);
        }
        let mut guest = self.guest()?;
        let mut turned_away = Vec::new();
        for _ in 0..count / 8 {
            turned_away.push(open(&self.path)?);
        }
        for socket in &turned_away {
            ends(socket, SLACK)?;
        }
        guest
            .front
            .get_features()
            .context("the one that was first")?;
        Ok(2)
    }
}

/// A connection, as soon as there is room for one.
fn open(path: &Path) -> Result<OwnedFd> {
    let socket = socket_with(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        None,
    )?;
    connect(&socket, &SocketAddrUnix::new(path)?)?;
    Ok(socket)
}

fn header(request: Request, size: u32) -> Vec<u8> {
    Header::request(request.id(), size, false).bytes().to_vec()
}

/// Sends bytes with any number of descriptors that the kernel lets through. Whether they are read is the other side's affair.
fn send(front: impl AsFd, bytes: &[u8], files: &[OwnedFd]) -> Result<()> {
    let fds: Vec<BorrowedFd<'_>> = files.iter().map(AsFd::as_fd).collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(253))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() {
        ensure!(control.push(SendAncillaryMessage::ScmRights(&fds)));
    }
    match sendmsg(
        front,
        &[IoSlice::new(bytes)],
        &mut control,
        SendFlags::NOSIGNAL,
    ) {
        Ok(sent) if sent == bytes.len() => Ok(()),
        // It ended in the middle of what is wrong anyway.
        Ok(_) | Err(Errno::PIPE | Errno::CONNRESET) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn writable(fd: impl AsFd) -> Result<()> {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let limit = Timespec::try_from(PATIENCE)?;
    poll(&mut [PollFd::new(&fd, PollFlags::OUT)], Some(&limit))?;
    Ok(())
}

/// The connection ends within `limit`; answers before that are passed over.
fn ends(front: impl AsFd, limit: Duration) -> Result<()> {
    let deadline = Instant::now() + limit;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if !readable(&front, left)? {
            bail!("the session goes on after {limit:?}");
        }
        match rustix::io::read(&front, &mut [0; 4096]) {
            Ok(0) | Err(Errno::CONNRESET) => return Ok(()),
            Ok(_) | Err(Errno::AGAIN | Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}
