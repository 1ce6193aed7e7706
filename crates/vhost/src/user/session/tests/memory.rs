//! Memory tables and slots.

use std::sync::Arc;

use ringway_mem::RegionInfo;

use super::*;

const PAGE: usize = 0x1000;

/// Regions of one page each, with their files.
fn pages(count: usize) -> Vec<RegionRequest> {
    let layout: Vec<_> = (0..count)
        .map(|page| (page as u64 * 0x10000, PAGE))
        .collect();
    GuestMemory::memfd(&layout).unwrap().1
}

fn on_wire(request: &RegionRequest) -> Region {
    Region {
        guest_address: request.guest_address,
        size: request.size,
        user_address: request.user_address,
        mmap_offset: request.mmap_offset,
    }
}

fn table(regions: &[RegionRequest]) -> (Vec<u8>, Vec<BorrowedFd<'_>>) {
    let table = MemoryTable {
        regions: regions.iter().map(on_wire).collect(),
    };
    (
        table.bytes(),
        regions.iter().map(|region| region.file.as_fd()).collect(),
    )
}

fn single(request: &RegionRequest) -> [u8; 40] {
    SingleRegion::new(on_wire(request)).bytes()
}

fn regions(pair: &Pair) -> Vec<u64> {
    let memory = pair.session.state().memory.as_ref().unwrap();
    memory
        .regions()
        .map(|RegionInfo { guest_address, .. }| guest_address)
        .collect()
}

#[test]
fn a_memory_table_is_mapped_and_the_one_before_is_let_go() {
    let mut pair = Pair::negotiated();
    let requests = pages(8);
    let (payload, files) = table(&requests);
    assert_eq!(
        pair.ok(Request::SetMemTable, &payload, &files),
        Event::Memory
    );
    assert_eq!(regions(&pair).len(), 8);
    let first = Arc::downgrade(pair.session.state().memory.as_ref().unwrap());
    let (payload, files) = table(&requests[..2]);
    assert_eq!(
        pair.ok(Request::SetMemTable, &payload, &files),
        Event::Memory
    );
    assert_eq!(regions(&pair), [0, 0x10000]);
    assert_eq!(first.strong_count(), 0);
}

#[test]
fn a_memory_table_changes_while_rings_run() {
    let mut pair = Pair::started();
    let requests = pages(1);
    let (payload, files) = table(&requests);
    assert_eq!(
        pair.ask(Request::SetMemTable, &payload, &files),
        (Event::Memory, 0)
    );
    assert!(pair.session.state().vrings[0].is_ready());
}

#[test]
fn a_memory_table_of_no_region_is_refused() {
    let error = Pair::refused(Pair::negotiated, Request::SetMemTable, &[0; 8], &[]);
    assert_eq!(
        error.to_string(),
        "SET_MEM_TABLE: 0 regions, from 1 to 8 are possible"
    );
}

#[test]
fn a_memory_table_that_cannot_be_mapped_is_refused_and_the_one_before_stays() {
    let requests = pages(2);
    let (good, files) = table(&requests);
    let spoilt = |spoil: fn(&mut Region)| {
        let mut regions: Vec<_> = requests.iter().map(on_wire).collect();
        spoil(&mut regions[1]);
        MemoryTable { regions }.bytes()
    };
    for payload in [
        spoilt(|region| region.size = 0),
        spoilt(|region| region.size = 0x2000),
        spoilt(|region| region.mmap_offset = 0x1000),
        spoilt(|region| region.mmap_offset = u64::MAX - 0xfff),
        spoilt(|region| region.guest_address = 0),
        spoilt(|region| region.user_address = 0xfff),
        spoilt(|region| region.guest_address = u64::MAX - 0xffe),
        spoilt(|region| region.user_address = u64::MAX - 0xffe),
    ] {
        let error = Pair::refused(Pair::negotiated, Request::SetMemTable, &payload, &files);
        assert_eq!(error.to_string(), "SET_MEM_TABLE: memory refused");
        assert!(std::error::Error::source(&error).is_some());

        let mut pair = Pair::negotiated();
        pair.ok(Request::SetMemTable, &good, &files);
        let before = Arc::clone(pair.session.state().memory.as_ref().unwrap());
        assert_eq!(
            pair.ask(Request::SetMemTable, &payload, &files),
            (Event::Answered, 1)
        );
        assert!(Arc::ptr_eq(
            &before,
            pair.session.state().memory.as_ref().unwrap()
        ));
    }
    let event = event();
    let files = [event.as_fd(), event.as_fd()];
    let error = Pair::refused(Pair::negotiated, Request::SetMemTable, &good, &files);
    assert!(matches!(error, SessionError::Memory { .. }));
}

#[test]
fn regions_are_added_and_removed_one_at_a_time() {
    let requests = pages(3);
    let mut pair = Pair::negotiated();
    for request in &requests {
        let files = [request.file.as_fd()];
        assert_eq!(
            pair.ask(Request::AddMemReg, &single(request), &files),
            (Event::Memory, 0)
        );
    }
    assert_eq!(regions(&pair), [0, 0x10000, 0x20000]);
    // The offset does not count, and a descriptor that should not be there is closed.
    let mut removed = on_wire(&requests[1]);
    removed.mmap_offset = 0x1234;
    let payload = SingleRegion::new(removed).bytes();
    let files = [requests[1].file.as_fd()];
    assert_eq!(
        pair.ask(Request::RemMemReg, &payload, &files),
        (Event::Memory, 0)
    );
    assert_eq!(regions(&pair), [0, 0x20000]);
    assert_eq!(
        pair.ask(Request::RemMemReg, &payload, &[]),
        (Event::Answered, 1)
    );
    for request in [&requests[0], &requests[2]] {
        assert_eq!(
            pair.ask(Request::RemMemReg, &single(request), &[]),
            (Event::Memory, 0)
        );
    }
    assert_eq!(regions(&pair), [0; 0]);
}

#[test]
fn a_region_that_is_not_there_cannot_be_removed() {
    let requests = pages(1);
    let payload = single(&requests[0]);
    let error = Pair::refused(Pair::negotiated, Request::RemMemReg, &payload, &[]);
    assert_eq!(error.to_string(), "REM_MEM_REG: there is no memory");
    let mut pair = Pair::negotiated();
    pair.ok(Request::AddMemReg, &payload, &[requests[0].file.as_fd()]);
    for change in 0..3 {
        let mut other = on_wire(&requests[0]);
        *[
            &mut other.guest_address,
            &mut other.size,
            &mut other.user_address,
        ][change] += 0x1000;
        let payload = SingleRegion::new(other).bytes();
        assert_eq!(
            pair.ask(Request::RemMemReg, &payload, &[]),
            (Event::Answered, 1)
        );
    }
    assert_eq!(regions(&pair), [0]);
}

#[test]
fn a_region_that_overlaps_is_not_added() {
    let requests = pages(1);
    let (payload, files) = (single(&requests[0]), [requests[0].file.as_fd()]);
    let mut pair = Pair::negotiated();
    pair.ok(Request::AddMemReg, &payload, &files);
    assert_eq!(
        pair.ask(Request::AddMemReg, &payload, &files),
        (Event::Answered, 1)
    );
    assert_eq!(regions(&pair), [0]);
}

#[test]
fn no_more_regions_are_added_than_offered() {
    let requests = pages(5);
    let mut pair = Pair::negotiated();
    for request in &requests[..4] {
        pair.ok(
            Request::AddMemReg,
            &single(request),
            &[request.file.as_fd()],
        );
    }
    let (payload, files) = (single(&requests[4]), [requests[4].file.as_fd()]);
    assert_eq!(
        pair.ask(Request::AddMemReg, &payload, &files),
        (Event::Answered, 1)
    );
    let error = pair.tell(Request::AddMemReg, &payload, &files).unwrap_err();
    assert_eq!(
        error.to_string(),
        "ADD_MEM_REG: 5 regions, at most 4 are possible"
    );
    assert_eq!(regions(&pair).len(), 4);
}
