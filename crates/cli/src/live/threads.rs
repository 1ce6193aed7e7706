//! Threads that carry frames or run guests, as /proc has them.

use std::{collections::BTreeMap, fs, path::Path};

use ringway_doctor::{command::Command, gather};
use ringway_vmm::pin::{self, Threads};

use super::{Role, Thread};

/// QEMU processes, whoever started them, and the guest's name if it was given one.
pub(super) fn qemus() -> Vec<(i32, Option<String>)> {
    let named = |pid| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let words = line.split(|byte| *byte == 0).map(String::from_utf8_lossy);
        let words: Vec<String> = words.map(|word| word.into_owned()).collect();
        (pid, guest_name(&words))
    };
    gather::qemus().into_iter().map(named).collect()
}

/// What `-name` says.
fn guest_name(words: &[String]) -> Option<String> {
    let command = Command::parse(words);
    let name = command.last("name")?;
    let name = name.get("guest").unwrap_or(name.kind());
    (!name.is_empty()).then(|| name.to_owned())
}

/// Whether there is such a process.
pub(super) fn exists(pid: i32) -> bool {
    Path::new(&format!("/proc/{pid}/task")).exists()
}

/// Those of the switch.
pub(super) fn of_switch(pid: i32, found: &mut Vec<Thread>) {
    for id in tasks(pid) {
        let Some(mut thread) = read(pid, id, "switch") else {
            continue;
        };
        thread.role = match thread.name.as_str() {
            name if name.starts_with("worker-") => Role::Worker,
            name if name.starts_with("vhost-") => Role::Vhost,
            _ if id == pid => Role::Control,
            _ => Role::Other,
        };
        found.push(thread);
    }
}

/// Those of a QEMU. Which one runs a virtual CPU is seen by their names, if they have any.
pub(super) fn of_qemu(pid: i32, owner: &str, found: &mut Vec<Thread>) {
    let roles: BTreeMap<i32, pin::Role> = Threads::by_name(pid)
        .map(|threads| threads.threads.iter().map(|t| (t.id, t.role)).collect())
        .unwrap_or_default();
    for id in tasks(pid) {
        let Some(mut thread) = read(pid, id, owner) else {
            continue;
        };
        thread.role = match roles.get(&id) {
            Some(pin::Role::Vcpu(_)) => Role::Vcpu,
            Some(pin::Role::Io) => Role::Io,
            _ if thread.name.starts_with("vhost-") => Role::Vhost,
            _ if id == pid => Role::Main,
            _ => Role::Other,
        };
        found.push(thread);
    }
}

/// Threads of the kernel that carry for `owners`: before Linux 6.4 they are no threads of the process, and called after it.
pub(super) fn of_kernel(owners: &BTreeMap<i32, String>, found: &mut Vec<Thread>) {
    for pid in numbers(Path::new("/proc")) {
        let name = comm(pid, pid).unwrap_or_default();
        let owner = name
            .strip_prefix("vhost-")
            .and_then(|owner| owners.get(&owner.parse().ok()?));
        if let Some(mut thread) = owner.and_then(|owner| read(pid, pid, owner)) {
            thread.role = Role::Vhost;
            found.push(thread);
        }
    }
}

fn tasks(pid: i32) -> impl Iterator<Item = i32> {
    let mut tasks: Vec<i32> = numbers(Path::new(&format!("/proc/{pid}/task"))).collect();
    tasks.sort_unstable();
    tasks.into_iter()
}

fn numbers(folder: &Path) -> impl Iterator<Item = i32> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

fn comm(pid: i32, id: i32) -> Option<String> {
    let name = fs::read(format!("/proc/{pid}/task/{id}/comm")).ok()?;
    Some(String::from_utf8_lossy(&name).trim_end().to_owned())
}

/// `None` for one that has ended meanwhile.
fn read(process: i32, id: i32, owner: &str) -> Option<Thread> {
    let folder = format!("/proc/{process}/task/{id}");
    // The name in it is of any bytes.
    let stat = fs::read(format!("{folder}/stat")).ok()?;
    let (ticks, cpu) = parse_stat(&String::from_utf8_lossy(&stat))?;
    // The scheduler's own account is exact; not every kernel keeps it.
    let exact = fs::read_to_string(format!("{folder}/schedstat")).ok();
    let exact = exact.and_then(|text| text.split(' ').next()?.parse::<u64>().ok());
    let per_tick = 1_000_000_000 / rustix::param::clock_ticks_per_second().max(1);
    Some(Thread {
        process,
        id,
        owner: owner.to_owned(),
        role: Role::Other,
        name: comm(process, id)?,
        used: exact
            .filter(|ns| *ns > 0)
            .unwrap_or(ticks.saturating_mul(per_tick)),
        cpu: Some(cpu),
    })
}

/// User and system time in clock ticks, and the CPU: fields 14, 15 and 39 of proc(5).
fn parse_stat(text: &str) -> Option<(u64, u32)> {
    // The name, in brackets, may have anything in it.
    let (_, rest) = text.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
    Some((
        number(14)?.saturating_add(number(15)?),
        number(39)?.try_into().ok()?,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_cpu_are_read_behind_any_name() {
        let text = "7 (a) b (c) S 1 7 7 0 -1 4194560 1 2 3 4 50 25 7 8 20 0 1 0 100 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 3 0 0";
        assert_eq!(parse_stat(text), Some((75, 3)));
        assert_eq!(parse_stat("7 (a) S 1"), None);
    }

    #[test]
    fn names_of_guests_are_read_as_qemu_reads_them() {
        let words = |text: &str| -> Vec<String> { text.split(' ').map(str::to_owned).collect() };
        for (line, name) in [
            ("qemu -name web,debug-threads=on", Some("web")),
            ("qemu -name debug-threads=on,guest=web", Some("web")),
            ("qemu -name debug-threads=on", None),
            ("qemu -m 1", None),
        ] {
            assert_eq!(guest_name(&words(line)).as_deref(), name, "{line}");
        }
    }

    #[test]
    fn this_thread_is_found_with_what_it_used() {
        let own = i32::try_from(std::process::id()).unwrap();
        let id = rustix::thread::gettid().as_raw_nonzero().get();
        assert!(tasks(own).any(|task| task == id));
        let thread = read(own, id, "test").unwrap();
        assert!(thread.cpu.is_some() && thread.owner == "test");
    }
}
