//! Answers that go on until somebody has enough.

use std::io;
use std::os::fd::OwnedFd;

use axum::body::{Body, Bytes};
use futures_util::stream;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::Receiver;
use tokio::sync::watch;

/// Bytes handed on at once.
const PART: usize = 64 << 10;

/// What comes out of a pipe, until it is closed or the server ends. When the client leaves, the pipe is closed.
pub(super) fn body(pipe: OwnedFd, ending: watch::Receiver<()>) -> io::Result<Body> {
    let pipe = Receiver::from_owned_fd(pipe)?;
    let parts = stream::unfold((pipe, ending), |(mut pipe, mut ending)| async move {
        let mut part = Vec::with_capacity(PART);
        let read = tokio::select! {
            read = pipe.read_buf(&mut part) => read,
            _ = ending.changed() => return None,
        };
        match read {
            Ok(0) => None,
            read => Some((read.map(|_| Bytes::from(part)), (pipe, ending))),
        }
    });
    Ok(Body::from_stream(parts))
}
