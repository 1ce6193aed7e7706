//! Overlays: files that hold what a guest changes of an image, so that the image stays as it is. `qemu-img` makes them.

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
    process::Command,
};

use crate::Format;

/// Why there is no overlay.
#[derive(Debug, thiserror::Error)]
pub enum OverlayError {
    /// The program is missing.
    #[error(
        "qemu-img cannot be started ({0}): install it (Debian: qemu-utils), or write into the image with --persistent"
    )]
    NoProgram(io::Error),
    /// It does not do it.
    #[error("qemu-img fails: {0}")]
    Failed(String),
    /// The guest would lose the end of its disk.
    #[error(
        "a disk of {wanted} MiB is smaller than its image {}, which has {has} MiB: give --disk-size {has}M or more",
        .image.display()
    )]
    TooSmall {
        /// The image.
        image: PathBuf,
        /// What was asked for, in MiB.
        wanted: u64,
        /// What it has, in MiB.
        has: u64,
    },
    /// The directory cannot be made.
    #[error("{}: {error}", .path.display())]
    System {
        /// The directory or file.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
}

/// Makes the qcow2 file `path` upon `image`; `size` in MiB, if it shall be larger.
pub fn create(
    path: &Path,
    image: &Path,
    format: Format,
    size: Option<u64>,
) -> Result<(), OverlayError> {
    let system = |path: &Path| {
        let path = path.to_owned();
        move |error| OverlayError::System { path, error }
    };
    if let Some(folder) = path.parent() {
        let mut builder = fs::DirBuilder::new();
        let made = builder.recursive(true).mode(0o700).create(folder);
        made.map_err(system(folder))?;
    }
    if let Some(wanted) = size {
        let has = size_of(image, format)?.div_ceil(1 << 20);
        if wanted < has {
            return Err(OverlayError::TooSmall {
                image: image.to_owned(),
                wanted,
                has,
            });
        }
    }
    let mut command = Command::new("qemu-img");
    command
        .args(["create", "-q", "-f", "qcow2", "-F", format.name(), "-b"])
        .arg(image)
        .arg(path);
    if let Some(size) = size {
        command.arg(format!("{size}M"));
    }
    output(&mut command)?;
    // What a guest writes is for its owner alone.
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).map_err(system(path))
}

/// Bytes that the guest sees.
fn size_of(image: &Path, format: Format) -> Result<u64, OverlayError> {
    let mut command = Command::new("qemu-img");
    command
        .args(["info", "-U", "--output=json", "-f", format.name()])
        .arg(image);
    let text = output(&mut command)?;
    let answer: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
    answer["virtual-size"]
        .as_u64()
        .ok_or_else(|| OverlayError::Failed("it does not say how large the image is".into()))
}

fn output(command: &mut Command) -> Result<String, OverlayError> {
    let output = command.output().map_err(OverlayError::NoProgram)?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let line = said.lines().next().unwrap_or("no word why");
    let line = line.strip_prefix("qemu-img: ").unwrap_or(line);
    Err(OverlayError::Failed(line.to_owned()))
}
