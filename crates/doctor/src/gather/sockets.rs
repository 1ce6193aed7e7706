//! The vhost-user sockets that command lines name, and who has them. Nobody is connected to: a back-end serves one machine.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::{Path, PathBuf},
};

use rustix::{
    io::Errno,
    net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with},
};

use crate::{
    command::Command,
    facts::{Folder, Machine, Socket},
};

/// Sockets of the file system in all network namespaces that can be seen.
pub(super) struct Table {
    entries: Vec<Entry>,
}

struct Entry {
    path: PathBuf,
    inode: u64,
    listens: bool,
    connected: bool,
}

/// What is known of a path.
#[derive(Default)]
pub(super) struct State {
    listening: BTreeSet<u64>,
    pub(super) connected: bool,
}

impl State {
    /// Whether a process has the socket that listens.
    pub(super) fn is_of(&self, pid: i32) -> bool {
        let entries = fs::read_dir(format!("/proc/{pid}/fd"))
            .into_iter()
            .flatten();
        entries.flatten().any(|entry| {
            let target = fs::read_link(entry.path()).unwrap_or_default();
            let inode = target
                .to_str()
                .and_then(|it| it.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok());
            inode.is_some_and(|inode| self.listening.contains(&inode))
        })
    }
}

impl Table {
    pub(super) fn read() -> Self {
        let mut seen = BTreeSet::new();
        let mut entries = Vec::new();
        for pid in super::processes() {
            let proc = format!("/proc/{pid}");
            let Ok(namespace) = fs::metadata(format!("{proc}/ns/net")) else {
                continue;
            };
            if seen.insert(namespace.ino()) {
                let text = fs::read_to_string(format!("{proc}/net/unix")).unwrap_or_default();
                entries.extend(text.lines().skip(1).filter_map(entry));
            }
        }
        Self { entries }
    }

    /// The sockets that a machine's NICs are at.
    pub(super) fn of_machine(&self, machine: &Machine) -> Vec<Socket> {
        let Some(folder) = home(machine) else {
            return Vec::new();
        };
        let nics = Command::parse(&machine.command).nics();
        let paths = nics.iter().filter_map(crate::command::Nic::socket);
        paths.map(|path| self.socket(&folder, path)).collect()
    }

    /// Who has the socket at a path.
    pub(super) fn state(&self, folder: &Path, path: &Path) -> State {
        let resolved = resolve(folder, path);
        let same = |it: &Path| it == path || resolve(folder, it) == resolved;
        let mut state = State::default();
        for entry in self.entries.iter().filter(|entry| same(&entry.path)) {
            // The end that was accepted bears the path.
            state.connected |= entry.connected;
            if entry.listens {
                state.listening.insert(entry.inode);
            }
        }
        state
    }

    fn socket(&self, folder: &Path, path: PathBuf) -> Socket {
        let resolved = resolve(folder, &path);
        let mut socket = Socket {
            folders: closed_folders(&resolved),
            ..Socket::default()
        };
        if let Ok(metadata) = fs::metadata(&resolved) {
            socket.is_socket = Some(metadata.file_type().is_socket());
            socket.mode = metadata.mode() & 0o7777;
            socket.owner = metadata.uid();
            socket.group = metadata.gid();
            socket.alive = alive(&resolved);
        }
        let state = self.state(folder, &path);
        let listened = !state.listening.is_empty();
        if listened {
            let pids = super::processes().into_iter();
            socket.listeners = pids.filter(|pid| state.is_of(*pid)).collect();
        }
        // Where the listener is not seen, who was accepted need not be seen either.
        if state.connected || listened || socket.alive == Some(false) {
            socket.connected = Some(state.connected);
        }
        socket.path = path;
        socket.resolved = resolved;
        socket
    }
}

/// `Num RefCount Protocol Flags Type St Inode Path` (net/unix/af_unix.c).
fn entry(line: &str) -> Option<Entry> {
    const ACCEPTS: u32 = 1 << 16;
    const CONNECTED: u32 = 3;
    let words: Vec<&str> = line.splitn(8, ' ').collect();
    // The inode is padded, so the path may stand behind more than one space.
    let (head, path) = line.split_at(line.find('/')?);
    let words = match head.split_whitespace().collect::<Vec<_>>() {
        head if head.len() == 7 => head,
        _ => words,
    };
    let number = |index: usize| u32::from_str_radix(words.get(index)?, 16).ok();
    Some(Entry {
        path: path.into(),
        inode: words.get(6)?.trim().parse().ok()?,
        listens: number(3)? & ACCEPTS != 0,
        connected: number(5)? == CONNECTED,
    })
}

/// The folder from which a machine's paths count; `None` = they mean something else here, or nobody may look.
pub(super) fn home(machine: &Machine) -> Option<PathBuf> {
    let place = match machine.pid {
        Some(pid) => Path::new("/proc").join(pid.to_string()),
        None => PathBuf::from("/proc/self"),
    };
    let files = fs::read_link(place.join("ns/mnt")).ok()?;
    let same = fs::read_link("/proc/self/ns/mnt").is_ok_and(|own| own == files);
    same.then(|| fs::read_link(place.join("cwd")).unwrap_or_default())
}

/// From the root, without links on the way to the last part, which need not be there.
pub(super) fn resolve(folder: &Path, path: &Path) -> PathBuf {
    let whole = folder.join(path);
    let resolved = whole.parent().and_then(|it| fs::canonicalize(it).ok());
    match (resolved, whole.file_name()) {
        (Some(parent), Some(name)) => parent.join(name),
        _ => whole,
    }
}

/// Whether a socket has a program. A connection of another type than the socket's is refused in one way if it has, in another if
/// not, and is noticed by nobody (net/unix/af_unix.c, `unix_find_bsd`).
fn alive(path: &Path) -> Option<bool> {
    let address = SocketAddrUnix::new(path).ok()?;
    let kind = SocketType::SEQPACKET;
    let socket = socket_with(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None).ok()?;
    match connect(&socket, &address) {
        Err(Errno::PROTOTYPE) => Some(true),
        Err(Errno::CONNREFUSED) => Some(false),
        _ => None,
    }
}

fn closed_folders(path: &Path) -> Vec<Folder> {
    let all = path.ancestors().skip(1).filter_map(|path| {
        let metadata = fs::metadata(path).ok()?;
        Some(Folder {
            path: path.to_owned(),
            mode: metadata.mode() & 0o7777,
            owner: metadata.uid(),
            group: metadata.gid(),
        })
    });
    all.filter(|folder| folder.mode & 0o001 == 0).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::{UnixListener, UnixStream};

    use super::*;

    #[test]
    fn a_socket_is_told_from_what_was_left_of_one() {
        let folder = std::env::temp_dir().join(format!("ringway-doctor {}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let path = folder.join("a b");
        let listener = UnixListener::bind(&path).unwrap();
        let look = || Table::read().socket(&folder, "a b".into());
        let it = look();
        assert_eq!(
            (it.is_socket, it.alive, it.connected),
            (Some(true), Some(true), Some(false))
        );
        assert_eq!(it.listeners, [i32::try_from(std::process::id()).unwrap()]);
        let _front = UnixStream::connect(&path).unwrap();
        // Nobody but this one was there.
        let (_back, _) = listener.accept().unwrap();
        listener.set_nonblocking(true).unwrap();
        assert!(listener.accept().is_err());
        assert_eq!(look().connected, Some(true));
        drop(listener);
        let it = look();
        assert_eq!((it.is_socket, it.alive), (Some(true), Some(false)));
        fs::remove_dir_all(&folder).unwrap();
        let it = look();
        assert_eq!((it.is_socket, it.alive), (None, None));
    }
}
