//! What somebody can do who has taken over a thread of a switch in its sandbox.
//!
//! Each attempt is a process of its own, this program started once more: it gives up its rights as a
//! switch does, starts a thread as a worker or goes on as the control thread, and tries. What came of
//! it is its exit code, or the signal that ended it.

use std::fs::File;
use std::io::{Error, ErrorKind};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixListener;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use ringway_mem::{GuestMemory, RegionRequest};
use ringway_switch::sandbox::{Confinement, Reach, Role};
use rustix::net::{AddressFamily, SocketFlags, SocketType};

/// What the program is told to try instead of being the test.
const TRY: &str = "--try";

/// Bytes that a front-end shares.
const MEMORY: u64 = 1 << 16;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [first, attempt, role, folder] = arguments.as_slice()
        && first == TRY
    {
        return attempt_as(attempt, role, Path::new(folder));
    }
    let folder = Folder::new();
    what_nothing_ever_does_kills_the_process(&folder.0);
    what_is_not_allowed_fails_as_if_the_kernel_did_not_know_it(&folder.0);
    what_a_switch_does_still_works(&folder.0);
    the_first_table_of_memory_comes_when_the_sandbox_stands(&folder.0);
    landlock_holds_where_the_filter_does_not(&folder.0);
    ExitCode::SUCCESS
}

fn what_nothing_ever_does_kills_the_process(folder: &Path) {
    let hostile = [
        "execve",
        "ptrace",
        "kill",
        "tgkill",
        "setuid",
        "unshare",
        "exec-memory",
        "exec-mapping",
        "inet-socket",
        "process-memory",
    ];
    for attempt in hostile {
        for role in ["control", "worker"] {
            assert_eq!(
                outcome(attempt, role, folder),
                Outcome::Killed,
                "{attempt}, {role}"
            );
        }
    }
}

fn what_is_not_allowed_fails_as_if_the_kernel_did_not_know_it(folder: &Path) {
    for attempt in ["open", "create", "unix-socket", "fork", "chmod", "io-uring"] {
        for role in ["control", "worker"] {
            let unknown = Outcome::Failed(libc::ENOSYS);
            assert_eq!(outcome(attempt, role, folder), unknown, "{attempt}, {role}");
        }
    }
    // What only the control thread does.
    for attempt in ["remove", "thread", "memfd"] {
        let unknown = Outcome::Failed(libc::ENOSYS);
        assert_eq!(outcome(attempt, "worker", folder), unknown, "{attempt}");
    }
}

fn what_a_switch_does_still_works(folder: &Path) {
    for attempt in ["thread", "remove", "memfd", "abort-is-own"] {
        assert_eq!(
            outcome(attempt, "control", folder),
            Outcome::Done,
            "{attempt}"
        );
    }
    for attempt in ["map", "abort-is-own"] {
        assert_eq!(
            outcome(attempt, "worker", folder),
            Outcome::Done,
            "{attempt}"
        );
    }
    for attempt in ["unix-socket", "connect-unix"] {
        assert_eq!(
            outcome(attempt, "client", folder),
            Outcome::Done,
            "{attempt}"
        );
    }
}

/// What mapping asks of the system once has to be asked before, as a switch does when it starts.
fn the_first_table_of_memory_comes_when_the_sandbox_stands(folder: &Path) {
    for role in ["control", "client"] {
        assert_eq!(outcome("map-table", role, folder), Outcome::Done, "{role}");
    }
}

/// The same without a filter of system calls.
fn landlock_holds_where_the_filter_does_not(folder: &Path) {
    if outcome("landlock", "bare", folder) != Outcome::Done {
        eprintln!("SKIPPED: this kernel has no Landlock that knows of signals (6.12)");
        return;
    }
    assert_eq!(outcome("remove", "bare", folder), Outcome::Done);
    assert_eq!(outcome("own-account", "bare", folder), Outcome::Done);
    for attempt in ["open", "create", "remove-elsewhere", "connect-tcp"] {
        let denied = Outcome::Failed(libc::EACCES);
        assert_eq!(outcome(attempt, "bare", folder), denied, "{attempt}");
    }
    let denied = Outcome::Failed(libc::EPERM);
    for attempt in ["kill", "connect-abstract"] {
        assert_eq!(outcome(attempt, "bare", folder), denied, "{attempt}");
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Done,
    Failed(i32),
    Killed,
}

/// What became of an attempt in a process of its own, which may remove `folder/yes/file`.
fn outcome(attempt: &str, role: &str, folder: &Path) -> Outcome {
    for name in ["yes/file", "no/file"] {
        std::fs::create_dir_all(folder.join(name).parent().unwrap()).unwrap();
        File::create(folder.join(name)).unwrap();
    }
    let program = std::env::current_exe().unwrap();
    let status = Command::new(program)
        .args([TRY, attempt, role])
        .arg(folder)
        .status()
        .unwrap();
    match (status.code(), status.signal()) {
        (Some(0), _) => Outcome::Done,
        (Some(code), _) => Outcome::Failed(code),
        (None, Some(libc::SIGSYS)) => Outcome::Killed,
        (_, signal) => panic!("{attempt} as {role} ended with signal {signal:?}"),
    }
}

fn attempt_as(attempt: &str, role: &str, folder: &Path) -> ExitCode {
    ringway_port::guard_memory().unwrap();
    // Opened by others before, so that what is tried is to reach it and not to make it.
    let outside = Outside::new(folder, attempt);
    let mut reach = Reach {
        removing: vec![folder.join("yes")],
        connecting: Vec::new(),
    };
    if role == "client" {
        reach.connecting.push(folder.into());
    }
    let confinement = Confinement::enter(&reach).unwrap();
    let result = match role {
        "worker" => std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                confinement.narrow(Role::Carrier).unwrap();
                tried(attempt, folder, outside)
            });
            thread.join().unwrap()
        }),
        "bare" => tried(attempt, folder, outside),
        _ => {
            confinement.narrow(Role::Control).unwrap();
            tried(attempt, folder, outside)
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let code = error
                .raw_os_error()
                .and_then(|code| u8::try_from(code).ok());
            ExitCode::from(code.unwrap_or(u8::MAX))
        }
    }
}

/// What there is to be reached.
struct Outside {
    tcp: TcpListener,
    _unix: Option<UnixListener>,
    abstract_name: rustix::net::SocketAddrUnix,
    _abstract_socket: rustix::fd::OwnedFd,
    /// What a front-end shares.
    memory: rustix::fd::OwnedFd,
}

impl Outside {
    fn new(folder: &Path, attempt: &str) -> Self {
        let flags = SocketFlags::CLOEXEC;
        let socket =
            rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None).unwrap();
        let name = format!("ringway-sandbox-{}", std::process::id());
        let name = rustix::net::SocketAddrUnix::new_abstract_name(name.as_bytes()).unwrap();
        rustix::net::bind(&socket, &name).unwrap();
        rustix::net::listen(&socket, 1).unwrap();
        let path = folder.join("unix");
        let unix = (attempt == "connect-unix").then(|| {
            let _ = std::fs::remove_file(&path);
            UnixListener::bind(&path).unwrap()
        });
        let memory = rustix::fs::memfd_create("guest", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        rustix::fs::ftruncate(&memory, MEMORY).unwrap();
        Self {
            memory,
            tcp: TcpListener::bind(("127.0.0.1", 0)).unwrap(),
            _unix: unix,
            abstract_name: name,
            _abstract_socket: socket,
        }
    }
}

fn tried(attempt: &str, folder: &Path, outside: Outside) -> Result<(), Error> {
    let own = i64::from(std::process::id());
    let parent = i64::from(std::os::unix::process::parent_id());
    let page = 4096;
    let read_write = i64::from(libc::PROT_READ | libc::PROT_WRITE);
    let private = i64::from(libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    match attempt {
        "execve" => Err(Command::new("/bin/true").exec()),
        "ptrace" => call(
            libc::SYS_ptrace,
            [i64::from(libc::PTRACE_ATTACH), parent, 0, 0, 0, 0],
        ),
        // Signal 0 harms nobody and is a signal all the same.
        "kill" => call(libc::SYS_kill, [parent, 0, 0, 0, 0, 0]),
        "tgkill" => call(libc::SYS_tgkill, [parent, parent, 0, 0, 0, 0]),
        "abort-is-own" => call(libc::SYS_tgkill, [own, own, 0, 0, 0, 0]),
        "setuid" => call(libc::SYS_setuid, [0; 6]),
        "unshare" => call(
            libc::SYS_unshare,
            [libc::CLONE_NEWUSER.into(), 0, 0, 0, 0, 0],
        ),
        "io-uring" => call(libc::SYS_io_uring_setup, [1, 0, 0, 0, 0, 0]),
        "process-memory" => call(libc::SYS_process_vm_readv, [parent, 0, 0, 0, 0, 0]),
        "exec-memory" => call(
            libc::SYS_mprotect,
            [0, page, libc::PROT_EXEC.into(), 0, 0, 0],
        ),
        "exec-mapping" => {
            let protection = read_write | i64::from(libc::PROT_EXEC);
            call(libc::SYS_mmap, [0, page, protection, private, -1, 0])
        }
        "map" => call(libc::SYS_mmap, [0, page, read_write, private, -1, 0]),
        "map-table" => {
            let region = RegionRequest {
                guest_address: 0,
                size: MEMORY,
                user_address: 0,
                mmap_offset: 0,
                file: outside.memory,
            };
            let table = GuestMemory::map(vec![region]);
            table.map(drop).map_err(|_| ErrorKind::Other.into())
        }
        "memfd" => call(
            libc::SYS_memfd_create,
            [c"x".as_ptr().addr().cast_signed() as i64, 0, 0, 0, 0, 0],
        ),
        "fork" => call(libc::SYS_clone, [libc::SIGCHLD.into(), 0, 0, 0, 0, 0]),
        "thread" => std::thread::Builder::new()
            .spawn(|| ())?
            .join()
            .map_err(|_| ErrorKind::Other.into()),
        "inet-socket" => socket(AddressFamily::INET).map(drop),
        "unix-socket" => socket(AddressFamily::UNIX).map(drop),
        "connect-unix" => {
            let address = rustix::net::SocketAddrUnix::new(folder.join("unix"))?;
            Ok(rustix::net::connect(
                socket(AddressFamily::UNIX)?,
                &address,
            )?)
        }
        "connect-abstract" => Ok(rustix::net::connect(
            socket(AddressFamily::UNIX)?,
            &outside.abstract_name,
        )?),
        "connect-tcp" => TcpStream::connect(outside.tcp.local_addr()?).map(drop),
        "open" => File::open(folder.join("yes/file")).map(drop),
        "own-account" => File::open("/proc/thread-self/schedstat").map(drop),
        "create" => File::create(folder.join("yes/new")).map(drop),
        "chmod" => Ok(rustix::fs::chmod(folder, rustix::fs::Mode::RWXU)?),
        "remove" => Ok(rustix::fs::unlink(folder.join("yes/file"))?),
        "remove-elsewhere" => Ok(rustix::fs::unlink(folder.join("no/file"))?),
        "landlock" => knows_signals(),
        other => panic!("no attempt {other}"),
    }
}

fn socket(family: AddressFamily) -> Result<rustix::fd::OwnedFd, Error> {
    let socket = rustix::net::socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None);
    Ok(socket?)
}

/// Asks the kernel for the version of its Landlock.
fn knows_signals() -> Result<(), Error> {
    // SAFETY: no pointer is read with this flag.
    let version = unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, 0, 0, 1) };
    if version < 6 {
        return Err(ErrorKind::Unsupported.into());
    }
    Ok(())
}

/// A system call whose outcome alone matters.
fn call(number: libc::c_long, arguments: [i64; 6]) -> Result<(), Error> {
    let [a, b, c, d, e, f] = arguments;
    // SAFETY: the calls made above change nothing that this process uses: what they would change is
    // another process, a page at address 0, or a new mapping that nobody looks at.
    let result = unsafe { libc::syscall(number, a, b, c, d, e, f) };
    if result == -1 {
        return Err(Error::last_os_error());
    }
    Ok(())
}

struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        let path = std::env::temp_dir().join(format!("ringway-sandbox-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
