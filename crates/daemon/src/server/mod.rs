//! The API: HTTP on a unix socket.
//!
//! What is asked is checked here for its form and for who asks; what it means is the daemon's business ([`Operations`]). A change
//! that was begun is ended, whether or not its client waits for the answer.

mod limit;
mod operations;
mod peer;
mod read;
mod refusal;
mod routes;
mod stream;

use std::{
    fs::DirBuilder,
    io,
    os::unix::{fs::DirBuilderExt, net::UnixListener as StdListener},
    path::{Path, PathBuf},
    pin::pin,
    sync::Arc,
    time::Duration,
};

use ringway_api::socket::{self, SocketError};
use tokio::{
    net::UnixListener,
    sync::{RwLock, oneshot, watch},
    time::timeout,
};

use limit::Limited;
use peer::Peer;

pub use operations::Operations;

/// For the owner and the socket's group; who of them may change things is decided for each request.
const MODE: u32 = 0o660;

/// How long clients that are in the middle of a request are waited for at the end.
const GRACE: Duration = Duration::from_secs(5);

/// How long changes under way are waited for at the end; each is bounded by its own steps on the host.
const CHANGES: Duration = Duration::from_secs(60);

/// The API's socket, and later its server.
#[derive(Debug)]
pub struct Server {
    listener: UnixListener,
    path: PathBuf,
    grace: Duration,
}

impl Server {
    /// Listens at `path`, whose directory is made if it is missing. Nobody is answered before [`serve`](Self::serve). To be called
    /// within a runtime.
    pub fn listen(path: &Path, group: Option<&str>) -> Result<Self, SocketError> {
        if let Some(directory) = path.parent().filter(|directory| !directory.exists()) {
            // What goes wrong here is said by the socket, with the way out.
            let _ = DirBuilder::new()
                .recursive(true)
                .mode(0o755)
                .create(directory);
        }
        let listener = StdListener::from(socket::listen(path, MODE, group)?);
        let listener = UnixListener::from_std(listener).map_err(|error| SocketError::Other {
            path: path.into(),
            action: "waiting for clients",
            error,
        })?;
        Ok(Self {
            listener,
            path: path.into(),
            grace: GRACE,
        })
    }

    /// Answers until `end`; then ends what was begun and removes the socket.
    pub async fn serve(
        self,
        daemon: impl Operations,
        end: impl Future<Output = ()> + Send + 'static,
    ) -> io::Result<()> {
        let changes = Arc::new(RwLock::new(()));
        let (streaming, ending) = watch::channel(());
        let router = routes::router(daemon, changes.clone(), ending);
        let service = router.into_make_service_with_connect_info::<Peer>();
        let (ending, ended) = oneshot::channel();
        let serving =
            axum::serve(Limited::new(self.listener), service).with_graceful_shutdown(async move {
                end.await;
                drop(streaming);
                let _ = ending.send(());
            });
        let mut serving = pin!(serving.into_future());
        let done = tokio::select! {
            done = &mut serving => done,
            // Whoever holds a connection open without asking anything must not hold the daemon.
            Ok(()) = ended => timeout(self.grace, serving).await.unwrap_or(Ok(())),
        };
        if timeout(CHANGES, changes.write()).await.is_err() {
            tracing::warn!("a change is still under way after {CHANGES:?}; it is given up");
        }
        // Unless another daemon listens there by now.
        let _ = socket::remove_unused(&self.path);
        done
    }
}

#[cfg(test)]
mod tests;
