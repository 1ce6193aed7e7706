//! Where a machine that runs is written down: a directory of its own, `RUN/vm/NAME`.
//!
//! | File | What it is |
//! |---|---|
//! | `lock` | locked (flock) by the machine's supervisor as long as it lives |
//! | `machine.json` | a [`Record`] |
//! | `monitor`, `console` | QEMU's sockets |
//! | `seed.img` | cloud-init's disk |
//! | `pinned.json` | what affinities were before they were changed |
//! | `log` | what QEMU said |
//!
//! Whoever holds the lock is responsible for everything the record names. Where nobody does, the supervisor was killed, and whoever
//! comes by may take the lock and clean up.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use ringway_api::v1::Name;
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use crate::{Accel, Machine, Qemu};

/// A machine that was started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// What it is.
    pub machine: Machine,
    /// What runs it.
    pub qemu: Qemu,
    /// How.
    pub accel: Accel,
    /// QEMU's process, once there is one.
    pub pid: Option<i32>,
    /// The supervisor's process.
    pub supervisor: i32,
    /// What the guest writes, if it goes with the machine.
    pub overlay: Option<PathBuf>,
    /// Ports that its NICs are at, in their order.
    pub ports: Vec<PortOf>,
    /// The socket of the daemon that has them.
    pub daemon: PathBuf,
    /// Who logs in there over SSH.
    pub user: String,
    /// With which private key, if it is not any of the user's.
    pub key: Option<PathBuf>,
}

/// A port of the daemon that a NIC is at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortOf {
    /// Its network.
    pub network: Name,
    /// Its name there.
    pub port: Name,
    /// It was made for this machine, and goes with it.
    pub made: bool,
}

/// The directory of one machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Folder {
    path: PathBuf,
    name: Name,
}

/// A directory that is ours as long as this value lives.
#[derive(Debug)]
pub struct Claim {
    folder: Folder,
    _lock: File,
}

/// Why a directory cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// The machine runs.
    #[error(
        "a machine {0} runs already: `ringway vm show {0}` shows it, --name gives this one another name"
    )]
    Taken(Name),
    /// There is no such machine.
    #[error("no machine {0} runs: `ringway vm list` shows which do")]
    NoMachine(Name),
    /// The system does not let us.
    #[error("{}: {error}", .path.display())]
    System {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
}

impl Folder {
    /// That of the machine `name` below the run directory; nothing is made.
    pub fn new(run: &Path, name: &Name) -> Self {
        Self {
            path: all(run).join(name.as_str()),
            name: name.clone(),
        }
    }

    /// Those of all machines, by name.
    pub fn list(run: &Path) -> Result<Vec<Self>, FolderError> {
        let path = all(run);
        let entries = match fs::read_dir(&path) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(FolderError::System { path, error }),
        };
        let name = |entry: fs::DirEntry| entry.file_name().to_str()?.parse::<Name>().ok();
        let mut names: Vec<Name> = entries.flatten().filter_map(name).collect();
        names.sort();
        Ok(names.iter().map(|name| Self::new(run, name)).collect())
    }

    /// The machine's name.
    pub fn name(&self) -> &Name {
        &self.name
    }

    /// Socket of QEMU's monitor.
    pub fn monitor(&self) -> PathBuf {
        self.path.join("monitor")
    }

    /// Socket of the serial console.
    pub fn console(&self) -> PathBuf {
        self.path.join("console")
    }

    /// cloud-init's disk.
    pub fn seed(&self) -> PathBuf {
        self.path.join("seed.img")
    }

    /// What affinities were before they were changed.
    pub fn pinned(&self) -> PathBuf {
        self.path.join("pinned.json")
    }

    /// What QEMU said.
    pub fn log(&self) -> PathBuf {
        self.path.join("log")
    }

    /// Makes the directory and locks it; one that nobody holds is taken as it is.
    pub fn claim(&self) -> Result<Claim, FolderError> {
        let failed = |error| self.failed(error);
        DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(self.path.parent().unwrap_or(&self.path))
            .map_err(failed)?;
        match DirBuilder::new().mode(0o700).create(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(failed(error));
            }
            _ => (),
        }
        let lock = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(self.path.join("lock"))
            .map_err(failed)?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Claim {
                folder: self.clone(),
                _lock: lock,
            }),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(FolderError::Taken(self.name.clone())),
            Err(error) => Err(failed(error.into())),
        }
    }

    /// What is written down; [`FolderError::NoMachine`] if nothing is.
    pub fn record(&self) -> Result<Record, FolderError> {
        let text =
            fs::read(self.path.join("machine.json")).map_err(|error| match error.kind() {
                io::ErrorKind::NotFound => FolderError::NoMachine(self.name.clone()),
                _ => self.failed(error),
            })?;
        serde_json::from_slice(&text).map_err(|error| self.failed(error.into()))
    }

    fn failed(&self, error: io::Error) -> FolderError {
        FolderError::System {
            path: self.path.clone(),
            error,
        }
    }
}

impl Claim {
    /// The directory.
    pub fn folder(&self) -> &Folder {
        &self.folder
    }

    /// Writes down what the machine is; readers see the old or the new text.
    pub fn write(&self, record: &Record) -> Result<(), FolderError> {
        let (new, path) = (
            self.folder.path.join("machine.json.new"),
            self.folder.path.join("machine.json"),
        );
        let text = serde_json::to_vec_pretty(record).map_err(io::Error::from);
        text.and_then(|text| fs::write(&new, text))
            .and_then(|()| fs::rename(&new, &path))
            .map_err(|error| self.folder.failed(error))
    }

    /// Removes the directory with all that is in it.
    pub fn remove(self) -> Result<(), FolderError> {
        match fs::remove_dir_all(&self.folder.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(self.folder.failed(error)),
            _ => Ok(()),
        }
    }
}

fn all(run: &Path) -> PathBuf {
    run.join("vm")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{machine::example, qemu::Version};

    fn record() -> Record {
        Record {
            machine: example(),
            qemu: Qemu {
                program: "/usr/bin/qemu".into(),
                version: Version(10, 0),
            },
            accel: Accel::Tcg,
            pid: Some(7),
            supervisor: 6,
            overlay: Some("/var/lib/ringway/vm/web.qcow2".into()),
            ports: vec![PortOf {
                network: "lan".parse().unwrap(),
                port: "web".parse().unwrap(),
                made: true,
            }],
            daemon: "/run/ringway/api.sock".into(),
            user: "ringway".into(),
            key: None,
        }
    }

    #[test]
    fn a_machine_is_written_down_once_and_gone_when_removed() {
        let run = std::env::temp_dir().join(format!("ringway-folder-{}", std::process::id()));
        let name: Name = "web".parse().unwrap();
        let folder = Folder::new(&run, &name);
        assert_eq!(Folder::list(&run).unwrap(), []);
        assert!(matches!(folder.record(), Err(FolderError::NoMachine(_))));
        let claim = folder.claim().unwrap();
        claim.write(&record()).unwrap();
        assert_eq!(folder.record().unwrap(), record());
        assert_eq!(Folder::list(&run).unwrap(), std::slice::from_ref(&folder));
        let refused = folder.claim().unwrap_err().to_string();
        assert!(refused.contains("web runs already"), "{refused}");
        // Its holder was killed.
        drop(claim);
        let claim = folder.claim().unwrap();
        assert_eq!(folder.record().unwrap(), record());
        claim.remove().unwrap();
        assert_eq!(Folder::list(&run).unwrap(), []);
        fs::remove_dir_all(&run).unwrap();
    }
}
