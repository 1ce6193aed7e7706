//! Several writes with one system call, by io_uring.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use io_uring::register::Restriction;
use io_uring::{IoUring, opcode, types};

use super::MAX_PIECES;
use crate::ReadSlice;

/// Writes that one call takes.
const WRITES: u32 = 64;

/// Writes bursts to descriptors. Every call returns when all it began has ended, so nothing it was
/// given is used after it.
pub struct BurstWriter {
    ring: IoUring,
    /// Address and length of the pieces of the call that is under way, as an iovec has them.
    pieces: Vec<[usize; 2]>,
    /// Where the pieces of each write begin, and how many they are.
    writes: Vec<(usize, u32)>,
    /// What became of each.
    results: Vec<Option<i32>>,
    /// The kernel did not take what was queued.
    failed: bool,
}

const _: () = assert!(size_of::<[usize; 2]>() == size_of::<libc::iovec>());
const _: () = assert!(align_of::<[usize; 2]>() == align_of::<libc::iovec>());

impl BurstWriter {
    /// `EPERM` and `ENOSYS` where io_uring is not permitted or not known.
    ///
    /// The ring writes and does nothing else, for good (Linux 5.10): a filter of system calls does not
    /// see what is asked of it.
    pub fn new() -> io::Result<Self> {
        let ring = IoUring::builder().setup_r_disabled().build(WRITES)?;
        let mut writes = [opcode::Write::CODE, opcode::Writev::CODE].map(Restriction::sqe_op);
        ring.submitter().register_restrictions(&mut writes)?;
        ring.submitter().register_enable_rings()?;
        Ok(Self {
            ring,
            pieces: Vec::with_capacity(MAX_PIECES),
            writes: Vec::with_capacity(WRITES as usize),
            results: Vec::with_capacity(WRITES as usize),
            failed: false,
        })
    }

    /// Whether it can still be used.
    pub fn works(&self) -> bool {
        !self.failed
    }

    /// Writes each of `frames`, a head and what follows it, with one write of its own, in order, and
    /// tells what became of it. Frames for which `done` was not called were not written: there were
    /// more than fit into one call, or this does not work any more.
    ///
    /// A write that would wait answers `EAGAIN`, and `EOPNOTSUPP` where the kernel cannot tell.
    pub fn write<'b, 'm: 'b>(
        &mut self,
        fd: BorrowedFd<'_>,
        frames: impl Iterator<Item = (&'b [u8], &'b [ReadSlice<'m>])>,
        mut done: impl FnMut(usize, io::Result<usize>),
    ) {
        self.pieces.clear();
        self.writes.clear();
        self.results.clear();
        if self.failed {
            return;
        }
        for (head, body) in frames {
            let (first, count) = (self.pieces.len(), body.len() + 1);
            let room = first + count <= MAX_PIECES && self.writes.len() < WRITES as usize;
            let Some(count) = u32::try_from(count).ok().filter(|_| room) else {
                break;
            };
            let whole = std::iter::once(ReadSlice::from_private(head)).chain(body.iter().copied());
            self.pieces
                .extend(whole.map(|slice| [slice.address(), slice.len()]));
            self.writes.push((first, count));
            self.results.push(None);
        }
        let file = types::Fd(fd.as_raw_fd());
        for (number, &(first, count)) in self.writes.iter().enumerate() {
            let pieces = self.pieces[first..].as_ptr().cast();
            // Without this flag a write that would wait is begun, and waits.
            let entry = match (count, &self.pieces[first]) {
                (1, &[address, len]) => {
                    let address = std::ptr::with_exposed_provenance(address);
                    let len = u32::try_from(len).unwrap_or(u32::MAX);
                    let write = opcode::Write::new(file, address, len);
                    write.rw_flags(libc::RWF_NOWAIT).build()
                }
                _ => {
                    let write = opcode::Writev::new(file, pieces, count);
                    write.rw_flags(libc::RWF_NOWAIT).build()
                }
            };
            let entry = entry.user_data(number as u64);
            // SAFETY: `pieces` holds `count` iovecs that stay where they are until the next call of
            // this function, and their bytes are mapped for `'b`, which outlasts this call;
            // `finish` returns only after all writes that the kernel took have ended. The kernel
            // takes no entries later: `failed` ends the use of a ring with entries left.
            let pushed = unsafe { self.ring.submission().push(&entry) };
            if pushed.is_err() {
                self.failed = true;
                break;
            }
        }
        self.finish();
        for (number, result) in self.results.iter().enumerate() {
            let Some(result) = *result else { continue };
            let written = usize::try_from(result);
            done(
                number,
                written.map_err(|_| io::Error::from_raw_os_error(-result)),
            );
        }
    }

    /// Submits what was pushed and waits for the end of all that the kernel took.
    fn finish(&mut self) {
        let (mut taken, mut ended) = (0, 0);
        let mut queued = self.ring.submission().len();
        while queued > 0 || ended < taken {
            if self.failed {
                // The kernel gets no more, and ends by itself what it has.
                queued = 0;
                std::thread::yield_now();
            } else {
                match self.ring.submit_and_wait(queued + taken - ended) {
                    Ok(count) => {
                        taken += count;
                        queued = queued.saturating_sub(count);
                    }
                    Err(error) if is_passing(&error) => std::thread::yield_now(),
                    Err(_) => self.failed = true,
                }
            }
            for completion in self.ring.completion() {
                ended += 1;
                let number = usize::try_from(completion.user_data());
                if let Some(result) = number.ok().and_then(|number| self.results.get_mut(number)) {
                    *result = Some(completion.result());
                }
            }
        }
    }
}

/// A signal, or a moment without memory.
fn is_passing(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EINTR | libc::EAGAIN | libc::EBUSY)
    )
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

    use super::*;
    use crate::GuestMemory;

    #[test]
    fn frames_go_whole_and_in_order_until_there_is_no_room() {
        let Ok(mut writer) = BurstWriter::new() else {
            eprintln!("SKIPPED: io_uring is not permitted here");
            return;
        };
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::DGRAM, flags, None).unwrap();
        let memory = GuestMemory::heap(&[(0, 4096)]);
        let piece = |at, len, byte: u8| {
            let slice = memory.write_prefix(at, len).unwrap();
            slice.copy_from(&vec![byte; len as usize]);
            slice.as_read()
        };
        let bodies = [
            vec![],
            vec![piece(0, 1000, b'a')],
            vec![piece(1000, 3, b'b'), piece(2000, 4, b'c')],
        ];
        let heads: [&[u8]; 3] = [b"1", b"22", b"333"];
        let frames = || heads.into_iter().zip(bodies.iter().map(Vec::as_slice));
        let expected: Vec<Vec<u8>> = vec![
            b"1".to_vec(),
            [b"22", &[b'a'; 1000][..]].concat(),
            b"333bbbcccc".to_vec(),
        ];
        let mut buffer = [0; 2000];
        for _ in 0..100 {
            let mut results = Vec::new();
            writer.write(ours.as_fd(), frames(), |number, result| {
                results.push((number, result.unwrap()));
            });
            assert_eq!(results, [(0, 1), (1, 1002), (2, 10)]);
            for frame in &expected {
                let len = rustix::io::read(&theirs, &mut buffer).unwrap();
                assert_eq!(buffer[..len], frame[..]);
            }
        }
        // More than one call takes: the rest is left.
        let many = frames().cycle().take(100);
        let (mut written, mut full) = (0, 0);
        writer.write(ours.as_fd(), many, |_, result| match result {
            Ok(_) => written += 1,
            Err(error) => {
                assert_eq!(error.raw_os_error(), Some(libc::EAGAIN));
                full += 1;
            }
        });
        assert_eq!(written + full, WRITES as usize);
        let read = std::iter::from_fn(|| rustix::io::read(&theirs, &mut buffer).ok()).count();
        assert_eq!(read, written);
        assert!(writer.works());
    }

    #[test]
    fn what_cannot_be_written_to_says_so() {
        let Ok(mut writer) = BurstWriter::new() else {
            return;
        };
        let (reader, writing) = rustix::pipe::pipe().unwrap();
        drop(writing);
        let frame: (&[u8], &[ReadSlice<'_>]) = (b"a", &[]);
        let mut errors = Vec::new();
        writer.write(reader.as_fd(), [frame; 2].into_iter(), |_, result| {
            errors.push(result.unwrap_err().raw_os_error());
        });
        assert_eq!(errors, [Some(libc::EBADF); 2]);
    }
}
