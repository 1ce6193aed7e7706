//! Captures as files: pcapng, one interface per port, so that a reader sees which port a frame came
//! from (draft-ietf-opsawg-pcapng, sections 4.1 to 4.3). tcpdump and Wireshark read it.

use std::collections::HashMap;
use std::io::{self, Write};
use std::os::fd::BorrowedFd;
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::event::{PollFd, PollFlags, poll};

use crate::burst::narrow;
use crate::capture::{Direction, Note, Reader, Record, SourceNames};
use crate::{Counters, DropReason};

const SECTION_HEADER: u32 = 0x0a0d_0d0a;
const INTERFACE_DESCRIPTION: u32 = 1;
const INTERFACE_STATISTICS: u32 = 5;
const ENHANCED_PACKET: u32 = 6;
const BYTE_ORDER_MAGIC: u32 = 0x1a2b_3c4d;
const LINKTYPE_ETHERNET: u16 = 1;
const OPTION_COMMENT: u16 = 1;
const OPTION_IF_NAME: u16 = 2;
const OPTION_IF_TSRESOL: u16 = 9;
const OPTION_EPB_FLAGS: u16 = 2;
const OPTION_ISB_IFRECV: u16 = 4;
const OPTION_ISB_IFDROP: u16 = 5;
/// In the flags of a packet, see section 4.3.1 there.
const INBOUND: u32 = 1;
const OUTBOUND: u32 = 2;
/// Timestamps in nanoseconds: 10^-9.
const NANOSECONDS: u8 = 9;
/// Frames after which a stream says what was missed although more are waiting.
const AT_ONCE: usize = 1024;

/// Writes records as pcapng.
pub struct Writer<W> {
    out: W,
    names: SourceNames,
    /// Source number to interface number, in the order of first sight.
    interfaces: HashMap<u32, u32>,
}

impl<W: Write> Writer<W> {
    /// Starts a file. `names` tells what the interfaces are called.
    pub fn new(mut out: W, names: SourceNames) -> io::Result<Self> {
        let mut body = BYTE_ORDER_MAGIC.to_le_bytes().to_vec();
        body.extend([1, 0, 0, 0]); // version 1.0
        body.extend((-1i64).to_le_bytes()); // section length: not given
        block(&mut out, SECTION_HEADER, &body)?;
        Ok(Self {
            out,
            names,
            interfaces: HashMap::new(),
        })
    }

    /// Writes one frame; the port it came from is described before its first frame.
    pub fn write(&mut self, record: &Record) -> io::Result<()> {
        let interface = self.interface(record.source)?;
        let [high, low] = stamp(record.time);
        let len = narrow(record.frame.len()).to_le_bytes();
        let mut body = Vec::with_capacity(20 + record.frame.len() + 4);
        body.extend(interface.to_le_bytes());
        body.extend(high);
        body.extend(low);
        body.extend(len);
        body.extend(len);
        body.extend(&record.frame);
        pad(&mut body);
        if let Some(direction) = record.note.direction {
            let flags = match direction {
                Direction::Inbound => INBOUND,
                Direction::Outbound => OUTBOUND,
            };
            option(&mut body, OPTION_EPB_FLAGS, &flags.to_le_bytes());
            let comment = self.comment(direction, &record.note);
            option(&mut body, OPTION_COMMENT, comment.as_bytes());
            body.extend([0; 4]); // end of options
        }
        block(&mut self.out, ENHANCED_PACKET, &body)
    }

    /// Hands what was written to the system.
    pub fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }

    /// Describes a port before anything was seen of it.
    pub fn describe(&mut self, source: u32) -> io::Result<()> {
        self.interface(source).map(drop)
    }

    /// How many frames of a port were met so far, and how many of them found no room in the capture.
    fn statistics(&mut self, source: u32, met: u64, missed: u64) -> io::Result<()> {
        let [high, low] = stamp(SystemTime::now());
        let mut body = self.interface(source)?.to_le_bytes().to_vec();
        body.extend(high);
        body.extend(low);
        option(&mut body, OPTION_ISB_IFRECV, &met.to_le_bytes());
        option(&mut body, OPTION_ISB_IFDROP, &missed.to_le_bytes());
        body.extend([0; 4]); // end of options
        block(&mut self.out, INTERFACE_STATISTICS, &body)
    }

    /// What became of a frame, for people.
    fn comment(&self, direction: Direction, note: &Note) -> String {
        let reason = note.reason.map_or("unknown", DropReason::name);
        match (direction, note.delivered, note.dropped) {
            (Direction::Outbound, _, 0) => format!("from {}", self.name(note.peer)),
            (Direction::Outbound, ..) => {
                format!("from {}, dropped: {reason}", self.name(note.peer))
            }
            (Direction::Inbound, 0, _) if note.peer == 0 => format!("dropped: {reason}"),
            (Direction::Inbound, 0, _) if !note.flooded => {
                format!("to {}, dropped: {reason}", self.name(note.peer))
            }
            (Direction::Inbound, _, 0) if !note.flooded => format!("to {}", self.name(note.peer)),
            (Direction::Inbound, 1, 0) => "flooded to 1 port".into(),
            (Direction::Inbound, n, 0) => format!("flooded to {n} ports"),
            (Direction::Inbound, n, lost) => {
                format!("flooded to {n} of {} ports, dropped: {reason}", n + lost)
            }
        }
    }

    fn name(&self, source: u32) -> String {
        let names = self.names.lock();
        let names = names.unwrap_or_else(std::sync::PoisonError::into_inner);
        let name = names.get(&source).cloned();
        name.unwrap_or_else(|| format!("port-{source}"))
    }

    fn interface(&mut self, source: u32) -> io::Result<u32> {
        if let Some(&number) = self.interfaces.get(&source) {
            return Ok(number);
        }
        let name = self.name(source);
        let mut body = LINKTYPE_ETHERNET.to_le_bytes().to_vec();
        body.extend([0, 0, 0, 0, 0, 0]); // reserved; no limit on frame length
        option(&mut body, OPTION_IF_NAME, name.as_bytes());
        option(&mut body, OPTION_IF_TSRESOL, &[NANOSECONDS]);
        body.extend([0; 4]); // end of options
        block(&mut self.out, INTERFACE_DESCRIPTION, &body)?;
        let number = narrow(self.interfaces.len());
        self.interfaces.insert(source, number);
        Ok(number)
    }
}

/// Writes records to `writer` until the capture ends; the file is complete whenever nothing is
/// under way.
pub fn drain<W: Write>(mut reader: Reader, writer: &mut Writer<W>) -> io::Result<()> {
    while !reader.has_ended() {
        poll(&mut [PollFd::new(&reader.bell(), PollFlags::IN)], None)?;
        reader.silence();
        while let Some(record) = reader.take() {
            writer.write(&record)?;
        }
        writer.flush()?;
    }
    Ok(())
}

/// Writes what is recorded at port `source` into a pipe until the capture ends or nobody reads the pipe any more. Whenever nothing
/// waits, and every so many frames, the stream says how many were missed, if that changed.
pub fn stream<W: Write>(
    mut reader: Reader,
    writer: &mut Writer<W>,
    source: u32,
    counters: &Counters,
    pipe: BorrowedFd<'_>,
) -> io::Result<()> {
    writer.describe(source)?;
    writer.flush()?;
    let mut told = 0;
    loop {
        // Asked before the rest is taken out: what is there then is all.
        let ended = reader.is_abandoned();
        let mut left = AT_ONCE;
        while left > 0
            && let Some(record) = reader.take()
        {
            writer.write(&record)?;
            left -= 1;
        }
        let missed = counters.dropped(DropReason::CaptureFull);
        if missed != told {
            told = missed;
            let met = counters.queues[0].sent.frames() + missed;
            writer.statistics(source, met, missed)?;
        }
        if left == 0 {
            continue;
        }
        writer.flush()?;
        if ended {
            return Ok(());
        }
        let bell = reader.bell();
        // The writing end of a pipe has an error when its readers are gone.
        let mut fds = [
            PollFd::new(&bell, PollFlags::IN),
            PollFd::from_borrowed_fd(pipe, PollFlags::empty()),
        ];
        match poll(&mut fds, None) {
            Ok(_) if !fds[1].revents().is_empty() => return Ok(()),
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        reader.silence();
    }
}

/// The two halves of a time, the upper one first, as packets have it.
fn stamp(time: SystemTime) -> [[u8; 4]; 2] {
    let nanos = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let nanos = u64::try_from(nanos.as_nanos()).unwrap_or(u64::MAX);
    let [a, b, c, d, e, f, g, h] = nanos.to_le_bytes();
    [[e, f, g, h], [a, b, c, d]]
}

fn block(out: &mut impl Write, kind: u32, body: &[u8]) -> io::Result<()> {
    let len = narrow(body.len() + 12).to_le_bytes();
    out.write_all(&kind.to_le_bytes())?;
    out.write_all(&len)?;
    out.write_all(body)?;
    out.write_all(&len)
}

fn option(body: &mut Vec<u8>, code: u16, value: &[u8]) {
    body.extend(code.to_le_bytes());
    body.extend(u16::try_from(value.len()).unwrap_or(u16::MAX).to_le_bytes());
    body.extend(value);
    pad(body);
}

fn pad(body: &mut Vec<u8>) {
    body.resize(body.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests;
