//! Waiting until a descriptor has something to say, within a tokio runtime.

use std::io;
use std::os::fd::OwnedFd;

use tokio::io::unix::AsyncFd;

use crate::packet::PacketSocket;

/// A descriptor that can be waited for; it should not block.
pub fn watch(descriptor: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an OwnedFd's number is the same and open until it is dropped, which AsyncFd does after taking it off its list.
    unsafe { AsyncFd::register(descriptor) }.map_err(Into::into)
}

/// A packet socket that can be waited for.
pub fn watch_packets(socket: PacketSocket) -> io::Result<AsyncFd<PacketSocket>> {
    // SAFETY: the socket holds one OwnedFd all its life and lends it alone; see `watch`.
    unsafe { AsyncFd::register(socket) }.map_err(Into::into)
}
