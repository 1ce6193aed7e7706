//! A switch within this process, between two guests.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use ringway_bench::guest::connect;
use ringway_switch::{Config, Ender, Poll, RunError, Switch};
use ringway_vhost::user::frontend::Frontend;

const LIMIT: Duration = Duration::from_secs(10);

/// One worker and two ports. Dropped, it ends.
pub(crate) struct Inside {
    folder: PathBuf,
    ender: Ender,
    thread: Option<JoinHandle<Result<(), RunError>>>,
}

impl Inside {
    /// Starts it, with its worker on these processors, and connects two front-ends.
    pub(crate) fn start(poll: Poll, cpus: Vec<usize>) -> (Self, [Frontend; 2]) {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("ringway-inside-{}-{number}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&folder).unwrap();
        let paths = ["a", "b"].map(|name| folder.join(name));
        let port = |path: &PathBuf| {
            let text = format!("vhost-user,path={}", path.display());
            text.parse::<ringway_api::port_spec::PortSpec>()
                .unwrap()
                .into()
        };
        let switch = Switch::embed(Config {
            ports: paths.iter().map(port).collect(),
            workers: 1,
            cpus,
            poll,
            ..Config::default()
        });
        let switch = switch.unwrap();
        let ender = switch.ender();
        let thread = std::thread::spawn(move || switch.run(&mut std::io::sink()));
        let fronts = [0, 1].map(|side: usize| connect(&paths[side], LIMIT).unwrap());
        let thread = Some(thread);
        let inside = Self {
            folder,
            ender,
            thread,
        };
        (inside, fronts)
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        self.ender.end();
        let ended = self.thread.take().map(JoinHandle::join);
        let _ = std::fs::remove_dir_all(&self.folder);
        if !std::thread::panicking() {
            ended.unwrap().unwrap().unwrap();
        }
    }
}
