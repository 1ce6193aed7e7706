//! The copy routines: every byte that crosses between us and a guest goes through here.
//!
//! The guest may change either side while a copy runs. A plain `memcpy` would let the compiler assume that nobody does; assembly is
//! opaque to it, so a race costs a guest its own bytes and nothing else. Bytes outside `[pointer, pointer + len)` are never touched.
//!
//! Frames' headers and small frames go by moves in line, of which the last overlaps the one before. For longer runs a loop of 32-byte
//! moves beats `rep movsb`, whose start costs about 10 ns, up to some tens of KiB. `examples/copy_speed.rs` measures.

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
        core::arch::asm!("prefetchw [{}]", in(reg) address.addr(), options(nostack, preserves_flags, nomem));
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}

/// Each routine asks of its caller what [`copy`] does, for `len` bytes or as many as its name says; by what `len` is bounded, and which
/// feature the processor has to have, stands beside it.
#[cfg(target_arch = "x86_64")]
mod x86_64 {
    use core::arch::asm;

    /// Up to this length the moves are in line.
    const SMALL: usize = 256;

    /// How far ahead of a copy its source is fetched, also beyond its end: a large frame goes on there, and the next one often lies
    /// there. Half of it is worse than nothing.
    const AHEAD: usize = 2048;

    /// From this length on `rep movsb` is quicker than any loop, where the processor has a quick one.
    const LARGE: usize = 32 * 1024;

    /// See [`super::copy`].
    #[inline(always)]
    pub(super) unsafe fn copy(d: *mut u8, s: *const u8, len: usize) {
        // SAFETY: the caller promises `len` bytes on both sides; each arm moves a head and a tail of a fixed width that `len` was
        // just compared with, so both lie inside.
        unsafe {
            if len > SMALL {
                long(d, s, len);
            } else if len > 64 {
                by_64(d, s, len);
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

    /// More than [`SMALL`] bytes.
    #[inline(never)]
    unsafe fn long(d: *mut u8, s: *const u8, len: usize) {
        // Detection is remembered by the standard library: a load and a branch each.
        // SAFETY: the caller promises `len` bytes on both sides, more than 64; the features are there.
        unsafe {
            if len >= LARGE && is_x86_feature_detected!("ermsb") {
                string(d, s, len);
            } else if is_x86_feature_detected!("avx") {
                by_64_avx(d, s, len);
            } else {
                by_64(d, s, len);
            }
        }
    }

    #[inline(always)]
    pub(super) unsafe fn string(d: *mut u8, s: *const u8, len: usize) {
        // SAFETY: the caller promises `len` bytes on both sides; the direction flag is clear on entry to any asm block.
        unsafe {
            asm!(
                "rep movsb",
                inout("rcx") len => _, inout("rdi") d => _, inout("rsi") s => _,
                options(nostack, preserves_flags)
            );
        }
    }

    /// More than 64 bytes: the first 64, then whole lines of the destination, then the last 64, which are read first.
    #[target_feature(enable = "avx")]
    pub(super) unsafe fn by_64_avx(d: *mut u8, s: *const u8, len: usize) {
        // SAFETY: the caller promises `len` > 64 bytes on both sides. The loop stores below `last`, which is 64 bytes before the end,
        // 64 bytes at a time; it starts at most 64 bytes in, where the first store ended or before. The source moves in step.
        // Prefetches touch nothing, wherever they point. Nobody's vector registers are lost: the function is called, and no call preserves them.
        unsafe {
            asm!(
                "vmovups {y}, [{s} + {len} - 64]",
                "vmovups {z}, [{s} + {len} - 32]",
                "lea {last}, [{d} + {len} - 64]",
                "vmovups {a}, [{s}]",
                "vmovups {b}, [{s} + 32]",
                "vmovups [{d}], {a}",
                "vmovups [{d} + 32], {b}",
                "mov {part}, {d}",
                "and {part}, 63",
                "sub {s}, {part}",
                "sub {d}, {part}",
                "add {s}, 64",
                "add {d}, 64",
                "cmp {d}, {last}",
                "jae 3f",
                ".p2align 6",
                "2:",
                "prefetcht0 [{s} + {ahead}]",
                "vmovups {a}, [{s}]",
                "vmovups {b}, [{s} + 32]",
                "vmovaps [{d}], {a}",
                "vmovaps [{d} + 32], {b}",
                "add {s}, 64",
                "add {d}, 64",
                "cmp {d}, {last}",
                "jb 2b",
                "3:",
                "vmovups [{last}], {y}",
                "vmovups [{last} + 32], {z}",
                "vzeroupper",
                ahead = const AHEAD,
                s = inout(reg) s => _,
                d = inout(reg) d => _,
                len = in(reg) len,
                last = out(reg) _,
                part = out(reg) _,
                a = out(ymm_reg) _,
                b = out(ymm_reg) _,
                y = out(ymm_reg) _,
                z = out(ymm_reg) _,
                options(nostack)
            );
        }
    }

    /// More than 64 bytes, by baseline moves.
    #[inline(always)]
    pub(super) unsafe fn by_64(d: *mut u8, s: *const u8, len: usize) {
        // SAFETY: the caller promises `len` > 64 bytes on both sides; each move ends at or before the end.
        unsafe {
            let mut at = 0;
            while at + 64 < len {
                move_64(d.add(at), s.add(at));
                at += 64;
            }
            move_64(d.add(len - 64), s.add(len - 64));
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
mod tests;
