//! Messages that are wrong, and what becomes of them.

use std::os::fd::OwnedFd;

use anyhow::Result;
use ringway_vhost::user::message::{
    Header, PayloadSize, Request, RequestId, VringAddress, VringState,
};
use rustix::fs::{MemfdFlags, Mode, OFlags, memfd_create, open};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

use super::crooked::{File, USER, event};

mod memory;

use memory::{logs, memory};

/// What becomes of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// The session ends.
    Ends,
    /// It is refused: a negative answer to who asked for one, the end of the session for others.
    Refused,
    /// It is refused to who asked for an answer; others go on without the ring.
    Unfit,
    /// It has a negative answer of its own.
    Answered,
}

/// One message.
pub(super) struct Message {
    pub(super) what: String,
    pub(super) header: Header,
    pub(super) payload: Vec<u8>,
    pub(super) files: Vec<OwnedFd>,
    pub(super) fate: Fate,
}

fn message(what: impl Into<String>, request: impl Into<RequestId>, payload: Vec<u8>) -> Message {
    let size = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    Message {
        what: what.into(),
        header: Header::request(request.into(), size, false),
        payload,
        files: Vec::new(),
        fate: Fate::Refused,
    }
}

impl Message {
    fn ends(mut self) -> Self {
        self.fate = Fate::Ends;
        self
    }

    fn with(mut self, files: Vec<OwnedFd>) -> Self {
        self.files = files;
        self
    }
}

/// All of them, for a guest with one queue pair whose rings run.
pub(super) fn all() -> Result<Vec<Message>> {
    let mut all = headers();
    all.extend(sizes()?);
    all.extend(rings()?);
    all.extend(descriptors()?);
    all.extend(memory()?);
    all.extend(logs()?);
    all.extend(numbers());
    Ok(all)
}

fn headers() -> Vec<Message> {
    let with_flags = |what: &str, flags| {
        let mut wrong = message(what, Request::GetFeatures, Vec::new()).ends();
        wrong.header.flags = flags;
        wrong
    };
    let mut all = vec![
        with_flags("no version", 0),
        with_flags("version 2", 2),
        with_flags("version 3", 3),
        with_flags("a reply", 5),
        with_flags("a reserved flag", 0x11),
        with_flags("the last flag", 0x8000_0001),
        with_flags("all flags", u32::MAX),
    ];
    for id in [0, 44, 255, 9999, u32::MAX] {
        all.push(message(
            format!("request {id}"),
            RequestId(id),
            vec![0xff; 16],
        ));
    }
    for id in [
        Request::SetVringEndian,
        Request::SetConfig,
        Request::PostcopyListen,
        Request::GpuSetSocket,
        Request::VringKick,
    ] {
        all.push(message(
            format!("{} is not offered", id.name()),
            id,
            vec![1; 8],
        ));
    }
    for id in [
        Request::IotlbMsg,
        Request::GetConfig,
        Request::PostcopyAdvise,
        Request::SetDeviceStateFd,
    ] {
        let mut refused = message(format!("{} is not offered", id.name()), id, vec![1; 16]);
        refused.fate = Fate::Answered;
        all.push(refused);
    }
    all
}

/// Every message that has a size, with others.
fn sizes() -> Result<Vec<Message>> {
    let mut all = Vec::new();
    for &request in Request::ALL {
        let PayloadSize::Exactly(right) = request.payload_size() else {
            continue;
        };
        for size in [0, right.wrapping_sub(1), right + 1, right + 8, 4096, 4097] {
            if size == right || size > 4097 {
                continue;
            }
            let what = format!("{} of {size} bytes", request.name());
            all.push(message(what, request, vec![0; size]).ends());
        }
        let mut huge = message(format!("{} of 4 GiB", request.name()), request, Vec::new()).ends();
        huge.header.size = u32::MAX;
        all.push(huge);
    }
    for (what, count, bytes) in [
        ("a table that counts one region too many", 2_u32, 32),
        ("a table that counts one region too few", 1, 64),
        ("a table of half a region", 1, 16),
        ("a table that counts 4 billion regions", u32::MAX, 32),
    ] {
        let mut payload = [count.to_ne_bytes(), [0; 4]].concat();
        payload.resize(8 + bytes, 0);
        let files = (0..bytes / 32).map(|_| File::Memfd.make(4096));
        let files = files.collect::<Result<_>>()?;
        all.push(
            message(what, Request::SetMemTable, payload)
                .with(files)
                .ends(),
        );
    }
    Ok(all)
}

fn state(index: u32, num: u32) -> Vec<u8> {
    VringState { index, num }.bytes().to_vec()
}

fn word(number: u64) -> Vec<u8> {
    number.to_ne_bytes().to_vec()
}

fn address(index: u32, flags: u32, parts: [u64; 3]) -> Vec<u8> {
    let [descriptors, available, used] = parts;
    let address = VringAddress {
        index,
        flags,
        descriptors,
        used,
        available,
        log: 0,
    };
    address.bytes().to_vec()
}

/// Indices that are no ring's, and rings that cannot be.
fn rings() -> Result<Vec<Message>> {
    let good = [USER + 0x8_0000, USER + 0x8_1000, USER + 0x8_2000];
    let mut all = Vec::new();
    // 256 and 65536 are 0 once they are narrowed.
    for index in [2, 3, 128, 255, 256, 257, 65536, 65537, u32::MAX] {
        for request in [
            Request::SetVringNum,
            Request::SetVringBase,
            Request::SetVringEnable,
        ] {
            let what = format!("{} of ring {index}", request.name());
            all.push(message(what, request, state(index, 1)));
        }
        let what = format!("SET_VRING_ADDR of ring {index}");
        all.push(message(
            what,
            Request::SetVringAddr,
            address(index, 0, good),
        ));
        // Its answer names a ring that is there.
        let what = format!("GET_VRING_BASE of ring {index}");
        all.push(message(what, Request::GetVringBase, state(index, 0)).ends());
    }
    for number in [2, 255, 1 << 9, 1 << 32, 1 << 63, !0x1ff] {
        for request in [
            Request::SetVringKick,
            Request::SetVringCall,
            Request::SetVringErr,
        ] {
            let what = format!("{} {number:#x}", request.name());
            all.push(message(what, request, word(number)).with(vec![event()?]));
        }
    }
    for size in [0, 32769, 65536, 65600, 1 << 31, u32::MAX] {
        let what = format!("a ring of {size} descriptors");
        all.push(message(what, Request::SetVringNum, state(0, size)));
    }
    for (what, parts) in [
        (
            "descriptors that are no memory",
            [1 << 40, good[1], good[2]],
        ),
        (
            "a ring around the end of addresses",
            [good[0], u64::MAX - 3, good[2]],
        ),
        ("a ring in a gap", [good[0], good[1], USER + (3 << 20)]),
        (
            "a ring over the end of its region",
            [USER + (2 << 20) - 16, good[1], good[2]],
        ),
        (
            "descriptors that are not aligned",
            [good[0] + 8, good[1], good[2]],
        ),
        (
            "a used ring that is not aligned",
            [good[0], good[1], good[2] + 1],
        ),
    ] {
        let mut unfit = message(what, Request::SetVringAddr, address(0, 0, parts));
        unfit.fate = Fate::Unfit;
        all.push(unfit);
    }
    for flags in [2, 3, u32::MAX] {
        let what = format!("SET_VRING_ADDR with flags {flags:#x}");
        all.push(message(
            what,
            Request::SetVringAddr,
            address(0, flags, good),
        ));
    }
    for value in [2, 256, u32::MAX] {
        let what = format!("a ring enabled {value} times");
        all.push(message(what, Request::SetVringEnable, state(0, value)));
    }
    Ok(all)
}

/// Descriptors that are missing, too many, or of another kind.
fn descriptors() -> Result<Vec<Message>> {
    let events = |count: usize| (0..count).map(|_| event()).collect::<Result<Vec<_>>>();
    let mut all = Vec::new();
    for request in [
        Request::SetVringKick,
        Request::SetVringCall,
        Request::SetVringErr,
    ] {
        let name = request.name();
        let with = |what: &str, number, files| {
            message(format!("{name}: {what}"), request, word(number)).with(files)
        };
        all.push(with("no descriptor", 0, Vec::new()).ends());
        all.push(with("two descriptors", 0, events(2)?).ends());
        all.push(with("eight descriptors", 0, events(8)?).ends());
        all.push(with("a descriptor that is not announced", 1 << 8, events(1)?).ends());
        for (what, file) in others()? {
            all.push(with(what, 0, vec![file]));
        }
    }
    for request in [
        Request::GetFeatures,
        Request::SetVringNum,
        Request::SetOwner,
        Request::GetVringBase,
    ] {
        let payload = match request {
            Request::SetVringNum | Request::GetVringBase => state(0, 64),
            _ => Vec::new(),
        };
        for count in [1, 8] {
            let what = format!("{} with {count} descriptors", request.name());
            all.push(
                message(what, request, payload.clone())
                    .with(events(count)?)
                    .ends(),
            );
        }
    }
    let request = Request::SetBackendReqFd;
    all.push(message("no socket for requests", request, Vec::new()).ends());
    all.push(message("a file for requests", request, Vec::new()).with(vec![File::Memfd.make(1)?]));
    all.push(message("an eventfd for requests", request, Vec::new()).with(events(1)?));
    Ok(all)
}

/// Descriptors that are no eventfds.
fn others() -> Result<Vec<(&'static str, OwnedFd)>> {
    let device = |path: &str| open(path, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty());
    let (socket, _) = socketpair(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        None,
    )?;
    let (pipe, _) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    let timer = rustix::time::timerfd_create(
        rustix::time::TimerfdClockId::Monotonic,
        rustix::time::TimerfdFlags::CLOEXEC,
    )?;
    Ok(vec![
        ("a device", device("/dev/null")?),
        (
            "a folder",
            open("/", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?,
        ),
        (
            "a path",
            open("/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?,
        ),
        (
            "a memory file",
            memfd_create("[eventfd]", MemfdFlags::CLOEXEC)?,
        ),
        ("a socket", socket),
        ("a pipe", pipe),
        ("a timer", timer),
        (
            "an epoll",
            rustix::event::epoll::create(rustix::event::epoll::CreateFlags::CLOEXEC)?,
        ),
    ])
}

fn numbers() -> Vec<Message> {
    let set = |what: &str, request, number| message(what, request, word(number));
    vec![
        set(
            "features that were not offered",
            Request::SetFeatures,
            u64::MAX,
        ),
        set("other features while rings run", Request::SetFeatures, 0),
        set(
            "protocol features that were not offered",
            Request::SetProtocolFeatures,
            u64::MAX,
        ),
        set("an MTU of nothing", Request::NetSetMtu, 0),
        set("an MTU below any", Request::NetSetMtu, 67),
        set("an MTU above any", Request::NetSetMtu, 65536),
        set("an MTU of all bits", Request::NetSetMtu, u64::MAX),
        set("a status of nine bits", Request::SetStatus, 256),
        set("a status of all bits", Request::SetStatus, u64::MAX),
    ]
}
