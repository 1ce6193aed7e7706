//! One request and its answer, HTTP/1.0 (RFC 1945) over a unix socket.

use std::{
    fmt::Write as _,
    io::{self, Read, Write},
    os::unix::net::UnixStream,
    path::Path,
    time::{Duration, Instant},
};

use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, sockopt::Timeout,
    sockopt::set_socket_timeout,
};

/// Beyond what the largest host answers.
const MAX_ANSWER: usize = 64 << 20;

pub(super) struct Response {
    pub(super) status: u16,
    pub(super) body: Vec<u8>,
}

/// Sends a request and reads the answer; the kind of an error says what happened, `TimedOut` and `InvalidData` included.
pub(super) fn exchange(
    socket: &Path,
    limit: Duration,
    method: &str,
    path: &str,
    body: Option<&[u8]>,
) -> io::Result<Response> {
    let (mut stream, end) = ask(socket, limit, method, path, body)?;
    parse(&receive(&mut stream, end)?)
}

/// The same for an answer without end: what came with its head, and whence the rest comes. One that says no is whole.
pub(super) fn stream(
    socket: &Path,
    limit: Duration,
    method: &str,
    path: &str,
    body: Option<&[u8]>,
) -> io::Result<(Response, Option<UnixStream>)> {
    let (mut stream, end) = ask(socket, limit, method, path, body)?;
    let mut begin = Vec::new();
    let mut part = vec![0; 64 << 10];
    while !begin.windows(4).any(|bytes| bytes == b"\r\n\r\n") {
        stream.set_read_timeout(Some(left(end)?))?;
        match stream.read(&mut part).map_err(late)? {
            0 => return Ok((parse(&begin)?, None)),
            _ if begin.len() > part.len() => return Err(wrong("a head without end")),
            count => begin.extend_from_slice(&part[..count]),
        }
    }
    // A refusal says how long it is; a stream does not know.
    if !begin.starts_with(b"HTTP/1.0 200 ") && !begin.starts_with(b"HTTP/1.1 200 ") {
        begin.extend(receive(&mut stream, end)?);
        return Ok((parse(&begin)?, None));
    }
    stream.set_read_timeout(None)?;
    Ok((parse(&begin)?, Some(stream)))
}

/// Sends a request; when the answer has to be there.
fn ask(
    socket: &Path,
    limit: Duration,
    method: &str,
    path: &str,
    body: Option<&[u8]>,
) -> io::Result<(UnixStream, Instant)> {
    let end = Instant::now() + limit;
    let mut stream = connect(socket, limit)?;
    let mut request = format!("{method} {path} HTTP/1.0\r\nHost: ringway\r\n").into_bytes();
    if let Some(body) = body {
        let length = body.len();
        write!(
            request,
            "Content-Type: application/json\r\nContent-Length: {length}\r\n"
        )?;
    }
    request.extend_from_slice(b"\r\n");
    request.extend_from_slice(body.unwrap_or_default());
    // A daemon that refuses a body before its end closes early; its answer says why.
    if let Err(error) = send(&mut stream, &request, end)
        && error.kind() != io::ErrorKind::BrokenPipe
    {
        return Err(error);
    }
    Ok((stream, end))
}

/// As part of a query.
pub(super) fn encoded(text: &str) -> String {
    text.bytes().fold(String::new(), |mut encoded, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            let _ = write!(encoded, "%{byte:02X}");
        }
        encoded
    })
}

/// The timeout of sending holds for connecting, too: a listener whose queue is full makes one wait.
fn connect(path: &Path, limit: Duration) -> io::Result<UnixStream> {
    let address = SocketAddrUnix::new(path)?;
    let flags = SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    set_socket_timeout(&socket, Timeout::Send, Some(limit))?;
    rustix::net::connect(&socket, &address).map_err(|error| late(error.into()))?;
    Ok(socket.into())
}

fn send(stream: &mut UnixStream, mut bytes: &[u8], end: Instant) -> io::Result<()> {
    while !bytes.is_empty() {
        stream.set_write_timeout(Some(left(end)?))?;
        match stream.write(bytes) {
            Ok(sent) => bytes = &bytes[sent..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(late(error)),
        }
    }
    Ok(())
}

/// All that comes until the other side closes.
fn receive(stream: &mut UnixStream, end: Instant) -> io::Result<Vec<u8>> {
    let mut answer = Vec::new();
    let mut part = vec![0; 64 << 10];
    loop {
        stream.set_read_timeout(Some(left(end)?))?;
        match stream.read(&mut part) {
            Ok(0) => return Ok(answer),
            Ok(count) if answer.len() + count > MAX_ANSWER => {
                return Err(wrong("an answer without end"));
            }
            Ok(count) => answer.extend_from_slice(&part[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // Closed with a part of our body unread; what was answered before counts.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset && !answer.is_empty() => {
                return Ok(answer);
            }
            Err(error) => return Err(late(error)),
        }
    }
}

fn parse(answer: &[u8]) -> io::Result<Response> {
    if answer.is_empty() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let head = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n");
    let (head, body) = head
        .map(|end| (&answer[..end], &answer[end + 4..]))
        .ok_or_else(|| wrong("no HTTP head"))?;
    let head = std::str::from_utf8(head).map_err(|_| wrong("no HTTP head"))?;
    let mut lines = head.split("\r\n");
    let status = lines
        .next()
        .filter(|line| line.starts_with("HTTP/1."))
        .and_then(|line| line.split(' ').nth(1)?.parse().ok())
        .ok_or_else(|| wrong("no HTTP status"))?;
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        let promised = value.trim().parse::<usize>();
        if name.eq_ignore_ascii_case("content-length") && promised != Ok(body.len()) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(Response {
        status,
        body: body.to_vec(),
    })
}

fn left(end: Instant) -> io::Result<Duration> {
    end.checked_duration_since(Instant::now())
        .filter(|left| !left.is_zero())
        .ok_or_else(|| io::ErrorKind::TimedOut.into())
}

/// What a timeout of the socket is called.
fn late(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::WouldBlock => io::ErrorKind::TimedOut.into(),
        _ => error,
    }
}

fn wrong(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_and_half_ones_are_not() {
        let whole = b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\n{}";
        let response = parse(whole).unwrap();
        assert_eq!((response.status, &response.body[..]), (200, &b"{}"[..]));
        let kind = |answer: &[u8]| parse(answer).err().map(|error| error.kind());
        for length in 0..whole.len() {
            assert!(kind(&whole[..length]).is_some(), "{length} bytes");
        }
        assert_eq!(kind(b""), Some(io::ErrorKind::UnexpectedEof));
        for foreign in [
            "SSH-2.0-OpenSSH\r\n\r\n",
            "HTTP/1.1 yes\r\n\r\n",
            "HTTP/2\r\n\r\n",
            "\u{fffd}",
        ] {
            assert_eq!(kind(foreign.as_bytes()), Some(io::ErrorKind::InvalidData));
        }
    }

    #[test]
    fn queries_are_encoded() {
        assert_eq!(encoded("web-1.lan"), "web-1.lan");
        assert_eq!(encoded("a b&c=ä\r\n"), "a%20b%26c%3D%C3%A4%0D%0A");
    }
}
