//! A command that waits for us, without looking again and again.

use std::{
    fs::{File, OpenOptions},
    io::Write,
    path::PathBuf,
};

use anyhow::{Context, Result};
use rustix::fs::{CWD, Mode, mkfifoat};

use crate::Lab;

/// A named pipe that nobody has written to.
#[derive(Debug)]
pub(crate) struct Gate {
    path: PathBuf,
    pipe: File,
}

impl Gate {
    /// A closed one; `name` is the gate's own in the lab.
    pub(crate) fn new(lab: &Lab, name: &str) -> Result<Self> {
        let path = lab.path(&format!("{name}.gate"));
        mkfifoat(CWD, &path, Mode::RUSR | Mode::WUSR)
            .with_context(|| format!("cannot make {}", path.display()))?;
        // Open at both ends, so that neither side waits for the other one to open it.
        let pipe = OpenOptions::new().read(true).write(true).open(&path)?;
        Ok(Self { path, pipe })
    }

    /// The shell command that waits.
    pub(crate) fn wait(&self) -> String {
        format!("read -r _ <{}", self.path.display())
    }

    /// Lets one command through. The gate has to stay until that has ended.
    pub(crate) fn open(&mut self) -> Result<()> {
        self.pipe.write_all(b"\n")?;
        Ok(())
    }
}
