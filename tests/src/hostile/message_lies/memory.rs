//! Memory and logs that cannot be.

use std::os::fd::{AsRawFd, OwnedFd};

use anyhow::Result;
use ringway_vhost::user::message::{LogArea, MemoryTable, Region, Request, SingleRegion};
use rustix::fs::{Mode, OFlags, open};

use super::super::crooked::{BODY, File, REGIONS, USER};
use super::{Message, message, others};

/// A region of a megabyte that nothing is wrong with.
const GOOD: Region = Region {
    guest_address: 1 << 41,
    size: 1 << 20,
    user_address: 1 << 42,
    mmap_offset: 0,
};

fn table(what: &str, regions: &[Region], files: Vec<OwnedFd>) -> Message {
    let table = MemoryTable {
        regions: regions.to_vec(),
    };
    message(what, Request::SetMemTable, table.bytes()).with(files)
}

fn single(what: &str, request: Request, region: Region, files: Vec<OwnedFd>) -> Message {
    message(what, request, SingleRegion::new(region).bytes().to_vec()).with(files)
}

pub(super) fn memory() -> Result<Vec<Message>> {
    let file = || File::Memfd.make(1 << 20);
    let mut all = Vec::new();
    let one = [
        ("a region of no bytes", Region { size: 0, ..GOOD }),
        (
            "a region longer than its file",
            Region {
                size: (1 << 20) + 1,
                ..GOOD
            },
        ),
        (
            "a region of all addresses",
            Region {
                size: u64::MAX,
                ..GOOD
            },
        ),
        (
            "guest addresses around the end",
            Region {
                guest_address: u64::MAX - 4096,
                ..GOOD
            },
        ),
        (
            "user addresses around the end",
            Region {
                user_address: u64::MAX - 4096,
                ..GOOD
            },
        ),
        (
            "an offset around the end",
            Region {
                mmap_offset: u64::MAX - 4096,
                ..GOOD
            },
        ),
        (
            "an offset after the end of the file",
            Region {
                mmap_offset: 1 << 20,
                ..GOOD
            },
        ),
        (
            "an offset in the upper half",
            Region {
                mmap_offset: 1 << 63,
                ..GOOD
            },
        ),
    ];
    for (what, region) in one {
        all.push(table(what, &[region], vec![file()?]));
        all.push(single(what, Request::AddMemReg, region, vec![file()?]));
    }
    let beside = Region {
        guest_address: GOOD.guest_address + GOOD.size,
        user_address: GOOD.user_address + GOOD.size,
        ..GOOD
    };
    let two = [
        ("the same region twice", GOOD),
        (
            "guest addresses that overlap by a byte",
            Region {
                guest_address: beside.guest_address - 1,
                ..beside
            },
        ),
        (
            "user addresses that overlap by a byte",
            Region {
                user_address: beside.user_address - 1,
                ..beside
            },
        ),
        (
            "a region inside another",
            Region {
                guest_address: GOOD.guest_address + 4096,
                size: 4096,
                ..beside
            },
        ),
    ];
    for (what, second) in two {
        all.push(table(what, &[GOOD, second], vec![file()?, file()?]));
        all.push(table(what, &[second, GOOD], vec![file()?, file()?]));
    }
    // One that the running guest has.
    let taken = Region {
        guest_address: BODY,
        user_address: USER + BODY,
        ..GOOD
    };
    all.push(single(
        "a region that is there",
        Request::AddMemReg,
        taken,
        vec![file()?],
    ));
    all.push(single(
        "a region that is not there",
        Request::RemMemReg,
        GOOD,
        Vec::new(),
    ));
    let (guest_address, size) = REGIONS[0];
    let half = Region {
        guest_address,
        size: size / 2,
        user_address: USER + guest_address,
        mmap_offset: 0,
    };
    all.push(single(
        "half a region to be removed",
        Request::RemMemReg,
        half,
        Vec::new(),
    ));
    all.push(table("a table of no region", &[], Vec::new()));
    for (count, files) in [(1, 0), (1, 2), (2, 1), (8, 7), (7, 8)] {
        let regions = (0..count).map(|n| Region {
            guest_address: n << 30,
            user_address: n << 30,
            ..GOOD
        });
        let what = format!("{count} regions and {files} files");
        let files = (0..files).map(|_| file()).collect::<Result<_>>()?;
        all.push(table(&what, &regions.collect::<Vec<_>>(), files).ends());
    }
    all.push(single("a region and no file", Request::AddMemReg, GOOD, Vec::new()).ends());
    all.push(
        single(
            "a region and two files",
            Request::AddMemReg,
            GOOD,
            vec![file()?, file()?],
        )
        .ends(),
    );
    for (what, other) in others()? {
        all.push(single(what, Request::AddMemReg, GOOD, vec![other]));
    }
    let read_only = open(
        format!("/proc/self/fd/{}", file()?.as_raw_fd()),
        OFlags::RDONLY | OFlags::CLOEXEC,
        Mode::empty(),
    );
    if let Ok(read_only) = read_only {
        all.push(single(
            "memory that cannot be written",
            Request::AddMemReg,
            GOOD,
            vec![read_only],
        ));
    }
    Ok(all)
}

pub(super) fn logs() -> Result<Vec<Message>> {
    let log = |size, offset| LogArea { size, offset }.bytes().to_vec();
    let request = Request::SetLogBase;
    let file = || File::Memfd.make(4096);
    let mut all = vec![
        message("a log without a file", request, log(4096, 0)).ends(),
        message("a log with two files", request, log(4096, 0))
            .with(vec![file()?, file()?])
            .ends(),
    ];
    for (what, size, offset) in [
        ("a log of no bytes", 0, 0),
        ("a log longer than its file", 4097, 0),
        ("a log that ends outside its file", 4096, 1),
        ("a log after its file", 8, 1 << 40),
        ("a log around the end", 4096, u64::MAX - 8),
        ("a log of all bytes", u64::MAX, 0),
    ] {
        all.push(message(what, request, log(size, offset)).with(vec![file()?]));
    }
    for (what, other) in others()? {
        all.push(message(format!("a log in {what}"), request, log(4096, 0)).with(vec![other]));
    }
    Ok(all)
}
