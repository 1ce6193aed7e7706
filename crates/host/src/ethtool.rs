//! Features of network interfaces, as `ethtool -k` shows them (linux/ethtool.h).

use std::{ffi::c_void, io, os::fd::AsRawFd};

use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

const SIOCETHTOOL: libc::Ioctl = 0x8946;
const GET_STRINGS: u32 = 0x1b;
const GET_STRING_COUNTS: u32 = 0x37;
const GET_FEATURES: u32 = 0x3a;
/// ETH_SS_FEATURES.
const FEATURES: u32 = 4;
/// ETH_GSTRING_LEN.
const NAME: usize = 32;

/// `struct ifreq` with a pointer.
#[repr(C)]
struct Request {
    name: [u8; libc::IFNAMSIZ],
    data: *mut c_void,
    rest: [u8; 16],
}

const _: () = assert!(size_of::<Request>() == size_of::<libc::ifreq>());

/// Features of an interface of this network namespace that are off by somebody's will: it has them, and nobody asks for them. By
/// the kernel's names, such as `tx-tcp-segmentation`.
pub fn switched_off(interface: &str) -> io::Result<Vec<String>> {
    // u32 cmd, u32 reserved, u64 mask, u32 counts[].
    let mut counts = vec![GET_STRING_COUNTS, 0, 1 << FEATURES, 0, 0];
    ask(interface, &mut counts)?;
    let count = counts[4];
    // u32 cmd, u32 set, u32 count, then the names.
    let words = count as usize * NAME / size_of::<u32>();
    let mut names = vec![0; 3 + words];
    names[..3].copy_from_slice(&[GET_STRINGS, FEATURES, count]);
    ask(interface, &mut names)?;
    // u32 cmd, u32 count, then blocks of 32 features: available, requested, active, never changed.
    let blocks = count.div_ceil(32);
    let mut features = vec![0; 2 + blocks as usize * 4];
    features[..2].copy_from_slice(&[GET_FEATURES, blocks]);
    ask(interface, &mut features)?;

    let bytes: Vec<u8> = names[3..].iter().flat_map(|it| it.to_ne_bytes()).collect();
    let off = bytes.chunks_exact(NAME).enumerate().filter(|(index, _)| {
        let block = &features[2 + index / 32 * 4..][..4];
        let bit = |word: u32| word & (1 << (index % 32)) != 0;
        bit(block[0]) && !bit(block[1]) && !bit(block[2])
    });
    let named = off.map(|(_, name)| {
        let end = name.iter().position(|byte| *byte == 0).unwrap_or(NAME);
        String::from_utf8_lossy(&name[..end]).into_owned()
    });
    Ok(named.collect())
}

fn ask(interface: &str, words: &mut [u32]) -> io::Result<()> {
    let socket = socket_with(
        AddressFamily::INET,
        SocketType::DGRAM,
        SocketFlags::CLOEXEC,
        None,
    )?;
    let mut request = Request {
        name: [0; libc::IFNAMSIZ],
        data: words.as_mut_ptr().cast(),
        rest: [0; 16],
    };
    if interface.len() >= request.name.len() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    request.name[..interface.len()].copy_from_slice(interface.as_bytes());
    // SAFETY: `request` is a whole `struct ifreq`, asserted above, and its name ends with a zero, checked above. What it points to is
    // ours for the call. The kernel writes the head of each structure and as many items as its own tables have: one count was asked
    // for; `switched_off` makes room for as many names as the kernel has told it has; of features it writes as many blocks as it is
    // told there is room for.
    let done = unsafe { libc::ioctl(socket.as_raw_fd(), SIOCETHTOOL, &raw mut request) };
    match done {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}
