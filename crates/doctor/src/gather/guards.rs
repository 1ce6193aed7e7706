//! What keeps programs from files that their modes let them have: AppArmor and SELinux.

use std::{
    fs::{self, File, OpenOptions},
    io::{Read, Seek, SeekFrom},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use rustix::fs::OFlags;

use crate::facts::Machine;

/// Lines that are kept, the last ones.
const LINES: usize = 100;
/// Bytes of the log of audits that are read for them.
const BYTES: u64 = 1 << 20;
/// Records of the kernel's log that are read.
const RECORDS: usize = 20_000;

/// Those that are at work.
pub(super) fn guards() -> Vec<String> {
    let is =
        |path: &str, value: &str| fs::read_to_string(path).is_ok_and(|text| text.trim() == value);
    let mut guards = Vec::new();
    if is("/sys/fs/selinux/enforce", "1") {
        guards.push("SELinux".into());
    }
    if is("/sys/module/apparmor/parameters/enabled", "Y") {
        guards.push("AppArmor".into());
    }
    guards
}

/// The profile or label of a process.
pub(super) fn label(proc: &Path) -> Option<String> {
    let text = fs::read_to_string(proc.join("attr/current")).ok()?;
    let text = text.trim_matches(['\0', '\n']);
    (!text.is_empty()).then(|| text.to_owned())
}

/// What was denied to confined machines of late, in the words of the kernel or of auditd.
pub(super) fn denials(machines: &[Machine]) -> Vec<String> {
    if !machines.iter().any(Machine::is_confined) {
        return Vec::new();
    }
    let mut lines = audited();
    lines.extend(logged());
    let denied =
        |line: &String| line.contains("apparmor=\"DENIED\"") || line.contains("avc:  denied");
    lines.retain(denied);
    lines.split_off(lines.len().saturating_sub(LINES))
}

/// The end of auditd's log, if it runs; then the kernel's log has none of it.
fn audited() -> Vec<String> {
    let read = || {
        let mut file = File::open("/var/log/audit/audit.log")?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(BYTES)))?;
        let mut bytes = Vec::new();
        file.take(BYTES).read_to_end(&mut bytes)?;
        std::io::Result::Ok(bytes)
    };
    let bytes = read().unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    text.lines().map(str::to_owned).collect()
}

/// The kernel's log: each read is a record (Documentation/ABI/testing/dev-kmsg).
fn logged() -> Vec<String> {
    let flags = OFlags::NONBLOCK.bits().cast_signed();
    let log = OpenOptions::new()
        .read(true)
        .custom_flags(flags)
        .open("/dev/kmsg");
    let Ok(mut log) = log else {
        return Vec::new();
    };
    let mut lines = Vec::new();
    let mut record = vec![0; 8192];
    for _ in 0..RECORDS {
        match log.read(&mut record) {
            Ok(length) if length > 0 => {
                lines.push(String::from_utf8_lossy(&record[..length]).into_owned());
            }
            // Overwritten meanwhile: the next one is there.
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::PIPE.raw_os_error()) => {}
            _ => break,
        }
    }
    lines
}
