//! A switch that is killed, again and again, while guests go on: their memory stays, another switch takes the rings up.
//! Frames may be lost or come twice; none is changed, and no ring gets out of step.

mod mock;

use std::io::{BufRead, BufReader};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use mock::frames::{frame, mac, seed};
use mock::{Nic, Options, PATIENCE, Setup, Shape, features};
use ringway_switch::{Config, Poll, Switch};
use ringway_vhost::user::frontend::Frontend;
use rustix::event::{EventfdFlags, eventfd};

/// Where the process that is killed has its sockets; unset in any other.
const FOLDER: &str = "RINGWAY_TEST_KILLED";

const PORTS: [&str; 2] = ["a", "b"];

/// The process that is killed runs this test alone.
#[test]
fn the_one_that_is_killed() {
    let Some(folder) = std::env::var_os(FOLDER).map(PathBuf::from) else {
        // In any other it is its own guard against a switch that does not start.
        let (_place, mut switch) = Killed::start_in_a_new_folder();
        switch.kill();
        return;
    };
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL)).unwrap();
    let port = |name| format!("vhost-user,path={}/{name}", folder.display());
    let switch = Switch::embed(Config {
        ports: PORTS
            .map(|name| port(name).parse().unwrap())
            .map(ringway_api::port_spec::PortSpec::into)
            .into(),
        workers: 1,
        poll: Poll::Adaptive,
        ..Config::default()
    });
    switch.unwrap().run(&mut std::io::stdout()).unwrap();
}

struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A switch in a process of its own.
struct Killed(Child);

impl Killed {
    fn start_in_a_new_folder() -> (Folder, Self) {
        let thread = std::thread::current();
        let name = format!(
            "ringway-mock-{}-{}",
            std::process::id(),
            thread.name().unwrap()
        );
        let folder = Folder(std::env::temp_dir().join(name));
        std::fs::create_dir_all(&folder.0).unwrap();
        let switch = Self::start(&folder.0);
        (folder, switch)
    }

    fn start(folder: &Path) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "the_one_that_is_killed", "--nocapture"])
            .env(FOLDER, folder)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let ready = lines
            .map_while(Result::ok)
            .any(|line| line.ends_with("ready"));
        assert!(ready, "the switch does not start");
        Self(child)
    }

    fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A guest that outlives its back-ends.
struct Survivor {
    nic: Nic,
    setup: Setup,
    error: OwnedFd,
    front: Option<Frontend>,
}

impl Survivor {
    fn new(options: Options) -> Self {
        let mut nic = Nic::new(options);
        nic.fill();
        Self {
            // The base of a packed ring is that of its first start for ever: nobody tells another one.
            setup: Setup::of(&nic),
            nic,
            error: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).unwrap(),
            front: None,
        }
    }

    /// It keeps a region for its back-ends, over and above what they keep themselves.
    fn tracks_inflight(&mut self) {
        self.setup.inflight = Some(OnceLock::new());
    }

    fn connect(&mut self, path: &Path) {
        let deadline = Instant::now() + PATIENCE;
        // Whoever comes before the end of the one before was seen is turned away, and comes again.
        let mut front = loop {
            let mut front = Frontend::connect(path, PATIENCE).unwrap();
            if front.get_features().is_ok() {
                break front;
            }
            assert!(Instant::now() < deadline, "turned away for ever");
        };
        self.setup.apply(&mut front);
        for ring in 0..2 {
            front.set_vring_err(ring, Some(self.error.as_fd())).unwrap();
        }
        self.front = Some(front);
    }

    /// The driver starts anew in the same memory.
    fn reset(&mut self) {
        self.nic
            .queues
            .iter_mut()
            .for_each(mock::queue::Queue::reset);
        self.nic.fill();
    }

    fn no_ring_broke(&self) {
        assert!(
            rustix::io::read(&self.error, &mut [0; 8]).is_err(),
            "a ring broke"
        );
    }
}

/// Numbered frames from one survivor to the other.
struct Scene {
    folder: Folder,
    switch: Killed,
    guests: [Survivor; 2],
    options: Options,
    sent: u64,
    /// The newest that arrived.
    newest: u64,
    arrived: u64,
    repeated: u64,
    numbers: u64,
}

impl Scene {
    fn new(options: &Options) -> Self {
        let mut scene = Self::unconnected(options);
        scene.connect();
        scene
    }

    /// As [`new`](Self::new), of guests whose front-ends keep a region for what is in flight.
    fn with_inflight(options: &Options) -> Self {
        let mut scene = Self::unconnected(options);
        scene.guests.iter_mut().for_each(Survivor::tracks_inflight);
        scene.connect();
        scene
    }

    fn unconnected(options: &Options) -> Self {
        let (folder, switch) = Killed::start_in_a_new_folder();
        Self {
            folder,
            switch,
            guests: [0; 2].map(|_| Survivor::new(options.clone())),
            options: options.clone(),
            sent: 0,
            newest: 0,
            arrived: 0,
            repeated: 0,
            numbers: 1,
        }
    }

    fn connect(&mut self) {
        for (guest, port) in self.guests.iter_mut().zip(PORTS) {
            guest.connect(&self.folder.0.join(port));
        }
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.numbers = self
            .numbers
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (self.numbers >> 33) % limit
    }

    fn length(number: u64) -> usize {
        match number % 16 {
            0 => 9014,
            n => 60 + 90 * usize::try_from(n).unwrap(),
        }
    }

    /// Sends what there is room for, and looks at what arrived.
    fn exchange(&mut self) {
        let [a, b] = &mut self.guests;
        a.nic.reclaim();
        let pieces = self.options.shape.pieces.len() + 1;
        while usize::from(a.nic.queues[1].ring.free()) >= pieces && a.nic.queues[1].out() < 32 {
            self.sent += 1;
            let bytes = frame(mac(1), mac(2), Self::length(self.sent), self.sent);
            a.nic
                .stage(0, Default::default(), &bytes, &self.options.shape);
        }
        a.nic.queues[1].publish();
        while let Some(received) = b.nic.try_receive() {
            let number = seed(&received.frame);
            assert!(number <= self.sent);
            assert!(
                received.frame == frame(mac(1), mac(2), Self::length(number), number),
                "frame {number} was changed"
            );
            self.arrived += 1;
            if number <= self.newest {
                self.repeated += 1;
                assert!(self.newest - number < 300, "{number} after {}", self.newest);
            }
            self.newest = self.newest.max(number);
        }
    }

    /// Frames that were not there before arrive.
    fn goes_on(&mut self, what: &str) {
        let (before, deadline) = (self.sent.max(self.newest), Instant::now() + PATIENCE);
        while self.newest <= before {
            self.exchange();
            assert!(
                Instant::now() < deadline,
                "{what}: nothing arrives after frame {before}"
            );
            std::thread::yield_now();
        }
        self.guests.iter().for_each(Survivor::no_ring_broke);
    }

    fn carry_for(&mut self, time: Duration) {
        let end = Instant::now() + time;
        while Instant::now() < end {
            self.exchange();
        }
    }

    fn kill(&mut self) {
        self.switch.kill();
        self.guests.iter_mut().for_each(|guest| guest.front = None);
    }

    /// What the switch wrote down by itself is gone.
    fn lose_journals(&self) {
        for port in PORTS {
            let _ = std::fs::remove_file(self.folder.0.join(format!("{port}.journal")));
        }
    }

    fn start(&mut self) {
        self.switch = Killed::start(&self.folder.0);
        self.connect();
    }
}

fn options(format: u64, pieces: &[u32], size: u16) -> Options {
    Options {
        features: features::BASE | features::MERGE | features::INDIRECT | format,
        size,
        shape: Shape {
            pieces: pieces.to_vec(),
            ..Shape::default()
        },
        ..Options::default()
    }
}

fn formats() -> [(&'static str, Options); 6] {
    let (packed, order, event) = (features::PACKED, features::IN_ORDER, features::EVENT);
    [
        ("split", options(0, &[], 256)),
        (
            "split, in order, event indices",
            options(order | event, &[12], 256),
        ),
        ("packed", options(packed, &[], 256)),
        (
            "packed, chains of three",
            options(packed | event, &[12, 40], 128),
        ),
        (
            "packed, in order",
            options(packed | order | event, &[], 256),
        ),
        (
            "packed, in order, chains of two",
            options(packed | order, &[12], 100),
        ),
    ]
}

#[test]
fn killed_at_any_moment_and_the_rings_go_on() {
    for (name, options) in formats() {
        killed_at_any_moment(name, Scene::new(&options), 40, |_| {});
    }
}

/// The journal's file does not survive the switch, the front-end's region does.
#[test]
fn killed_at_any_moment_and_the_rings_go_on_where_the_region_says() {
    for (name, options) in formats() {
        let scene = Scene::with_inflight(&options);
        killed_at_any_moment(name, scene, 25, Scene::lose_journals);
    }
}

/// `times` kills and broken connections, with something done after each kill.
fn killed_at_any_moment(name: &str, mut scene: Scene, times: usize, after: impl Fn(&Scene)) {
    let start = Instant::now();
    let (mut kills, mut leaves) = (0, 0);
    while kills + leaves < times {
        // Often when all is under way, sometimes before anything is.
        if scene.below(4) > 0 {
            scene.goes_on(name);
        }
        let time = Duration::from_micros(scene.below(3000));
        scene.carry_for(time);
        if scene.below(4) > 0 {
            scene.kill();
            after(&scene);
            kills += 1;
            // The drivers do not wait for it.
            scene.exchange();
            scene.start();
        } else {
            // A front-end whose connection breaks.
            scene.guests.iter_mut().for_each(|guest| guest.front = None);
            leaves += 1;
            scene.exchange();
            scene.connect();
        }
    }
    scene.goes_on(name);
    println!(
        "{name}: {kills} kills and {leaves} broken connections in {:.1} s; {} frames sent, {} arrived, {} of them again",
        start.elapsed().as_secs_f64(),
        scene.sent,
        scene.arrived,
        scene.repeated
    );
}

#[test]
fn who_starts_anew_is_not_taken_for_the_one_before() {
    for (name, options) in formats() {
        start_anew(name, &options, Scene::new(&options));
    }
}

#[test]
fn who_starts_anew_is_not_taken_for_the_one_in_the_region() {
    for (name, options) in formats() {
        start_anew(name, &options, Scene::with_inflight(&options));
    }
}

fn start_anew(name: &str, options: &Options, mut scene: Scene) {
    for round in 0..6 {
        scene.goes_on(name);
        let time = Duration::from_micros(scene.below(2000));
        scene.carry_for(time);
        scene.kill();
        for guest in &mut scene.guests {
            match round % 3 {
                // The same memory, the same places.
                0 => guest.reset(),
                // Other memory.
                1 => {
                    let inflight = guest.setup.inflight.take();
                    *guest = Survivor::new(options.clone());
                    guest.setup.inflight = inflight;
                }
                // And nothing at all.
                _ => {}
            }
        }
        scene.start();
    }
    scene.goes_on(name);
}

/// Which rings stand in a journal, after its head and what each is known by.
fn records(journal: &Path) -> [bool; 2] {
    let bytes = std::fs::read(journal).unwrap();
    [0, 1].map(|ring| bytes[64 + ring * 640 + 64..][..8] != [0; 8])
}

#[test]
fn a_ring_with_a_region_is_not_in_the_journal_as_well() {
    let mut scene = Scene::new(&options(features::PACKED, &[], 256));
    let journal = scene.folder.0.join("a.journal");
    scene.goes_on("without a region");
    assert_eq!(records(&journal), [true, true]);
    // The front-end comes back with one, in which nothing stands yet: the base is the front-end's.
    let mut bases = [0; 2];
    let guest = &mut scene.guests[0];
    for (ring, base) in (0..2).zip(&mut bases) {
        *base = guest.front.as_mut().unwrap().get_vring_base(ring).unwrap();
    }
    for (ring, base) in guest.setup.rings.iter_mut().zip(bases) {
        ring.set_base(base);
    }
    guest.tracks_inflight();
    guest.front = None;
    guest.connect(&scene.folder.0.join(PORTS[0]));
    scene.goes_on("with a region");
    assert_eq!(records(&journal), [false, false]);
    scene.kill();
    scene.start();
    scene.goes_on("killed, with a region");
    assert_eq!(records(&journal), [false, false]);
}

#[test]
fn a_stopped_ring_is_no_longer_in_the_journal() {
    let mut scene = Scene::new(&options(features::PACKED, &[], 256));
    let journal = scene.folder.0.join("a.journal");
    let records = || records(&journal);
    scene.goes_on("packed");
    assert_eq!(records(), [true, true]);
    let mut bases = [0; 2];
    for (ring, base) in (0..2).zip(&mut bases) {
        *base = scene.guests[0]
            .front
            .as_mut()
            .unwrap()
            .get_vring_base(ring)
            .unwrap();
    }
    assert_eq!(records(), [false, false]);
    // What the front-end was told then counts.
    scene.kill();
    scene.switch = Killed::start(&scene.folder.0);
    for (ring, base) in scene.guests[0].setup.rings.iter_mut().zip(bases) {
        ring.set_base(base);
    }
    scene.connect();
    scene.goes_on("packed, stopped");
    assert_eq!(records(), [true, true]);
}
