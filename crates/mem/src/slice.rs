//! Bounded runs of bytes that lie in guest memory, or private bytes lent as such.

use std::marker::PhantomData;

use crate::copy;

/// Bytes of a cache line on every processor this runs on; a wrong guess costs time only.
const LINE: usize = 64;

/// A run of bytes to read. It is a pointer, a length and the lifetime of the memory it lies in; it never becomes a Rust reference.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct ReadSlice<'m> {
    start: *const u8,
    len: usize,
    memory: PhantomData<&'m [u8]>,
}

/// A run of bytes to write. It is a pointer, a length and the lifetime of the memory it lies in; it never becomes a Rust reference.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct WriteSlice<'m> {
    start: *mut u8,
    len: usize,
    memory: PhantomData<&'m mut [u8]>,
}

// `io` hands arrays of slices to the kernel as they are.
const _: () = assert!(size_of::<ReadSlice<'_>>() == size_of::<libc::iovec>());
const _: () = assert!(size_of::<WriteSlice<'_>>() == size_of::<libc::iovec>());
const _: () = assert!(size_of::<WriteSlice<'_>>() == 2 * size_of::<usize>());

// SAFETY: the bytes are mapped for as long as `'m` lasts, whichever thread looks at them. Every access is one of the copy routines
// or a system call, which bear other parties reading and writing the same bytes: another thread is one party more.
unsafe impl Send for ReadSlice<'_> {}
// SAFETY: as for `Send`.
unsafe impl Sync for ReadSlice<'_> {}
// SAFETY: as for `ReadSlice`.
unsafe impl Send for WriteSlice<'_> {}
// SAFETY: as for `ReadSlice`.
unsafe impl Sync for WriteSlice<'_> {}

impl<'m> ReadSlice<'m> {
    /// # Safety
    ///
    /// `len` bytes from `start` must be mapped for reading during all of `'m`, and no mutable Rust reference may cover them.
    #[inline(always)]
    pub(crate) unsafe fn new(start: *const u8, len: usize) -> Self {
        Self {
            start,
            len,
            memory: PhantomData,
        }
    }

    /// A slice of no bytes.
    #[inline]
    pub fn empty() -> Self {
        Self::from_private(&[])
    }

    /// Lends bytes of our own, so that one path serves both.
    #[inline]
    pub fn from_private(bytes: &'m [u8]) -> Self {
        Self {
            start: bytes.as_ptr(),
            len: bytes.len(),
            memory: PhantomData,
        }
    }

    /// Where it begins, for the kernel.
    pub(crate) fn address(&self) -> usize {
        self.start.expose_provenance()
    }

    /// Bytes in the slice.
    #[inline(always)]
    pub fn len(&self) -> usize {
        self.len
    }

    /// True when there are no bytes.
    #[inline(always)]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// What is left after the first `n` bytes, nothing when there are not so many.
    #[inline(always)]
    #[must_use]
    pub fn skip(self, n: usize) -> Self {
        let n = n.min(self.len);
        Self {
            // SAFETY: `n` is at most `len`, so the result is inside the run or one past its end.
            start: unsafe { self.start.add(n) },
            len: self.len - n,
            memory: PhantomData,
        }
    }

    /// The first `n` bytes, all when there are not so many.
    #[inline(always)]
    #[must_use]
    pub fn take(self, n: usize) -> Self {
        Self {
            len: n.min(self.len),
            ..self
        }
    }

    /// Copies as many bytes as both hold and tells how many.
    #[inline]
    pub fn copy_to(self, out: &mut [u8]) -> usize {
        let len = self.len.min(out.len());
        // SAFETY: `len` bytes of the run are mapped (promised at construction), and `out` has so many of our own.
        unsafe { copy::copy(out.as_mut_ptr(), self.start, len) };
        len
    }

    /// Asks for the first cache line, to be read soon.
    #[inline(always)]
    pub fn prefetch(self) {
        copy::prefetch(self.start);
    }
}

impl<'m> WriteSlice<'m> {
    /// # Safety
    ///
    /// `len` bytes from `start` must be mapped for reading and writing during all of `'m`, and no Rust reference may cover them.
    #[inline(always)]
    pub(crate) unsafe fn new(start: *mut u8, len: usize) -> Self {
        Self {
            start,
            len,
            memory: PhantomData,
        }
    }

    /// A slice of no bytes.
    #[inline]
    pub fn empty() -> Self {
        Self::from_private(&mut [])
    }

    /// Lends bytes of our own, so that one path serves both.
    #[inline]
    pub fn from_private(bytes: &'m mut [u8]) -> Self {
        Self {
            start: bytes.as_mut_ptr(),
            len: bytes.len(),
            memory: PhantomData,
        }
    }

    /// Where it begins, for the kernel.
    pub(crate) fn address(&self) -> *mut u8 {
        self.start
    }

    /// Bytes in the slice.
    #[inline(always)]
    pub fn len(&self) -> usize {
        self.len
    }

    /// True when there are no bytes.
    #[inline(always)]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// What is left after the first `n` bytes, nothing when there are not so many.
    #[inline(always)]
    #[must_use]
    pub fn skip(self, n: usize) -> Self {
        let n = n.min(self.len);
        Self {
            // SAFETY: `n` is at most `len`, so the result is inside the run or one past its end.
            start: unsafe { self.start.add(n) },
            len: self.len - n,
            memory: PhantomData,
        }
    }

    /// The first `n` bytes, all when there are not so many.
    #[inline(always)]
    #[must_use]
    pub fn take(self, n: usize) -> Self {
        Self {
            len: n.min(self.len),
            ..self
        }
    }

    /// The same bytes, to be read.
    #[inline(always)]
    pub fn as_read(self) -> ReadSlice<'m> {
        ReadSlice {
            start: self.start,
            len: self.len,
            memory: PhantomData,
        }
    }

    /// Copies as many bytes as both hold and tells how many.
    #[inline]
    pub fn copy_from(self, data: &[u8]) -> usize {
        let len = self.len.min(data.len());
        // SAFETY: `len` bytes of the run are mapped (promised at construction), and `data` has so many of our own.
        unsafe { copy::copy(self.start, data.as_ptr(), len) };
        len
    }

    /// Copies as many bytes as both hold, straight from one guest to another, and tells how many. Where the two overlap, the
    /// common bytes end up unspecified.
    #[inline]
    pub fn copy_from_guest(self, source: ReadSlice<'_>) -> usize {
        let len = self.len.min(source.len);
        // SAFETY: `len` bytes of both runs are mapped (promised at construction of each).
        unsafe { copy::copy(self.start, source.start, len) };
        len
    }

    /// Copies a virtio-net header unless the same bytes are there already: a cache line that is not stored to stays with whoever
    /// reads it. A shorter slice takes what it holds.
    #[inline(always)]
    pub fn copy_changed_from(self, header: &[u8; 12]) {
        let read = self.as_read();
        let (mut first, mut last) = ([0; 8], [0; 4]);
        // In words of their own: one load each, and no library call to compare them.
        let whole = read.copy_to(&mut first) + read.skip(8).copy_to(&mut last) == header.len();
        let word = |bytes: &[u8]| bytes.first_chunk().map(|word| u64::from_ne_bytes(*word));
        let half = |bytes: &[u8]| bytes.first_chunk().map(|half| u32::from_ne_bytes(*half));
        if !(whole && word(&first) == word(header) && half(&last) == half(&header[8..])) {
            self.copy_from(header);
        }
    }

    /// How many bytes lie between the begin of a cache line and the slice's begin.
    #[inline(always)]
    pub fn line_offset(self) -> usize {
        self.start.addr() % LINE
    }

    /// Asks for the first cache line, to be written soon.
    #[inline(always)]
    pub fn prefetch_write(self) {
        copy::prefetch_write(self.start);
    }

    /// Asks for every cache line, to be written soon.
    #[inline(always)]
    pub fn prefetch_write_all(self) {
        for at in (0..self.len).step_by(LINE) {
            copy::prefetch_write(self.start.wrapping_add(at));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn skip_and_take_saturate() {
        let slice = ReadSlice::from_private(b"0123456789");
        let text = |slice: ReadSlice<'_>| {
            let mut out = vec![0; slice.len()];
            slice.copy_to(&mut out);
            String::from_utf8(out).unwrap()
        };
        assert_eq!(text(slice.skip(3).take(4)), "3456");
        assert_eq!(text(slice.take(usize::MAX).skip(9)), "9");
        assert!(slice.skip(10).is_empty());
        assert!(slice.skip(usize::MAX).skip(1).is_empty());
        assert!(slice.take(0).is_empty());
        let mut bytes = *b"0123456789";
        let slice = WriteSlice::from_private(&mut bytes);
        assert_eq!(text(slice.skip(3).take(4).as_read()), "3456");
        assert!(slice.skip(usize::MAX).is_empty());
        assert_eq!(slice.take(11).len(), 10);
        slice.prefetch_write();
        slice.as_read().skip(10).prefetch();
        ReadSlice::empty().prefetch();
        WriteSlice::empty().prefetch_write();
    }

    #[test]
    fn copies_take_what_both_sides_hold() {
        let mut bytes = [0; 4];
        assert_eq!(WriteSlice::from_private(&mut bytes).copy_from(b"abcdef"), 4);
        assert_eq!(&bytes, b"abcd");
        assert_eq!(WriteSlice::from_private(&mut bytes).copy_from(b"xy"), 2);
        assert_eq!(&bytes, b"xycd");
        let mut out = [0; 3];
        assert_eq!(ReadSlice::from_private(&bytes).copy_to(&mut out), 3);
        assert_eq!(&out, b"xyc");
        let source = ReadSlice::from_private(b"0123456789");
        assert_eq!(
            WriteSlice::from_private(&mut bytes).copy_from_guest(source),
            4
        );
        assert_eq!(&bytes, b"0123");
        assert_eq!(WriteSlice::empty().copy_from_guest(source), 0);
    }

    #[test]
    fn headers_are_there_afterwards_changed_or_not() {
        let mut bytes = *b"0123456789abcdef";
        WriteSlice::from_private(&mut bytes).copy_changed_from(b"0123456789ab");
        assert_eq!(&bytes, b"0123456789abcdef");
        for changed in 0..12 {
            let mut header = *b"0123456789ab";
            header[changed] = b'x';
            WriteSlice::from_private(&mut bytes).copy_changed_from(&header);
            assert_eq!(&bytes[..12], &header);
            assert_eq!(&bytes[12..], b"cdef");
        }
        WriteSlice::from_private(&mut bytes[..5]).copy_changed_from(b"ABCDEFGHIJKL");
        assert_eq!(
            &bytes, b"ABCDE56789axcdef",
            "a short slice takes what it holds"
        );
    }

    #[test]
    fn overlapping_runs_stay_in_bounds() {
        let mut bytes = vec![0; 3000];
        for len in [1, 5, 16, 33, 100, 200, 257, 1400] {
            for shift in [0, 1, 15, 64, 300] {
                bytes.fill(0);
                bytes[500..500 + len].fill(1);
                let slice = WriteSlice::from_private(&mut bytes);
                let source = slice.as_read().skip(500).take(len);
                slice.skip(500 + shift).copy_from_guest(source);
                let end = 500 + shift + len;
                assert!(bytes[..500].iter().chain(&bytes[end..]).all(|&b| b == 0));
            }
        }
    }
}
