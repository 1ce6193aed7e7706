use super::*;

const REGION: Region = Region {
    guest_address: 1,
    size: 2,
    user_address: 3,
    mmap_offset: u64::MAX,
};

#[test]
fn header_survives_the_wire() {
    let header = Header::request(Request::SetMemTable.id(), 40, true);
    assert_eq!(header.flags, 0x9);
    assert_eq!(Header::parse(header.bytes()), header);
    assert_eq!(Header::reply(Request::GetFeatures.id(), 8).flags, 0x5);
}

#[test]
fn header_tells_its_flags_apart() {
    let header = Header {
        request: RequestId(1),
        flags: 0xf0 | 0x2 | 0x8,
        size: 0,
    };
    assert_eq!(header.version(), 2);
    assert!(header.need_reply());
    assert!(!header.is_reply());
    assert_eq!(header.reserved_flags(), 0xf0);
}

#[test]
fn request_numbers_are_those_of_the_protocol() {
    for (request, id) in Request::ALL.iter().zip(1..) {
        assert_eq!(request.id(), RequestId(id));
        assert_eq!(Request::from_id(RequestId(id)), Some(*request));
    }
    assert_eq!(Request::ALL.len(), 43);
    assert_eq!(Request::from_id(RequestId(0)), None);
    assert_eq!(Request::from_id(RequestId(44)), None);
}

#[test]
fn request_shows_its_name_or_its_number() {
    assert_eq!(Request::SetVringNum.id().to_string(), "SET_VRING_NUM");
    assert_eq!(RequestId(99).to_string(), "request 99");
}

#[test]
fn payloads_survive_the_wire() {
    let state = VringState { index: 7, num: 256 };
    assert_eq!(VringState::parse(&state.bytes()), Some(state));
    let address = VringAddress {
        index: 1,
        flags: 1,
        descriptors: 2,
        used: 3,
        available: 4,
        log: 5,
    };
    assert_eq!(VringAddress::parse(&address.bytes()), Some(address));
    assert_eq!(Region::parse(&REGION.bytes()), Some(REGION));
    let single = SingleRegion::new(REGION);
    assert_eq!(SingleRegion::parse(&single.bytes()), Some(single));
    let table = MemoryTable {
        regions: vec![REGION; 3],
    };
    assert_eq!(MemoryTable::parse(&table.bytes()), Some(table));
}

#[test]
fn payloads_of_another_size_are_none() {
    for size in (0..100).filter(|&size| size != VringState::SIZE) {
        assert_eq!(VringState::parse(&vec![0; size]), None);
    }
    for size in (0..100).filter(|&size| size != VringAddress::SIZE) {
        assert_eq!(VringAddress::parse(&vec![0; size]), None);
        assert_eq!(SingleRegion::parse(&vec![0; size]), None);
    }
    for size in (0..100).filter(|&size| size != Region::SIZE) {
        assert_eq!(Region::parse(&vec![0; size]), None);
    }
    for size in (0..100).filter(|&size| size != 8) {
        assert_eq!(parse_u64(&vec![0; size]), None);
    }
}

#[test]
fn memory_table_counts_its_regions() {
    let mut bytes = MemoryTable {
        regions: vec![REGION; 2],
    }
    .bytes();
    assert_eq!(bytes.len(), 72);
    bytes[0] = 3;
    assert_eq!(MemoryTable::parse(&bytes), None);
    bytes[..4].fill(0xff);
    assert_eq!(MemoryTable::parse(&bytes), None);
    assert_eq!(MemoryTable::announced(&bytes), Some(u32::MAX));
    assert_eq!(MemoryTable::announced(&[0; 3]), None);
}

#[test]
fn ring_index_of_a_file_has_eight_bits() {
    assert_eq!(
        VringFile::parse(0x1ff),
        Some(VringFile {
            index: 255,
            no_fd: true
        })
    );
    assert_eq!(
        VringFile::parse(3),
        Some(VringFile {
            index: 3,
            no_fd: false
        })
    );
    assert_eq!(VringFile::parse(0x200), None);
    assert_eq!(VringFile::parse(1 << 63), None);
    assert_eq!(
        VringFile {
            index: 9,
            no_fd: true
        }
        .number(),
        0x109
    );
}
