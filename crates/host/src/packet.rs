//! Whole frames from and to an interface, of the kinds that DHCP needs: a packet socket with a filter in the kernel.

use std::ffi::c_int;
use std::io;
use std::mem::{size_of, zeroed};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use rustix::net::netdevice::name_to_index;

/// Longest frame received; DHCP fits into 1500 bytes, and what is longer is cut off.
pub const LONGEST: usize = 2048;

/// Bytes that may wait, as the kernel counts them: about 4000 requests, while leases are written to a slow disk.
const WAITING: c_int = 4 << 20;

/// `struct sock_filter` for what is sent to UDP port 67 over IPv4, unfragmented, and for ARP; nothing that we send.
const FILTER: [libc::sock_filter; 14] = [
    // Which way: the offset is SKF_AD_OFF + SKF_AD_PKTTYPE (linux/filter.h), the value PACKET_OUTGOING.
    op(0x30, 0, 0, 0xffff_f004),
    op(0x15, 11, 0, 4),
    op(0x28, 0, 0, 12),
    op(0x15, 8, 0, 0x0806),
    op(0x15, 0, 8, 0x0800),
    op(0x30, 0, 0, 23),
    op(0x15, 0, 6, 17),
    op(0x28, 0, 0, 20),
    op(0x45, 4, 0, 0x1fff),
    op(0xb1, 0, 0, 14),
    op(0x48, 0, 0, 16),
    op(0x15, 0, 1, 67),
    op(0x06, 0, 0, 0x0004_0000),
    op(0x06, 0, 0, 0),
];

const fn op(code: u16, jt: u8, jf: u8, k: u32) -> libc::sock_filter {
    libc::sock_filter { code, jt, jf, k }
}

/// A packet socket on one interface. It does not block.
#[derive(Debug)]
pub struct PacketSocket {
    socket: OwnedFd,
}

/// A frame that was received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// Its length in the buffer.
    pub len: usize,
    /// Whether its transport checksum covers the pseudo header alone, as a guest sends it that leaves the rest to the NIC.
    pub partial_checksum: bool,
}

impl PacketSocket {
    /// Opens one. Needs CAP_NET_RAW.
    pub fn open(interface: &str) -> io::Result<Self> {
        let flags = libc::SOCK_RAW | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
        // SAFETY: no pointers. Protocol 0: nothing arrives before the filter is there and the socket bound.
        let raw = check(unsafe { libc::socket(libc::AF_PACKET, flags, 0) })?;
        // SAFETY: the kernel just made it, nobody else has it.
        let socket = unsafe { OwnedFd::from_raw_fd(raw) };
        let index = name_to_index(&socket, interface)?;
        let mut filter = FILTER;
        let program = libc::sock_fprog {
            len: 14,
            filter: filter.as_mut_ptr(),
        };
        set(raw, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &program)?;
        set(raw, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, &WAITING)?;
        let on: c_int = 1;
        set(raw, libc::SOL_PACKET, libc::PACKET_AUXDATA, &on)?;
        // SAFETY: all zero is a value of this plain C structure.
        let mut address: libc::sockaddr_ll = unsafe { zeroed() };
        address.sll_family = u16::try_from(libc::AF_PACKET).map_err(io::Error::other)?;
        let all = u16::try_from(libc::ETH_P_ALL).map_err(io::Error::other)?;
        address.sll_protocol = all.to_be();
        address.sll_ifindex =
            i32::try_from(index).map_err(|_| io::Error::from_raw_os_error(libc::ENODEV))?;
        let len = length_of::<libc::sockaddr_ll>()?;
        // SAFETY: the address lives through the call and its length is its own.
        check(unsafe { libc::bind(raw, (&raw const address).cast(), len) })?;
        Ok(Self { socket })
    }

    /// The next frame; [`io::ErrorKind::WouldBlock`] if there is none.
    pub fn receive(&self, buffer: &mut [u8]) -> io::Result<Received> {
        let mut part = libc::iovec {
            iov_base: buffer.as_mut_ptr().cast(),
            iov_len: buffer.len(),
        };
        // u64: aligned as `cmsghdr` has to be; room for one `tpacket_auxdata`.
        let mut control = [0u64; 8];
        // SAFETY: all zero is a value of this plain C structure.
        let mut message: libc::msghdr = unsafe { zeroed() };
        message.msg_iov = &raw mut part;
        message.msg_iovlen = 1;
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = size_of_val(&control);
        // SAFETY: `message` points to the buffer and the control room, with their true lengths; both live through the call.
        let len = unsafe { libc::recvmsg(self.socket.as_raw_fd(), &raw mut message, 0) };
        let len = usize::try_from(len).map_err(|_| io::Error::last_os_error())?;
        let mut partial_checksum = false;
        // SAFETY: the kernel filled in `message`, whose control room is valid; the macro checks it against its length.
        let header = unsafe { libc::CMSG_FIRSTHDR(&raw const message) };
        // SAFETY: null, or a header inside the control room.
        if let Some(header) = unsafe { header.as_ref() }
            && (header.cmsg_level, header.cmsg_type) == (libc::SOL_PACKET, libc::PACKET_AUXDATA)
            && header.cmsg_len >= size_of::<libc::cmsghdr>() + size_of::<libc::tpacket_auxdata>()
        {
            // SAFETY: a message of this kind and length holds this structure, as just checked; it may lie anywhere.
            let data = unsafe {
                libc::CMSG_DATA(header)
                    .cast::<libc::tpacket_auxdata>()
                    .read_unaligned()
            };
            partial_checksum = data.tp_status & libc::TP_STATUS_CSUMNOTREADY != 0;
        }
        Ok(Received {
            len,
            partial_checksum,
        })
    }

    /// Sends a whole frame.
    pub fn send(&self, frame: &[u8]) -> io::Result<()> {
        rustix::net::send(&self.socket, frame, rustix::net::SendFlags::empty())?;
        Ok(())
    }
}

impl AsFd for PacketSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl AsRawFd for PacketSocket {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

fn set<T>(socket: RawFd, level: c_int, option: c_int, value: &T) -> io::Result<()> {
    let len = length_of::<T>()?;
    // SAFETY: the value lives through the call and its length is its own; each caller's type is the one its option takes.
    let done =
        unsafe { libc::setsockopt(socket, level, option, std::ptr::from_ref(value).cast(), len) };
    check(done).map(drop)
}

/// Of a structure, as the kernel takes it.
fn length_of<T>() -> io::Result<u32> {
    u32::try_from(size_of::<T>()).map_err(io::Error::other)
}

fn check(result: c_int) -> io::Result<c_int> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}
