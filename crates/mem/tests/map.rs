//! What is mapped is where it belongs, for as long as it is needed and no longer.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use ringway_mem::{GuestMemory, LastHit, MemoryError, RegionRequest};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, fstat, ftruncate, memfd_create};

const MIB: u64 = 1 << 20;

fn file(size: u64) -> OwnedFd {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let file = memfd_create("map", flags).unwrap();
    ftruncate(&file, size).unwrap();
    file
}

fn bytes(memory: &GuestMemory, guest_address: u64, len: u32) -> Option<Vec<u8>> {
    let mut out = vec![0; len as usize];
    let slice = memory.read(&mut LastHit::default(), guest_address, len)?;
    assert_eq!(slice.copy_to(&mut out), len as usize);
    Some(out)
}

fn put(memory: &GuestMemory, guest_address: u64, data: &[u8]) {
    let len = data.len().try_into().unwrap();
    let slice = memory.write(&mut LastHit::default(), guest_address, len);
    assert_eq!(slice.unwrap().copy_from(data), data.len());
}

/// Mappings of this process that show the file's inode.
fn mappings(file: impl AsFd) -> usize {
    let inode = fstat(file).unwrap().st_ino.to_string();
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    maps.lines()
        .filter(|line| line.contains("memfd:") && line.split_whitespace().nth(4) == Some(&*inode))
        .count()
}

#[test]
fn regions_with_unaligned_offsets_share_one_file_as_qemu_lays_it_out() {
    let backing = file(4 * MIB);
    let request = |gpa, size, ua, mmap_offset| RegionRequest {
        guest_address: gpa,
        size,
        user_address: ua,
        mmap_offset,
        file: backing.try_clone().unwrap(),
    };
    let base = 0x7f12_3400_0000;
    let memory = GuestMemory::map(vec![
        request(0, 0xa_0000, base, 0),
        request(0xc_0000, 4 * MIB - 0xc_0000, base + 0xc_0000, 0xc_0000),
    ])
    .unwrap();
    put(&memory, 0x9_fffc, b"last");
    put(&memory, 0xc_0000, b"first");
    put(&memory, 4 * MIB - 3, b"end");
    let mut found = [0; 5];
    for (offset, wanted) in [
        (0x9_fffc, "last"),
        (0xc_0000, "first"),
        (4 * MIB - 3, "end"),
    ] {
        let read = rustix::io::pread(&backing, &mut found, offset).unwrap();
        assert_eq!(&found[..wanted.len().min(read)], wanted.as_bytes());
    }
    assert_eq!(memory.user_to_guest(base + 0xc_0010, 16), Some(0xc_0010));
    assert_eq!(memory.user_to_guest(base + 0xa_0000, 1), None);
    assert_eq!(memory.user_to_guest(base + 0x9_fff0, 17), None);
    assert_eq!(bytes(&memory, 0xb_0000, 1), None);

    let memory = Arc::new(memory);
    let area = memory.area(base + 0xc_0000, 4096, 4096).unwrap();
    assert_eq!(area.load_u32(0), u32::from_le_bytes(*b"firs"));
}

#[test]
fn an_offset_need_not_even_be_aligned_to_a_page() {
    let backing = file(8192);
    rustix::io::pwrite(&backing, b"odd", 4097).unwrap();
    let memory = GuestMemory::map(vec![RegionRequest {
        guest_address: 0x1000,
        size: 4000,
        user_address: 0x2000,
        mmap_offset: 4097,
        file: backing,
    }])
    .unwrap();
    assert_eq!(bytes(&memory, 0x1000, 3).unwrap(), b"odd");
    // The front-end says that the ring is aligned; where it lies here it is not.
    let result = Arc::new(memory).area(0x2000, 64, 16);
    assert!(matches!(
        result,
        Err(MemoryError::AreaMisaligned {
            user_address: 0x2000,
            align: 16
        })
    ));
}

#[test]
fn areas_lie_in_one_region_and_are_aligned() {
    let memory = Arc::new(GuestMemory::heap(&[(0x1000, 0x1000), (0x2000, 0x1000)]));
    assert_eq!(memory.area(0x1000, 0x1000, 16).unwrap().len(), 0x1000);
    for (address, len) in [
        (0x1ff0, 0x11),
        (0xfff, 1),
        (0x3000, 1),
        (0x1000, usize::MAX),
    ] {
        let result = memory.area(address, len, 1);
        assert!(matches!(result, Err(MemoryError::AreaUnmapped { .. })));
    }
    for (address, align) in [(0x1001, 2), (0x1002, 4), (0x1008, 16)] {
        let result = memory.area(address, 8, align);
        assert!(matches!(result, Err(MemoryError::AreaMisaligned { .. })));
    }
}

#[test]
fn an_area_outlives_the_table_it_came_from() {
    let (memory, requests) = GuestMemory::memfd(&[(0, 0x1000)]).unwrap();
    let area = Arc::new(memory).area(0, 0x1000, 16).unwrap();
    area.store_u32(8, 7);
    assert_eq!(mappings(&requests[0].file), 1);
    assert_eq!(area.clone().load_u32(8), 7);
    assert!(Arc::strong_count(area.memory()) == 1);
    drop(area);
    assert_eq!(mappings(&requests[0].file), 0);
}

#[test]
fn requests_of_memfd_map_the_same_bytes() {
    let layout = [(0x1_0000, 0x3000), (0x10_0000, 5000)];
    let (ours, requests) = GuestMemory::memfd(&layout).unwrap();
    let theirs = GuestMemory::map(requests).unwrap();
    put(&ours, 0x10_0000 + 4990, b"0123456789");
    assert_eq!(bytes(&theirs, 0x10_0000 + 4990, 10).unwrap(), b"0123456789");
    assert!(ours.regions().eq(theirs.regions()));
    assert_eq!(bytes(&theirs, 0x10_0000 + 4990, 11), None);
}

#[test]
fn tables_share_the_mappings_that_stay() {
    let (first, second) = (file(MIB), file(MIB));
    let request = |file: &OwnedFd, gpa| RegionRequest {
        guest_address: gpa,
        size: MIB,
        user_address: gpa,
        mmap_offset: 0,
        file: file.try_clone().unwrap(),
    };
    let one = GuestMemory::map(vec![request(&first, 0)]).unwrap();
    let two = one.with_added(request(&second, MIB)).unwrap();
    assert_eq!((mappings(&first), mappings(&second)), (1, 1));
    put(&two, 0, b"shared");
    assert_eq!(bytes(&one, 0, 6).unwrap(), b"shared");
    let three = two.with_removed(0, MIB, 0).unwrap();
    drop(two);
    assert_eq!((mappings(&first), mappings(&second)), (1, 1));
    drop(one);
    assert_eq!((mappings(&first), mappings(&second)), (0, 1));
    assert_eq!(bytes(&three, 0, 1), None);
    drop(three);
    assert_eq!(mappings(&second), 0);
}

#[test]
fn what_was_mapped_before_a_refusal_is_unmapped() {
    let (first, second) = (file(MIB), file(MIB));
    let request = |file: &OwnedFd, size| RegionRequest {
        guest_address: size,
        size,
        user_address: size,
        mmap_offset: 0,
        file: file.try_clone().unwrap(),
    };
    let requests = vec![request(&first, MIB), request(&second, 2 * MIB)];
    assert!(GuestMemory::map(requests).is_err());
    assert_eq!(mappings(&first), 0);
    let overlapping = vec![request(&first, MIB), request(&second, MIB)];
    assert!(GuestMemory::map(overlapping).is_err());
    assert_eq!((mappings(&first), mappings(&second)), (0, 0));
}

#[test]
fn a_seal_against_shrinking_is_seen() {
    let sealed = file(MIB);
    fcntl_add_seals(&sealed, SealFlags::SHRINK).unwrap();
    let grown = file(MIB);
    fcntl_add_seals(&grown, SealFlags::GROW).unwrap();
    let plain = std::env::temp_dir().join(format!("ringway-mem-seal-{}", std::process::id()));
    let unsealable = std::fs::File::create_new(&plain).unwrap();
    unsealable.set_len(MIB).unwrap();
    std::fs::remove_file(&plain).unwrap();
    for (file, shrinkable) in [(sealed, false), (grown, true), (unsealable.into(), true)] {
        let memory = GuestMemory::map(vec![RegionRequest {
            guest_address: 0,
            size: MIB,
            user_address: 0,
            mmap_offset: 0,
            file,
        }])
        .unwrap();
        assert_eq!(memory.regions().next().unwrap().shrinkable, shrinkable);
    }
    let heap = GuestMemory::heap(&[(0, 4096)]);
    assert!(!heap.regions().next().unwrap().shrinkable);
}
