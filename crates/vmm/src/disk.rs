//! Disk images: what form a file has.

use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

/// How a disk lies in its file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// QEMU's own form, with backing files.
    Qcow2,
    /// The disk's bytes.
    Raw,
}

impl Format {
    /// As QEMU and libvirt call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Qcow2 => "qcow2",
            Self::Raw => "raw",
        }
    }
}

/// A disk of the machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disk {
    /// The image.
    pub path: PathBuf,
    /// Its form.
    pub format: Format,
    /// What the guest writes.
    pub writes: Writes,
}

/// Where what the guest writes goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Writes {
    /// Into the image.
    Kept,
    /// Into a temporary file that the VMM removes; the image stays as it is.
    Forgotten,
    /// Nowhere: the disk is read-only.
    Refused,
}

/// Why an image cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// It cannot be read.
    #[error("the image {} cannot be read: {error}", .path.display())]
    Unreadable {
        /// The image.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// It is no file with a disk in it.
    #[error("{} is {what}, not a disk image: name a qcow2 or raw file", .path.display())]
    NoImage {
        /// What was named.
        path: PathBuf,
        /// What it is.
        what: &'static str,
    },
    /// It has a form of another program.
    #[error(
        "{} is a {form} image: make a qcow2 of it with `qemu-img convert -O qcow2 {} NEW.qcow2`",
        .path.display(), .path.display()
    )]
    Foreign {
        /// The image.
        path: PathBuf,
        /// Its form.
        form: &'static str,
    },
}

/// What tells forms apart: the first bytes of a file.
const FOREIGN: [(&[u8], &str); 4] = [
    (b"KDMV", "VMDK"),
    (b"vhdxfile", "VHDX"),
    (b"conectix", "VHD"),
    (b"<<< ", "VDI"),
];

/// The form of the image at `path`, by its first bytes as far as they tell.
pub fn format_of(path: &Path) -> Result<Format, DiskError> {
    let unreadable = |error| DiskError::Unreadable {
        path: path.to_owned(),
        error,
    };
    let file = File::open(path).map_err(unreadable)?;
    if file.metadata().map_err(unreadable)?.is_dir() {
        return Err(DiskError::NoImage {
            path: path.to_owned(),
            what: "a directory",
        });
    }
    let mut head = Vec::new();
    file.take(8).read_to_end(&mut head).map_err(unreadable)?;
    if head.is_empty() {
        return Err(DiskError::NoImage {
            path: path.to_owned(),
            what: "empty",
        });
    }
    if let Some((_, form)) = FOREIGN.iter().find(|(magic, _)| head.starts_with(magic)) {
        return Err(DiskError::Foreign {
            path: path.to_owned(),
            form,
        });
    }
    if head.starts_with(b"QFI\xfb") {
        Ok(Format::Qcow2)
    } else {
        Ok(Format::Raw)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn images_are_told_apart_by_their_first_bytes() {
        let path = std::env::temp_dir().join(format!("ringway-disk-{}", std::process::id()));
        let judge = |bytes: &[u8]| {
            fs::write(&path, bytes).unwrap();
            format_of(&path).map_err(|error| error.to_string())
        };
        assert_eq!(judge(b"QFI\xfb\0\0\0\x03"), Ok(Format::Qcow2));
        assert_eq!(judge(b"\xeb\x63\x90"), Ok(Format::Raw));
        assert!(judge(b"KDMV1234").unwrap_err().contains("qemu-img convert"));
        assert!(judge(b"").unwrap_err().contains("empty"));
        fs::remove_file(&path).unwrap();
        let error = format_of(&path).unwrap_err().to_string();
        assert!(error.contains("cannot be read: No such file"), "{error}");
        let error = format_of(Path::new("/tmp")).unwrap_err().to_string();
        assert!(error.contains("a directory"), "{error}");
    }
}
