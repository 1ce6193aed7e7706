//! The ioctls, each behind a function with checked arguments. All that is unsafe about taps is here.

use std::{
    ffi::c_void,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
};

use rustix::{
    io::Errno,
    net::{AddressFamily, SocketFlags, SocketType, socket_with},
};

/// Interface flags, or the flags of TUNSETIFF.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Flags(u16);

impl Flags {
    /// A tap with the virtio-net header and without the packet information of old.
    pub(super) fn tap(multi_queue: bool) -> Self {
        let flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
        Self::low(if multi_queue {
            flags | libc::IFF_MULTI_QUEUE
        } else {
            flags
        })
    }

    pub(super) fn is_up(self) -> bool {
        self.0 & Self::low(libc::IFF_UP).0 != 0
    }

    pub(super) fn with_up(self, up: bool) -> Self {
        let bit = Self::low(libc::IFF_UP).0;
        Self(if up { self.0 | bit } else { self.0 & !bit })
    }

    /// All these flags lie in the low 16 bits, which is what `ifr_flags` holds.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    const fn low(flags: libc::c_int) -> Self {
        Self(flags as u16)
    }
}

/// `struct ifreq`: a name and a union of which each request reads or writes the first bytes.
#[repr(C, align(8))]
struct Request {
    name: [u8; libc::IFNAMSIZ],
    data: [u8; 24],
}

const _: () = assert!(size_of::<Request>() >= size_of::<libc::ifreq>());
const _: () = assert!(align_of::<Request>() >= align_of::<libc::ifreq>());

impl Request {
    /// ENODEV for names that no interface can have.
    fn new(name: &str) -> Result<Self, Errno> {
        let mut request = Self {
            name: [0; libc::IFNAMSIZ],
            data: [0; 24],
        };
        if name.is_empty() || name.len() >= libc::IFNAMSIZ || name.contains('\0') {
            return Err(Errno::NODEV);
        }
        request.name[..name.len()].copy_from_slice(name.as_bytes());
        Ok(request)
    }

    fn u16(&self) -> u16 {
        u16::from_ne_bytes([self.data[0], self.data[1]])
    }

    fn u32(&self) -> u32 {
        u32::from_ne_bytes([self.data[0], self.data[1], self.data[2], self.data[3]])
    }

    fn set_u16(&mut self, value: u16) {
        self.data[..2].copy_from_slice(&value.to_ne_bytes());
    }
}

/// Asks about the interfaces of the network namespace in which it was made.
pub(super) struct Links(OwnedFd);

impl Links {
    pub(super) fn new() -> Result<Self, Errno> {
        socket_with(
            AddressFamily::UNIX,
            SocketType::DGRAM,
            SocketFlags::CLOEXEC,
            None,
        )
        .map(Self)
    }

    pub(super) fn index(&self, name: &str) -> Result<u32, Errno> {
        self.get(libc::SIOCGIFINDEX, name)
            .map(|request| request.u32())
    }

    pub(super) fn mtu(&self, name: &str) -> Result<u32, Errno> {
        self.get(libc::SIOCGIFMTU, name)
            .map(|request| request.u32())
    }

    /// ARPHRD_* and, for Ethernet, the address.
    pub(super) fn hardware_address(&self, name: &str) -> Result<(u16, [u8; 6]), Errno> {
        let request = self.get(libc::SIOCGIFHWADDR, name)?;
        let [_, _, a, b, c, d, e, f, ..] = request.data;
        Ok((request.u16(), [a, b, c, d, e, f]))
    }

    pub(super) fn flags(&self, name: &str) -> Result<Flags, Errno> {
        self.get(libc::SIOCGIFFLAGS, name)
            .map(|request| Flags(request.u16()))
    }

    pub(super) fn set_flags(&self, name: &str, flags: Flags) -> Result<(), Errno> {
        let mut request = Request::new(name)?;
        request.set_u16(flags.0);
        with_request(self.0.as_fd(), libc::SIOCSIFFLAGS, &mut request)
    }

    /// The driver's name as `ethtool -i` prints it.
    pub(super) fn driver(&self, name: &str) -> Result<String, Errno> {
        let mut information = DriverInformation {
            command: ETHTOOL_GDRVINFO,
            driver: [0; 32],
            rest: [0; 160],
        };
        let mut request = Request::new(name)?;
        let address = (&raw mut information).cast::<c_void>().expose_provenance();
        request.data[..size_of::<usize>()].copy_from_slice(&address.to_ne_bytes());
        // SAFETY: the kernel reads and writes one `ifreq`, which `request` is at least as large as, and one `ethtool_drvinfo`,
        // whose size is pinned below, at the address just stored. Both live on this stack frame and nothing else refers to them.
        let done = unsafe {
            libc::ioctl(
                self.0.as_raw_fd(),
                libc::SIOCETHTOOL as libc::Ioctl,
                &raw mut request,
            )
        };
        check(done)?;
        let driver = information
            .driver
            .split(|&byte| byte == 0)
            .next()
            .unwrap_or_default();
        Ok(String::from_utf8_lossy(driver).into_owned())
    }

    fn get(&self, number: libc::Ioctl, name: &str) -> Result<Request, Errno> {
        let mut request = Request::new(name)?;
        with_request(self.0.as_fd(), number, &mut request)?;
        Ok(request)
    }
}

const ETHTOOL_GDRVINFO: u32 = 3;

/// `struct ethtool_drvinfo`.
#[repr(C)]
struct DriverInformation {
    command: u32,
    driver: [u8; 32],
    rest: [u8; 160],
}

const _: () = assert!(size_of::<DriverInformation>() == 196);

/// TUNSETIFF.
pub(super) fn attach(queue: BorrowedFd<'_>, name: &str, flags: Flags) -> Result<(), Errno> {
    let mut request = Request::new(name)?;
    request.set_u16(flags.0);
    with_request(queue, libc::TUNSETIFF, &mut request)
}

/// TUNSETQUEUE.
pub(super) fn set_queue(queue: BorrowedFd<'_>, attached: bool) -> Result<(), Errno> {
    let mut request = Request {
        name: [0; libc::IFNAMSIZ],
        data: [0; 24],
    };
    request.set_u16(
        Flags::low(if attached {
            libc::IFF_ATTACH_QUEUE
        } else {
            libc::IFF_DETACH_QUEUE
        })
        .0,
    );
    with_request(queue, libc::TUNSETQUEUE, &mut request)
}

/// TUNSETPERSIST.
pub(super) fn set_persistent(queue: BorrowedFd<'_>, persistent: bool) -> Result<(), Errno> {
    with_value(queue, libc::TUNSETPERSIST, libc::c_ulong::from(persistent))
}

/// TUNSETOWNER.
pub(super) fn set_owner(queue: BorrowedFd<'_>, uid: u32) -> Result<(), Errno> {
    with_value(queue, libc::TUNSETOWNER, libc::c_ulong::from(uid))
}

/// TUNSETGROUP.
pub(super) fn set_group(queue: BorrowedFd<'_>, gid: u32) -> Result<(), Errno> {
    with_value(queue, libc::TUNSETGROUP, libc::c_ulong::from(gid))
}

/// TUNSETOFFLOAD with `TUN_F_*` bits.
pub(super) fn set_offload(queue: BorrowedFd<'_>, bits: u32) -> Result<(), Errno> {
    with_value(queue, libc::TUNSETOFFLOAD, libc::c_ulong::from(bits))
}

/// TUNSETVNETHDRSZ.
pub(super) fn set_header_size(queue: BorrowedFd<'_>, bytes: i32) -> Result<(), Errno> {
    with_int(queue, libc::TUNSETVNETHDRSZ, bytes)
}

/// TUNSETVNETLE.
pub(super) fn set_little_endian(queue: BorrowedFd<'_>) -> Result<(), Errno> {
    with_int(queue, libc::TUNSETVNETLE, 1)
}

/// TUNSETSNDBUF.
pub(super) fn set_send_buffer(queue: BorrowedFd<'_>, bytes: i32) -> Result<(), Errno> {
    with_int(queue, libc::TUNSETSNDBUF, bytes)
}

/// For requests that take a `struct ifreq` without pointers in it.
fn with_request(
    fd: BorrowedFd<'_>,
    number: libc::Ioctl,
    request: &mut Request,
) -> Result<(), Errno> {
    // SAFETY: the callers, all in this file, pass only requests that read or write one `ifreq`, which `request` is at least as
    // large and as aligned as (asserted above); it is borrowed mutably for the call.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), number, std::ptr::from_mut(request)) })
}

/// For requests that take a pointer to an `int`.
fn with_int(fd: BorrowedFd<'_>, number: libc::Ioctl, mut value: libc::c_int) -> Result<(), Errno> {
    // SAFETY: the callers, all in this file, pass only requests that read one `int`; `value` outlives the call.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), number, &raw mut value) })
}

/// For requests whose argument is the value itself.
fn with_value(fd: BorrowedFd<'_>, number: libc::Ioctl, value: libc::c_ulong) -> Result<(), Errno> {
    // SAFETY: the callers, all in this file, pass only requests that take their argument by value and touch no memory of ours.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), number, value) })
}

fn check(done: libc::c_int) -> Result<(), Errno> {
    if done < 0 {
        let error = std::io::Error::last_os_error();
        return Err(Errno::from_io_error(&error).unwrap_or(Errno::IO));
    }
    Ok(())
}
