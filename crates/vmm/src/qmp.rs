//! QEMU's monitor (QMP): a line of JSON per command, answer and event.

use std::{
    io::{self, BufRead, BufReader, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with,
    sockopt::{Timeout, set_socket_timeout},
};
use serde_json::{Value, json};

/// How long an answer may take: QEMU answers at once unless it waits for something, such as a switch.
const LIMIT: Duration = Duration::from_secs(10);
/// Longest line taken from a monitor; the longest that is asked for here describes 255 CPUs.
const LINE: usize = 1 << 20;

/// A connection to a monitor, which takes one at a time.
#[derive(Debug)]
pub struct Qmp {
    stream: BufReader<UnixStream>,
    path: PathBuf,
    limit: Duration,
}

/// Why the monitor did not do it.
#[derive(Debug, thiserror::Error)]
pub enum QmpError {
    /// Nobody listens, or the connection broke.
    #[error("QEMU's monitor at {} does not answer: {error}", .path.display())]
    Gone {
        /// Its socket.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// It refuses.
    #[error("QEMU refuses {command}: {reason}")]
    Refused {
        /// The command.
        command: String,
        /// Its sentence.
        reason: String,
    },
    /// What came is no QMP.
    #[error("what answers at {} is no QEMU: {found:?}", .path.display())]
    Foreign {
        /// The socket.
        path: PathBuf,
        /// The beginning of what came.
        found: String,
    },
}

/// A virtual CPU as QEMU tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Vcpu {
    /// Its number.
    pub index: u32,
    /// The thread that executes it.
    pub thread: i32,
}

impl Qmp {
    /// Connects and negotiates.
    pub fn connect(path: &Path) -> Result<Self, QmpError> {
        Self::connect_within(path, LIMIT)
    }

    /// The same, where the greeting and each answer may take so long.
    pub fn connect_within(path: &Path, limit: Duration) -> Result<Self, QmpError> {
        let stream = open(path, limit).map_err(|error| QmpError::Gone {
            path: path.to_owned(),
            error,
        })?;
        let mut qmp = Self {
            stream: BufReader::new(stream),
            path: path.to_owned(),
            limit,
        };
        let greeting = qmp.read(Instant::now() + limit)?;
        if greeting.get("QMP").is_none() {
            return Err(qmp.foreign(greeting.to_string().as_bytes()));
        }
        qmp.execute("qmp_capabilities", json!({}))?;
        Ok(qmp)
    }

    /// Gives a command; what it returned. Events that come between are passed over.
    pub fn execute(&mut self, command: &str, arguments: Value) -> Result<Value, QmpError> {
        let request = json!({ "execute": command, "arguments": arguments });
        writeln!(self.stream.get_mut(), "{request}").map_err(|error| self.gone(error))?;
        let deadline = Instant::now() + self.limit;
        loop {
            let mut answer = self.read(deadline)?;
            if let Some(value) = answer.get_mut("return") {
                return Ok(value.take());
            }
            if let Some(error) = answer.get("error") {
                return Err(QmpError::Refused {
                    command: command.to_owned(),
                    reason: error["desc"].as_str().unwrap_or("no reason").to_owned(),
                });
            }
        }
    }

    /// What the machine does: `running`, `paused`, `shutdown` and so on.
    pub fn status(&mut self) -> Result<String, QmpError> {
        let answer = self.execute("query-status", json!({}))?;
        Ok(answer["status"].as_str().unwrap_or("unknown").to_owned())
    }

    /// Asks the guest to power down, as its power button does.
    pub fn power_down(&mut self) -> Result<(), QmpError> {
        self.execute("system_powerdown", json!({})).map(drop)
    }

    /// Lets a machine go on that was started paused.
    pub fn go_on(&mut self) -> Result<(), QmpError> {
        self.execute("cont", json!({})).map(drop)
    }

    /// Ends QEMU.
    pub fn quit(&mut self) -> Result<(), QmpError> {
        self.execute("quit", json!({})).map(drop)
    }

    /// The virtual CPUs, in order.
    pub fn vcpus(&mut self) -> Result<Vec<Vcpu>, QmpError> {
        let answer = self.execute("query-cpus-fast", json!({}))?;
        let vcpu = |cpu: &Value| {
            Some(Vcpu {
                index: u32::try_from(cpu["cpu-index"].as_u64()?).ok()?,
                thread: i32::try_from(cpu["thread-id"].as_i64()?).ok()?,
            })
        };
        let mut vcpus: Vec<Vcpu> = elements(&answer).filter_map(vcpu).collect();
        vcpus.sort_by_key(|vcpu| vcpu.index);
        Ok(vcpus)
    }

    /// The threads that serve disks.
    pub fn io_threads(&mut self) -> Result<Vec<i32>, QmpError> {
        let answer = self.execute("query-iothreads", json!({}))?;
        let thread = |thread: &Value| i32::try_from(thread["thread-id"].as_i64()?).ok();
        Ok(elements(&answer).filter_map(thread).collect())
    }

    /// A line, however its parts come.
    fn read(&mut self, deadline: Instant) -> Result<Value, QmpError> {
        let mut line = Vec::new();
        while line.len() < LINE {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(self.gone(io::ErrorKind::TimedOut.into()));
            }
            let limited = self.stream.get_ref().set_read_timeout(Some(left));
            let part = match limited.and_then(|()| self.stream.fill_buf()) {
                Ok([]) => return Err(self.gone(io::ErrorKind::UnexpectedEof.into())),
                Ok(part) => part,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(self.gone(error)),
            };
            let end = part.iter().position(|byte| *byte == b'\n');
            let length = end.map_or(part.len(), |end| end + 1);
            line.extend_from_slice(&part[..length]);
            self.stream.consume(length);
            if end.is_some() {
                break;
            }
        }
        serde_json::from_slice(&line).map_err(|_| self.foreign(&line))
    }

    fn gone(&self, error: io::Error) -> QmpError {
        QmpError::Gone {
            path: self.path.clone(),
            error,
        }
    }

    fn foreign(&self, found: &[u8]) -> QmpError {
        let found = String::from_utf8_lossy(&found[..found.len().min(240)]);
        QmpError::Foreign {
            path: self.path.clone(),
            found: found.chars().take(60).collect(),
        }
    }
}

/// A listener that takes nobody on holds up who connects, so that has to be limited, too.
fn open(path: &Path, limit: Duration) -> io::Result<UnixStream> {
    let address = SocketAddrUnix::new(path)?;
    let kind = SocketType::STREAM;
    let socket = socket_with(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None)?;
    set_socket_timeout(&socket, Timeout::Send, Some(limit))?;
    connect(&socket, &address)?;
    Ok(UnixStream::from(socket))
}

fn elements(answer: &Value) -> impl Iterator<Item = &Value> {
    answer.as_array().into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use std::{os::unix::net::UnixListener, thread};

    use super::*;

    /// A monitor that answers with these lines, one for each it is sent, after its greeting.
    fn monitor(name: &str, lines: &'static [&'static str]) -> (PathBuf, thread::JoinHandle<()>) {
        let path = std::env::temp_dir().join(format!("ringway-{name}-{}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        let listener = UnixListener::bind(&path).unwrap();
        let thread = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut asked = BufReader::new(stream.try_clone().unwrap()).lines();
            for line in lines {
                writeln!(stream, "{line}").unwrap();
                let _ = asked.next();
            }
        });
        (path, thread)
    }

    #[test]
    fn threads_are_what_the_monitor_says_whatever_happens_between() {
        let (path, thread) = monitor(
            "qmp-threads",
            &[
                r#"{"QMP": {}}"#,
                r#"{"return": {}}"#,
                "{\"event\": \"RESUME\", \"timestamp\": {}}\n{\"return\": [{\"cpu-index\": 1, \"thread-id\": 8}, {\"cpu-index\": 0, \"thread-id\": 7}]}",
                r#"{"return": [{"id": "io0", "thread-id": 9}]}"#,
                r#"{"error": {"class": "GenericError", "desc": "not now"}}"#,
            ],
        );
        let mut qmp = Qmp::connect(&path).unwrap();
        let vcpu = |index, thread| Vcpu { index, thread };
        assert_eq!(qmp.vcpus().unwrap(), [vcpu(0, 7), vcpu(1, 8)]);
        assert_eq!(qmp.io_threads().unwrap(), [9]);
        let refused = qmp.quit().unwrap_err().to_string();
        assert_eq!(refused, "QEMU refuses quit: not now");
        drop(qmp);
        thread.join().unwrap();
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn who_says_nothing_or_talks_on_without_an_answer_is_left() {
        let path = std::env::temp_dir().join(format!("ringway-qmp-slow-{}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        let listener = UnixListener::bind(&path).unwrap();
        let limit = Duration::from_millis(100);
        // Connected, as the kernel does that, and not accepted: another has the monitor.
        let error = Qmp::connect_within(&path, limit).unwrap_err().to_string();
        assert!(error.contains("does not answer"), "{error}");
        drop(listener.accept().unwrap());
        let thread = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let greeting = writeln!(stream, "{{\"QMP\": {{}}}}");
            let mut sent = greeting;
            while sent.is_ok() {
                sent = writeln!(stream, "{{\"event\": \"NOISE\"}}");
            }
        });
        let error = Qmp::connect_within(&path, limit).unwrap_err().to_string();
        assert!(error.contains("timed out"), "{error}");
        thread.join().unwrap();
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn who_is_no_qemu_is_told_so() {
        let (path, thread) = monitor("qmp-foreign", &["SSH-2.0-OpenSSH_9.2"]);
        let error = Qmp::connect(&path).unwrap_err();
        assert!(matches!(error, QmpError::Foreign { .. }), "{error}");
        thread.join().unwrap();
        std::fs::remove_file(&path).unwrap();
        let error = Qmp::connect(&path).unwrap_err().to_string();
        assert!(error.contains("does not answer"), "{error}");
    }
}
