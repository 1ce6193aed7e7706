//! What is brought into a guest: this program, the libraries it is linked with and their loader, in a folder of its own.
//!
//! Nothing of the guest's own libraries is used, so the guest may be any Linux of the same processor. What runs here is what is mapped
//! here: the files are those of `/proc/self/maps`.

use std::{
    collections::BTreeSet,
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail, ensure};

/// The folder in the guest, below its root.
const FOLDER: &str = "ringway-bench";
/// This program's name in it.
const PROGRAM: &str = "ringway";
/// How the agent is started: with its own loader, if it has one.
const START: &str = "start";

/// Files with their names in the folder.
pub(super) struct Parcel {
    files: Vec<(String, Vec<u8>)>,
}

impl Parcel {
    /// Of the program that runs.
    pub(super) fn of_this_program() -> Result<Self> {
        let program = fs::read("/proc/self/exe").context("cannot read this program")?;
        let mut files = vec![(PROGRAM.to_owned(), trimmed(program)?)];
        let maps = fs::read_to_string("/proc/self/maps")?;
        let mut loader = None;
        for path in libraries(&maps) {
            let name = path.file_name().unwrap_or_default();
            let name = name.to_string_lossy().into_owned();
            if name.starts_with("ld-") {
                loader = Some(name.clone());
            }
            let content = fs::read(&path);
            files.push((name, content.with_context(|| path.display().to_string())?));
        }
        let folder = format!("/{FOLDER}");
        let start = match loader {
            Some(loader) => format!("{folder}/{loader} --library-path {folder} {folder}/{PROGRAM}"),
            None => format!("{folder}/{PROGRAM}"),
        };
        let start = format!("#!/bin/sh\nexec {start} bench agent\n");
        files.push((START.to_owned(), start.into_bytes()));
        Ok(Self { files })
    }

    /// A cpio archive to be put behind an initramfs of `guest/build`, whose init then starts our agent in the place of its own.
    pub(super) fn cpio(&self) -> Result<Vec<u8>> {
        let mut archive = Vec::new();
        cpio_entry(&mut archive, FOLDER, 0o040_755, &[])?;
        for (name, content) in &self.files {
            cpio_entry(
                &mut archive,
                &format!("{FOLDER}/{name}"),
                0o100_755,
                content,
            )?;
        }
        let start = format!("#!/bin/sh\nexec /{FOLDER}/{START}\n");
        cpio_entry(&mut archive, "bin/agent", 0o100_755, start.as_bytes())?;
        cpio_entry(&mut archive, "TRAILER!!!", 0, &[])?;
        Ok(archive)
    }

    /// A tar archive that is a disk.
    pub(super) fn tar(&self) -> Result<Vec<u8>> {
        let mut archive = Vec::new();
        for (name, content) in &self.files {
            tar_entry(&mut archive, &format!("{FOLDER}/{name}"), content)?;
        }
        // Two empty blocks end it; the rest is for disks that want a whole number of larger ones.
        let len = (archive.len() + 1024).next_multiple_of(1 << 16);
        archive.resize(len, 0);
        Ok(archive)
    }

    /// For cloud-init: unpacks the disk with that serial number and starts the agent.
    pub(super) fn cloud_config(serial: &str) -> String {
        format!(
            "#cloud-config\nruncmd:\n  - [sh, -c, 'for disk in /sys/block/*; do [ \"$(cat $disk/serial)\" = {serial} ] && \
             tar -x -C / -f /dev/${{disk##*/}} && break; done; exec /{FOLDER}/{START}']\n"
        )
    }
}

/// Shared objects among mapped files.
fn libraries(maps: &str) -> BTreeSet<PathBuf> {
    let paths = maps
        .lines()
        .filter_map(|line| Some(&line[line.find('/')?..]));
    let is_library = |path: &&str| path.contains(".so");
    paths.filter(is_library).map(PathBuf::from).collect()
}

/// The program without what is not loaded: symbols and notes for debuggers, fifteen times the rest in a debug build.
///
/// ELF64, little-endian: the offset of program headers at 32, their size at 54, their number at 56; in each, the offset in the file at 8
/// and the length at 32. Section headers are at 40, their size and number at 58 to 63: gone with the sections.
fn trimmed(mut program: Vec<u8>) -> Result<Vec<u8>> {
    ensure!(
        program.get(..6) == Some(b"\x7fELF\x02\x01"),
        "this program is no ELF of 64 bits"
    );
    let field = |at: usize, len: usize| {
        let bytes = program.get(at..at.checked_add(len)?)?;
        let number = bytes
            .iter()
            .rev()
            .fold(0, |number, &byte| number << 8 | usize::from(byte));
        Some(number)
    };
    let end = || {
        let (table, size, count) = (field(32, 8)?, field(54, 2)?, field(56, 2)?);
        let mut end = table + size * count;
        for index in 0..count {
            let header = table + size * index;
            end = end.max(field(header + 8, 8)? + field(header + 32, 8)?);
        }
        (end <= program.len()).then_some(end)
    };
    let Some(end) = end() else {
        bail!("this program's headers lead outside of it");
    };
    program.truncate(end);
    program[40..48].fill(0);
    program[58..64].fill(0);
    Ok(program)
}

/// A header in the form `newc` (cpio(5)): fields of eight hexadecimal digits, the name, zeroes up to a multiple of four.
fn cpio_entry(archive: &mut Vec<u8>, name: &str, mode: u32, content: &[u8]) -> Result<()> {
    let size = u32::try_from(content.len()).context("a file of over 4 GiB")?;
    let name_len = u32::try_from(name.len() + 1)?;
    let fields = [0, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, name_len, 0];
    archive.write_all(b"070701")?;
    for field in fields {
        write!(archive, "{field:08x}")?;
    }
    write!(archive, "{name}\0")?;
    archive.resize(archive.len().next_multiple_of(4), 0);
    archive.write_all(content)?;
    archive.resize(archive.len().next_multiple_of(4), 0);
    Ok(())
}

/// A header of `ustar` (POSIX): a block of 512 bytes with octal numbers, then the content in whole blocks.
fn tar_entry(archive: &mut Vec<u8>, name: &str, content: &[u8]) -> Result<()> {
    let mut header = [0; 512];
    ensure!(
        name.len() < 100,
        "the name {name} is too long for an archive"
    );
    let mut put =
        |at: usize, text: &str| header[at..at + text.len()].copy_from_slice(text.as_bytes());
    put(0, name);
    put(100, "0000755\0");
    put(108, "0000000\0");
    put(116, "0000000\0");
    put(124, &format!("{:011o}\0", content.len()));
    put(136, "00000000000\0");
    // The sum is taken with spaces in its own place.
    put(148, "        ");
    put(156, "0");
    put(257, "ustar\x0000");
    let sum: u32 = header.iter().map(|&byte| u32::from(byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    archive.extend_from_slice(&header);
    archive.extend_from_slice(content);
    archive.resize(archive.len().next_multiple_of(512), 0);
    Ok(())
}

/// Writes `out`: the archive `first`, and ours behind it. The kernel unpacks one after the other.
pub(super) fn append(first: &Path, archive: &[u8], out: &Path) -> Result<()> {
    let mut whole =
        fs::read(first).with_context(|| format!("{} cannot be read", first.display()))?;
    whole.resize(whole.len().next_multiple_of(4), 0);
    whole.extend_from_slice(archive);
    write(out, &whole)
}

/// Writes a file.
pub(super) fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let written: io::Result<()> = fs::write(path, bytes);
    written.with_context(|| format!("{} cannot be written", path.display()))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_trimmed_program_still_runs() {
        let whole = fs::read("/proc/self/exe").unwrap();
        let len = whole.len();
        let small = trimmed(whole).unwrap();
        assert!(small.len() < len / 2, "{} of {len}", small.len());
        let path = std::env::temp_dir().join(format!("ringway-trimmed-{}", std::process::id()));
        fs::write(&path, small).unwrap();
        fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let output = Command::new(&path).arg("--list").output().unwrap();
        fs::remove_file(&path).unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(text.contains("a_trimmed_program_still_runs"), "{text}");
    }

    #[test]
    fn what_is_no_program_is_refused() {
        assert!(trimmed(b"#!/bin/sh".to_vec()).is_err());
        let mut lies = fs::read("/proc/self/exe").unwrap();
        lies.truncate(4096);
        assert!(trimmed(lies).is_err());
    }

    #[test]
    fn libraries_are_what_is_mapped() {
        let maps = "7f00 r--p 00 fd:00 1    /lib/x86_64-linux-gnu/libc.so.6\n7f01 rw-p 00 fd:00 1  /lib/x86_64-linux-gnu/libc.so.6\n\
                    7f02 r-xp 00 fd:00 2  /usr/bin/ringway\n7f03 r-xp 00 00:00 0  [vdso]\n";
        let found: Vec<_> = libraries(maps).into_iter().collect();
        assert_eq!(found, [Path::new("/lib/x86_64-linux-gnu/libc.so.6")]);
    }

    #[test]
    fn tar_and_cpio_unpack_what_was_packed() {
        let parcel = Parcel {
            files: vec![("a".into(), b"hello".to_vec()), ("b".into(), vec![7; 1000])],
        };
        let folder = std::env::temp_dir().join(format!("ringway-parcel-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let disk = folder.join("disk");
        fs::write(&disk, parcel.tar().unwrap()).unwrap();
        let tar = Command::new("tar")
            .arg("-xf")
            .arg(&disk)
            .arg("-C")
            .arg(&folder)
            .status();
        assert!(tar.unwrap().success());
        let read = |name: &str| fs::read(folder.join(FOLDER).join(name)).unwrap();
        assert_eq!((read("a"), read("b")), (b"hello".to_vec(), vec![7; 1000]));
        fs::remove_dir_all(&folder).unwrap();

        let cpio = parcel.cpio().unwrap();
        assert_eq!(cpio.len() % 4, 0);
        let name = format!("{FOLDER}/a\0");
        let at = cpio
            .windows(name.len())
            .position(|part| part == name.as_bytes())
            .unwrap();
        assert_eq!(
            &cpio[(at + name.len()).next_multiple_of(4)..][..5],
            b"hello"
        );
        // The first header's file size: a folder.
        assert_eq!(&cpio[54..62], b"00000000");
    }
}
