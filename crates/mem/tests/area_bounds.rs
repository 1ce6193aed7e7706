//! Ring words are inside their area or panic. Alone in its binary for the panic hook's sake.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use ringway_mem::{Area, GuestMemory};

/// Every word at every offset of every small area: it is inside and aligned, or it panics and touches nothing.
#[test]
fn no_offset_reaches_outside() {
    type Access = fn(&Area, usize);
    let accesses: [(Access, usize, usize); 12] = [
        (|a, o| _ = a.load_u16(o), 2, 2),
        (|a, o| _ = a.load_u32(o), 4, 4),
        (|a, o| _ = a.load_u64(o), 8, 8),
        (|a, o| _ = a.load_acquire_u16(o), 2, 2),
        (|a, o| _ = a.load_desc(o), 16, 8),
        (|a, o| _ = a.load_desc_acquire(o), 16, 8),
        (|a, o| a.store_u16(o, !0), 2, 2),
        (|a, o| a.store_u32(o, !0), 4, 4),
        (|a, o| a.store_u64(o, !0), 8, 8),
        (|a, o| a.store_release_u16(o, !0), 2, 2),
        (|a, o| a.store_release_u64(o, !0), 8, 8),
        (|a, o| a.store_pair_u32(o, !0, !0), 8, 4),
    ];
    // Thousands of panics are wanted here and none is worth a message.
    std::panic::set_hook(Box::new(|_| {}));
    let mut wrong = Vec::new();
    for len in 0..=20 {
        let memory = Arc::new(GuestMemory::heap(&[(0, 4096)]));
        let area = memory.area(64, len, 16).unwrap();
        for offset in (0..24).chain(usize::MAX - 24..=usize::MAX) {
            for (index, &(access, size, align)) in accesses.iter().enumerate() {
                let end = offset.checked_add(size);
                let fine = end.is_some_and(|end| end <= len) && offset.is_multiple_of(align);
                let result = catch_unwind(AssertUnwindSafe(|| access(&area, offset)));
                if result.is_ok() != fine {
                    wrong.push((len, offset, index));
                }
            }
        }
        let mut around = [1; 128];
        let slice = area.memory().read_prefix(0, 128).unwrap();
        slice.copy_to(&mut around);
        if around[..64]
            .iter()
            .chain(&around[64 + len..])
            .any(|&b| b != 0)
        {
            wrong.push((len, 0, usize::MAX));
        }
    }
    let _ = std::panic::take_hook();
    assert_eq!(wrong, [], "length, offset, access");
}
