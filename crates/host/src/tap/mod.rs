//! Taps of the host: opened for a switch, made and removed for tests.
//!
//! A tap is looked at before it is opened, because the kernel makes a missing one for whoever has the right, and answers a tun,
//! a single-queue tap and a wrong flag with the same EINVAL. Everything is asked by ioctl and so holds for the network namespace
//! of the calling thread; /sys and /proc only add who owns or holds a tap to the text of an error.

mod error;
mod hints;
mod ioctl;
mod macvtap;
#[cfg(test)]
mod tests;

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use rustix::{
    fs::{Mode, OFlags},
    io::Errno,
};

pub use error::TapError;
use ioctl::{Flags, Links};
pub use macvtap::own as own_macvtap;

/// Most queues of a tap: the kernel's MAX_TAP_QUEUES.
pub const MAX_QUEUES: u16 = 256;
/// Bytes of the virtio-net header before each frame, `num_buffers` included.
pub const HEADER: i32 = 12;

/// A tap with its queues open: non-blocking, close-on-exec, a 12-byte little-endian virtio-net header before each frame.
#[derive(Debug)]
pub struct Tap {
    /// Its interface name.
    pub name: String,
    /// One descriptor per queue.
    pub queues: Vec<OwnedFd>,
    /// Largest frame without its Ethernet header.
    pub mtu: u32,
    /// The host's address on the tap.
    pub mac: [u8; 6],
    /// Whether the tap can have more than one queue.
    pub multi_queue: bool,
}

/// Which frames the kernel may hand out unfinished; see `TUN_F_*` in linux/if_tun.h.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Offloads {
    /// With partial checksums.
    pub csum: bool,
    /// Longer than the MTU, TCP over IPv4.
    pub tso4: bool,
    /// Longer than the MTU, TCP over IPv6.
    pub tso6: bool,
    /// The same with ECN.
    pub ecn: bool,
    /// Longer than the MTU, UDP over IPv4 and IPv6; the kernel knows the two only together.
    pub uso: bool,
}

impl Offloads {
    /// Everything.
    pub const ALL: Self = Self {
        csum: true,
        tso4: true,
        tso6: true,
        ecn: true,
        uso: true,
    };

    /// Without what the kernel would refuse: segmentation needs checksums, ECN needs TSO.
    pub fn possible(self) -> Self {
        let tso4 = self.csum && self.tso4;
        let tso6 = self.csum && self.tso6;
        Self {
            csum: self.csum,
            tso4,
            tso6,
            ecn: self.ecn && (tso4 || tso6),
            uso: self.csum && self.uso,
        }
    }

    fn bits(self) -> u32 {
        let bit = |on: bool, bits: u32| if on { bits } else { 0 };
        bit(self.csum, libc::TUN_F_CSUM)
            | bit(self.tso4, libc::TUN_F_TSO4)
            | bit(self.tso6, libc::TUN_F_TSO6)
            | bit(self.ecn, libc::TUN_F_TSO_ECN)
            | bit(self.uso, libc::TUN_F_USO4 | libc::TUN_F_USO6)
    }
}

/// Opens `queues` queues of a tap that exists; none is made, and on an error none stays open.
///
/// Offloads are off and the link is left as it is; see [`set_offload`] and [`check_up`].
pub fn open(name: &str, queues: u16) -> Result<Tap, TapError> {
    check_name(name)?;
    if !(1..=MAX_QUEUES).contains(&queues) {
        return Err(TapError::QueueCount {
            name: name.to_owned(),
            queues,
            limit: MAX_QUEUES,
        });
    }
    let links = links(name)?;
    let index = find(&links, name, queues)?;
    let (first, multi_queue) = open_first(name, queues)?;
    // The tap may have been deleted since it was looked at, and the kernel have made one in its place; it goes with `first`.
    if links.index(name).ok() != Some(index) {
        return Err(TapError::missing(name, queues));
    }
    let mut opened = vec![first];
    for number in 1..queues {
        let queue = attach(name, true).map_err(|error| match error {
            Attach::Refused(Errno::TOOBIG) => TapError::QueuesTaken {
                name: name.to_owned(),
                queues,
                opened: number,
            },
            other => other.explain(name),
        })?;
        opened.push(queue);
    }
    for queue in &opened {
        set_up_queue(queue.as_fd()).map_err(|source| TapError::System {
            name: name.to_owned(),
            action: "set up",
            source,
        })?;
    }
    let about = |action| {
        move |source: Errno| TapError::System {
            name: name.to_owned(),
            action,
            source: source.into(),
        }
    };
    let mtu = links.mtu(name).map_err(about("read the MTU of"))?;
    let (_, mac) = links
        .hardware_address(name)
        .map_err(about("read the address of"))?;
    Ok(Tap {
        name: name.to_owned(),
        queues: opened,
        mtu,
        mac,
        multi_queue,
    })
}

/// Opens `queues` queues of a tap or macvtap for a VMM that is handed them (`fds=` of QEMU), which sets them up itself.
pub fn open_for_vm(name: &str, queues: u16) -> Result<Vec<OwnedFd>, TapError> {
    check_name(name)?;
    if let Some(opened) = macvtap::open(name, queues)? {
        return Ok(opened);
    }
    Ok(open(name, queues)?.queues)
}

/// Sets which unfinished frames the kernel may hand out, for the whole tap, and gives what was set: what the kernel does not know
/// (USO before Linux 6.2) and what it would refuse is left out.
pub fn set_offload(queue: BorrowedFd<'_>, wanted: Offloads) -> io::Result<Offloads> {
    let wanted = wanted.possible();
    match ioctl::set_offload(queue, wanted.bits()) {
        Err(Errno::INVAL) if wanted.uso => {
            let without = Offloads {
                uso: false,
                ..wanted
            };
            ioctl::set_offload(queue, without.bits())?;
            Ok(without)
        }
        done => Ok(done.map(|()| wanted)?),
    }
}

/// Attaches or detaches one queue of a multi-queue tap; a detached one carries nothing and can be attached again.
pub fn set_queue(queue: BorrowedFd<'_>, attached: bool) -> io::Result<()> {
    Ok(ioctl::set_queue(queue, attached)?)
}

/// Whether the interface is up; writes to a tap that is not fail with EIO.
pub fn is_up(name: &str) -> Result<bool, TapError> {
    check_name(name)?;
    match links(name)?.flags(name) {
        Ok(flags) => Ok(flags.is_up()),
        Err(Errno::NODEV) => Err(TapError::missing(name, 1)),
        Err(source) => Err(TapError::System {
            name: name.to_owned(),
            action: "read the flags of",
            source: source.into(),
        }),
    }
}

/// [`is_up`] with the sentence to say when it is not.
pub fn check_up(name: &str) -> Result<(), TapError> {
    if is_up(name)? {
        Ok(())
    } else {
        Err(TapError::LinkDown {
            name: name.to_owned(),
        })
    }
}

/// Sets the interface up or down. Needs CAP_NET_ADMIN.
pub fn set_up(name: &str, up: bool) -> Result<(), TapError> {
    check_name(name)?;
    let links = links(name)?;
    let change = || links.set_flags(name, links.flags(name)?.with_up(up));
    change().map_err(|source| match source {
        Errno::NODEV => TapError::missing(name, 1),
        source => TapError::System {
            name: name.to_owned(),
            action: "set the link state of",
            source: source.into(),
        },
    })
}

/// Makes a tap that stays until [`delete`]; with an owner only that user (and root) may open it. Needs CAP_NET_ADMIN.
pub fn create_persistent(
    name: &str,
    multi_queue: bool,
    owner: Option<u32>,
) -> Result<(), TapError> {
    create_owned(
        name,
        multi_queue,
        Owner {
            user: owner,
            group: None,
        },
    )
}

/// Who besides root may open a tap: without either everybody who has /dev/net/tun, with both only that user as a member of that group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Owner {
    /// This user.
    pub user: Option<u32>,
    /// Members of this group.
    pub group: Option<u32>,
}

/// As [`create_persistent`], for a user or a group.
pub fn create_owned(name: &str, multi_queue: bool, owner: Owner) -> Result<(), TapError> {
    check_name(name)?;
    if links(name)?.index(name).is_ok() {
        return Err(TapError::Exists {
            name: name.to_owned(),
        });
    }
    let queue = attach(name, multi_queue).map_err(|error| match error {
        Attach::Refused(Errno::PERM) => TapError::CreateDenied {
            name: name.to_owned(),
            multi_queue,
        },
        error => error.explain(name),
    })?;
    let keep = || {
        if let Some(user) = owner.user {
            ioctl::set_owner(queue.as_fd(), user)?;
        }
        if let Some(group) = owner.group {
            ioctl::set_group(queue.as_fd(), group)?;
        }
        ioctl::set_persistent(queue.as_fd(), true)
    };
    keep().map_err(|source| TapError::System {
        name: name.to_owned(),
        action: "create",
        source: source.into(),
    })
}

/// Removes a tap made by [`create_persistent`]; one that is open elsewhere goes when its last queue is closed.
pub fn delete(name: &str) -> Result<(), TapError> {
    check_name(name)?;
    let links = links(name)?;
    find(&links, name, 1)?;
    let (queue, _) = open_first(name, 1)?;
    ioctl::set_persistent(queue.as_fd(), false).map_err(|source| TapError::System {
        name: name.to_owned(),
        action: "delete",
        source: source.into(),
    })
}

fn check_name(name: &str) -> Result<(), TapError> {
    let forbidden = |c: char| matches!(c, '/' | ':' | '%') || c.is_whitespace() || c.is_control();
    if !(1..=15).contains(&name.len()) {
        return Err(TapError::NameLength {
            name: name.to_owned(),
            length: name.len(),
        });
    }
    if matches!(name, "." | "..") || name.contains(forbidden) {
        return Err(TapError::NameForm {
            name: name.to_owned(),
        });
    }
    Ok(())
}

fn links(name: &str) -> Result<Links, TapError> {
    Links::new().map_err(|source| TapError::System {
        name: name.to_owned(),
        action: "look up",
        source: source.into(),
    })
}

/// The interface's index, once it is sure to be a tap.
fn find(links: &Links, name: &str, queues: u16) -> Result<u32, TapError> {
    let about = |source: Errno| match source {
        Errno::NODEV => TapError::missing(name, queues),
        source => TapError::System {
            name: name.to_owned(),
            action: "look up",
            source: source.into(),
        },
    };
    let index = links.index(name).map_err(about)?;
    let (hardware, _) = links.hardware_address(name).map_err(about)?;
    let driver = match links.driver(name) {
        Ok(driver) => driver,
        // An interface without driver information is none of the tun driver's.
        Err(Errno::OPNOTSUPP) => "unknown".to_owned(),
        Err(source) => return Err(about(source)),
    };
    match (driver.as_str(), hardware) {
        ("tun", libc::ARPHRD_ETHER) => Ok(index),
        ("tun", _) => Err(TapError::Tun {
            name: name.to_owned(),
        }),
        _ => Err(TapError::OtherDevice {
            name: name.to_owned(),
            driver,
        }),
    }
}

/// The first queue, and whether the tap is multi-queue, which only the attempt tells.
fn open_first(name: &str, queues: u16) -> Result<(OwnedFd, bool), TapError> {
    match attach(name, queues > 1) {
        Ok(queue) => Ok((queue, queues > 1)),
        Err(Attach::Refused(Errno::INVAL)) if queues > 1 => Err(TapError::SingleQueue {
            name: name.to_owned(),
            queues,
        }),
        Err(Attach::Refused(Errno::INVAL)) => attach(name, true)
            .map(|queue| (queue, true))
            .map_err(|error| error.explain(name)),
        Err(error) => Err(error.explain(name)),
    }
}

enum Attach {
    Device(Errno),
    Refused(Errno),
}

impl Attach {
    fn explain(self, name: &str) -> TapError {
        let name = name.to_owned();
        match self {
            Self::Device(Errno::NOENT | Errno::NODEV | Errno::NXIO) => TapError::NoTunDriver,
            Self::Device(Errno::ACCESS | Errno::PERM) => TapError::TunDenied,
            Self::Device(source) => TapError::OpenTun {
                source: source.into(),
            },
            Self::Refused(Errno::BUSY) => TapError::Busy {
                holder: hints::holder(&name),
                name,
            },
            Self::Refused(Errno::PERM) => TapError::Owned {
                owner: hints::owner(&name),
                name,
            },
            Self::Refused(source) => TapError::System {
                name,
                action: "open",
                source: source.into(),
            },
        }
    }
}

fn attach(name: &str, multi_queue: bool) -> Result<OwnedFd, Attach> {
    let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let queue = rustix::fs::open("/dev/net/tun", flags, Mode::empty()).map_err(Attach::Device)?;
    ioctl::attach(queue.as_fd(), name, Flags::tap(multi_queue)).map_err(Attach::Refused)?;
    Ok(queue)
}

fn set_up_queue(queue: BorrowedFd<'_>) -> io::Result<()> {
    // Only after TUNSETIFF: before it, the kernel answers EBADFD.
    ioctl::set_header_size(queue, HEADER)?;
    ioctl::set_little_endian(queue)?;
    ioctl::set_send_buffer(queue, i32::MAX)?;
    Ok(ioctl::set_offload(queue, 0)?)
}
