//! A client for QEMU's monitor protocol: one line of JSON per command, answer and event.

use std::{
    collections::VecDeque,
    io::{BufRead, BufReader, Write},
    os::unix::net::UnixStream,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

/// How long the monitor may take for an answer; an emulated guest on a busy machine is slow.
const LIMIT: Duration = Duration::from_secs(30);
/// Between two questions of a kind that QEMU has no event for.
const POLL: Duration = Duration::from_millis(20);

/// A connection to the monitor of a guest's QEMU.
#[derive(Debug)]
pub struct Qmp {
    name: String,
    stream: BufReader<UnixStream>,
    events: VecDeque<Event>,
}

/// Something that happened, as QEMU tells unasked.
#[derive(Debug, Clone)]
pub struct Event {
    /// Its name, for example `RESUME`.
    pub name: String,
    /// Time of day by the host's clock.
    pub at: Duration,
    /// What else QEMU says of it.
    pub data: Value,
}

impl Qmp {
    /// Connects to the monitor at `path`; `name` stands in messages.
    pub(crate) fn connect(name: &str, path: &Path) -> Result<Self> {
        Self::connect_within(name, path, LIMIT)
    }

    /// As [`Self::connect`], with another limit for each answer.
    pub(crate) fn connect_within(name: &str, path: &Path, limit: Duration) -> Result<Self> {
        let stream = UnixStream::connect(path)
            .with_context(|| format!("guest {name}: no monitor at {}", path.display()))?;
        stream.set_read_timeout(Some(limit))?;
        let mut qmp = Self {
            name: name.to_owned(),
            stream: BufReader::new(stream),
            events: VecDeque::new(),
        };
        let greeting = qmp.read()?;
        if greeting.get("QMP").is_none() {
            bail!("guest {name}: no monitor greets so: {greeting}");
        }
        qmp.execute("qmp_capabilities", json!({}))?;
        Ok(qmp)
    }

    /// Gives a command; what it returned.
    pub fn execute(&mut self, command: &str, arguments: Value) -> Result<Value> {
        let request = json!({ "execute": command, "arguments": arguments });
        writeln!(self.stream.get_mut(), "{request}")?;
        loop {
            let mut answer = self.read()?;
            if let Some(value) = answer.get_mut("return") {
                return Ok(value.take());
            }
            if answer.get("error").is_some() {
                bail!("guest {}: {request}: {answer}", self.name);
            }
            self.events.extend(event(&answer));
        }
    }

    /// Asks until `wanted` holds for what `command` returns.
    pub fn await_answer(
        &mut self,
        command: &str,
        what: &str,
        limit: Duration,
        wanted: impl Fn(&Value) -> Result<bool>,
    ) -> Result<Value> {
        let end = Instant::now() + limit;
        loop {
            let answer = self.execute(command, json!({}))?;
            if wanted(&answer).with_context(|| format!("waiting for {what}: {answer}"))? {
                return Ok(answer);
            }
            if Instant::now() > end {
                bail!("guest {}: not {what} within {limit:?}: {answer}", self.name);
            }
            thread::sleep(POLL);
        }
    }

    /// The next event of this name.
    pub fn await_event(&mut self, name: &str) -> Result<Event> {
        loop {
            let event = match self.events.pop_front() {
                Some(event) => event,
                None => match event(&self.read()?) {
                    Some(event) => event,
                    None => continue,
                },
            };
            if event.name == name {
                return Ok(event);
            }
        }
    }

    fn read(&mut self) -> Result<Value> {
        let mut line = String::new();
        let read = self.stream.read_line(&mut line);
        if read.with_context(|| format!("guest {}: its monitor", self.name))? == 0 {
            bail!("guest {}: its monitor is gone", self.name);
        }
        serde_json::from_str(&line).with_context(|| format!("not JSON: {line}"))
    }
}

fn event(message: &Value) -> Option<Event> {
    let number = |name: &str| message["timestamp"][name].as_u64();
    Some(Event {
        name: message.get("event")?.as_str()?.to_owned(),
        at: Duration::from_secs(number("seconds")?)
            + Duration::from_micros(number("microseconds")?),
        data: message.get("data").cloned().unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn answers_and_events_are_told_apart() {
        let path = std::env::temp_dir().join(format!("ringway-qmp-{}", std::process::id()));
        let listener = UnixListener::bind(&path).unwrap();
        let monitor = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
            let mut asked = Vec::new();
            for answer in [
                "{\"QMP\": {}}\n",
                "{\"return\": {}}\n",
                "{\"event\": \"STOP\", \"timestamp\": {\"seconds\": 7, \"microseconds\": 5}}\n{\"return\": {\"a\": 1}}\n",
                "{\"error\": {\"class\": \"CommandNotFound\"}}\n",
            ] {
                stream.write_all(answer.as_bytes()).unwrap();
                asked.push(lines.next().map(Result::unwrap));
            }
            asked
        });
        let mut qmp = Qmp::connect("g", &path).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(
            qmp.execute("one", json!({"x": 2})).unwrap(),
            json!({"a": 1})
        );
        let error = qmp.execute("two", json!({})).unwrap_err().to_string();
        assert!(error.contains("CommandNotFound"), "{error}");
        let stop = qmp.await_event("STOP").unwrap();
        assert_eq!(stop.at, Duration::from_micros(7_000_005));
        drop(qmp);
        let asked = monitor.join().unwrap();
        assert_eq!(
            asked[1].as_deref(),
            Some(r#"{"arguments":{"x":2},"execute":"one"}"#)
        );
        assert_eq!(asked[3], None);
    }
}
