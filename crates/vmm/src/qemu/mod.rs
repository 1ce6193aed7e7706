//! QEMU: which one there is, what is wrong with it, and its command line.

mod arguments;
mod faults;

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use serde::{Deserialize, Serialize};

pub use arguments::arguments;
pub use faults::{Fault, check};

/// The variable that names another QEMU.
pub const VARIABLE: &str = "QEMU";

/// A QEMU that was asked for its version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Qemu {
    /// The program, with its path.
    pub program: PathBuf,
    /// Its version.
    pub version: Version,
}

/// Major and minor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Version(pub u32, pub u32);

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.0, self.1)
    }
}

/// Why there is no QEMU to be used.
#[derive(Debug, thiserror::Error)]
pub enum QemuError {
    /// It is not there.
    #[error(
        "there is no {0}: install QEMU (Debian: qemu-system-x86), or name another with --qemu or ${VARIABLE}"
    )]
    Missing(String),
    /// It does not answer.
    #[error("{} --version fails: {why}", .program.display())]
    Silent {
        /// The program.
        program: PathBuf,
        /// What it said instead.
        why: String,
    },
}

impl Qemu {
    /// The one given, else `$QEMU`, else `qemu-system-x86_64` of the search path.
    pub fn find(given: Option<&Path>) -> Result<Self, QemuError> {
        let variable = || env::var_os(VARIABLE).filter(|value| !value.is_empty());
        let name = given
            .map(PathBuf::from)
            .or_else(|| variable().map(PathBuf::from))
            .unwrap_or_else(|| "qemu-system-x86_64".into());
        let program =
            search(&name).ok_or_else(|| QemuError::Missing(name.display().to_string()))?;
        let silent = |why: String| QemuError::Silent {
            program: program.clone(),
            why,
        };
        let output = Command::new(&program)
            .arg("--version")
            .output()
            .map_err(|error| silent(error.to_string()))?;
        let text = String::from_utf8_lossy(&output.stdout);
        let version = parse_version(&text).ok_or_else(|| {
            let said = String::from_utf8_lossy(&output.stderr);
            silent(said.lines().next().unwrap_or("no version").to_owned())
        })?;
        Ok(Self { program, version })
    }
}

fn search(name: &Path) -> Option<PathBuf> {
    if name.components().count() > 1 {
        return name.is_file().then(|| name.to_owned());
    }
    let path = env::var_os("PATH")?;
    let mut places = env::split_paths(&path).map(|folder| folder.join(name));
    places.find(|place| place.is_file())
}

fn parse_version(text: &str) -> Option<Version> {
    let number = text.split("version ").nth(1)?;
    let mut parts = number.split(|c: char| !c.is_ascii_digit());
    Some(Version(
        parts.next()?.parse().ok()?,
        parts.next()?.parse().ok()?,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_from_what_qemu_prints() {
        let debian = "QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18)\nCopyright";
        assert_eq!(parse_version(debian), Some(Version(7, 2)));
        assert_eq!(
            parse_version("QEMU emulator version 10.0.2"),
            Some(Version(10, 0))
        );
        assert_eq!(parse_version("something else"), None);
    }

    #[test]
    fn a_missing_qemu_is_named_with_the_way_out() {
        let error = Qemu::find(Some(Path::new("/nowhere/qemu"))).unwrap_err();
        let sentence = error.to_string();
        assert!(sentence.contains("/nowhere/qemu") && sentence.contains("--qemu"));
        let error = Qemu::find(Some(Path::new("/bin/true"))).unwrap_err();
        assert!(error.to_string().contains("/bin/true --version fails"));
    }
}
