//! Files that a measurement is written to: what cannot be written is said before it begins, and a file is there whole or not at all.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use anyhow::Context;

use crate::Failure;

/// A file to be written.
pub(super) struct Output {
    /// As it was named.
    name: String,
    /// Behind all links.
    path: PathBuf,
    /// A pipe or device, which cannot be replaced.
    is_special: bool,
}

impl Output {
    /// Tries whether `path` can be written, and leaves no trace; `option` named it.
    pub(super) fn check(option: &str, path: &Path) -> Result<Self, Failure> {
        let name = format!("{option} {}", path.display());
        if path.is_dir() {
            return Err(Failure::Usage(format!(
                "{name} is a directory: give a file in it"
            )));
        }
        let folder = path.parent().unwrap_or(Path::new(""));
        if !folder.as_os_str().is_empty() && !folder.is_dir() {
            let folder = folder.display();
            return Err(Failure::Usage(format!(
                "{name}: there is no directory {folder}; give one that exists"
            )));
        }
        let found = fs::canonicalize(path);
        let is_special = found.is_ok() && !path.is_file();
        let output = Self {
            path: found.unwrap_or_else(|_| path.to_owned()),
            name,
            is_special,
        };
        if !is_special {
            let beside = output.beside();
            let tried = output.may().and_then(|()| create(&beside).map(drop));
            tried.with_context(|| format!("{} cannot be written", output.name))?;
            fs::remove_file(&beside)?;
        }
        Ok(output)
    }

    /// Puts `text` there.
    pub(super) fn write(&self, text: &str) -> Result<(), Failure> {
        let written = match self.is_special {
            true => fs::write(&self.path, text),
            false => self.replace(text),
        };
        Ok(written.with_context(|| format!("{} cannot be written", self.name))?)
    }

    fn replace(&self, text: &str) -> io::Result<()> {
        let beside = self.beside();
        let written = create(&beside).and_then(|mut file| {
            // What was readable or writable for others stays so.
            if let Ok(before) = fs::metadata(&self.path) {
                file.set_permissions(before.permissions())?;
            }
            file.write_all(text.as_bytes())?;
            fs::rename(&beside, &self.path)
        });
        if written.is_err() {
            let _ = fs::remove_file(&beside);
        }
        written
    }

    /// A file that may not be written is not replaced either, though its directory would permit it.
    fn may(&self) -> io::Result<()> {
        match File::options().append(true).open(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn beside(&self) -> PathBuf {
        let name = self.path.file_name().unwrap_or_default().to_string_lossy();
        let process = std::process::id();
        self.path.with_file_name(format!(".{name}.{process}"))
    }
}

fn create(path: &Path) -> io::Result<File> {
    // What a killed run with this number left.
    let _ = fs::remove_file(path);
    File::create_new(path)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    fn sentence(failure: Failure) -> String {
        match failure {
            Failure::Usage(sentence) => sentence,
            Failure::Failed(error) => format!("{error:#}"),
        }
    }

    #[test]
    fn a_file_is_there_whole_or_as_it_was() {
        let folder = std::env::temp_dir().join(format!("ringway-output-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let [file, link] = ["a.json", "link"].map(|name| folder.join(name));
        let output = Output::check("--out", &file).unwrap_or_else(|it| panic!("{}", sentence(it)));
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 0);
        assert!(output.write("1").is_ok());

        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        symlink(&file, &link).unwrap();
        let output = Output::check("--out", &link).ok().unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "1");
        assert!(output.write("2").is_ok());
        assert_eq!(fs::read_to_string(&file).unwrap(), "2");
        assert!(link.is_symlink());
        let mode = fs::metadata(&file).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o640);
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 2);
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn what_cannot_be_written_is_said_beforehand() {
        let of = |path: &str| Output::check("--svg", Path::new(path)).err().map(sentence);
        let missing = of("/nonexistent/plot.svg").unwrap();
        assert_eq!(
            missing,
            "--svg /nonexistent/plot.svg: there is no directory /nonexistent; give one that exists"
        );
        assert!(of("/").unwrap().contains("is a directory"));
        assert!(of("/proc/plot.svg").unwrap().contains("cannot be written"));
        // A device stays one.
        let null = Output::check("--out", Path::new("/dev/null")).ok().unwrap();
        assert!(null.is_special && null.write("x").is_ok());
    }
}
