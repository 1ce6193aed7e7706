//! Files for a guest, as a cpio archive behind its initramfs: the kernel unpacks one after the other.

use std::{
    fs::{self, File},
    io::{self, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

/// Writes `out`: the archive `first`, and behind it another with each file of the host at its path in the guest, directories of
/// which exist in the first.
pub(crate) fn append(first: &Path, files: &[(PathBuf, String)], out: &Path) -> Result<()> {
    let open =
        |path: &Path| File::open(path).with_context(|| format!("cannot read {}", path.display()));
    let mut archive = File::create(out)?;
    let len = io::copy(&mut open(first)?, &mut archive)?;
    pad(&mut archive, len)?;
    for (path, name) in files {
        let metadata = fs::metadata(path).with_context(|| path.display().to_string())?;
        let size = u32::try_from(metadata.len()).context("a file of over 4 GiB")?;
        header(&mut archive, name, metadata.permissions().mode(), size)?;
        io::copy(&mut open(path)?, &mut archive)?;
        pad(&mut archive, size.into())?;
    }
    header(&mut archive, "TRAILER!!!", 0, 0)
}

/// A header in the form `newc` (cpio(5)): fields of eight hexadecimal digits, the name, zeroes up to a multiple of four.
fn header(archive: &mut File, name: &str, mode: u32, size: u32) -> Result<()> {
    let name_len = u32::try_from(name.len() + 1)?;
    let fields = [0, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, name_len, 0];
    write!(archive, "070701")?;
    for field in fields {
        write!(archive, "{field:08x}")?;
    }
    write!(archive, "{name}\0")?;
    pad(archive, 110 + u64::from(name_len))
}

fn pad(archive: &mut File, len: u64) -> Result<()> {
    let missing = len.next_multiple_of(4) - len;
    Ok(archive.write_all(&[0; 4][..usize::try_from(missing)?])?)
}
