//! A running switch with a folder of its own.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::Instant;

use ringway_api::control::Client;
use ringway_api::port_spec::PortSpec;
use ringway_api::stats::{PortStatistics, Statistics};
use ringway_switch::{Config, Ender, Poll, RunError, Sandbox, StartError, Switch};

use super::{Guest, Options, PATIENCE};

/// A switch that runs until this is dropped.
pub struct Lab {
    folder: PathBuf,
    ender: Ender,
    thread: Option<JoinHandle<Result<(), RunError>>>,
    client: std::cell::RefCell<Client>,
}

impl Lab {
    /// One worker, ports as [`Lab::spec`] reads them.
    pub fn start(ports: &[&str]) -> Self {
        Self::with(1, Poll::Adaptive, ports)
    }

    pub fn with(workers: usize, poll: Poll, ports: &[&str]) -> Self {
        Self::within(Sandbox::Off, workers, poll, ports)
    }

    /// As [`Lab::start`], and once the ports stand all threads of the switch give up their rights;
    /// those of this test do not.
    pub fn confined(ports: &[&str]) -> Self {
        Self::within(Sandbox::On, 1, Poll::Adaptive, ports)
    }

    fn within(sandbox: Sandbox, workers: usize, poll: Poll, ports: &[&str]) -> Self {
        let folder = new_folder();
        let config = Config {
            ports: ports
                .iter()
                .map(|text| spec(&folder, text).into())
                .collect(),
            workers,
            poll,
            control: Some(folder.join("control")),
            sandbox,
            ..Config::default()
        };
        let (started, ender) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            let switch = Switch::embed(config).unwrap();
            started.send(switch.ender()).unwrap();
            switch.run(&mut std::io::sink())
        });
        let ender = ender.recv().unwrap();
        let client = Client::connect(&folder.join("control"), PATIENCE).unwrap();
        Self {
            folder,
            ender,
            thread: Some(thread),
            client: client.into(),
        }
    }

    /// A file of this lab.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// `NAME[,key=value]...` is a vhost-user port that listens at `NAME`; what has an `=` or no
    /// socket of its own is a specification as it stands, `DIR` being this lab's folder.
    pub fn spec(&self, text: &str) -> PortSpec {
        spec(&self.folder, text)
    }

    /// A connection to the control socket of one's own.
    pub fn client(&self) -> Client {
        Client::connect(&self.path("control"), PATIENCE).unwrap()
    }

    /// Asks over the lab's own connection.
    pub fn ask<T>(&self, request: impl FnOnce(&mut Client) -> T) -> T {
        request(&mut self.client.borrow_mut())
    }

    pub fn statistics(&self) -> Statistics {
        self.ask(|client| client.statistics(None)).unwrap()
    }

    /// Statistics of one port.
    pub fn port(&self, name: &str) -> PortStatistics {
        let found = self.statistics().ports.into_iter();
        found.into_iter().find(|port| port.name == name).unwrap()
    }

    /// Statistics as soon as `done` says so.
    pub fn until(&self, what: &str, done: impl Fn(&Statistics) -> bool) -> Statistics {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let statistics = self.statistics();
            if done(&statistics) {
                return statistics;
            }
            assert!(Instant::now() < deadline, "{what}: {statistics:#?}");
        }
    }

    /// Statistics once so many deliveries were attempted; the three counters must agree.
    pub fn settled(&self, attempted: u64) -> Statistics {
        let statistics = self.until(&format!("{attempted} deliveries"), |statistics| {
            statistics.attempted >= attempted
        });
        assert_eq!(statistics.attempted, attempted, "{statistics:#?}");
        agree(&statistics);
        statistics
    }

    /// A guest at the port of this name, its driver started.
    pub fn guest(&self, name: &str, options: Options) -> Guest {
        Guest::start(&self.path(name), options)
    }

    /// A new switch takes over from the one that runs, which ends by itself. On an error it goes on.
    pub fn take_over(&mut self, workers: usize, poll: Poll) -> Result<(), StartError> {
        let switch = Switch::embed(Config {
            workers,
            poll,
            takeover: Some(self.path("control")),
            ..Config::default()
        })?;
        let ender = switch.ender();
        let thread = std::thread::spawn(move || switch.run(&mut std::io::sink()));
        self.join();
        (self.ender, self.thread) = (ender, Some(thread));
        self.client = self.client().into();
        Ok(())
    }

    /// Waits until the switch has ended, which somebody else asked for.
    pub fn join(&mut self) {
        self.thread.take().unwrap().join().unwrap().unwrap();
    }

    /// Two guests with default options at ports `a` and `b`.
    pub fn pair(&self) -> (Guest, Guest) {
        let [a, b] = ["a", "b"].map(|name| self.guest(name, Options::default()));
        (a, b)
    }
}

/// Rule 12: attempted = delivered + dropped, and the drops of the ports are those of the switch.
pub fn agree(statistics: &Statistics) {
    let Statistics {
        attempted,
        delivered,
        dropped,
        ..
    } = *statistics;
    assert_eq!(attempted, delivered + dropped, "{statistics:#?}");
}

fn spec(folder: &Path, text: &str) -> PortSpec {
    let (name, rest) = text.split_at(text.find(',').unwrap_or(text.len()));
    let kinds = ["vhost-user", "tap", "pcap", "sink", "generator"];
    let text = if kinds.contains(&name) {
        text.replace("DIR", &folder.display().to_string())
    } else {
        format!("vhost-user,path={}/{name}{rest}", folder.display())
    };
    text.parse().unwrap()
}

/// What the names of folders begin with; the process and a number follow.
const PREFIX: &str = "ringway-mock-";

/// Removes the folders of tests that were killed.
fn sweep() {
    let entries = std::fs::read_dir(std::env::temp_dir());
    for entry in entries.into_iter().flatten().flatten() {
        let name = entry.file_name();
        let rest = name.to_str().and_then(|name| name.strip_prefix(PREFIX));
        let owner = rest.and_then(|rest| rest.split('-').next()?.parse::<u32>().ok());
        if owner.is_some_and(|owner| !Path::new(&format!("/proc/{owner}")).exists()) {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

fn new_folder() -> PathBuf {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    if number == 0 {
        sweep();
    }
    let name = format!("{PREFIX}{}-{number}", std::process::id());
    let folder = std::env::temp_dir().join(name);
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.ender.end();
        let ended = self.thread.take().map_or(Ok(Ok(())), JoinHandle::join);
        let left: Vec<_> = std::fs::read_dir(&self.folder)
            .map(|entries| entries.flatten().map(|entry| entry.path()).collect())
            .unwrap_or_default();
        let _ = std::fs::remove_dir_all(&self.folder);
        if !std::thread::panicking() {
            assert!(matches!(ended, Ok(Ok(()))), "{ended:?}");
            let sockets = left.iter().filter(|path| path.extension().is_none());
            assert_eq!(sockets.count(), 0, "left behind: {left:?}");
        }
    }
}
