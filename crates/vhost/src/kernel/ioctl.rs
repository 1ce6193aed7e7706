//! Requests of linux/vhost.h, and the structures they take.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use ringway_mem::GuestMemory;

use super::{KernelError, KernelRing};

/// `_IOR`, `_IOW` and `_IO` of vhost's type, 0xaf.
const GET_FEATURES: libc::c_ulong = 0x8008_af00;
const SET_FEATURES: libc::c_ulong = 0x4008_af00;
const SET_OWNER: libc::c_ulong = 0xaf01;
const SET_MEM_TABLE: libc::c_ulong = 0x4008_af03;
const SET_VRING_NUM: libc::c_ulong = 0x4008_af10;
const SET_VRING_ADDR: libc::c_ulong = 0x4028_af11;
const SET_VRING_BASE: libc::c_ulong = 0x4008_af12;
const SET_VRING_KICK: libc::c_ulong = 0x4008_af20;
const SET_VRING_CALL: libc::c_ulong = 0x4008_af21;
const NET_SET_BACKEND: libc::c_ulong = 0x4008_af30;

/// `struct vhost_memory` with one region.
#[repr(C)]
struct Memory {
    regions: u32,
    padding: u32,
    guest_address: u64,
    size: u64,
    user_address: u64,
    flags: u64,
}

/// `struct vhost_vring_state`.
#[repr(C)]
struct State {
    index: u32,
    number: u32,
}

/// `struct vhost_vring_addr`.
#[repr(C)]
struct Addresses {
    index: u32,
    flags: u32,
    descriptors: u64,
    used: u64,
    available: u64,
    log: u64,
}

/// `struct vhost_vring_file`.
#[repr(C)]
struct File {
    index: u32,
    fd: i32,
}

const _: () = assert!(size_of::<Addresses>() == 0x28 && size_of::<Memory>() == 40);

pub(super) fn set_owner(device: BorrowedFd<'_>) -> Result<(), KernelError> {
    // SAFETY: VHOST_SET_OWNER takes no argument; the null pointer is not looked at.
    let done = unsafe { request(device, SET_OWNER, std::ptr::null::<u64>()) };
    named("VHOST_SET_OWNER", done)
}

pub(super) fn features(device: BorrowedFd<'_>) -> Result<u64, KernelError> {
    let mut features = 0_u64;
    // SAFETY: VHOST_GET_FEATURES writes a u64, for which the variable has room and to which nothing else points.
    let done = unsafe { request(device, GET_FEATURES, &raw mut features) };
    named("VHOST_GET_FEATURES", done)?;
    Ok(features)
}

pub(super) fn set_features(device: BorrowedFd<'_>, features: u64) -> Result<(), KernelError> {
    // SAFETY: VHOST_SET_FEATURES reads a u64.
    let done = unsafe { request(device, SET_FEATURES, &raw const features) };
    named("VHOST_SET_FEATURES", done)
}

/// Tells the kernel of the first region, which is all there is of a memory of our own.
pub(super) fn set_memory(device: BorrowedFd<'_>, memory: &GuestMemory) -> Result<(), KernelError> {
    let region = memory.regions().next();
    let (guest_address, size, user_address) = region.map_or((0, 0, 0), |region| {
        (region.guest_address, region.size, region.user_address)
    });
    let table = Memory {
        regions: 1,
        padding: 0,
        guest_address,
        size,
        user_address,
        flags: 0,
    };
    // SAFETY: VHOST_SET_MEM_TABLE reads a header and as many regions as it names, one here, which follows it in the structure. What
    // lies at the addresses is mapped for as long as a backend is set: `KernelDevice` keeps it.
    let done = unsafe { request(device, SET_MEM_TABLE, &raw const table) };
    named("VHOST_SET_MEM_TABLE", done)
}

pub(super) fn set_ring(
    device: BorrowedFd<'_>,
    index: u32,
    ring: &KernelRing<'_>,
) -> Result<(), KernelError> {
    let layout = &ring.layout;
    let state = |number| State { index, number };
    let file = |fd: BorrowedFd<'_>| File {
        index,
        fd: fd.as_raw_fd(),
    };
    let addresses = Addresses {
        index,
        flags: 0,
        descriptors: layout.descriptors,
        used: layout.used,
        available: layout.available,
        log: 0,
    };
    let (size, base) = (state(layout.size.into()), state(0));
    let (kick, call) = (file(ring.kick), file(ring.call));
    // SAFETY: each of these reads the structure that linux/vhost.h names for it, of which the type is a copy. The ring's addresses are
    // looked at by the kernel as those of a user are: what is not mapped is an error there.
    unsafe {
        named(
            "VHOST_SET_VRING_NUM",
            request(device, SET_VRING_NUM, &raw const size),
        )?;
        named(
            "VHOST_SET_VRING_BASE",
            request(device, SET_VRING_BASE, &raw const base),
        )?;
        named(
            "VHOST_SET_VRING_ADDR",
            request(device, SET_VRING_ADDR, &raw const addresses),
        )?;
        named(
            "VHOST_SET_VRING_KICK",
            request(device, SET_VRING_KICK, &raw const kick),
        )?;
        named(
            "VHOST_SET_VRING_CALL",
            request(device, SET_VRING_CALL, &raw const call),
        )
    }
}

/// The tap's queue behind a ring, none to disconnect it.
pub(super) fn set_backend(
    device: BorrowedFd<'_>,
    index: u32,
    tap: Option<BorrowedFd<'_>>,
) -> Result<(), KernelError> {
    let file = File {
        index,
        fd: tap.map_or(-1, |tap| tap.as_raw_fd()),
    };
    // SAFETY: VHOST_NET_SET_BACKEND reads a `struct vhost_vring_file`.
    let done = unsafe { request(device, NET_SET_BACKEND, &raw const file) };
    named("VHOST_NET_SET_BACKEND", done)
}

/// # Safety
///
/// `argument` must be what the request `number` of a vhost device reads or writes.
unsafe fn request<T>(
    device: BorrowedFd<'_>,
    number: libc::c_ulong,
    argument: *const T,
) -> io::Result<()> {
    // SAFETY: the caller promises the argument; the descriptor is open for as long as it is borrowed.
    let done = unsafe { libc::ioctl(device.as_raw_fd(), number, argument) };
    if done < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

fn named(request: &'static str, done: io::Result<()>) -> Result<(), KernelError> {
    done.map_err(|source| KernelError::Request { request, source })
}
