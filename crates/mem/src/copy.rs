//! The copy routines: every byte that crosses between us and a guest goes through here.
//!
//! The guest may change either side while a copy runs. A plain `memcpy` would let the compiler assume that nobody does; assembly is
//! opaque to it, so a race costs a guest its own bytes and nothing else. Bytes outside `[pointer, pointer + len)` are never touched.

/// Copies `len` bytes. The runs may overlap; what the destination then holds in the common part is not specified.
///
/// # Safety
///
/// `source` must be valid for reads and `destination` for writes of `len` bytes, in the sense of memory that is mapped and in which
/// no Rust reference forbids the access. Other parties may read and write both at the same time.
#[inline(always)]
pub(crate) unsafe fn copy(destination: *mut u8, source: *const u8, len: usize) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: the caller's promise, handed on.
    unsafe {
        x86_64::copy(destination, source, len);
    }
    #[cfg(not(target_arch = "x86_64"))]
    // SAFETY: the caller's promise, handed on.
    unsafe {
        portable::copy(destination, source, len);
    }
}

/// Fetches the line at `address` for reading. Only a hint: any address is fine.
#[inline(always)]
pub(crate) fn prefetch(address: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch never faults and changes nothing but caches; SSE is part of x86_64.
    unsafe {
        core::arch::x86_64::_mm_prefetch::<{ core::arch::x86_64::_MM_HINT_T0 }>(address.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}

/// Fetches the line at `address` for writing. Only a hint: any address is fine.
#[inline(always)]
pub(crate) fn prefetch_write(address: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch never faults and changes nothing but caches; processors without the instruction execute it as a no-op.
    unsafe {
        core::arch::asm!("prefetchw [{}]", in(reg) address, options(nostack, preserves_flags, readonly));
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}

#[cfg(target_arch = "x86_64")]
mod x86_64 {
    use core::arch::asm;

    /// Above this length `rep movsb` takes over.
    const SMALL: usize = 256;

    /// See [`super::copy`].
    #[inline(always)]
    pub(super) unsafe fn copy(d: *mut u8, s: *const u8, len: usize) {
        // SAFETY: the caller promises `len` bytes on both sides; each arm moves a head and a tail of a fixed width that `len` was
        // just compared with, so both lie inside.
        unsafe {
            if len > SMALL {
                string(d, s, len);
            } else if len > 64 {
                let mut at = 0;
                while at + 64 < len {
                    move_64(d.add(at), s.add(at));
                    at += 64;
                }
                move_64(d.add(len - 64), s.add(len - 64));
            } else if len > 32 {
                move_32(d, s);
                move_32(d.add(len - 32), s.add(len - 32));
            } else if len >= 16 {
                move_16(d, s);
                move_16(d.add(len - 16), s.add(len - 16));
            } else if len >= 8 {
                move_8(d, s);
                move_8(d.add(len - 8), s.add(len - 8));
            } else if len >= 4 {
                move_4(d, s);
                move_4(d.add(len - 4), s.add(len - 4));
            } else if len >= 2 {
                move_2(d, s);
                move_2(d.add(len - 2), s.add(len - 2));
            } else if len == 1 {
                move_1(d, s);
            }
        }
    }

    #[inline(always)]
    unsafe fn string(d: *mut u8, s: *const u8, len: usize) {
        // SAFETY: the caller promises `len` bytes on both sides; the direction flag is clear on entry to any asm block.
        unsafe {
            asm!(
                "rep movsb",
                inout("rcx") len => _, inout("rdi") d => _, inout("rsi") s => _,
                options(nostack, preserves_flags)
            );
        }
    }

    #[inline(always)]
    unsafe fn move_64(d: *mut u8, s: *const u8) {
        // SAFETY: the caller promises 64 bytes on both sides; the moves need no alignment.
        unsafe {
            asm!(
                "movups {a}, [{s}]", "movups {b}, [{s} + 16]", "movups {c}, [{s} + 32]", "movups {e}, [{s} + 48]",
                "movups [{d}], {a}", "movups [{d} + 16], {b}", "movups [{d} + 32], {c}", "movups [{d} + 48], {e}",
                s = in(reg) s, d = in(reg) d,
                a = out(xmm_reg) _, b = out(xmm_reg) _, c = out(xmm_reg) _, e = out(xmm_reg) _,
                options(nostack, preserves_flags)
            );
        }
    }

    #[inline(always)]
    unsafe fn move_32(d: *mut u8, s: *const u8) {
        // SAFETY: the caller promises 32 bytes on both sides; the moves need no alignment.
        unsafe {
            asm!(
                "movups {a}, [{s}]", "movups {b}, [{s} + 16]", "movups [{d}], {a}", "movups [{d} + 16], {b}",
                s = in(reg) s, d = in(reg) d, a = out(xmm_reg) _, b = out(xmm_reg) _,
                options(nostack, preserves_flags)
            );
        }
    }

    #[inline(always)]
    unsafe fn move_16(d: *mut u8, s: *const u8) {
        // SAFETY: the caller promises 16 bytes on both sides; the moves need no alignment.
        unsafe {
            asm!(
                "movups {a}, [{s}]", "movups [{d}], {a}",
                s = in(reg) s, d = in(reg) d, a = out(xmm_reg) _,
                options(nostack, preserves_flags)
            );
        }
    }

    #[inline(always)]
    unsafe fn move_8(d: *mut u8, s: *const u8) {
        // SAFETY: the caller promises 8 bytes on both sides.
        unsafe {
            asm!("mov {a}, [{s}]", "mov [{d}], {a}", s = in(reg) s, d = in(reg) d, a = out(reg) _,
                options(nostack, preserves_flags));
        }
    }

    #[inline(always)]
    unsafe fn move_4(d: *mut u8, s: *const u8) {
        // SAFETY: the caller promises 4 bytes on both sides.
        unsafe {
            asm!("mov {a:e}, [{s}]", "mov [{d}], {a:e}", s = in(reg) s, d = in(reg) d, a = out(reg) _,
                options(nostack, preserves_flags));
        }
    }

    #[inline(always)]
    unsafe fn move_2(d: *mut u8, s: *const u8) {
        // SAFETY: the caller promises 2 bytes on both sides.
        unsafe {
            asm!("movzx {a:e}, word ptr [{s}]", "mov [{d}], {a:x}", s = in(reg) s, d = in(reg) d, a = out(reg) _,
                options(nostack, preserves_flags));
        }
    }

    #[inline(always)]
    unsafe fn move_1(d: *mut u8, s: *const u8) {
        // SAFETY: the caller promises 1 byte on both sides.
        unsafe {
            asm!("mov {a}, byte ptr [{s}]", "mov byte ptr [{d}], {a}", s = in(reg) s, d = in(reg) d, a = out(reg_byte) _,
                options(nostack, preserves_flags));
        }
    }
}

/// Volatile words where both sides share their alignment, volatile bytes elsewhere.
#[cfg(any(test, not(target_arch = "x86_64")))]
mod portable {
    const WORD: usize = size_of::<usize>();

    /// See [`super::copy`].
    pub(super) unsafe fn copy(d: *mut u8, s: *const u8, len: usize) {
        let mut at = 0;
        if (d.addr() ^ s.addr()).is_multiple_of(WORD) {
            let head = s.addr().wrapping_neg() % WORD;
            // SAFETY: the caller promises `len` bytes on both sides and every access stays below `len`; words are read once both
            // pointers are aligned, which the shared remainder and the head see to.
            unsafe {
                while at < head.min(len) {
                    d.add(at).write_volatile(s.add(at).read_volatile());
                    at += 1;
                }
                while len - at >= WORD {
                    let word = s.add(at).cast::<usize>().read_volatile();
                    d.add(at).cast::<usize>().write_volatile(word);
                    at += WORD;
                }
            }
        }
        // SAFETY: the caller promises `len` bytes on both sides and `at` stays below `len`.
        unsafe {
            while at < len {
                d.add(at).write_volatile(s.add(at).read_volatile());
                at += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Routine = unsafe fn(*mut u8, *const u8, usize);

    /// Every length and every alignment of both sides, with guard bytes around.
    fn copies_exactly(routine: Routine, lengths: impl Iterator<Item = usize>) {
        const GUARD: usize = 80;
        for len in lengths {
            let source: Vec<u8> = (0..len + 2 * GUARD)
                .map(|i| (i % 251).to_le_bytes()[0])
                .collect();
            let mut destination = vec![0xff; len + 2 * GUARD];
            for from in 0..16 {
                for to in 0..16 {
                    destination.fill(0xff);
                    // SAFETY: both vectors have `GUARD` bytes more than the offset on either side of the run.
                    unsafe {
                        let d = destination.as_mut_ptr().add(GUARD - 16 + to);
                        routine(d, source.as_ptr().add(GUARD - 16 + from), len);
                    }
                    let (before, rest) = destination.split_at(GUARD - 16 + to);
                    let (run, after) = rest.split_at(len);
                    let wanted = &source[GUARD - 16 + from..][..len];
                    assert!(run == wanted, "len {len}, alignments {from} and {to}");
                    assert!(before.iter().chain(after).all(|&b| b == 0xff), "len {len}");
                }
            }
        }
    }

    unsafe fn native(d: *mut u8, s: *const u8, len: usize) {
        // SAFETY: the caller's promise, handed on.
        unsafe { copy(d, s, len) };
    }

    #[test]
    fn native_copies_exactly_the_run() {
        copies_exactly(native, 0..=600);
        copies_exactly(
            native,
            [1400, 1514, 2047, 2048, 2049, 4096, 9000, 65_000].into_iter(),
        );
    }

    #[test]
    fn portable_copies_exactly_the_run() {
        copies_exactly(portable::copy, 0..=300);
        copies_exactly(portable::copy, [1514, 9000].into_iter());
    }
}
