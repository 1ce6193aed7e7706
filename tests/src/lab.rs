//! Where a test works: the machine to itself, a folder for sockets, a folder for logs.

use std::{
    env,
    fs::{self, File},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
};

use anyhow::{Context, Result};
use rustix::fs::{FlockOperation, flock};

use crate::{Guest, Nic, guest::Builder, switch::SwitchBuilder};

/// One test's surroundings. Only one lab exists on a machine's checkout at a time: emulated guests need the whole machine.
#[derive(Debug)]
pub struct Lab {
    name: String,
    sockets: PathBuf,
    logs: PathBuf,
    _turn: File,
}

impl Lab {
    /// Waits for its turn, then makes the folders. `name` is the test's own; logs go to `target/tmp/NAME`.
    pub fn new(name: &str) -> Result<Self> {
        let target = target();
        fs::create_dir_all(&target)?;
        let turn = File::create(target.join("lab.lock"))?;
        flock(&turn, FlockOperation::LockExclusive).context("cannot wait for the machine")?;

        let logs = target.join("tmp").join(name);
        let _ = fs::remove_dir_all(&logs);
        fs::create_dir_all(&logs).with_context(|| format!("cannot make {}", logs.display()))?;

        // A socket's path has at most 107 bytes; a checkout may lie deep.
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        if number == 0 {
            sweep(&env::temp_dir());
        }
        let sockets = env::temp_dir().join(format!("{PREFIX}{}-{number}", std::process::id()));
        fs::create_dir_all(&sockets)
            .with_context(|| format!("cannot make {}", sockets.display()))?;
        Ok(Self {
            name: name.to_owned(),
            sockets,
            logs,
            _turn: turn,
        })
    }

    /// The test's name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// A path for a socket or a scratch file.
    pub fn path(&self, name: &str) -> PathBuf {
        self.sockets.join(name)
    }

    /// A path for a file that stays, for reading after a failure.
    pub fn log(&self, name: &str) -> PathBuf {
        self.logs.join(name)
    }

    /// A guest to be described further and booted.
    pub fn guest(&self, name: &str) -> Builder<'_> {
        Guest::builder(self, name)
    }

    /// A switch to be given ports and started.
    pub fn switch(&self) -> SwitchBuilder<'_> {
        SwitchBuilder::new(self)
    }

    /// A NIC at the vhost-user port `name` of this lab's switch.
    pub fn nic(&self, name: &str) -> Nic {
        Nic::vhost_user(self.path(name))
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.sockets);
    }
}

/// What the names of socket folders begin with; the process and a number follow.
const PREFIX: &str = "ringway-lab-";

/// Removes the folders that killed tests left in `folder`.
fn sweep(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let owner = name.to_str().and_then(|name| {
            name.strip_prefix(PREFIX)?
                .split('-')
                .next()?
                .parse::<u32>()
                .ok()
        });
        if let Some(owner) = owner
            && !Path::new("/proc").join(owner.to_string()).exists()
        {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// The checkout.
pub fn checkout() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap_or(Path::new("."))
}

/// Its `target` folder, where guests and logs are, whatever cargo's own target folder is.
pub fn target() -> PathBuf {
    checkout().join("target")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lab_takes_its_sockets_along() {
        let lab = Lab::new("lab-self-test").unwrap();
        let socket = lab.path("a");
        fs::write(&socket, "").unwrap();
        assert!(socket.as_os_str().len() < 108);
        drop(lab);
        assert!(!socket.exists());
    }

    #[test]
    fn what_killed_tests_left_is_removed_and_nothing_else() {
        let lab = Lab::new("lab-sweep-self-test").unwrap();
        // Process numbers end below 2^22.
        let names = [
            format!("{PREFIX}4194304-0"),
            format!("{PREFIX}{}-0", std::process::id()),
            format!("{PREFIX}4194304x-0"),
            "ringway-4194304-0".to_owned(),
        ];
        for name in &names {
            fs::create_dir(lab.path(name)).unwrap();
            fs::write(lab.path(name).join("a"), "").unwrap();
        }
        sweep(&lab.path(""));
        let left = names.map(|name| lab.path(&name).exists());
        assert_eq!(left, [false, true, true, true]);
    }
}
