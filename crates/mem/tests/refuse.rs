//! What a front-end may not have mapped, each by the name of the check.

use std::ffi::CString;
use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;

use ringway_mem::{GuestMemory, MAX_REGIONS, MemoryError, RegionRequest};
use rustix::fs::{MemfdFlags, Mode, OFlags, ftruncate, memfd_create};

const MIB: u64 = 1 << 20;

fn file(size: u64) -> OwnedFd {
    let file = memfd_create("refuse", MemfdFlags::CLOEXEC).unwrap();
    ftruncate(&file, size).unwrap();
    file
}

/// A region that is fine, with user addresses that equal guest addresses, in a file that just holds it.
fn region(guest_address: u64, size: u64) -> RegionRequest {
    RegionRequest {
        guest_address,
        size,
        user_address: guest_address,
        mmap_offset: 0,
        file: file(size),
    }
}

#[test]
fn size_is_above_zero() {
    let result = GuestMemory::map(vec![region(MIB, 0)]);
    assert!(matches!(
        result,
        Err(MemoryError::EmptyRegion { guest_address: MIB })
    ));
}

#[test]
fn no_gpa_overlap() {
    for (first, second) in [(0, 0), (0, MIB - 1), (MIB / 2, 0)] {
        let mut other = region(second, MIB);
        other.user_address = 1 << 40;
        let result = GuestMemory::map(vec![region(first, MIB), other]);
        assert!(matches!(result, Err(MemoryError::GuestOverlap { .. })));
    }
}

#[test]
fn no_ua_overlap() {
    for (first, second) in [(0, 0), (0, MIB - 1), (MIB / 2, 0)] {
        let mut one = region(1 << 40, MIB);
        one.user_address = first;
        let mut other = region(1 << 41, MIB);
        other.user_address = second;
        let result = GuestMemory::map(vec![one, other]);
        assert!(matches!(result, Err(MemoryError::UserOverlap { .. })));
    }
}

#[test]
fn no_overlap_with_a_region_added_later() {
    let memory = GuestMemory::map(vec![region(0, MIB), region(4 * MIB, MIB)]).unwrap();
    let result = memory.with_added(region(4 * MIB + 4096, 4096));
    assert!(matches!(result, Err(MemoryError::UserOverlap { .. })));
    let mut high = region(4 * MIB + 4096, 4096);
    high.user_address = 1 << 40;
    let result = memory.with_added(high);
    assert!(matches!(result, Err(MemoryError::GuestOverlap { .. })));
    assert_eq!(memory.regions().count(), 2);
}

#[test]
fn neighbours_do_not_overlap() {
    let memory = GuestMemory::map(vec![region(MIB, MIB), region(0, MIB)]).unwrap();
    let addresses: Vec<u64> = memory.regions().map(|r| r.guest_address).collect();
    assert_eq!(addresses, [0, MIB]);
}

#[test]
fn offset_plus_size_does_not_overflow() {
    for offset in [u64::MAX, u64::MAX - MIB + 1] {
        let mut wrapping = region(0, MIB);
        wrapping.mmap_offset = offset;
        let result = GuestMemory::map(vec![wrapping]);
        assert!(
            matches!(result, Err(MemoryError::OffsetOverflow { mmap_offset, .. }) if mmap_offset == offset)
        );
    }
}

#[test]
fn gpa_plus_size_does_not_overflow() {
    let mut wrapping = region(0, MIB);
    wrapping.guest_address = u64::MAX - MIB + 1;
    let result = GuestMemory::map(vec![wrapping]);
    assert!(matches!(
        result,
        Err(MemoryError::GuestAddressOverflow { size: MIB, .. })
    ));
}

#[test]
fn ua_plus_size_does_not_overflow() {
    let mut wrapping = region(0, MIB);
    wrapping.user_address = u64::MAX - MIB + 1;
    let result = GuestMemory::map(vec![wrapping]);
    assert!(matches!(
        result,
        Err(MemoryError::UserAddressOverflow { size: MIB, .. })
    ));
}

#[test]
fn fstat_size_reaches_the_end() {
    let mut long = region(0, MIB);
    long.size += 1;
    let result = GuestMemory::map(vec![long]);
    assert!(matches!(
        result,
        Err(MemoryError::ShortFile { file_size: MIB, end }) if end == MIB + 1
    ));
    let mut late = region(0, MIB);
    late.mmap_offset = 1;
    let result = GuestMemory::map(vec![late]);
    assert!(matches!(result, Err(MemoryError::ShortFile { .. })));
    // The largest region that the checks before this one let pass.
    let mut huge = region(0, MIB);
    huge.size = u64::MAX - 4096;
    let result = GuestMemory::map(vec![huge]);
    assert!(matches!(result, Err(MemoryError::ShortFile { .. })));
}

#[test]
fn what_is_no_file_has_no_bytes() {
    for path in ["/dev/zero", "/dev/null", "/"] {
        let mut odd = region(0, MIB);
        odd.file = File::open(path).unwrap().into();
        let result = GuestMemory::map(vec![odd]);
        assert!(
            matches!(result, Err(MemoryError::ShortFile { .. })),
            "{path}"
        );
    }
}

/// The root of a FUSE mount that nobody serves. It goes with the mount namespace of the calling thread.
fn unserved_fuse() -> std::io::Result<OwnedFd> {
    let device = File::options().read(true).write(true).open("/dev/fuse")?;
    let place = std::env::temp_dir().join(format!("ringway-mem-fuse-{}", std::process::id()));
    std::fs::create_dir_all(&place)?;
    let path = CString::new(place.as_os_str().as_encoded_bytes())?;
    // Another user's, so that the kernel answers without asking the server.
    let options = format!(
        "fd={},rootmode=40000,user_id=1,group_id=1",
        device.as_raw_fd()
    );
    let options = CString::new(options)?;
    let ok = |result: libc::c_int| match result {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()),
    };
    let none = std::ptr::null();
    // SAFETY: plain system calls on strings that live as long as the calls.
    let mounted = unsafe {
        ok(libc::unshare(libc::CLONE_NEWNS))
            .and_then(|()| {
                let private = libc::MS_REC | libc::MS_PRIVATE;
                ok(libc::mount(none, c"/".as_ptr(), none, private, none.cast()))
            })
            .and_then(|()| {
                let fuse = c"fuse".as_ptr();
                ok(libc::mount(
                    fuse,
                    path.as_ptr(),
                    fuse,
                    0,
                    options.as_ptr().cast(),
                ))
            })
    };
    let root = mounted.and_then(|()| {
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        Ok(rustix::fs::open(&place, flags, Mode::empty())?)
    });
    // SAFETY: as above; the open descriptor keeps the mount.
    unsafe { libc::umount2(path.as_ptr(), libc::MNT_DETACH) };
    std::fs::remove_dir(&place)?;
    root
}

#[test]
fn a_file_that_a_process_serves_is_refused() {
    // In a thread of its own, which takes its mount namespace with it.
    let root = std::thread::spawn(unserved_fuse).join().unwrap();
    let root = match root {
        Ok(root) => root,
        Err(error) => return println!("not tested: cannot mount FUSE here: {error}"),
    };
    let mut served = region(0, MIB);
    served.file = root;
    let result = GuestMemory::map(vec![served]);
    assert!(matches!(
        result,
        Err(MemoryError::UserSpaceFile { guest_address: 0 })
    ));
}

#[test]
fn a_file_that_is_not_writable_is_refused() {
    let path = std::env::temp_dir().join(format!("ringway-mem-readonly-{}", std::process::id()));
    File::create(&path).unwrap().set_len(MIB).unwrap();
    let mut readonly = region(0, MIB);
    readonly.file = File::open(&path).unwrap().into();
    std::fs::remove_file(&path).unwrap();
    let result = GuestMemory::map(vec![readonly]);
    assert!(matches!(result, Err(MemoryError::Map { .. })));
}

#[test]
fn a_mapping_that_the_address_space_cannot_hold_is_refused() {
    let path = std::env::temp_dir().join(format!("ringway-mem-sparse-{}", std::process::id()));
    let sparse = File::create_new(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    let size = 1 << 43;
    if let Err(error) = sparse.set_len(size) {
        println!("not tested: no sparse file of {size:#x} bytes here: {error}");
        return;
    }
    // Fills the 47 bits of the address space with mappings, until mmap refuses.
    let mut memory = GuestMemory::heap(&[]);
    let mut refused = None;
    for index in 0..32 {
        let request = RegionRequest {
            guest_address: index * size,
            size,
            user_address: index * size,
            mmap_offset: 0,
            file: sparse.try_clone().unwrap().into(),
        };
        match memory.with_added(request) {
            Ok(more) => memory = more,
            Err(error) => {
                refused = Some(error);
                break;
            }
        }
    }
    assert!(matches!(refused, Some(MemoryError::Map { .. })));
}

#[test]
fn count_cap() {
    let regions = |count: usize| (0..count as u64).map(|i| region(i * 8192, 4096)).collect();
    let result = GuestMemory::map(regions(MAX_REGIONS + 1));
    assert!(matches!(
        result,
        Err(MemoryError::TooManyRegions {
            count: 510,
            max: 509
        })
    ));
    let full = GuestMemory::map(regions(MAX_REGIONS)).unwrap();
    let result = full.with_added(region(1 << 40, 4096));
    assert!(matches!(result, Err(MemoryError::TooManyRegions { .. })));
    let fewer = full.with_removed(8192, 4096, 8192).unwrap();
    assert!(fewer.with_added(region(1 << 40, 4096)).is_ok());
}

#[test]
fn a_region_to_remove_matches_exactly() {
    let memory = GuestMemory::map(vec![region(MIB, MIB)]).unwrap();
    for (gpa, size, ua) in [(0, MIB, MIB), (MIB, MIB - 1, MIB), (MIB, MIB, 0)] {
        let result = memory.with_removed(gpa, size, ua);
        assert!(matches!(result, Err(MemoryError::NoSuchRegion { .. })));
    }
    let empty = memory.with_removed(MIB, MIB, MIB).unwrap();
    assert_eq!(empty.regions().count(), 0);
}

#[test]
fn words_of_rings_are_aligned_for_the_front_end_and_for_us() {
    // Where the front-end has the region, and where it begins in its file: both have to be aligned.
    for (user_address, mmap_offset, fine) in
        [(0, 0, true), (8, 0, false), (0, 8, false), (8, 8, false)]
    {
        let request = RegionRequest {
            user_address: MIB + user_address,
            mmap_offset,
            file: file(2 * MIB),
            ..region(0, MIB)
        };
        let memory = Arc::new(GuestMemory::map(vec![request]).unwrap());
        let area = memory.area(MIB + user_address, 16, 16);
        assert_eq!(area.is_ok(), fine, "{user_address} and {mmap_offset}");
        assert!(memory.area(MIB + user_address, 16, 8).is_ok());
    }
}

#[test]
fn errors_are_one_lower_case_sentence_with_the_numbers() {
    let text = |result: Result<GuestMemory, MemoryError>| result.unwrap_err().to_string();
    assert_eq!(
        text(GuestMemory::map(vec![region(MIB, 0)])),
        "memory region at guest address 0x100000 has size 0"
    );
    let mut long = region(0, MIB);
    long.size += 4096;
    assert_eq!(
        text(GuestMemory::map(vec![long])),
        "memory file has 0x100000 bytes, the region ends at 0x101000"
    );
}
