//! A Linux tap: one descriptor per queue, frames with the 12-byte virtio-net header, so that large
//! segments and partial checksums cross whole.
//!
//! The descriptors are opened and set up elsewhere (crate `ringway-host`); here they only carry
//! frames. To the tap, a frame's body goes straight from guest memory: a burst with one system call
//! where io_uring is permitted, else each frame with a `writev`.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use ringway_mem::io::BurstWriter;
use ringway_mem::{GuestMemory, LastHit, WriteSlice};
use ringway_wire::vnet_hdr::{self, VnetHeader};

use crate::burst::{HEAD_FRAME, MAX_FRAME, MIN_FRAME, bits, narrow, narrow16};
use crate::{Burst, Counters, DropReason, Fault, Frame, Offloads, Port, Sent, Wakeup};

/// Frames read per burst; each has a slot for the longest frame.
const SLOTS: usize = 32;
const SLOT_BYTES: usize = (vnet_hdr::LEN + MAX_FRAME).next_multiple_of(64);

/// A tap as the workers see it.
pub struct Tap {
    counters: Arc<Counters>,
    queues: Vec<Queue>,
}

struct Queue {
    id: u64,
    fd: OwnedFd,
    /// Where frames are read to; pages are touched only as far as frames reach.
    slots: GuestMemory,
    failed: AtomicBool,
    /// The kernel would take frames from several workers at once; the counters would not.
    sending: Mutex<Sender>,
}

/// How a queue's frames go to the kernel: several with one system call where io_uring is permitted.
struct Sender {
    bursts: Option<BurstWriter>,
}

impl Tap {
    /// A tap over descriptors that are set up: non-blocking, `IFF_VNET_HDR`, header size 12.
    pub fn new(queues: Vec<OwnedFd>, counters: Arc<Counters>) -> Self {
        let queues = queues
            .into_iter()
            .map(|fd| Queue {
                id: crate::next_queue_id(),
                fd,
                slots: GuestMemory::heap(&[(0, SLOTS * SLOT_BYTES)]),
                failed: AtomicBool::new(false),
                sending: Mutex::new(Sender {
                    bursts: BurstWriter::new().ok(),
                }),
            })
            .collect();
        Self { counters, queues }
    }

    /// The queues' descriptors.
    pub fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.queues.iter().map(|queue| queue.fd.as_fd())
    }

    /// Tells the kernel which offloads may be used in frames it gives us (`TUNSETOFFLOAD`). A kernel
    /// before 6.2 does not know USO, and is then told the rest.
    pub fn set_offloads(&self, takes: Offloads) -> io::Result<()> {
        for queue in &self.queues {
            match queue.set_offloads(offload_bits(takes)) {
                Err(error) if takes.uso && error.kind() == io::ErrorKind::InvalidInput => {
                    let without = Offloads {
                        uso: false,
                        ..takes
                    };
                    queue.set_offloads(offload_bits(without))?;
                }
                done => done?,
            }
        }
        Ok(())
    }
}

/// TSO and USO need checksums, ECN needs TSO, and USO is for both families (linux/if_tun.h).
fn offload_bits(takes: Offloads) -> libc::c_ulong {
    let bit = |on: bool, bits: libc::c_ulong| if on { bits } else { 0 };
    if !takes.csum {
        return 0;
    }
    TUN_F_CSUM
        | bit(takes.tso4, TUN_F_TSO4)
        | bit(takes.tso6, TUN_F_TSO6)
        | bit(takes.ecn && (takes.tso4 || takes.tso6), TUN_F_TSO_ECN)
        | bit(takes.uso, TUN_F_USO4 | TUN_F_USO6)
}

const TUNSETOFFLOAD: libc::c_ulong = 0x4004_54d0;
const TUN_F_CSUM: libc::c_ulong = 0x01;
const TUN_F_TSO4: libc::c_ulong = 0x02;
const TUN_F_TSO6: libc::c_ulong = 0x04;
const TUN_F_TSO_ECN: libc::c_ulong = 0x08;
const TUN_F_USO4: libc::c_ulong = 0x20;
const TUN_F_USO6: libc::c_ulong = 0x40;

impl Port for Tap {
    fn counters(&self) -> &Counters {
        &self.counters
    }

    fn receive_queues(&self) -> usize {
        self.queues.len()
    }

    fn send_queues(&self) -> usize {
        self.queues.len()
    }

    fn offloads(&self) -> Offloads {
        // The kernel completes and segments whatever it is given.
        Offloads {
            csum: true,
            tso4: true,
            tso6: true,
            ecn: true,
            uso: true,
        }
    }

    fn receive<'m>(
        &'m self,
        queue: usize,
        limit: usize,
        burst: &mut Burst<'m>,
    ) -> Result<usize, Fault> {
        let tap = &self.queues[queue];
        if tap.failed.load(Ordering::Relaxed) {
            return Ok(0);
        }
        let mut taken = 0;
        while taken < limit.min(SLOTS) && burst.bytes < burst.room {
            let Some(slot) = tap.slot(taken) else { break };
            match ringway_mem::io::readv(tap.fd.as_fd(), &[slot]) {
                Ok(len) => gather(burst, &self.counters, slot.take(len), len),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => {
                    tap.failed.store(true, Ordering::Relaxed);
                    return Err(Fault::Io {
                        queue,
                        error: error.kind(),
                    });
                }
            }
            taken += 1;
        }
        self.counters.queues[queue]
            .received
            .count(burst.frames.len() as u64, burst.bytes);
        Ok(taken)
    }

    fn release(&self, _queue: usize, _burst: &mut Burst<'_>) -> Result<(), Fault> {
        Ok(())
    }

    fn send(&self, queue: usize, burst: &Burst<'_>, picks: u64) -> Sent {
        let tap = &self.queues[queue];
        let mut sender = tap.sending.lock().unwrap_or_else(PoisonError::into_inner);
        let mut sent = Sent::default();
        let left = if picks.count_ones() > 1 {
            sender.send_together(&tap.fd, burst, picks, &mut sent)
        } else {
            picks
        };
        send_singly(&tap.fd, burst, left, &mut sent);
        let bytes = bits(sent.delivered).map(|i| u64::from(burst.frames[i].len));
        let counters = &self.counters.queues[queue].sent;
        counters.count(u64::from(sent.delivered.count_ones()), bytes.sum());
        sent
    }

    fn wakeup(&self, queue: usize) -> Wakeup<'_> {
        let tap = &self.queues[queue];
        Wakeup::Descriptor {
            id: tap.id,
            fd: tap.fd.as_fd(),
        }
    }

    fn arm(&self, _queue: usize) -> bool {
        // Edge-triggered waiting sees whatever arrives after the read that found nothing.
        false
    }

    fn disarm(&self, _queue: usize) {}

    fn woken(&self, queue: usize) {
        self.counters.queues[queue].received.count_kick();
    }
}

impl Sender {
    /// Writes frames with one system call; those that have to be tried singly are returned.
    fn send_together(
        &mut self,
        fd: &OwnedFd,
        burst: &Burst<'_>,
        picks: u64,
        sent: &mut Sent,
    ) -> u64 {
        let Some(bursts) = &mut self.bursts else {
            return picks;
        };
        let (mut left, mut unsupported) = (picks, false);
        let frames = bits(picks).map(|i| (head(burst, i), burst.body(i)));
        let mut numbers = bits(picks);
        let mut next = 0;
        bursts.write(fd.as_fd(), frames, |number, result| {
            let skipped = number - next;
            next = number + 1;
            let Some(i) = numbers.nth(skipped) else {
                return;
            };
            match result {
                Ok(_) => sent.delivered |= 1 << i,
                // Kernels before 5.11 cannot tell whether a write to a tap would wait.
                Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => {
                    unsupported = true;
                    return;
                }
                Err(error) => sent.reason = Some(refusal(&error).0),
            }
            left &= !(1 << i);
        });
        if !bursts.works() || unsupported {
            self.bursts = None;
        }
        left
    }
}

/// Writes each frame with a system call of its own.
fn send_singly(fd: &OwnedFd, burst: &Burst<'_>, picks: u64, sent: &mut Sent) {
    for i in bits(picks) {
        match ringway_mem::io::writev(fd.as_fd(), head(burst, i), burst.body(i)) {
            Ok(_) => sent.delivered |= 1 << i,
            Err(error) => {
                let (reason, all) = refusal(&error);
                sent.reason = Some(reason);
                if all {
                    break;
                }
            }
        }
    }
}

/// The virtio-net header and the private beginning of a frame.
fn head<'b>(burst: &'b Burst<'_>, i: usize) -> &'b [u8] {
    &burst.heads[i].0[..vnet_hdr::LEN + usize::from(burst.frames[i].head_len)]
}

impl Queue {
    fn set_offloads(&self, bits: libc::c_ulong) -> io::Result<()> {
        // SAFETY: TUNSETOFFLOAD takes its argument by value and reads or writes no memory; the
        // descriptor is open for as long as `self.fd` is borrowed.
        let done = unsafe { libc::ioctl(self.fd.as_raw_fd(), TUNSETOFFLOAD, bits) };
        if done < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }

    fn slot(&self, number: usize) -> Option<WriteSlice<'_>> {
        let address = (number * SLOT_BYTES) as u64;
        self.slots
            .write(&mut LastHit::default(), address, narrow(SLOT_BYTES))
    }
}

/// Pushes the frame that was read into `slot`.
pub(crate) fn gather<'m>(
    burst: &mut Burst<'m>,
    counters: &Counters,
    slot: WriteSlice<'m>,
    len: usize,
) {
    let Some(frame_len) = len
        .checked_sub(vnet_hdr::LEN)
        .filter(|&len| len >= MIN_FRAME)
    else {
        return burst.refuse(counters, DropReason::TooShort, 1);
    };
    if frame_len > MAX_FRAME {
        return burst.refuse(counters, DropReason::TooLong, 1);
    }
    let wanted = vnet_hdr::LEN + HEAD_FRAME.min(frame_len);
    let slot = slot.as_read();
    let head = &mut burst.heads[burst.frames.len()];
    slot.copy_to(&mut head.0[..wanted]);
    let keep = vnet_hdr::F_NEEDS_CSUM | vnet_hdr::F_DATA_VALID;
    let header = VnetHeader::from_bytes(head.vnet())
        .normalized(frame_len, keep)
        .with_measured_hdr_len(&head.frame()[..wanted - vnet_hdr::LEN], frame_len);
    *head.vnet_mut() = header.to_bytes();
    let first = burst.batch.segments.len();
    let rest = slot.skip(wanted);
    if !rest.is_empty() {
        burst.batch.segments.push(rest);
    }
    burst.push_frame(Frame {
        len: narrow(frame_len),
        head_len: narrow16(wanted - vnet_hdr::LEN),
        first: narrow16(first),
        segments: u16::from(!rest.is_empty()),
    });
}

/// What a failed write means, and whether the next frame would fail the same way. The table is
/// that of `tun_get_user` (drivers/net/tun.c).
fn refusal(error: &io::Error) -> (DropReason, bool) {
    match error.raw_os_error() {
        Some(libc::EAGAIN) => (DropReason::QueueFull, true),
        Some(libc::EIO) => (DropReason::LinkDown, true),
        Some(libc::EINVAL) => (DropReason::BadHeader, false),
        _ => (DropReason::Fault, false),
    }
}

#[cfg(test)]
mod tests;
