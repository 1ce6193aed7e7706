//! Who owns or holds a tap, as far as the caller may see; only ever added to the text of an error.

use std::{fs, path::Path};

/// Processes looked at; more than that and the hint is not worth the time.
const MAX_PROCESSES: usize = 20_000;

/// `PID (NAME)` of a process that has a queue of the tap open. The kernel says in fdinfo which interface a tun descriptor is for.
pub(super) fn holder(tap: &str) -> Option<String> {
    let line = format!("iff:\t{tap}");
    let entries = fs::read_dir("/proc").ok()?.flatten().take(MAX_PROCESSES);
    let processes = entries.filter(|entry| {
        entry
            .file_name()
            .as_encoded_bytes()
            .iter()
            .all(u8::is_ascii_digit)
    });
    for process in processes {
        let Ok(descriptors) = fs::read_dir(process.path().join("fdinfo")) else {
            continue;
        };
        let holds = |path: &Path| {
            fs::read_to_string(path).is_ok_and(|text| text.lines().any(|found| found == line))
        };
        if descriptors
            .flatten()
            .any(|descriptor| holds(&descriptor.path()))
        {
            let name = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            return Some(format!(
                "{} ({})",
                process.file_name().to_string_lossy(),
                name.trim()
            ));
        }
    }
    None
}

/// The tap's owner as /sys has it. /sys may show another network namespace than the caller's; a wrong answer is no more than a wrong
/// number in a sentence.
pub(super) fn owner(tap: &str) -> Option<u32> {
    fs::read_to_string(Path::new("/sys/class/net").join(tap).join("owner"))
        .ok()?
        .trim()
        .parse()
        .ok()
}
