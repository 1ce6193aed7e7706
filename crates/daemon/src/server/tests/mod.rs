//! The server over a real socket, with a daemon that writes down what it is asked.

mod double;
mod requests;

use std::{
    fs,
    os::unix::fs::{FileTypeExt, PermissionsExt},
    path::PathBuf,
};

use ringway_api::v1::client::Client;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
    task::JoinHandle,
};

use super::*;
use double::Double;

/// A server for a test; its directory goes with its value.
struct Served {
    directory: PathBuf,
    daemon: Double,
    end: Option<oneshot::Sender<()>>,
    server: JoinHandle<io::Result<()>>,
}

impl Served {
    fn new(name: &str) -> Self {
        let directory = std::env::temp_dir().join(format!("rw-api-{name}-{}", std::process::id()));
        let server = Server {
            grace: Duration::from_millis(100),
            ..Server::listen(&directory.join("api.sock"), None).unwrap()
        };
        let daemon = Double::default();
        let (end, ended) = oneshot::channel();
        let serving = server.serve(daemon.clone(), async {
            let _ = ended.await;
        });
        Self {
            directory,
            daemon,
            end: Some(end),
            server: tokio::spawn(serving),
        }
    }

    fn socket(&self) -> PathBuf {
        self.directory.join("api.sock")
    }

    fn client(&self) -> Client {
        Client::new(self.socket()).with_deadline(Duration::from_secs(20))
    }

    /// What is answered to these bytes.
    async fn raw(&self, request: &[u8]) -> String {
        let mut stream = UnixStream::connect(self.socket()).await.unwrap();
        // A server that refuses early need not read everything.
        let _ = stream.write_all(request).await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        String::from_utf8(answer).unwrap()
    }

    async fn end(&mut self) {
        self.end.take().unwrap().send(()).unwrap();
        (&mut self.server).await.unwrap().unwrap();
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.server.abort();
        let _ = fs::remove_dir_all(&self.directory);
    }
}

#[tokio::test]
async fn the_socket_is_for_owner_and_group_and_is_removed() {
    let mut served = Served::new("mode");
    let metadata = fs::symlink_metadata(served.socket()).unwrap();
    assert!(metadata.file_type().is_socket());
    assert_eq!(metadata.permissions().mode() & 0o7777, 0o660);
    served.end().await;
    assert!(!served.socket().exists());
}

#[tokio::test]
async fn a_socket_in_use_is_refused_and_a_stale_one_replaced() {
    let served = Served::new("stale");
    let error = Server::listen(&served.socket(), None)
        .unwrap_err()
        .to_string();
    assert!(error.contains("is in use"), "{error}");
    served.server.abort();
    while !served.server.is_finished() {
        tokio::task::yield_now().await;
    }
    assert!(served.socket().exists());
    drop(Server::listen(&served.socket(), None).unwrap());
}

#[tokio::test]
async fn a_change_that_was_begun_is_ended_though_nobody_waits() {
    let mut served = Served::new("begun");
    let mut stream = UnixStream::connect(served.socket()).await.unwrap();
    let body = br#"{"name":"slow"}"#;
    let head = format!(
        "POST /v1/networks HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(body).await.unwrap();
    served.daemon.begun().await;
    drop(stream);
    served.end.take().unwrap().send(()).unwrap();
    // It ends with the change, not before.
    let early = timeout(Duration::from_millis(300), &mut served.server).await;
    assert!(early.is_err());
    served.daemon.go_on();
    (&mut served.server).await.unwrap().unwrap();
    assert_eq!(served.daemon.asked(), ["create_network slow", "made slow"]);
}

#[tokio::test]
async fn half_a_request_does_not_hold_the_daemon() {
    let mut served = Served::new("half");
    let mut stream = UnixStream::connect(served.socket()).await.unwrap();
    stream
        .write_all(b"POST /v1/networks HTTP/1.1\r\nHos")
        .await
        .unwrap();
    // Answered, so the connection before it has been accepted as well.
    served.raw(b"GET /v1/info HTTP/1.0\r\n\r\n").await;
    timeout(Duration::from_secs(10), served.end())
        .await
        .expect("it ends");
}

#[tokio::test]
async fn a_daemon_that_panics_is_a_failure_and_no_end() {
    let served = Served::new("panic");
    let body = r#"{"name":"panic"}"#;
    let request = format!(
        "POST /v1/networks HTTP/1.0\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let answer = served.raw(request.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.0 500 "), "{answer}");
    assert!(answer.contains("which is a bug"), "{answer}");
    let client = served.client();
    let info = tokio::task::spawn_blocking(move || client.info());
    assert!(info.await.unwrap().is_ok());
}

#[tokio::test]
async fn a_user_has_so_many_connections_and_no_more() {
    let served = Served::new("many");
    let mut held = Vec::new();
    for _ in 0..limit::PER_USER {
        held.push(UnixStream::connect(served.socket()).await.unwrap());
    }
    const INFO: &[u8] = b"GET /v1/info HTTP/1.0\r\n\r\n";
    assert_eq!(served.raw(INFO).await, "");
    held.pop();
    // The server notices that the other one is gone when it gets round to it.
    let answered = timeout(Duration::from_secs(20), async {
        while served.raw(INFO).await.is_empty() {}
    });
    answered.await.expect("there is room again");
}
