//! What a switch does when something of its own breaks.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ringway_api::port_spec::{PortKind, PortSpec};
use ringway_port::{Burst, Counters, Fault, Offloads, Port, Sent, Wakeup};

use crate::control::attached::Attached;
use crate::{Config, RunError, Switch};

/// A port whose receive panics as soon as it is told to.
struct Broken {
    counters: Counters,
    now: Arc<AtomicBool>,
}

impl Port for Broken {
    fn counters(&self) -> &Counters {
        &self.counters
    }

    fn receive_queues(&self) -> usize {
        1
    }

    fn send_queues(&self) -> usize {
        0
    }

    fn offloads(&self) -> Offloads {
        Offloads::default()
    }

    fn receive<'m>(&'m self, _: usize, _: usize, _: &mut Burst<'m>) -> Result<usize, Fault> {
        assert!(!self.now.load(Ordering::Relaxed), "a port of a test");
        Ok(0)
    }

    fn release(&self, _: usize, _: &mut Burst<'_>) -> Result<(), Fault> {
        Ok(())
    }

    fn send(&self, _: usize, _: &Burst<'_>, _: u64) -> Sent {
        Sent::default()
    }

    fn wakeup(&self, _: usize) -> Wakeup<'_> {
        Wakeup::Timer {
            id: u64::MAX,
            wait: 1_000_000,
        }
    }

    fn arm(&self, _: usize) -> bool {
        false
    }

    fn disarm(&self, _: usize) {}

    fn woken(&self, _: usize) {}
}

/// A switch of `workers` workers with a socket in a folder of its own, and a port that breaks.
fn breaking(workers: usize, at_once: bool) {
    let folder = std::env::temp_dir().join(format!(
        "ringway-broken-{}-{workers}-{at_once}",
        std::process::id()
    ));
    std::fs::create_dir_all(&folder).unwrap();
    let (socket, control) = (folder.join("a"), folder.join("control"));
    let spec: PortSpec = format!("vhost-user,path={}", socket.display())
        .parse()
        .unwrap();
    let mut switch = Switch::embed(Config {
        ports: vec![spec.into()],
        workers,
        control: Some(control.clone()),
        ..Config::default()
    })
    .unwrap();
    let spec = PortSpec::new(PortKind::Sink);
    let identity = switch.control.identity(&spec).unwrap();
    let now = Arc::new(AtomicBool::new(at_once));
    let port = Broken {
        counters: Counters::new(1),
        now: now.clone(),
    };
    let began = Instant::now();
    switch
        .control
        .install(Attached::plain(identity, spec, Arc::new(port)));
    let breaks = std::thread::spawn(move || {
        // While the control thread waits, or before: both must be noticed.
        now.store(true, Ordering::Relaxed);
    });
    let error = switch.run(&mut std::io::sink()).unwrap_err();
    breaks.join().unwrap();
    assert!(matches!(error, RunError::WorkerLost { worker } if worker < workers));
    assert!(error.to_string().starts_with("worker-"), "{error}");
    assert!(
        began.elapsed() < Duration::from_secs(3),
        "somebody waited for a worker that is gone"
    );
    assert!(!socket.exists() && !control.exists());
    std::fs::remove_dir(&folder).unwrap();
}

#[test]
fn a_worker_that_panics_ends_the_switch_at_once_and_leaves_nothing_behind() {
    for workers in [1, 2] {
        for at_once in [false, true] {
            breaking(workers, at_once);
        }
    }
}
