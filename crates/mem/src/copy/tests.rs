//! Nothing but the run is touched, and all of it arrives.

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

/// The paths that this machine's features do not choose.
#[cfg(target_arch = "x86_64")]
#[test]
fn every_long_path_copies_exactly_the_run() {
    copies_exactly(x86_64::string, 0..=300);
    copies_exactly(x86_64::by_64, 65..=600);
    if is_x86_feature_detected!("avx") {
        // SAFETY: the feature was just seen, and the lengths are above 64.
        copies_exactly(
            |d, s, len| unsafe { x86_64::by_64_avx(d, s, len) },
            65..=600,
        );
    } else {
        println!("not tested: the processor has no AVX");
    }
}

#[test]
fn portable_copies_exactly_the_run() {
    copies_exactly(portable::copy, 0..=300);
    copies_exactly(portable::copy, [1514, 9000].into_iter());
}
