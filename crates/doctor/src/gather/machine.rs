//! Machines: from /proc, or from a command line.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use rustix::{param::clock_ticks_per_second, process};

use super::{
    devices, guards,
    network::{namespace, tap},
    words,
};
use crate::{
    command::Command,
    facts::{Descriptor, Machine, Origin, Thread},
};

/// Processes that are QEMU.
pub fn qemus() -> Vec<i32> {
    let mut found = super::processes();
    found.retain(|pid| is_qemu(&words(*pid)));
    found.sort_unstable();
    found
}

/// The QEMU that has this name (`-name`).
pub fn find(name: &str) -> Option<i32> {
    qemus()
        .into_iter()
        .find(|pid| named(&words(*pid)).as_deref() == Some(name))
}

pub(super) fn of_process(pid: i32) -> Option<Machine> {
    let command = words(pid);
    if command.is_empty() {
        return None;
    }
    let proc = PathBuf::from(format!("/proc/{pid}"));
    let status = fs::read_to_string(proc.join("status")).unwrap_or_default();
    let limits = fs::read_to_string(proc.join("limits")).unwrap_or_default();
    Some(Machine {
        name: named(&command).unwrap_or_else(|| pid.to_string()),
        origin: Origin::Hand,
        pid: Some(pid),
        user: fs::metadata(&proc).map(|it| it.uid()).unwrap_or_default(),
        groups: groups(&status),
        net_admin: capable(&status),
        descriptors: descriptors(&proc),
        descriptor_limit: file_limit(&limits, 0),
        descriptor_limit_hard: file_limit(&limits, 1),
        threads: threads(&proc),
        namespace: namespace(pid),
        age: age(&proc),
        confined: guards::label(&proc),
        passthrough: devices::passed(&command),
        huge_paths: devices::huge_paths(&command),
        command,
        ..Machine::default()
    })
}

pub(super) fn of_command(words: &[String]) -> Machine {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    Machine {
        name: named(words).unwrap_or_else(|| "the command".into()),
        origin: Origin::Command,
        user: process::geteuid().as_raw(),
        groups: groups(&status),
        net_admin: capable(&status),
        descriptor_limit: file_limit(&limits, 0),
        descriptor_limit_hard: file_limit(&limits, 1),
        namespace: namespace("self"),
        passthrough: devices::passed(words),
        huge_paths: devices::huge_paths(words),
        command: words.to_vec(),
        ..Machine::default()
    }
}

fn is_qemu(words: &[String]) -> bool {
    let name = words.first().and_then(|word| Path::new(word).file_name());
    name.and_then(|name| name.to_str())
        .is_some_and(|name| name.starts_with("qemu-system-") || name == "qemu-kvm" || name == "kvm")
}

fn named(words: &[String]) -> Option<String> {
    let command = Command::parse(words);
    let name = command.last("name")?;
    let name = name.get("guest").unwrap_or(name.kind());
    (!name.is_empty()).then(|| name.to_owned())
}

/// The effective group, and the others.
fn groups(status: &str) -> Vec<u32> {
    let mut groups: Vec<u32> = numbers(status, "Gid:")
        .into_iter()
        .skip(1)
        .take(1)
        .collect();
    groups.extend(numbers(status, "Groups:"));
    groups.dedup();
    groups
}

fn numbers(status: &str, field: &str) -> Vec<u32> {
    let line = status.lines().find_map(|line| line.strip_prefix(field));
    let words = line.unwrap_or_default().split_whitespace();
    words.filter_map(|word| word.parse().ok()).collect()
}

/// CAP_NET_ADMIN among the effective capabilities (linux/capability.h: 12).
fn capable(status: &str) -> bool {
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let mask = line.and_then(|it| u64::from_str_radix(it.trim(), 16).ok());
    mask.is_some_and(|mask| mask & (1 << 12) != 0)
}

/// Seconds since a process began: field 22 of `stat`, in ticks since the host booted.
fn age(proc: &Path) -> Option<u64> {
    let stat = fs::read_to_string(proc.join("stat")).ok()?;
    // The second field is the program's name in parentheses, which may hold anything.
    let (_, rest) = stat.rsplit_once(')')?;
    let began: u64 = rest.split_whitespace().nth(19)?.parse().ok()?;
    let up = fs::read_to_string("/proc/uptime").ok()?;
    let up: u64 = up.split('.').next()?.parse().ok()?;
    Some(up.saturating_sub(began / clock_ticks_per_second().max(1)))
}

/// The soft limit, or the hard one after it.
fn file_limit(limits: &str, which: usize) -> Option<u64> {
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().nth(which)?.parse().ok()
}

fn descriptors(proc: &Path) -> Vec<Descriptor> {
    let Ok(entries) = fs::read_dir(proc.join("fd")) else {
        return Vec::new();
    };
    let one = |entry: fs::DirEntry| {
        let number: i32 = entry.file_name().to_str()?.parse().ok()?;
        let target = fs::read_link(entry.path()).ok()?.display().to_string();
        let tap = (target == "/dev/net/tun").then(|| tap(proc, number));
        Some(Descriptor {
            number,
            target,
            tap: tap.flatten(),
        })
    };
    let mut found: Vec<Descriptor> = entries.flatten().filter_map(one).collect();
    found.sort_by_key(|it| it.number);
    found
}

fn threads(proc: &Path) -> Vec<Thread> {
    let Ok(entries) = fs::read_dir(proc.join("task")) else {
        return Vec::new();
    };
    let one = |entry: fs::DirEntry| {
        let id = entry.file_name().to_str()?.parse().ok()?;
        let name = fs::read_to_string(entry.path().join("comm")).ok()?;
        Some(Thread {
            id,
            name: name.trim().to_owned(),
        })
    };
    let mut found: Vec<Thread> = entries.flatten().filter_map(one).collect();
    found.sort_by_key(|it| it.id);
    found
}
