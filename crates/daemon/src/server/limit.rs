//! How many connections a user may have: whoever only looks must not use up the daemon's descriptors.

use std::{
    collections::HashMap,
    io::{self, IoSlice},
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
};

use axum::serve::Listener;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{UnixListener, UnixStream},
};

/// Connections of one user at a time; a command has one.
pub(super) const PER_USER: usize = 64;

/// Accepts connections, and closes those that are too many for their user.
#[derive(Debug)]
pub(super) struct Limited {
    listener: UnixListener,
    open: Open,
}

/// Connections by user.
type Open = Arc<Mutex<HashMap<u32, usize>>>;

/// A connection, and whose it is.
#[derive(Debug)]
pub(super) struct Connection {
    stream: UnixStream,
    user: u32,
    open: Open,
}

impl Limited {
    pub(super) fn new(listener: UnixListener) -> Self {
        Self {
            listener,
            open: Open::default(),
        }
    }

    /// `None` for one too many. The user is who connected, as the kernel recorded it (SO_PEERCRED).
    fn admit(&self, stream: UnixStream) -> Option<Connection> {
        let user = stream.peer_cred().ok()?.uid();
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let count = open.entry(user).or_default();
        if *count >= PER_USER {
            return None;
        }
        *count += 1;
        Some(Connection {
            stream,
            user,
            open: self.open.clone(),
        })
    }
}

impl Listener for Limited {
    type Io = Connection;
    type Addr = ();

    async fn accept(&mut self) -> (Connection, ()) {
        loop {
            // Errors, such as too many open files, are dealt with in there.
            let (stream, _) = Listener::accept(&mut self.listener).await;
            if let Some(connection) = self.admit(stream) {
                return (connection, ());
            }
        }
    }

    fn local_addr(&self) -> io::Result<()> {
        Ok(())
    }
}

impl Connection {
    pub(super) fn user(&self) -> u32 {
        self.user
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = open.get_mut(&self.user) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.user);
            }
        }
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
