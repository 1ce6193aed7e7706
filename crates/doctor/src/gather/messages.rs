//! Who started a machine, and where its messages are: those of a person go where standard error goes, those of libvirt and of ours
//! into logs.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Seek, SeekFrom},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use ringway_vmm::folder::Folder;
use rustix::fs::OFlags;

use crate::{
    Facts,
    command::Command,
    facts::{Machine, Origin},
};

/// Lines that are looked at, the last ones.
const LINES: usize = 200;
/// Bytes of a file that are read for them.
const BYTES: u64 = 256 << 10;
/// Where libvirt's daemon of the system keeps logs.
const LIBVIRT: &str = "/var/log/libvirt/qemu";
/// The line with which libvirt begins a start.
const BEGIN: &str = ": starting up libvirt version";

/// Puts the last lines of these files to the one machine there is, or to one of its own.
pub(super) fn given(facts: &mut Facts, logs: &[PathBuf]) {
    for log in logs {
        let lines = match File::open(log).and_then(last_lines) {
            Ok(lines) => lines,
            Err(error) => {
                facts.unseen.push(format!("{}: {error}", log.display()));
                continue;
            }
        };
        match facts.machines.as_mut_slice() {
            [machine] => machine.messages.extend(lines),
            _ => facts.machines.push(Machine {
                name: log.display().to_string(),
                messages: lines,
                ..Machine::default()
            }),
        }
    }
}

/// Finds out who started a machine that runs, and reads what it said.
pub(super) fn own(machine: &mut Machine, unseen: &mut Vec<String>) {
    let Some(pid) = machine.pid else {
        return;
    };
    let log = if let Some(folder) = ours(machine) {
        machine.origin = Origin::Ringway;
        folder.log()
    } else if machine
        .command
        .iter()
        .any(|word| word.contains("/libvirt/qemu/"))
        && !machine.name.contains('/')
    {
        machine.origin = Origin::Libvirt;
        Path::new(LIBVIRT).join(format!("{}.log", machine.name))
    } else {
        PathBuf::from(format!("/proc/{pid}/fd/2"))
    };
    match open(&log, machine) {
        Ok(Some(file)) => match last_lines(file) {
            Ok(lines) => machine.messages = latest(lines),
            Err(error) => unseen.push(format!("{}: {error}", log.display())),
        },
        Ok(None) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        // That none of its files may be looked at is said of all of them at once.
        Err(error)
            if error.kind() == io::ErrorKind::PermissionDenied
                && machine.origin == Origin::Hand => {}
        Err(error) => unseen.push(format!(
            "what {} said, {}: {error}",
            machine.name,
            log.display()
        )),
    }
}

/// A log that is a file, and its writer's own: what a user could not read for himself is not read for him.
fn open(log: &Path, machine: &Machine) -> io::Result<Option<File>> {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags((OFlags::NONBLOCK | OFlags::NOCTTY).bits().cast_signed())
        .open(log)?;
    let about = file.metadata()?;
    let theirs = about.uid() == machine.user || machine.origin == Origin::Libvirt;
    Ok((about.is_file() && theirs).then_some(file))
}

/// The folder in which `ringway vm run` wrote a machine down, by the monitor that it gave it.
fn ours(machine: &Machine) -> Option<Folder> {
    let command = Command::parse(&machine.command);
    let mut chardevs = command.all("chardev");
    let monitor = chardevs.find(|it| it.get("id") == Some("monitor"))?;
    // RUN/vm/NAME/monitor
    let folder = Path::new(monitor.get("path")?).parent()?;
    let run = folder.parent()?.parent()?;
    let folder = Folder::new(run, &folder.file_name()?.to_str()?.parse().ok()?);
    (folder.record().ok()?.pid == machine.pid).then_some(folder)
}

fn last_lines(mut file: File) -> io::Result<Vec<String>> {
    let length = file.metadata()?.len();
    // What is no file has no length, and cannot be skipped.
    if length > BYTES {
        file.seek(SeekFrom::Start(length - BYTES))?;
    }
    let mut bytes = Vec::new();
    file.take(BYTES).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().collect();
    let last = &lines[lines.len().saturating_sub(LINES)..];
    Ok(last.iter().map(|line| (*line).to_owned()).collect())
}

/// libvirt writes every start into one file.
fn latest(lines: Vec<String>) -> Vec<String> {
    let begin = lines.iter().rposition(|line| line.contains(BEGIN));
    lines[begin.unwrap_or(0)..].to_vec()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn of_libvirt_only_the_last_start_counts() {
        let lines = ["old", "2026: starting up libvirt version: 9.0.0", "new"];
        let lines = lines.map(str::to_owned).to_vec();
        assert_eq!(latest(lines.clone()), lines[1..]);
        assert_eq!(latest(lines[2..].to_vec()), ["new"]);
    }

    #[test]
    fn the_end_of_a_long_log_is_read() {
        let path = std::env::temp_dir().join(format!("ringway-messages-{}", std::process::id()));
        fs::write(&path, "x\n".repeat(300_000) + "end").unwrap();
        let lines = last_lines(File::open(&path).unwrap()).unwrap();
        fs::remove_file(&path).unwrap();
        assert_eq!(
            (lines.len(), lines.last().unwrap().as_str()),
            (LINES, "end")
        );
    }
}
