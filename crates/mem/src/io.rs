//! System calls that read and write guest memory themselves.
//!
//! The kernel answers `EFAULT` where a file shrank under a region, without a signal: that is the fault of the memory's owner, and
//! [`is_poisoned`](crate::GuestMemory::is_poisoned) does not tell it.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd};

use crate::{ReadSlice, WriteSlice};

/// Pieces that one call takes (`UIO_MAXIOV`).
pub const MAX_PIECES: usize = 1024;

/// Reads once from `fd` into the slices, in order, and tells how many bytes came.
///
/// `EINVAL` when there are more than [`MAX_PIECES`] slices; else what readv(2) says.
pub fn readv(fd: BorrowedFd<'_>, into: &[WriteSlice<'_>]) -> io::Result<usize> {
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
