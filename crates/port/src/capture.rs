//! A port that records every frame: workers write private copies into a bounded ring, a reader
//! takes them out on a thread of its own. What does not fit is counted and lost to the capture,
//! never to the network.

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ringway_mem::ReadSlice;
use rtrb::chunks::ChunkError;
use rtrb::{Consumer, Producer, RingBuffer};

use crate::burst::{MAX_FRAME, bits};
use crate::{Burst, Counters, DropReason, Fault, Offloads, Port, Sent, Wakeup};

/// Bytes the ring holds: frames that may wait for the reader.
const RING_BYTES: usize = 8 << 20;

/// Time (nanoseconds, u64), source (u32), length (u32), and the note: peer (u32), deliveries and drops (u16 each), reason,
/// direction and flooding (u8 each), one byte of nothing. Native order: both ends are this process.
const RECORD_HEADER: usize = 28;

/// Names of the ports frames come from, by the number a burst carries.
pub type SourceNames = Arc<Mutex<HashMap<u32, String>>>;

/// The recording end, as the workers see it.
pub struct Capture {
    counters: Arc<Counters>,
    ring: Mutex<Producer<u8>>,
    /// Rings once more when it goes, which is after `ring` went: a reader that wakes sees the end.
    bell: Bell,
}

struct Bell(Arc<OwnedFd>);

/// The reading end.
pub struct Reader {
    ring: Consumer<u8>,
    bell: Arc<OwnedFd>,
}

/// A recorded frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// When the burst it came with was received.
    pub time: SystemTime,
    /// Number of the port it came from.
    pub source: u32,
    /// The frame as received, before any offload was completed.
    pub frame: Vec<u8>,
    /// What became of it, where that is known.
    pub note: Note,
}

/// What became of a frame at the port where it was recorded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Note {
    /// `None` = nothing is known but the frame.
    pub direction: Option<Direction>,
    /// The other port: whereto an inbound frame went, or was to go and was dropped; whence an outbound one came. 0 = none.
    pub peer: u32,
    /// It was for everybody.
    pub flooded: bool,
    /// Ports it was delivered to.
    pub delivered: u16,
    /// Ports it was dropped at.
    pub dropped: u16,
    /// Why, the first time.
    pub reason: Option<DropReason>,
}

/// Whither a frame went at a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the port into the switch.
    Inbound,
    /// From the switch to the port.
    Outbound,
}

impl Note {
    fn to_bytes(self) -> [u8; 12] {
        let mut bytes = [0; 12];
        bytes[..4].copy_from_slice(&self.peer.to_ne_bytes());
        bytes[4..6].copy_from_slice(&self.delivered.to_ne_bytes());
        bytes[6..8].copy_from_slice(&self.dropped.to_ne_bytes());
        let reason = DropReason::ALL.iter().position(|r| Some(*r) == self.reason);
        bytes[8] = reason.and_then(|n| u8::try_from(n + 1).ok()).unwrap_or(0);
        bytes[9] = match self.direction {
            None => 0,
            Some(Direction::Inbound) => 1,
            Some(Direction::Outbound) => 2,
        };
        bytes[10] = self.flooded.into();
        bytes
    }

    fn from_bytes(bytes: &[u8]) -> Self {
        let half = |at: usize| u16::from_ne_bytes([bytes[at], bytes[at + 1]]);
        let reason = usize::from(bytes[8]).checked_sub(1);
        Self {
            direction: match bytes[9] {
                1 => Some(Direction::Inbound),
                2 => Some(Direction::Outbound),
                _ => None,
            },
            peer: u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]),
            flooded: bytes[10] != 0,
            delivered: half(4),
            dropped: half(6),
            reason: reason.and_then(|n| DropReason::ALL.get(n).copied()),
        }
    }
}

impl Capture {
    /// A capture and its reader.
    pub fn new(counters: Arc<Counters>) -> std::io::Result<(Self, Reader)> {
        use rustix::event::{EventfdFlags, eventfd};
        let bell = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        let (producer, ring) = RingBuffer::new(RING_BYTES);
        let capture = Self {
            counters,
            ring: Mutex::new(producer),
            bell: Bell(bell.clone()),
        };
        Ok((capture, Reader { ring, bell }))
    }

    /// Records frames of `burst` as seen at port `source`, each with its note; what finds no room is counted. Gives those that
    /// found some.
    pub fn record(
        &self,
        burst: &Burst<'_>,
        picks: u64,
        source: u32,
        note: impl Fn(usize) -> Note,
    ) -> u64 {
        let (mut recorded, mut bytes) = (0u64, 0);
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let now = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
        let mut ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        for i in bits(picks) {
            if write(&mut ring, now, source, &note(i), burst, i) {
                recorded |= 1 << i;
                bytes += u64::from(burst.frames[i].len);
            }
        }
        let frames = u64::from(recorded.count_ones());
        self.counters.queues[0].sent.count(frames, bytes);
        drop(ring);
        self.bell.ring();
        recorded
    }
}

/// Writes one record; false = no room.
fn write(
    ring: &mut Producer<u8>,
    time: u64,
    source: u32,
    note: &Note,
    burst: &Burst<'_>,
    i: usize,
) -> bool {
    let len = burst.frames[i].len;
    let mut header = [0; RECORD_HEADER];
    header[..8].copy_from_slice(&time.to_ne_bytes());
    header[8..12].copy_from_slice(&source.to_ne_bytes());
    header[12..16].copy_from_slice(&len.to_ne_bytes());
    header[16..].copy_from_slice(&note.to_bytes());
    let mut chunk = match ring.write_chunk(RECORD_HEADER + len as usize) {
        Ok(chunk) => chunk,
        Err(ChunkError::TooFewSlots(_)) => return false,
    };
    let (mut left, mut right) = chunk.as_mut_slices();
    let lent = [
        ReadSlice::from_private(&header),
        ReadSlice::from_private(burst.head_bytes(i)),
    ];
    for mut piece in lent.into_iter().chain(burst.body(i).iter().copied()) {
        while !piece.is_empty() {
            if left.is_empty() {
                std::mem::swap(&mut left, &mut right);
            }
            let n = piece.copy_to(left);
            left = &mut std::mem::take(&mut left)[n..];
            piece = piece.skip(n);
        }
    }
    chunk.commit_all();
    true
}

impl Port for Capture {
    fn counters(&self) -> &Counters {
        &self.counters
    }

    fn receive_queues(&self) -> usize {
        0
    }

    fn send_queues(&self) -> usize {
        1
    }

    fn offloads(&self) -> Offloads {
        Offloads {
            csum: true,
            tso4: true,
            tso6: true,
            ecn: true,
            uso: true,
        }
    }

    fn receive<'m>(&'m self, _: usize, _: usize, _: &mut Burst<'m>) -> Result<usize, Fault> {
        Ok(0)
    }

    fn release(&self, _: usize, _: &mut Burst<'_>) -> Result<(), Fault> {
        Ok(())
    }

    fn send(&self, _: usize, burst: &Burst<'_>, picks: u64) -> Sent {
        let delivered = self.record(burst, picks, burst.source, |_| Note::default());
        Sent {
            delivered,
            reason: (delivered != picks).then_some(DropReason::CaptureFull),
            ..Sent::default()
        }
    }

    fn wakeup(&self, _: usize) -> Wakeup<'_> {
        Wakeup::Never
    }

    fn arm(&self, _: usize) -> bool {
        false
    }

    fn disarm(&self, _: usize) {}

    fn woken(&self, _: usize) {}
}

impl Bell {
    fn ring(&self) {
        let _ = rustix::io::write(&self.0, &1u64.to_ne_bytes());
    }
}

impl Drop for Bell {
    fn drop(&mut self) {
        self.ring();
    }
}

impl Reader {
    /// Readable when records may be there, or the capture has ended.
    pub fn bell(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }

    /// Silences the bell; look for records after, not before.
    pub fn silence(&self) {
        let _ = rustix::io::read(&self.bell, &mut [0; 8]);
    }

    /// The recording end is gone: what is there is all that will be.
    pub fn is_abandoned(&self) -> bool {
        self.ring.is_abandoned()
    }

    /// The recording end is gone and everything was read.
    pub fn has_ended(&self) -> bool {
        self.ring.is_abandoned() && self.ring.is_empty()
    }

    /// The next record, if one is there.
    pub fn take(&mut self) -> Option<Record> {
        let header = self.bytes(RECORD_HEADER)?;
        let word = |at: usize| {
            u32::from_ne_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
        };
        let mut time = [0; 8];
        time.copy_from_slice(&header[..8]);
        let len = word(12) as usize;
        debug_assert!(len <= MAX_FRAME);
        Some(Record {
            time: UNIX_EPOCH + Duration::from_nanos(u64::from_ne_bytes(time)),
            source: word(8),
            note: Note::from_bytes(&header[16..]),
            // A record is committed as a whole, so its frame is there.
            frame: self.bytes(len)?,
        })
    }

    fn bytes(&mut self, len: usize) -> Option<Vec<u8>> {
        let chunk = self.ring.read_chunk(len).ok()?;
        let (left, right) = chunk.as_slices();
        let bytes = [left, right].concat();
        chunk.commit_all();
        Some(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Heads;

    #[test]
    fn records_come_out_as_they_went_in_and_the_surplus_is_reported() {
        let (capture, mut reader) = Capture::new(Arc::new(Counters::new(1))).unwrap();
        let frames: Vec<Vec<u8>> = (0..3u8)
            .map(|i| vec![i; 100 + 700 * usize::from(i)])
            .collect();
        let mut heads = Heads::new();
        let mut written = 0;
        let mut read = 0;
        // Several times around the ring.
        for _ in 0..20_000 {
            let mut burst = Burst::new(&mut heads);
            burst.source = 9;
            for frame in &frames {
                assert!(burst.push_private(&[0; 12], frame));
            }
            let sent = capture.send(0, &burst, burst.all());
            assert_eq!(sent.delivered, 0b111);
            written += 3;
            if written % 9 == 0 {
                while let Some(record) = reader.take() {
                    assert_eq!((record.source, &record.frame), (9, &frames[read % 3]));
                    assert_eq!(record.note, Note::default());
                    read += 1;
                }
            }
        }
        let big = vec![1; 60_000];
        let mut last = Sent::default();
        for _ in 0..RING_BYTES / 60_000 + 1 {
            let mut burst = Burst::new(&mut heads);
            burst.push_private(&[0; 12], &big);
            last = capture.send(0, &burst, 1);
        }
        assert_eq!(
            (last.delivered, last.reason),
            (0, Some(DropReason::CaptureFull))
        );
        drop(capture);
        while reader.take().is_some() {}
        assert!(reader.has_ended());
    }

    #[test]
    fn a_note_is_read_as_it_was_written() {
        for reason in DropReason::ALL {
            let note = Note {
                direction: Some(Direction::Outbound),
                peer: 70_000,
                flooded: true,
                delivered: 300,
                dropped: 301,
                reason: Some(reason),
            };
            assert_eq!(Note::from_bytes(&note.to_bytes()), note);
        }
        assert_eq!(
            Note::from_bytes(&Note::default().to_bytes()),
            Note::default()
        );
    }

    #[test]
    fn whoever_hears_the_last_bell_sees_the_end() {
        // The moment in question is short; it was met about once in a thousand times.
        for _ in 0..5000 {
            let (capture, reader) = Capture::new(Arc::new(Counters::new(1))).unwrap();
            let (waits, waiting) = std::sync::mpsc::channel();
            let thread = std::thread::spawn(move || {
                waits.send(()).unwrap();
                while rustix::io::read(&reader.bell, &mut [0; 8]).is_err() {}
                reader.has_ended()
            });
            waiting.recv().unwrap();
            drop(capture);
            assert!(thread.join().unwrap());
        }
    }
}
