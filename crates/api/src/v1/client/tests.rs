use std::{
    fs,
    io::{Read, Write},
    os::unix::net::UnixListener,
    path::PathBuf,
    sync::mpsc,
    thread,
};

use super::{super::Code, *};

/// A directory that goes with its value.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("rw-client-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn socket(&self) -> PathBuf {
        self.0.join("api.sock")
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// What the client sent, and what it made of an answer.
fn asked<T>(name: &str, answer: &str, ask: impl FnOnce(&Client) -> T) -> (String, T) {
    let directory = Directory::new(name);
    let listener = UnixListener::bind(directory.socket()).unwrap();
    let answer = answer.to_owned();
    let server = thread::spawn(move || {
        let mut stream = listener.accept().unwrap().0;
        let mut request = Vec::new();
        let mut byte = [0];
        let mut wanted = None;
        while wanted != Some(request.len()) && stream.read(&mut byte).unwrap() > 0 {
            request.push(byte[0]);
            if wanted.is_none() && request.ends_with(b"\r\n\r\n") {
                let head = String::from_utf8(request.clone()).unwrap();
                let length = head.split("Content-Length: ").nth(1);
                let length = length.map_or(0, |text| text.lines().next().unwrap().parse().unwrap());
                wanted = Some(request.len() + length);
            }
        }
        stream.write_all(answer.as_bytes()).unwrap();
        String::from_utf8(request).unwrap()
    });
    let made = ask(&Client::new(directory.socket()));
    (server.join().unwrap(), made)
}

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

#[test]
fn a_request_says_what_is_asked_and_the_answer_is_read() {
    let patch = PortPatch {
        rate: crate::control::Setting::Clear,
        ..PortPatch::default()
    };
    let port = r#"{"network":"lan","name":"web","path":"vhost-user","socket":"/a","tap":null,
        "mac":"02:00:00:00:00:01","address":null,"queues":1,"rate":null,"connected":false}"#;
    let answer = format!("HTTP/1.0 200 OK\r\n\r\n{port}");
    let (request, port) = asked("patch", &answer, |client| {
        client.patch_port(&name("lan"), &name("web"), &patch)
    });
    assert!(request.starts_with("PATCH /v1/networks/lan/ports/web HTTP/1.0\r\n"));
    assert!(request.ends_with("\r\nContent-Length: 13\r\n\r\n{\"rate\":null}"));
    assert_eq!(port.unwrap().socket, Some("/a".into()));

    let (request, found) = asked("resolve", "HTTP/1.0 200 OK\r\n\r\n[]", |client| {
        client.resolve("a b?")
    });
    assert!(request.starts_with("GET /v1/leases/resolve?name=a%20b%3F HTTP/1.0\r\n"));
    assert_eq!(found.unwrap(), []);

    let (request, deleted) = asked("delete", "HTTP/1.0 204 No Content\r\n\r\n", |client| {
        client.delete_network(&name("lan"), true)
    });
    assert!(request.starts_with("DELETE /v1/networks/lan?force=true HTTP/1.0\r\n"));
    deleted.unwrap();
}

#[test]
fn a_failure_is_the_daemons_own_sentence() {
    let answer = "HTTP/1.0 404 Not Found\r\n\r\n{\"code\":\"not-found\",\"message\":\"there is no network lan\"}";
    let (_, answer) = asked("failure", answer, |client| client.network(&name("lan")));
    let error = answer.unwrap_err();
    assert_eq!(error.to_string(), "there is no network lan");
    assert!(matches!(error, ClientError::Refused(failure) if failure.code == Code::NotFound));
}

#[test]
fn who_is_no_daemon_is_called_so() {
    for (number, answer) in [
        "HTTP/1.0 200 OK\r\n\r\n{}",
        "HTTP/1.1 502 Bad\r\n\r\n<html>",
    ]
    .into_iter()
    .enumerate()
    {
        let (_, answer) = asked(&format!("foreign{number}"), answer, Client::stats);
        let error = answer.unwrap_err();
        assert!(matches!(error, ClientError::Foreign { .. }), "{error}");
    }
    let (_, answer) = asked(
        "half",
        "HTTP/1.0 200 OK\r\ncontent-length: 9\r\n\r\n[]",
        |c| c.networks(),
    );
    assert!(matches!(answer, Err(ClientError::Broken { .. })));
}

#[test]
fn without_a_daemon_the_socket_and_the_way_out_are_named() {
    let directory = Directory::new("none");
    let client = Client::new(directory.socket());
    let missing = client.info().unwrap_err().to_string();
    drop(UnixListener::bind(directory.socket()).unwrap());
    let stale = client.info().unwrap_err().to_string();
    assert_eq!(missing, stale);
    for part in [
        directory.socket().to_str().unwrap(),
        "`ringway daemon`",
        "--socket",
    ] {
        assert!(missing.contains(part), "{missing}");
    }
    let long = Client::new(directory.0.join("x".repeat(120)));
    assert!(matches!(long.info(), Err(ClientError::TooLong(_))));
}

#[test]
fn a_daemon_that_does_not_answer_is_not_waited_for_any_longer() {
    let directory = Directory::new("silent");
    let listener = UnixListener::bind(directory.socket()).unwrap();
    let (gone, wait) = mpsc::channel::<()>();
    let server = thread::spawn(move || {
        let stream = listener.accept().unwrap();
        let _ = wait.recv();
        drop(stream);
    });
    let client = Client::new(directory.socket()).with_deadline(Duration::from_millis(50));
    let error = client.info().unwrap_err();
    assert!(matches!(error, ClientError::TimedOut { .. }), "{error}");
    drop(gone);
    server.join().unwrap();
}
