//! System calls that read and write guest memory themselves.
//!
//! The kernel answers `EFAULT` where a file shrank under a region, without a signal: that is the fault of the memory's owner, and
//! [`is_poisoned`](crate::GuestMemory::is_poisoned) does not tell it.

mod burst;

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd};

pub use burst::BurstWriter;

use crate::{ReadSlice, WriteSlice};

/// Pieces that one call takes (`UIO_MAXIOV`).
pub const MAX_PIECES: usize = 1024;

/// Reads once from `fd` into the slices, in order, and tells how many bytes came.
///
/// `EINVAL` when there are more than [`MAX_PIECES`] slices; else what readv(2) says.
pub fn readv(fd: BorrowedFd<'_>, into: &[WriteSlice<'_>]) -> io::Result<usize> {
    if let [whole] = into {
        // The kernel has no list to fetch and check.
        // SAFETY: the bytes of a slice stay mapped for writing while it lives; no reference covers them.
        let read = unsafe { libc::read(fd.as_raw_fd(), whole.address().cast(), whole.len()) };
        return usize::try_from(read).map_err(|_| io::Error::last_os_error());
    }
    let Ok(count) = libc::c_int::try_from(into.len()) else {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    };
    // SAFETY: a slice has the layout of an iovec and its bytes stay mapped while it lives; no reference covers them. A length above
    // the limit is refused by the kernel.
    let read = unsafe { libc::readv(fd.as_raw_fd(), into.as_ptr().cast(), count) };
    usize::try_from(read).map_err(|_| io::Error::last_os_error())
}

/// Writes `head` and then the slices to `fd` in one call, and tells how many bytes went.
///
/// `EINVAL` when there are more than [`MAX_PIECES`] pieces in all; else what writev(2) says.
pub fn writev(fd: BorrowedFd<'_>, head: &[u8], body: &[ReadSlice<'_>]) -> io::Result<usize> {
    let mut pieces = [const { MaybeUninit::<ReadSlice<'_>>::uninit() }; MAX_PIECES];
    let count = body.len() + 1;
    let (Some(used), Ok(count)) = (pieces.get_mut(..count), libc::c_int::try_from(count)) else {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    };
    used[0].write(ReadSlice::from_private(head));
    for (piece, slice) in used[1..].iter_mut().zip(body) {
        piece.write(*slice);
    }
    // SAFETY: the first `count` pieces were just written; a slice has the layout of an iovec and its bytes stay mapped while it
    // lives. `count` is at most `MAX_PIECES`.
    let written = unsafe { libc::writev(fd.as_raw_fd(), used.as_ptr().cast(), count) };
    usize::try_from(written).map_err(|_| io::Error::last_os_error())
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;
    use crate::GuestMemory;

    #[test]
    fn pieces_go_and_come_in_order() {
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        let memory = GuestMemory::heap(&[(0, 64), (64, 64)]);
        let from_guest = memory.write_prefix(60, 4).unwrap();
        from_guest.copy_from(b"WXYZ");
        let body = [
            from_guest.as_read(),
            ReadSlice::empty(),
            ReadSlice::from_private(b"tail"),
        ];
        assert_eq!(writev(writer.as_fd(), b"head", &body).unwrap(), 12);
        let into = [
            memory.write_prefix(61, 9).unwrap(),
            memory.write_prefix(64, 20).unwrap(),
        ];
        assert_eq!(readv(reader.as_fd(), &into).unwrap(), 12);
        let mut out = [0; 12];
        memory.read_prefix(61, 3).unwrap().copy_to(&mut out);
        memory.read_prefix(64, 9).unwrap().copy_to(&mut out[3..]);
        assert_eq!(&out, b"headWXYZtail");
    }

    #[test]
    fn as_many_pieces_as_the_kernel_takes() {
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        let one = ReadSlice::from_private(b"1");
        assert_eq!(
            writev(writer.as_fd(), b"0", &[one; MAX_PIECES - 1]).unwrap(),
            MAX_PIECES
        );
        let error = writev(writer.as_fd(), b"0", &[one; MAX_PIECES]).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EINVAL));
        let mut bytes = [0; MAX_PIECES + 1];
        let mut rest = WriteSlice::from_private(&mut bytes);
        let mut into = Vec::new();
        while !rest.is_empty() {
            into.push(rest.take(1));
            rest = rest.skip(1);
        }
        let error = readv(reader.as_fd(), &into).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EINVAL));
        assert_eq!(readv(reader.as_fd(), &into[1..]).unwrap(), MAX_PIECES);
        assert_eq!(&bytes[..3], b"\x0001");
    }

    #[test]
    fn the_error_is_the_system_calls() {
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        rustix::io::ioctl_fionbio(&reader, true).unwrap();
        let error = readv(reader.as_fd(), &[WriteSlice::from_private(&mut [0; 4])]);
        assert_eq!(error.unwrap_err().kind(), io::ErrorKind::WouldBlock);
        drop(writer);
        assert_eq!(
            readv(reader.as_fd(), &[WriteSlice::from_private(&mut [0; 4])]).unwrap(),
            0
        );
    }
}
