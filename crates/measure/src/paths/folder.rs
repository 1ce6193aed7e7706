//! A folder for sockets and files of a run, which goes with it.

use std::{
    env, fs,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

/// What its name begins with; the process follows.
const PREFIX: &str = "ringway-bench-";

/// Removed when dropped. That of a run that was killed is removed by the next one.
#[derive(Debug)]
pub struct Folder(PathBuf);

impl Folder {
    /// Makes it where temporary files are.
    pub fn new() -> Result<Self> {
        let all = env::temp_dir();
        sweep(&all);
        let path = all.join(format!("{PREFIX}{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        let made = fs::DirBuilder::new().mode(0o700).create(&path);
        made.with_context(|| format!("the folder {} cannot be made", path.display()))?;
        Ok(Self(path))
    }

    /// A file in it.
    pub fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn sweep(all: &Path) {
    for entry in fs::read_dir(all).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let owner = name
            .strip_prefix(PREFIX)
            .and_then(|owner| owner.parse::<u32>().ok());
        if owner.is_some_and(|owner| !Path::new("/proc").join(owner.to_string()).exists()) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_goes_with_its_run_and_dead_ones_with_the_next() {
        let outside = env::temp_dir().join(format!("ringway-sweep-{}", std::process::id()));
        // Process numbers end below 2^22.
        let names = ["4194304", &std::process::id().to_string(), "x"]
            .map(|owner| format!("{PREFIX}{owner}"));
        for name in &names {
            fs::create_dir_all(outside.join(name)).unwrap();
        }
        sweep(&outside);
        let left = names.map(|name| outside.join(name).exists());
        fs::remove_dir_all(&outside).unwrap();
        assert_eq!(left, [false, true, true]);

        let folder = Folder::new().unwrap();
        let file = folder.file("a");
        fs::write(&file, "").unwrap();
        drop(folder);
        assert!(!file.exists());
    }
}
