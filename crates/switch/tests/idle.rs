//! What a switch costs that has nothing to do: 64 ports of two queue pairs, each with a front-end and
//! a driver that runs.
//!
//! The switch is a process of its own, so that nothing of the guests is counted with it: this program,
//! started once more.

mod mock;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use mock::frames::{BROADCAST, frame, mac};
use mock::{Guest, Options, PATIENCE};
use ringway_api::port_spec::PortSpec;
use ringway_switch::{Config, Switch};

const PORTS: u8 = 64;

/// CPU of an idle switch, in thousandths of one processor: less than half a percent.
const IDLE_CPU: u128 = 5;

/// For so long it is watched.
const WATCHED: Duration = Duration::from_secs(3);

/// Memory of its own: a port of two pairs, and everything with 64 of them.
const PORT_KIB: u64 = 1024;
const PROCESS_KIB: u64 = 30 * 1024;

/// What the program is told to be the switch.
const SWITCH: &str = "--be-the-switch";

fn main() {
    let mut arguments = std::env::args().skip(1);
    if arguments.next().as_deref() == Some(SWITCH) {
        return be_the_switch(&PathBuf::from(arguments.next().unwrap()));
    }
    for workers in [1, 2] {
        costs_next_to_nothing(workers);
    }
}

/// The switch, until its standard input ends.
fn be_the_switch(folder: &Path) {
    let workers = std::env::args().nth(3).unwrap().parse().unwrap();
    let ports = (0..PORTS).map(|n| {
        let path = socket(folder, n);
        let port = format!("vhost-user,path={},queues=2", path.display());
        port.parse::<PortSpec>().unwrap().into()
    });
    let switch = Switch::embed(Config {
        ports: ports.collect(),
        workers,
        ..Config::default()
    });
    let switch = switch.unwrap();
    let ender = switch.ender();
    std::thread::spawn(move || {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        ender.end();
    });
    switch.run(&mut std::io::stdout()).unwrap();
}

fn socket(folder: &Path, n: u8) -> PathBuf {
    folder.join(format!("p{n}"))
}

/// A switch process and its folder.
struct Process {
    child: Child,
    folder: PathBuf,
}

impl Process {
    fn start(workers: usize) -> Self {
        // By this name other tests remove it, should this one be killed.
        let name = format!("ringway-mock-{}-idle-{workers}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        fs::create_dir_all(&folder).unwrap();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .arg(SWITCH)
            .arg(&folder)
            .arg(workers.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        out.read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        Self { child, folder }
    }

    fn read(&self, file: &str) -> String {
        fs::read_to_string(format!("/proc/{}/{file}", self.child.id())).unwrap()
    }

    /// CPU of all its threads, to the nanosecond.
    fn cpu(&self) -> Duration {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.child.id())).unwrap();
        let each = tasks.map(|task| -> u64 {
            let text = fs::read_to_string(task.unwrap().path().join("schedstat")).unwrap();
            text.split(' ').next().unwrap().parse().unwrap()
        });
        Duration::from_nanos(each.sum())
    }

    /// Times that its control thread, the first of the process, has gone to sleep.
    fn sleeps(&self) -> u64 {
        let status = self.read("status");
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        line.unwrap().trim().parse().unwrap()
    }

    /// KiB of its own: without what it shares with guests.
    fn own_memory(&self) -> u64 {
        let rollup = self.read("smaps_rollup");
        let line = |name: &str| -> u64 {
            let line = rollup.lines().find(|line| line.starts_with(name)).unwrap();
            line.split_whitespace().nth(1).unwrap().parse().unwrap()
        };
        line("Pss_Anon:") + line("Pss_File:")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let ended = self.child.wait();
        let left = fs::read_dir(&self.folder).map(Iterator::count);
        let _ = fs::remove_dir_all(&self.folder);
        if !std::thread::panicking() {
            assert!(ended.unwrap().success());
            assert_eq!(left.unwrap(), 0);
        }
    }
}

fn costs_next_to_nothing(workers: usize) {
    let process = Process::start(workers);
    let options = Options {
        pairs: 2,
        buffers: 8,
        ..Options::default()
    };
    let before = process.own_memory();
    let guests = (0..PORTS).map(|n| Guest::start(&socket(&process.folder, n), options.clone()));
    let mut guests: Vec<Guest> = guests.collect();
    // Every port has carried something in each direction.
    let (first, others) = guests.split_first_mut().unwrap();
    first.send(&frame(mac(1), BROADCAST, 60, 0));
    for (n, guest) in (2..=PORTS).zip(others) {
        guest.receive();
        guest.send(&frame(mac(n), mac(1), 60, 0));
        first.receive();
    }
    guests.iter_mut().for_each(|guest| guest.drain());
    bustle(&mut guests);
    let memory = process.own_memory();
    let each = (memory - before) / u64::from(PORTS);
    let (cpu, share, woken) = idle_cpu(&process);
    println!(
        "{PORTS} idle ports, {workers} workers: {cpu:?} of CPU in {WATCHED:?}, {each} KiB per port, {memory} KiB in all"
    );
    std::io::stdout().flush().unwrap();
    assert!(each < PORT_KIB, "{each} KiB per port");
    assert!(memory < PROCESS_KIB, "{memory} KiB");
    assert!(share < IDLE_CPU, "{cpu:?} of CPU in {WATCHED:?}");
    // It sweeps its table every ten seconds; nobody looks at the load of workers that have none.
    assert!(woken <= 1, "the control thread woke {woken} times");
}

/// Two guests that keep the workers busy for long enough to have the load looked at.
fn bustle(guests: &mut [Guest]) {
    let [first, second, ..] = guests else { return };
    let end = Instant::now() + Duration::from_millis(500);
    while Instant::now() < end {
        for _ in 0..8 {
            second.send(&frame(mac(2), mac(1), 60, 0));
        }
        first.receive_all(8);
    }
    second.drain();
}

/// CPU that is used while nothing happens, how many thousandths of a processor that is, and how often
/// the control thread woke.
fn idle_cpu(process: &Process) -> (Duration, u128, u64) {
    // What was begun comes to its end first: looks at the load, several times a second.
    let deadline = Instant::now() + PATIENCE;
    let mut sleeps = process.sleeps();
    loop {
        std::thread::sleep(Duration::from_secs(1));
        let now = process.sleeps();
        if now == sleeps {
            break;
        }
        assert!(
            Instant::now() < deadline,
            "the control thread finds no rest"
        );
        sleeps = now;
    }
    let before = process.cpu();
    std::thread::sleep(WATCHED);
    let used = process.cpu() - before;
    let share = used.as_nanos() * 1000 / WATCHED.as_nanos();
    (used, share, process.sleeps() - sleeps)
}
